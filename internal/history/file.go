package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	sqlite "modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"immuaudit/evidence"
)

const (
	fileName = "history.db"
	asideBy  = ".aside-" // a file that could not be used, with the date
	maxAside = 3         // of them are left; the oldest goes

	// applicationID marks a history ("imah"), userVersion its layout.
	applicationID = 0x696d6168
	userVersion   = 1

	busyTimeout = 10 * time.Second
	// wholeBelow: a file up to this size is read as a whole when it is opened.
	wholeBelow = 64 << 20
)

// tables is the layout, compared word for word when a history is opened. Times
// are in microseconds since 1970. level is 0 for stretches as they were made, 1
// for those of an hour, 2 for those of a day.
var tables = [...]struct{ name, text string }{
	{"ledger", `CREATE TABLE ledger (
  id       INTEGER PRIMARY KEY,
  server   TEXT    NOT NULL,
  database TEXT    NOT NULL,
  usual    INTEGER NOT NULL,
  UNIQUE (server, database)
) STRICT`},
	{"stretch", `CREATE TABLE stretch (
  ledger   INTEGER NOT NULL,
  began    INTEGER NOT NULL,
  ended    INTEGER NOT NULL,
  level    INTEGER NOT NULL,
  verdict  INTEGER NOT NULL,
  flags    INTEGER NOT NULL,
  kind     TEXT    NOT NULL,
  reason   TEXT    NOT NULL,
  rounds   INTEGER NOT NULL,
  sound    INTEGER NOT NULL,
  first_tx INTEGER NOT NULL,
  last_tx  INTEGER NOT NULL,
  last_alh BLOB    NOT NULL,
  verified INTEGER NOT NULL,
  took     INTEGER NOT NULL,
  slowest  INTEGER NOT NULL,
  longest  INTEGER NOT NULL,
  PRIMARY KEY (ledger, began)
) STRICT, WITHOUT ROWID`},
	{"stretch_level", `CREATE INDEX stretch_level ON stretch (level, began)`},
	{"run", `CREATE TABLE run (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  started INTEGER NOT NULL,
  alive   INTEGER NOT NULL,
  ended   INTEGER NOT NULL,
  version TEXT    NOT NULL
) STRICT`},
}

// errUnfit is a file that is not, or no longer, a history.
var errUnfit = errors.New("it is no history that this program can use")

func fileIn(dir string) string { return filepath.Join(dir, fileName) }

func connect(path string, connections int, readOnly bool) (*sql.DB, error) {
	parameters := url.Values{
		"mode":          {"rw"}, // not rwc: made by us, with its mode, or not at all
		"_busy_timeout": {strconv.FormatInt(busyTimeout.Milliseconds(), 10)},
		"_synchronous":  {"NORMAL"},
		"_defensive":    {"1"},
		"_dqs":          {"0"},
		"_error_rc":     {"1"},
		"_txlock":       {"immediate"},
		"_pragma": {
			"trusted_schema(off)", "cell_size_check(on)", "mmap_size(0)",
			"temp_store(memory)", "cache_size(-2048)", "journal_size_limit(16777216)",
		},
	}
	if readOnly {
		parameters.Set("_query_only", "on")
		parameters.Set("_txlock", "deferred")
	}
	name := url.URL{Scheme: "file", Path: path, OmitHost: true, RawQuery: parameters.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("preparing to open %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// openExisting opens for reading only, and leaves the file as it is.
func (h *History) openExisting(ctx context.Context) error {
	if err := checkFile(h.path); err != nil {
		return err
	}
	var err error
	if h.reader, err = connect(h.path, 2, true); err != nil {
		return err
	}
	return recognise(ctx, h.reader)
}

// openOrBegin opens for writing. A file that cannot be used is set aside.
func (h *History) openOrBegin(ctx context.Context, now time.Time) error {
	err := h.openForWriting(ctx, now)
	if err == nil || !unfit(err) {
		return err
	}
	if closed := h.closeFiles(); closed != nil {
		h.log.Warn("closing a history that cannot be used", "file", h.path, "error", closed)
	}
	aside, moved := setAside(h.path, now)
	if moved != nil {
		return errors.Join(err, moved)
	}
	h.problem = fmt.Errorf("%s: %w; it was moved to %s and the history begins anew: what was before is missing in plots and reports, trust and incidents are not touched",
		h.path, err, aside)
	return h.openForWriting(ctx, now)
}

func (h *History) openForWriting(ctx context.Context, now time.Time) error {
	err := checkFile(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = create(h.path)
	}
	if err != nil {
		return err
	}
	if h.writer, err = connect(h.path, 1, false); err != nil {
		return err
	}
	if err := begin(ctx, h.writer); err != nil {
		return err
	}
	if err := recognise(ctx, h.writer); err != nil {
		return err
	}
	if h.reader, err = connect(h.path, 2, true); err != nil {
		return err
	}
	if err := h.load(ctx); err != nil {
		return err
	}
	made, err := h.writer.ExecContext(ctx, "INSERT INTO run (started, alive, ended, version) VALUES (?, ?, 0, ?)", now.UnixMicro(), now.UnixMicro(), h.version)
	if err != nil {
		return err
	}
	h.run, err = made.LastInsertId()
	return err
}

// load reads what is to be kept in mind of each ledger: when its last round
// was, so that what follows is known to follow it.
func (h *History) load(ctx context.Context) error {
	rows, err := h.writer.QueryContext(ctx, `SELECT id, server, database, usual,
  coalesce((SELECT ended FROM stretch WHERE ledger = id ORDER BY began DESC LIMIT 1), 0) FROM ledger LIMIT ?`, maxLedgers)
	if err != nil {
		return err
	}
	defer rows.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for rows.Next() {
		var row, usual, ended int64
		var name evidence.Name
		if err := rows.Scan(&row, &name.Server, &name.Database, &usual, &ended); err != nil {
			return err
		}
		i, known := h.index[name]
		if !known {
			i, _ = h.add(name)
		}
		t := h.tracks[i]
		t.row = row
		if t.rounds == 0 && usual >= 0 && usual < 1<<30 {
			t.usual, t.from, t.to = uint32(usual), ended, ended
		}
	}
	return rows.Err()
}

// checkFile looks at the file before SQLite does: one that others can write is
// used by nobody who takes it for the auditor's.
func checkFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", errUnfit)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%w: mode %04o lets others write", errUnfit, info.Mode().Perm())
	}
	return nil
}

// create makes an empty file, readable by its owner alone, and gives it to the
// owner of the directory where root makes it for the user of a service.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), adopt(f, filepath.Dir(path)), f.Close())
}

// begin makes the layout in a file that is empty.
func begin(ctx context.Context, db *sql.DB) (err error) {
	var application, things int64
	if err := db.QueryRowContext(ctx, "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id").Scan(&application, &things); err != nil {
		return err
	}
	if application != 0 || things != 0 {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	statements := []string{fmt.Sprintf("PRAGMA application_id = %d", applicationID), fmt.Sprintf("PRAGMA user_version = %d", userVersion)}
	for _, t := range tables {
		statements = append(statements, t.text)
	}
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
	return err
}

// recognise refuses every database but one of ours.
func recognise(ctx context.Context, db *sql.DB) error {
	var application, version, pages, size int64
	row := db.QueryRowContext(ctx, `SELECT application_id, user_version, page_count, page_size
  FROM pragma_application_id, pragma_user_version, pragma_page_count, pragma_page_size`)
	if err := row.Scan(&application, &version, &pages, &size); err != nil {
		return err
	}
	if application != applicationID || version != userVersion {
		return fmt.Errorf("%w: application id %#x, version %d", errUnfit, uint32(application), version)
	}
	if err := checkLayout(ctx, db); err != nil {
		return err
	}
	if pages*size > wholeBelow {
		return nil
	}
	var says string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&says); err != nil {
		return err
	}
	if says != "ok" {
		return fmt.Errorf("%w: %.200q", errUnfit, says)
	}
	return nil
}

func checkLayout(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "SELECT name, coalesce(sql, '') FROM sqlite_schema LIMIT 100")
	if err != nil {
		return err
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return err
		}
		i := slices.IndexFunc(tables[:], func(t struct{ name, text string }) bool { return t.name == name && t.text == text })
		switch {
		case i >= 0:
			found++
		case name == "sqlite_sequence", strings.HasPrefix(name, "sqlite_autoindex_") && text == "":
		default:
			return fmt.Errorf("%w: %.40q is not as this program made it", errUnfit, name)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if found != len(tables) {
		return fmt.Errorf("%w: tables are missing", errUnfit)
	}
	return nil
}

// setAside renames a file that cannot be used, and what SQLite keeps beside it.
func setAside(path string, now time.Time) (string, error) {
	aside := path + asideBy + now.UTC().Format("20060102T150405.000000")
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("setting the history aside: %w; move it away by hand", err)
	}
	for _, with := range [...]string{"-wal", "-shm", "-journal"} {
		if err := os.Rename(path+with, aside+with); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("setting the history aside: %w; move it away by hand", err)
		}
	}
	// A disk that damages every file must not be filled with them.
	old, err := filepath.Glob(path + asideBy + "*[0-9]")
	if err != nil {
		return "", err
	}
	slices.Sort(old)
	for _, file := range old[:max(0, len(old)-maxAside)] {
		for _, with := range [...]string{"", "-wal", "-shm", "-journal"} {
			if err := os.Remove(file + with); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("removing an old history: %w", err)
			}
		}
	}
	return aside, nil
}

// unfit reports whether an error is about the file itself, so that another one
// in its place would do.
func unfit(err error) bool {
	if errors.Is(err, errUnfit) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_FORMAT:
		return true
	}
	return false
}

// explain says where it happened and what to do next.
func explain(path string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("the history %s: %w; auditing does not need it: make room on the disk, let the auditor's user read and write the file, or move it away", path, err)
}

func (h *History) closeFiles() error {
	h.dbMu.Lock()
	defer h.dbMu.Unlock()
	var errs []error
	for _, db := range []*sql.DB{h.reader, h.writer} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	h.reader, h.writer = nil, nil
	return errors.Join(errs...)
}

package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// applicationID marks a state.db as ours ("imau"), userVersion its layout.
	applicationID = 0x696d6175
	userVersion   = 3

	busyTimeout = 10 * time.Second
)

// tables is the layout. It is compared word for word when a state is opened,
// so that no trigger or view that somebody added can change what is written.
var tables = map[string]string{
	"meta": `CREATE TABLE meta (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  state_id BLOB    NOT NULL,
  commits  INTEGER NOT NULL,
  digest   BLOB    NOT NULL
) STRICT`,
	"trust": `CREATE TABLE trust (
  id         INTEGER PRIMARY KEY,
  server     TEXT    NOT NULL,
  database   TEXT    NOT NULL,
  version    INTEGER NOT NULL,
  proven     INTEGER NOT NULL,
  proven_alh BLOB    NOT NULL,
  base       BLOB    NOT NULL,
  body       BLOB    NOT NULL,
  walk       BLOB    NOT NULL,
  sum        BLOB    NOT NULL,
  UNIQUE (server, database)
) STRICT`,
	"mark": `CREATE TABLE mark (
  trust INTEGER NOT NULL REFERENCES trust (id),
  tx    INTEGER NOT NULL,
  alh   BLOB    NOT NULL,
  sum   BLOB    NOT NULL,
  PRIMARY KEY (trust, tx)
) STRICT, WITHOUT ROWID`,
	"incident": `CREATE TABLE incident (
  id       TEXT    NOT NULL PRIMARY KEY,
  server   TEXT    NOT NULL,
  database TEXT    NOT NULL,
  version  INTEGER NOT NULL,
  status   TEXT    NOT NULL,
  opened   INTEGER NOT NULL,
  body     BLOB    NOT NULL,
  sum      BLOB    NOT NULL
) STRICT`,
	"event": `CREATE TABLE event (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  sequence INTEGER NOT NULL,
  server   TEXT    NOT NULL,
  database TEXT    NOT NULL,
  type     TEXT    NOT NULL,
  lasting  INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  body     BLOB    NOT NULL,
  sum      BLOB    NOT NULL
) STRICT`,
	"event_at":      `CREATE INDEX event_at ON event (at, seq)`,
	"event_passing": `CREATE INDEX event_passing ON event (seq) WHERE lasting = 0`,
	"event_lasting": `CREATE INDEX event_lasting ON event (type, seq) WHERE lasting = 1`,
	"outbox": `CREATE TABLE outbox (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  sequence    INTEGER NOT NULL,
  sink        TEXT    NOT NULL,
  server      TEXT    NOT NULL,
  database    TEXT    NOT NULL,
  type        TEXT    NOT NULL,
  replaceable INTEGER NOT NULL,
  urgent      INTEGER NOT NULL,
  queued      INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,
  next_try    INTEGER NOT NULL,
  last_err    TEXT    NOT NULL,
  body        BLOB    NOT NULL,
  sum         BLOB    NOT NULL
) STRICT`,
	"outbox_due":  `CREATE INDEX outbox_due ON outbox (sink, urgent DESC, next_try, id)`,
	"outbox_next": `CREATE INDEX outbox_next ON outbox (next_try)`,
	"outbox_same": `CREATE INDEX outbox_same ON outbox (sink, server, database, type) WHERE replaceable = 1`,
	"sink": `CREATE TABLE sink (
  name        TEXT    NOT NULL PRIMARY KEY,
  sent        INTEGER NOT NULL,
  failed      INTEGER NOT NULL,
  last_ok     INTEGER NOT NULL,
  last_err    TEXT    NOT NULL,
  last_err_at INTEGER NOT NULL,
  sum         BLOB    NOT NULL
) STRICT, WITHOUT ROWID`,
}

// creation is the order in which the layout is made.
var creation = [...]string{"meta", "trust", "mark", "incident", "event", "event_at", "event_passing", "event_lasting", "outbox", "outbox_due", "outbox_next", "outbox_same", "sink"}

// openDatabase prepares a pool of connections to a file that exists. The
// first connection is made when it is first used.
func openDatabase(path string, connections int, readOnly bool) (*sql.DB, error) {
	parameters := url.Values{
		// rw, not rwc: a file that vanished meanwhile is not to be made anew.
		"mode":          {"rw"},
		"_busy_timeout": {strconv.FormatInt(busyTimeout.Milliseconds(), 10)},
		"_foreign_keys": {"on"},
		"_synchronous":  {"FULL"},
		"_defensive":    {"1"},
		"_dqs":          {"0"},
		"_error_rc":     {"1"},
		"_pragma": {
			"trusted_schema(off)", "cell_size_check(on)", "mmap_size(0)",
			"temp_store(memory)", "cache_size(-2048)", "journal_size_limit(16777216)",
		},
	}
	if readOnly {
		parameters.Set("_query_only", "on")
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

// querier is a connection, a transaction or a pool.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// recognise refuses every database but a whole one of ours: whose it is, in
// which version, whether its layout is the one we made, and whether its pages
// hang together.
func recognise(ctx context.Context, q querier, path string) error {
	var application, version int64
	if err := q.QueryRowContext(ctx, "PRAGMA application_id").Scan(&application); err != nil {
		return explain(path, err)
	}
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return explain(path, err)
	}
	if application != applicationID {
		return &Error{Kind: ErrForeign, Path: path, What: fmt.Sprintf("application id %#x", uint32(application)), Next: "move it away, or name another directory with --dir"}
	}
	if version != userVersion {
		return &Error{Kind: ErrVersion, Path: path, What: fmt.Sprintf("version %d, this program knows version %d", version, userVersion), Next: "use the version of the program that wrote it"}
	}
	if err := checkLayout(ctx, q, path); err != nil {
		return err
	}
	// Unlike quick_check this also compares the indexes with their tables; a
	// state is small enough for it.
	rows, err := q.QueryContext(ctx, "PRAGMA integrity_check(3)")
	if err != nil {
		return explain(path, err)
	}
	defer rows.Close()
	var complaints []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return explain(path, err)
		}
		if line != "ok" {
			complaints = append(complaints, line)
		}
	}
	if err := rows.Err(); err != nil {
		return explain(path, err)
	}
	if len(complaints) > 0 {
		return damaged(path, "%.200s", strings.Join(complaints, ", "))
	}
	return nil
}

func checkLayout(ctx context.Context, q querier, path string) error {
	rows, err := q.QueryContext(ctx, "SELECT name, coalesce(sql, '') FROM sqlite_schema")
	if err != nil {
		return explain(path, err)
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return explain(path, err)
		}
		switch {
		case tables[name] != "" && tables[name] == text:
			found++
		case name == "sqlite_sequence", strings.HasPrefix(name, "sqlite_autoindex_") && text == "":
		default:
			return damaged(path, "%.40q is not as this program made it", name)
		}
	}
	if err := rows.Err(); err != nil {
		return explain(path, err)
	}
	if found != len(tables) {
		return damaged(path, "%d of its %d tables and indexes are missing", len(tables)-found, len(tables))
	}
	return nil
}

func damaged(path, format string, args ...any) error {
	return &Error{Kind: ErrDamaged, Path: path, What: fmt.Sprintf(format, args...), Next: nextRestore}
}

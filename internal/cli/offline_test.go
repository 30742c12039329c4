package cli_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"immuaudit/evidence"
	"immuaudit/internal/cli"
	"immuaudit/internal/store"
	"immuaudit/proof"
)

// offline runs verify --offline over DIR/state.
func offline(t *testing.T, dir string, args ...string) (code int, out string) {
	t.Helper()
	var text bytes.Buffer // in this process, which is quicker
	env := cli.Env{Stdout: &text, Stderr: &text, Environ: isolated(dir), WorkDir: dir}
	code = cli.Run(t.Context(), append([]string{"verify", "--offline"}, args...), env)
	return code, text.String()
}

// soundOffline demands that everything fits.
func soundOffline(t *testing.T, dir string) string {
	t.Helper()
	code, out := offline(t, dir)
	if code != 0 || strings.Contains(out, "PROBLEM") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	return out
}

// left is a state directory and its guard as an auditor left them: 600 signed
// transactions of shop, and an incident that is open over old.
var left = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "left-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := newTestServer(dir, "key=signer")
	if err != nil {
		return nil, err
	}
	defer s.Close()
	once := func(want int, args ...string) {
		var text bytes.Buffer
		args = append(args, "-a", s.Addr(), "--audit-server", "p")
		if code := cli.Run(context.Background(), args, cli.Env{Stdout: &text, Stderr: &text, Environ: isolated(dir), WorkDir: dir}); code != want && err == nil {
			err = fmt.Errorf("%v: exit code %d:\n%s", args, code, &text)
		}
	}
	do := func(verb string, args ...string) {
		if failed := s.do(&bytes.Buffer{}, verb, args...); failed != nil && err == nil {
			err = failed
		}
	}
	do("create", "shop")
	do("write", "shop", "590")
	do("create", "old")
	do("write", "old", "20")
	once(0, "verify")
	do("snapshot", "old", "before")
	do("write", "shop", "10")
	do("write", "old", "2")
	once(0, "verify")
	do("restore", "old", "before")
	once(3, "audit-mode", "--once")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	return files, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err == nil && strings.HasPrefix(name, "state") {
			files[name], err = os.ReadFile(p)
		}
		return err
	})
})

// leftState puts the files where a test can change them.
func leftState(t *testing.T, files map[string][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestOfflineEveryFile: a changed, cut or missing file of the state directory
// is found and named, whichever it is.
func TestOfflineEveryFile(t *testing.T) {
	t.Parallel()
	files, err := left()
	if err != nil {
		t.Fatal(err)
	}
	dir := leftState(t, files)
	if code, out := offline(t, dir); code != 3 || strings.Contains(out, "PROBLEM") || strings.Count(out, "CONSISTENT") != 2 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	seen := map[string]bool{}
	for name, good := range files {
		kind := filepath.Base(filepath.Dir(name))
		if name == "state/auditor.lock" || strings.HasPrefix(name, "state/history.db") { // nothing is trusted because of it
			continue
		}
		seen[kind] = true
		p := filepath.Join(dir, name)
		// What names the damage: the file, or what stands in it.
		named := filepath.ToSlash(name)
		if name == "state/state.id" {
			named = "state.id"
		}
		if name == "state/auditor.key" {
			named = "auditor"
		}
		try := func(harm string, data []byte) {
			t.Helper()
			if err := os.WriteFile(p, data, 0o600); err != nil {
				t.Fatal(err)
			}
			code, out := offline(t, dir)
			problem := strings.Contains(out, "PROBLEM") || code == 1 && strings.Contains(out, "immuclient: ")
			if code == 0 || !problem || !strings.Contains(filepath.ToSlash(out), named) {
				t.Errorf("%s, %s: exit code %d:\n%s", name, harm, code, out)
			}
		}
		if name != "state/state.db" { // see TestOfflineEveryRow
			for at := 0; at < len(good); at += 1 + len(good)/6 {
				try(fmt.Sprintf("byte %d flipped", at), flipped(good, at))
			}
			try("last byte flipped", flipped(good, len(good)-1))
		}
		if kind != "states" { // a crash leaves the file of a day like that
			try("cut", good[:len(good)/2])
			try("emptied", nil)
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			if code, out := offline(t, dir, "--state-guard", filepath.Join(dir, "state.guard")); code == 0 || code == 3 && !strings.Contains(out, "PROBLEM") {
				t.Errorf("%s, removed: exit code %d:\n%s", name, code, out)
			}
		}
		if err := os.WriteFile(p, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"0", "002.p", "000.p", "states", "evidence", "state", "."} {
		if !seen[kind] {
			t.Errorf("nothing in %s was changed", kind)
		}
	}
	if code, out := offline(t, dir); code != 3 || strings.Contains(out, "PROBLEM") {
		t.Errorf("afterwards: exit code %d:\n%s", code, out)
	}
}

func flipped(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 1
	return data
}

// TestOfflineEveryRow: whatever is changed with SQL is found.
func TestOfflineEveryRow(t *testing.T) {
	t.Parallel()
	files, err := left()
	if err != nil {
		t.Fatal(err)
	}
	// Not summed: the number of an event's row, and what a delivery has gone through.
	loose := map[string]bool{"event.seq": true, "outbox.attempts": true, "outbox.next_try": true, "outbox.last_err": true}
	changed := map[string]int{}
	for _, table := range []string{"meta", "trust", "mark", "incident", "event", "outbox"} {
		for _, column := range columnsOf(t, files, table) {
			if loose[table+"."+column] {
				continue
			}
			dir := leftState(t, files)
			n, err := edited(dir, fmt.Sprintf(`UPDATE %[1]s SET %[2]s = CASE typeof(%[2]s)
				WHEN 'integer' THEN %[2]s - 1 WHEN 'text' THEN %[2]s || 'x'
				ELSE CAST(substr(%[2]s, 1, length(%[2]s) - 1) || CASE WHEN substr(%[2]s, -1) = x'00' THEN x'01' ELSE x'00' END AS BLOB) END`, table, column))
			if err != nil && !strings.Contains(err.Error(), "constraint") {
				t.Fatal(table, column, err)
			}
			if n == 0 {
				continue
			}
			changed[table]++
			if code, out := offline(t, dir); code != 1 && !strings.Contains(out, "PROBLEM") || !strings.Contains(out, "state.db: ") {
				t.Errorf("%s.%s: exit code %d:\n%s", table, column, code, out)
			}
		}
		dir := leftState(t, files)
		if n, err := edited(dir, "DELETE FROM "+table+" WHERE rowid IS NULL OR 1"); err == nil && n > 0 && table != "event" && table != "outbox" {
			if code, out := offline(t, dir); code != 1 || !strings.Contains(out, "state") {
				t.Errorf("rows of %s removed: exit code %d:\n%s", table, code, out)
			}
		}
	}
	for _, table := range []string{"meta", "trust", "mark", "incident", "event"} {
		if changed[table] < 3 {
			t.Errorf("%d columns of %s were changed", changed[table], table)
		}
	}
}

func columnsOf(t *testing.T, files map[string][]byte, table string) (columns []string) {
	t.Helper()
	dir := leftState(t, files)
	db, err := sql.Open("sqlite", filepath.Join(dir, "state", "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		columns = append(columns, name)
	}
	if err := rows.Err(); err != nil || len(columns) == 0 {
		t.Fatal(table, err)
	}
	return columns
}

// edited changes the database behind the auditor's back.
func edited(dir, statement string) (rows int64, err error) {
	db, err := sql.Open("sqlite", filepath.Join(dir, "state", "state.db"))
	if err != nil {
		return 0, err
	}
	defer db.Close()
	result, err := db.Exec(statement)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// TestOfflineEdited: what somebody edits who knows how to make every checksum
// fit does not fit the rest.
func TestOfflineEdited(t *testing.T) {
	t.Parallel()
	files, err := left()
	if err != nil {
		t.Fatal(err)
	}
	name := evidence.Name{Server: "p", Database: "shop"}
	for want, edit := range map[string]func(c *evidence.Change){
		"remembered transaction 580 has the hash": func(c *evidence.Change) { c.Remember = []proof.State{{TxID: 580, Alh: proof.Hash{1}}} },
		"remembered transaction 7 (transaction 7) is mirrored with another hash than is trusted": func(c *evidence.Change) {
			c.Remember = []proof.State{{TxID: 7, Alh: proof.Hash{1}}}
		},
		"has the hash 01000000000": func(c *evidence.Change) { c.Remember = []proof.State{{TxID: 600, Alh: proof.Hash{1}}} },
		"deep verification stands at transaction 0 of 601 that it has seen, and 600 were walked": func(c *evidence.Change) { c.Trust.Scrub.Settled = 601 },
		"deep verification stands at transaction 601 of 600":                                     func(c *evidence.Change) { c.Trust.Scrub.Position = 601 },
		"values before transaction 700 were truncated, it says, and 600 is the newest":           func(c *evidence.Change) { c.Trust.Scrub.Retained = 700 },
		`among the damage that an operator accepted is "fork" of transaction 3`: func(c *evidence.Change) {
			c.Trust.Accepted = []evidence.Finding{{Kind: evidence.Fork, Tx: 3}}
		},
		"its walk stands at transaction 600, the state says 599": func(c *evidence.Change) { c.Trust.Walked, c.Trust.Verified = 599, 0; c.Trust.Scrub = evidence.Scrub{} },
		"its walk cannot be read":                                func(c *evidence.Change) { c.Trust.Walk[40] ^= 1 },
		"its trusted state is not signed by the key in force":    func(c *evidence.Change) { c.Trust.Proven.Signature[20] ^= 1 },
		"it holds 600 transactions, the state knows that 0 were wa": func(c *evidence.Change) {
			c.Trust.Walk, c.Trust.Walked, c.Trust.Verified, c.Trust.Scrub = nil, 0, 0, evidence.Scrub{}
		},
		"of 2026": func(c *evidence.Change) { c.Trust.Key = slices.Concat([]byte{4}, make([]byte, 64)) },
	} {
		dir := leftState(t, files)
		s, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(dir, "state"), Guard: filepath.Join(dir, "state.guard"), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		trust, err := s.Trust(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		c := evidence.Change{Trust: &trust}
		edit(&c)
		if err := s.Apply(t.Context(), c); err != nil {
			t.Fatal(want, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		code, out := offline(t, dir, "--audit-databases", "shop$")
		if code != 1 || !strings.Contains(out, want) || !strings.Contains(out, "UNDETERMINED p/shop") {
			t.Errorf("%s: exit code %d:\n%s", want, code, out)
		}
	}
}

// TestOfflineBorders: nothing is found where nothing was changed, at the sizes
// where tiles begin and end.
func TestOfflineBorders(t *testing.T) {
	t.Parallel()
	s := newServer(t, "key=signer")
	dir := t.TempDir()
	sizes := []int{1, 255, 256, 257, 513, 65_537}
	for _, n := range sizes {
		name := fmt.Sprint("s", n)
		if err := s.CreateDatabase(name); err != nil {
			t.Fatal(err)
		}
		if err := s.write(name, n); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, 1, "audit-mode", "-a", s.Addr(), "--audit-server", "p", "--once")
	soundOffline(t, dir)
	run(t, dir, 0, "verify", "-a", s.Addr(), "--audit-server", "p")
	out := soundOffline(t, dir)
	for _, n := range sizes {
		if want := fmt.Sprintf("holds %d of %d walked transactions, and every tile fits;", n, n); !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	_, out = offline(t, dir, "--json")
	for line := range strings.Lines(out) {
		var v struct {
			Database string
			Verdict  evidence.Verdict
			Offline  struct{ Mirrored, Tiles, Problems uint64 }
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Verdict != evidence.Consistent || v.Offline.Problems != 0 {
			t.Errorf("%v: %s", err, line)
		}
	}
	// Interrupted, it says so and gives no verdict.
	ended, end := context.WithCancel(t.Context())
	end()
	var text bytes.Buffer
	if code := cli.Run(ended, []string{"verify", "--offline"}, cli.Env{Stdout: &text, Stderr: &text, Environ: isolated(dir), WorkDir: dir}); code != 1 || strings.Contains(text.String(), "CONSISTENT") {
		t.Errorf("interrupted: exit code %d:\n%s", code, &text)
	}
}

// TestOfflineBesideAuditor: an auditor that goes on writing does not look like
// damage, and is not held up.
func TestOfflineBesideAuditor(t *testing.T) {
	t.Parallel()
	s := newServer(t, "key=signer")
	if err := s.write("defaultdb", 300); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a := audit(t, dir, s.Addr(), "--audit-interval", "50ms")
	held := uint64(0)
	eventually(t, "the mirror has grown under many looks", func() (bool, error) {
		if err := s.write("defaultdb", 300); err != nil {
			return false, err
		}
		code, out := offline(t, dir, "--json")
		var v struct {
			Offline struct{ Mirrored uint64 }
		}
		if code != 0 || json.Unmarshal([]byte(out), &v) != nil {
			return false, fmt.Errorf("exit code %d:\n%s", code, out)
		}
		held = max(held, v.Offline.Mirrored)
		return held > 5000, nil
	})
	a.stop(os.Interrupt)
	soundOffline(t, dir)
}

// TestOfflineWaitsForIncident: evidence is there a moment before its incident.
func TestOfflineWaitsForIncident(t *testing.T) {
	t.Parallel()
	files, err := left()
	if err != nil {
		t.Fatal(err)
	}
	dir := leftState(t, files)
	key, err := evidence.LoadKey(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fresh := range []bool{true, false} {
		at := time.Now()
		if !fresh {
			at = at.Add(-time.Hour)
		}
		p, err := evidence.Record(filepath.Join(dir, "state", "evidence"), evidence.Material{
			Version: "test", Incident: "20261123-aaaa", Kind: evidence.Vanished, At: at, Name: evidence.Name{Server: "p", Database: "shop"},
			Findings: []evidence.Finding{{Kind: evidence.Vanished, Check: "vanished"}},
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		_, out := offline(t, dir)
		if lost := strings.Contains(out, filepath.Base(p)+": this auditor signed it on "); lost == fresh || fresh && strings.Contains(out, "PROBLEM") {
			t.Errorf("evidence of now: %v:\n%s", fresh, out)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
}

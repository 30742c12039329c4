package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/cli"
)

// world is a ledger to audit, and what it was at each of its transactions.
type world struct {
	*testServer
	t    *testing.T
	alhs map[uint64]string
}

// newWorld is at transaction 5.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{testServer: newServer(t, "uuid=b5s0m3uu1df0rt3st1ng"), t: t, alhs: map[uint64]string{}}
	w.grow(3)
	if err := w.do(nil, "snapshot", "defaultdb", "old"); err != nil {
		t.Fatal(err)
	}
	w.grow(2)
	return w
}

func (w *world) grow(n int) {
	w.t.Helper()
	for range n {
		if err := w.write("defaultdb", 1); err != nil {
			w.t.Error(err)
			return
		}
		tx, alh := w.state()
		w.alhs[tx] = alh
	}
}

func (w *world) state() (uint64, string) {
	w.t.Helper()
	db, err := w.Database("defaultdb")
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	tx, alh := db.State()
	return tx, fmt.Sprintf("%x", alh)
}

// attack replaces what is above transaction 3.
func (w *world) attack() {
	w.t.Helper()
	if err := errors.Join(w.do(nil, "restore", "defaultdb", "old"), w.write("defaultdb", 8)); err != nil {
		w.t.Error(err)
	}
}

// once is one round, told to the receiver of a trial.
func (w *world) once(a *aftermath) []string {
	return append(w.quietly(), "--audit-notification-url", a.hook.url())
}

// quietly is one round that is told to nobody.
func (w *world) quietly() []string {
	return []string{"audit-mode", "-a", w.Addr(), "--audit-server", "tested", "--once", "--json"}
}

// audited is a directory in which some rounds were made.
func (w *world) audited(codes ...int) string {
	w.t.Helper()
	dir := w.t.TempDir()
	for _, code := range codes {
		w.round(dir, code)
	}
	return dir
}

func (w *world) round(dir string, code int) said {
	w.t.Helper()
	s := plain(w.t, dir, w.quietly()...)
	if s.code != code {
		w.t.Fatalf("exit code %d, want %d\n%s%s", s.code, code, s.out, s.log)
	}
	return s
}

// twin is another server with the same ledger.
func (w *world) twin(t *testing.T) *world {
	t.Helper()
	from, err := w.Database("defaultdb")
	if err != nil {
		t.Fatal(err)
	}
	other := &world{testServer: newServer(t, "uuid="+w.UUID()), t: t, alhs: maps.Clone(w.alhs)}
	to, err := other.Database("defaultdb")
	if err != nil {
		t.Fatal(err)
	}
	other.copies["old"] = w.copies["old"]
	if err := to.Restore(from.Snapshot()); err != nil {
		t.Fatal(err)
	}
	return other
}

// memory is what a state directory holds, seen without touching it.
type memory struct {
	ledgers   []trusted
	incidents []caseOf
	text      string // of both, without times
}

type caseOf struct {
	ID     string `json:"incident"`
	Status string
	Kind   evidence.Kind
}

var moments = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)

func (a *aftermath) memory(t *testing.T) (m memory) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	copyTree(t, a.dir, dir)
	for _, list := range []struct {
		args []string
		into any
	}{{[]string{"trust", "list", "--json"}, &m.ledgers}, {[]string{"incident", "list", "--all", "--json"}, &m.incidents}} {
		code, out := ask(t, dir, list.args...)
		if code != 0 && code != 3 {
			t.Fatalf("%v: exit code %d\n%s", list.args, code, out)
		}
		if err := json.Unmarshal([]byte("["+strings.ReplaceAll(strings.TrimSpace(out), "\n", ",")+"]"), list.into); err != nil {
			t.Fatalf("%v: %v\n%s", list.args, err, out)
		}
		m.text += moments.ReplaceAllString(out, "then")
	}
	return m
}

// ask runs a command in this process, which is quicker.
func ask(t *testing.T, dir string, args ...string) (code int, out string) {
	t.Helper()
	var text, log strings.Builder
	code = cli.Run(t.Context(), args, cli.Env{Stdout: &text, Stderr: &log, Environ: isolated(dir), WorkDir: dir})
	if code != 0 && code != 3 {
		return code, text.String() + log.String()
	}
	return code, text.String()
}

// sound checks that all parts of the state directory fit each other again. Of
// evidence whose incident was never stored there may be more than of incidents.
func (a *aftermath) sound(t *testing.T) {
	t.Helper()
	code, out := ask(t, a.dir, "trust", "check", "--json")
	for line := range strings.Lines(out) {
		var c struct{ Check, Result, Detail string }
		err := json.Unmarshal([]byte(line), &c)
		orphan := c.Check == "evidence" && strings.Contains(c.Detail, "there is no incident")
		if err != nil || c.Result == "problem" && !orphan {
			t.Errorf("trust check: exit code %d, %v\n%s", code, err, out)
			return
		}
	}
}

// last is the newest verdict that was told.
func (s *said) last(v evidence.Verdict) *evidence.Report {
	for i := len(s.reports) - 1; i >= 0; i-- {
		if s.reports[i].Verdict == v {
			return &s.reports[i]
		}
	}
	return nil
}

// honest checks what is remembered of a ledger that was met at transaction 5.
func (w *world) honest(t *testing.T, m memory, atLeast uint64) {
	t.Helper()
	if len(m.ledgers) != 1 || len(m.incidents) != 0 {
		t.Fatalf("remembered: %s", m.text)
	}
	got := m.ledgers[0]
	if got.Trusted.Tx < atLeast || w.alhs[got.Trusted.Tx] != got.Trusted.Alh {
		t.Errorf("transaction %d %s is trusted, and at least %d was acknowledged", got.Trusted.Tx, got.Trusted.Alh, atLeast)
	}
	if w.alhs[got.Baseline.Tx] != got.Baseline.Alh || got.Baseline.Tx < 5 || got.Assurance.Walked > got.Trusted.Tx || got.Origin != "first-contact" {
		t.Errorf("remembered: %s", m.text)
	}
}

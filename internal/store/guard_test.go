package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// witnessed makes a closed state with something in it, and its guard. It gives
// the directory; the guard is beside it.
func witnessed(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	for n := range 3 {
		trust := trustAt(ledger("prod", fmt.Sprint(n)), 0, 10)
		apply(t, s, evidence.Change{Trust: &trust, Incidents: []evidence.Incident{incidentOf(trust.Name, fmt.Sprintf("i-%d", n), 0)}})
	}
	finish(t, s)
	return dir
}

// moveOn makes another change of a closed state.
func moveOn(t testing.TB, o Options) {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	name := ledger("prod", "0")
	old, err := s.Trust(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	trust := trustAt(name, old.Version, old.Proven.TxID+1)
	apply(t, s, evidence.Change{Trust: &trust})
	finish(t, s)
}

func readGuard(t testing.TB, dir string) guard {
	t.Helper()
	g, err := (&place{path: guarded(dir).Guard}).read()
	if err != nil || g == nil {
		t.Fatalf("reading the guard: %v, %v", g, err)
	}
	return *g
}

func putBack(t testing.TB, dir, copied string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.Rename(copied, dir)); err != nil {
		t.Fatal(err)
	}
}

// TestGuardIsAsDocumented: the example in the package's comment is what is
// written, and nothing else is read.
func TestGuardIsAsDocumented(t *testing.T) {
	t.Parallel()
	now := standing{
		watermark: watermark{id: [16]byte{0x0f, 0x8f}, commits: 1234},
		proven:    map[evidence.Name]proof.State{ledger("prod", "shop"): stateAt(9), ledger("prod", "books"): stateAt(7)},
	}
	text := string(now.guard(noon).text())
	source, err := os.ReadFile("store.go")
	if err != nil {
		t.Fatal(err)
	}
	if example := "//\t" + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n//\t") + "\n"; !bytes.Contains(source, []byte(example)) {
		t.Errorf("the comment of the package does not show:\n%s", example)
	}
	g, err := parseGuard([]byte(text))
	if err != nil || g != now.guard(noon) {
		t.Errorf("%+v is read as %+v, %v", now.guard(noon), g, err)
	}
	for name, changed := range map[string]string{
		"empty": "", "cut": text[:len(text)-1], "longer": text + "\n", "without its sum": text[:strings.Index(text, "sum")],
		"another number": strings.Replace(text, "1234", "1235", 1), "a sign": strings.Replace(text, "1234", "+1234", 1),
		"capitals": strings.Replace(text, "0f8f", "0F8F", 1), "a blank more": strings.Replace(text, "sequence ", "sequence  ", 1),
		"another order": strings.Replace(text, "sequence 1234\nledgers 2", "ledgers 2\nsequence 1234", 1),
	} {
		if _, err := parseGuard([]byte(changed)); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
	if _, err := parseGuard([]byte(strings.Replace(text, "guard 1", "guard 2", 1))); err == nil || !strings.Contains(err.Error(), `it has version "2", this program knows version 1`) {
		t.Errorf("another version: %v", err)
	}
}

func FuzzGuard(f *testing.F) {
	now := standing{proven: map[evidence.Name]proof.State{}}
	f.Add(now.guard(noon).text())
	f.Add([]byte(guardHead + "1\nstate \nsequence \nledgers \nhash \nwritten \nsum \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if g, err := parseGuard(text); err == nil && !bytes.Equal(g.text(), text) {
			t.Errorf("%q is read as %q", text, g.text())
		}
	})
}

// TestGuardCoversEverything: whatever of the trust differs, the hash does.
func TestGuardCoversEverything(t *testing.T) {
	t.Parallel()
	base := func() *standing {
		return &standing{proven: map[evidence.Name]proof.State{ledger("a", "bc"): stateAt(1), ledger("d", "e"): stateAt(2)}}
	}
	seen := map[[32]byte]string{}
	for name, change := range map[string]func(*standing){
		"nothing":                 func(*standing) {},
		"a transaction":           func(s *standing) { s.proven[ledger("d", "e")] = proof.State{TxID: 3, Alh: stateAt(2).Alh} },
		"an Alh":                  func(s *standing) { s.proven[ledger("d", "e")] = proof.State{TxID: 2, Alh: stateAt(3).Alh} },
		"a ledger less":           func(s *standing) { delete(s.proven, ledger("d", "e")) },
		"a ledger more":           func(s *standing) { s.proven[ledger("d", "f")] = stateAt(2) },
		"another border of names": func(s *standing) { delete(s.proven, ledger("a", "bc")); s.proven[ledger("ab", "c")] = stateAt(1) },
		"two exchanged": func(s *standing) {
			s.proven[ledger("a", "bc")], s.proven[ledger("d", "e")] = s.proven[ledger("d", "e")], s.proven[ledger("a", "bc")]
		},
		"an incident": func(s *standing) { s.digest[0] = 1 },
	} {
		s := base()
		change(s)
		if other, ok := seen[s.hash()]; ok {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[s.hash()] = name
	}
}

// TestGuardRefuses is the table of what a guard keeps from going on unnoticed.
// Each text is what the operator reads: DIR and GUARD stand for their paths.
func TestGuardRefuses(t *testing.T) {
	t.Parallel()
	put := func(text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(guarded(dir).Guard, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	edit := func(statement string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := execute(filepath.Join(dir, fileState), statement); err != nil {
				t.Fatal(err)
			}
		}
	}
	rest := func(paths ...func(dir string) error) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, do := range paths {
				if err := do(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	guard := func(dir string) string { return guarded(dir).Guard }
	for name, test := range map[string]struct {
		do   func(*testing.T, string)
		kind error
		says string
	}{
		"the directory rolled back": {func(t *testing.T, dir string) {
			older := copyDir(t, dir)
			for range 3 {
				moveOn(t, guarded(dir))
			}
			putBack(t, dir, older)
		}, ErrRolledBack, "DIR/state.db: the state is older than what was acknowledged: it is at change 4, and 3 behind what the guard GUARD witnessed on TIME; " +
			"restore the newest copy of the whole directory; to go on with this older copy, forgetting what was proven since, move GUARD away"},
		"the directory deleted": {rest(os.RemoveAll), ErrGone,
			"DIR: the state is gone, but traces of it are left: the state that the guard GUARD witnessed at change 4, on TIME, is not there; " +
				"restore the newest copy of the whole directory; to begin anew, with no memory of what was proven, move GUARD away"},
		"the directory emptied": {rest(os.RemoveAll, func(dir string) error { return os.Mkdir(dir, 0o700) }), ErrGone,
			"DIR: the state is gone, but traces of it are left: the state that the guard GUARD witnessed at change 4, on TIME, is not there; " +
				"restore the newest copy of the whole directory; to begin anew, with no memory of what was proven, move GUARD away"},
		"begun anew behind its back": {func(t *testing.T, dir string) {
			o := guarded(dir)
			o.Guard = ""
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			finish(t, s)
		}, ErrGuardForeign, "GUARD: this guard belongs to another state; name the state's own guard with --state-guard, or its directory with --dir; " +
			"if this state is to be trusted without the one before it, move GUARD away"},
		// Rows that are kept whole by somebody who knows how.
		"an incident taken out": {edit("UPDATE meta SET digest = zeroblob(32); DELETE FROM incident; DELETE FROM mark; DELETE FROM trust"), ErrEdited,
			"DIR/state.db: the state is not what was acknowledged: at change 4 the guard GUARD witnessed, on TIME, other records than are there; " +
				"find out who can write there, and restore the whole directory from one backup; to go on with what was made of it, move GUARD away"},
		"cut": {put("immuaudit guard 1\nstate 00"), ErrGuardDamaged,
			`GUARD: the guard is cut or damaged: line 3 does not begin with "sequence "; find out how that came about; if nothing else is wrong, move GUARD away`},
		"of a later program": {put("immuaudit guard 2\nstate \nsequence \nledgers \nhash \nwritten \n"), ErrGuardDamaged,
			`GUARD: the guard is cut or damaged: it has version "2", this program knows version 1; find out how that came about; if nothing else is wrong, move GUARD away`},
		"endless": {put(strings.Repeat("immuaudit guard 1\n", 1000)), ErrGuardDamaged, ""},
		"a link": {rest(func(dir string) error { return os.Rename(guard(dir), dir+".other") }, func(dir string) error { return os.Symlink(dir+".other", guard(dir)) }), ErrUnsafe,
			"GUARD: others could change the state: is not a regular file; put the guard itself there, or move GUARD away"},
		"a directory": {rest(func(dir string) error { return os.Remove(guard(dir)) }, func(dir string) error { return os.Mkdir(guard(dir), 0o700) }), ErrUnsafe,
			"GUARD: others could change the state: is not a regular file; put the guard itself there, or move GUARD away"},
		"of two names": {rest(func(dir string) error { return os.Link(guard(dir), dir+".other") }), ErrUnsafe,
			"GUARD: others could change the state: has 2 names; remove the other hard links: through them it could be changed unnoticed"},
		"writable by others": {rest(func(dir string) error { return os.Chmod(guard(dir), 0o622) }), ErrUnsafe,
			"GUARD: others could change the state: mode 0622 lets group or others write; make sure that nobody changed it, then: chmod 600 GUARD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := witnessed(t)
			was := readGuard(t, dir)
			test.do(t, dir)
			if g, err := (&place{path: guard(dir)}).read(); err == nil && g != nil {
				was = *g
			}
			s, err := Open(t.Context(), guarded(dir))
			if err == nil {
				finish(t, s)
			}
			says := strings.NewReplacer("DIR", dir, "GUARD", guard(dir), "TIME", when(was.written)).Replace(test.says)
			if refused(t, err, test.kind); says != "" && err.Error() != says {
				t.Errorf("it says\n%s\nwant\n%s", err, says)
			}
			if _, err := os.Lstat(filepath.Join(dir, fileState)); errors.Is(test.kind, ErrGone) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a state was made: %v", err)
			}
			// What is left of it can be looked at.
			if errors.Is(test.kind, ErrGone) {
				return
			}
			o := guarded(dir)
			o.ReadOnly = true
			if s, err = Open(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			defer finish(t, s)
			if mark, guard := s.Doubts(); mark != nil || !errors.Is(guard, test.kind) {
				t.Errorf("doubts: %v, %v", mark, guard)
			}
		})
	}
}

// TestGuardMovedAway is how an operator goes on with an older copy on purpose:
// it is said, and the state has a guard again.
func TestGuardMovedAway(t *testing.T) {
	t.Parallel()
	dir := witnessed(t)
	older := copyDir(t, dir)
	moveOn(t, guarded(dir))
	putBack(t, dir, older)
	o := guarded(dir)
	if err := os.Rename(o.Guard, o.Guard+".old"); err != nil {
		t.Fatal(err)
	}
	// Who only decides leaves that to the auditor.
	o.Create = false
	moveOn(t, o)
	if _, err := os.Lstat(o.Guard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a guard was begun: %v", err)
	}
	o.Create = true
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := "the guard " + o.Guard + " is missing, although the state was at change 5: if it was not moved away on purpose, and this place for it is not new, " +
		"somebody removed it and the state may be an older copy; a new guard was begun"
	if s.GuardProblem() != want {
		t.Errorf("it says\n%s\nwant\n%s", s.GuardProblem(), want)
	}
	if got := readGuard(t, dir); got.sequence != 5 {
		t.Errorf("%+v", got)
	}
	finish(t, s)
	if s = open(t, dir); s.GuardProblem() != "" {
		t.Errorf("it says again: %s", s.GuardProblem())
	}
}

// TestGuardBehind: a crash between a commit and its guard is no rollback.
func TestGuardBehind(t *testing.T) {
	t.Parallel()
	dir := witnessed(t)
	unguarded := guarded(dir)
	unguarded.Guard = ""
	moveOn(t, unguarded)
	if got := readGuard(t, dir); got.sequence != 4 {
		t.Errorf("%+v", got)
	}
	s := open(t, dir)
	if s.GuardProblem() != "" {
		t.Error(s.GuardProblem())
	}
	if got := readGuard(t, dir); got.sequence != 5 {
		t.Errorf("%+v", got)
	}
}

// TestGuardMadeMeanwhile: the auditor that makes a state, and its guard, while
// another one looks, is no loss of a guard.
func TestGuardMadeMeanwhile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	o := guarded(dir)
	p, err := findGuard(&o)
	if err != nil || p.witnessed() {
		t.Fatalf("%+v, %v", p, err)
	}
	s := open(t, dir)
	trust := trustAt(ledger("prod", "a"), 0, 10)
	apply(t, s, evidence.Change{Trust: &trust})
	finish(t, s)
	o.ReadOnly = true
	if s, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer finish(t, s)
	s.place = p
	if now, err := s.judgeGuard(t.Context()); err != nil || !p.witnessed() || now.commits != 2 {
		t.Errorf("%+v, %+v, %v", p, now, err)
	}
	if got, err := s.Guarded(t.Context()); err != nil || got.Path != o.Guard || got.State != 2 || got.Sequence != 2 || got.Written.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestGuardPlaces: where none can be kept that is said, and a place that
// somebody named is made sure of before anything is remembered.
func TestGuardPlaces(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		guard func(dir string) string
		given bool
		says  string // the error
		warns string // goes on
	}{
		"within the directory": {func(dir string) string { return filepath.Join(dir, "guard") }, true,
			"/guard: a guard cannot be kept here: it lies in the state directory, and would be rolled back and deleted together with it; name a file elsewhere with --state-guard, best on another disk", ""},
		"within it, by a link": {func(dir string) string {
			_ = os.Mkdir(dir, 0o700)
			_ = os.Symlink(dir, dir+".link")
			return filepath.Join(dir+".link", "guard")
		}, true, "it lies in the state directory", ""},
		"the directory itself": {func(dir string) string { return dir }, true, "it lies in the state directory", ""},
		"in no directory": {func(dir string) string { return filepath.Join(dir+".none", "guard") }, true,
			"no such file or directory; make its directory, writable for the user the auditor runs as alone, or name another place with --state-guard", ""},
		"in no directory, by default": {func(dir string) string { return filepath.Join(dir+".none", "guard") }, false, "",
			"there is no guard: nobody would notice a rollback of the whole state directory; name a place for one with --state-guard"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			var log bytes.Buffer
			o := Options{Dir: dir, Create: true, Guard: test.guard(dir), GuardGiven: test.given, Logger: slog.New(slog.NewTextHandler(&log, nil))}
			s, err := Open(t.Context(), o)
			if test.says != "" {
				refused(t, err, ErrGuardPlace, test.says)
				if _, err := os.Lstat(filepath.Join(dir, fileState)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("a state was made: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer finish(t, s)
			if !strings.Contains(log.String(), test.warns) || strings.Count(log.String(), "level=WARN") != 1 || s.GuardProblem() != "" {
				t.Errorf("it says %s; %s", log.String(), s.GuardProblem())
			}
		})
	}
	// A decision is not held up by a disk that is away.
	dir := witnessed(t)
	var log bytes.Buffer
	o := Options{Dir: dir, Guard: filepath.Join(dir+".none", "guard"), GuardGiven: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	moveOn(t, o)
	if !strings.Contains(log.String(), "the guard cannot be written") {
		t.Errorf("it says %s", log.String())
	}
}

// TestGuardInAnOpenDirectory: the rule for the directory of the guard is a
// warning, since whoever removes it there is noticed.
func TestGuardInAnOpenDirectory(t *testing.T) {
	t.Parallel()
	for mode, warns := range map[os.FileMode]bool{0o700: false, 0o755: false, 0o770: false, 0o777: true, 0o777 | os.ModeSticky: false} {
		dir := witnessed(t)
		if err := os.Chmod(filepath.Dir(dir), mode); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		o := guarded(dir)
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		moveOn(t, o)
		if got := strings.Contains(log.String(), "others can write to the directory of the guard"); got != warns {
			t.Errorf("mode %v: it says %s", mode, log.String())
		}
	}
}

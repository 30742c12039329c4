package store

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
)

// pass lets time go by in a synctest bubble, where it costs none.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestWitnessWritesOnceASecond: the first change has its guard at once, those
// that follow share one a second, and the last one always has its own.
func TestWitnessWritesOnceASecond(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(base, "state")
		s := open(t, dir)
		change := func() {
			t.Helper()
			if err := childStep(t.Context(), s, "0", io.Discard); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		at := func(sequence uint64) {
			t.Helper()
			if got := readGuard(t, dir); got.sequence != sequence {
				t.Errorf("the guard is at %d, want %d", got.sequence, sequence)
			}
		}
		at(1)
		change()
		at(2)
		for range 10 {
			change()
		}
		pass(guardPause - time.Nanosecond)
		at(2)
		pass(2 * time.Nanosecond)
		at(12)
		// At rest nothing is written.
		before := readGuard(t, dir)
		pass(time.Hour)
		if got := readGuard(t, dir); got != before {
			t.Errorf("%+v became %+v with no change", before, got)
		}
		change()
		at(13)
		change()
		at(13)
		finish(t, s)
		at(14)
	})
}

// TestWitnessOfTwoProcesses: several stores write to one state, and the guard
// is always of the newest change, with all in it.
func TestWitnessOfTwoProcesses(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	a, b := open(t, dir), open(t, dir)
	step := func(s *Store, database string) {
		t.Helper()
		if err := childStep(t.Context(), s, database, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*Store{a, b, a, b, b, a} {
		step(s, "0")
		step(s, "1")
	}
	finish(t, b)
	step(a, "2")
	finish(t, a)
	compared(t, dir, 3)
}

// compared opens a state once more, which compares it with its guard.
func compared(t *testing.T, dir string, ledgers int) {
	t.Helper()
	now := readGuard(t, dir)
	s := open(t, dir)
	defer finish(t, s)
	if got := readGuard(t, dir); got != now || got.ledgers != ledgers {
		t.Errorf("%+v was written, %+v is there", now, got)
	}
}

// TestWitnessOfNames: a name that was given away is used for another ledger.
func TestWitnessOfNames(t *testing.T) {
	t.Parallel()
	dir := witnessed(t)
	s := open(t, dir)
	if err := s.Rename(t.Context(), ledger("prod", "0"), ledger("prod", "3")); err != nil {
		t.Fatal(err)
	}
	again := trustAt(ledger("prod", "0"), 0, 20)
	apply(t, s, evidence.Change{Trust: &again})
	finish(t, s)
	compared(t, dir, 4)
}

// TestWitnessOfWhatIsStored: a change that fails leaves nothing in the guard of
// those that it was written together with.
func TestWitnessOfWhatIsStored(t *testing.T) {
	t.Parallel()
	dir := witnessed(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir)
		release, errs := make(chan struct{}), make(chan error, 3)
		fails := trustAt(ledger("prod", "1"), 1, 20)
		stores := trustAt(ledger("prod", "2"), 1, 20)
		go func() {
			errs <- s.submit(t.Context(), func(*writing) error { <-release; return nil }, nil)
		}()
		synctest.Wait()
		// Both wait by now, and go into one transaction.
		for _, c := range []evidence.Change{{Trust: &fails, Incidents: []evidence.Incident{incidentOf(fails.Name, "i-1", 7)}}, {Trust: &stores}} {
			go func() { errs <- s.Apply(t.Context(), c) }()
		}
		synctest.Wait()
		close(release)
		if err := errors.Join(<-errs, <-errs, <-errs); !errors.Is(err, ErrConflict) {
			t.Errorf("got %v, want one conflict", err)
		}
		finish(t, s)
		if got := readGuard(t, dir); got.sequence != 6 {
			t.Errorf("%+v: not in one transaction", got)
		}
		compared(t, dir, 3)
	})
}

// TestWitnessNeverGoesBack: a store that is behind leaves the newer guard.
func TestWitnessNeverGoesBack(t *testing.T) {
	t.Parallel()
	dir := witnessed(t)
	s := open(t, dir)
	p, newer := s.place, readGuard(t, dir)
	older := newer
	older.sequence--
	if _, err := p.replace(t.Context(), s.dir, older); err != nil || readGuard(t, dir) != newer {
		t.Errorf("%+v is in the place of %+v, %v", readGuard(t, dir), newer, err)
	}
	other := newer
	other.id[0]++
	other.sequence++
	_, err := p.replace(t.Context(), s.dir, other)
	refused(t, err, ErrGuardForeign, p.path)
	if readGuard(t, dir) != newer {
		t.Errorf("%+v is in the place of %+v", readGuard(t, dir), newer)
	}
}

// TestWitnessAmongOthers: those who open the state while its guard is replaced
// see a whole one, and leave whole what is being made.
func TestWitnessAmongOthers(t *testing.T) {
	t.Parallel()
	dir := witnessed(t)
	s := open(t, dir)
	p, g := s.place, readGuard(t, dir)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			g.sequence++
			if harm, err := p.replace(t.Context(), s.dir, g); err != nil || harm != "" {
				t.Errorf("replacing it: %q, %v", harm, err)
			}
		}
	}()
	defer func() { <-done }()
	for looked := 0; ; looked++ {
		select {
		case <-done:
			if looked < 20 {
				t.Errorf("it was looked at %d times", looked)
			}
			g.sequence, g.hash = 4, readGuard(t, dir).hash
			if err := p.write(s.dir, g); err != nil { // for the end of the test
				t.Error(err)
			}
			return
		default:
		}
		o := guarded(dir)
		if found, err := findGuard(&o); err != nil || found.found == nil || found.tryOut(&o) != nil {
			t.Fatalf("%+v, %v", found, err)
		}
	}
}

// TestWitnessGoesOn: whatever becomes of the guard, changes are stored; what
// is wrong is said once, and when it is over the guard is up to date again.
func TestWitnessGoesOn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm, heal func(guard string) error
		says       string
	}{
		"the disk is gone": {
			func(guard string) error { return os.Rename(filepath.Dir(guard), filepath.Dir(guard)+".gone") },
			func(guard string) error { return os.Rename(filepath.Dir(guard)+".gone", filepath.Dir(guard)) },
			"the guard cannot be written; nobody would notice it",
		},
		"the guard is gone":    {os.Remove, nil, "somebody changed the guard while the auditor ran"},
		"the guard is damaged": {func(guard string) error { return os.Truncate(guard, 20) }, nil, "somebody changed the guard while the auditor ran"},
		"something is in its way": {
			func(guard string) error { return os.MkdirAll(filepath.Join(guard+newGuard, "x"), 0o700) },
			func(guard string) error { return os.RemoveAll(guard + newGuard) },
			"the guard cannot be written; nobody would notice it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				dir, elsewhere := filepath.Join(base, "state"), filepath.Join(base, "elsewhere")
				if err := os.Mkdir(elsewhere, 0o700); err != nil {
					t.Fatal(err)
				}
				var log bytes.Buffer
				o := guarded(dir)
				o.Guard, o.GuardGiven, o.Logger = filepath.Join(elsewhere, "guard"), true, slog.New(slog.NewTextHandler(&log, nil))
				s, err := Open(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				defer finish(t, s)
				change := func() {
					t.Helper()
					if err := childStep(t.Context(), s, "0", io.Discard); err != nil {
						t.Fatal(err)
					}
					pass(5 * guardPause)
				}
				change()
				if err := test.harm(o.Guard); err != nil {
					t.Fatal(err)
				}
				change()
				change()
				if n := strings.Count(log.String(), test.says); n != 1 || strings.Count(log.String(), "level=WARN") != 1 {
					t.Errorf("it says %s", log.String())
				}
				if test.heal != nil {
					if err := test.heal(o.Guard); err != nil {
						t.Fatal(err)
					}
					pass(2 * guardPause)
					if !strings.Contains(log.String(), "the guard is written again") {
						t.Errorf("it says %s", log.String())
					}
				}
				if g, err := s.place.read(); err != nil || g == nil || g.sequence != 4 {
					t.Errorf("the guard is %+v, %v", g, err)
				}
			})
		})
	}
}

// TestGuardAtEachStep leaves every intermediate state of a replacement behind,
// as a crash does: the state opens, and its guard is replaced.
func TestGuardAtEachStep(t *testing.T) {
	t.Parallel()
	next := func(dir string) []byte {
		g := readGuard(t, dir)
		g.sequence++
		return g.text()
	}
	for name, step := range map[string]func(dir string) error{
		"nothing written": func(dir string) error { return os.WriteFile(guarded(dir).Guard+newGuard, nil, 0o600) },
		"half written":    func(dir string) error { return os.WriteFile(guarded(dir).Guard+newGuard, next(dir)[:100], 0o600) },
		"not renamed":     func(dir string) error { return os.WriteFile(guarded(dir).Guard+newGuard, next(dir), 0o600) },
		"a link instead":  func(dir string) error { return os.Symlink("/etc/passwd", guarded(dir).Guard+newGuard) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := witnessed(t)
			if err := step(dir); err != nil {
				t.Fatal(err)
			}
			before := readGuard(t, dir)
			moveOn(t, guarded(dir))
			if got := readGuard(t, dir); got.sequence != before.sequence+1 {
				t.Errorf("%+v, and then %+v", before, got)
			}
			if _, err := os.Lstat(guarded(dir).Guard + newGuard); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the guard in the making is left: %v", err)
			}
		})
	}
}

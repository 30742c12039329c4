package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// filled makes a closed state with several pages of everything.
func filled(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	for n := range 12 {
		name := ledger("prod", fmt.Sprint(n))
		trust := trustAt(name, 0, 100)
		trust.Walk = make([]byte, 1500)
		event := eventOf(name, evidence.EventTampered, fmt.Sprint(n))
		apply(t, s, evidence.Change{
			Trust: &trust, Remember: []proof.State{stateAt(60), stateAt(70), stateAt(80)},
			Incidents: []evidence.Incident{incidentOf(name, fmt.Sprintf("i-%d", n), 0)},
			Events:    []evidence.Event{event}, Deliveries: []evidence.Delivery{{Sink: "webhook", Event: event}},
		})
	}
	// Some free pages, as a state in use has them.
	for id := range int64(6) {
		if err := s.Delivered(t.Context(), id+1); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, s)
	return dir
}

// held makes a state whose newest changes are in the write-ahead log only: it
// was open when its process was killed.
func held(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	cmd, out, in := start(t, "hold", dir)
	for out.Scan() && out.Text() != "held" {
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child was not killed")
	}
	if err := in.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, fileState+"-wal")); err != nil || info.Size() == 0 {
		t.Fatalf("there is no write-ahead log: %v", err)
	}
	return dir
}

// everything is all that a state holds, for comparison.
func everything(t testing.TB, dir string) (any, error) {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir, Create: true, Logger: quiet})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}()
	if s.Created() {
		t.Error("a damaged state was taken for a beginning")
	}
	all, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("opened, but not to be read: %v", err)
	}
	events, err := s.Events(t.Context(), noon, maxEvents)
	if err != nil {
		t.Fatalf("opened, but not to be read: %v", err)
	}
	due, err := s.Due(t.Context(), noon, maxWaiting)
	if err != nil {
		t.Fatalf("opened, but not to be read: %v", err)
	}
	for i := range due {
		due[i].Queued = noon
	}
	return []any{all, events, due}, nil
}

// TestDamage cuts and flips the files of a state. It is then refused, or it
// still says exactly what it said; never less, never something else, and
// never nothing.
func TestDamage(t *testing.T) {
	t.Parallel()
	random := seeded(t, 28)
	for _, test := range []struct {
		name, file string
		dir        func(testing.TB) string
		flip, cut  int
	}{
		{"database", fileState, filled, 220, 30},
		{"database with a log", fileState, held, 30, 10},
		{"log", fileState + "-wal", held, 120, 30},
		{"index of the log", fileState + "-shm", held, 20, 5},
		{"watermark", fileID, filled, 20, 5},
	} {
		from := test.dir(t)
		want, err := everything(t, copyDir(t, from))
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(from, test.file))
		if err != nil {
			t.Fatal(err)
		}
		seed := random.Uint64()
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			opened := 0
			attempt := func(what string, damage func(path string) error) {
				dir := copyDir(t, from)
				if err := damage(filepath.Join(dir, test.file)); err != nil {
					t.Fatal(err)
				}
				got, err := everything(t, dir)
				var explained *Error
				switch {
				case err == nil && reflect.DeepEqual(got, want):
					opened++
				case err == nil:
					t.Errorf("%s: it says something else", what)
				case !errors.As(err, &explained) || explained.Next == "" || errors.Is(err, ErrAbsent):
					t.Errorf("%s: %v", what, err)
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			}
			for range test.flip {
				at, mask := random.Int64N(info.Size()), byte(1+random.IntN(255))
				attempt(fmt.Sprintf("byte %d ^ %#x", at, mask), func(path string) error { return flip(path, at, mask) })
			}
			for range test.cut {
				size := random.Int64N(info.Size())
				attempt(fmt.Sprintf("cut to %d", size), func(path string) error { return os.Truncate(path, size) })
			}
			attempt("removed", os.Remove)
			t.Logf("%d of %d went unnoticed and did no harm", opened, test.flip+test.cut+1)
		})
	}
}

// TestDamagedNumbers: pages that are sound, with rows that cannot be.
func TestDamagedNumbers(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{
		"UPDATE mark SET tx = -51 WHERE tx = 60", "UPDATE trust SET version = -1", "UPDATE trust SET proven = -1", "UPDATE incident SET version = -1",
		"UPDATE event SET at = 1", "UPDATE outbox SET queued = -1", "UPDATE outbox SET attempts = -1 << 62, replaceable = 7",
		"UPDATE meta SET commits = -1", "UPDATE meta SET commits = commits - 1", "UPDATE meta SET state_id = x'00'", "UPDATE meta SET digest = x''",
		"UPDATE outbox SET body = CAST('{}' AS BLOB)", "UPDATE incident SET status = 'kept'", "UPDATE trust SET server = 'other'",
	} {
		dir := filled(t)
		if err := execute(filepath.Join(dir, fileState), statement); err != nil {
			t.Fatal(err)
		}
		_, err := everything(t, dir)
		var explained *Error
		if !errors.As(err, &explained) || explained.Next == "" || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrRolledBack) && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func flip(path string, at int64, mask byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return errors.Join(err, f.Close())
	}
	b[0] ^= mask
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}

// TestStalePage puts back an older copy of single pages: each of them is
// sound by itself, and so are all checksums in it.
func TestStalePage(t *testing.T) {
	t.Parallel()
	dir := filled(t)
	old, err := os.ReadFile(filepath.Join(dir, fileState))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	for n := range 12 {
		trust := trustAt(ledger("prod", fmt.Sprint(n)), 1, 101)
		trust.Walk = make([]byte, 1500)
		apply(t, s, evidence.Change{Trust: &trust})
	}
	finish(t, s)
	want, err := everything(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(filepath.Join(dir, fileState))
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	stale := 0
	for at := page; at+page <= len(old) && at+page <= len(now); at += page {
		if string(old[at:at+page]) == string(now[at:at+page]) {
			continue
		}
		stale++
		copied := copyDir(t, dir)
		content := append([]byte{}, now...)
		copy(content[at:], old[at:at+page])
		if err := os.WriteFile(filepath.Join(copied, fileState), content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := everything(t, copied)
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("an older copy of page %d went unnoticed", at/page)
		}
	}
	if stale < 3 {
		t.Errorf("only %d pages changed", stale)
	}
}

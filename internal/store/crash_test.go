package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// child is another process with the state in dir.
//
//	write   applies changes to four ledgers at once, for ever, and prints what
//	        was acknowledged
//	full    the same for one ledger, with files limited to 1 MiB; says why it
//	        ended, then goes on without the limit for a few changes
//	hold    makes some changes, then waits, with the state open
//	create  makes the state
//	decide  moves one ledger on, as an operator's decision does
//	lock    holds the lock until its input ends
func child(mode, dir string) int {
	if mode == "full" {
		signal.Ignore(syscall.SIGXFSZ)
		if err := limitFiles(1 << 20); err != nil {
			fmt.Println("error", err)
			return 1
		}
	}
	ctx := context.Background()
	s, err := Open(ctx, guarded(dir))
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	switch mode {
	case "create":
	case "decide":
		if err := childStep(ctx, s, "0", os.Stdout); err != nil {
			fmt.Println("error", err)
			return 1
		}
	case "lock":
		if _, err := s.Lock(); err != nil {
			fmt.Println("error", err)
			return 1
		}
		fmt.Println("held")
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return 1
		}
	case "full":
		var err error
		for err == nil {
			err = childStep(ctx, s, "0", os.Stdout)
		}
		fmt.Println("error", err)
		if err := limitFiles(unix.RLIM_INFINITY); err != nil {
			return 1
		}
		for range 3 {
			if err := childStep(ctx, s, "0", os.Stdout); err != nil {
				return 1
			}
		}
	case "hold":
		for n := range 12 {
			if err := childStep(ctx, s, fmt.Sprint(n%3), os.Stdout); err != nil {
				fmt.Println("error", err)
				return 1
			}
		}
		fmt.Println("held")
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return 1
		}
	case "write":
		var group sync.WaitGroup
		for _, database := range []string{"0", "1", "2", "3"} {
			group.Go(func() {
				for {
					if err := childStep(ctx, s, database, os.Stdout); err != nil {
						fmt.Println("error", err)
						return
					}
				}
			})
		}
		group.Wait()
		return 1
	}
	if err := s.Close(); err != nil {
		return 1
	}
	return 0
}

// limitFiles sets the soft limit, which the process may raise again.
func limitFiles(bytes uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = min(bytes, limit.Max)
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
}

// childStep moves a ledger on by one version. One change holds a trust record,
// a mark, an incident, an event and a delivery, all of which carry its version, and says so.
func childStep(ctx context.Context, s *Store, database string, said io.Writer) error {
	name := ledger("prod", database)
	old, err := s.Trust(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	version := old.Version + 1
	trust := trustAt(name, old.Version, 10+version)
	incident := incidentOf(name, fmt.Sprintf("i-%s-%d", database, version), 0)
	event := eventOf(name, evidence.EventTampered, fmt.Sprintf("%s-%d", database, version))
	err = s.Apply(ctx, evidence.Change{
		Trust: &trust, Remember: []proof.State{stateAt(version)}, Incidents: []evidence.Incident{incident},
		Events: []evidence.Event{event}, Deliveries: []evidence.Delivery{{Sink: "webhook", Event: event}},
	})
	if err == nil {
		_, err = fmt.Fprintln(said, "ok", database, version)
	}
	return err
}

// start runs a child and gives its output line by line.
func start(t testing.TB, mode, dir string) (*exec.Cmd, *bufio.Scanner, io.Closer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"="+mode)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out), in
}

// killed runs a writing child and kills it after some acknowledged changes;
// it gives the newest acknowledged version of each database.
func killed(t testing.TB, dir string, after int, linger time.Duration) map[string]uint64 {
	t.Helper()
	cmd, out, in := start(t, "write", dir)
	acknowledged := map[string]uint64{}
	for n := 0; out.Scan(); n++ {
		var database string
		var version uint64
		if _, err := fmt.Sscanf(out.Text(), "ok %s %d", &database, &version); err != nil {
			t.Errorf("the child says %q", out.Text())
			break
		}
		acknowledged[database] = max(version, acknowledged[database])
		if n == after {
			timer := time.AfterFunc(linger, func() {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			})
			defer timer.Stop()
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the child ended by itself: %v", err)
	}
	return acknowledged
}

// TestKillLosesNothing ends a writing process at many points. What it was told
// to be stored is there, and what is there is there as a whole.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	random := seeded(t, 30)
	for range 20 {
		acknowledged := killed(t, dir, random.IntN(20), time.Duration(random.IntN(3000))*time.Microsecond)
		s, err := Open(t.Context(), guarded(dir))
		if err != nil {
			t.Fatal(err)
		}
		if problem := s.GuardProblem(); problem != "" {
			t.Error(problem)
		}
		all, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		incidents, deliveries := map[string]uint64{}, map[string]uint64{}
		for _, i := range all.Open {
			incidents[i.Name.Database]++
		}
		due, err := s.Due(t.Context(), time.Now(), maxWaiting)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range due {
			deliveries[p.Event.Name.Database]++
		}
		for _, trust := range all.Trust {
			database := trust.Name.Database
			if trust.Version < acknowledged[database] {
				t.Errorf("ledger %s: version %d was acknowledged, %d is stored", database, acknowledged[database], trust.Version)
			}
			if marks := uint64(len(all.Marks[trust.Name])); marks != trust.Version || incidents[database] != trust.Version || deliveries[database] != trust.Version {
				t.Errorf("ledger %s: version %d with %d marks, %d incidents, %d deliveries", database, trust.Version, marks, incidents[database], deliveries[database])
			}
			delete(acknowledged, database)
		}
		if len(acknowledged) > 0 {
			t.Errorf("acknowledged and lost: %v", acknowledged)
		}
		finish(t, s)
		if t.Failed() {
			return
		}
	}
}

// TestDecisionOfAnotherProcess: the daemon notices it, and cannot overwrite it.
func TestDecisionOfAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if err := childStep(t.Context(), s, "0", io.Discard); err != nil {
		t.Fatal(err)
	}
	before, err := s.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd, out, in := start(t, "decide", dir)
	if !out.Scan() || out.Text() != "ok 0 2" {
		t.Errorf("the child says %q", out.Text())
	}
	if err := errors.Join(cmd.Wait(), in.Close()); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if after, err := s.Generation(t.Context()); err != nil || after == before {
		t.Errorf("generation %d before and %d after, %v", before, after, err)
	}
	trust := trustAt(ledger("prod", "0"), 1, 99)
	refused(t, s.Apply(t.Context(), evidence.Change{Trust: &trust}), ErrConflict, "version 1, stored is 2")
}

// TestKillWhileCreating: a making that was cut short is finished or done
// again, and is still told.
func TestKillWhileCreating(t *testing.T) {
	t.Parallel()
	random := seeded(t, 31)
	for range 12 {
		dir := filepath.Join(t.TempDir(), "state")
		cmd, out, in := start(t, "create", dir)
		timer := time.AfterFunc(time.Duration(random.IntN(40_000))*time.Microsecond, func() {
			// It may have ended by then: Kill reports that, and it is fine.
			_ = cmd.Process.Kill()
		})
		for out.Scan() {
			t.Errorf("the child says %q", out.Text())
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed or not
		timer.Stop()
		s := open(t, dir)
		if !s.Created() {
			t.Error("the state does not say that it is new")
		}
		finish(t, s)
	}
}

// TestCreationAtEachStep leaves every intermediate state of a making behind.
func TestCreationAtEachStep(t *testing.T) {
	t.Parallel()
	whole := filepath.Join(t.TempDir(), "state")
	finish(t, open(t, whole))
	steps := map[string]func(dir string) error{
		"an empty file under the first name": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, fileState)), os.Remove(filepath.Join(dir, fileID)),
				os.WriteFile(filepath.Join(dir, fileNew), nil, 0o600))
		},
		"a filled file under the first name": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, fileID)), os.Rename(filepath.Join(dir, fileState), filepath.Join(dir, fileNew)),
				os.WriteFile(filepath.Join(dir, fileNew+"-journal"), []byte("x"), 0o600))
		},
		"both names": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, fileID)), os.Link(filepath.Join(dir, fileState), filepath.Join(dir, fileNew)))
		},
		"no state.id": func(dir string) error { return os.Remove(filepath.Join(dir, fileID)) },
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyDir(t, whole)
			if err := step(dir); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir)
			if !s.Created() {
				t.Error("the state does not say that it is new")
			}
			if _, err := os.Lstat(filepath.Join(dir, fileNew)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", fileNew, err)
			}
		})
	}
}

// TestManyCreateAtOnce: one process makes the state, the others find it.
func TestManyCreateAtOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	var group sync.WaitGroup
	stores := make([]*Store, 6)
	for i := range stores {
		group.Go(func() {
			s, err := Open(t.Context(), guarded(dir))
			if err != nil {
				t.Error(err)
				return
			}
			stores[i] = s
		})
	}
	group.Wait()
	for _, s := range stores {
		if s == nil {
			continue
		}
		if s.id != stores[0].id {
			t.Error("two states were made")
		}
		finish(t, s)
	}
}

// TestFullDisk: no room is an error of its own; nothing of the change is
// stored, nothing before it is lost, and with room the store goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	pages := func(n int) {
		t.Helper()
		if err := s.submit(t.Context(), func(w *writing) error {
			var now int
			return w.row(fmt.Sprintf("PRAGMA max_page_count = %d", n), nil, &now)
		}, nil); err != nil {
			t.Fatal(err)
		}
	}
	pages(60)
	name := ledger("prod", "a")
	for _, round := range []string{"first", "second"} {
		before := uint64(0)
		var failed error
		for failed == nil {
			old, err := s.Trust(t.Context(), name)
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			before = old.Version
			trust := trustAt(name, before, 10+before)
			event := eventOf(name, evidence.EventTampered, "e")
			event.Message = strings.Repeat("x", 4000)
			failed = s.Apply(t.Context(), evidence.Change{Trust: &trust, Remember: []proof.State{stateAt(before)}, Events: []evidence.Event{event}})
		}
		refused(t, failed, ErrFull, fileState, "make room")
		var full interface{ Full() bool }
		if !errors.As(failed, &full) || !full.Full() {
			t.Errorf("%v does not say that the disk is full", failed)
		}
		all, err := s.Load(t.Context())
		if err != nil || all.Trust[0].Version != before || uint64(len(all.Marks[name])) != before {
			t.Errorf("%s: version %d and %d marks where %d was acknowledged, %v", round, all.Trust[0].Version, len(all.Marks[name]), before, err)
		}
		// A change that needs no page fits in between.
		if err := s.Retry(t.Context(), noon, "x", 1); err != nil {
			t.Errorf("a small change after the disk was full: %v", err)
		}
		pages(120)
	}
}

// TestFileLimit is the same with the operating system refusing to write, in a
// process of its own.
func TestFileLimit(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	cmd, out, in := start(t, "full", dir)
	var last uint64
	var failure string
	for out.Scan() {
		if _, err := fmt.Sscanf(out.Text(), "ok 0 %d", &last); err != nil {
			failure = out.Text()
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(failure, fileState) || last < 4 {
		t.Fatalf("after %d changes: %q, %v", last, failure, err)
	}
	s := open(t, dir)
	if got, err := s.Trust(t.Context(), ledger("prod", "0")); err != nil || got.Version != last {
		t.Errorf("version %d is stored, %d was acknowledged, %v", got.Version, last, err)
	}
}

// TestFailedSyncEndsWriting: after it, nothing can be called durable.
func TestFailedSyncEndsWriting(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	trust := trustAt(ledger("prod", "a"), 0, 10)
	apply(t, s, evidence.Change{Trust: &trust})
	err := s.submit(t.Context(), func(*writing) error { return sqliteError(1034) }, nil) // SQLITE_IOERR_FSYNC
	refused(t, err, ErrDisk)
	trust.Version = 1
	refused(t, s.Apply(t.Context(), evidence.Change{Trust: &trust}), ErrDisk, "could not be synced", "start the auditor again")
	if got, err := s.Trust(t.Context(), trust.Name); err != nil || got.Version != 1 {
		t.Errorf("version %d, %v", got.Version, err)
	}
}

// TestReadOnlyMediumMidway: the error says what to do, and the store goes on
// when the medium does.
func TestReadOnlyMediumMidway(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	trust := trustAt(ledger("prod", "a"), 0, 10)
	err := s.submit(t.Context(), func(*writing) error { return sqliteError(8) }, nil) // SQLITE_READONLY
	refused(t, err, ErrReadOnly, fileState, "read-write")
	apply(t, s, evidence.Change{Trust: &trust})
}

type sqliteError int

func (e sqliteError) Error() string { return fmt.Sprintf("simulated SQLite error %d", int(e)) }
func (e sqliteError) Code() int     { return int(e) }

// TestLock: one auditor per directory, in one process and in two.
func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	release, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(t, dir).Lock()
	refused(t, err, ErrLocked, fmt.Sprintf("process %d", os.Getpid()), "--dir")
	release()
	release()

	cmd, out, in := start(t, "lock", dir)
	if !out.Scan() || out.Text() != "held" {
		t.Fatalf("the child says %q", out.Text())
	}
	_, err = s.Lock()
	refused(t, err, ErrLocked, fmt.Sprintf("process %d", cmd.Process.Pid))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child was not killed")
	}
	if err := in.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	// The kernel gave it back; the number in the file does not count.
	release, err = s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	release()
}

package evidence_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"immuaudit/evidence"
)

// built is an incident's evidence, ready to be written.
func built(t testing.TB, incident string) *evidence.File {
	t.Helper()
	m, _ := forked(t)
	m.Incident = incident
	f, err := evidence.Build(m)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// room is a directory in memory where there is such a thing: the order of the
// steps is what these tests are about, not the speed of a disk.
func room(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "evidence-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// standing checks that whatever has a finished name is whole, and gives those
// names and the others.
func standing(t testing.TB, dir string) (finished, left []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			left = append(left, name)
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.Parse(b); err != nil || !strings.HasSuffix(name, fmt.Sprintf("-%x.json", sha256.Sum256(b))[:17]+".json") {
			t.Errorf("%s is under its name and is not whole: %v", name, err)
		}
		finished = append(finished, name)
	}
	return finished, left
}

type taken struct{ op, path string }

// stepsOf records an undisturbed run.
func stepsOf(t *testing.T, dir string, signer evidence.Signer) (steps []taken) {
	t.Helper()
	if _, err := evidence.WriteStepwise(dir, built(t, "20261123-aaaa"), signer, func(op, path string, _ []byte) error {
		steps = append(steps, taken{op, path})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return steps
}

// The order is what makes it durable: the content before its name, the name
// before it is told.
func TestWriteInOrder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "evidence")
	var got []string
	for _, s := range stepsOf(t, dir, newAuditor(t, 9)) {
		where := "new"
		switch {
		case s.path == dir:
			where = "dir"
		case s.path == filepath.Dir(dir):
			where = "above"
		case !strings.HasPrefix(filepath.Base(s.path), "."):
			where = "name"
		}
		got = append(got, s.op+" "+where)
	}
	want := []string{"mkdir dir", "adopt dir", "syncdir above", "create dir", "adopt new", "write new", "sync new", "link name", "syncdir dir", "remove new"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// At each step the disk fails, once or for good, as it does when the process
// dies there; or writes half of what it is given first. Then there is the
// whole file or none, and the next attempt puts it there and cleans up.
func TestWriteFailsAtEachStep(t *testing.T) {
	t.Parallel()
	signer := newAuditor(t, 9)
	steps := stepsOf(t, filepath.Join(t.TempDir(), "evidence"), signer)
	first, second := built(t, "20261123-aaaa"), built(t, "20261123-bbbb")
	// Where there are no links, there is a rename more.
	for _, links := range []bool{true, false} {
		for at := range len(steps) + 1 {
			for _, dies := range []bool{false, true} {
				failsAt(t, signer, first, second, at, links, dies, false)
				if at < len(steps) && steps[at].op == "write" {
					failsAt(t, signer, first, second, at, links, dies, true)
				}
			}
		}
	}
}

func failsAt(t *testing.T, signer evidence.Signer, first, second *evidence.File, at int, links, dies, half bool) {
	dir := filepath.Join(room(t), "evidence")
	var ops []string
	failing := false
	path, err := evidence.WriteStepwise(dir, first, signer, func(op, path string, data []byte) error {
		ops = append(ops, op)
		switch {
		case len(ops) == at+1:
			failing = true
			if half && op == "write" {
				if err := os.WriteFile(path, data[:len(data)/2], 0o600); err != nil {
					t.Error(err)
				}
			}
			return syscall.ENOSPC
		case failing && dies:
			return errors.New("dead")
		case op == "link" && !links:
			return syscall.EPERM
		}
		return nil
	})
	what := fmt.Sprintf("%q failing at step %d (links %v, dies %v, half %v)", ops, at, links, dies, half)
	// Taking away what is done with, and a link that a rename stands in for,
	// are no failures.
	last := ops[min(at, len(ops)-1)]
	if ok := at >= len(ops) || last == "remove" || last == "link" && !dies; ok != (err == nil) {
		t.Fatalf("%s: %v", what, err)
	}
	finished, _ := standing(t, dir)
	switch {
	case err == nil && (len(finished) != 1 || path != filepath.Join(dir, finished[0])):
		t.Errorf("%s: %q, %q", what, path, finished)
	case err != nil && (path != "" || !strings.Contains(err.Error(), "a sound disk with room, and that the auditor can write there")):
		t.Errorf("%s: %q, %v", what, path, err)
	}
	// The next evidence, of the same incident or another, cleans up.
	for i, f := range []*evidence.File{first, second} {
		path, err := evidence.Write(dir, f, signer)
		if err != nil {
			t.Fatalf("%s, then: %v", what, err)
		}
		if again, left := standing(t, dir); len(again) != i+1 || len(left) != 0 || i == 0 && len(finished) == 1 && path != filepath.Join(dir, finished[0]) {
			t.Errorf("%s, then: %q and %q are there", what, again, left)
		}
	}
}

// A file that is found is made durable before it is told: whoever put it there
// may have failed at just that.
func TestFoundIsMadeDurable(t *testing.T) {
	t.Parallel()
	dir, signer := t.TempDir(), newAuditor(t, 9)
	f := built(t, "20261123-aaaa")
	if _, err := evidence.Write(dir, f, signer); err != nil {
		t.Fatal(err)
	}
	if path, err := evidence.WriteStepwise(dir, f, signer, func(op, path string, _ []byte) error {
		if op == "syncdir" && path == dir {
			return syscall.EIO
		}
		return nil
	}); !errors.Is(err, syscall.EIO) {
		t.Errorf("%s, %v", path, err)
	}
}

// Only what was left unfinished is swept away, and not without end.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir, signer := room(t), newAuditor(t, 9)
	kept := []string{".new-", ".new-12a", "new-12", ".new-12.json", "x.new-12", ".hidden", "20261123-zzzz-fork-0123456789abcdef.json", "notes"}
	for _, name := range kept {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A folder and a link are not files that anybody was writing.
	if err := errors.Join(os.Mkdir(filepath.Join(dir, ".new-1"), 0o700), os.Symlink("notes", filepath.Join(dir, ".new-2"))); err != nil {
		t.Fatal(err)
	}
	kept = append(kept, ".new-1", ".new-2")
	const leftovers = 1100
	for i := range leftovers {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(".new-%d", 100+i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{leftovers - 1000, 0} {
		path, err := evidence.Write(dir, built(t, fmt.Sprintf("20261123-%c", 'a'+i)), signer)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, filepath.Base(path))
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		for _, name := range kept {
			if !slices.Contains(names, name) {
				t.Errorf("%s was swept away", name)
			}
		}
		if len(names) != len(kept)+want {
			t.Errorf("%d leftovers after %d sweeps, want %d", len(names)-len(kept), i+1, want)
		}
	}
}

// A file that was damaged is no evidence: it does not keep out what is.
func TestDamagedDoesNotStand(t *testing.T) {
	t.Parallel()
	dir, signer := t.TempDir(), newAuditor(t, 9)
	f := built(t, "20261123-aaaa")
	path, err := evidence.Write(dir, f, signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	// The same content would have its name, which is never taken from anybody.
	if again, err := evidence.Write(dir, f, signer); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("%s, %v", again, err)
	}
	f.UUID = "another"
	again, err := evidence.Write(dir, f, signer)
	if err != nil || again == path {
		t.Fatalf("%s, %v", again, err)
	}
	if third, err := evidence.Write(dir, built(t, "20261123-aaaa"), signer); err != nil || third != again {
		t.Errorf("%s, %v; %s stands", third, err, again)
	}
}

// Any number of incidents at once: nobody sweeps away what another writes.
func TestWriteManyAtOnce(t *testing.T) {
	t.Parallel()
	dir, signer := filepath.Join(room(t), "evidence"), newAuditor(t, 9)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				if _, err := evidence.Write(dir, built(t, fmt.Sprintf("20261123-%d-%d", i, j)), signer); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := evidence.Write(dir, built(t, "20261123-last"), signer); err != nil {
		t.Error(err)
	}
	if finished, left := standing(t, dir); len(finished) != 81 || len(left) != 0 {
		t.Errorf("%d files, %q", len(finished), left)
	}
}

package mirror

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"immuaudit/evidence"
)

// act is a step of the story that is interrupted in every way below. It can be
// told again from any point that an interruption has left.
type act struct {
	name evidence.Name // under which the ledger is afterwards
	size uint64        // its size afterwards
	do   func(*Mirror) error
	// states are those that the act keeps, and whole the transaction up to
	// which those from before are not set aside.
	states []evidence.Witnessed
	whole  uint64
}

var moved = evidence.Name{Server: "db1:3322", Database: "orders-2"}

// story ends with transactions 1…700 of orders-2, of which it was certain that
// 260 were kept when the rest was given up. All its Alhs are of one history.
// Signed states come in between, over six days.
func story() []act {
	upTo := func(name evidence.Name, first, last uint64) act {
		return act{name: name, size: last, whole: maxTx, do: func(m *Mirror) error {
			l, err := m.Ledger(name)
			if err != nil {
				return err
			}
			from := min(first, l.Size()+1)
			return l.Append(from, alhs("a", from, last))
		}}
	}
	witness := func(name evidence.Name, size uint64, states ...evidence.Witnessed) act {
		return act{name: name, size: size, whole: maxTx, states: states, do: func(m *Mirror) error {
			l, err := m.Ledger(name)
			if err != nil {
				return err
			}
			return l.Witness(states)
		}}
	}
	return []act{
		upTo(orders, 1, 3),
		witness(orders, 3, signed(orders, 2, 1), signed(orders, 3, 1)),
		upTo(orders, 4, 5),
		witness(orders, 5, signed(orders, 5, 1), signed(orders, 6, 2)),
		upTo(orders, 6, 530),
		witness(orders, 530, signed(orders, 250, 3)),
		witness(orders, 530, signed(orders, 530, 3), signed(orders, 540, 3)),
		{name: orders, size: 260, whole: 260, do: func(m *Mirror) error {
			l, err := m.Ledger(orders)
			if err != nil {
				return err
			}
			return l.Truncate(min(260, l.Size()))
		}},
		upTo(orders, 261, 300),
		witness(orders, 300, signed(orders, 290, 3), signed(orders, 300, 4)),
		{name: moved, size: 300, whole: maxTx, do: func(m *Mirror) error {
			l, err := m.Ledger(orders)
			if err != nil {
				return err
			}
			if l.Size() == 0 { // renamed already
				return nil
			}
			return l.Rename(moved)
		}},
		upTo(moved, 301, 700),
		witness(moved, 700, signed(moved, 700, 6)),
	}
}

// keptAfter gives the states that are kept after the first n acts.
func keptAfter(n int) (kept []evidence.Witnessed) {
	for _, a := range story()[:n] {
		kept = slices.DeleteFunc(kept, func(w evidence.Witnessed) bool { return w.State.TxID > a.whole })
		for _, w := range a.states {
			kept = thinned(append(kept, w), dayOf(w.At))
		}
	}
	return kept
}

// survived checks the states that an interruption after the first done acts
// has left. Where there was no power cut, none is lost.
func survived(t *testing.T, l *Ledger, done int, cut bool) {
	t.Helper()
	before, after := keptAfter(done), keptAfter(min(done+1, len(story())))
	have := statesOf(t, l)
	for i, w := range have {
		if !has(before, w) && !has(after, w) && !cut {
			t.Fatalf("a state of transaction %d is kept after act %d", w.State.TxID, done)
		}
		if i > 0 && w.State.TxID >= have[i-1].State.TxID {
			t.Fatalf("states of transactions %d and %d after act %d", have[i-1].State.TxID, w.State.TxID, done)
		}
	}
	for _, w := range before {
		// What is in the file of the newest day was not synced.
		if has(after, w) && !has(have, w) && !(cut && dayOf(w.At) == dayOf(before[len(before)-1].At)) {
			t.Fatalf("the state of transaction %d is lost after act %d, of %d", w.State.TxID, done, len(have))
		}
	}
}

// told checks what an interruption after the act number done (and within the
// next) may leave, goes on with the story and checks its end.
func told(t *testing.T, dir string, done int, cut bool) {
	t.Helper()
	acts := story()
	looked := lookedAt(t, dir)
	m := opened(t, dir, unsynced)
	before := uint64(0)
	name := orders
	if done > 0 {
		before, name = acts[done-1].size, acts[done-1].name
	}
	next := acts[min(done, len(acts)-1)]
	l := ledgerOf(t, m, name)
	if l.Size() == 0 && next.name != name {
		l = ledgerOf(t, m, next.name)
	}
	size := l.Size()
	if low, high := min(before, next.size), max(before, next.size); size < low || size > high {
		t.Fatalf("%d transactions are mirrored after act %d, want %d…%d", size, done, low, high)
	}
	holds(t, l, alhs("a", 1, size))
	survived(t, l, done, cut)
	if want := fmt.Sprint(l.name, size, statesOf(t, l)); size > 0 && looked != want {
		t.Fatalf("without writing it is %s, want %s", looked, want)
	}
	for _, a := range acts[done:] {
		if err := a.do(m); err != nil {
			t.Fatal(err)
		}
	}
	holds(t, ledgerOf(t, m, moved), alhs("a", 1, 700))
	holds(t, ledgerOf(t, m, orders), nil)
	if !cut {
		same(t, statesOf(t, ledgerOf(t, m, moved)), keptAfter(len(acts)))
	}
	finished(t, m)
}

// lookedAt says what is in a mirror, without changing anything.
func lookedAt(t *testing.T, dir string) string {
	t.Helper()
	before := filesUnder(t, dir, ".")
	m, err := OpenReadOnly(dir, quiet)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	what := ""
	for _, name := range []evidence.Name{orders, moved} {
		l := ledgerOf(t, m, name)
		if l.Size() > 0 {
			holds(t, l, alhs("a", 1, l.Size()))
			what += fmt.Sprint(name, l.Size(), statesOf(t, l))
		}
	}
	finished(t, m)
	if !maps.Equal(filesUnder(t, dir, "."), before) {
		t.Fatal("looking has changed something")
	}
	return what
}

// child tells the story, says after each act that it is done, and is killed at
// the given step.
func child(at, dir string) int {
	last, err := strconv.Atoi(at)
	if err != nil {
		return 1
	}
	m, err := open(dir, quiet, func(step) error {
		if last--; last == 0 {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	})
	if err != nil {
		return 1
	}
	for i, a := range story() {
		if err := a.do(m); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(i + 1)
	}
	return 0
}

// steps records all that the story does to the disk.
func steps(t *testing.T) (all []step, ends []int) {
	t.Helper()
	m := opened(t, room(t), func(s step) error {
		s.data = slices.Clone(s.data)
		all = append(all, s)
		return unsynced(s)
	})
	for _, a := range story() {
		if err := a.do(m); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, len(all))
	}
	return all, ends
}

// TestKill kills a process at each step: what was acknowledged is there.
func TestKill(t *testing.T) {
	t.Parallel()
	all, _ := steps(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= len(all); at++ {
		dir := room(t)
		cmd := exec.Command(self, dir)
		cmd.Env = append(os.Environ(), childEnv+"="+strconv.Itoa(at))
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("step %d: %v, %s", at, err, &errs)
		}
		done := 0
		for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
			done++
		}
		told(t, dir, done, false)
	}
}

// TestPowerCut: of what was not synced, any part may be missing afterwards.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	all, ends := steps(t)
	random := rand.New(rand.NewPCG(4, 5))
	for at := 1; at <= len(all); at++ {
		dir := room(t)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		replay(t, dir, all[:at], random)
		done, _ := slices.BinarySearch(ends, at+1)
		told(t, dir, done, true)
	}
}

// replay takes the steps as a disk would have them after a power cut: the
// content of a file that was not synced is torn, and a name that no directory
// sync came after is as it was before or as it should be, by chance. What is
// lost is lost in order within a directory, as file systems with a journal
// have it; between directories there is no order.
func replay(t *testing.T, dir string, all []step, random *rand.Rand) {
	t.Helper()
	synced := map[string]int{} // the last sync of each directory, and of each file that grows
	content := map[string]bool{}
	torn := map[string]bool{} // files that grow no more
	for i, s := range all {
		switch s.op {
		case "syncdir":
			synced[s.path] = i
		case "sync":
			content[fmt.Sprint(s.path, i-1)] = true // comes right after its write
			synced[path.Base(s.path)] = i           // a day's name is its file's in this story
		}
	}
	lostFrom := map[string]int{}
	kept := func(folder string, i int) bool {
		if i < synced[folder] {
			return true
		}
		if from, ok := lostFrom[folder]; ok {
			return i < from
		}
		if random.IntN(2) == 0 {
			lostFrom[folder] = i
			return false
		}
		return true
	}
	at := func(p string) string { return filepath.Join(dir, p) }
	must := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{} // by the name they were written under
	for i, s := range all {
		switch s.op {
		case "write":
			data := s.data
			if !content[fmt.Sprint(s.path, i)] {
				data = data[:random.IntN(len(data)+1)]
			}
			files[s.path] = data
			if kept(path.Dir(s.path), i) {
				must(os.WriteFile(at(s.path), data, 0o600))
			}
		case "append":
			day := path.Base(s.path)
			if _, err := os.Lstat(at(s.path)); torn[day] || err != nil && !kept(path.Dir(s.path), i) {
				torn[day] = true
				continue
			}
			data := s.data
			if i > synced[day] && random.IntN(2) == 0 {
				torn[day] = true
				data = data[:random.IntN(len(data))]
				if random.IntN(2) == 0 { // its length came to disk, its content did not
					data = append(slices.Clone(data), make([]byte, len(s.data)-len(data))...)
				}
			}
			f, err := os.OpenFile(at(s.path), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
			if errors.Is(err, fs.ErrNotExist) { // nor is its folder there
				continue
			}
			must(err)
			_, err = f.Write(data)
			must(errors.Join(err, f.Close()))
		case "rename":
			if !kept(path.Dir(s.to), i) {
				continue
			}
			if data, ok := files[s.path]; ok {
				// The entry, and with it the content that it names.
				must(os.WriteFile(at(s.to), data, 0o600))
				must(os.Remove(at(s.path)))
				continue
			}
			must(os.Rename(at(s.path), at(s.to)))
		case "mkdir":
			if kept(path.Dir(s.path), i) {
				must(os.Mkdir(at(s.path), 0o700))
			}
		case "link":
			if kept(path.Dir(s.to), i) {
				must(os.Link(at(s.path), at(s.to)))
			}
		case "remove":
			if kept(path.Dir(s.path), i) {
				must(os.RemoveAll(at(s.path)))
			}
		}
	}
}

// TestFaults: each step fails once, a write or sync after half of the file.
// The same is then tried again, or the process begins anew.
func TestFaults(t *testing.T) {
	t.Parallel()
	all, _ := steps(t)
	for _, reopen := range []bool{false, true} {
		for at := 1; at <= len(all); at++ {
			dir := room(t)
			n := 0
			m := opened(t, dir, func(s step) error {
				if n++; n != at {
					return unsynced(s)
				}
				if s.op == "append" {
					f, err := os.OpenFile(filepath.Join(dir, s.path), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
					if err != nil {
						t.Error(err)
						return err
					}
					if _, err := f.Write(s.data[:len(s.data)/2]); err != nil || f.Close() != nil {
						t.Error(err)
					}
				}
				if s.op == "sync" && all[at-2].op == "write" {
					if err := os.Truncate(filepath.Join(dir, s.path), int64(len(all[at-2].data)/2)); err != nil {
						t.Error(err)
					}
				}
				return syscall.ENOSPC
			})
			failed := 0
			for i, a := range story() {
				err := a.do(m)
				if err == nil {
					continue
				}
				if failed++; !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("step %d, act %d: %v", at, i, err)
				}
				if reopen {
					finished(t, m)
					told(t, dir, i, false)
					break
				}
				if err := a.do(m); err != nil {
					t.Fatalf("step %d, act %d again: %v", at, i, err)
				}
			}
			// Old partial tiles are removed after everything is on disk, and
			// what cannot be linked is copied: these may fail.
			s := all[at-1]
			may := s.op == "remove" || s.op == "link" || s.op == "mkdir" && strings.Contains(s.path, newSuffix)
			if failed > 1 || failed == 0 && !may {
				t.Fatalf("step %d, %v: %d acts failed", at, all[at-1].op, failed)
			}
			if failed == 0 || !reopen {
				holds(t, ledgerOf(t, m, moved), alhs("a", 1, 700))
				same(t, statesOf(t, ledgerOf(t, m, moved)), keptAfter(len(story())))
			}
			finished(t, m)
		}
	}
}

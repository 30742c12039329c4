package mirror

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"immuaudit/evidence"
)

// three makes a mirror of 300 transactions with a state in daily and two in
// the files of two days each.
func three(t testing.TB, dir string) (*Ledger, []evidence.Witnessed) {
	t.Helper()
	l := filled(t, dir, 300)
	states := []evidence.Witnessed{signed(orders, 10, 1), signed(orders, 20, 3), signed(orders, 30, 3), signed(orders, 40, 4), signed(orders, 50, 4)}
	witnessed(t, l, states...)
	return l, states
}

const (
	firstDay  = "states/2026-11-03"
	secondDay = "states/2026-11-04"
	daily     = "states/daily"
)

// TestTornStates: whatever a crash has left of the last line is passed over
// and cut off, and what comes then stands where it should.
func TestTornStates(t *testing.T) {
	t.Parallel()
	l, states := three(t, room(t))
	good, err := os.ReadFile(l.file(secondDay))
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.IndexByte(good, '\n') + 1
	for keep := start; keep < len(good); keep += 7 {
		for _, more := range []int{0, 3, maxTorn - len(good)} {
			torn := append(good[:keep:keep], make([]byte, more)...)
			rewrite(t, l.file(secondDay), func([]byte) []byte { return torn })
			var err error
			if l, err = again(t, l); err != nil {
				t.Fatal(err)
			}
			same(t, statesOf(t, l), states[:4])
			witnessed(t, l, signed(orders, 60, 4))
			same(t, statesOf(t, l), append(states[:4:4], signed(orders, 60, 4)))
		}
	}
}

// TestTornStatesFault: cutting off a torn line fails, then does not.
func TestTornStatesFault(t *testing.T) {
	t.Parallel()
	l, states := three(t, room(t))
	rewrite(t, l.file(secondDay), func(b []byte) []byte { return b[:len(b)-1] })
	finished(t, l.m)
	failed := false
	l = ledgerOf(t, opened(t, l.m.vol.dir, func(s step) error {
		if s.op == "cut" && !failed {
			failed = true
			return syscall.EIO
		}
		return unsynced(s)
	}), orders)
	if err := l.Witness([]evidence.Witnessed{signed(orders, 60, 4)}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	witnessed(t, l, signed(orders, 60, 4))
	same(t, statesOf(t, l), append(states[:4:4], signed(orders, 60, 4)))
}

// TestDamagedStates: a damaged file is told, the others are read and written
// to, nothing of the tiles is given up, and Truncate to all of them heals.
func TestDamagedStates(t *testing.T) {
	t.Parallel()
	insert := func(text string) func([]byte) []byte {
		return func(b []byte) []byte { return append([]byte(text), b...) }
	}
	for what, c := range map[string]struct {
		file   string
		lost   []int // states, by their place
		harm   func([]byte) []byte
		whyNot string
	}{
		"a bit":           {firstDay, []int{1}, func(b []byte) []byte { b[9] ^= 1; return b }, "the line at byte 0"},
		"the last line":   {firstDay, []int{2}, func(b []byte) []byte { b[len(b)-3] ^= 1; return b }, "no state"},
		"an empty line":   {firstDay, nil, insert("\n"), "not seven fields"},
		"a long line":     {secondDay, nil, insert(strings.Repeat("x", maxLine) + "\n"), "the line at byte 0"},
		"a longer line":   {secondDay, nil, insert(strings.Repeat("x", 1<<20) + "\n"), "longer than any state"},
		"many lines":      {secondDay, nil, insert(strings.Repeat("\n", maxLines)), "more than 1000000 lines"},
		"another day":     {firstDay, nil, func(b []byte) []byte { w := signed(orders, 15, 4); return append(appendLine(nil, &w), b...) }, "of another day"},
		"daily cut":       {daily, []int{0}, func(b []byte) []byte { return b[:len(b)-1] }, "its last line was cut"},
		"daily flipped":   {daily, []int{0}, func(b []byte) []byte { b[0] ^= 1; return b }, "no state"},
		"daily not lines": {daily, []int{0}, func([]byte) []byte { return make([]byte, maxTorn+chunk+1) }, "does not end in a state"},
		"daily too long":  {daily, []int{0}, func([]byte) []byte { return make([]byte, maxStates+1) }, "too long"},
	} {
		l, states := three(t, room(t))
		rewrite(t, l.file(c.file), c.harm)
		l, err := again(t, l)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		want := []evidence.Witnessed{}
		for i, w := range states {
			if !slices.Contains(c.lost, i) {
				want = append(want, w)
			}
		}
		got, err := l.States(0, 1000, 1000)
		damaged(t, err, c.file, 300)
		if !strings.Contains(err.Error(), c.whyNot) || !strings.Contains(err.Error(), "move it away") || strings.Contains(err.Error(), "the walk fills") {
			t.Errorf("%s: %v", what, err)
		}
		same(t, got, want)
		witnessed(t, l, signed(orders, 60, 4), signed(orders, 70, 5))
		if err := l.Truncate(300); err != nil {
			t.Fatal(err)
		}
		holds(t, l, alhs("a", 1, 300))
		if got, err = l.States(60, 1000, 1000); len(got) != 2 {
			t.Errorf("%s: %d of 2 new states are kept: %v", what, len(got), err)
		}
	}
}

// TestSkipLongLine: the bisection comes to an end where a line is longer than
// any state.
func TestSkipLongLine(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Repeat("x", chunk+1) + "\n")
	for tx := uint64(10); tx < 1000; tx++ {
		w := signed(orders, tx, 1)
		data = appendLine(data, &w)
	}
	b := &backward{f: bytes.NewReader(data), at: int64(len(data))}
	if err := b.skip(b.at, 5); err != nil || b.at != chunk+2 {
		t.Errorf("goes on at %d of %d, %v", b.at, len(data), err)
	}
}

// TestUnreadableStates: what cannot be told from a torn line, but is too long
// for one, and what nobody has made there, stops Witness. Truncate heals.
func TestUnreadableStates(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		file  string
		spoil func(l *Ledger) error
		want  []int
	}{
		"no lines": {secondDay, func(l *Ledger) error {
			return os.WriteFile(l.file(secondDay), make([]byte, maxTorn+chunk+1), 0o600)
		}, []int{0, 1, 2}},
		"too long":       {secondDay, func(l *Ledger) error { return os.Truncate(l.file(secondDay), maxStates+1) }, []int{0, 1, 2}},
		"a foreign file": {"states/2026-11-31", func(l *Ledger) error { return os.WriteFile(l.file("states/2026-11-31"), nil, 0o600) }, []int{0}},
		"many files": {"states", func(l *Ledger) (err error) {
			for n := range maxDays {
				err = errors.Join(err, os.WriteFile(l.file("states/"+day(n+10).Format("2006-01-02")), nil, 0o600))
			}
			return err
		}, []int{0}},
	} {
		l, states := three(t, room(t))
		if err := c.spoil(l); err != nil {
			t.Fatal(err)
		}
		l, err := again(t, l)
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.States(0, 1000, 1000)
		damaged(t, err, c.file, 300)
		for range 2 {
			damaged(t, l.Witness([]evidence.Witnessed{signed(orders, 60, 4)}), c.file, 300)
		}
		if err := l.Truncate(300); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		want := []evidence.Witnessed{}
		for _, i := range c.want {
			want = append(want, states[i])
		}
		same(t, statesOf(t, l), want)
		witnessed(t, l, signed(orders, 60, 4))
		same(t, statesOf(t, l), append(want, signed(orders, 60, 4)))
		holds(t, l, alhs("a", 1, 300))
	}
}

// TestThinningDamaged: the last line that is a state stands for its day; a
// file in which there is none stays, and daily is not written over.
func TestThinningDamaged(t *testing.T) {
	t.Parallel()
	l, states := three(t, room(t))
	rewrite(t, l.file(firstDay), func(b []byte) []byte { b[len(b)-3] ^= 1; return b })
	rewrite(t, l.file(secondDay), func([]byte) []byte { return []byte("nothing\n") })
	rewrite(t, l.file(daily), func(b []byte) []byte { return append(b, "cut"...) })
	l, err := again(t, l)
	if err != nil {
		t.Fatal(err)
	}
	damaged(t, l.Prune(day(9)), firstDay, 300)
	got, err := l.States(0, 1000, 1000)
	damaged(t, err, secondDay, 300)
	same(t, got, states[:2])
	if _, err := os.Stat(l.file(secondDay)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.file(firstDay)); err == nil {
		t.Error("a thinned day is still there")
	}
	witnessed(t, l, signed(orders, 60, 20)) // and the day turns in spite of it
	if text, err := os.ReadFile(l.file(daily)); err != nil || !bytes.Contains(text, []byte("\ncut\n")) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestUnsafeStates(t *testing.T) {
	t.Parallel()
	elsewhere := filepath.Dir(room(t))
	for what, spoil := range map[string]func(l *Ledger) error{
		"the folder a link": func(l *Ledger) error { return relink(l.file("states"), elsewhere) },
		"the folder open":   func(l *Ledger) error { return os.Chmod(l.file("states"), 0o777) },
		"a day a link":      func(l *Ledger) error { return relink(l.file(secondDay), elsewhere) },
		"a day open":        func(l *Ledger) error { return os.Chmod(l.file(secondDay), 0o660) },
		"a day a folder": func(l *Ledger) error {
			return errors.Join(os.Remove(l.file(firstDay)), os.Mkdir(l.file(firstDay), 0o700))
		},
		"daily a link": func(l *Ledger) error { return relink(l.file(daily), elsewhere) },
	} {
		l, _ := three(t, room(t))
		if err := l.m.Close(); err != nil {
			t.Fatal(err)
		}
		if err := spoil(l); err != nil {
			t.Fatal(err)
		}
		m, err := open(l.m.vol.dir, quiet, unsynced)
		if err != nil {
			t.Fatal(err)
		}
		l = ledgerOf(t, m, orders)
		_, err1 := l.States(0, 1000, 1000)
		for i, err := range []error{err1, l.Witness([]evidence.Witnessed{signed(orders, 60, 9)}), l.Prune(day(30)), l.Truncate(200)} {
			if !errors.Is(err, ErrUnsafe) {
				t.Errorf("%s, %d: got %v", what, i, err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// While the file is known, nobody looks at it again before writing.
	for what, spoil := range map[string]func(l *Ledger) error{
		"a link": func(l *Ledger) error { return relink(l.file(secondDay), elsewhere) },
		"open":   func(l *Ledger) error { return os.Chmod(l.file(secondDay), 0o660) },
	} {
		l, _ := three(t, room(t))
		if err := spoil(l); err != nil {
			t.Fatal(err)
		}
		if err := l.Witness([]evidence.Witnessed{signed(orders, 60, 4)}); err == nil {
			t.Errorf("%s is written to", what)
		}
		if err := l.m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwoWitnesses: the second process that writes is refused, then takes up
// what the other has left.
func TestTwoWitnesses(t *testing.T) {
	t.Parallel()
	dir := room(t)
	a, states := three(t, dir)
	b := ledgerOf(t, opened(t, dir, unsynced), orders)
	witnessed(t, b, signed(orders, 60, 4))
	refused := func(tx uint64) {
		t.Helper()
		if err := a.Witness([]evidence.Witnessed{signed(orders, tx, 4)}); !errors.Is(err, ErrChanged) {
			t.Errorf("got %v", err)
		}
	}
	refused(70)
	witnessed(t, a, signed(orders, 70, 4))
	same(t, statesOf(t, a), append(states, signed(orders, 60, 4), signed(orders, 70, 4)))
	if err := os.Remove(a.file(secondDay)); err != nil {
		t.Fatal(err)
	}
	refused(80)
	witnessed(t, a, signed(orders, 80, 4))
	same(t, statesOf(t, a), append(states[:3:3], signed(orders, 80, 4)))
	rewrite(t, a.file(secondDay), func(b []byte) []byte { return append(b, '\n') })
	refused(90)
	witnessed(t, a, signed(orders, 90, 4))
	// Another file of the same size.
	text, err := os.ReadFile(a.file(secondDay))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(a.file("other"), text, 0o600), os.Rename(a.file("other"), a.file(secondDay))); err != nil {
		t.Fatal(err)
	}
	refused(100)
}

// TestPlantedDay: a file that was not there a moment ago is not written to.
func TestPlantedDay(t *testing.T) {
	t.Parallel()
	dir := room(t)
	l := ledgerOf(t, opened(t, dir, func(s step) error {
		if s.op == "append" {
			if err := os.WriteFile(filepath.Join(dir, s.path), nil, 0o600); err != nil {
				return err
			}
		}
		return unsynced(s)
	}), orders)
	if err := l.Witness([]evidence.Witnessed{signed(orders, 1, 1)}); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
}

// TestFullDay: what would not be read again is not written.
func TestFullDay(t *testing.T) {
	t.Parallel()
	l, states := three(t, room(t))
	last := signed(orders, 55, 4)
	rewrite(t, l.file(secondDay), func(b []byte) []byte {
		line := appendLine(nil, &last)
		b = append(b, make([]byte, maxStates-len(b)-2*len(line)-1)...)
		return append(append(b, '\n'), line...)
	})
	l, err := again(t, l)
	if err != nil {
		t.Fatal(err)
	}
	witnessed(t, l, signed(orders, 60, 4))
	witnessed(t, l, signed(orders, 70, 4))
	witnessed(t, l, signed(orders, 80, 5))
	got, err := l.States(51, 1000, 1000)
	same(t, got, []evidence.Witnessed{last, signed(orders, 60, 4), signed(orders, 80, 5)})
	damaged(t, err, secondDay, 300)
	if err := l.Prune(day(6)); !isDamage(err) && err != nil {
		t.Fatal(err)
	}
	same(t, statesOf(t, l), append(append(states[:1:1], states[2]), signed(orders, 60, 4), signed(orders, 80, 5)))
}

// TestReadOnly: everything can be read and nothing written.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := room(t)
	if _, err := OpenReadOnly(dir, quiet); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mirrored there yet") {
		t.Errorf("without a directory: %v", err)
	}
	l, states := three(t, dir)
	rewrite(t, l.file(secondDay), func(b []byte) []byte { return append(b, "torn"...) })
	finished(t, l.m)
	before := filesUnder(t, dir, ".")
	m, err := OpenReadOnly(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	l = ledgerOf(t, m, orders)
	holds(t, l, alhs("a", 1, 300))
	same(t, statesOf(t, l), states)
	other := ledgerOf(t, m, bills)
	holds(t, other, nil)
	for i, err := range []error{
		l.Append(301, alhs("a", 301, 301)), l.Append(1, alhs("a", 1, 1)), l.Truncate(0), l.Truncate(200), l.Truncate(300), l.Rename(moved),
		l.Witness([]evidence.Witnessed{signed(orders, 60, 9)}), l.Witness(nil), l.Prune(day(30)), m.SetAside(orders), m.SetAside(moved),
		other.Append(1, alhs("a", 1, 1)), other.Witness([]evidence.Witnessed{signed(bills, 60, 9)}), other.Truncate(0), other.Rename(moved),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%d: got %v", i, err)
		}
	}
	// Should one of them forget to ask, no step is taken all the same.
	c := m.vol.change(map[string]bool{})
	_, err = c.append("file", nil, 0, nil)
	for i, err := range []error{
		err, c.put("file.new", "file", nil), c.rename(l.folder, "folder"), c.link(l.at("head"), "file"), c.mkdir("folder"), c.folders("folder"),
		m.vol.remove(l.at("head")), m.vol.clear(l.folder), m.vol.cut(l.at("head"), 0), m.vol.syncFile(l.at("head")),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("step %d: got %v", i, err)
		}
	}
	finished(t, m)
	if err := os.Remove(l.file("tile/0/001.p/44")); err != nil {
		t.Fatal(err)
	}
	delete(before, filepath.Join(l.folder, "tile/0/001.p/44"))
	if m, err = OpenReadOnly(dir, quiet); err != nil {
		t.Fatal(err)
	}
	l = ledgerOf(t, m, orders)
	damaged(t, l.Check(t.Context()), "tile/0/001.p/44", 256)
	finished(t, m)
	if after := filesUnder(t, dir, "."); len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
}

func FuzzLine(f *testing.F) {
	for _, w := range []evidence.Witnessed{signed(orders, 1, 1), signed(moved, maxTx, 30), signed(evidence.Name{Database: "\xff é+%"}, 7, 2)} {
		f.Add(string(appendLine(nil, &w)), w.State.TxID, w.At.Unix())
	}
	f.Fuzz(func(t *testing.T, line string, tx uint64, at int64) {
		if w, err := parseLine([]byte(line)); err == nil && string(appendLine(nil, &w)) != line {
			t.Error("two texts for one state")
		}
		// And whatever is written can be read.
		w := signedAt(evidence.Name{Database: line}, tx, time.Unix(at, 0))
		w.State.Signature = []byte(line + "s")
		if checkWitnessed(&w) != nil {
			return
		}
		if got, err := parseLine(appendLine(nil, &w)); err != nil || !is(w)(got) {
			t.Errorf("%v becomes %v, %v", w, got, err)
		}
	})
}

// FuzzStates puts anything in the place of a file of states: what is then
// given out stands there as a line, and what is added afterwards can be read.
func FuzzStates(f *testing.F) {
	files := []string{firstDay, secondDay, daily}
	l, states := three(f, room(f))
	good := filesUnder(f, l.file("."), "states")
	for i, file := range files {
		f.Add(uint8(i), []byte(good[file]), uint64(35))
		f.Add(uint8(i), []byte(good[file][:len(good[file])/2]), uint64(0))
		f.Add(uint8(i), []byte("\n"+good[file]+"\x00"), uint64(1000))
	}
	dir := l.m.vol.dir
	folder := l.file("states")
	finished(f, l.m)
	f.Fuzz(func(t *testing.T, which uint8, content []byte, to uint64) {
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		file := files[int(which)%len(files)]
		written := 0
		for name, text := range good {
			if name == file {
				text = string(content)
			}
			written += strings.Count(text, "\n")
			if err := os.WriteFile(filepath.Join(filepath.Dir(folder), name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m := opened(t, dir, unsynced)
		l := ledgerOf(t, m, orders)
		got, err := l.States(0, to, 1000)
		if err != nil && !isDamage(err) {
			t.Fatal(err)
		}
		for _, w := range got {
			if w.State.TxID > to || !has(states, w) && !bytes.Contains(content, appendLine(nil, &w)) {
				t.Errorf("a state of transaction %d is made up", w.State.TxID)
			}
		}
		if len(got) > written {
			t.Errorf("%d states in %d lines", len(got), written)
		}
		next := signed(orders, maxTx, 20)
		if err := l.Witness([]evidence.Witnessed{next}); isDamage(err) || errors.As(err, new(*Contradiction)) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if got, err := l.States(maxTx, maxTx, 10); len(got) != 1 {
			t.Errorf("%d, %v", len(got), err)
		}
		finished(t, m)
	})
}

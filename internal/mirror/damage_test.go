package mirror

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// again opens a mirror with orders in it once more.
func again(t testing.TB, l *Ledger) (*Ledger, error) {
	t.Helper()
	finished(t, l.m)
	return opened(t, l.m.vol.dir, unsynced).Ledger(orders)
}

func (l *Ledger) file(p string) string { return filepath.Join(l.m.vol.dir, l.folder, p) }

var harms = map[string]func([]byte) []byte{
	"cut":     func(b []byte) []byte { return b[:len(b)/2] },
	"empty":   func([]byte) []byte { return nil },
	"longer":  func(b []byte) []byte { return append(b, 0) },
	"doubled": func(b []byte) []byte { return append(b, b...) },
	"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
	"flipped": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
}

// TestTornEnd: the transactions of a torn partial tile are given up, a torn
// partial tile of roots is formed again.
func TestTornEnd(t *testing.T) {
	t.Parallel()
	const size = 65_536 + 700
	for tile, whole := range map[string]uint64{"tile/0/258.p/188": size - 188, "tile/1/001.p/2": size, "tile/2/000.p/1": size} {
		l := filled(t, room(t), size)
		for harm, f := range harms {
			rewrite(t, l.file(tile), f)
			l, err := again(t, l)
			if err != nil {
				t.Fatalf("%s %s: %v", tile, harm, err)
			}
			holds(t, l, alhs("a", 1, whole))
			appended(t, l, whole+1, alhs("a", whole+1, size))
		}
		if err := os.Remove(l.file(tile)); err != nil {
			t.Fatal(err)
		}
		l, err := again(t, l)
		if err != nil {
			t.Fatal(err)
		}
		holds(t, l, alhs("a", 1, whole))
	}
}

// TestDamagedTile: no hash comes out of a full tile that does not fit, nor of
// those below it; what does not depend on it can be kept.
func TestDamagedTile(t *testing.T) {
	t.Parallel()
	const size = 65_536 + 700
	all := alhs("a", 1, size)
	want := reference(all)
	for tile, whole := range map[string]uint64{"tile/0/002": 512, "tile/0/257": 65_536 + 256, "tile/1/000": 0} {
		l := filled(t, room(t), size)
		for harm, f := range harms {
			good, err := os.ReadFile(l.file(tile))
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, l.file(tile), f)
			if l, err = again(t, l); err != nil {
				t.Fatalf("%s %s: %v", tile, harm, err)
			}
			damaged(t, l.Check(t.Context()), tile, whole)
			_, err = l.LeafHash(whole + 1)
			damaged(t, err, tile, whole)
			_, err = l.Holds(whole+1, all[whole])
			damaged(t, err, tile, whole)
			_, err = l.Inclusion(whole+1, size)
			damaged(t, err, tile, whole)
			_, err = l.Subtree(0, whole)
			damaged(t, err, tile, whole)
			_, err = l.LeafHashes(whole+1, 2)
			damaged(t, err, tile, whole)
			damaged(t, l.Append(whole+1, all[whole:]), tile, whole)
			// What does not need it is still there.
			if root, err := l.Root(size); err != nil || root != want {
				t.Fatal(root, err)
			}
			rewrite(t, l.file(tile), func([]byte) []byte { return good })
		}
		rewrite(t, l.file(tile), harms["zeroed"])
		if err := l.Truncate(whole); err != nil {
			t.Fatal(err)
		}
		holds(t, l, all[:whole])
		appended(t, l, whole+1, all[whole:])
		holds(t, l, all)
	}
}

// TestTornEndBeyondHelp: where both a partial tile of roots and a tile below
// it are gone, nothing is made up.
func TestTornEndBeyondHelp(t *testing.T) {
	t.Parallel()
	for below, want := range map[string]struct {
		harm, path string
		whole      uint64
	}{
		"cut":     {"cut", "tile/0/001", 256},
		"flipped": {"flipped", "tile/1/000.p/2", 0},
	} {
		l := filled(t, room(t), 700)
		rewrite(t, l.file("tile/0/001"), harms[below])
		rewrite(t, l.file("tile/1/000.p/2"), harms["cut"])
		_, err := again(t, l)
		damaged(t, err, want.path, want.whole)
	}
}

// TestDamagedHead: it is never taken for an empty mirror, it does not concern
// other ledgers, and it can be set aside.
func TestDamagedHead(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"head", "ledger"} {
		for harm, f := range harms {
			l := filled(t, room(t), 300)
			appended(t, ledgerOf(t, l.m, bills), 1, alhs("b", 1, 3))
			rewrite(t, l.file(file), f)
			_, err := again(t, l)
			damaged(t, err, file, 0)
			if !strings.Contains(err.Error(), "orders") {
				t.Errorf("%s %s: %v does not name the ledger", file, harm, err)
			}
			m := opened(t, l.m.vol.dir, unsynced)
			holds(t, ledgerOf(t, m, bills), alhs("b", 1, 3))
			if err := m.SetAside(orders); err != nil {
				t.Fatal(err)
			}
			l = ledgerOf(t, m, orders)
			holds(t, l, nil)
			appended(t, l, 1, alhs("c", 1, 3))
			holds(t, l, alhs("c", 1, 3))
		}
		l := filled(t, room(t), 300)
		if err := os.Remove(l.file(file)); err != nil {
			t.Fatal(err)
		}
		_, err := again(t, l)
		damaged(t, err, file, 0)
	}
}

// TestExchanged: the folder of one ledger in the place of another's.
func TestExchanged(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 3)
	other := ledgerOf(t, l.m, bills)
	appended(t, other, 1, alhs("b", 1, 3))
	if err := errors.Join(os.Rename(l.file(""), l.file("")+"-"), os.Rename(other.file(""), l.file("")), os.Rename(l.file("")+"-", other.file(""))); err != nil {
		t.Fatal(err)
	}
	finished(t, l.m)
	if _, err := Open(l.m.vol.dir, quiet); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
}

// TestTwoProcesses: the second one that writes is refused.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	dir := room(t)
	a := filled(t, dir, 3)
	b := ledgerOf(t, opened(t, dir, unsynced), orders)
	appended(t, b, 4, alhs("a", 4, 5))
	if err := a.Append(4, alhs("x", 4, 9)); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
	// It takes up what the other has left.
	if err := a.Append(4, alhs("x", 4, 9)); !errors.As(err, new(*Contradiction)) {
		t.Errorf("got %v", err)
	}
	holds(t, a, alhs("a", 1, 5))
}

func TestUnsafe(t *testing.T) {
	t.Parallel()
	elsewhere := filepath.Dir(room(t))
	for name, c := range map[string]struct {
		want  error
		spoil func(l *Ledger) error
	}{
		"a foreign file":       {ErrForeign, func(l *Ledger) error { return os.WriteFile(filepath.Join(l.m.vol.dir, "notes.txt"), nil, 0o600) }},
		"a foreign folder":     {ErrForeign, func(l *Ledger) error { return os.Mkdir(filepath.Join(l.m.vol.dir, "lost+found"), 0o700) }},
		"the directory a link": {ErrUnsafe, func(l *Ledger) error { return relink(l.m.vol.dir, elsewhere) }},
		"the directory open":   {ErrUnsafe, func(l *Ledger) error { return os.Chmod(l.m.vol.dir, 0o770) }},
		"the folder a link":    {ErrUnsafe, func(l *Ledger) error { return relink(l.file("."), elsewhere) }},
		"the folder a file": {ErrUnsafe, func(l *Ledger) error {
			return errors.Join(os.RemoveAll(l.file(".")), os.WriteFile(l.file("."), nil, 0o600))
		}},
		"the folder open":       {ErrUnsafe, func(l *Ledger) error { return os.Chmod(l.file("."), 0o702) }},
		"the head a link":       {ErrUnsafe, func(l *Ledger) error { return relink(l.file("head"), elsewhere) }},
		"the head open":         {ErrUnsafe, func(l *Ledger) error { return os.Chmod(l.file("head"), 0o620) }},
		"the head a folder":     {ErrUnsafe, func(l *Ledger) error { return errors.Join(os.Remove(l.file("head")), os.Mkdir(l.file("head"), 0o700)) }},
		"the last tile a link":  {ErrUnsafe, func(l *Ledger) error { return relink(l.file("tile/0/001.p/44"), elsewhere) }},
		"the last tile open":    {ErrUnsafe, func(l *Ledger) error { return os.Chmod(l.file("tile/0/001.p/44"), 0o666) }},
		"the tiles' level open": {ErrUnsafe, func(l *Ledger) error { return os.Chmod(l.file("tile/0"), 0o777) }},
		"the tiles a link":      {ErrUnsafe, func(l *Ledger) error { return relink(l.file("tile"), elsewhere) }},
	} {
		l := filled(t, room(t), 300)
		if err := l.m.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(l); err != nil {
			t.Fatal(err)
		}
		m, err := open(l.m.vol.dir, quiet, unsynced)
		if err == nil {
			if l, err = m.Ledger(orders); err == nil {
				err = l.Append(301, alhs("a", 301, 301))
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// relink moves a thing away and puts a link to it in its place.
func relink(p, elsewhere string) error {
	to := filepath.Join(elsewhere, strings.ReplaceAll(p, string(filepath.Separator), "_"))
	return errors.Join(os.Rename(p, to), os.Symlink(to, p))
}

// TestNames: no two ledgers share a folder, and no name leads out of it.
func TestNames(t *testing.T) {
	t.Parallel()
	dir := room(t)
	m := opened(t, dir, unsynced)
	long := strings.Repeat("n", maxName)
	names := []evidence.Name{
		{}, {Server: "a"}, {Database: "a"}, {Server: "a", Database: "bc"}, {Server: "ab", Database: "c"}, {Server: "1", Database: "1:1"},
		{Server: "a", Database: "BC"}, {Server: "A", Database: "bc"}, {Server: "a", Database: "../../etc"}, {Server: "a", Database: "aside"},
		{Server: "a", Database: "."}, {Server: "a", Database: ".."}, {Server: "a", Database: "/"}, {Server: "a", Database: "x\x00y"}, {Server: "a", Database: "x\ny"},
		{Server: "a", Database: "\xff\xfe"}, {Server: "a", Database: "\ufffd\ufffd"}, {Server: "a", Database: "é"}, {Server: "a", Database: "e\u0301"}, {Server: "a", Database: "con"},
		{Server: long, Database: long}, {Server: strings.Repeat("\xff", maxName), Database: strings.Repeat("\xff", maxName)},
		{Server: "a", Database: "bc.new"}, {Server: `a"`, Database: `b\`},
	}
	folders := map[string]bool{}
	for i, name := range names {
		l := ledgerOf(t, m, name)
		appended(t, l, 1, alhs("a", 1, uint64(i)+1))
		if folder := strings.ToLower(l.folder); folders[folder] || !folderName.MatchString(folder) || len(folder) > 80 {
			t.Errorf("%q is in %s", name, folder)
		}
		folders[l.folder] = true
	}
	finished(t, m)
	m = opened(t, dir, unsynced)
	for i, name := range names {
		holds(t, ledgerOf(t, m, name), alhs("a", 1, uint64(i)+1))
	}
	tooLong := evidence.Name{Database: long + "n"}
	_, err := m.Ledger(tooLong)
	for _, err := range []error{err, m.SetAside(tooLong), ledgerOf(t, m, orders).Rename(tooLong)} {
		if err == nil {
			t.Error("a name that is too long is taken")
		}
	}
}

func FuzzHead(f *testing.F) {
	for _, size := range []uint64{0, 1, 255, 70_000} {
		h := head{size: size}
		for i := range h.size {
			if len(h.frontier) < 9 && size>>i&1 == 1 {
				h.frontier = append(h.frontier, proof.Hash{byte(i)})
			}
		}
		f.Add([]byte(h.String()))
	}
	f.Add([]byte(strings.Repeat("\n", 70)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := parseHead(data); err == nil && h.String() != string(data) {
			t.Error("two texts for one head")
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(describe(orders)))
	f.Add([]byte(describe(evidence.Name{Server: "\xff\"\n", Database: "é"})))
	f.Fuzz(func(t *testing.T, data []byte) {
		if name, err := parseDescription(data); err == nil && describe(name) != string(data) {
			t.Error("two texts for one name")
		}
	})
}

// FuzzFiles puts anything in the place of one file: what then is given out is
// right, whatever it is.
func FuzzFiles(f *testing.F) {
	const size = 700
	files := []string{"head", "ledger", "tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2"}
	all := alhs("a", 1, size)
	for i := range files {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), make([]byte, 188*hashSize))
		f.Add(uint8(i), bytes.Repeat([]byte{7}, tileBytes))
	}
	small := head{size: 1, frontier: []proof.Hash{leafHash(&all[1])}}
	f.Add(uint8(0), []byte(small.String()))
	l := filled(f, room(f), size)
	good := filesUnder(f, l.file("."), ".")
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		for name, data := range good {
			if err := os.WriteFile(l.file(name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		file := files[int(which)%len(files)]
		if err := os.WriteFile(l.file(file), content, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := opened(t, l.m.vol.dir, unsynced).Ledger(orders)
		if err != nil || file == "head" {
			return // a head that fits itself stands for another tree; the tiles then do not fit it
		}
		for _, tx := range []uint64{1, 256, 257, 512, 513, size} {
			if h, err := l.LeafHash(tx); err == nil && h != leafHash(&all[tx-1]) {
				t.Errorf("transaction %d: wrong hash", tx)
			}
			if root, err := l.Root(tx); err == nil && root != reference(all[:tx]) {
				t.Errorf("root of %d: wrong", tx)
			}
		}
	})
}

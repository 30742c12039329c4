package mirror

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// stored is the same tree in x/mod/sumdb/tlog.
type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = s[x]
	}
	return out, nil
}

func storedOf(t testing.TB, alhs []proof.Hash) stored {
	t.Helper()
	var s stored
	for i := range alhs {
		more, err := tlog.StoredHashes(int64(i), alhs[i][:], s)
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, more...)
	}
	return s
}

// TestTilesAreThoseOfTlog: whatever size it has grown through, the files are
// to the byte what another implementation publishes, and no others; only the
// height is not in their path.
func TestTilesAreThoseOfTlog(t *testing.T) {
	t.Parallel()
	dir := room(t)
	l := filled(t, dir, 1)
	for _, size := range []uint64{1, 2, 255, 256, 257, 513, 65_535, 65_536, 65_537, 70_000} {
		appended(t, l, l.Size()+1, alhs("a", l.Size()+1, size))
		want := map[string]string{}
		s := storedOf(t, alhs("a", 1, size))
		for _, tile := range tlog.NewTiles(tileHeight, 0, int64(size)) {
			data, err := tlog.ReadTileData(tile, s)
			if err != nil {
				t.Fatal(err)
			}
			want["tile/"+strings.TrimPrefix(tile.Path(), "tile/8/")] = string(data)
		}
		if got := filesUnder(t, filepath.Join(dir, l.folder), "tile"); !maps.Equal(got, want) {
			t.Errorf("size %d: %v, want %v", size, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

func filesUnder(t testing.TB, folder, part string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(folder, part), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(folder, p)
		files[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestPath: the specification's own example, and one of every number of groups.
func TestPath(t *testing.T) {
	t.Parallel()
	for want, tile := range map[string]tile{
		"tile/0/x001/x234/067":     {0, 1234067, 256},
		"tile/0/000":               {0, 0, 256},
		"tile/3/999.p/255":         {3, 999, 255},
		"tile/1/x001/000.p/1":      {1, 1000, 1},
		"tile/0/x001/x000/000.p/7": {0, 1000000, 7},
	} {
		if got := tile.path(); got != want {
			t.Errorf("%v is %s, want %s", tile, got, want)
		}
	}
}

// TestProofsAgainstOthers compares with x/mod/sumdb/tlog, and lets
// transparency-dev/merkle verify.
func TestProofsAgainstOthers(t *testing.T) {
	t.Parallel()
	const size = 66_000
	all := alhs("a", 1, size)
	l := filled(t, room(t), size)
	s := storedOf(t, all)
	random := rand.New(rand.NewPCG(1, 2))
	sizes := []uint64{1, 2, 3, 255, 256, 257, 512, 65_535, 65_536, 65_537, size - 1, size}
	for range 60 {
		sizes = append(sizes, 1+random.Uint64N(size))
	}
	plain := func(path []tlog.Hash) (out []proof.Hash) {
		for _, h := range path {
			out = append(out, proof.Hash(h))
		}
		return out
	}
	bytesOf := func(path []proof.Hash) (out [][]byte) {
		for i := range path {
			out = append(out, path[i][:])
		}
		return out
	}
	for _, n := range sizes {
		root, err := l.Root(n)
		want, _ := tlog.TreeHash(int64(n), s)
		if err != nil || root != proof.Hash(want) {
			t.Fatalf("root of %d: %v, %v, want %v", n, root, err, want)
		}
		tx := 1 + random.Uint64N(n)
		path, err := l.Inclusion(tx, n)
		record, _ := tlog.ProveRecord(int64(n), int64(tx-1), s)
		if err != nil || !slices.Equal(path, plain(record)) {
			t.Fatalf("inclusion of %d in %d: %v, %v, want %v", tx, n, path, err, record)
		}
		leaf, err := l.LeafHash(tx)
		if err != nil {
			t.Fatal(err)
		}
		if err := merkle.VerifyInclusion(rfc6962.DefaultHasher, tx-1, n, leaf[:], bytesOf(path), root[:]); err != nil {
			t.Fatal(err)
		}
		old, err := l.Root(tx)
		if err != nil {
			t.Fatal(err)
		}
		path, err = l.Consistency(tx, n)
		tree, _ := tlog.ProveTree(int64(n), int64(tx), s)
		if err != nil || !slices.Equal(path, plain(tree)) {
			t.Fatalf("consistency of %d with %d: %v, %v, want %v", tx, n, path, err, tree)
		}
		if err := merkle.VerifyConsistency(rfc6962.DefaultHasher, tx, n, bytesOf(path), old[:], root[:]); err != nil {
			t.Fatal(err)
		}
	}
	for tx, want := range map[uint64]bool{1: true, 256: true, 257: true, 65_536: true, size: true} {
		if ok, err := l.Holds(tx, all[tx-1]); ok != want || err != nil {
			t.Errorf("transaction %d: %v, %v", tx, ok, err)
		}
		if ok, err := l.Holds(tx, all[tx%size]); ok || err != nil {
			t.Errorf("transaction %d with the Alh of another: %v, %v", tx, ok, err)
		}
	}
}

func TestBeyond(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 300)
	_, err0 := l.LeafHash(0)
	_, err1 := l.LeafHash(301)
	_, err2 := l.Root(301)
	_, err3 := l.Inclusion(0, 300)
	_, err4 := l.Inclusion(301, 300)
	_, err5 := l.Inclusion(1, 1<<63)
	_, err6 := l.Consistency(300, 299)
	_, err7 := l.Consistency(1, 301)
	_, err8 := l.LeafHashes(0, 1)
	_, err9 := l.LeafHashes(300, 2)
	_, err10 := l.LeafHashes(1<<64-1, 2)
	_, err11 := l.Subtree(0, 300)
	_, err12 := l.Subtree(8, 1)
	_, err13 := l.Subtree(9, 0)
	_, err14 := l.Subtree(64, 0)
	_, err15 := l.Subtree(1<<40, 1<<63)
	for i, err := range []error{err0, err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11, err12, err13, err14, err15, l.Truncate(301)} {
		if !errors.Is(err, ErrBeyond) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestSubtree: every perfect subtree there is.
func TestSubtree(t *testing.T) {
	t.Parallel()
	const size = 66_000
	all := alhs("a", 1, size)
	l := filled(t, room(t), size)
	random := rand.New(rand.NewPCG(11, 12))
	for level := uint(0); size>>level > 0; level++ {
		count := uint64(size >> level)
		for _, index := range []uint64{0, count - 1, random.Uint64N(count), random.Uint64N(count)} {
			got, err := l.Subtree(level, index)
			if want := reference(all[index<<level : (index+1)<<level]); err != nil || got != want {
				t.Errorf("height %d, number %d: %v, %v, want %v", level, index, got, err, want)
			}
		}
	}
}

func TestLeafHashes(t *testing.T) {
	t.Parallel()
	const size = 70_000
	all := alhs("a", 1, size)
	l := filled(t, room(t), size)
	for _, c := range []struct{ first, n int }{{1, 0}, {1, 1}, {250, 20}, {size, 1}, {size + 1, 0}, {size - maxLeaves + 1, maxLeaves}} {
		got, err := l.LeafHashes(uint64(c.first), c.n)
		if err != nil || len(got) != c.n {
			t.Fatalf("%d from %d on: %d, %v", c.n, c.first, len(got), err)
		}
		for i := range got {
			if got[i] != leafHash(&all[c.first-1+i]) {
				t.Fatalf("wrong hash of transaction %d", c.first+i)
			}
		}
	}
	for _, n := range []int{-1, maxLeaves + 1} {
		if _, err := l.LeafHashes(1, n); err == nil {
			t.Errorf("%d are given", n)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 300)
	for _, first := range []uint64{0, 302, 1 << 63, 1<<64 - 1} {
		gap := &Gap{}
		if err := l.Append(first, alhs("a", 1, 2)); !errors.As(err, &gap) || *gap != (Gap{first, 300}) {
			t.Errorf("from %d on: %v", first, err)
		}
	}
	other := alhs("a", 200, 310)
	other[50] = proof.Hash{1}
	want := Contradiction{Tx: 250, Have: leafHash(&alhs("a", 250, 250)[0]), Got: leafHash(&other[50])}
	got := &Contradiction{}
	if err := l.Append(200, other); !errors.As(err, &got) || *got != want {
		t.Errorf("got %v, want %v", err, &want)
	}
	holds(t, l, alhs("a", 1, 300))
	appended(t, l, 200, alhs("a", 200, 310))
	appended(t, l, 311, nil)
	holds(t, l, alhs("a", 1, 310))
}

// TestModel does whatever may be done, in any order, and compares with a list.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 3))
		dir := room(t)
		m := opened(t, dir, unsynced)
		name, history, model := orders, "a", []proof.Hash(nil)
		l := ledgerOf(t, m, name)
		for range 30 {
			size := uint64(len(model))
			switch random.IntN(7) {
			default:
				first := size + 1 - random.Uint64N(min(size, 300)+1)
				more := alhs(history, size+1, size+random.Uint64N(700))
				appended(t, l, first, append(slices.Clone(model[first-1:]), more...))
				model = append(model, more...)
			case 4:
				finished(t, m)
				m = opened(t, dir, unsynced)
				l = ledgerOf(t, m, name)
			case 5:
				size = random.Uint64N(size + 1)
				if err := l.Truncate(size); err != nil {
					t.Fatal(err)
				}
				model, history = model[:size:size], history+"'"
			case 6:
				name.Database += "É"
				if err := l.Rename(name); err != nil {
					t.Fatal(err)
				}
				if ledgerOf(t, m, name) != l {
					t.Fatal("another ledger under the new name")
				}
			}
			holds(t, l, model)
		}
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	m := opened(t, room(t), unsynced)
	l := ledgerOf(t, m, orders)
	appended(t, l, 1, alhs("a", 1, 5))
	appended(t, ledgerOf(t, m, bills), 1, alhs("b", 1, 5))
	if err := l.Rename(bills); !errors.Is(err, ErrExists) {
		t.Errorf("onto another: %v", err)
	}
	if err := l.Rename(evidence.Name{Server: "db2", Database: "orders"}); err != nil {
		t.Fatal(err)
	}
	holds(t, l, alhs("a", 1, 5))
	holds(t, ledgerOf(t, m, orders), nil)
	holds(t, ledgerOf(t, m, bills), alhs("b", 1, 5))
}

// TestTruncateSetsAside: what is given up can be read as a mirror of its own.
func TestTruncateSetsAside(t *testing.T) {
	t.Parallel()
	dir := room(t)
	l := filled(t, dir, 66_000)
	if err := l.Truncate(65_800); err != nil {
		t.Fatal(err)
	}
	holds(t, l, alhs("a", 1, 65_800))
	appended(t, l, 65_801, alhs("b", 65_801, 66_300))
	if err := l.Truncate(0); err != nil {
		t.Fatal(err)
	}
	holds(t, l, nil)
	appended(t, l, 1, alhs("c", 1, 10))
	for n, want := range map[string][]proof.Hash{
		"1": alhs("a", 1, 66_000),
		"2": append(alhs("a", 1, 65_800), alhs("b", 65_801, 66_300)...),
	} {
		other := room(t)
		if err := os.Mkdir(other, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, asideFolder, l.folder, n), filepath.Join(other, l.folder)); err != nil {
			t.Fatal(err)
		}
		holds(t, ledgerOf(t, opened(t, other, unsynced), orders), want)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	m := opened(t, room(t), unsynced)
	all := alhs("a", 1, 3000)
	var group sync.WaitGroup
	for _, name := range []evidence.Name{orders, bills} {
		l := ledgerOf(t, m, name)
		appended(t, l, 1, all[:1])
		group.Go(func() {
			for n := uint64(2); n <= 3000; n += 37 {
				if err := l.Append(n, all[n-1:min(n+36, 3000)]); err != nil {
					t.Error(err)
				}
			}
		})
		for range 2 {
			group.Go(func() {
				for l.Size() < 3000 && !t.Failed() {
					n := l.Size()
					if ok, err := l.Holds(n, all[n-1]); !ok || err != nil {
						t.Errorf("transaction %d: %v, %v", n, ok, err)
					}
					if _, err := l.Inclusion(1, n); err != nil {
						t.Error(err)
					}
				}
				if err := l.Check(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	holds(t, ledgerOf(t, m, orders), all)
	holds(t, ledgerOf(t, m, bills), all)
}

func TestClosed(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 300)
	if err := l.m.Close(); err != nil {
		t.Fatal(err)
	}
	_, err1 := l.m.Ledger(bills)
	_, err2 := l.LeafHash(1)
	_, err3 := l.States(0, 1, 1)
	_, err4 := l.Subtree(0, 1)
	_, err5 := l.LeafHashes(1, 1)
	witness := l.Witness([]evidence.Witnessed{signed(orders, 7, 1)})
	for i, err := range []error{err1, err2, err3, err4, err5, witness, l.Prune(day(1)), l.Append(301, alhs("a", 301, 301)), l.m.SetAside(bills)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%d: %v", i, err)
		}
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := l.Check(stopped); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

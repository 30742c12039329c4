package mirror

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"immuaudit/evidence"
)

// looked opens a mirror for reading and takes a snapshot of orders.
func looked(t testing.TB, dir string) *Ledger {
	t.Helper()
	m, err := OpenReadOnly(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finished(t, m) })
	l, err := m.Snapshot(orders)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// inspected gives what an inspection finds.
func inspected(t testing.TB, l *Ledger) (found []*Damage, i Inspected) {
	t.Helper()
	i, err := l.Inspect(t.Context(), func(d *Damage) error {
		found = append(found, d)
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return found, i
}

// TestInspectSizes: what is whole is found whole, and all of it was read.
func TestInspectSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ size, tiles uint64 }{
		{0, 0}, {1, 1}, {255, 1}, {256, 2}, {257, 3}, {65_535, 257}, {65_536, 258}, {65_537, 259}, {65_536 + 700, 258 + 2 + 2},
	} {
		l := filled(t, room(t), c.size)
		files := map[string]string{}
		if c.size > 0 {
			files = filesUnder(t, l.file("."), "tile")
		}
		found, i := inspected(t, looked(t, l.m.vol.dir))
		if len(found) > 0 || i.Through != c.size || i.Tiles != c.tiles || i.Tiles != uint64(len(files)) || i.Bytes < 32*c.size {
			t.Errorf("%d transactions: %v, %+v, %d files", c.size, found, i, len(files))
		}
	}
}

// TestInspectGoesOn: every tile that does not fit is named once, with the
// transactions that depend on it.
func TestInspectGoesOn(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 65_536+700)
	for _, file := range []string{"tile/0/002", "tile/0/255", "tile/0/258.p/188"} {
		rewrite(t, l.file(file), harms["flipped"])
	}
	if err := os.Remove(l.file("tile/1/001.p/2")); err != nil {
		t.Fatal(err)
	}
	found, _ := inspected(t, looked(t, l.m.vol.dir))
	slices.SortFunc(found, func(a, b *Damage) int { return int(a.Whole) - int(b.Whole) })
	want := []struct {
		path        string
		whole, last uint64
	}{
		{"tile/0/002", 512, 768}, {"tile/0/255", 65_280, 65_536}, {"tile/1/001.p/2", 65_536, 66_048}, {"tile/0/258.p/188", 66_048, 66_236},
	}
	if len(found) != len(want) {
		t.Fatalf("found %v", found)
	}
	for i, d := range found {
		damaged(t, d, want[i].path, want[i].whole)
		if d.Last != want[i].last {
			t.Errorf("%s: up to transaction %d, want %d", d.Path, d.Last, want[i].last)
		}
	}
	stop := errors.New("stop")
	if _, err := looked(t, l.m.vol.dir).Inspect(t.Context(), func(*Damage) error { return stop }, nil); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	if _, err := looked(t, l.m.vol.dir).Inspect(ended, func(*Damage) error { return nil }, func(Inspected) { end() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestSnapshotBesideWriter: what is appended while somebody looks is neither
// damage nor part of what was taken.
func TestSnapshotBesideWriter(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 200)
	all := alhs("a", 1, 2200)
	m, err := OpenReadOnly(l.m.vol.dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close() // nothing was written
	var writer sync.WaitGroup
	defer writer.Wait()
	written := make(chan struct{})
	writer.Go(func() {
		defer close(written)
		for first := uint64(201); first < 2200; first += 10 {
			if err := l.Append(first, all[first-1:first+9]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	looks, grown := 0, 0
	for more := true; more; looks++ {
		select {
		case <-written:
			more = false
		default:
		}
		s, err := m.Snapshot(orders)
		if err != nil {
			t.Fatal(err)
		}
		size := s.Size()
		found, i := inspected(t, s)
		if len(found) > 0 || i.Through != size || s.Size() != size {
			t.Fatalf("%d transactions: %v, %+v", size, found, i)
		}
		if root, err := s.Root(size); err != nil || root != reference(all[:size]) {
			t.Fatalf("root of %d: %v", size, err)
		}
		if l.Size() > size {
			grown++
		}
	}
	if grown == 0 {
		t.Errorf("nothing was appended during %d looks", looks)
	}
	if _, err := l.m.Snapshot(orders); err == nil {
		t.Error("a snapshot of a mirror that is written to")
	}
}

// TestSnapshotAlone: what was there when the snapshot was taken stays, though
// the partial tiles are gone from the disk.
func TestSnapshotAlone(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 300)
	s := looked(t, l.m.vol.dir)
	appended(t, l, 301, alhs("a", 301, 700))
	if _, err := os.Stat(l.file("tile/0/001.p/44")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if found, i := inspected(t, s); len(found) > 0 || i.Through != 300 {
		t.Errorf("%v, %+v", found, i)
	}
	// What is set aside takes its full tiles with it.
	if err := l.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if found, _ := inspected(t, s); len(found) != 1 {
		t.Errorf("found %v", found)
	}
	if s := looked(t, l.m.vol.dir); s.Size() != 0 {
		t.Errorf("%d transactions", s.Size())
	}
}

// TestEachState: all of them, the newest first, with the file of each; a line
// that was changed is told and the others are given all the same.
func TestEachState(t *testing.T) {
	t.Parallel()
	l := filled(t, room(t), 300)
	for tx := uint64(10); tx <= 120; tx += 10 { // three a day
		witnessed(t, l, signed(orders, tx, 1+int(tx-10)/30))
	}
	want := []uint64{120, 110, 100, 90, 80, 70, 60, 30} // of the first two days the last one
	read := func() (got []uint64, files map[string]int, err error) {
		files = map[string]int{}
		err = looked(t, l.m.vol.dir).EachState(func(file string, w evidence.Witnessed) error {
			got = append(got, w.State.TxID)
			files[file]++
			return nil
		})
		return got, files, err
	}
	got, files, err := read()
	if err != nil || !slices.Equal(got, want) || len(files) != 3 {
		t.Fatalf("%v in %v, %v", got, files, err)
	}
	for file := range files {
		rewrite(t, file, harms["flipped"])
	}
	again, _, err := read()
	// A line at the end of a day that is cut counts for nothing.
	if !isDamage(err) || strings.Count(err.Error(), "the mirror is damaged") != 3 || !slices.Equal(again, []uint64{110, 100, 80, 70, 30}) {
		t.Errorf("%v, %v", again, err)
	}
	stop := errors.New("stop")
	if err := looked(t, l.m.vol.dir).EachState(func(string, evidence.Witnessed) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

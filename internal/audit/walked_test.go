package audit

import (
	"runtime"
	"testing"

	"immuaudit/proof"
)

// A walk that was let go comes back as it was.
func TestWalkedComesBack(t *testing.T) {
	t.Parallel()
	walk := new(proof.Walk)
	alh := proof.EmptyAlh()
	for id := uint64(1); id <= 100; id++ {
		h := proof.Header{ID: id, PrevAlh: alh, Ts: 1, NEntries: 0, EH: proof.EmptyAlh(), BlTxID: id - 1}
		root, err := walk.Root(id - 1)
		if err != nil {
			t.Fatal(err)
		}
		if id > 1 {
			h.BlRoot = root
		}
		if err := walk.Next(&h); err != nil {
			t.Fatal(err)
		}
		alh = h.Alh()
	}
	encoded, err := walk.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	at, root := walk.At(), proof.Hash{}
	if root, err = walk.Root(99); err != nil {
		t.Fatal(err)
	}
	w := restingAt(walk, encoded)
	walk = nil
	for w.loaded.Value() != nil {
		runtime.GC()
	}
	if w.At() != at {
		t.Errorf("stands at %v, want %v", w.At(), at)
	}
	if got, err := w.Root(99); err != nil || got != root {
		t.Errorf("root %x, %v; want %x", got, err, root)
	}
	if got, ok := w.Alh(100); !ok || got != at.Alh {
		t.Errorf("Alh %x, %v; want %x", got, ok, at.Alh)
	}
	for _, tx := range []uint64{0, 100 - proof.Window, 101} {
		if _, ok := w.Alh(tx); ok {
			t.Errorf("an Alh of transaction %d", tx)
		}
	}
	if again := w.Clone(); again.At() != at {
		t.Errorf("a clone stands at %v, want %v", again.At(), at)
	}
}

func TestNothingWalked(t *testing.T) {
	t.Parallel()
	w, err := walkedOf(nil)
	if err != nil || w.At() != (proof.State{Alh: proof.EmptyAlh()}) || w.Clone().At().TxID != 0 {
		t.Errorf("%v, %v", w, err)
	}
	if _, err := walkedOf([]byte("damaged")); err == nil {
		t.Error("a damaged encoding is taken")
	}
}

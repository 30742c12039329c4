package proof_test

import (
	"bytes"
	"testing"

	"immuaudit/proof"
)

func TestWalk(t *testing.T) {
	t.Parallel()
	b := honest(300)
	var w proof.Walk
	if at := w.At(); at != (proof.State{TxID: 0, Alh: proof.EmptyAlh()}) {
		t.Errorf("the zero walk is at %v", at)
	}
	for tx := uint64(1); tx <= 300; tx++ {
		walkTo(t, &w, b, tx)
		for _, back := range []uint64{0, 1, 18, proof.Window} {
			if back >= tx {
				continue
			}
			root, err := w.Root(tx - back)
			if err != nil || root != b.root(tx-back) {
				t.Fatalf("at %d, root of %d: %s, %v", tx, tx-back, root, err)
			}
		}
	}
	if root, err := w.Root(0); err != nil || root != proof.EmptyAlh() {
		t.Errorf("root of no transactions: %s, %v", root, err)
	}
	if _, err := w.Root(300 - proof.Window - 1); !isUnproven(err, proof.NeedRoot) {
		t.Errorf("root below the window: %v", err)
	}
	if _, err := w.Root(301); !isMalformed(err) {
		t.Errorf("root beyond the walk: %v", err)
	}
	for _, tx := range []uint64{300, 299, 300 - proof.Window + 1} {
		h := b.header(tx)
		if alh, ok := w.Alh(tx); !ok || alh != h.Alh() {
			t.Errorf("Alh(%d): %s, %v", tx, alh, ok)
		}
	}
	for _, tx := range []uint64{0, 1, 300 - proof.Window, 301} {
		if _, ok := w.Alh(tx); ok {
			t.Errorf("Alh(%d) is outside the window", tx)
		}
	}
}

func TestWalkRefuses(t *testing.T) {
	t.Parallel()
	b := honest(100)
	var w proof.Walk
	for name, c := range map[string]struct {
		change func(*proof.Header)
		want   func(error) bool
	}{
		"another id":         {func(h *proof.Header) { h.ID++ }, func(err error) bool { return isMismatch(err, proof.CheckID) }},
		"the one before":     {func(h *proof.Header) { *h = b.header(80) }, func(err error) bool { return isMismatch(err, proof.CheckID) }},
		"another prevAlh":    {func(h *proof.Header) { h.PrevAlh[31] ^= 1 }, func(err error) bool { return isMismatch(err, proof.CheckPrevAlh) }},
		"another blRoot":     {func(h *proof.Header) { h.BlRoot[0] ^= 1 }, func(err error) bool { return isMismatch(err, proof.CheckBlRoot) }},
		"another blTxId":     {func(h *proof.Header) { h.BlTxID-- }, func(err error) bool { return isMismatch(err, proof.CheckBlRoot) }},
		"a tree of itself":   {func(h *proof.Header) { h.BlTxID = h.ID }, isMalformed},
		"version 2":          {func(h *proof.Header) { h.Version = 2 }, isMalformed},
		"root of no leaves":  {func(h *proof.Header) { h.BlTxID = 0 }, isMalformed},
		"below the window":   {func(h *proof.Header) { h.BlTxID = 80 - proof.Window - 1 }, func(err error) bool { return isUnproven(err, proof.NeedRoot) }},
		"edge of the window": {func(h *proof.Header) { h.BlTxID = 80 - proof.Window }, func(err error) bool { return isMismatch(err, proof.CheckBlRoot) }},
	} {
		walkTo(t, &w, b, 80)
		before := encode(t, &w)
		h := b.header(81)
		c.change(&h)
		if err := w.Next(&h); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(before, encode(t, &w)) {
			t.Errorf("%s: the walk changed", name)
		}
	}
	if err := w.Next(nil); !isMalformed(err) {
		t.Errorf("nil: %v", err)
	}
	// Transaction 1 follows the empty database and nothing else.
	h := b.header(1)
	h.PrevAlh = proof.Hash{}
	if err := new(proof.Walk).Next(&h); !isMismatch(err, proof.CheckPrevAlh) {
		t.Errorf("first transaction: %v", err)
	}
	walkTo(t, &w, b, 100)
}

func TestWalkBelowWindow(t *testing.T) {
	t.Parallel()
	b := honest(200)
	b.commit(10, nil)
	b.commit(0, nil)
	b.commit(202, nil)
	var w proof.Walk
	walkTo(t, &w, b, 200)
	h := b.header(201)
	if err := w.NextWithRoot(&h, proof.Hash{1}); !isMismatch(err, proof.CheckBlRoot) {
		t.Errorf("another root: %v", err)
	}
	if err := w.NextWithRoot(&h, b.root(10)); err != nil {
		t.Fatal(err)
	}
	walkTo(t, &w, b, 203)
	// Within the window the walk believes itself, not the caller.
	c := honest(5)
	var v proof.Walk
	walkTo(t, &v, c, 4)
	h = c.header(5)
	h.BlRoot = proof.Hash{1}
	if err := v.NextWithRoot(&h, proof.Hash{1}); !isMismatch(err, proof.CheckBlRoot) {
		t.Errorf("a root of the caller's within the window: %v", err)
	}
}

func TestWalkClone(t *testing.T) {
	t.Parallel()
	a := honest(150)
	b := honest(100)
	for id := uint64(101); id <= 150; id++ {
		b.commit(id-1, func(h *proof.Header) { h.Ts++ })
	}
	for _, at := range []uint64{0, 1, 63, 64, 65, 100} {
		var w proof.Walk
		walkTo(t, &w, a, at)
		c := w.Clone()
		walkTo(t, &w, a, 150)
		walkTo(t, c, b, 150)
	}
}

func TestWalkBinary(t *testing.T) {
	t.Parallel()
	b := honest(200)
	for _, at := range []uint64{1, 2, 63, 64, 65, 127, 128, 129, 200} {
		var w, r proof.Walk
		walkTo(t, &w, b, at)
		enc := encode(t, &w)
		if err := r.UnmarshalBinary(enc); err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		if !bytes.Equal(encode(t, &r), enc) {
			t.Errorf("at %d: encodes differently", at)
		}
		for back := uint64(0); back <= min(at, proof.Window); back++ {
			want, err := w.Root(at - back)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := r.Root(at - back); err != nil || got != want {
				t.Errorf("at %d: root of %d is %s, %v", at, at-back, got, err)
			}
		}
		walkTo(t, &r, b, 200)
		// Every byte counts: the position, the root, the frontier, the Alhs.
		for i := range enc {
			enc[i] ^= 0x40
			if err := r.UnmarshalBinary(enc); !isMalformed(err) {
				t.Errorf("at %d, byte %d changed: %v", at, i, err)
			}
			enc[i] ^= 0x40
		}
		for _, bad := range [][]byte{nil, enc[:len(enc)-1], append(bytes.Clone(enc), 0)} {
			if err := r.UnmarshalBinary(bad); !isMalformed(err) {
				t.Errorf("at %d, %d bytes: %v", at, len(bad), err)
			}
		}
		if r.At() != b.state(200) {
			t.Errorf("a refused encoding moved the walk to %v", r.At())
		}
	}
	var zero, r proof.Walk
	if err := r.UnmarshalBinary(encode(t, &zero)); err != nil || r.At() != zero.At() {
		t.Errorf("the zero walk: %v, %v", r.At(), err)
	}
	walkTo(t, &r, b, 100)
}

// A walk placed by a proof goes on as one that has come all the way, stored
// and restored wherever; it only knows less of what was before.
func TestWalkAt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		book         *book
		source, at   uint64
		needsBinding bool
	}{
		"no lag":                      {honest(130), 130, 130, false},
		"from before":                 {honest(130), 40, 130, false},
		"transaction 1":               {honest(1), 1, 1, false},
		"lag":                         {lagging(), 10, 10, true},
		"lag, the leaf is the source": {lagging(), 11, 12, false},
		"source beyond the tree":      {behind(), 10, 11, true},
	} {
		b, p := c.book, c.book.dual(c.source, c.at)
		s, target := b.state(c.source), b.state(c.at)
		if _, err := proof.WalkAt(p, s, target, nil); isUnproven(err, proof.NeedBinding) != c.needsBinding {
			t.Errorf("%s, without binding: %v", name, err)
		}
		w, err := proof.WalkAt(p, s, target, b.extra(p))
		if err != nil || w.At() != target {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := proof.WalkAt(p, s, proof.State{TxID: target.TxID}, b.extra(p)); !isMismatch(err, proof.CheckAlhTarget) {
			t.Errorf("%s, another target: %v", name, err)
		}
		for range 150 {
			b.commit(uint64(len(b.headers)), nil)
		}
		for tx := c.at; tx <= uint64(len(b.headers)); tx++ {
			walkTo(t, w, b, tx)
			if root, err := w.Root(tx); err != nil || root != b.root(tx) {
				t.Fatalf("%s: root at %d: %s, %v", name, tx, root, err)
			}
			enc := encode(t, w)
			w = new(proof.Walk)
			if err := w.UnmarshalBinary(enc); err != nil || !bytes.Equal(encode(t, w), enc) {
				t.Fatalf("%s: stored at %d: %v", name, tx, err)
			}
		}
		var whole proof.Walk
		walkTo(t, &whole, b, uint64(len(b.headers)))
		if !bytes.Equal(encode(t, &whole), encode(t, w)) {
			t.Errorf("%s: once the window is full, it is another walk than the whole one", name)
		}
	}

	b := honest(80)
	p := b.dual(80, 80)
	w, err := proof.WalkAt(p, b.state(80), b.state(80), nil)
	if err != nil {
		t.Fatal(err)
	}
	if root, err := w.Root(79); err != nil || root != b.root(79) {
		t.Errorf("root of the target's own tree: %s, %v", root, err)
	}
	if _, err := w.Root(78); !isUnproven(err, proof.NeedRoot) {
		t.Errorf("root before it: %v", err)
	}
	// A tree that lags too far leaves more open than a window holds.
	for range proof.Window + 1 {
		b.commit(80, nil)
	}
	p = b.dual(80, 145)
	if _, err := proof.WalkAt(p, b.state(80), b.state(145), nil); !isUnproven(err, proof.NeedWalk) {
		t.Errorf("a lag of 65: %v", err)
	}
	p = b.dual(80, 144)
	if w, err = proof.WalkAt(p, b.state(80), b.state(144), nil); err != nil {
		t.Fatalf("a lag of 64: %v", err)
	}
	walkTo(t, w, b, 145)
}

func encode(t testing.TB, w *proof.Walk) []byte {
	t.Helper()
	b, err := w.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

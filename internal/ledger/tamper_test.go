package ledger

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"immuaudit/internal/wire/schema"
)

// TestForkAndRollback: snapshots go back and sideways, on disk too, and never
// change themselves.
func TestForkAndRollback(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := must(Open(Config{Dir: dir, HeaderVersion: 1}))(t)
	d := database(t, l, DefaultDB)
	for i := range 5 {
		must(d.Set([]byte{byte(i)}, []byte("honest")))(t)
	}
	old := d.Snapshot()
	_, oldAlh := old.State()
	for range 4 {
		must(d.Set([]byte("k"), []byte("honest")))(t)
	}
	_, honest := d.State()
	newer := d.Snapshot()

	try(t, d.Restore(old))
	if id, alh := d.State(); id != 5 || alh != oldAlh {
		t.Errorf("rolled back to %d %x", id, alh)
	}
	for range 4 {
		must(d.Set([]byte("k"), []byte("forked")))(t)
	}
	id, forked := d.State()
	if id != 9 || forked == honest {
		t.Errorf("fork: %d %x, honest %x", id, forked, honest)
	}
	checkWhole(t, d.view())
	try(t, d.Restore(old))
	must(d.Set([]byte("k"), []byte("third")))(t)
	for _, s := range []*Snapshot{old, newer} {
		checkWhole(t, &s.content)
	}
	if _, alh := newer.State(); alh != honest {
		t.Error("the snapshot changed")
	}
	must(d.Set([]byte("k"), []byte("third")))(t)
	before := d.view()
	try(t, l.Close())

	// Into another ledger, and emptied.
	l = must(Open(Config{Dir: dir}))(t)
	t.Cleanup(func() { try(t, l.Close()) })
	d = database(t, l, DefaultDB)
	sameContent(t, before, d.view())
	other := must(Open(Config{}))(t)
	t.Cleanup(func() { try(t, other.Close()) })
	try(t, database(t, other, DefaultDB).Restore(newer))
	if _, alh := database(t, other, DefaultDB).State(); alh != honest {
		t.Error("snapshot in another ledger")
	}
	try(t, d.Restore(&Snapshot{}))
	if id, alh := d.State(); id != 0 || alh != sha256.Sum256(nil) {
		t.Errorf("emptied: %d %x", id, alh)
	}
	if d.Restore(nil) == nil {
		t.Error("restored nothing")
	}
}

// TestTamper: each kind of damage shows where it should and nowhere else.
func TestTamper(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{HeaderVersion: 1})
	d := database(t, l, DefaultDB)
	for i := range 8 {
		must(d.Set([]byte{'k', byte('0' + i)}, []byte("v")))(t)
	}
	clean := d.Snapshot()
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	_, alh := d.State()
	chainAlh := d.view().tx(3).Alh

	t.Run("value", func(t *testing.T) {
		try(t, d.Restore(clean))
		try(t, d.Tamper(func(h *History) { h.SetValue(3, 0, []byte("\x00other")) }))
		wantError(t, second(c.Get(ctx, &schema.KeyRequest{Key: []byte("k2")})), "Unknown", "data is corrupted")
		must(c.Get(ctx, &schema.KeyRequest{Key: []byte("k3")}))(t)
		must(c.TxById(ctx, &schema.TxRequest{Tx: 3}))(t)
		// A server that hides it serves a digest that fits.
		try(t, d.Tamper(func(h *History) { h.Tx(3).Entries[0].HValue = HashValue([]byte("\x00other")) }))
		if e := must(c.Get(ctx, &schema.KeyRequest{Key: []byte("k2")}))(t); string(e.GetValue()) != "other" {
			t.Errorf("%v", e)
		}
		tx := d.view().tx(3)
		if EntriesRoot(tx.Entries, 1) == tx.Header.EH {
			t.Error("eH was recomputed")
		}
	})
	t.Run("header", func(t *testing.T) {
		try(t, d.Restore(clean))
		try(t, d.Tamper(func(h *History) { h.Header(3).Ts++ }))
		if _, now := d.State(); now != alh {
			t.Error("the state changed")
		}
		tx := must(c.TxById(ctx, &schema.TxRequest{Tx: 3}))(t)
		if h := headerOf(tx.GetHeader()); h.Alh() == chainAlh {
			t.Error("the header hashes as before")
		}
	})
	t.Run("leaf of the newest", func(t *testing.T) {
		// The leaf swap of docs/protocol.md §4.2 step 8: accepted by steps 1 to
		// 7 at every step.
		try(t, d.Restore(clean))
		junk := [32]byte{7}
		try(t, d.Tamper(func(h *History) {
			h.SetLeaf(8, junk)
			if h.Leaf(8) != junk || h.Leaf(7) == junk {
				t.Error("Leaf")
			}
		}))
		must(d.Set([]byte("a"), nil))(t)
		must(d.Set([]byte("b"), nil))(t)
		v := d.view()
		for s := uint64(8); s <= 9; s++ {
			p := must(v.dualProof(s, s+1, l.release))(t)
			if err := checkDual(p, v.tx(s).Alh, v.tx(s+1).Alh); err != nil {
				t.Errorf("%d to %d: %v", s, s+1, err)
			}
		}
		p := must(v.dualProof(8, 9, l.release))(t)
		if !bytes.Equal(p.TargetBlTxAlh, junk[:]) {
			t.Errorf("targetBlTxAlh %x", p.TargetBlTxAlh)
		}
		p = must(v.dualProof(8, 10, l.release))(t)
		if checkDual(p, v.tx(8).Alh, v.tx(10).Alh) == nil {
			t.Error("transaction 8 is still proven in the tree that has another leaf for it")
		}
	})
	t.Run("a snapshot alone", func(t *testing.T) {
		forged := clean.Tamper(func(h *History) {
			h.SetValue(3, 0, []byte("\x00other"))
			h.Rehash(3)
		})
		p := must(forged.DualProof("1.11.1", 2, 8))(t)
		_, forgedAlh := forged.State()
		if err := checkDual(p, must(clean.Tx(2))(t).Alh, forgedAlh); err != nil || forgedAlh == alh {
			t.Errorf("forged %x: %v", forgedAlh, err)
		}
		if must(clean.Tx(3))(t).Alh != chainAlh || second(clean.Tx(9)) == nil || second(clean.Tx(0)) == nil {
			t.Error("Tx")
		}
		if second(clean.DualProof("1.11.1", 3, 2)) == nil || second(clean.DualProof("1.11.1", 1, 9)) == nil || second(clean.DualProof("x", 1, 2)) == nil {
			t.Error("proofs of nothing")
		}
	})
	t.Run("rehashed", func(t *testing.T) {
		try(t, d.Restore(clean))
		try(t, d.Tamper(func(h *History) {
			h.SetLeaf(5, [32]byte{1})
			h.SetValue(3, 0, []byte("\x00other"))
			h.Rehash(3)
		}))
		checkWhole(t, d.view())
		if _, now := d.State(); now == alh || d.view().last() != 8 || d.view().tx(3).Alh == chainAlh {
			t.Error("history did not change from 3 on")
		}
	})
	t.Run("cut and appended", func(t *testing.T) {
		try(t, d.Restore(clean))
		try(t, d.Tamper(func(h *History) {
			tx := *h.Tx(8)
			h.Truncate(6)
			h.Append(tx)
			h.Append(tx)
			h.Rehash(7)
			h.RemoveValue(1, 0)
			// Out of range: nothing happens.
			h.SetValue(99, 0, nil)
			h.SetValue(1, 5, nil)
			h.RemoveValue(0, 0)
			h.SetLeaf(0, [32]byte{})
			h.Rehash(0)
			h.Truncate(100)
			if h.Leaf(99) != [32]byte{} || h.Len() != 8 {
				t.Error("Leaf or Len")
			}
		}))
		checkWhole(t, d.view())
		wantError(t, second(c.Get(ctx, &schema.KeyRequest{Key: []byte("k0")})), "Unknown", "EOF")
	})
	t.Run("nonsense everywhere", func(t *testing.T) {
		// Whatever headers say, answers are given or refused, never worse.
		for _, bad := range []func(h *Header){
			func(h *Header) { h.BlTxID = 1 << 62 },
			func(h *Header) { h.BlTxID = h.ID },
			func(h *Header) { h.BlTxID = 8 },
			func(h *Header) { h.ID = 1 << 62 },
			func(h *Header) { h.ID = 0 },
			func(h *Header) { h.NEntries = 1 << 31 },
			func(h *Header) { h.Version = 9 },
			func(h *Header) { h.BlTxID = 0 },
		} {
			try(t, d.Restore(clean))
			try(t, d.Tamper(func(h *History) {
				bad(h.Header(4))
				h.Tx(5).Entries[0].Key = nil
				h.Tx(6).Entries = nil
			}))
			for s := uint64(1); s <= 8; s++ {
				for id := uint64(1); id <= 8; id++ {
					_, _ = c.VerifiableTxById(ctx, &schema.VerifiableTxRequest{Tx: id, ProveSinceTx: s, EntriesSpec: rawSpec})
				}
				_, _ = export(c, ctx, s, false)
			}
			_, _ = c.VerifiableGet(ctx, &schema.VerifiableGetRequest{KeyRequest: &schema.KeyRequest{Key: []byte("k3")}})
			must(c.Scan(ctx, &schema.ScanRequest{}))(t)
			must(c.Health(c.ctx(), empty))(t)
		}
	})
}

// TestReferences: a chain of references is refused, a broken one too.
func TestReferences(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{HeaderVersion: 1})
	d := database(t, l, DefaultDB)
	must(d.Set([]byte("k"), []byte("1")))(t)
	must(d.Set([]byte("k"), []byte("2")))(t)
	must(d.Commit(Tx{Entries: []Entry{
		ReferenceEntry([]byte("newest"), []byte("k"), 0),
		ReferenceEntry([]byte("first"), []byte("k"), 1),
		ReferenceEntry([]byte("loop"), []byte("loop"), 0),
		ReferenceEntry([]byte("dangling"), []byte("x"), 0),
		{Key: []byte("\x00broken"), Value: []byte{valueReference, 1}, Raw: true},
	}}))(t)
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	for key, want := range map[string]string{"newest": "2", "first": "1"} {
		at := uint64(want[0] - '0')
		m := must(c.VerifiableGet(ctx, &schema.VerifiableGetRequest{KeyRequest: &schema.KeyRequest{Key: []byte(key)}}))(t)
		if string(m.GetEntry().GetValue()) != want || string(m.GetEntry().GetKey()) != "k" || m.GetEntry().GetTx() != at || m.GetVerifiableTx().GetTx().GetHeader().GetId() != 3 {
			t.Errorf("%s: %v", key, m)
		}
	}
	for key, message := range map[string]string{"loop": "illegal arguments", "dangling": "key not found", "broken": "data is corrupted"} {
		err := second(c.Get(ctx, &schema.KeyRequest{Key: []byte(key)}))
		code := "Unknown"
		if key == "loop" {
			code = "InvalidArgument"
		}
		wantError(t, err, code, message)
	}
}

// BenchmarkCommit: a million transactions should take seconds.
func BenchmarkCommit(b *testing.B) {
	l := must(Open(Config{HeaderVersion: 1}))(b)
	defer l.Close()
	d := database(b, l, DefaultDB)
	b.ReportAllocs()
	key := make([]byte, 8)
	for i := 0; b.Loop(); i++ {
		be.PutUint64(key, uint64(i))
		if _, err := d.Set(key, key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDualProof(b *testing.B) {
	l := must(Open(Config{HeaderVersion: 1}))(b)
	defer l.Close()
	d := database(b, l, DefaultDB)
	batch := make([]Tx, 100_000)
	must(d.CommitAll(batch))(b)
	v := d.view()
	b.ReportAllocs()
	for i := uint64(1); b.Loop(); i++ {
		must(v.dualProof(1+i%99_000, 100_000, l.release))(b)
	}
}

package proof_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// outcome fails unless err is one of the four ways a check can end.
func outcome(t *testing.T, err error) {
	t.Helper()
	_, mismatch := errors.AsType[*proof.Mismatch](err)
	_, unproven := errors.AsType[*proof.Unproven](err)
	if err != nil && !mismatch && !unproven && !isMalformed(err) {
		t.Fatalf("an error of no known kind: %v", err)
	}
}

func headerMessage(h *proof.Header) *schema.TxHeader {
	return &schema.TxHeader{
		Id: h.ID, PrevAlh: h.PrevAlh[:], Ts: h.Ts, Nentries: int32(h.NEntries), EH: h.EH[:],
		BlTxId: h.BlTxID, BlRoot: h.BlRoot[:], Version: int32(h.Version),
		Metadata: &schema.TxMetadata{TruncatedTxID: h.Metadata.TruncatedTxID, Extra: h.Metadata.Extra},
	}
}

func listMessage(list []proof.Hash) [][]byte {
	var out [][]byte
	for i := range list {
		out = append(out, list[i][:])
	}
	return out
}

func dualMessage(p *proof.DualProof) *schema.DualProof {
	m := &schema.DualProof{
		SourceTxHeader: headerMessage(&p.Source), TargetTxHeader: headerMessage(&p.Target),
		InclusionProof: listMessage(p.Inclusion), ConsistencyProof: listMessage(p.Consistency),
		TargetBlTxAlh: p.TargetBlTxAlh[:], LastInclusionProof: listMessage(p.LastInclusion),
		LinearProof: &schema.LinearProof{SourceTxId: p.Linear.SourceTxID, TargetTxId: p.Linear.TargetTxID, Terms: listMessage(p.Linear.Terms)},
	}
	if a := p.Advance; a != nil {
		m.LinearAdvanceProof = &schema.LinearAdvanceProof{LinearProofTerms: listMessage(a.Terms)}
		for _, path := range a.Inclusions {
			m.LinearAdvanceProof.InclusionProofs = append(m.LinearAdvanceProof.InclusionProofs, &schema.InclusionProof{Terms: listMessage(path)})
		}
	}
	return m
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzVerifyDual trusts whatever the headers hash to, so that the input gets
// past step 2 and into the others.
func FuzzVerifyDual(f *testing.F) {
	for _, c := range []struct {
		b    *book
		s, t uint64
	}{{honest(9), 3, 9}, {lagging(), 10, 12}, {behind(), 10, 11}, {honest(2), 1, 2}, {honest(1), 1, 1}} {
		p := c.b.dual(c.s, c.t)
		f.Add(marshal(f, dualMessage(p)), marshal(f, dualMessage(c.b.extra(p).Binding)), c.s == 10)
	}
	f.Fuzz(func(t *testing.T, first, second []byte, advance bool) {
		decode := func(b []byte) *proof.DualProof {
			var m schema.DualProof
			if proto.Unmarshal(b, &m) != nil {
				return nil
			}
			p, err := wire.DecodeDualProof(&m)
			outcome(t, err)
			return p
		}
		p, b := decode(first), decode(second)
		if p == nil {
			return
		}
		extra := &proof.Extra{Binding: b}
		if b != nil && advance {
			extra.Advance = b.Advance
		}
		s := proof.State{TxID: p.Source.ID, Alh: p.Source.Alh()}
		target := proof.State{TxID: p.Target.ID, Alh: p.Target.Alh()}
		bare, err := proof.VerifyDual(p, s, target, nil), proof.VerifyDual(p, s, target, extra)
		outcome(t, bare)
		outcome(t, err)
		// More to look at never makes a contradiction good.
		if _, contradicted := errors.AsType[*proof.Mismatch](bare); contradicted && err == nil {
			t.Fatalf("without: %v; with %+v it holds", bare, extra)
		}
		_, cerr := proof.CheckpointRoot(p, s, target, extra)
		outcome(t, cerr)
		if err != nil && cerr == nil {
			t.Fatalf("a root from a proof that does not hold: %v", err)
		}
	})
}

// FuzzWalk walks an honest start, then headers made of the input.
func FuzzWalk(f *testing.F) {
	b := honest(70)
	next := b.header(70)
	f.Add(uint8(69), marshal(f, &schema.TxList{Txs: []*schema.Tx{{Header: headerMessage(&next)}}}))
	lag := honest(69)
	lag.commit(60, nil)
	next = lag.header(70)
	f.Add(uint8(69), marshal(f, &schema.TxList{Txs: []*schema.Tx{{Header: headerMessage(&next)}}}))
	f.Add(uint8(0), []byte{})
	f.Fuzz(func(t *testing.T, start uint8, list []byte) {
		var m schema.TxList
		if proto.Unmarshal(list, &m) != nil {
			return
		}
		var w proof.Walk
		walkTo(t, &w, b, uint64(start)%70)
		for _, tx := range m.Txs {
			h, _, _, err := wire.DecodeTx(tx)
			outcome(t, err)
			before, at := encode(t, &w), w.At()
			err = w.Next(&h)
			outcome(t, err)
			if err != nil && !bytes.Equal(before, encode(t, &w)) {
				t.Fatalf("refused with %v, and moved", err)
			}
			if err == nil && (w.At().TxID != at.TxID+1 || w.At().Alh != h.Alh()) {
				t.Fatalf("from %v to %v", at, w.At())
			}
		}
	})
}

func FuzzWalkUnmarshal(f *testing.F) {
	b := honest(130)
	var w proof.Walk
	f.Add(encode(f, &w))
	for _, at := range []uint64{1, 64, 65, 130} {
		walkTo(f, &w, b, at)
		f.Add(encode(f, &w))
	}
	f.Fuzz(func(t *testing.T, enc []byte) {
		// Most inputs fail the checksum; mend it, to get past it.
		if n := len(enc) - 32; n >= 0 {
			sum := hashOf(enc[:n])
			enc = append(enc[:n:n], sum[:]...)
		}
		var w proof.Walk
		if err := w.UnmarshalBinary(enc); err != nil {
			if !isMalformed(err) {
				t.Fatalf("an error of no known kind: %v", err)
			}
			return
		}
		if !bytes.Equal(encode(t, &w), enc) {
			t.Fatal("encodes differently")
		}
		at := w.At()
		if at.TxID == proof.MaxTxID {
			return
		}
		root, err := w.Root(at.TxID)
		if err != nil {
			t.Fatal(err)
		}
		h := proof.Header{ID: at.TxID + 1, PrevAlh: at.Alh, Version: 1, BlTxID: at.TxID, BlRoot: root}
		if at.TxID == 0 {
			h.BlRoot = proof.Hash{}
		}
		if err := w.Next(&h); err != nil {
			t.Fatalf("cannot go on from %v: %v", at, err)
		}
	})
}

func FuzzParseExport(f *testing.F) {
	for _, l := range recordings(f) {
		for _, x := range l.txs {
			if len(x.export) > 0 && len(x.export) < 1000 {
				f.Add(x.export)
			}
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		x, err := proof.ParseExport(payload)
		if err != nil {
			if !isMalformed(err) || x != nil {
				t.Fatalf("%v, %v", x, err)
			}
			return
		}
		back, err := proof.AppendExport(nil, x)
		if err != nil || !bytes.Equal(back, payload) {
			t.Fatalf("encodes differently: %x, %v", back, err)
		}
		entries := make([]proof.Entry, len(x.Entries))
		for i := range x.Entries {
			entries[i] = x.Entries[i].Entry
		}
		outcome(t, proof.VerifyEntries(&x.Header, entries))
	})
}

func FuzzVerifyEntries(f *testing.F) {
	for _, l := range recordings(f) {
		for _, x := range l.txs[:min(4, len(l.txs))] {
			f.Add(marshal(f, x.digests), uint8(0), []byte{})
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, index uint8, path []byte) {
		var m schema.Tx
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		h, entries, values, err := wire.DecodeTx(&m)
		outcome(t, err)
		if err != nil {
			return
		}
		outcome(t, proof.VerifyEntries(&h, entries))
		for i := range entries {
			outcome(t, proof.VerifyValue(&entries[i], values[i]))
			outcome(t, proof.VerifyEntryInclusion(&h, &entries[i], uint64(index), uint64(h.NEntries), hashesOf(path)))
		}
	})
}

func hashesOf(b []byte) []proof.Hash {
	var out []proof.Hash
	for ; len(b) >= 32; b = b[32:] {
		out = append(out, proof.Hash(b[:32]))
	}
	return out
}

func FuzzKeys(f *testing.F) {
	for _, l := range recordings(f) {
		s := l.states[0]
		f.Add(s.PublicKey, s.Signature, s.DB, s.TxID, s.Alh[:])
	}
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"), []byte{}, "", uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, key, signature []byte, db string, tx uint64, alh []byte) {
		var h proof.Hash
		copy(h[:], alh)
		s := &proof.SignedState{DB: db, State: proof.State{TxID: tx, Alh: h}, Signature: signature}
		for _, parse := range []func([]byte) (*ecdsa.PublicKey, error){proof.ParsePoint, proof.ParsePublicKey} {
			k, err := parse(key)
			if (k == nil) != isMalformed(err) {
				t.Fatalf("%v, %v", k, err)
			}
			outcome(t, proof.VerifySignature(k, s))
		}
		if k, err := proof.ParsePoint(key); err == nil {
			if back, err := k.Bytes(); err != nil || !bytes.Equal(back, key) {
				t.Fatalf("encodes differently: %x, %v", back, err)
			}
		}
	})
}

// otherTree is a transaction tree as golang.org/x/mod/sumdb/tlog keeps one.
type otherTree struct {
	leaves []proof.Hash
	stored []tlog.Hash
}

func (o *otherTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = o.stored[x]
	}
	return out, nil
}

func newOtherTree(t testing.TB, size uint64) *otherTree {
	t.Helper()
	o := new(otherTree)
	for n := range size {
		leaf := hashOf(binary.BigEndian.AppendUint64(nil, n))
		hashes, err := tlog.StoredHashes(int64(n), leaf[:], o)
		if err != nil {
			t.Fatal(err)
		}
		o.leaves = append(o.leaves, leaf)
		o.stored = append(o.stored, hashes...)
	}
	return o
}

func (o *otherTree) root(t testing.TB, size uint64) proof.Hash {
	t.Helper()
	h, err := tlog.TreeHash(int64(size), o)
	if err != nil {
		t.Fatal(err)
	}
	return proof.Hash(h)
}

// mutate changes list as the input says: nothing, a bit, an end, an order.
func mutate(list []proof.Hash, how uint8, at uint16) []proof.Hash {
	list = append([]proof.Hash(nil), list...)
	if len(list) == 0 {
		if how%6 == 2 {
			list = append(list, proof.Hash{})
		}
		return list
	}
	i := int(at) % len(list)
	switch how % 6 {
	case 1:
		list[i][at%32] ^= 1 << (how % 8)
	case 2:
		list = append(list, list[i])
	case 3:
		list = list[:len(list)-1]
	case 4:
		list[0], list[i] = list[i], list[0]
	case 5:
		list = append(list[:i], list[i+1:]...)
	}
	return list
}

const fuzzSize = 300

// FuzzInclusionAgainstTlog: x/mod's prover, our verifier and x/mod's agree.
func FuzzInclusionAgainstTlog(f *testing.F) {
	for how := range uint8(6) {
		f.Add(uint16(1), uint16(0), how, uint16(0))
		f.Add(uint16(8), uint16(7), how, uint16(1))
		f.Add(uint16(299), uint16(256), how, uint16(2))
	}
	o := newOtherTree(f, fuzzSize)
	f.Fuzz(func(t *testing.T, size, index uint16, how uint8, at uint16) {
		n := uint64(size)%fuzzSize + 1
		i := uint64(index) % n
		theirs, err := tlog.ProveRecord(int64(n), int64(i), o)
		if err != nil {
			t.Fatal(err)
		}
		var path []proof.Hash
		for _, h := range theirs {
			path = append(path, proof.Hash(h))
		}
		path = mutate(path, how, at)
		root := o.root(t, n)
		var back tlog.RecordProof
		for _, h := range path {
			back = append(back, tlog.Hash(h))
		}
		leaf := o.leaves[i]
		want := tlog.CheckRecord(back, int64(n), tlog.Hash(root), int64(i), tlog.RecordHash(leaf[:])) == nil
		if how%6 == 0 && !want {
			t.Fatal("x/mod refuses its own proof")
		}
		if got := proof.Included(i, n, leaf, root, path); got != want {
			t.Fatalf("leaf %d of %d, path %v: we say %v, x/mod %v", i, n, path, got, want)
		}
	})
}

// FuzzConsistencyAgainstTlog does the same for consistency proofs, put into
// immudb's form.
func FuzzConsistencyAgainstTlog(f *testing.F) {
	for how := range uint8(6) {
		f.Add(uint16(2), uint16(1), how, uint16(0))
		f.Add(uint16(9), uint16(8), how, uint16(1))
		f.Add(uint16(299), uint16(255), how, uint16(2))
	}
	o := newOtherTree(f, fuzzSize)
	f.Fuzz(func(t *testing.T, size, old uint16, how uint8, at uint16) {
		n := uint64(size)%(fuzzSize-1) + 2
		m := uint64(old)%(n-1) + 1
		theirs, err := tlog.ProveTree(int64(n), int64(m), o)
		if err != nil {
			t.Fatal(err)
		}
		var list []proof.Hash
		for _, h := range theirs {
			list = append(list, proof.Hash(h))
		}
		list = mutate(list, how, at)
		var back tlog.TreeProof
		for _, h := range list {
			back = append(back, tlog.Hash(h))
		}
		from, to := o.root(t, m), o.root(t, n)
		want := tlog.CheckTree(back, int64(n), tlog.Hash(to), int64(m), tlog.Hash(from)) == nil
		if how%6 == 0 && !want {
			t.Fatal("x/mod refuses its own proof")
		}
		if m&(m-1) == 0 {
			list = append([]proof.Hash{from}, list...)
		}
		if got := proof.Consistent(m, n, from, to, list); got != want {
			t.Fatalf("%d→%d, list %v: we say %v, x/mod %v", m, n, list, got, want)
		}
		if m&(m-1) == 0 {
			list[0][at%32] ^= 1
			if proof.Consistent(m, n, from, to, list) {
				t.Fatalf("%d→%d: a first node that is not the old root", m, n)
			}
		}
	})
}

// FuzzRootAgainstTlog: the walk's tree and the entry tree are the tree that
// x/mod keeps, whatever the size.
func FuzzRootAgainstTlog(f *testing.F) {
	f.Add(uint16(0))
	f.Add(uint16(255))
	o := newOtherTree(f, fuzzSize)
	f.Fuzz(func(t *testing.T, size uint16) {
		n := uint64(size)%fuzzSize + 1
		var tree proof.EntryTree
		for _, leaf := range o.leaves[:n] {
			if err := tree.Add(leaf); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := tree.Root(); err != nil || got != o.root(t, n) || tree.Size() != n {
			t.Fatalf("size %d: %s, %v", n, got, err)
		}
	})
}

// The book that the other tests prove with builds the trees of x/mod, too.
func TestBookAgainstTlog(t *testing.T) {
	t.Parallel()
	o := newOtherTree(t, 70)
	b := &book{leaves: o.leaves}
	for n := uint64(1); n <= 70; n++ {
		if b.root(n) != o.root(t, n) {
			t.Errorf("root of %d", n)
		}
		for i := uint64(1); i <= n; i++ {
			if !proof.Included(i-1, n, o.leaves[i-1], o.root(t, n), b.inclusion(i, n)) {
				t.Errorf("leaf %d of %d", i, n)
			}
			if !proof.Consistent(i, n, o.root(t, i), o.root(t, n), b.consistency(i, n)) {
				t.Errorf("%d→%d", i, n)
			}
		}
	}
}

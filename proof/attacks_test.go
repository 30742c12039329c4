package proof_test

import (
	"errors"
	"slices"
	"testing"

	"immuaudit/proof"
)

// walkTo walks w along b up to transaction n.
func walkTo(t testing.TB, w *proof.Walk, b *book, n uint64) {
	t.Helper()
	for tx := w.At().TxID + 1; tx <= n; tx++ {
		h := b.header(tx)
		if err := w.Next(&h); err != nil {
			t.Fatalf("transaction %d: %v", tx, err)
		}
	}
	if w.At() != b.state(n) {
		t.Fatalf("walked to %v, wanted %v", w.At(), b.state(n))
	}
}

// mustRefuse walks to the transaction before bad, which must not be taken.
func mustRefuse(t *testing.T, b *book, bad uint64) {
	t.Helper()
	var w proof.Walk
	walkTo(t, &w, b, bad-1)
	h := b.header(bad)
	err := w.Next(&h)
	if m, ok := errors.AsType[*proof.Mismatch](err); !ok || m.Check != proof.CheckBlRoot || m.Tx != bad {
		t.Errorf("walk at transaction %d: %v", bad, err)
	}
	if w.At() != b.state(bad-1) {
		t.Errorf("the walk moved to %v", w.At())
	}
}

// rewritten is another content for transactions from…to, chained among
// themselves as if they had been there.
func rewritten(b *book, from, to uint64) []proof.Header {
	var out []proof.Header
	prev := b.alhs[from-2]
	for tx := from; tx <= to; tx++ {
		h := b.header(tx)
		h.EH[0] ^= 0xff
		h.PrevAlh = prev
		prev = alhOf(&h)
		out = append(out, h)
	}
	return out
}

// The leaf swap: another Alh for the newest transaction goes into the tree of
// the one after it. The chain is untouched, and steps 1 to 7 hold.
func TestLeafSwapNewest(t *testing.T) {
	t.Parallel()
	const n = 20
	b := honest(n)
	other := rewritten(b, n, n)[0]
	b.leaves[n-1] = alhOf(&other)
	b.commit(n, nil)
	b.commit(n+1, nil)

	err := proof.VerifyDual(b.dual(n, n+1), b.state(n), b.state(n+1), nil)
	if m, ok := errors.AsType[*proof.Mismatch](err); !ok || m.Check != proof.CheckLeafBinding || m.Got != alhOf(&other) {
		t.Errorf("dual proof %d→%d: %v", n, n+1, err)
	}
	mustRefuse(t, b, n+1)

	// Why it matters: once an auditor has let it pass, every later step holds…
	if err := proof.VerifyDual(b.dual(n+1, n+2), b.state(n+1), b.state(n+2), nil); err != nil {
		t.Errorf("dual proof %d→%d: %v", n+1, n+2, err)
	}
	// …and the other transaction is proven against the audited state, the
	// real one no longer.
	b.headers[n-1] = other
	p := b.dual(n, n+2)
	if err := proof.VerifyDual(p, proof.State{TxID: n, Alh: alhOf(&other)}, b.state(n+2), nil); err != nil {
		t.Errorf("the other transaction: %v", err)
	}
}

// The same where the source lies beyond the target's tree, which takes in one
// swapped leaf.
func TestLeafSwapLaggingOne(t *testing.T) {
	t.Parallel()
	b := honest(8)
	b.commit(7, nil)
	b.commit(7, nil)
	other := rewritten(b, 8, 8)[0]
	b.leaves[7] = alhOf(&other)
	b.commit(8, nil)
	leafSwapLagging(t, b, []proof.Header{other})
}

// The same with several swapped leaves, chained among themselves, and an
// advance proof that fits them.
func TestLeafSwapLaggingMany(t *testing.T) {
	t.Parallel()
	b := honest(7)
	for range 3 {
		b.commit(6, nil)
	}
	others := rewritten(b, 7, 9)
	for i := range others {
		b.leaves[6+i] = alhOf(&others[i])
	}
	b.commit(9, nil)
	leafSwapLagging(t, b, others)
}

// leafSwapLagging audits 10→11 of b, where others are in the tree of 11.
func leafSwapLagging(t *testing.T, b *book, others []proof.Header) {
	t.Helper()
	const source, target = 10, 11
	last := others[len(others)-1]
	p := b.dual(source, target)
	if p.Advance != nil {
		// The forger's advance proof: the others' chain.
		p.Advance.Terms[0] = alhOf(&others[0])
		for i := range others[1:] {
			p.Advance.Terms[i+1] = innerOf(&others[i+1])
		}
	}

	// Nothing but step 8 is left to refuse it, and it asks.
	err := proof.VerifyDual(p, b.state(source), b.state(target), nil)
	if u, ok := errors.AsType[*proof.Unproven](err); !ok || u.Need != proof.NeedBinding || u.From != last.ID || u.To != target {
		t.Fatalf("without binding: %v", err)
	}
	// The server can answer with the chain as it is…
	if err := proof.VerifyDual(p, b.state(source), b.state(target), b.extra(p)); !isMismatch(err, proof.CheckLeafBinding) {
		t.Errorf("honest binding: %v", err)
	}
	// …or pretend that the chain begins at the swapped leaf.
	forged := b.extra(p)
	forged.Binding.Source = last
	forged.Binding.Linear.Terms[0] = alhOf(&last)
	if err := proof.VerifyDual(p, b.state(source), b.state(target), forged); !isMismatch(err, proof.CheckLeafBinding) {
		t.Errorf("forged binding: %v", err)
	}
	if _, err := proof.CheckpointRoot(p, b.state(source), b.state(target), forged); !isMismatch(err, proof.CheckLeafBinding) {
		t.Errorf("checkpoint: %v", err)
	}
	mustRefuse(t, b, target)
}

// Junk leaves between two audited states, in the tree of the second alone:
// the dual proof cannot see them, as its documentation says. The walk does.
func TestJunkLeaves(t *testing.T) {
	t.Parallel()
	const source, target = 10, 20
	b := honest(target - 1)
	for tx := source + 1; tx < target-1; tx++ {
		b.leaves[tx-1] = proof.Hash{0xba, 0xd0, byte(tx)}
	}
	b.commit(target-1, nil)

	if err := proof.VerifyDual(b.dual(source, target), b.state(source), b.state(target), nil); err != nil {
		t.Errorf("dual proof %d→%d is documented to hold: %v", source, target, err)
	}
	mustRefuse(t, b, target)
	// Every leaf that the dual proof does bind is bound.
	for _, tx := range []uint64{source, target - 1, 5} {
		c := &book{headers: b.headers[:target-1], alhs: b.alhs[:target-1], leaves: slices.Clone(b.leaves[:target-1])}
		c.leaves[tx-1] = proof.Hash{0xba, 0xd0}
		c.commit(target-1, nil)
		if err := proof.VerifyDual(c.dual(source, target), c.state(source), c.state(target), nil); err == nil {
			t.Errorf("junk for transaction %d verifies", tx)
		}
	}
}

// CVE-2022-36111: transaction 8 is swapped in the target's tree. The source's
// tree did not hold it, and its linear part did.
func TestLinearFake(t *testing.T) {
	t.Parallel()
	b := honest(6)
	for range 4 {
		b.commit(5, nil) // 7…10
	}
	others := rewritten(b, 8, 8)
	b.leaves[7] = alhOf(&others[0])
	b.commit(10, nil)
	b.commit(11, nil)
	source, target := b.state(10), b.state(12)

	p := b.dual(10, 12)
	if err := proof.VerifyDual(p, source, target, nil); !isMismatch(err, proof.CheckLinearAdvance) {
		t.Errorf("advance proof along the chain: %v", err)
	}
	honestTerms := p.Advance
	p.Advance = nil
	err := proof.VerifyDual(p, source, target, nil)
	if u, ok := errors.AsType[*proof.Unproven](err); !ok || u.Need != proof.NeedAdvance || u.From != 5 || u.To != 10 {
		t.Fatalf("without advance proof: %v", err)
	}
	// Rebuilt from what the server answers, it is found out.
	var inclusions [][]proof.Hash
	for tx := uint64(6); tx < 10; tx++ {
		inclusions = append(inclusions, b.dual(tx, 12).Inclusion)
	}
	rebuilt, rerr := proof.RebuildAdvance(5, 10, b.headers[5:10], inclusions)
	if rerr != nil {
		t.Fatal(rerr)
	}
	if err := proof.VerifyDual(p, source, target, &proof.Extra{Advance: rebuilt}); !isMismatch(err, proof.CheckLinearAdvance) {
		t.Errorf("rebuilt: %v", err)
	}
	// Forged along the swapped leaf, it leads elsewhere than to the source.
	forged := &proof.AdvanceProof{Terms: slices.Clone(honestTerms.Terms), Inclusions: honestTerms.Inclusions}
	forged.Terms[2] = innerOf(&others[0])
	p.Advance = forged
	if err := proof.VerifyDual(p, source, target, nil); !isMismatch(err, proof.CheckLinearAdvance) {
		t.Errorf("forged: %v", err)
	}
	mustRefuse(t, b, 11)
}

// Two histories that part at some transaction cannot both be walked or proven.
func TestFork(t *testing.T) {
	t.Parallel()
	a, b := honest(30), honest(20)
	for id := uint64(21); id <= 30; id++ {
		b.commit(id-1, func(h *proof.Header) { h.Ts++ })
	}
	var w proof.Walk
	walkTo(t, &w, a, 25)
	h := b.header(26)
	if err := w.Next(&h); !isMismatch(err, proof.CheckPrevAlh) {
		t.Errorf("walk onto the fork: %v", err)
	}
	if err := proof.VerifyDual(b.dual(25, 30), a.state(25), b.state(30), nil); !isMismatch(err, proof.CheckAlhSource) {
		t.Errorf("proof of the fork: %v", err)
	}
	p := b.dual(25, 30)
	p.Source = a.header(25)
	if err := proof.VerifyDual(p, a.state(25), b.state(30), nil); !isMismatch(err, proof.CheckInclusion) {
		t.Errorf("proof of the fork with the trusted header: %v", err)
	}
}

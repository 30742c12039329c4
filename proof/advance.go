package proof

import "fmt"

// checkAdvance is step 7 (CVE-2022-36111): transactions that the source's
// lagging tree did not hold were covered by its linear part alone. Where the
// target's tree has taken them in, its leaves must be that chain; else a
// server could swap them there unseen. A missing proof is never a pass.
func checkAdvance(v *verifier, p *DualProof, source, target State, extra *Extra) error {
	if p.Source.BlTxID > p.Target.BlTxID {
		return nil // step 9
	}
	start, end, needed := advanceSpan(p)
	if !needed {
		return nil
	}
	advance := p.Advance
	if !advance.complete(start, end, p.Target.BlTxID) && extra != nil {
		advance = extra.Advance
	}
	if !advance.complete(start, end, p.Target.BlTxID) {
		need := NeedAdvance
		if end-start > MaxAdvance {
			need = NeedWalk
		}
		return &Unproven{Check: CheckLinearAdvance, Need: need, From: start, To: end}
	}

	t := &p.Target
	alh := advance.Terms[0]
	for i, path := range advance.Inclusions {
		tx := start + 1 + uint64(i)
		got, err := v.inclusion(tx-1, t.BlTxID, leafHash(&alh), path)
		if err != nil {
			return fmt.Errorf("following the inclusion proof of transaction %d in the linear advance proof: %w", tx, err)
		}
		if got != t.BlRoot {
			return &Mismatch{Check: CheckLinearAdvance, Tx: tx, Want: t.BlRoot, Got: got}
		}
		alh = chain(tx+1, &alh, &advance.Terms[i+1])
	}
	want := p.TargetBlTxAlh
	if source.TxID < t.BlTxID {
		want = source.Alh
	}
	if alh != want {
		return &Mismatch{Check: CheckLinearAdvance, Tx: end, Want: want, Got: alh}
	}
	return nil
}

// complete tells whether a has every term and every node that the span
// start+1 … end needs in a tree of size leaves.
func (a *AdvanceProof) complete(start, end, size uint64) bool {
	if a == nil || uint64(len(a.Terms)) != end-start || uint64(len(a.Inclusions)) != end-start-1 {
		return false
	}
	for i, path := range a.Inclusions {
		if len(path) != pathLen(start+uint64(i), size) {
			return false
		}
	}
	return true
}

// RebuildAdvance assembles the linear advance proof that a server before
// 1.4.1 does not send, for the span that *Unproven{NeedAdvance} names: start
// is its From, end its To (docs/protocol.md §4.2 step 7). headers are those of
// transactions start+1 … end; inclusions are the Inclusion lists of
// VerifiableTxById(tx=target, proveSinceTx=t) for t = start+1 … end−1.
// Nothing is verified here: VerifyDual does, as with a proof that was sent.
// An error is a *Malformed.
func RebuildAdvance(start, end uint64, headers []Header, inclusions [][]Hash) (*AdvanceProof, error) {
	if end <= start || end-start < 2 || end-start > MaxAdvance {
		return nil, malformed("linear advance", "from transaction %d to %d is not between 2 and %d transactions", start, end, MaxAdvance)
	}
	if uint64(len(headers)) != end-start {
		return nil, malformed("linear advance", "%d headers where %d are needed", len(headers), end-start)
	}
	if uint64(len(inclusions)) != end-start-1 {
		return nil, malformed("linear advance", "%d inclusion proofs where %d are needed", len(inclusions), end-start-1)
	}
	a := &AdvanceProof{Terms: make([]Hash, len(headers)), Inclusions: inclusions}
	for i := range headers {
		h := &headers[i]
		if err := h.Validate(); err != nil {
			return nil, inside("header", err)
		}
		if want := start + 1 + uint64(i); h.ID != want {
			return nil, malformed("header.id", "%d where %d was asked for", h.ID, want)
		}
		a.Terms[i] = h.Inner()
	}
	a.Terms[0] = headers[0].Alh()
	return a, nil
}

// bindingStart is where the binding proof of target header t begins.
func bindingStart(t *Header) uint64 { return max(t.BlTxID, 1) }

// checkBinding is step 8, which immudb's own verifier lacks up to 1.11.1: the
// leaves that the target's tree gained up to the source must be the chain's.
// Without it a server can put another Alh for transaction N into the tree at
// N+1, and afterwards show that other one to whoever verifies against the
// audited state.
func checkBinding(_ *verifier, p *DualProof, source, target State, extra *Extra) error {
	t := &p.Target
	if t.BlTxID <= p.Source.BlTxID || source.TxID < t.BlTxID {
		return nil
	}
	if source.TxID == t.BlTxID {
		if p.TargetBlTxAlh != source.Alh {
			return &Mismatch{Check: CheckLeafBinding, Tx: source.TxID, Want: source.Alh, Got: p.TargetBlTxAlh,
				Detail: "the tree holds another hash for this transaction than the chain"}
		}
		return nil
	}
	if extra == nil || extra.Binding == nil {
		return &Unproven{Check: CheckLeafBinding, Need: NeedBinding, From: t.BlTxID, To: target.TxID}
	}
	return followBinding(extra.Binding, State{t.BlTxID, p.TargetBlTxAlh}, source, target)
}

// followBinding checks that b leads by its chain from the leaf through the
// source to the target.
func followBinding(b *DualProof, leaf, source, target State) error {
	if got := b.Source.Alh(); got != leaf.Alh {
		return &Mismatch{Check: CheckLeafBinding, Tx: leaf.TxID, Want: leaf.Alh, Got: got,
			Detail: "the transaction's header hashes to another Alh than the tree holds"}
	}
	if got := b.Target.Alh(); got != target.Alh {
		return &Mismatch{Check: CheckLeafBinding, Tx: target.TxID, Want: target.Alh, Got: got}
	}
	met, err := followLinear(CheckLeafBinding, b.Linear.Terms, leaf.TxID, leaf.Alh, target, source.TxID)
	if err != nil {
		return err
	}
	if met != source.Alh {
		return &Mismatch{Check: CheckLeafBinding, Tx: source.TxID, Want: source.Alh, Got: met,
			Detail: "the chain from the tree's newest leaf does not pass through the trusted state"}
	}
	return nil
}

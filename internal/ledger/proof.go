package ledger

import (
	"immuaudit/internal/wire/schema"
)

// dualProof builds the proof that history up to target extends history up to
// source, source ≤ target, as docs/protocol.md §4.2 describes it from the other
// side. Tree leaves come from the tree and the linear part from the stored
// headers: after tampering they may disagree, which is then the checker's find.
func (v *view) dualProof(source, target uint64, r release) (*schema.DualProof, error) {
	s, t := &v.tx(source).Header, &v.tx(target).Header
	// §4.2 step 9: every server refuses this pair, though both are honest.
	if s.BlTxID > t.BlTxID {
		return nil, errLinkingMismatch(source)
	}
	p := &schema.DualProof{
		SourceTxHeader: headerMessage(s),
		TargetTxHeader: fullHeaderMessage(t, r),
		TargetBlTxAlh:  make([]byte, 32),
	}
	size := t.BlTxID
	if size > v.tree.size() {
		// Only a tampered header can say so.
		return nil, errLinkingMismatch(target)
	}
	if source < size {
		p.InclusionProof = list(v.tree.inclusion(source-1, size))
	}
	if s.BlTxID > 0 {
		p.ConsistencyProof = list(v.tree.consistency(s.BlTxID, size))
	}
	start := source
	if size > 0 {
		p.TargetBlTxAlh = bytesOf(v.leafAlh(size))
		p.LastInclusionProof = list(v.tree.inclusion(size-1, size))
	}
	if source < size {
		start = size
	}
	p.LinearProof = v.linearProof(start, target)
	if r.atLeast(1, 4, 1) {
		p.LinearAdvanceProof = v.advanceProof(s.BlTxID, min(source, size), size)
	}
	return p, nil
}

// leafAlh is the Alh that stands in the tree for a transaction: the stored one,
// unless that leaf was swapped. Only the leaf's hash is in the tree, so the
// swapped Alh is kept beside it.
func (v *view) leafAlh(id uint64) [32]byte {
	if alh, ok := v.swapped[id]; ok {
		return alh
	}
	return v.tx(id).Alh
}

// linearProof has the Alh of start, then the inner hash of every header up to target.
func (v *view) linearProof(start, target uint64) *schema.LinearProof {
	alh := v.tx(start).Alh
	terms := [][]byte{bytesOf(alh)}
	for id := start + 1; id <= target; id++ {
		terms = append(terms, bytesOf(v.tx(id).Header.Inner()))
	}
	return &schema.LinearProof{SourceTxId: start, TargetTxId: target, Terms: terms}
}

// advanceProof binds what the source's lagging tree did not cover yet,
// start+1 … end, to the target's tree of the given size: docs/protocol.md §4.2
// step 7. Nil where there is nothing to bind.
func (v *view) advanceProof(start, end, size uint64) *schema.LinearAdvanceProof {
	if end <= start+1 {
		return nil
	}
	p := &schema.LinearAdvanceProof{
		LinearProofTerms: [][]byte{bytesOf(v.tx(start + 1).Alh)},
	}
	for id := start + 1; id < end; id++ {
		p.LinearProofTerms = append(p.LinearProofTerms, bytesOf(v.tx(id+1).Header.Inner()))
		p.InclusionProofs = append(p.InclusionProofs, &schema.InclusionProof{
			Terms: list(v.tree.inclusion(id-1, size)),
		})
	}
	return p
}

// entryInclusion proves entry i of a transaction in its entry tree.
func entryInclusion(tx *StoredTx, i int) *schema.InclusionProof {
	n := len(tx.Entries)
	return &schema.InclusionProof{
		Leaf:  int32(i),
		Width: int32(n),
		Terms: list(entryTree(tx.Entries, tx.Header.Version).inclusion(uint64(i), uint64(n))),
	}
}

// bytesOf copies: answers belong to whoever gets them, interceptors included.
func bytesOf(h [32]byte) []byte { return h[:] }

func list(hashes [][32]byte) [][]byte {
	if len(hashes) == 0 {
		return nil
	}
	out := make([][]byte, len(hashes))
	for i, h := range hashes {
		out[i] = bytesOf(h)
	}
	return out
}

package evidence

import "immuaudit/proof"

// edge leads from a state to an earlier one that it commits to.
type edge struct {
	by     By
	to     proof.State
	header *proof.Header // of the state it starts from; nil where by is ByLinear
	hashes []proof.Hash
}

// size of the edge in a file, about.
func (e *edge) size() int {
	if e.header != nil {
		return 3 + len(e.hashes)
	}
	return 1 + len(e.hashes)
}

// graph is everything that the raw material commits to: which earlier hashes
// follow from which state. Nothing in it says that anybody signed any of it.
type graph struct {
	edges map[proof.State][]edge
	count int
}

// gather makes the graph of what a file could hold of the material.
func gather(in *Material) *graph {
	g := &graph{edges: map[proof.State][]edge{}}
	var proofs []*proof.DualProof
	hashes := 0
	for _, p := range in.Proofs {
		if p != nil && len(proofs) < maxProofs && hashes+sizeOf(p) <= maxHashes {
			proofs, hashes = append(proofs, p), hashes+sizeOf(p)
		}
	}
	for _, p := range proofs {
		g.addProof(p)
	}
	for i := range in.Headers[:min(len(in.Headers), maxEdges)] {
		g.addHeader(&in.Headers[i])
	}
	// Last, for they are long: a server must not be able to crowd out what
	// convicts it.
	for _, p := range proofs {
		g.addChain(p)
	}
	return g
}

func (g *graph) add(from proof.State, e edge) {
	if g.count >= maxEdges || e.to.TxID == 0 || e.to.TxID >= from.TxID {
		return
	}
	// Proofs repeat each other's headers; a long chain repeats nothing, and
	// is not worth comparing with itself.
	if known := g.edges[from]; len(known) < 64 {
		for i := range known {
			if known[i].to == e.to && known[i].size() <= e.size() {
				return
			}
		}
	}
	g.edges[from] = append(g.edges[from], e)
	g.count++
}

func stateOf(h *proof.Header) proof.State { return proof.State{TxID: h.ID, Alh: h.Alh()} }

// addHeader: a header names the hash before it.
func (g *graph) addHeader(h *proof.Header) {
	if h.Validate() == nil {
		g.add(stateOf(h), edge{by: ByHeaders, to: proof.State{TxID: h.ID - 1, Alh: h.PrevAlh}, header: h})
	}
}

// addProof takes from a dual proof what holds of it, whether or not the proof
// as a whole does.
func (g *graph) addProof(p *proof.DualProof) {
	g.addHeader(&p.Source)
	g.addHeader(&p.Target)
	t := &p.Target
	if t.Validate() != nil {
		return
	}
	target := stateOf(t)
	leaf := func(to proof.State, path []proof.Hash) {
		if included(to, t.BlTxID, t.BlRoot, path) {
			g.add(target, edge{by: ByInclusion, to: to, header: t, hashes: path})
		}
	}
	leaf(proof.State{TxID: t.BlTxID, Alh: p.TargetBlTxAlh}, p.LastInclusion)
	if p.Source.Validate() == nil {
		leaf(stateOf(&p.Source), p.Inclusion)
	}
	if a := p.Advance; a != nil && len(a.Terms) == len(a.Inclusions)+1 && p.Source.BlTxID < t.BlTxID {
		at := proof.State{TxID: p.Source.BlTxID + 1, Alh: a.Terms[0]}
		for i, path := range a.Inclusions {
			leaf(at, path)
			at = link(at, &a.Terms[i+1])
		}
	}
}

// addChain takes every hash on the linear way to the target.
func (g *graph) addChain(p *proof.DualProof) {
	if p.Target.Validate() != nil {
		return
	}
	l, target := &p.Linear, stateOf(&p.Target)
	if l.SourceTxID == 0 || l.SourceTxID >= target.TxID || uint64(len(l.Terms)) != target.TxID-l.SourceTxID+1 {
		return
	}
	chain := make([]proof.State, len(l.Terms))
	chain[0] = proof.State{TxID: l.SourceTxID, Alh: l.Terms[0]}
	for i := 1; i < len(chain); i++ {
		chain[i] = link(chain[i-1], &l.Terms[i])
	}
	if chain[len(chain)-1] != target {
		return
	}
	for i, at := range chain[:len(chain)-1] {
		g.add(target, edge{by: ByLinear, to: at, hashes: l.Terms[i+1:]})
	}
}

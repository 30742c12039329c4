package evidence

import (
	"bytes"
	"slices"

	"immuaudit/proof"
)

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

// step is how a state was reached: from where, over which edge, and how large
// the way is in a file.
type step struct {
	from proof.State
	edge *edge
	size int
}

// reach gives every state that the given one commits to, by the fewest steps.
func (g *graph) reach(head proof.State) map[proof.State]step {
	reached := map[proof.State]step{head: {}}
	for queue := []proof.State{head}; len(queue) > 0; queue = queue[1:] {
		from := queue[0]
		for i := range g.edges[from] {
			e := &g.edges[from][i]
			if _, known := reached[e.to]; !known {
				reached[e.to] = step{from, e, reached[from].size + e.size()}
				queue = append(queue, e.to)
			}
		}
	}
	return reached
}

// path gives the steps from head to a reached state; headers in a row are one.
func path(reached map[proof.State]step, head, to proof.State) []Step {
	var edges []step
	for at := to; at != head; at = reached[at].from {
		edges = append(edges, reached[at])
	}
	slices.Reverse(edges)
	var out []Step
	for _, s := range edges {
		e := s.edge
		if e.by == ByHeaders && len(out) > 0 && out[len(out)-1].By == ByHeaders {
			last := &out[len(out)-1]
			last.To, last.Headers = e.to, append(last.Headers, *e.header)
			continue
		}
		next := Step{By: e.by, To: e.to, Hashes: slices.Clone(e.hashes)}
		if e.header != nil {
			next.Headers = []proof.Header{*e.header}
		}
		out = append(out, next)
	}
	for i := range out {
		slices.Reverse(out[i].Headers) // gathered downwards, kept in ascending order
	}
	return out
}

// FindContradiction looks in the material for two histories signed by one key,
// the smallest proof first; nil where there is none. The key remembered or
// configured for the server is tried before those that came with the states.
func FindContradiction(in *Material) *Contradiction {
	g := graph{edges: map[proof.State][]edge{}}
	for _, p := range in.Proofs {
		if p != nil {
			g.addProof(p)
		}
	}
	for i := range in.Headers {
		g.addHeader(&in.Headers[i])
	}
	// Last, for they are long: a server must not be able to crowd out what
	// convicts it.
	for _, p := range in.Proofs {
		if p != nil {
			g.addChain(p)
		}
	}
	states := append([]proof.SignedState{in.Trusted, in.Observed}, in.States...)
	states = states[:min(len(states), 2+maxStates)]
	var keys [][]byte
	for _, key := range append([][]byte{in.ServerKey}, publicKeys(states)...) {
		if len(key) > 0 && !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if c := g.contradiction(key, states); c != nil {
			return c
		}
	}
	return nil
}

func publicKeys(states []proof.SignedState) (keys [][]byte) {
	for i := range states {
		keys = append(keys, states[i].PublicKey)
	}
	return keys
}

// head is a state that the key in question signed.
type head struct {
	state   *proof.SignedState
	reached map[proof.State]step
}

func (g *graph) contradiction(point []byte, states []proof.SignedState) *Contradiction {
	key, err := proof.ParsePoint(point)
	if err != nil {
		return nil
	}
	databases := map[string][]head{}
	for i := range states {
		s := &states[i]
		if s.TxID > 0 && proof.VerifySignature(key, s) == nil {
			databases[s.DB] = append(databases[s.DB], head{s, g.reach(s.State)})
		}
	}
	var best *Contradiction
	size := 0
	for i := range states { // in the order of the states: the same answer every time
		db := states[i].DB
		first, second, to := smallest(databases[db])
		delete(databases, db)
		if first == nil {
			continue
		}
		n := first.reached[to[0]].size + second.reached[to[1]].size
		if best != nil && n >= size {
			continue
		}
		c, err := ServerContradiction(point,
			Showing{*first.state, path(first.reached, first.state.State, to[0])},
			Showing{*second.state, path(second.reached, second.state.State, to[1])})
		if err == nil { // too long to be written down otherwise
			best, size = c, n
		}
	}
	return best
}

// smallest picks, of all transactions that the heads show two hashes for, the
// one with the shortest paths, the lowest transaction where they are equal.
func smallest(heads []head) (first, second *head, to [2]proof.State) {
	type shown struct {
		head *head
		size int
	}
	best := map[proof.State]shown{}
	hashes := map[uint64][]proof.State{}
	for i := range heads {
		for at, s := range heads[i].reached {
			if old, known := best[at]; !known {
				hashes[at.TxID] = append(hashes[at.TxID], at)
				best[at] = shown{&heads[i], s.size}
			} else if s.size < old.size {
				best[at] = shown{&heads[i], s.size}
			}
		}
	}
	least, lowest := 0, uint64(0)
	for tx, at := range hashes {
		if len(at) < 2 {
			continue
		}
		slices.SortFunc(at, func(a, b proof.State) int {
			if d := best[a].size - best[b].size; d != 0 {
				return d
			}
			return bytes.Compare(a.Alh[:], b.Alh[:])
		})
		size := best[at[0]].size + best[at[1]].size
		if first == nil || size < least || size == least && tx < lowest {
			least, lowest = size, tx
			first, second, to = best[at[0]].head, best[at[1]].head, [2]proof.State{at[0], at[1]}
		}
	}
	return first, second, to
}

package evidence

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"

	"immuaudit/proof"
)

// place is a state on the way from a head. inHeaders: the way so far ends with
// headers, and the next header belongs to the same step.
type place struct {
	at        proof.State
	inHeaders bool
}

// way is how a place is reached: from a signed state, by the cheapest edges.
type way struct {
	place
	from *way // nil at the head
	edge *edge
	head *proof.SignedState
	cost int
}

// stepCost is what a step costs beside its headers and hashes: so much that a
// way beyond the bounds of a proof is dearer than any of up to six steps and
// 10,000 headers. Otherwise a server could hide what convicts it behind a maze
// that looks shorter and cannot be written down.
const stepCost = 512

func (w *way) extend(e *edge) *way {
	next := &way{place: place{e.to, e.by == ByHeaders}, from: w, edge: e, head: w.head, cost: w.cost + e.size()}
	if !next.inHeaders || !w.inHeaders {
		next.cost += stepCost
	}
	return next
}

// ways is a priority queue: the cheapest first, and the same one every time.
type ways []*way

func (q ways) Len() int      { return len(q) }
func (q ways) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *ways) Push(x any)   { *q = append(*q, x.(*way)) }
func (q *ways) Pop() (x any) {
	last := len(*q) - 1
	x, *q = (*q)[last], (*q)[:last]
	return x
}

func (q ways) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.at.TxID, b.at.TxID), bytes.Compare(a.at.Alh[:], b.at.Alh[:])) < 0
}

// contradiction looks for the transaction that the heads show two hashes for
// at the least cost, spending at most budget.
func (g *graph) contradiction(heads []*proof.SignedState, budget *int) (first, second *way) {
	var queue ways
	for _, s := range heads {
		queue = append(queue, &way{place: place{at: s.State}, head: s})
	}
	heap.Init(&queue)
	seen := map[place]bool{}
	cheapest := map[uint64]*way{}
	for len(queue) > 0 && *budget > 0 {
		w := heap.Pop(&queue).(*way)
		if first != nil && w.cost >= first.cost+second.cost {
			break // whatever comes is not cheaper
		}
		if seen[w.place] {
			continue
		}
		seen[w.place] = true
		*budget--
		other := cheapest[w.at.TxID]
		switch {
		case other == nil:
			cheapest[w.at.TxID] = w
		case other.at != w.at && (first == nil || other.cost+w.cost < first.cost+second.cost):
			first, second = other, w
		}
		for i := range g.edges[w.at] {
			heap.Push(&queue, w.extend(&g.edges[w.at][i]))
		}
	}
	return first, second
}

// showing writes a way down; headers in a row are one step.
func (w *way) showing() Showing {
	s := Showing{State: *w.head}
	for ; w.from != nil; w = w.from {
		e := w.edge
		if last := len(s.Path) - 1; w.inHeaders && last >= 0 && s.Path[last].By == ByHeaders {
			s.Path[last].Headers = append(s.Path[last].Headers, *e.header)
			continue
		}
		next := Step{By: e.by, To: e.to, Hashes: slices.Clone(e.hashes)}
		if e.header != nil {
			next.Headers = []proof.Header{*e.header}
		}
		s.Path = append(s.Path, next)
	}
	slices.Reverse(s.Path) // gathered from the end; the headers of a step are in order
	return s
}

// FindContradiction looks in the material for two histories signed by one key,
// the smallest proof first; nil where there is none. Every state counts, those
// kept from earlier rounds too: it takes one of them that the server no longer
// agrees with, and a way to its transaction from what the server signs now.
// The key remembered or configured for the server is tried before those that
// came with the states.
func FindContradiction(in *Material) *Contradiction {
	var states []*proof.SignedState
	for _, s := range in.allStates() {
		if len(states) < maxSearched && s.TxID > 0 && fits(s) {
			states = append(states, s)
		}
	}
	keys := [][]byte{in.ServerKey}
	for _, s := range states {
		keys = append(keys, s.PublicKey)
	}
	g, budget, tried := gather(in), maxVisits, map[string]bool{}
	for i, point := range keys {
		key, err := proof.ParsePoint(point)
		if err != nil || tried[string(point)] {
			continue
		}
		tried[string(point)] = true
		// What a state says of its key proves nothing, so the server's own is
		// tried on all of them, any other one on those that name it.
		heads := slices.DeleteFunc(slices.Clone(states), func(s *proof.SignedState) bool {
			return i > 0 && !bytes.Equal(s.PublicKey, point) || proof.VerifySignature(key, s) != nil
		})
		for len(heads) > 0 {
			db := heads[0].DB
			other := func(s *proof.SignedState) bool { return s.DB != db }
			first, second := g.contradiction(slices.DeleteFunc(slices.Clone(heads), other), &budget)
			if first != nil {
				// An error: too long to be written down.
				if c, err := ServerContradiction(point, first.showing(), second.showing()); err == nil {
					return c
				}
			}
			heads = slices.DeleteFunc(heads, func(s *proof.SignedState) bool { return s.DB == db })
		}
	}
	return nil
}

package audit

import (
	"fmt"
	"math/bits"

	"github.com/transparency-dev/merkle/rfc6962"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// swapped finds which leaf of a header's tree is not the chain's. The audit
// path of any leaf holds the roots of all the rest of the tree, in O(log n)
// parts: a part that is not the one walked holds the swapped leaf, and where
// all parts are right it is the leaf itself.
func (s *search) swapped(walk *proof.Walk, h *proof.Header) *evidence.Divergence {
	from, to := uint64(0), h.BlTxID // the leaves of transactions from+1 … to
	for first := true; first || to > from+1; first = false {
		path, err := s.path(to, h)
		if err != nil {
			break
		}
		if first && s.newest(walk, to, path) {
			s.probeLeaf(to, h, false, span{})
			return s.leafRange(to-1, to)
		}
		parts := siblings(to-1, h.BlTxID)
		if len(parts) != len(path) {
			break
		}
		next, found := span{}, false
		for i, part := range parts {
			want, ok := s.rootOf(part)
			if !ok {
				return s.leafRange(from, to)
			}
			// The first that differs is looked for: parts before the leaf.
			if want != path[i] && part.first < to && (!found || part.first < next.first) {
				next, found = part, true
			}
		}
		s.probeLeaf(to, h, found, next)
		if !found {
			from = to - 1
			break
		}
		if next.first < from || next.first+next.count > to || next.count >= to-from {
			break // it contradicts the parts shown before
		}
		from, to = next.first, next.first+next.count
	}
	return s.leafRange(from, to)
}

// newest reports whether the audit path of the tree's last leaf holds all the
// leaves before it as walked: then it is that leaf which was swapped. This
// needs no mirror.
func (s *search) newest(walk *proof.Walk, leaf uint64, path []proof.Hash) bool {
	want, err := walk.Root(leaf - 1)
	if err != nil || len(path) == 0 && leaf > 1 {
		return false
	}
	if leaf == 1 {
		return len(path) == 0
	}
	got := path[0]
	for _, left := range path[1:] {
		got = proof.Hash(rfc6962.DefaultHasher.HashChildren(left[:], got[:]))
	}
	return got == want
}

func (s *search) leafRange(from, to uint64) *evidence.Divergence {
	return &evidence.Divergence{LastGoodTx: from, FirstBadTx: to}
}

// path gives the audit path of a leaf in the tree of a header, as the server
// shows it.
func (s *search) path(leaf uint64, h *proof.Header) ([]proof.Hash, error) {
	if len(s.probes) >= maxProbes {
		return nil, errNoAnswer
	}
	p, err := s.e.o.Server.DualProof(s.ctx, s.v.trust.Name.Database, leaf, h.ID)
	if err != nil {
		return nil, err
	}
	if leaf == h.BlTxID {
		return p.LastInclusion, nil
	}
	return p.Inclusion, nil
}

func (s *search) probeLeaf(leaf uint64, h *proof.Header, found bool, part span) {
	hash, ok := s.leafHash(leaf)
	if !ok {
		return
	}
	note := fmt.Sprintf("its audit path in the tree of transaction %d holds all other leaves as they were walked", h.ID)
	if found {
		note = fmt.Sprintf("its audit path in the tree of transaction %d does not hold transactions %d to %d as they were walked", h.ID, part.first+1, part.first+part.count)
	}
	s.probes = append(s.probes, evidence.Probe{Tx: leaf, Leaf: hash, Note: note})
}

// span is a range of leaves: first counts from 0.
type span struct{ first, count uint64 }

// siblings are the parts of a tree of size leaves that the audit path of leaf
// index holds, lowest first (RFC 6962 §2.1.1).
func siblings(index, size uint64) []span {
	var out []span
	for first := uint64(0); size > 1; {
		left := uint64(1) << (bits.Len64(size-1) - 1)
		if index < left {
			out = append(out, span{first + left, size - left})
			size = left
		} else {
			out = append(out, span{first, left})
			first, index, size = first+left, index-left, size-left
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// rootOf gives the root over a range of leaves as walked.
func (s *search) rootOf(r span) (proof.Hash, bool) {
	if r.count == 1 {
		return s.leafHash(r.first + 1)
	}
	if level := bits.TrailingZeros64(r.count); r.count == 1<<level && r.first%r.count == 0 {
		if root, ok := s.v.past.subtree(uint(level), r.first>>level); ok {
			return root, true
		}
	}
	// Beyond what is on disk: that is bounded by what waits and what was
	// walked for this search.
	if r.count > 2*maxPending && r.first >= s.v.past.reach() {
		return proof.Hash{}, false
	}
	left := uint64(1) << (bits.Len64(r.count-1) - 1)
	a, ok1 := s.rootOf(span{r.first, left})
	if !ok1 {
		return proof.Hash{}, false
	}
	b, ok2 := s.rootOf(span{r.first + left, r.count - left})
	if !ok2 {
		return proof.Hash{}, false
	}
	return proof.Hash(rfc6962.DefaultHasher.HashChildren(a[:], b[:])), true
}

// leafHash gives the leaf of a transaction that is remembered or was walked for
// this search.
func (s *search) leafHash(tx uint64) (proof.Hash, bool) {
	if first := s.v.walk.At().TxID + 1; tx >= first && tx-first < uint64(len(s.suffix)) {
		return proof.LeafHash(s.suffix[tx-first]), true
	}
	return s.v.leaf(tx)
}

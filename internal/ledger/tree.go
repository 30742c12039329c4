package ledger

import (
	"math/bits"
	"slices"
)

// tree is an append-only RFC 6962 Merkle tree that can answer for every size it
// ever had. levels[k][i] is the root of the complete subtree over the leaves
// i·2ᵏ … (i+1)·2ᵏ-1; those never change, so roots and proofs of any size cost
// O(log² n) hashes at most and nothing is kept per size.
type tree struct {
	levels [][][32]byte
}

func (t *tree) size() uint64 {
	if len(t.levels) == 0 {
		return 0
	}
	return uint64(len(t.levels[0]))
}

// appendLeaf takes the leaf's hash, H(00 || data).
func (t *tree) appendLeaf(leaf [32]byte) {
	h := leaf
	for k := 0; ; k++ {
		if k == len(t.levels) {
			t.levels = append(t.levels, nil)
		}
		t.levels[k] = append(t.levels[k], h)
		n := len(t.levels[k])
		if n%2 == 1 {
			return
		}
		h = nodeHash(t.levels[k][n-2], t.levels[k][n-1])
	}
}

// freeze returns a tree of the same leaves whose later growth, and that of t,
// do not show in each other. clip makes the new tree's next append copy: needed
// where t goes on growing too, as both would write into the same spare room.
func (t *tree) freeze(clip bool) tree {
	levels := slices.Clone(t.levels)
	if clip {
		for k := range levels {
			levels[k] = slices.Clip(levels[k])
		}
	}
	return tree{levels}
}

// setLeaf replaces the leaf at index i and all complete subtrees above it. The
// caller owns the levels alone.
func (t *tree) setLeaf(i uint64, leaf [32]byte) {
	t.levels[0][i] = leaf
	for k := 1; k < len(t.levels); k++ {
		i /= 2
		if i >= uint64(len(t.levels[k])) {
			return
		}
		t.levels[k][i] = nodeHash(t.levels[k-1][2*i], t.levels[k-1][2*i+1])
	}
}

// truncate keeps the first n leaves.
func (t *tree) truncate(n uint64) {
	for k := range t.levels {
		t.levels[k] = t.levels[k][:n>>k]
	}
	for len(t.levels) > 0 && len(t.levels[len(t.levels)-1]) == 0 {
		t.levels = t.levels[:len(t.levels)-1]
	}
}

// root is the root over the first n leaves.
func (t *tree) root(n uint64) [32]byte {
	if n == 0 {
		return emptyDigest
	}
	// From the right: the peaks of the complete subtrees, smallest first.
	k := bits.TrailingZeros64(n)
	h := t.levels[k][(n>>k)-1]
	for rest := n &^ (1 << k); rest != 0; rest &^= 1 << k {
		k = bits.TrailingZeros64(rest)
		h = nodeHash(t.levels[k][(rest>>k)-1], h)
	}
	return h
}

// span is the root over the leaves lo … hi-1, where lo is a multiple of the
// largest power of two below hi-lo, as it always is in RFC 6962's recursions.
func (t *tree) span(lo, hi uint64) [32]byte {
	n := hi - lo
	if n&(n-1) == 0 {
		k := bits.TrailingZeros64(n)
		return t.levels[k][lo>>k]
	}
	mid := lo + split(n)
	return nodeHash(t.span(lo, mid), t.span(mid, hi))
}

// split is the largest power of two less than n, n ≥ 2.
func split(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

// inclusion is the audit path of the leaf at index i in the tree over the first
// n leaves, lowest level first (RFC 6962 §2.1.1).
func (t *tree) inclusion(i, n uint64) [][32]byte {
	var path [][32]byte
	for lo, hi := uint64(0), n; hi-lo > 1; {
		mid := lo + split(hi-lo)
		if i < mid {
			path = append(path, t.span(mid, hi))
			hi = mid
		} else {
			path = append(path, t.span(lo, mid))
			lo = mid
		}
	}
	slices.Reverse(path)
	return path
}

// consistency is the proof that the tree over n leaves extends the one over m,
// 1 ≤ m ≤ n: RFC 6962 §2.1.2 with the two deviations of docs/protocol.md §3.
func (t *tree) consistency(m, n uint64) [][32]byte {
	if m == n {
		if m == 1 {
			return nil
		}
		mid := split(n)
		return [][32]byte{t.span(mid, n), t.span(0, mid)}
	}
	var path [][32]byte
	lo, hi := uint64(0), n
	for m != hi {
		mid := lo + split(hi-lo)
		if m <= mid {
			path = append(path, t.span(mid, hi))
			hi = mid
		} else {
			path = append(path, t.span(lo, mid))
			lo = mid
		}
	}
	// RFC 6962 leaves this node out where it is the whole old tree (m a power
	// of two), as the verifier has it; immudb sends it always.
	path = append(path, t.span(lo, hi))
	slices.Reverse(path)
	return path
}

package verify

import (
	"crypto/sha256"
	"math/bits"

	"immuaudit/proof"
)

// entryTree forms the root over the entries of one transaction after the other
// (docs/protocol.md §3) in the same memory. package proof has the same tree
// over any hasher; here it is most of the work beside the values themselves.
type entryTree struct {
	size  uint64
	peaks [64]proof.Hash // roots of the perfect subtrees, by level
}

func (t *entryTree) reset() { t.size = 0 }

// add appends an entry by its digest.
func (t *entryTree) add(digest proof.Hash) {
	node := proof.LeafHash(digest)
	level := 0
	for ; t.size>>level&1 == 1; level++ {
		node = nodeHash(&t.peaks[level], &node)
	}
	t.peaks[level] = node
	t.size++
}

// root is the root over what was added; of nothing, SHA-256 of nothing.
func (t *entryTree) root() proof.Hash {
	if t.size == 0 {
		return proof.EmptyAlh()
	}
	level := bits.TrailingZeros64(t.size)
	root := t.peaks[level]
	for left := t.size &^ (1 << level); left > 0; left &= left - 1 {
		root = nodeHash(&t.peaks[bits.TrailingZeros64(left)], &root)
	}
	return root
}

func nodeHash(left, right *proof.Hash) proof.Hash {
	var b [1 + 32 + 32]byte
	b[0] = 1
	copy(b[1:33], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

package proof

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"github.com/transparency-dev/merkle/compact"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// MaxPath is the longest audit path a tree can have: its leaves are numbered
// in 64 bits.
const MaxPath = 64

// LeafHash is the RFC 6962 leaf hash of a transaction, H(00 || Alh).
func LeafHash(alh Hash) Hash { return leafHash(&alh) }

func leafHash(data *Hash) Hash {
	var b [1 + 32]byte
	b[0] = rfc6962.RFC6962LeafHashPrefix
	copy(b[1:], data[:])
	return sha256.Sum256(b[:])
}

func nodeHash(left, right []byte) Hash {
	var b [1 + 32 + 32]byte
	b[0] = rfc6962.RFC6962NodeHashPrefix
	copy(b[1:33], left)
	copy(b[33:], right)
	return sha256.Sum256(b[:])
}

// nodeHasher hashes nodes for the RFC 6962 library without allocating: every
// result lands in the same place. That is sound because the library's
// verifiers and compact ranges feed a result only into the very next hash
// (which copies it first) or hand it out, where it is copied at once; see
// tree.append for the one result that outlives a call.
type nodeHasher struct{ out Hash }

func (h *nodeHasher) HashChildren(left, right []byte) []byte {
	h.out = nodeHash(left, right)
	return h.out[:]
}

func (h *nodeHasher) HashLeaf(leaf []byte) []byte { return rfc6962.DefaultHasher.HashLeaf(leaf) }
func (h *nodeHasher) EmptyRoot() []byte           { return rfc6962.DefaultHasher.EmptyRoot() }
func (h *nodeHasher) Size() int                   { return len(h.out) }

// tree is a growing RFC 6962 tree of which only the frontier is kept, the
// roots of its perfect subtrees. The zero value is the empty tree. It must
// not be copied.
type tree struct {
	hasher   nodeHasher
	factory  compact.RangeFactory
	frontier *compact.Range
	leaf     Hash
	nodes    [64]Hash // backing of the frontier's hashes, one a level
}

func (t *tree) size() uint64 {
	if t.frontier == nil {
		return 0
	}
	return t.frontier.End()
}

// restore makes t the tree of size leaves whose frontier, from the highest
// level down, is the given one.
func (t *tree) restore(size uint64, frontier []Hash) error {
	if need := bits.OnesCount64(size); len(frontier) != need {
		return fmt.Errorf("%d hashes where a tree of %d leaves needs %d", len(frontier), size, need)
	}
	for left, i := size, 0; left > 0; i++ {
		level := bits.Len64(left) - 1
		t.nodes[level] = frontier[i]
		left &^= 1 << level
	}
	t.stand(size)
	return nil
}

// set makes t a copy of from.
func (t *tree) set(from *tree) {
	t.nodes = from.nodes
	t.stand(from.size())
}

// stand makes t the tree of size leaves whose frontier is in nodes already.
func (t *tree) stand(size uint64) {
	t.factory.Hash = t.hasher.HashChildren
	hashes := make([][]byte, 0, len(t.nodes))
	for left := size; left > 0; {
		level := bits.Len64(left) - 1
		hashes = append(hashes, t.nodes[level][:])
		left &^= 1 << level
	}
	// The only thing that NewRange refuses is a number of hashes other than
	// that of the bits set in size.
	t.frontier, _ = t.factory.NewRange(0, size, hashes)
}

// hashes appends the frontier, from the highest level down, to dst.
func (t *tree) hashes(dst []Hash) []Hash {
	if t.frontier == nil {
		return dst
	}
	for _, h := range t.frontier.Hashes() {
		dst = append(dst, Hash(h))
	}
	return dst
}

// append adds a leaf by its leaf hash.
func (t *tree) append(leaf Hash) error {
	if t.frontier == nil {
		t.stand(0)
	}
	t.leaf = leaf
	if err := t.frontier.Append(t.leaf[:], nil); err != nil {
		return err
	}
	// The new node sits in the hasher's or the leaf's memory, which the next
	// call overwrites: give it the place of its level, free since the carry
	// ended there.
	hashes := t.frontier.Hashes()
	last := len(hashes) - 1
	slot := &t.nodes[bits.TrailingZeros64(t.frontier.End())]
	*slot = Hash(hashes[last])
	hashes[last] = slot[:]
	return nil
}

// root is the RFC 6962 root; of no leaves, SHA-256 of nothing.
func (t *tree) root() (Hash, error) {
	if t.size() == 0 {
		return EmptyAlh(), nil
	}
	r, err := t.frontier.GetRootHash(nil)
	if err != nil {
		return Hash{}, err
	}
	return Hash(r), nil
}

// pathLen is the length of the audit path of leaf index in a tree of size
// leaves, index < size (RFC 9162 §2.1.3). A path of any other length is
// invalid even where it hashes to the root.
func pathLen(index, size uint64) int {
	inner := bits.Len64(index ^ (size - 1))
	return inner + bits.OnesCount64(index>>inner)
}

// consistencyLen is the length of an immudb consistency proof between trees
// of 1 ≤ from ≤ to leaves. It is the RFC 9162 §2.1.4 length with immudb's two
// deviations (docs/protocol.md §3): a first node also where from is a power of
// two, and the root's two children where the sizes are equal.
func consistencyLen(from, to uint64) int {
	switch {
	case from == to && from == 1:
		return 0
	case from == to:
		return 2
	}
	return 1 + pathLen(from-1, to) - bits.TrailingZeros64(from)
}

// verifier holds what the library's verifiers need, in reusable memory.
type verifier struct {
	hasher       nodeHasher
	leaf         Hash
	root1, root2 Hash
	nodes        [MaxPath + 1][]byte
}

// verifiers spares the hot path its only allocation: whatever passes through
// the library's hasher interface cannot live on the stack.
var verifiers = sync.Pool{New: func() any { return new(verifier) }}

func (v *verifier) release() {
	clear(v.nodes[:]) // keep no caller's memory alive
	verifiers.Put(v)
}

func (v *verifier) list(path []Hash) [][]byte {
	for i := range path {
		v.nodes[i] = path[i][:]
	}
	return v.nodes[:len(path)]
}

// inclusion returns the root that path leads to from leaf number index+1 of
// a tree of size leaves. The path must have its exact length.
func (v *verifier) inclusion(index, size uint64, leaf Hash, path []Hash) (Hash, error) {
	if len(path) > MaxPath {
		return Hash{}, malformed("path", "%d nodes, at most %d", len(path), MaxPath)
	}
	v.leaf = leaf
	root, err := merkle.RootFromInclusionProof(&v.hasher, index, size, v.leaf[:], v.list(path))
	if err != nil {
		return Hash{}, err
	}
	return Hash(root), nil
}

// consistency checks that the tree (to, root2) extends (from, root1),
// 1 ≤ from ≤ to. The list must have its exact length. A contradiction is a
// *Mismatch without place.
func (v *verifier) consistency(from, to uint64, root1, root2 Hash, list []Hash) error {
	if len(list) > MaxPath+1 {
		return malformed("path", "%d nodes, at most %d", len(list), MaxPath+1)
	}
	if from == to {
		if root1 != root2 {
			return &Mismatch{Want: root1, Got: root2, Detail: "two roots for one tree size"}
		}
		if from == 1 {
			return nil
		}
		if got := nodeHash(list[1][:], list[0][:]); got != root1 {
			return &Mismatch{Want: root1, Got: got, Detail: "the root's children do not hash to it"}
		}
		return nil
	}
	if from&(from-1) == 0 {
		if list[0] != root1 {
			return &Mismatch{Want: root1, Got: list[0], Detail: "the first node is not the old root"}
		}
		list = list[1:]
	}
	v.root1, v.root2 = root1, root2
	err := merkle.VerifyConsistency(&v.hasher, from, to, v.list(list), v.root1[:], v.root2[:])
	if e, ok := errors.AsType[merkle.RootMismatchError](err); ok {
		return &Mismatch{Want: Hash(e.ExpectedRoot), Got: Hash(e.CalculatedRoot)}
	}
	return err
}

package mirror

import (
	"crypto/sha256"
	"fmt"
	"math/bits"

	"immuaudit/proof"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	hashSize   = sha256.Size
	tileBytes  = tileWidth * hashSize
	// levels is how many a tree of 2⁶³ leaves can have.
	levels = 64 / tileHeight
	// maxTx: ids of 2⁶³ and above are refused everywhere (docs/protocol.md §3).
	maxTx = 1<<63 - 1
)

// tile names the tile of a level in a tree of some size; width is how many
// hashes it holds there.
type tile struct {
	level int
	index uint64
	width int
}

func (t tile) full() bool { return t.width == tileWidth }

// path is "tile/<L>/<N>[.p/<W>]" as C2SP tlog-tiles has it: N in groups of
// three digits, all but the last marked with an x.
func (t tile) path() string {
	n := fmt.Sprintf("%03d", t.index%1000)
	for rest := t.index / 1000; rest > 0; rest /= 1000 {
		n = fmt.Sprintf("x%03d/%s", rest%1000, n)
	}
	if t.full() {
		return fmt.Sprintf("tile/%d/%s", t.level, n)
	}
	return fmt.Sprintf("tile/%d/%s.p/%d", t.level, n, t.width)
}

// first is how many transactions lie before those that the tile spans.
func (t tile) first() uint64 { return t.index << (tileHeight * (t.level + 1)) }

// last is the last transaction that the tile spans.
func (t tile) last() uint64 { return t.first() + uint64(t.width)<<(tileHeight*t.level) }

// hashesAt is how many hashes a level has in a tree of size leaves.
func hashesAt(level int, size uint64) uint64 { return size >> (tileHeight * level) }

// edge is the partial tile at the end of a level, of width 0 where there is none.
func edge(level int, size uint64) tile {
	n := hashesAt(level, size)
	return tile{level, n / tileWidth, int(n % tileWidth)}
}

// tileOf is the tile that holds hash number n of a level, which must have it.
func tileOf(level int, n, size uint64) tile {
	if t := edge(level, size); n/tileWidth == t.index {
		return t
	}
	return tile{level, n / tileWidth, tileWidth}
}

func leafHash(alh *proof.Hash) proof.Hash {
	var b [1 + hashSize]byte // the prefix of a leaf is 00
	copy(b[1:], alh[:])
	return sha256.Sum256(b[:])
}

func nodeHash(left, right []byte) proof.Hash {
	var b [1 + 2*hashSize]byte
	b[0] = 1
	copy(b[1:], left)
	copy(b[1+hashSize:], right)
	return sha256.Sum256(b[:])
}

// subtree is the root over the given hashes, a power of two of them and at
// most a tile.
func subtree(data []byte) proof.Hash {
	var level [tileBytes]byte
	n := copy(level[:], data)
	for ; n > hashSize; n /= 2 {
		for i := 0; i < n; i += 2 * hashSize {
			h := nodeHash(level[i:i+hashSize], level[i+hashSize:i+2*hashSize])
			copy(level[i/2:], h[:])
		}
	}
	return proof.Hash(level[:hashSize])
}

// appendFrontier appends the roots of the perfect subtrees that a partial
// tile is made of, the largest first.
func appendFrontier(dst []proof.Hash, data []byte) []proof.Hash {
	for n := len(data) / hashSize; n > 0; {
		size := 1 << (bits.Len(uint(n)) - 1)
		dst = append(dst, subtree(data[:size*hashSize]))
		data, n = data[size*hashSize:], n-size
	}
	return dst
}

// rootOf is the root of the tree that a frontier stands for, the largest
// subtree first; of nothing it is SHA-256 of nothing.
func rootOf(frontier []proof.Hash) proof.Hash {
	if len(frontier) == 0 {
		return proof.EmptyAlh()
	}
	root := frontier[len(frontier)-1]
	for i := len(frontier) - 2; i >= 0; i-- {
		root = nodeHash(frontier[i][:], root[:])
	}
	return root
}

package proof

import (
	"encoding/binary"
	"math/bits"
)

// A walk is stored as
//
//	u8 version (1) || u64 N || root || frontier || alhs
//
// root is the RFC 6962 root over the first N transactions, frontier the
// perfect subtrees of the first N−Window, from the highest level down, and
// alhs the Alhs of the transactions after them. Everything but root follows
// from the size, and root follows from the rest, so that there is exactly one
// encoding of a walk and a damaged one is noticed.
const walkVersion = 1

const walkHead = 1 + 8 + 32

// MarshalBinary encodes the walk; at most about 4 KiB.
func (w *Walk) MarshalBinary() ([]byte, error) {
	n := w.now.size()
	root, err := w.Root(n)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint64([]byte{walkVersion}, n)
	b = append(b, root[:]...)
	for _, h := range w.base.hashes(nil) {
		b = append(b, h[:]...)
	}
	for tx := w.base.size() + 1; tx <= n; tx++ {
		b = append(b, w.alhs[tx%Window][:]...)
	}
	return b, nil
}

// UnmarshalBinary restores a walk that MarshalBinary encoded. On an error,
// which is a *Malformed, w is unchanged. The encoding must come from where
// nobody else writes: whoever can make one up can make up a history.
func (w *Walk) UnmarshalBinary(b []byte) error {
	if len(b) < walkHead {
		return malformed("walk", "%d bytes, at least %d", len(b), walkHead)
	}
	if b[0] != walkVersion {
		return malformed("walk", "version %d is not known, only %d is", b[0], walkVersion)
	}
	n := binary.BigEndian.Uint64(b[1:9])
	if n > MaxTxID {
		return malformed("walk", "stands at transaction %d, beyond 2⁶³−1", n)
	}
	root := Hash(b[9:walkHead])
	recent := min(n, Window)
	nodes := bits.OnesCount64(n - recent)
	if want := walkHead + 32*(nodes+int(recent)); len(b) != want {
		return malformed("walk", "%d bytes where %d are needed at transaction %d", len(b), want, n)
	}
	rest := make([]Hash, nodes+int(recent))
	for i := range rest {
		rest[i] = Hash(b[walkHead+32*i : walkHead+32*(i+1)])
	}

	var r Walk
	for _, t := range [...]*tree{&r.now, &r.base} {
		if err := t.restore(n-recent, rest[:nodes]); err != nil {
			return malformed("walk", "%v", err)
		}
	}
	first, err := r.now.root()
	if err != nil {
		return malformed("walk", "%v", err)
	}
	r.roots[(n-recent)%(Window+1)] = first
	for _, alh := range rest[nodes:] {
		if err := r.record(alh); err != nil {
			return malformed("walk", "%v", err)
		}
	}
	if got, err := r.Root(n); err != nil || got != root {
		return malformed("walk", "its root is not the one over its transactions")
	}
	w.set(&r)
	return nil
}

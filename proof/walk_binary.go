package proof

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// A walk is stored as
//
//	u8 version (1) || u64 N || u8 window || frontier || alhs || sha256
//
// window is how many of the N transactions lie within the window (Window, or
// fewer where the walk began less far back), frontier the perfect subtrees
// over those before it, from the highest level down, alhs the Alhs of those
// within, and sha256 is over all that comes before it. The size follows from N
// and window, and nothing is stored that follows from the rest, so that there
// is exactly one encoding of a walk, and a damaged one is noticed.
const walkVersion = 1

const walkHead = 1 + 8 + 1

// MarshalBinary encodes the walk; at most about 4 KiB.
func (w *Walk) MarshalBinary() ([]byte, error) {
	n := w.now.size()
	b := binary.BigEndian.AppendUint64([]byte{walkVersion}, n)
	b = append(b, byte(n-w.base.size()))
	for _, h := range w.base.hashes(nil) {
		b = append(b, h[:]...)
	}
	for tx := w.base.size() + 1; tx <= n; tx++ {
		b = append(b, w.alhs[tx%Window][:]...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
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
	n, recent := binary.BigEndian.Uint64(b[1:9]), uint64(b[9])
	if n > MaxTxID {
		return malformed("walk", "stands at transaction %d, beyond 2⁶³−1", n)
	}
	// The Alh of the transaction it stands at is in the window.
	if recent > min(n, Window) || recent == 0 && n > 0 {
		return malformed("walk", "a window of %d of %d transactions", recent, n)
	}
	nodes := bits.OnesCount64(n - recent)
	if want := walkHead + 32*(nodes+int(recent)) + sha256.Size; len(b) != want {
		return malformed("walk", "%d bytes where %d are needed at transaction %d", len(b), want, n)
	}
	if body := b[:len(b)-sha256.Size]; sha256.Sum256(body) != Hash(b[len(body):]) {
		return malformed("walk", "damaged: its checksum is another")
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
	w.set(&r)
	return nil
}

package proof

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// Bounds of a header (docs/protocol.md §3).
const (
	MaxExtra = 256         // bytes of TxMetadata.Extra
	MaxTxID  = 1<<63 - 1   // transaction numbers are below 2⁶³
	maxV0    = 1<<16 - 1   // entries that a version 0 hash can count
	maxV1    = 1<<31 - 1   // entries that the wire's int32 can count
	alhSize  = 8 + 32 + 32 // id || prevAlh || inner
)

// EmptyAlh is the Alh of an empty database, and what transaction 1 names as
// the Alh before it: SHA-256 of nothing.
func EmptyAlh() Hash { return sha256.Sum256(nil) }

// Validate refuses a header that its hash would not fully cover, or that no
// honest server makes (docs/protocol.md §3). The error is a *Malformed.
func (h *Header) Validate() error {
	switch {
	case h == nil:
		return malformed("header", "is missing")
	case h.Version > 1:
		// An unknown version may hash fields that are not known here, so its
		// Alh cannot be computed.
		return malformed("version", "%d is not known, only 0 and 1 are", h.Version)
	case h.ID == 0 || h.ID > MaxTxID:
		return malformed("id", "%d is outside 1…2⁶³−1", h.ID)
	case h.BlTxID >= h.ID:
		// A tree cannot hold the transaction whose header carries its root.
		return malformed("blTxId", "%d is not below the transaction's own id %d", h.BlTxID, h.ID)
	case h.BlTxID == 0 && h.BlRoot != Hash{}:
		return malformed("blRoot", "is not zero although the tree is empty")
	case h.Version == 0 && h.NEntries > maxV0:
		// Version 0 hashes 16 bits of the count.
		return malformed("nentries", "%d is beyond the 65535 that version 0 can count", h.NEntries)
	case h.NEntries > maxV1:
		return malformed("nentries", "%d is beyond 2³¹−1", h.NEntries)
	case h.Version == 0 && (h.Metadata.TruncatedTxID != 0 || len(h.Metadata.Extra) != 0):
		// Version 0 does not hash metadata.
		return malformed("metadata", "is not part of version 0")
	case h.Metadata.TruncatedTxID > MaxTxID:
		return malformed("metadata.truncatedTxID", "%d is beyond 2⁶³−1", h.Metadata.TruncatedTxID)
	case len(h.Metadata.Extra) > MaxExtra:
		return malformed("metadata.extra", "%d bytes, at most %d", len(h.Metadata.Extra), MaxExtra)
	}
	return nil
}

// appendMetadata appends the bytes of m as they are hashed and exported:
// only what is set, in this order.
func (m *TxMetadata) appendMetadata(b []byte) []byte {
	if m.TruncatedTxID > 0 {
		b = binary.BigEndian.AppendUint64(append(b, 0), m.TruncatedTxID)
	}
	if len(m.Extra) > 0 {
		b = binary.BigEndian.AppendUint16(append(b, 1), uint16(len(m.Extra)&math.MaxUint16))
		b = append(b, m.Extra...)
	}
	return b
}

func (m *TxMetadata) size() int {
	n := 0
	if m.TruncatedTxID > 0 {
		n += 1 + 8
	}
	if len(m.Extra) > 0 {
		n += 1 + 2 + len(m.Extra)
	}
	return n
}

// Inner is the hash of everything in a header but its place in the chain; it
// is what a linear proof's terms are made of (docs/protocol.md §3). It is
// meaningful only for a header that Validate accepts.
func (h *Header) Inner() Hash {
	// Large enough for every valid header, so that it stays on the stack.
	var buf [8 + 2 + 2 + 9 + 3 + MaxExtra + 4 + 32 + 8 + 32]byte
	b := binary.BigEndian.AppendUint64(buf[:0], uint64(h.Ts))
	b = binary.BigEndian.AppendUint16(b, h.Version)
	if h.Version == 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(h.NEntries&math.MaxUint16))
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(h.Metadata.size()&math.MaxUint16))
		b = h.Metadata.appendMetadata(b)
		b = binary.BigEndian.AppendUint32(b, h.NEntries)
	}
	b = append(b, h.EH[:]...)
	b = binary.BigEndian.AppendUint64(b, h.BlTxID)
	b = append(b, h.BlRoot[:]...)
	return sha256.Sum256(b)
}

// Alh is the accumulative linear hash of the transaction: it stands for the
// whole history up to and with it. It is meaningful only for a header that
// Validate accepts.
func (h *Header) Alh() Hash {
	inner := h.Inner()
	return chain(h.ID, &h.PrevAlh, &inner)
}

// chain is one link of the linear chain: H(id || prevAlh || inner).
func chain(id uint64, prev, inner *Hash) Hash {
	var b [alhSize]byte
	binary.BigEndian.PutUint64(b[:8], id)
	copy(b[8:40], prev[:])
	copy(b[40:], inner[:])
	return sha256.Sum256(b[:])
}

package evidence

import (
	"encoding/binary"
	"errors"

	"immuaudit/proof"
)

// headerSize is the size of a version 0 header: the smallest.
const headerSize = 8 + 32 + 8 + 2 + 2 + 32 + 8 + 32

// appendHeader appends the bytes that a header's Alh is made of, in the order
// in which they are hashed (docs/protocol.md §3 and §6):
//
//	u64 id || prevAlh || u64 ts || u16 version || X || eH || u64 blTxId || blRoot
//	X, version 0: u16 nentries; version 1: u16 len(md) || md || u32 nentries
//
// so that Alh = H(first 40 bytes || H(all the others)). The header must be
// valid.
func appendHeader(b []byte, h *proof.Header) []byte {
	b = binary.BigEndian.AppendUint64(b, h.ID)
	b = append(b, h.PrevAlh[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Ts))
	b = binary.BigEndian.AppendUint16(b, h.Version)
	if h.Version == 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(h.NEntries))
	} else {
		var md []byte
		if h.Metadata.TruncatedTxID > 0 {
			md = binary.BigEndian.AppendUint64(append(md, 0), h.Metadata.TruncatedTxID)
		}
		if len(h.Metadata.Extra) > 0 {
			md = binary.BigEndian.AppendUint16(append(md, 1), uint16(len(h.Metadata.Extra)))
			md = append(md, h.Metadata.Extra...)
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(md)))
		b = append(b, md...)
		b = binary.BigEndian.AppendUint32(b, h.NEntries)
	}
	b = append(b, h.EH[:]...)
	b = binary.BigEndian.AppendUint64(b, h.BlTxID)
	return append(b, h.BlRoot[:]...)
}

var errHeader = errors.New("is not a transaction header in the layout that is hashed")

// parseHeader reads what appendHeader writes and nothing else: one header has
// one form.
func parseHeader(b []byte) (proof.Header, error) {
	var h proof.Header
	if len(b) < headerSize {
		return h, errHeader
	}
	h.ID = binary.BigEndian.Uint64(b)
	h.PrevAlh = proof.Hash(b[8:40])
	h.Ts = int64(binary.BigEndian.Uint64(b[40:]))
	h.Version = binary.BigEndian.Uint16(b[48:])
	middle, tail := b[50:len(b)-72], b[len(b)-72:]
	switch {
	case h.Version == 0 && len(middle) == 2:
		h.NEntries = uint32(binary.BigEndian.Uint16(middle))
	case h.Version == 1 && len(middle) >= 6 && int(binary.BigEndian.Uint16(middle)) == len(middle)-6:
		h.NEntries = binary.BigEndian.Uint32(middle[len(middle)-4:])
		if !parseMetadata(middle[2:len(middle)-4], &h.Metadata) {
			return h, errHeader
		}
	default:
		return h, errHeader
	}
	h.EH = proof.Hash(tail[:32])
	h.BlTxID = binary.BigEndian.Uint64(tail[32:])
	h.BlRoot = proof.Hash(tail[40:])
	return h, h.Validate()
}

// parseMetadata: what is set and nothing else, in this order.
func parseMetadata(b []byte, md *proof.TxMetadata) bool {
	if len(b) >= 9 && b[0] == 0 {
		if md.TruncatedTxID = binary.BigEndian.Uint64(b[1:]); md.TruncatedTxID == 0 {
			return false
		}
		b = b[9:]
	}
	if len(b) > 3 && b[0] == 1 {
		if int(binary.BigEndian.Uint16(b[1:])) != len(b)-3 {
			return false
		}
		md.Extra = append([]byte(nil), b[3:]...)
		b = nil
	}
	return len(b) == 0
}

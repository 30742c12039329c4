package ledger

import (
	"errors"
	"hash/crc32"
)

// The payload of a log record is the transaction exactly as stored, damage
// included, and the Alh that stands for it in the tree:
//
//	header: u64 id || prevAlh || u64 ts || u16 version || u32 nentries ||
//	        u64 truncatedTxID || u32 len || extra || eH || u64 blTxId || blRoot
//	alh || leaf || u32 entries, each
//	        u32 len || key || flags || u64 expiresAt || hValue || u32 len || value
const (
	flagDeleted = 1 << iota
	flagNonIndexable
	flagGone
)

func appendRecord(b []byte, tx *StoredTx, leaf [32]byte) []byte {
	start := len(b)
	b = append(b, make([]byte, 8)...)
	h := &tx.Header
	b = be.AppendUint64(b, h.ID)
	b = append(b, h.PrevAlh[:]...)
	b = be.AppendUint64(b, uint64(h.Ts))
	b = be.AppendUint16(b, h.Version)
	b = be.AppendUint32(b, h.NEntries)
	b = be.AppendUint64(b, h.Metadata.TruncatedTxID)
	b = appendBytes(b, h.Metadata.Extra)
	b = append(b, h.EH[:]...)
	b = be.AppendUint64(b, h.BlTxID)
	b = append(b, h.BlRoot[:]...)
	b = append(b, tx.Alh[:]...)
	b = append(b, leaf[:]...)
	b = be.AppendUint32(b, uint32(len(tx.Entries)))
	for i := range tx.Entries {
		e := &tx.Entries[i]
		b = appendBytes(b, e.Key)
		var flags byte
		if e.Metadata.Deleted {
			flags |= flagDeleted
		}
		if e.Metadata.NonIndexable {
			flags |= flagNonIndexable
		}
		if e.Gone {
			flags |= flagGone
		}
		b = append(b, flags)
		b = be.AppendUint64(b, uint64(e.Metadata.ExpiresAt))
		b = append(b, e.HValue[:]...)
		b = appendBytes(b, e.Value)
	}
	payload := b[start+8:]
	be.PutUint32(b[start:], uint32(len(payload)))
	be.PutUint32(b[start+4:], crc32.Checksum(payload, castagnoli))
	return b
}

func appendBytes(b, data []byte) []byte {
	return append(be.AppendUint32(b, uint32(len(data))), data...)
}

// decodeTx owns payload: what it returns points into it.
func decodeTx(payload []byte) (*StoredTx, [32]byte, error) {
	r := reader{rest: payload}
	var tx StoredTx
	h := &tx.Header
	h.ID = r.u64()
	h.PrevAlh = r.digest()
	h.Ts = int64(r.u64())
	h.Version = uint16(r.uint(2))
	h.NEntries = r.u32()
	h.Metadata.TruncatedTxID = r.u64()
	h.Metadata.Extra = r.bytes()
	h.EH = r.digest()
	h.BlTxID = r.u64()
	h.BlRoot = r.digest()
	tx.Alh = r.digest()
	leaf := r.digest()
	n := r.u32()
	for i := uint32(0); i < n && !r.failed; i++ {
		var e StoredEntry
		e.Key = r.bytes()
		flags := byte(r.uint(1))
		e.Metadata.Deleted = flags&flagDeleted != 0
		e.Metadata.NonIndexable = flags&flagNonIndexable != 0
		e.Gone = flags&flagGone != 0
		e.Metadata.ExpiresAt = int64(r.u64())
		e.HValue = r.digest()
		e.Value = r.bytes()
		tx.Entries = append(tx.Entries, e)
	}
	if r.failed || len(r.rest) > 0 {
		return nil, leaf, errors.New("record of another shape than its checksum promises")
	}
	return &tx, leaf, nil
}

// reader takes a payload apart; after the first shortage everything is zero.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint(n int) (v uint64) {
	for _, c := range r.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) u64() uint64 { return r.uint(8) }
func (r *reader) u32() uint32 { return uint32(r.uint(4)) }

func (r *reader) bytes() []byte {
	n := r.u32()
	if n == 0 || r.failed || uint64(n) > uint64(len(r.rest)) {
		r.failed = r.failed || n != 0
		return nil
	}
	return r.take(int(n))
}

func (r *reader) digest() (h [32]byte) {
	copy(h[:], r.take(32))
	return h
}

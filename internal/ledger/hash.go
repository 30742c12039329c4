package ledger

import (
	"crypto/sha256"
	"encoding/binary"
)

// The hashes of docs/protocol.md §3. All integers are big-endian.

// emptyDigest is H(""): prevAlh of the first transaction, the state of an empty
// database and the root of an entry tree without entries.
var emptyDigest = sha256.Sum256(nil)

var be = binary.BigEndian

// HashValue is the digest an entry commits to, of the stored value with its prefix.
func HashValue(value []byte) [32]byte { return sha256.Sum256(value) }

// appendBinary appends the metadata as hashed, exported and stored.
func (m EntryMetadata) appendBinary(b []byte) []byte {
	if m.Deleted {
		b = append(b, 0)
	}
	if m.ExpiresAt != 0 {
		b = append(b, 1)
		b = be.AppendUint64(b, uint64(m.ExpiresAt))
	}
	if m.NonIndexable {
		b = append(b, 2)
	}
	return b
}

func (m TxMetadata) appendBinary(b []byte) []byte {
	if m.TruncatedTxID > 0 {
		b = append(b, 0)
		b = be.AppendUint64(b, m.TruncatedTxID)
	}
	if len(m.Extra) > 0 {
		b = append(b, 1)
		b = be.AppendUint16(b, uint16(len(m.Extra)))
		b = append(b, m.Extra...)
	}
	return b
}

// Digest is the entry digest under a header of the given version.
func (e *StoredEntry) Digest(version uint16) [32]byte {
	buf := make([]byte, 0, 160)
	if version == 1 {
		at := len(buf)
		buf = append(buf, 0, 0)
		buf = e.Metadata.appendBinary(buf)
		be.PutUint16(buf[at:], uint16(len(buf)-at-2))
		buf = be.AppendUint16(buf, uint16(len(e.Key)))
	}
	buf = append(buf, e.Key...)
	buf = append(buf, e.HValue[:]...)
	return sha256.Sum256(buf)
}

// entryTree is the RFC 6962 tree over a transaction's entries.
func entryTree(entries []StoredEntry, version uint16) *tree {
	t := &tree{}
	for i := range entries {
		d := entries[i].Digest(version)
		t.appendLeaf(leafHash(d[:]))
	}
	return t
}

// EntriesRoot is eH, the root of the entry tree.
func EntriesRoot(entries []StoredEntry, version uint16) [32]byte {
	if len(entries) == 1 {
		d := entries[0].Digest(version)
		return leafHash(d[:])
	}
	return entryTree(entries, version).root(uint64(len(entries)))
}

// Inner is the part of a transaction's hash that covers everything but its
// place in the chain; it is also the term of the transaction in a linear proof.
func (h *Header) Inner() [32]byte {
	buf := make([]byte, 0, 128)
	buf = be.AppendUint64(buf, uint64(h.Ts))
	buf = be.AppendUint16(buf, h.Version)
	buf = h.appendCounts(buf)
	buf = append(buf, h.EH[:]...)
	buf = be.AppendUint64(buf, h.BlTxID)
	buf = append(buf, h.BlRoot[:]...)
	return sha256.Sum256(buf)
}

// appendCounts appends the part between version and eH, which differs by version.
func (h *Header) appendCounts(buf []byte) []byte {
	if h.Version == 0 {
		return be.AppendUint16(buf, uint16(h.NEntries))
	}
	at := len(buf)
	buf = append(buf, 0, 0)
	buf = h.Metadata.appendBinary(buf)
	be.PutUint16(buf[at:], uint16(len(buf)-at-2))
	return be.AppendUint32(buf, h.NEntries)
}

// Alh is the accumulative linear hash that follows from the header.
func (h *Header) Alh() [32]byte {
	return chain(h.ID, h.PrevAlh, h.Inner())
}

func chain(id uint64, prev, inner [32]byte) [32]byte {
	var buf [72]byte
	be.PutUint64(buf[:], id)
	copy(buf[8:], prev[:])
	copy(buf[40:], inner[:])
	return sha256.Sum256(buf[:])
}

// stateDigest is what a server signs, docs/protocol.md §5.
func stateDigest(db string, txID uint64, alh [32]byte) [32]byte {
	buf := make([]byte, 0, 4+len(db)+40)
	buf = be.AppendUint32(buf, uint32(len(db)))
	buf = append(buf, db...)
	buf = be.AppendUint64(buf, txID)
	buf = append(buf, alh[:]...)
	return sha256.Sum256(buf)
}

func leafHash(data []byte) [32]byte {
	var small [33]byte
	if len(data) == 32 {
		copy(small[1:], data)
		return sha256.Sum256(small[:])
	}
	return sha256.Sum256(append([]byte{0}, data...))
}

func nodeHash(left, right [32]byte) [32]byte {
	var buf [65]byte
	buf[0] = 1
	copy(buf[1:], left[:])
	copy(buf[33:], right[:])
	return sha256.Sum256(buf[:])
}

package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// Prefixes of stored keys and values, docs/protocol.md §2.
const (
	PrefixKV       = 0 // key/value and reference entries
	PrefixZSet     = 1
	PrefixSQL      = 2
	PrefixDocument = 3

	valuePlain     = 0
	valueReference = 1
)

// EntryMetadata is the metadata of one entry; headers of version 0 cannot carry it.
type EntryMetadata struct {
	Deleted      bool
	ExpiresAt    int64 // unix seconds; 0: never
	NonIndexable bool
}

// TxMetadata is the metadata of a header of version 1.
type TxMetadata struct {
	TruncatedTxID uint64
	Extra         []byte // at most 256 bytes
}

func (m TxMetadata) isZero() bool { return m.TruncatedTxID == 0 && len(m.Extra) == 0 }

// Header is a stored transaction header.
type Header struct {
	ID       uint64
	PrevAlh  [32]byte
	Ts       int64 // unix seconds
	Version  uint16
	NEntries uint32
	Metadata TxMetadata
	EH       [32]byte
	BlTxID   uint64
	BlRoot   [32]byte
}

// StoredEntry is an entry as the ledger keeps it, prefixes included.
type StoredEntry struct {
	Key      []byte
	Metadata EntryMetadata
	HValue   [32]byte // what the entry commits to
	Value    []byte   // what is stored; differs from HValue only where damaged
	Gone     bool     // the value's bytes were removed
}

// StoredTx is a transaction as the ledger keeps it. Alh is stored, not
// computed on demand, so that tampering can make header and hash disagree.
type StoredTx struct {
	Header  Header
	Alh     [32]byte
	Entries []StoredEntry
}

// Entry is an entry to commit.
type Entry struct {
	Key      []byte
	Value    []byte
	Metadata EntryMetadata
	// Raw takes Key and Value as stored; otherwise they get the prefixes of a
	// plain key/value entry.
	Raw bool
}

// Tx is a transaction to commit. One without entries is possible.
type Tx struct {
	Entries  []Entry
	Metadata TxMetadata
	// HeaderVersion overrides the database's.
	HeaderVersion *int
	// Ts, in unix seconds, overrides the clock.
	Ts int64
}

// ReferenceEntry makes key an alias of target: as of transaction atTx, or of
// the newest where that is 0.
func ReferenceEntry(key, target []byte, atTx uint64) Entry {
	v := binary.BigEndian.AppendUint64([]byte{valueReference}, atTx)
	v = append(v, PrefixKV)
	return Entry{Key: prefixed(PrefixKV, key), Value: append(v, target...), Raw: true}
}

// ZSetEntry adds key to a sorted set.
func ZSetEntry(set, key []byte, score float64, atTx uint64) Entry {
	k := be.AppendUint64([]byte{PrefixZSet}, uint64(len(set)))
	k = append(k, set...)
	k = be.AppendUint64(k, math.Float64bits(score))
	k = be.AppendUint64(k, uint64(len(key)+1))
	k = append(k, PrefixKV)
	k = append(k, key...)
	return Entry{Key: be.AppendUint64(k, atTx), Raw: true}
}

func prefixed(prefix byte, b []byte) []byte {
	out := make([]byte, 1+len(b))
	out[0] = prefix
	copy(out[1:], b)
	return out
}

// isTombstone reports whether the entry deletes its key. Headers of version 0
// have no metadata to say so; there, a stored value without even its prefix,
// which no Set can write, says it.
func (e *StoredEntry) isTombstone(version uint16) bool {
	return e.Metadata.Deleted ||
		version == 0 && len(e.Value) == 0 && e.HValue == emptyDigest && e.prefix() == PrefixKV
}

func (e *StoredEntry) prefix() byte {
	if len(e.Key) == 0 {
		return PrefixKV
	}
	return e.Key[0]
}

func (e *StoredEntry) expired(now int64) bool {
	return e.Metadata.ExpiresAt != 0 && e.Metadata.ExpiresAt <= now
}

// readValue is the stored value, checked as a server checks it.
func (e *StoredEntry) readValue() ([]byte, error) {
	if e.missing() {
		return nil, errValueGone
	}
	if sha256.Sum256(e.Value) != e.HValue {
		return nil, errValueDamaged
	}
	return e.Value, nil
}

// missing reports whether the value had bytes and has none now.
func (e *StoredEntry) missing() bool { return e.Gone && e.HValue != emptyDigest }

// view is one state of a database's content. Views are immutable: whoever has
// one reads it without locks, whatever is committed, restored or tampered with
// meanwhile.
type view struct {
	txs  []*StoredTx
	tree tree
	// swapped holds, for tree leaves that were tampered with, the Alh the leaf
	// stands for; the tree itself has only hashes. Never changed in place.
	swapped map[uint64][32]byte
	// generation changes whenever content was replaced rather than appended.
	generation uint64
}

func (v *view) last() uint64 { return uint64(len(v.txs)) }

// tx is transaction id; the caller checked 1 ≤ id ≤ last.
func (v *view) tx(id uint64) *StoredTx { return v.txs[id-1] }

func (v *view) state() (uint64, [32]byte) {
	if len(v.txs) == 0 {
		return 0, emptyDigest
	}
	return v.last(), v.txs[len(v.txs)-1].Alh
}

// append adds a transaction and its leaf.
func (v *view) append(tx *StoredTx) {
	v.txs = append(v.txs, tx)
	v.tree.appendLeaf(leafHash(tx.Alh[:]))
}

// freeze returns an independent view of the same content; see tree.freeze.
func (v *view) freeze(clip bool) view {
	f := view{txs: v.txs, tree: v.tree.freeze(clip), swapped: v.swapped, generation: v.generation}
	if clip {
		f.txs = f.txs[:len(f.txs):len(f.txs)]
	}
	return f
}

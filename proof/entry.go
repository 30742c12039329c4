package proof

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// Validate refuses an entry that the digest of the given header version
// would not fully cover. The error is a *Malformed.
func (e *Entry) Validate(version uint16) error {
	switch {
	case e == nil:
		return malformed("entry", "is missing")
	case version > 1:
		return malformed("version", "%d is not known, only 0 and 1 are", version)
	case len(e.Key) == 0:
		// Every key carries a one-byte prefix.
		return malformed("key", "is empty")
	case len(e.Key) > math.MaxUint16:
		return malformed("key", "%d bytes, at most 65535", len(e.Key))
	case version == 0 && e.Metadata != EntryMetadata{}:
		// Version 0 does not hash metadata.
		return malformed("metadata", "is not part of version 0")
	}
	return nil
}

// appendMetadata appends the bytes of m as they are hashed and exported:
// only what is set, in this order.
func (m *EntryMetadata) appendMetadata(b []byte) []byte {
	if m.Deleted {
		b = append(b, 0)
	}
	if m.HasExpiry {
		b = binary.BigEndian.AppendUint64(append(b, 1), uint64(m.ExpiresAt))
	}
	if m.NonIndexable {
		b = append(b, 2)
	}
	return b
}

// EntryDigest is what the entry tree of a header of the given version holds
// for e (docs/protocol.md §3). An error is a *Malformed.
func EntryDigest(version uint16, e *Entry) (Hash, error) {
	if err := e.Validate(version); err != nil {
		return Hash{}, err
	}
	// Keys are short as a rule; a long one costs an allocation.
	var buf [2 + 11 + 2 + 256 + 32]byte
	b := buf[:0]
	if version == 1 {
		var md [11]byte
		m := e.Metadata.appendMetadata(md[:0])
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
		b = append(b, m...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(e.Key)))
	}
	b = append(b, e.Key...)
	b = append(b, e.HValue[:]...)
	return sha256.Sum256(b), nil
}

// EntryTree forms the entry tree's root (eH) from entry digests, one after
// the other, in constant memory. The zero value is the empty tree. It must
// not be copied.
type EntryTree struct{ tree tree }

// Add appends the digest of the next entry.
func (t *EntryTree) Add(digest Hash) error { return t.tree.append(leafHash(&digest)) }

// Size is the number of entries added.
func (t *EntryTree) Size() uint64 { return t.tree.size() }

// Root is the root over the entries added so far; SHA-256 of nothing for none.
func (t *EntryTree) Root() (Hash, error) { return t.tree.root() }

// VerifyEntries checks that entries are all those of the transaction, in
// order: as many as the header counts, and hashing to its eH. The header must
// be trusted by its Alh.
func VerifyEntries(h *Header, entries []Entry) error {
	if err := h.Validate(); err != nil {
		return inside("header", err)
	}
	var t EntryTree
	for i := range entries {
		digest, err := EntryDigest(h.Version, &entries[i])
		if err != nil {
			return inside(fmt.Sprintf("entries[%d]", i), err)
		}
		if err := t.Add(digest); err != nil {
			return fmt.Errorf("adding entry %d to the entry tree: %w", i, err)
		}
	}
	got, err := t.Root()
	if err != nil {
		return fmt.Errorf("forming the entry tree's root: %w", err)
	}
	// The count is part of the header's hash of its own, so it must agree
	// even where the root does.
	if uint64(len(entries)) != uint64(h.NEntries) {
		return &Mismatch{Check: CheckEntryTree, Tx: h.ID, Want: h.EH, Got: got,
			Detail: fmt.Sprintf("%d entries where the header counts %d", len(entries), h.NEntries)}
	}
	if got != h.EH {
		return &Mismatch{Check: CheckEntryTree, Tx: h.ID, Want: h.EH, Got: got}
	}
	return nil
}

// VerifyEntryInclusion checks that e is entry number index (from 0) of the
// transaction. The header must be trusted by its Alh; width is the number of
// entries that the answer speaks of, path its audit path, lowest first.
func VerifyEntryInclusion(h *Header, e *Entry, index, width uint64, path []Hash) error {
	if err := h.Validate(); err != nil {
		return inside("header", err)
	}
	if width != uint64(h.NEntries) {
		return malformed("inclusionProof.width", "%d where the header counts %d entries", width, h.NEntries)
	}
	if index >= width {
		return malformed("inclusionProof.leaf", "%d is not below the width %d", index, width)
	}
	digest, err := EntryDigest(h.Version, e)
	if err != nil {
		return inside("entry", err)
	}
	need := pathLen(index, width)
	if len(path) > need {
		return malformed("inclusionProof.terms", "%d nodes where %d are needed", len(path), need)
	}
	if len(path) < need {
		return &Unproven{Check: CheckEntryInclusion, Need: NeedComplete, From: h.ID, To: h.ID,
			Detail: fmt.Sprintf("%d nodes where %d are needed", len(path), need)}
	}
	v := verifiers.Get().(*verifier)
	defer v.release()
	got, err := v.inclusion(index, width, leafHash(&digest), path)
	if err != nil {
		return fmt.Errorf("following the entry's audit path: %w", err)
	}
	if got != h.EH {
		return &Mismatch{Check: CheckEntryInclusion, Tx: h.ID, Want: h.EH, Got: got}
	}
	return nil
}

// VerifyValue checks that value, with its one-byte prefix as stored, is the
// one that e commits to. e must be bound to a header by VerifyEntries or
// VerifyEntryInclusion.
func VerifyValue(e *Entry, value []byte) error {
	if e == nil {
		return malformed("entry", "is missing")
	}
	if got := Hash(sha256.Sum256(value)); got != e.HValue {
		return &Mismatch{Check: CheckValue, Want: e.HValue, Got: got, Detail: fmt.Sprintf("key %x", e.Key)}
	}
	return nil
}

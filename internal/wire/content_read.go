package wire

import (
	"errors"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"immuaudit/proof"
)

// Listed transactions are read straight from the encoded answer, without
// messages in between: every value would be copied into one, and every field
// allocated. What is accepted is what protobuf accepts, less messages that come
// twice where one belongs.

// lister reads listed transactions one after the other into the same memory.
type lister struct {
	header  proof.Header
	entries []proof.ExportedEntry
}

var listers = sync.Pool{New: func() any { return new(lister) }}

// keptEntries bounds what a lister holds when it is not in use.
const keptEntries = 1 << 14

func (l *lister) release() {
	clear(l.entries[:cap(l.entries)]) // keep no answer's memory alive
	if l.header = (proof.Header{}); cap(l.entries) > keptEntries {
		l.entries = nil
	}
	listers.Put(l)
}

// The kinds of fields, as in the low bits of their tags.
const (
	varintField = uint64(protowire.VarintType)
	bytesField  = uint64(protowire.BytesType)
)

// fields takes an encoded message apart, field by field.
type fields struct {
	rest []byte
	err  error

	// The newest field: its tag, number<<3 | kind, and its content.
	tag    uint64
	varint uint64
	bytes  []byte
}

var errTag = errors.New("a field with an impossible number")

// next takes the next field off; fields of kinds that no message here has are
// skipped.
func (f *fields) next() bool {
	for len(f.rest) > 0 && f.err == nil {
		n := 1
		if f.tag = uint64(f.rest[0]); f.tag >= 0x80 {
			f.tag, n = protowire.ConsumeVarint(f.rest)
		}
		if n < 0 {
			f.err = protowire.ParseError(n)
			return false
		}
		number := f.tag >> 3
		if number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
			f.err = errTag
			return false
		}
		f.rest = f.rest[n:]
		switch kind := f.tag & 7; kind {
		case varintField:
			f.varint, n = protowire.ConsumeVarint(f.rest)
		case bytesField:
			f.bytes, n = protowire.ConsumeBytes(f.rest)
		default:
			n = protowire.ConsumeFieldValue(protowire.Number(number), protowire.Type(kind), f.rest)
		}
		if n < 0 {
			f.err = protowire.ParseError(n)
			return false
		}
		f.rest = f.rest[n:]
		if kind := f.tag & 7; kind == varintField || kind == bytesField {
			return true
		}
	}
	return false
}

// hash reads the newest field as a digest.
func (f *fields) hash(what string, into *proof.Hash) {
	if len(f.bytes) != len(into) {
		f.err = refuse(what, "%d bytes, a digest has %d", len(f.bytes), len(into))
		return
	}
	*into = proof.Hash(f.bytes)
}

// once notes a message that may come one time only.
func (f *fields) once(what string, seen *bool) {
	if *seen {
		f.err = refuse(what, "comes twice")
	}
	*seen = true
}

// transaction reads a Tx. Beside what no honest server sends it refuses only
// what no hash would cover.
func (l *lister) transaction(text []byte) error {
	l.header, l.entries = proof.Header{}, l.entries[:0]
	var hasHeader bool
	f := fields{rest: text}
	for f.next() {
		switch f.tag {
		case 1<<3 | bytesField:
			f.once("header", &hasHeader)
			if err := readHeader(f.bytes, &l.header); err != nil {
				return within("header", err)
			}
		case 2<<3 | bytesField:
			if len(l.entries) == maxElements {
				return refuse("entries", "more than %d of them", maxElements)
			}
			l.entries = append(l.entries, proof.ExportedEntry{})
			if err := readEntry(f.bytes, &l.entries[len(l.entries)-1]); err != nil {
				return within("entries", err)
			}
		}
	}
	if f.err != nil {
		return f.err
	}
	if !hasHeader {
		return refuse("header", "is missing")
	}
	if err := l.header.Validate(); err != nil {
		return within("header", err)
	}
	for i := range l.entries {
		if err := l.entries[i].Validate(l.header.Version); err != nil {
			return within("entries", err)
		}
	}
	return nil
}

// readHeader reads a TxHeader; whether it is valid is for the caller.
func readHeader(text []byte, h *proof.Header) error {
	var hasMetadata bool
	var digests int
	f := fields{rest: text}
	for f.next() {
		switch f.tag {
		case 1<<3 | varintField:
			h.ID = f.varint
		case 2<<3 | bytesField:
			f.hash("prevAlh", &h.PrevAlh)
			digests |= 1
		case 3<<3 | varintField:
			h.Ts = int64(f.varint)
		case 4<<3 | varintField:
			// The wire's types are wider than the hashed ones, and so is this
			// encoding than they: nothing may be cut off unseen.
			if n := int32(f.varint); n < 0 {
				return refuse("nentries", "%d is negative", n)
			}
			h.NEntries = uint32(int32(f.varint))
		case 5<<3 | bytesField:
			f.hash("eH", &h.EH)
			digests |= 2
		case 6<<3 | varintField:
			h.BlTxID = f.varint
		case 7<<3 | bytesField:
			f.hash("blRoot", &h.BlRoot)
			digests |= 4
		case 8<<3 | varintField:
			if v := int32(f.varint); v < 0 || v > 1 {
				return refuse("version", "%d is not known, only 0 and 1 are", v)
			}
			h.Version = uint16(int32(f.varint))
		case 9<<3 | bytesField:
			f.once("metadata", &hasMetadata)
			if err := readTxMetadata(f.bytes, &h.Metadata); err != nil {
				return err
			}
		}
	}
	if f.err == nil && digests != 7 {
		return refuse("prevAlh, eH or blRoot", "is missing")
	}
	return f.err
}

func readTxMetadata(text []byte, m *proof.TxMetadata) error {
	f := fields{rest: text}
	for f.next() {
		switch f.tag {
		case 1<<3 | varintField:
			m.TruncatedTxID = f.varint
		case 2<<3 | bytesField:
			m.Extra = f.bytes
		}
	}
	return f.err
}

// readEntry reads a TxEntry. It leaves vLen out: no hash covers it, and 1.0 and
// 1.1 have it where metadata is now.
func readEntry(text []byte, e *proof.ExportedEntry) error {
	var hasMetadata, hasHValue bool
	f := fields{rest: text}
	for f.next() {
		switch f.tag {
		case 1<<3 | bytesField:
			e.Key = f.bytes
		case 2<<3 | bytesField:
			f.hash("hValue", &e.HValue)
			hasHValue = true
		case 4<<3 | bytesField:
			f.once("metadata", &hasMetadata)
			if err := readEntryMetadata(f.bytes, &e.Metadata); err != nil {
				return within("metadata", err)
			}
		case 5<<3 | bytesField:
			e.Value = f.bytes
		}
	}
	if f.err == nil && !hasHValue {
		return refuse("hValue", "is missing")
	}
	return f.err
}

func readEntryMetadata(text []byte, m *proof.EntryMetadata) error {
	f := fields{rest: text}
	for f.next() {
		switch f.tag {
		case 1<<3 | varintField:
			m.Deleted = f.varint != 0
		case 2<<3 | bytesField:
			f.once("expiration", &m.HasExpiry)
			inner := fields{rest: f.bytes}
			for inner.next() {
				if inner.tag == 1<<3|varintField {
					m.ExpiresAt = int64(inner.varint)
				}
			}
			if inner.err != nil {
				return inner.err
			}
		case 3<<3 | varintField:
			m.NonIndexable = f.varint != 0
		}
	}
	return f.err
}

package proof

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// Framing is how an exported transaction frames its entries.
type Framing uint8

// The framings (docs/protocol.md §6).
const (
	// FramingMetadata: u16 key || u16 metadata || u32 value; servers from 1.2.
	FramingMetadata Framing = iota
	// FramingPlain: both u32 lengths first, no metadata; servers 1.0 and 1.1.
	FramingPlain
)

// Export is one transaction as exportTx gives it.
type Export struct {
	Header  Header
	Entries []ExportedEntry
	Framing Framing
	// Trailer tells whether the payload ends with the truncation mark that
	// servers from 1.5 write.
	Trailer bool
	// Truncated: retention has removed the values; only their digests are here.
	Truncated bool
}

// ExportedEntry is an entry with its value.
type ExportedEntry struct {
	Entry        // HValue is the digest of Value, or the one sent in its place
	Value []byte // nil where Export.Truncated
}

// ParseExport reads the payload of one exported transaction (docs/protocol.md
// §6): the reassembled chunks without the leading u64 length. It accepts
// exactly what AppendExport writes. The result refers to payload's memory. An
// error is a *Malformed. Verify the header by its Alh, then the entries with
// VerifyEntries.
func ParseExport(payload []byte) (*Export, error) {
	r := reader{what: "export", rest: payload}
	head := reader{what: "export header", rest: r.take(r.u32())}
	x := new(Export)
	if err := x.parseHeader(&head); err != nil {
		return nil, err
	}
	if r.err != nil {
		return nil, r.err
	}
	// Both framings can follow a version 0 header. A key is never empty and
	// never longer than 65,535 bytes, so the first two bytes of an entry are
	// zero only where its key's length has four.
	if x.Header.Version == 0 && x.Header.NEntries > 0 && len(r.rest) >= 2 && r.rest[0] == 0 && r.rest[1] == 0 {
		x.Framing = FramingPlain
	}
	// The count is not yet verified: entries are appended as they come, each
	// of at least 8 bytes.
	for i := uint32(0); i < x.Header.NEntries && r.err == nil; i++ {
		e, err := x.parseEntry(&r)
		if err != nil {
			return nil, inside(fmt.Sprintf("entries[%d]", i), err)
		}
		x.Entries = append(x.Entries, e)
	}
	if r.err == nil && len(r.rest) > 0 && x.Framing == FramingMetadata {
		x.Trailer = true
		if n := r.u16(); r.err == nil && n != 1 {
			return nil, malformed("export", "a trailer of %d bytes where 1 is known", n)
		}
		switch mark := r.take(1); {
		case r.err != nil:
		case mark[0] > 1:
			return nil, malformed("export", "truncation mark %d, only 0 and 1 are known", mark[0])
		default:
			x.Truncated = mark[0] == 1
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(r.rest) > 0 {
		return nil, malformed("export", "%d bytes left over", len(r.rest))
	}
	if err := x.digestValues(); err != nil {
		return nil, err
	}
	return x, nil
}

// digestValues fills in HValue, known only once the trailer is read.
func (x *Export) digestValues() error {
	for i := range x.Entries {
		e := &x.Entries[i]
		if !x.Truncated {
			e.HValue = sha256.Sum256(e.Value)
			continue
		}
		if len(e.Value) != len(e.HValue) {
			return malformed(fmt.Sprintf("entries[%d]", i), "a digest of %d bytes in a truncated transaction", len(e.Value))
		}
		e.HValue, e.Value = Hash(e.Value), nil
	}
	return nil
}

func (x *Export) parseHeader(r *reader) error {
	h := &x.Header
	h.ID = r.u64()
	h.PrevAlh = r.hash()
	h.Ts = int64(r.u64())
	// 1.0 and 1.1 write a u32 count here, which reads as version 0 and a
	// 16-bit count.
	h.Version = r.u16()
	switch h.Version {
	case 0:
		h.NEntries = uint32(r.u16())
	case 1:
		md := reader{what: "export header metadata", rest: r.take(uint32(r.u16()))}
		if err := h.Metadata.parse(&md); err != nil {
			return err
		}
		h.NEntries = r.u32()
	}
	h.EH = r.hash()
	h.BlTxID = r.u64()
	h.BlRoot = r.hash()
	if err := h.Validate(); r.err == nil && err != nil {
		return inside("header", err)
	}
	return r.end()
}

// parse reads what appendMetadata writes, and nothing else.
func (m *TxMetadata) parse(r *reader) error {
	for last := -1; r.err == nil && len(r.rest) > 0; {
		code := int(r.take(1)[0])
		switch {
		case code <= last:
			return malformed(r.what, "attribute %d after %d", code, last)
		case code == 0:
			if m.TruncatedTxID = r.u64(); r.err == nil && m.TruncatedTxID == 0 {
				return malformed(r.what, "truncated before transaction 0")
			}
		case code == 1:
			if m.Extra = r.take(uint32(r.u16())); r.err == nil && len(m.Extra) == 0 {
				return malformed(r.what, "an empty extra attribute")
			}
		default:
			return malformed(r.what, "attribute %d is not known", code)
		}
		last = code
	}
	return r.end()
}

func (x *Export) parseEntry(r *reader) (ExportedEntry, error) {
	var e ExportedEntry
	if x.Framing == FramingPlain {
		keyLen, valueLen := r.u32(), r.u32()
		e.Key, e.Value = r.take(keyLen), r.take(valueLen)
	} else {
		e.Key = r.take(uint32(r.u16()))
		md := reader{what: "metadata", rest: r.take(uint32(r.u16()))}
		if err := e.Metadata.parse(&md); err != nil {
			return e, err
		}
		e.Value = r.take(r.u32())
	}
	if r.err != nil {
		return e, r.err
	}
	return e, e.Validate(x.Header.Version)
}

// parse reads what appendMetadata writes, and nothing else.
func (m *EntryMetadata) parse(r *reader) error {
	for last := -1; r.err == nil && len(r.rest) > 0; {
		code := int(r.take(1)[0])
		switch {
		case code <= last:
			return malformed(r.what, "attribute %d after %d", code, last)
		case code == 0:
			m.Deleted = true
		case code == 1:
			m.HasExpiry, m.ExpiresAt = true, int64(r.u64())
		case code == 2:
			m.NonIndexable = true
		default:
			return malformed(r.what, "attribute %d is not known", code)
		}
		last = code
	}
	return r.end()
}

// AppendExport appends the payload of x to b: the inverse of ParseExport.
func AppendExport(b []byte, x *Export) ([]byte, error) {
	h := &x.Header
	if err := h.Validate(); err != nil {
		return nil, inside("header", err)
	}
	if uint64(len(x.Entries)) != uint64(h.NEntries) {
		return nil, malformed("export", "%d entries where the header counts %d", len(x.Entries), h.NEntries)
	}
	if x.Framing != FramingMetadata && (h.Version != 0 || x.Trailer || h.NEntries == 0) || x.Truncated && !x.Trailer {
		return nil, malformed("export", "its framing, trailer and header version do not go together")
	}
	head := binary.BigEndian.AppendUint64(nil, h.ID)
	head = append(head, h.PrevAlh[:]...)
	head = binary.BigEndian.AppendUint64(head, uint64(h.Ts))
	head = binary.BigEndian.AppendUint16(head, h.Version)
	if h.Version == 0 {
		head = binary.BigEndian.AppendUint16(head, uint16(h.NEntries))
	} else {
		head = binary.BigEndian.AppendUint16(head, uint16(h.Metadata.size()))
		head = h.Metadata.appendMetadata(head)
		head = binary.BigEndian.AppendUint32(head, h.NEntries)
	}
	head = append(head, h.EH[:]...)
	head = binary.BigEndian.AppendUint64(head, h.BlTxID)
	head = append(head, h.BlRoot[:]...)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(head))), head...)

	for i := range x.Entries {
		e := &x.Entries[i]
		if err := e.Validate(h.Version); err != nil {
			return nil, inside(fmt.Sprintf("entries[%d]", i), err)
		}
		value := e.Value
		if x.Truncated {
			value = e.HValue[:]
		}
		if uint64(len(value)) > math.MaxUint32 {
			return nil, malformed(fmt.Sprintf("entries[%d]", i), "a value of %d bytes", len(value))
		}
		if x.Framing == FramingPlain {
			b = binary.BigEndian.AppendUint32(b, uint32(len(e.Key)))
			b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
			b = append(append(b, e.Key...), value...)
			continue
		}
		md := e.Metadata.appendMetadata(nil)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(e.Key))), e.Key...)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(md))), md...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
	}
	if x.Trailer {
		mark := byte(0)
		if x.Truncated {
			mark = 1
		}
		b = append(b, 0, 1, mark)
	}
	return b, nil
}

// reader takes bounded pieces off a payload; after the first that is not
// there, everything is zero and err says so.
type reader struct {
	what string
	rest []byte
	err  error
}

func (r *reader) take(n uint32) []byte {
	if r.err == nil && uint64(n) > uint64(len(r.rest)) {
		r.err = malformed(r.what, "ends early: %d bytes wanted, %d left", n, len(r.rest))
	}
	if r.err != nil {
		return nil
	}
	piece := r.rest[:n:n]
	r.rest = r.rest[n:]
	return piece
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) hash() Hash {
	if b := r.take(32); b != nil {
		return Hash(b)
	}
	return Hash{}
}

// end says that nothing more may follow.
func (r *reader) end() error {
	if r.err != nil {
		return r.err
	}
	if len(r.rest) > 0 {
		return malformed(r.what, "%d bytes left over", len(r.rest))
	}
	return nil
}

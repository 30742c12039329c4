package verify

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// Damage is one thing that does not hold: a finding of kind header, entries,
// value or value-missing, and where it is.
type Damage struct {
	evidence.Finding
	// Where names the transaction, and the key where one is to blame. For a
	// header it also names the last transaction that is the remembered one,
	// where that is known.
	Where evidence.Divergence

	// Header is what the server shows of the transaction; nil where it shows
	// none.
	Header *proof.Header
	// Entry is the entry as the header commits to it, for values; its HValue
	// is the digest that no value was found for. Nil where more of them were
	// found already than can be kept.
	Entry *proof.Entry
	// Received is the wrong value, at most its first 64 KiB of Size bytes; nil
	// where none came, or more were kept already than can be.
	Received []byte
	Size     int

	kept int // of the bytes that a run may keep
}

// locate says where a key stands, as printed. The text leaves out the one-byte
// prefix. Where no more can be kept, a long key is named by how it begins.
func (r *run) locate(d *Damage, key []byte) {
	n := min(len(key), maxKeptKey)
	if n > maxTightKey {
		if cost := 3 * n; r.room(cost) {
			d.kept += cost
		} else {
			n = maxTightKey
		}
	}
	d.Where.Key = hex.EncodeToString(key[:n])
	if text := string(key[1:n]); n == len(key) && printable(text) {
		d.Where.KeyText = text
	}
}

// place is where a transaction stands.
func place(tx uint64) evidence.Divergence { return evidence.Divergence{FirstBadTx: tx} }

func printable(text string) bool {
	if text == "" || !utf8.ValidString(text) {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// said quotes a server's words, or whatever an error has to say.
func said(err error) string {
	text := err.Error()
	if len(text) > maxKeptText {
		text = strings.ToValidUTF8(text[:maxKeptText], "") + "…"
	}
	return text
}

// hold copies what a damage holds on to: what it was given may lie in an answer
// that is about to be forgotten.
func (r *run) hold(d *Damage, h *proof.Header, e *proof.Entry) {
	d.Header = ownHeader(h)
	if e == nil {
		return
	}
	r.locate(d, e.Key)
	if r.room(len(e.Key)) {
		d.kept += len(e.Key)
		c := *e
		c.Key = append([]byte(nil), e.Key...)
		d.Entry = &c
	}
}

// drop gives back what a damage holds that nobody will be told of.
func (r *run) drop(d *Damage) {
	r.free(d.kept)
	*d = Damage{}
}

func ownHeader(h *proof.Header) *proof.Header {
	if h == nil {
		return nil
	}
	c := *h
	c.Metadata.Extra = append([]byte(nil), h.Metadata.Extra...)
	return &c
}

// keep copies what can be kept of a wrong value.
func (r *run) keep(value []byte) []byte {
	value = value[:min(len(value), maxKeptValue)]
	if !r.room(len(value)) {
		return nil
	}
	return append([]byte{}, value...)
}

// room reports whether so many more bytes may be kept.
func (r *run) room(n int) bool {
	if r.kept.Add(int64(n)) <= maxKept {
		return true
	}
	r.free(n)
	return false
}

// free gives back so many bytes.
func (r *run) free(n int) { r.kept.Add(-int64(n)) }

// wrongValue is a value that does not hash to what the entry commits to.
func (r *run) wrongValue(h *proof.Header, e *proof.Entry, s *shown) Damage {
	d := Damage{
		Finding: evidence.Finding{
			Kind: evidence.Value, Check: string(proof.CheckValue), Tx: h.ID, Want: e.HValue.String(), Got: s.hash.String(),
			Detail: fmt.Sprintf("the server shows another value of %s than was committed, of %d bytes", named(e.Key), s.size),
		},
		Where:    place(h.ID),
		Received: s.value,
		Size:     s.size,
		kept:     len(s.value),
	}
	r.hold(&d, h, e)
	return d
}

// unreadableValue is a value that the server says is damaged.
func (r *run) unreadableValue(h *proof.Header, e *proof.Entry, cause error) Damage {
	d := Damage{
		Finding: evidence.Finding{
			Kind: evidence.Value, Check: string(proof.CheckValue), Tx: h.ID, Want: e.HValue.String(), Got: "unreadable",
			Detail: fmt.Sprintf("the server cannot read the value of %s, or if it is a reference what it refers to: %s", named(e.Key), said(cause)),
		},
		Where: place(h.ID),
	}
	r.hold(&d, h, e)
	return d
}

// missingValue is a value that is not there, with no record that retention
// removed it.
func (r *run) missingValue(h *proof.Header, e *proof.Entry, why string) Damage {
	d := Damage{
		Finding: evidence.Finding{
			Kind: evidence.ValueMissing, Check: string(proof.CheckValue), Tx: h.ID, Want: e.HValue.String(), Got: "missing",
			Detail: fmt.Sprintf("the value of %s is not there (%s), and no trusted header records that retention removed it", named(e.Key), why),
		},
		Where: place(h.ID),
	}
	r.hold(&d, h, e)
	return d
}

// someOf is a damage to one or more of several entries which the server does
// not show one by one.
func (r *run) someOf(d Damage, n int) Damage {
	r.free(d.kept)
	d.Entry, d.Received, d.Size, d.kept = nil, nil, 0, 0
	d.Where.Key, d.Where.KeyText, d.Want = "", "", ""
	d.Detail = fmt.Sprintf("one or more of %d values, which the server does not show one by one: %s", n, d.Detail)
	return d
}

// wrongEntries is a listing that is not what the header commits to.
func (r *run) wrongEntries(h *proof.Header, got proof.Hash, n int) Damage {
	detail := "the entries listed are not those that the header commits to"
	if uint64(n) != uint64(h.NEntries) {
		detail = fmt.Sprintf("%d entries are listed where the header commits to %d", n, h.NEntries)
	}
	d := Damage{
		Finding: evidence.Finding{Kind: evidence.Entries, Check: string(proof.CheckEntryTree), Tx: h.ID, Want: h.EH.String(), Got: got.String(), Detail: detail},
		Where:   place(h.ID),
	}
	r.hold(&d, h, nil)
	return d
}

// noEntries is a transaction whose entries the server says it cannot read.
func (r *run) noEntries(tx uint64, h *proof.Header, cause error) Damage {
	d := Damage{
		Finding: evidence.Finding{
			Kind: evidence.Entries, Check: string(proof.CheckEntryTree), Tx: tx, Got: "unreadable",
			Detail: "the server cannot read the transaction's entries: " + said(cause),
		},
		Where: place(tx),
	}
	if h != nil {
		d.Want = h.EH.String()
	}
	r.hold(&d, h, nil)
	return d
}

// wrongHeader is a header that is not the remembered one; want is a hash of the
// remembered one, and got that of the one shown, of the same sort.
func (r *run) wrongHeader(tx uint64, h *proof.Header, want, got proof.Hash, sort string) Damage {
	d := Damage{
		Finding: evidence.Finding{
			Kind: evidence.Header, Check: string(proof.CheckAlh), Tx: tx, Want: want.String(), Got: got.String(),
			Detail: "the header is not the one that is remembered, by its " + sort,
		},
		Where: place(tx),
	}
	r.hold(&d, h, nil)
	return d
}

// noHeader is a transaction of which the server says it cannot read even the
// header.
func noHeader(tx uint64, cause error) Damage {
	return Damage{
		Finding: evidence.Finding{
			Kind: evidence.Header, Check: string(proof.CheckAlh), Tx: tx, Got: "unreadable",
			Detail: "the server cannot read the transaction: " + said(cause),
		},
		Where: place(tx),
	}
}

// named is an entry by its key, for a person.
func named(key []byte) string {
	text := string(key[1:min(len(key), maxKeptKey)])
	if !printable(text) {
		text = hex.EncodeToString(key[1:])
	} else {
		text = strconv.Quote(text)
	}
	if len(text) > maxKeptText {
		text = strings.ToValidUTF8(text[:maxKeptText], "") + "…"
	}
	return kindOf(key).String() + " entry " + text
}

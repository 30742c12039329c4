package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"unicode"
	"unicode/utf8"

	"immuaudit/proof"
)

// Damaged is a transaction whose content is not what was committed: an entry
// without its value, or a listing of entries.
type Damaged struct {
	Tx     uint64
	Header *proof.Header // as the server shows it; nil where it shows none
	Key    []byte        // of the entry, with its prefix; none where no entry is to blame
	// Committed is the digest of the value, H(value), as the listing has it
	// that the header commits to; zero without an entry.
	Committed proof.Hash
	// Received is what the server gave for the value, at most 64 KiB of its
	// Size bytes; nil where it gave none.
	Received []byte
	Size     int
}

type damagedJSON struct {
	Tx        uint64   `json:"tx"`
	Header    []byte   `json:"header,omitempty"`
	Key       []byte   `json:"key,omitempty"`
	Committed *hexHash `json:"committed,omitempty"`
	Received  []byte   `json:"received,omitempty"`
	Size      int      `json:"size,omitempty"`
}

func (d *Damaged) fits() bool {
	return d.Tx <= proof.MaxTxID && len(d.Key) <= maxKeyHex/2 && len(d.Received) <= maxReceived && d.Size >= len(d.Received) &&
		(d.Header == nil || d.Header.Validate() == nil)
}

func packDamaged(d *Damaged) (damagedJSON, error) {
	if !d.fits() {
		return damagedJSON{}, errors.New("a damaged entry that is too long, or with an invalid header")
	}
	j := damagedJSON{Tx: d.Tx, Key: d.Key, Received: d.Received, Size: d.Size}
	if d.Committed != (proof.Hash{}) {
		c := hexHash(d.Committed)
		j.Committed = &c
	}
	if d.Header != nil {
		j.Header = appendHeader(nil, d.Header)
	}
	return j, nil
}

func unpackDamaged(j *damagedJSON) (Damaged, error) {
	d := Damaged{Tx: j.Tx, Key: j.Key, Received: j.Received, Size: j.Size}
	if j.Committed != nil {
		d.Committed = proof.Hash(*j.Committed)
	}
	if j.Header != nil {
		h, err := parseHeader(j.Header)
		if err != nil {
			return d, err
		}
		d.Header = &h
	}
	if !d.fits() {
		return d, errors.New("a damaged entry that is too long")
	}
	return d, nil
}

// keepDamaged keeps what can be written down.
func (f *File) keepDamaged(in []Damaged) {
	f.Damaged = nil
	for _, d := range kept(f, "damaged entries", in, MaxFindings) {
		if d.Header != nil && d.Header.Validate() != nil {
			f.omit("the header of transaction %d, which is invalid", d.Tx)
			d.Header = nil
		}
		if len(d.Received) > maxReceived {
			d.Received = d.Received[:maxReceived]
		}
		if d.Size = max(d.Size, len(d.Received)); !d.fits() {
			f.omit("a damaged entry of transaction %d, with a key of %d bytes", d.Tx, len(d.Key))
			continue
		}
		f.Damaged = append(f.Damaged, d)
	}
}

// recomputeDamaged hashes what was received again.
func (o *Outcome) recomputeDamaged(say func(string, ...any)) {
	for _, d := range o.File.Damaged {
		if len(d.Key) == 0 {
			continue
		}
		name := keyText(d.Key)
		switch {
		case d.Received == nil && d.Size == 0:
			say("Of transaction %d, key %s, no value was received; the one committed hashes to %s.", d.Tx, name, d.Committed)
		case d.Size > len(d.Received):
			say("Of transaction %d, key %s, %d bytes were received, of which the file holds %d; the value committed hashes to %s.", d.Tx, name, d.Size, len(d.Received), d.Committed)
		case proof.Hash(sha256.Sum256(d.Received)) == d.Committed:
			say("Of transaction %d, key %s, the value received hashes to %s, as committed: it is not damaged.", d.Tx, name, d.Committed)
		default:
			say("Of transaction %d, key %s, the value received hashes to %x, the one committed to %s.", d.Tx, name, sha256.Sum256(d.Received), d.Committed)
		}
	}
}

// keyText is a key for a person, without its prefix.
func keyText(key []byte) string {
	text := string(key[1:])
	if text == "" || !utf8.ValidString(text) || len(text) > 200 {
		return hex.EncodeToString(key[1:min(len(key), 101)])
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return hex.EncodeToString(key[1:min(len(key), 101)])
		}
	}
	return strconv.QuoteToASCII(text)
}

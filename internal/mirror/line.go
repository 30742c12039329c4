package mirror

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"strconv"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

const (
	maxSignature = 1 << 10 // also of a key; ten times what P-256 needs
	// maxLine is beyond a name with every byte escaped, a signature and a key
	// in base64, and what stands between them.
	maxLine = 8 << 10
	// maxUnix is the last second of the year 9999: a day is ten characters.
	maxUnix = 253402300799
)

// The checksum is for what a disk does. What people do, the signature shows.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// appendLine appends a state as it stands in a file: database, transaction,
// Alh, Unix time, signature, key and a CRC-32C of all this. The database stands
// in each line because the signature covers it and a ledger can be renamed.
func appendLine(dst []byte, w *evidence.Witnessed) []byte {
	start := len(dst)
	dst = append(dst, url.QueryEscape(w.State.DB)...)
	dst = strconv.AppendUint(append(dst, ' '), w.State.TxID, 10)
	dst = hex.AppendEncode(append(dst, ' '), w.State.Alh[:])
	dst = strconv.AppendInt(append(dst, ' '), w.At.Unix(), 10)
	dst = base64.StdEncoding.AppendEncode(append(dst, ' '), w.State.Signature)
	dst = base64.StdEncoding.AppendEncode(append(dst, ' '), w.State.PublicKey)
	return fmt.Appendf(dst, " %08x\n", crc32.Checksum(dst[start:], castagnoli))
}

// parseLine accepts exactly what appendLine gives.
func parseLine(line []byte) (evidence.Witnessed, error) {
	fail := func(text string) (evidence.Witnessed, error) { return evidence.Witnessed{}, errors.New(text) }
	fields := strings.Split(strings.TrimSuffix(string(line), "\n"), " ")
	if len(fields) != 7 {
		return fail("not seven fields")
	}
	db, err := url.QueryUnescape(fields[0])
	if err != nil {
		return fail("the database's name is not escaped as it should be")
	}
	tx, err := strconv.ParseUint(fields[1], 10, 63)
	if err != nil {
		return fail("the transaction is not a number below 2^63")
	}
	alh, err := hex.DecodeString(fields[2])
	if err != nil || len(alh) != hashSize {
		return fail("the Alh is not 32 bytes in hex")
	}
	at, err := strconv.ParseInt(fields[3], 10, 64)
	if err != nil {
		return fail("the time is not a number")
	}
	signature, err1 := base64.StdEncoding.DecodeString(fields[4])
	key, err2 := base64.StdEncoding.DecodeString(fields[5])
	if err1 != nil || err2 != nil {
		return fail("signature or key is not base64")
	}
	w := evidence.Witnessed{
		State: proof.SignedState{DB: db, State: proof.State{TxID: tx, Alh: proof.Hash(alh)}, PublicKey: key, Signature: signature},
		At:    time.Unix(at, 0).UTC(),
	}
	if err := checkWitnessed(&w); err != nil {
		return evidence.Witnessed{}, err
	}
	if len(signature) == 0 {
		return fail("there is no signature")
	}
	if string(appendLine(nil, &w)) != string(line) {
		return fail("its checksum is another one, or it is written in another way")
	}
	return w, nil
}

// checkWitnessed refuses what a line cannot hold.
func checkWitnessed(w *evidence.Witnessed) error {
	s := &w.State
	switch {
	case s.TxID == 0 || s.TxID > maxTx:
		return fmt.Errorf("a state of transaction %d cannot be kept: there is none", s.TxID)
	case len(s.DB) > maxName:
		return fmt.Errorf("a state of a database with a name of %d bytes cannot be kept, at most %d", len(s.DB), maxName)
	case len(s.Signature) > maxSignature || len(s.PublicKey) > maxSignature:
		return fmt.Errorf("a state with %d bytes of signature and %d of key cannot be kept, at most %d each", len(s.Signature), len(s.PublicKey), maxSignature)
	case w.At.Unix() < 0 || w.At.Unix() > maxUnix:
		return fmt.Errorf("a state of the time %v cannot be kept; set the clock of this machine", w.At)
	}
	return nil
}

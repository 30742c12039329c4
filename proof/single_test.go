package proof_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"math"
	"strings"
	"testing"

	"immuaudit/proof"
)

func hashOf(b []byte) proof.Hash { return sha256.Sum256(b) }

// Every refusal of docs/protocol.md §3.
func TestHeaderValidate(t *testing.T) {
	t.Parallel()
	good := func() proof.Header {
		return proof.Header{ID: 9, Version: 1, NEntries: 3, BlTxID: 8, BlRoot: proof.Hash{1},
			Metadata: proof.TxMetadata{TruncatedTxID: 4, Extra: make([]byte, proof.MaxExtra)}}
	}
	h := good()
	if err := h.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*proof.Header){
		"version":                func(h *proof.Header) { h.Version = 2 },
		"id":                     func(h *proof.Header) { h.ID, h.BlTxID, h.BlRoot = 0, 0, proof.Hash{} },
		"id ":                    func(h *proof.Header) { h.ID = 1 << 63 },
		"blTxId":                 func(h *proof.Header) { h.BlTxID = 9 },
		"blRoot":                 func(h *proof.Header) { h.BlTxID = 0 },
		"nentries":               func(h *proof.Header) { h.NEntries = 1 << 31 },
		"nentries ":              func(h *proof.Header) { h.Version, h.NEntries, h.Metadata = 0, 1<<16, proof.TxMetadata{} },
		"metadata":               func(h *proof.Header) { h.Version = 0 },
		"metadata ":              func(h *proof.Header) { h.Version, h.Metadata.TruncatedTxID = 0, 0 },
		"metadata.truncatedTxID": func(h *proof.Header) { h.Metadata.TruncatedTxID = math.MaxUint64 },
		"metadata.extra":         func(h *proof.Header) { h.Metadata.Extra = make([]byte, proof.MaxExtra+1) },
	} {
		h := good()
		change(&h)
		err := h.Validate()
		if !isMalformed(err) || !strings.Contains(err.Error(), strings.TrimSpace(field)+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
	var none *proof.Header
	if err := none.Validate(); !isMalformed(err) {
		t.Errorf("nil: %v", err)
	}
}

// The two formulas of docs/protocol.md §3 against a second writing of them,
// every part present.
func TestAlh(t *testing.T) {
	t.Parallel()
	for _, h := range []proof.Header{
		{ID: 1, PrevAlh: proof.EmptyAlh(), Ts: -1, NEntries: 65535},
		{ID: 1<<63 - 1, Ts: 5, NEntries: 7, BlTxID: 3, BlRoot: proof.Hash{9}},
		{ID: 2, Version: 1, NEntries: 1 << 20, EH: proof.Hash{7}},
		{ID: 2, Version: 1, Metadata: proof.TxMetadata{TruncatedTxID: 1}},
		{ID: 2, Version: 1, Metadata: proof.TxMetadata{Extra: []byte("x")}},
		{ID: 2, Version: 1, Metadata: proof.TxMetadata{TruncatedTxID: 1 << 40, Extra: make([]byte, proof.MaxExtra)}},
	} {
		if h.Inner() != innerOf(&h) || h.Alh() != alhOf(&h) {
			t.Errorf("%+v: inner %s, Alh %s", h, h.Inner(), h.Alh())
		}
	}
	// One that Validate would refuse does not make it panic.
	wild := proof.Header{Version: 9, Metadata: proof.TxMetadata{Extra: make([]byte, 1<<17)}}
	wild.Alh()
}

func TestEntries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version uint16
		entry   proof.Entry
	}{
		"no key":                  {1, proof.Entry{}},
		"a key too long":          {1, proof.Entry{Key: make([]byte, 1<<16)}},
		"metadata in version 0":   {0, proof.Entry{Key: []byte{0}, Metadata: proof.EntryMetadata{Deleted: true}}},
		"expiration in version 0": {0, proof.Entry{Key: []byte{0}, Metadata: proof.EntryMetadata{HasExpiry: true}}},
		"version 2":               {2, proof.Entry{Key: []byte{0}}},
	} {
		if _, err := proof.EntryDigest(c.version, &c.entry); !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := proof.EntryDigest(1, nil); !isMalformed(err) {
		t.Errorf("nil: %v", err)
	}

	e := proof.Entry{Key: []byte("\x00k"), HValue: hashOf([]byte("\x00v"))}
	digest, err := proof.EntryDigest(1, &e)
	if err != nil {
		t.Fatal(err)
	}
	h := proof.Header{ID: 1, Version: 1, NEntries: 1, EH: leaf(digest)}
	if err := proof.VerifyEntries(&h, []proof.Entry{e}); err != nil {
		t.Error(err)
	}
	if err := proof.VerifyEntries(&h, []proof.Entry{e, e}); !isMismatch(err, proof.CheckEntryTree) {
		t.Errorf("an entry too many: %v", err)
	}
	if err := proof.VerifyEntries(&h, nil); !isMismatch(err, proof.CheckEntryTree) {
		t.Errorf("no entries: %v", err)
	}
	if err := proof.VerifyEntries(&h, []proof.Entry{{}}); !isMalformed(err) {
		t.Errorf("an empty entry: %v", err)
	}
	if err := proof.VerifyEntries(nil, nil); !isMalformed(err) {
		t.Errorf("no header: %v", err)
	}
	// The root alone is not enough: the header counts.
	two := h
	two.NEntries = 2
	if err := proof.VerifyEntries(&two, []proof.Entry{e}); !isMismatch(err, proof.CheckEntryTree) {
		t.Errorf("one of two entries: %v", err)
	}
	if err := proof.VerifyEntries(&proof.Header{ID: 1, Version: 1, EH: hashOf(nil)}, nil); err != nil {
		t.Errorf("a transaction without entries: %v", err)
	}

	for name, err := range map[string]error{
		"width":    proof.VerifyEntryInclusion(&h, &e, 0, 2, nil),
		"index":    proof.VerifyEntryInclusion(&h, &e, 1, 1, nil),
		"too long": proof.VerifyEntryInclusion(&h, &e, 0, 1, make([]proof.Hash, 1)),
		"header":   proof.VerifyEntryInclusion(nil, &e, 0, 1, nil),
		"entry":    proof.VerifyEntryInclusion(&h, nil, 0, 1, nil),
	} {
		if !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := proof.VerifyEntryInclusion(&two, &e, 0, 2, nil); !isUnproven(err, proof.NeedComplete) {
		t.Errorf("no path: %v", err)
	}
	if err := proof.VerifyValue(&e, []byte("\x00v")); err != nil {
		t.Error(err)
	}
	if err := proof.VerifyValue(&e, nil); !isMismatch(err, proof.CheckValue) {
		t.Errorf("no value: %v", err)
	}
	if err := proof.VerifyValue(nil, nil); !isMalformed(err) {
		t.Errorf("no entry: %v", err)
	}
}

func TestExportForms(t *testing.T) {
	t.Parallel()
	value := []byte("\x00v")
	e := proof.ExportedEntry{Entry: proof.Entry{Key: []byte("\x00k"), HValue: hashOf(value)}, Value: value}
	header := proof.Header{ID: 3, Version: 1, NEntries: 1,
		Metadata: proof.TxMetadata{TruncatedTxID: 2, Extra: []byte("x")}, BlTxID: 2, BlRoot: proof.Hash{1}}

	// After retention the digests stand in for the values.
	cut := proof.Export{Header: header, Trailer: true, Truncated: true, Entries: []proof.ExportedEntry{{Entry: e.Entry}}}
	payload, err := proof.AppendExport(nil, &cut)
	if err != nil {
		t.Fatal(err)
	}
	got, err := proof.ParseExport(payload)
	if err != nil || !got.Truncated || got.Entries[0].Value != nil || got.Entries[0].HValue != e.HValue ||
		got.Header.Metadata.TruncatedTxID != 2 || string(got.Header.Metadata.Extra) != "x" {
		t.Errorf("truncated: %+v, %v", got, err)
	}
	for n := range payload {
		if _, err := proof.ParseExport(payload[:n]); n != len(payload)-3 && !isMalformed(err) {
			t.Errorf("cut at %d of %d: %v", n, len(payload), err)
		}
	}
	// The last byte says what the values are: a whole one cannot pass as cut.
	whole := proof.Export{Header: header, Trailer: true, Entries: []proof.ExportedEntry{e}}
	if payload, err = proof.AppendExport(nil, &whole); err != nil {
		t.Fatal(err)
	}
	for _, tail := range [][]byte{{0, 1, 1}, {0, 1, 2}, {0, 2, 0}, {0, 1}, {0, 1, 0, 0}} {
		if _, err := proof.ParseExport(append(bytes.Clone(payload[:len(payload)-3]), tail...)); !isMalformed(err) {
			t.Errorf("trailer %v: %v", tail, err)
		}
	}
	// A count that nothing backs costs nothing.
	big := whole
	big.Header.NEntries = math.MaxInt32
	if _, err := proof.AppendExport(nil, &big); !isMalformed(err) {
		t.Errorf("count without entries: %v", err)
	}
	payload[bytes.Index(payload, []byte{0, 0, 0, 1, 0, 0, 0, 0})] = 0x7f
	if _, err := proof.ParseExport(payload); !isMalformed(err) {
		t.Errorf("2³¹ entries: %v", err)
	}
	for name, x := range map[string]*proof.Export{
		"plain framing in version 1": {Header: header, Framing: proof.FramingPlain, Entries: []proof.ExportedEntry{e}},
		"truncated without trailer":  {Header: header, Truncated: true, Entries: []proof.ExportedEntry{e}},
		"no key":                     {Header: header, Entries: make([]proof.ExportedEntry, 1)},
		"no header":                  {},
	} {
		if _, err := proof.AppendExport(nil, x); !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysAndSignatures(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := proof.ParsePoint(point); err != nil || !got.Equal(&key.PublicKey) {
		t.Errorf("point: %v", err)
	}
	off := bytes.Clone(point)
	off[64] ^= 1
	for name, bad := range map[string][]byte{
		"nil": nil, "short": point[:64], "long": append(bytes.Clone(point), 0), "off the curve": off,
		"infinity": {0}, "compressed": append([]byte{2}, point[1:33]...), "zero": make([]byte, 65),
	} {
		if _, err := proof.ParsePoint(bad); !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}

	public := func(k any) []byte {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	good := public(&key.PublicKey)
	if got, err := proof.ParsePublicKey(good); err != nil || !got.Equal(&key.PublicKey) {
		t.Errorf("PEM: %v", err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "text": []byte("no key"), "another curve": public(&p384.PublicKey), "two keys": append(bytes.Clone(good), good...),
		"private key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}),
		"garbage":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("garbage")}),
		"huge":        append(bytes.Clone(good), make([]byte, 1<<20)...),
	} {
		if _, err := proof.ParsePublicKey(bad); !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}

	s := proof.SignedState{DB: "db", State: proof.State{TxID: 7, Alh: proof.Hash{1}}}
	if err := proof.VerifySignature(&key.PublicKey, &s); !isMismatch(err, proof.CheckSignature) {
		t.Errorf("unsigned: %v", err)
	}
	message := append([]byte{0, 0, 0, 2, 'd', 'b', 0, 0, 0, 0, 0, 0, 0, 7}, s.Alh[:]...)
	digest := sha256.Sum256(message)
	if s.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		t.Fatal(err)
	}
	if err := proof.VerifySignature(&key.PublicKey, &s); err != nil {
		t.Errorf("signed: %v", err)
	}
	// The length before the name keeps names and numbers apart, and a
	// signature speaks of one database and one transaction.
	for name, other := range map[string]proof.SignedState{
		"another database":    {DB: "bd", State: s.State, Signature: s.Signature},
		"another transaction": {DB: "db", State: proof.State{TxID: 8, Alh: s.Alh}, Signature: s.Signature},
		"another Alh":         {DB: "db", State: proof.State{TxID: 7}, Signature: s.Signature},
		"a longer signature":  {DB: "db", State: s.State, Signature: append(bytes.Clone(s.Signature), 0)},
		"junk":                {DB: "db", State: s.State, Signature: make([]byte, 1000)},
	} {
		if err := proof.VerifySignature(&key.PublicKey, &other); !isMismatch(err, proof.CheckSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := proof.VerifySignature(&stranger.PublicKey, &s); !isMismatch(err, proof.CheckSignature) {
		t.Errorf("another key: %v", err)
	}
	for name, err := range map[string]error{
		"no key":        proof.VerifySignature(nil, &s),
		"another curve": proof.VerifySignature(&p384.PublicKey, &s),
		"no state":      proof.VerifySignature(&key.PublicKey, nil),
	} {
		if !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a person reads must say what was checked, where, and both sides.
func TestErrorText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{&proof.Malformed{What: "blRoot", Why: "is missing"}, "malformed blRoot: is missing"},
		{&proof.Mismatch{Check: proof.CheckLinear, Tx: 7, Want: proof.Hash{0xaa}, Got: proof.Hash{0xbb}},
			"linear does not match at transaction 7: wanted aa" + strings.Repeat("00", 31) + ", got bb" + strings.Repeat("00", 31)},
		{&proof.Mismatch{Check: proof.CheckSignature, Detail: "the state is not signed"}, "signature does not match: the state is not signed"},
		{&proof.Unproven{Check: proof.CheckLinearAdvance, Need: proof.NeedAdvance, From: 3, To: 9},
			"linear-advance not proven: need advance from transaction 3 to 9"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, wanted %q", got, c.want)
		}
	}
}

// Metadata has one form, in the header as in an entry: known attributes, in
// order, each once, none empty.
func TestExportMetadata(t *testing.T) {
	t.Parallel()
	build := func(tx, entry []byte) []byte {
		head := append(make([]byte, 7, 200), 1)  // id
		head = append(head, make([]byte, 40)...) // prevAlh, ts
		head = append(head, 0, 1, 0, byte(len(tx)))
		head = append(append(head, tx...), 0, 0, 0, 1)
		head = append(head, make([]byte, 32+8+32)...) // eH, blTxId, blRoot
		b := append([]byte{0, 0, 0, byte(len(head))}, head...)
		b = append(b, 0, 1, 'k', 0, byte(len(entry)))
		return append(append(b, entry...), 0, 0, 0, 0)
	}
	number := []byte{0, 0, 0, 0, 0, 0, 0, 5}
	if x, err := proof.ParseExport(build(append([]byte{0}, number...), append([]byte{0, 1}, append(number, 2)...))); err != nil ||
		x.Header.Metadata.TruncatedTxID != 5 || x.Entries[0].Metadata != (proof.EntryMetadata{Deleted: true, HasExpiry: true, ExpiresAt: 5, NonIndexable: true}) {
		t.Errorf("got %+v, %v", x, err)
	}
	for name, md := range map[string][]byte{
		"unknown": {9}, "truncated at 0": append([]byte{0}, make([]byte, 8)...), "empty extra": {1, 0, 0},
		"extra cut": {1, 0, 2, 0}, "truncated cut": {0, 1}, "twice": {1, 0, 1, 7, 1, 0, 1, 7}, "out of order": append([]byte{1, 0, 1, 7, 0}, number...),
	} {
		if _, err := proof.ParseExport(build(md, nil)); !isMalformed(err) {
			t.Errorf("header, %s: %v", name, err)
		}
	}
	for name, md := range map[string][]byte{
		"unknown": {3}, "twice": {0, 0}, "out of order": {2, 0}, "expiry cut": {1, 0, 0},
	} {
		if _, err := proof.ParseExport(build(nil, md)); !isMalformed(err) {
			t.Errorf("entry, %s: %v", name, err)
		}
	}
}

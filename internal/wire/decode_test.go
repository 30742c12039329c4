package wire_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

func digest(b byte) []byte { return append(make([]byte, 31), b) }

func digests(n int) [][]byte {
	var out [][]byte
	for i := range n {
		out = append(out, digest(byte(i+1)))
	}
	return out
}

func goodHeader(id, bl uint64) *schema.TxHeader {
	h := &schema.TxHeader{Id: id, PrevAlh: digest(1), Ts: 1, Nentries: 1, EH: digest(2), BlTxId: bl, BlRoot: digest(3), Version: 1,
		Metadata: &schema.TxMetadata{TruncatedTxID: 1, Extra: []byte("x")}}
	if bl == 0 {
		h.BlRoot = digest(0)
	}
	return h
}

func goodVerifiableTx() *schema.VerifiableTx {
	return &schema.VerifiableTx{
		Tx: &schema.Tx{Header: goodHeader(9, 8)},
		DualProof: &schema.DualProof{
			SourceTxHeader: goodHeader(5, 3), TargetTxHeader: goodHeader(9, 8),
			InclusionProof: digests(3), ConsistencyProof: digests(4), TargetBlTxAlh: digest(9), LastInclusionProof: digests(3),
			LinearProof: &schema.LinearProof{SourceTxId: 8, TargetTxId: 9, Terms: digests(2)},
			LinearAdvanceProof: &schema.LinearAdvanceProof{
				LinearProofTerms: digests(2), InclusionProofs: []*schema.InclusionProof{{Leaf: -1, Width: -1, Terms: digests(3)}},
			},
		},
		Signature: &schema.Signature{PublicKey: make([]byte, 65), Signature: make([]byte, 70)},
	}
}

func TestDecodeVerifiableTx(t *testing.T) {
	t.Parallel()
	v, err := wire.DecodeVerifiableTx(goodVerifiableTx())
	if err != nil {
		t.Fatal(err)
	}
	p := v.Proof
	if p.Source.ID != 5 || p.Target.BlTxID != 8 || p.Target.Metadata.TruncatedTxID != 1 || string(p.Target.Metadata.Extra) != "x" ||
		len(p.Inclusion) != 3 || len(p.Consistency) != 4 || len(p.LastInclusion) != 3 || p.TargetBlTxAlh[31] != 9 ||
		p.Linear.SourceTxID != 8 || len(p.Linear.Terms) != 2 || p.Linear.Terms[1][31] != 2 ||
		len(p.Advance.Terms) != 2 || len(p.Advance.Inclusions) != 1 || len(p.Advance.Inclusions[0]) != 3 ||
		v.Header == nil || v.Header.ID != 9 || len(v.PublicKey) != 65 || len(v.Signature) != 70 {
		t.Errorf("decoded %+v with proof %+v", v, p)
	}

	// Parts that proof.VerifyDual reports as not proven may be absent.
	for name, drop := range map[string]func(*schema.VerifiableTx){
		"transaction": func(m *schema.VerifiableTx) { m.Tx = nil },
		"its header":  func(m *schema.VerifiableTx) { m.Tx.Header = nil },
		"signature":   func(m *schema.VerifiableTx) { m.Signature = nil },
		"lists": func(m *schema.VerifiableTx) {
			m.DualProof.InclusionProof, m.DualProof.ConsistencyProof, m.DualProof.LastInclusionProof = nil, nil, nil
		},
		"linear":  func(m *schema.VerifiableTx) { m.DualProof.LinearProof = nil },
		"advance": func(m *schema.VerifiableTx) { m.DualProof.LinearAdvanceProof = nil },
		"a path":  func(m *schema.VerifiableTx) { m.DualProof.LinearAdvanceProof.InclusionProofs[0] = nil },
	} {
		m := goodVerifiableTx()
		drop(m)
		if _, err := wire.DecodeVerifiableTx(m); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// Each refusal names the field that is at fault.
func TestDecodeVerifiableTxRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		field   string
		breakIt func(*schema.VerifiableTx)
	}{
		"no proof":             {"dualProof", func(m *schema.VerifiableTx) { m.DualProof = nil }},
		"no source":            {"sourceTxHeader.header", func(m *schema.VerifiableTx) { m.DualProof.SourceTxHeader = nil }},
		"no target":            {"targetTxHeader.header", func(m *schema.VerifiableTx) { m.DualProof.TargetTxHeader = nil }},
		"source id 0":          {"sourceTxHeader.id", func(m *schema.VerifiableTx) { m.DualProof.SourceTxHeader.Id = 0 }},
		"target id 2⁶³":        {"targetTxHeader.id", func(m *schema.VerifiableTx) { m.DualProof.TargetTxHeader.Id = 1 << 63 }},
		"blTxId":               {"targetTxHeader.blTxId", func(m *schema.VerifiableTx) { m.DualProof.TargetTxHeader.BlTxId = 9 }},
		"version 7":            {"targetTxHeader.version", func(m *schema.VerifiableTx) { m.DualProof.TargetTxHeader.Version = 7 }},
		"version 65536":        {"targetTxHeader.version", func(m *schema.VerifiableTx) { m.DualProof.TargetTxHeader.Version = 65536 }},
		"version −1":           {"targetTxHeader.version", func(m *schema.VerifiableTx) { m.DualProof.TargetTxHeader.Version = -1 }},
		"count −1":             {"sourceTxHeader.nentries", func(m *schema.VerifiableTx) { m.DualProof.SourceTxHeader.Nentries = -1 }},
		"extra":                {"sourceTxHeader.metadata.extra", func(m *schema.VerifiableTx) { m.DualProof.SourceTxHeader.Metadata.Extra = make([]byte, 257) }},
		"prevAlh of 31":        {"sourceTxHeader.prevAlh", func(m *schema.VerifiableTx) { m.DualProof.SourceTxHeader.PrevAlh = make([]byte, 31) }},
		"no eH":                {"sourceTxHeader.eH", func(m *schema.VerifiableTx) { m.DualProof.SourceTxHeader.EH = nil }},
		"blRoot of 33":         {"targetTxHeader.blRoot", func(m *schema.VerifiableTx) { m.DualProof.TargetTxHeader.BlRoot = make([]byte, 33) }},
		"tx header":            {"tx.header.id", func(m *schema.VerifiableTx) { m.Tx.Header.Id = 0 }},
		"leaf":                 {"targetBlTxAlh", func(m *schema.VerifiableTx) { m.DualProof.TargetBlTxAlh = nil }},
		"inclusion of 65":      {"inclusionProof", func(m *schema.VerifiableTx) { m.DualProof.InclusionProof = digests(65) }},
		"consistency of 66":    {"consistencyProof", func(m *schema.VerifiableTx) { m.DualProof.ConsistencyProof = digests(66) }},
		"last inclusion of 65": {"lastInclusionProof", func(m *schema.VerifiableTx) { m.DualProof.LastInclusionProof = digests(65) }},
		"an empty node":        {"inclusionProof[1]", func(m *schema.VerifiableTx) { m.DualProof.InclusionProof[1] = nil }},
		"linear backwards":     {"linearProof", func(m *schema.VerifiableTx) { m.DualProof.LinearProof.SourceTxId = 10 }},
		"linear of 3":          {"linearProof.terms", func(m *schema.VerifiableTx) { m.DualProof.LinearProof.Terms = digests(3) }},
		"linear beyond the limit": {"linearProof.terms", func(m *schema.VerifiableTx) {
			*m.DualProof.LinearProof = schema.LinearProof{TargetTxId: 1 << 62, Terms: make([][]byte, 100_001)}
		}},
		"a long term": {"linearProof.terms[0]", func(m *schema.VerifiableTx) { m.DualProof.LinearProof.Terms[0] = make([]byte, 64) }},
		"advance beyond the limit": {"LinearAdvanceProof.linearProofTerms", func(m *schema.VerifiableTx) {
			m.DualProof.LinearAdvanceProof.LinearProofTerms = make([][]byte, 100_001)
		}},
		"advance paths": {"LinearAdvanceProof.inclusionProofs", func(m *schema.VerifiableTx) {
			m.DualProof.LinearAdvanceProof.InclusionProofs = make([]*schema.InclusionProof, 2)
		}},
		"advance path of 65": {"LinearAdvanceProof.inclusionProofs[0]", func(m *schema.VerifiableTx) {
			m.DualProof.LinearAdvanceProof.InclusionProofs[0].Terms = digests(65)
		}},
		"public key": {"signature.publicKey", func(m *schema.VerifiableTx) { m.Signature.PublicKey = make([]byte, 257) }},
		"signature":  {"signature.signature", func(m *schema.VerifiableTx) { m.Signature.Signature = make([]byte, 257) }},
	} {
		m := goodVerifiableTx()
		c.breakIt(m)
		_, err := wire.DecodeVerifiableTx(m)
		if f, ok := errors.AsType[*proof.Malformed](err); !ok || f.What != c.field {
			t.Errorf("%s: got %v, wanted %s refused", name, err, c.field)
		}
	}
	if _, err := wire.DecodeVerifiableTx(nil); err == nil {
		t.Error("nil was decoded")
	}
}

func TestDecodeState(t *testing.T) {
	t.Parallel()
	good := func() *schema.ImmutableState {
		return &schema.ImmutableState{Db: "db", TxId: 3, TxHash: digest(1), Signature: &schema.Signature{PublicKey: []byte("p"), Signature: []byte("s")},
			PrecommittedTxId: 1 << 63, PrecommittedTxHash: []byte("ignored")}
	}
	s, err := wire.DecodeState(good())
	if err != nil || s.DB != "db" || s.TxID != 3 || s.Alh[31] != 1 || string(s.PublicKey) != "p" || string(s.Signature) != "s" {
		t.Errorf("got %+v, %v", s, err)
	}
	empty := proof.EmptyAlh()
	if s, err = wire.DecodeState(&schema.ImmutableState{TxHash: empty[:]}); err != nil || s.Alh != empty || s.Signature != nil {
		t.Errorf("empty database: %+v, %v", s, err)
	}
	for field, breakIt := range map[string]func(*schema.ImmutableState){
		"db":                  func(m *schema.ImmutableState) { m.Db = strings.Repeat("x", 129) },
		"txId":                func(m *schema.ImmutableState) { m.TxId = 1 << 63 },
		"txHash":              func(m *schema.ImmutableState) { m.TxHash = nil },
		"txHash ":             func(m *schema.ImmutableState) { m.TxId = 0 },
		"signature.publicKey": func(m *schema.ImmutableState) { m.Signature.PublicKey = make([]byte, 257) },
	} {
		m := good()
		breakIt(m)
		_, err := wire.DecodeState(m)
		if f, ok := errors.AsType[*proof.Malformed](err); !ok || f.What != strings.TrimSpace(field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := wire.DecodeState(nil); err == nil {
		t.Error("nil was decoded")
	}
}

func TestDecodeTx(t *testing.T) {
	t.Parallel()
	good := func() *schema.Tx {
		return &schema.Tx{Header: goodHeader(2, 1), Entries: []*schema.TxEntry{
			{Key: []byte("\x00a"), HValue: digest(1), VLen: -5, Value: []byte("\x00v")},
			{Key: []byte("\x00b"), HValue: digest(2), Metadata: &schema.KVMetadata{Deleted: true, NonIndexable: true, Expiration: &schema.Expiration{ExpiresAt: 7}}},
			{Key: []byte("\x00c"), HValue: digest(3), Metadata: &schema.KVMetadata{}},
		}}
	}
	h, entries, values, err := wire.DecodeTx(good())
	if err != nil {
		t.Fatal(err)
	}
	if h.ID != 2 || len(entries) != 3 || len(values) != 3 || string(entries[0].Key) != "\x00a" || string(values[0]) != "\x00v" || len(values[1]) != 0 ||
		entries[1].Metadata != (proof.EntryMetadata{Deleted: true, HasExpiry: true, ExpiresAt: 7, NonIndexable: true}) ||
		entries[2].Metadata != (proof.EntryMetadata{}) || entries[2].HValue[31] != 3 {
		t.Errorf("got %+v, %+v, %q", h, entries, values)
	}
	for name, c := range map[string]struct {
		field   string
		breakIt func(*schema.Tx)
	}{
		"no header":             {"header.header", func(m *schema.Tx) { m.Header = nil }},
		"no entry":              {"entries[1].entry", func(m *schema.Tx) { m.Entries[1] = nil }},
		"no key":                {"entries[0].key", func(m *schema.Tx) { m.Entries[0].Key = nil }},
		"a key too long":        {"entries[2].key", func(m *schema.Tx) { m.Entries[2].Key = make([]byte, 1<<16) }},
		"no digest":             {"entries[0].hValue", func(m *schema.Tx) { m.Entries[0].HValue = nil }},
		"metadata in version 0": {"entries[1].metadata", func(m *schema.Tx) { m.Header.Version, m.Header.Metadata = 0, nil }},
	} {
		m := good()
		c.breakIt(m)
		_, _, _, err := wire.DecodeTx(m)
		if f, ok := errors.AsType[*proof.Malformed](err); !ok || f.What != c.field {
			t.Errorf("%s: got %v, wanted %s refused", name, err, c.field)
		}
	}
	if _, _, _, err := wire.DecodeTx(nil); err == nil {
		t.Error("nil was decoded")
	}
}

// Servers 1.0 and 1.1 put vLen where later ones have the entry's metadata, and
// any server may send fields that are not known here.
func TestDecodeTxUnknownFields(t *testing.T) {
	t.Parallel()
	b, err := proto.Marshal(&schema.TxEntry{Key: []byte("\x00a"), HValue: digest(1)})
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), 12)
	b = protowire.AppendBytes(protowire.AppendTag(b, 99, protowire.BytesType), []byte("new"))
	var e schema.TxEntry
	if err := proto.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	header := goodHeader(2, 1)
	header.Version, header.Metadata = 0, nil
	_, entries, _, err := wire.DecodeTx(&schema.Tx{Header: header, Entries: []*schema.TxEntry{&e}})
	if err != nil || entries[0].Metadata != (proof.EntryMetadata{}) {
		t.Errorf("got %+v, %v", entries, err)
	}
}

// fuzzMessage decodes whatever parses as the message. Nothing may panic, and
// every refusal is a *proof.Malformed.
func fuzzMessage[M proto.Message](f *testing.F, seed, empty M, decode func(M) error) {
	b, err := proto.Marshal(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := proto.Clone(empty).(M)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		if err := decode(m); err != nil {
			if _, ok := errors.AsType[*proof.Malformed](err); !ok {
				t.Fatalf("an error of no known kind: %v", err)
			}
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	fuzzMessage(f, &schema.ImmutableState{Db: "db", TxId: 1, TxHash: digest(1)}, new(schema.ImmutableState), func(m *schema.ImmutableState) error {
		_, err := wire.DecodeState(m)
		return err
	})
}

func FuzzDecodeVerifiableTx(f *testing.F) {
	fuzzMessage(f, goodVerifiableTx(), new(schema.VerifiableTx), func(m *schema.VerifiableTx) error {
		_, err := wire.DecodeVerifiableTx(m)
		return err
	})
}

func FuzzDecodeTx(f *testing.F) {
	seed := &schema.Tx{Header: goodHeader(2, 1), Entries: []*schema.TxEntry{{Key: []byte("\x00a"), HValue: digest(1), Metadata: &schema.KVMetadata{Deleted: true}}}}
	fuzzMessage(f, seed, new(schema.Tx), func(m *schema.Tx) error {
		_, _, _, err := wire.DecodeTx(m)
		return err
	})
}

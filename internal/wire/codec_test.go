package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// An answer that would take far more memory than its bytes is refused before
// it does. Not parallel: it measures allocations.
func TestElements(t *testing.T) {
	repeat := func(element ...byte) []byte { return bytes.Repeat(element, maxElements+1) }
	inside := func(field byte, inner []byte) []byte {
		return protowire.AppendBytes([]byte{field}, inner)
	}
	for name, tt := range map[string]struct {
		text []byte
		into proto.Message
	}{
		"empty transactions":       {repeat(0x0a, 0), new(schema.TxList)},
		"empty databases":          {repeat(0x0a, 0), new(schema.DatabaseListResponse)},
		"empty entries":            {inside(0x0a, repeat(0x12, 0)), new(schema.VerifiableTx)},
		"empty hashes":             {inside(0x12, repeat(0x1a, 0)), new(schema.VerifiableTx)},
		"one header over and over": {inside(0x0a, repeat(0x0a, 0)), new(schema.VerifiableTx)},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			allocations := testing.AllocsPerRun(1, func() { err = decode(tt.text, tt.into) })
			if !errors.Is(err, errElements) {
				t.Errorf("got %v", err)
			}
			if allocations > 10 {
				t.Errorf("%v allocations before it was refused", allocations)
			}
		})
	}
	// The largest honest answers are nowhere near.
	page := &schema.TxList{}
	for id := range uint64(1000) {
		page.Txs = append(page.Txs, transaction("db0", id+1, 0))
	}
	long := &schema.VerifiableTx{DualProof: &schema.DualProof{LinearProof: &schema.LinearProof{Terms: slices.Repeat([][]byte{make([]byte, 32)}, 100_000)}}}
	for _, m := range []proto.Message{page, long} {
		if err := decode(encode(t, m), m.ProtoReflect().New().Interface()); err != nil {
			t.Errorf("an honest %T: %v", m, err)
		}
	}
}

// FuzzAnswers feeds bytes to everything that takes a server's answer apart.
func FuzzAnswers(f *testing.F) {
	for kind, m := range []proto.Message{
		&schema.ImmutableState{Db: "db0", TxId: 1, TxHash: make([]byte, 32), Signature: &schema.Signature{PublicKey: make([]byte, 65), Signature: make([]byte, 70)}},
		&schema.TxList{Txs: []*schema.Tx{transaction("db0", 1, 0), transaction("db0", 2, 5)}},
		&schema.VerifiableTx{DualProof: &schema.DualProof{SourceTxHeader: header("db0", 1), TargetTxHeader: header("db0", 2), TargetBlTxAlh: make([]byte, 32), LinearProof: &schema.LinearProof{SourceTxId: 1, TargetTxId: 2}}},
		&schema.DatabaseListResponse{Databases: []*schema.Database{{DatabaseName: "db0"}}},
	} {
		text, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), text)
	}
	f.Fuzz(func(t *testing.T, kind uint8, text []byte) {
		var err error
		switch kind % 4 {
		case 0:
			m := new(schema.ImmutableState)
			if decode(text, m) == nil {
				_, err = DecodeState(m)
			}
		case 1:
			m := new(schema.TxList)
			if decode(text, m) == nil {
				var headers []proof.Header
				if headers, err = consecutive(m.GetTxs(), 1, 10); len(headers) > 10 {
					t.Errorf("%d headers", len(headers))
				}
			}
		case 2:
			m := new(schema.VerifiableTx)
			if decode(text, m) == nil {
				_, err = DecodeVerifiableTx(m)
			}
		case 3:
			// The count never refuses what is decodable and small.
			m := new(schema.DatabaseListResponse)
			if errPlain := proto.Unmarshal(text, new(schema.DatabaseListResponse)); errPlain == nil && len(text) < maxElements {
				if err := decode(text, m); err != nil {
					t.Errorf("%v for what protobuf takes", err)
				}
			}
		}
		var malformed *proof.Malformed
		if err != nil && !errors.As(err, &malformed) {
			t.Errorf("%v is not malformed", err)
		}
	})
}

// FuzzFaultText: whatever a server says, the text that is shown is one line of
// bounded size.
func FuzzFaultText(f *testing.F) {
	f.Add("invalid token")
	f.Add("\x1b[2J\n\xff")
	f.Fuzz(func(t *testing.T, said string) {
		fault := &Fault{Kind: Refused, Op: "CurrentState", Server: "localhost:3322", Message: bounded(stripTransport(said))}
		if text := fault.Error(); len(fault.Message) > maxMessage || !printable(text) {
			t.Errorf("%q", text)
		}
	})
}

package proof_test

import (
	"errors"
	"fmt"
	"testing"

	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// field is one field that a check covers; flip inverts bits of its byte i, and
// inverts them back when called again.
type field struct {
	name string
	size int
	flip func(i int)
}

func hashField(name string, h *proof.Hash) field {
	return field{name, len(h), func(i int) { h[i] ^= 1 << (i % 8) }}
}

func numberField[N uint16 | uint32 | uint64 | int64](name string, size int, n *N) field {
	return field{name, size, func(i int) { *n ^= 1 << (8*i + i%7) }}
}

func bytesField(name string, b []byte) field {
	return field{name, len(b), func(i int) { b[i] ^= 1 << (i % 8) }}
}

func listFields(name string, list []proof.Hash) []field {
	var f []field
	for i := range list {
		f = append(f, hashField(name, &list[i]))
	}
	return f
}

func headerFields(name string, h *proof.Header) []field {
	return []field{
		numberField(name+".id", 8, &h.ID), hashField(name+".prevAlh", &h.PrevAlh), numberField(name+".ts", 8, &h.Ts),
		numberField(name+".version", 2, &h.Version), numberField(name+".nentries", 4, &h.NEntries),
		numberField(name+".truncatedTxID", 8, &h.Metadata.TruncatedTxID), bytesField(name+".extra", h.Metadata.Extra),
		hashField(name+".eH", &h.EH), numberField(name+".blTxId", 8, &h.BlTxID), hashField(name+".blRoot", &h.BlRoot),
	}
}

func linearFields(name string, l *proof.LinearProof) []field {
	return append(listFields(name+".terms", l.Terms),
		numberField(name+".sourceTxId", 8, &l.SourceTxID), numberField(name+".TargetTxId", 8, &l.TargetTxID))
}

func advanceFields(name string, a *proof.AdvanceProof) []field {
	if a == nil {
		return nil
	}
	f := listFields(name+".terms", a.Terms)
	for _, path := range a.Inclusions {
		f = append(f, listFields(name+".inclusionProofs", path)...)
	}
	return f
}

func proofFields(p *proof.DualProof, x *proof.Extra) []field {
	f := append(headerFields("source", &p.Source), headerFields("target", &p.Target)...)
	f = append(f, listFields("inclusion", p.Inclusion)...)
	f = append(f, listFields("consistency", p.Consistency)...)
	f = append(f, hashField("targetBlTxAlh", &p.TargetBlTxAlh))
	f = append(f, listFields("lastInclusion", p.LastInclusion)...)
	f = append(f, linearFields("linear", &p.Linear)...)
	f = append(f, advanceFields("advance", p.Advance)...)
	f = append(f, advanceFields("rebuilt", x.Advance)...)
	if b := x.Binding; b != nil {
		f = append(f, headerFields("binding.source", &b.Source)...)
		f = append(f, headerFields("binding.target", &b.Target)...)
		f = append(f, linearFields("binding.linear", &b.Linear)...)
	}
	return f
}

// refused tells whether err is what a flipped byte must lead to: a named step
// or a refusal, not merely something unproven.
func refused(err error) bool {
	m, ok := errors.AsType[*proof.Mismatch](err)
	return ok && m.Check != "" || isMalformed(err)
}

// flipAll flips every byte of every field of p.
func flipAll(t *testing.T, name string, p *proof.DualProof, s, target proof.State, x *proof.Extra) int {
	t.Helper()
	flips := 0
	for _, f := range proofFields(p, x) {
		for i := range f.size {
			f.flip(i)
			if err := proof.VerifyDual(p, s, target, x); !refused(err) {
				t.Errorf("%s: byte %d of %s changed: %v", name, i, f.name, err)
			}
			f.flip(i)
			flips++
		}
	}
	return flips
}

func TestFlippedBytesInRecordings(t *testing.T) {
	t.Parallel()
	for _, l := range recordings(t) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			t.Run("proofs", l.testFlippedProofs)
			t.Run("states", l.testFlippedStates)
			t.Run("entries", l.testFlippedEntries)
			t.Run("exports", l.testFlippedExports)
		})
	}
}

func (l *recordedLedger) testFlippedProofs(t *testing.T) {
	flips := 0
	for _, p := range l.proofs {
		source, target := l.state(p.source), l.state(p.target)
		x, err := l.settle(p.Proof, func(x *proof.Extra) error { return proof.VerifyDual(p.Proof, source, target, x) })
		if errors.Is(err, errNotRecorded) {
			x = new(proof.Extra)
		} else if err != nil {
			t.Fatalf("%d→%d: %v", p.source, p.target, err)
		}
		flips += flipAll(t, p.String(), p.Proof, source, target, x)
	}
	t.Logf("%d bytes", flips)
	if flips == 0 {
		t.Fatal("nothing flipped")
	}
}

func (p recordedProof) String() string {
	return fmt.Sprintf("%d→%d", p.source, p.target)
}

func (l *recordedLedger) testFlippedStates(t *testing.T) {
	if l.key == nil {
		return // an unsigned state has nothing that covers it
	}
	for _, s := range l.states {
		db := []byte(s.DB)
		for _, f := range []field{
			bytesField("db", db), numberField("txId", 8, &s.TxID), hashField("txHash", &s.Alh), bytesField("signature", s.Signature),
		} {
			for i := range f.size {
				f.flip(i)
				s.DB = string(db)
				if err := proof.VerifySignature(l.key, &s); !refused(err) {
					t.Errorf("state %d: byte %d of %s changed: %v", s.TxID, i, f.name, err)
				}
				f.flip(i)
			}
		}
		s.DB = string(db)
		if err := proof.VerifySignature(l.key, &s); err != nil {
			t.Errorf("state %d, unchanged: %v", s.TxID, err)
		}
	}
}

func (l *recordedLedger) testFlippedEntries(t *testing.T) {
	for _, x := range l.txs {
		if x.digests == nil {
			continue
		}
		h, entries, _, err := wire.DecodeTx(x.digests)
		if err != nil {
			t.Fatal(err)
		}
		for j := range entries {
			e := &entries[j]
			for _, f := range []field{
				bytesField("key", e.Key), hashField("hValue", &e.HValue),
				{"metadata.deleted", 1, func(int) { e.Metadata.Deleted = !e.Metadata.Deleted }},
				{"metadata.nonIndexable", 1, func(int) { e.Metadata.NonIndexable = !e.Metadata.NonIndexable }},
				{"metadata.expiration", 1, func(int) { e.Metadata.HasExpiry = !e.Metadata.HasExpiry }},
			} {
				for i := range f.size {
					f.flip(i)
					if err := proof.VerifyEntries(&h, entries); !refused(err) {
						t.Errorf("transaction %d: byte %d of %s of entry %d changed: %v", x.tx, i, f.name, j, err)
					}
					f.flip(i)
				}
			}
		}
	}
}

func (l *recordedLedger) testFlippedExports(t *testing.T) {
	for _, x := range l.txs {
		if len(x.export) == 0 {
			continue
		}
		whole, err := proof.ParseExport(x.export)
		if err != nil {
			t.Fatal(err)
		}
		alh := whole.Header.Alh()
		payload := append([]byte(nil), x.export...)
		for i := range payload {
			payload[i] ^= 1 << (i % 8)
			if err := verifyExport(payload, alh); !refused(err) {
				t.Errorf("transaction %d: byte %d of the export changed: %v", x.tx, i, err)
			}
			payload[i] ^= 1 << (i % 8)
		}
	}
}

// verifyExport is everything there is to check in an exported transaction.
func verifyExport(payload []byte, alh proof.Hash) error {
	x, err := proof.ParseExport(payload)
	if err != nil {
		return err
	}
	if got := x.Header.Alh(); got != alh {
		return &proof.Mismatch{Check: proof.CheckAlh, Tx: x.Header.ID, Want: alh, Got: got}
	}
	entries := make([]proof.Entry, len(x.Entries))
	for i := range x.Entries {
		entries[i] = x.Entries[i].Entry
	}
	return proof.VerifyEntries(&x.Header, entries)
}

// What the recordings lack: sent advance proofs, extra metadata.
func TestFlippedBytesInBooks(t *testing.T) {
	t.Parallel()
	b := lagging()
	b.commit(12, func(h *proof.Header) { h.Metadata = proof.TxMetadata{TruncatedTxID: 5, Extra: []byte("extra")} })
	for _, c := range []struct {
		b    *book
		s, t uint64
	}{{b, 10, 12}, {b, 10, 13}, {b, 13, 13}, {behind(), 10, 11}, {behind(), 10, 12}} {
		p := c.b.dual(c.s, c.t)
		x := new(proof.Extra)
		if c.s > p.Target.BlTxID {
			x = c.b.extra(p)
		}
		if c.s == c.t {
			x.Binding = nil // nothing asks for one
		}
		if err := proof.VerifyDual(p, c.b.state(c.s), c.b.state(c.t), x); err != nil {
			t.Fatalf("%d→%d: %v", c.s, c.t, err)
		}
		flipAll(t, "book", p, c.b.state(c.s), c.b.state(c.t), x)
	}
}

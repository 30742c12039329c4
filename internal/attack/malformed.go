package attack

import (
	"math"
	"slices"
	"strings"

	"immuaudit/internal/wire/schema"
)

// malformedScenarios are answers that cannot be meant: docs/protocol.md §3
// lists what to refuse. None proves anything but that something is broken.
func malformedScenarios() []Scenario {
	return slices.Concat(malformedStates(), malformedHeaders(), malformedProofs())
}

func malformedStates() []Scenario {
	bad := func(name, summary string, change func(s *schema.ImmutableState)) Scenario {
		return Scenario{
			Name: "state-" + name, Row: "A14", Known: general, Expect: doubtful("malformed"), Summary: "claims a state " + summary,
			Steps: once("change the claimed states", func(st *Stage) error {
				answers(st, change)
				return nil
			}),
		}
	}
	out := []Scenario{
		bad("empty", "that is an empty message", func(s *schema.ImmutableState) { s.Reset() }),
		bad("no-hash", "without a hash", func(s *schema.ImmutableState) { s.TxHash = nil }),
		bad("short-hash", "with a hash of 31 bytes", func(s *schema.ImmutableState) { s.TxHash = s.TxHash[:31] }),
		bad("long-hash", "with a hash of 64 bytes", func(s *schema.ImmutableState) { s.TxHash = append(s.TxHash, s.TxHash...) }),
		bad("huge-id", "of transaction 2⁶³", func(s *schema.ImmutableState) { s.TxId = 1 << 63 }),
		bad("empty-with-hash", "of transaction 0 with the hash of another", func(s *schema.ImmutableState) { s.TxId = 0 }),
		bad("long-name", "of a database with a name of 1 MiB", func(s *schema.ImmutableState) { s.Db = strings.Repeat("x", 1<<20) }),
		bad("long-signature", "with a signature and key of 64 KiB", func(s *schema.ImmutableState) {
			s.Signature = &schema.Signature{PublicKey: make([]byte, 64<<10), Signature: make([]byte, 64<<10)}
		}),
		bad("garbage", "that is no protobuf", func(s *schema.ImmutableState) {
			s.Reset()
			s.ProtoReflect().SetUnknown([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f, 0})
		}),
	}
	far := bad("far-ahead", "of transaction 2⁶², of which it has nothing to show", nil)
	far.Expect = doubtful("refused")
	far.Steps[0].Strike = func(st *Stage) error {
		st.states(func(s *schema.ImmutableState) { s.TxId = 1 << 62 })
		return nil
	}
	return append(out, far)
}

func malformedHeaders() []Scenario {
	list := func(name, summary, reason string, change func(m *schema.TxList)) Scenario {
		return Scenario{
			Name: "headers-" + name, Row: "A14", Known: general, Expect: doubtfulWalk(reason), Summary: "lists transactions " + summary,
			Steps: []Step{
				{"change the lists of transactions", func(st *Stage) error { answers(st, change); return nil }},
				{"commit six transactions", func(st *Stage) error { return st.Write(6) }},
			},
		}
	}
	header := func(name, summary string, change func(h *schema.TxHeader)) Scenario {
		return list(name, "whose headers have "+summary, "malformed", func(m *schema.TxList) {
			for _, tx := range m.GetTxs() {
				if tx.GetHeader() != nil {
					change(tx.Header)
				}
			}
		})
	}
	return []Scenario{
		header("version", "version 7", func(h *schema.TxHeader) { h.Version = 7 }),
		header("negative-version", "version −1", func(h *schema.TxHeader) { h.Version = -1 }),
		header("negative-count", "a negative count of entries", func(h *schema.TxHeader) { h.Nentries = math.MinInt32 }),
		header("uncovered-count", "version 0 and more entries than its hash can cover", func(h *schema.TxHeader) {
			h.Version, h.Metadata, h.Nentries = 0, nil, h.Nentries+1<<16
		}),
		header("uncovered-metadata", "version 0 and metadata, which its hash does not cover", func(h *schema.TxHeader) {
			h.Version, h.Metadata = 0, &schema.TxMetadata{TruncatedTxID: 1}
		}),
		header("long-metadata", "metadata of 64 KiB", func(h *schema.TxHeader) {
			h.Version, h.Metadata = 1, &schema.TxMetadata{Extra: make([]byte, 64<<10)}
		}),
		header("no-digests", "no hashes", func(h *schema.TxHeader) { h.EH, h.PrevAlh, h.BlRoot = nil, nil, nil }),
		header("short-digest", "a root of 20 bytes", func(h *schema.TxHeader) { h.BlRoot = h.BlRoot[:20] }),
		header("zero-id", "number 0", func(h *schema.TxHeader) { h.Id = 0 }),
		header("huge-id", "numbers above 2⁶³", func(h *schema.TxHeader) { h.Id |= 1 << 63 }),
		header("other-id", "other numbers than were asked for", func(h *schema.TxHeader) { h.Id += 5 }),
		header("tree-beyond", "a tree that holds the transaction itself", func(h *schema.TxHeader) { h.BlTxId = h.Id }),
		header("huge-tree", "a tree of 2⁶³ leaves", func(h *schema.TxHeader) { h.BlTxId = 1 << 63 }),
		list("nil", "without headers", "malformed", func(m *schema.TxList) {
			for _, tx := range m.GetTxs() {
				tx.Header = nil
			}
		}),
		list("none", "where there are none, and claims them all the same", "unproven", func(m *schema.TxList) { m.Txs = nil }),
		list("repeated", "twice over, more than were asked for", "malformed", func(m *schema.TxList) { m.Txs = append(m.Txs, m.Txs...) }),
		list("backwards", "backwards", "malformed", func(m *schema.TxList) { slices.Reverse(m.Txs) }),
		list("many", "as half a million empty messages", "too-large", func(m *schema.TxList) {
			// A megabyte on the wire and a hundred times as much in memory.
			m.Reset()
			m.ProtoReflect().SetUnknown(slices.Repeat([]byte{0x0a, 0}, 500_000))
		}),
		list("garbage", "as something that is no protobuf", "malformed", func(m *schema.TxList) {
			m.Reset()
			m.ProtoReflect().SetUnknown([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f, 0})
		}),
	}
}

func malformedProofs() []Scenario {
	bad := func(name, summary string, change func(tx *schema.VerifiableTx)) Scenario {
		return Scenario{
			Name: "proof-" + name, Row: "A14", Known: general, Expect: absurd(), Summary: "answers with a dual proof " + summary,
			Steps: []Step{
				{"change the dual proofs", func(st *Stage) error { st.verifiable(change); return nil }},
				{"commit six transactions", func(st *Stage) error { return st.Write(6) }},
			},
		}
	}
	// What is merely absent is not proven, and a walk proves it.
	absent := func(name, summary string, change func(tx *schema.VerifiableTx)) Scenario {
		s := bad(name, summary, change)
		s.Expect = honest()
		return s
	}
	return []Scenario{
		bad("nil", "that is not there", func(tx *schema.VerifiableTx) { tx.DualProof = nil }),
		bad("nil-source", "without its source header", func(tx *schema.VerifiableTx) { tx.DualProof.SourceTxHeader = nil }),
		bad("nil-target", "without its target header", func(tx *schema.VerifiableTx) { tx.DualProof.TargetTxHeader = nil }),
		bad("other-target", "to another transaction", func(tx *schema.VerifiableTx) { tx.DualProof.TargetTxHeader = tx.DualProof.SourceTxHeader }),
		bad("short-digest", "with a hash of one byte", func(tx *schema.VerifiableTx) { tx.DualProof.ConsistencyProof = [][]byte{{1}} }),
		bad("no-last-leaf", "without the newest leaf", func(tx *schema.VerifiableTx) { tx.DualProof.TargetBlTxAlh = nil }),
		bad("long-inclusion", "with an inclusion path of a thousand nodes", func(tx *schema.VerifiableTx) {
			tx.DualProof.InclusionProof = slices.Repeat([][]byte{make([]byte, 32)}, 1000)
		}),
		bad("longer-inclusion", "with one node too many in its inclusion path", func(tx *schema.VerifiableTx) {
			tx.DualProof.InclusionProof = append(tx.DualProof.InclusionProof, make([]byte, 32))
		}),
		bad("longer-consistency", "with one node too many in its consistency path", func(tx *schema.VerifiableTx) {
			tx.DualProof.ConsistencyProof = append(tx.DualProof.ConsistencyProof, make([]byte, 32))
		}),
		bad("many-terms", "with a linear part of a hundred thousand terms", func(tx *schema.VerifiableTx) {
			if p := tx.DualProof.LinearProof; p != nil {
				p.Terms = slices.Repeat([][]byte{make([]byte, 32)}, 100_000)
			}
		}),
		bad("huge-span", "with a linear part from 0 to 2⁶³", func(tx *schema.VerifiableTx) {
			if p := tx.DualProof.LinearProof; p != nil {
				p.SourceTxId, p.TargetTxId = 0, 1<<63
			}
		}),
		bad("huge-tree", "whose source has a tree of 2⁶³ leaves", func(tx *schema.VerifiableTx) {
			tx.DualProof.SourceTxHeader.BlTxId = 1 << 63
		}),
		bad("needless-advance", "with an advance proof where there is nothing to advance over", func(tx *schema.VerifiableTx) {
			tx.DualProof.LinearAdvanceProof = &schema.LinearAdvanceProof{
				LinearProofTerms: [][]byte{make([]byte, 32), make([]byte, 32)},
				InclusionProofs:  []*schema.InclusionProof{{Leaf: -1, Width: math.MaxInt32}},
			}
		}),
		absent("no-inclusion", "without its inclusion path", func(tx *schema.VerifiableTx) { tx.DualProof.InclusionProof = nil }),
		absent("no-consistency", "without its consistency path", func(tx *schema.VerifiableTx) { tx.DualProof.ConsistencyProof = nil }),
		absent("no-linear", "without its linear part", func(tx *schema.VerifiableTx) { tx.DualProof.LinearProof = nil }),
		absent("short-linear", "with a linear part that stops early", func(tx *schema.VerifiableTx) {
			if p := tx.DualProof.LinearProof; p != nil && len(p.Terms) > 0 {
				p.Terms = p.Terms[:len(p.Terms)-1]
			}
		}),
	}
}

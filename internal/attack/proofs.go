package attack

import (
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// lag is how far the transaction tree stays behind where a scenario needs it
// to: a source's linear part then holds transactions that no tree holds yet.
const lag = 5

// corruption is one part of a dual proof that is made wrong.
type corruption struct {
	name, summary string
	expect        Expectation
	change        func(p *schema.DualProof)
	lagging       bool // needs an advance proof
}

// wrong is a proof that is well-formed and does not verify at a step.
func wrong(check string) Expectation {
	return Expectation{Verdict: isTampered, Kind: "proof", Check: check, DualOnly: true}
}

// absurd is a proof that is not about what was asked for, or has the wrong
// shape: step 1 of docs/protocol.md §4.2.
func absurd() Expectation {
	return Expectation{Verdict: undetermined, Reason: "malformed", DualOnly: true}
}

// proofScenarios corrupt each step and each field of the dual proof in turn,
// docs/protocol.md §4.2.
func proofScenarios() []Scenario {
	var out []Scenario
	for _, c := range append(headerCorruptions(), partCorruptions()...) {
		s := Scenario{
			Name: "proof-" + c.name, Row: "A13", Known: general, Expect: c.expect,
			Summary: "answers with a dual proof whose " + c.summary,
			Steps: []Step{
				{"corrupt the dual proofs", func(st *Stage) error { st.proofs(c.change); return nil }},
				{"commit six transactions", func(st *Stage) error { return st.Write(6) }},
			},
		}
		if c.lagging {
			s.prepare = func(st *Stage) error { return st.fillLagging(lag) }
			s.Steps[1] = Step{"commit fifteen transactions", func(st *Stage) error { return st.Write(15) }}
		}
		out = append(out, s)
	}
	return out
}

// headerCorruptions are step 2: the headers must hash to the two states.
func headerCorruptions() []corruption {
	var out []corruption
	for _, side := range [...]struct {
		name string
		of   func(p *schema.DualProof) *schema.TxHeader
	}{
		{"source", (*schema.DualProof).GetSourceTxHeader},
		{"target", (*schema.DualProof).GetTargetTxHeader},
	} {
		field := func(name, summary string, change func(h *schema.TxHeader)) {
			out = append(out, corruption{
				name: side.name + "-" + name, summary: side.name + " header has " + summary, expect: wrong("alh-" + side.name),
				change: func(p *schema.DualProof) {
					if h := side.of(p); h != nil {
						change(h)
					}
				},
			})
		}
		field("prev-alh", "another previous hash", func(h *schema.TxHeader) { h.PrevAlh = flip(h.PrevAlh) })
		field("time", "another timestamp", func(h *schema.TxHeader) { h.Ts++ })
		field("count", "another count of entries", func(h *schema.TxHeader) { h.Nentries++ })
		field("entries-root", "another root of the entry tree", func(h *schema.TxHeader) { h.EH = flip(h.EH) })
		field("tree-root", "another root of the transaction tree", func(h *schema.TxHeader) { h.BlRoot = flip(h.BlRoot) })
		field("version", "the other version", func(h *schema.TxHeader) {
			h.Version = 1 - h.Version
			h.Metadata = nil
		})
		field("metadata", "metadata that it never had", func(h *schema.TxHeader) {
			h.Version, h.Metadata = 1, &schema.TxMetadata{Extra: []byte("forged")}
		})
		field("truncated", "a record of retention that it never had", func(h *schema.TxHeader) {
			h.Version, h.Metadata = 1, &schema.TxMetadata{TruncatedTxID: 2}
		})
		field("id", "the number of another transaction", func(h *schema.TxHeader) { h.Id++ })
		out[len(out)-1].expect = absurd()
		// Any other size may by chance call for lists of the same lengths.
		field("tree-size", "the root of a tree and no leaf in it", func(h *schema.TxHeader) { h.BlTxId = 0 })
		out[len(out)-1].expect = absurd()
	}
	return out
}

// partCorruptions are the steps after it.
func partCorruptions() []corruption {
	first := func(list [][]byte) {
		if len(list) > 0 {
			list[0] = flip(list[0])
		}
	}
	last := func(list [][]byte) {
		if n := len(list); n > 0 {
			list[n-1] = flip(list[n-1])
		}
	}
	swap := func(list [][]byte) {
		if n := len(list); n > 1 {
			list[0], list[n-1] = list[n-1], list[0]
		}
	}
	advance := func(change func(a *schema.LinearAdvanceProof)) func(p *schema.DualProof) {
		return func(p *schema.DualProof) {
			if a := p.GetLinearAdvanceProof(); a != nil {
				change(a)
			}
		}
	}
	inAdvance := func(change func([][]byte), of func(a *schema.LinearAdvanceProof) *schema.InclusionProof) func(p *schema.DualProof) {
		return advance(func(a *schema.LinearAdvanceProof) {
			if len(a.InclusionProofs) > 0 {
				change(of(a).GetTerms())
			}
		})
	}
	return []corruption{
		{name: "inclusion-first", summary: "inclusion path has another first node (step 3)", expect: wrong("inclusion"), change: func(p *schema.DualProof) { first(p.InclusionProof) }},
		{name: "inclusion-last", summary: "inclusion path has another last node (step 3)", expect: wrong("inclusion"), change: func(p *schema.DualProof) { last(p.InclusionProof) }},
		{name: "inclusion-swapped", summary: "inclusion path has its nodes in another order (step 3)", expect: wrong("inclusion"), change: func(p *schema.DualProof) { swap(p.InclusionProof) }},
		{name: "consistency-first", summary: "consistency path has another first node (step 4)", expect: wrong("consistency"), change: func(p *schema.DualProof) { first(p.ConsistencyProof) }},
		{name: "consistency-last", summary: "consistency path has another last node (step 4)", expect: wrong("consistency"), change: func(p *schema.DualProof) { last(p.ConsistencyProof) }},
		{name: "consistency-swapped", summary: "consistency path has its nodes in another order (step 4)", expect: wrong("consistency"), change: func(p *schema.DualProof) { swap(p.ConsistencyProof) }},
		{name: "last-leaf", summary: "newest leaf is another (step 5)", expect: wrong("last-inclusion"), change: func(p *schema.DualProof) { p.TargetBlTxAlh = flip(p.TargetBlTxAlh) }},
		{name: "last-inclusion-first", summary: "path of the newest leaf has another first node (step 5)", expect: wrong("last-inclusion"), change: func(p *schema.DualProof) { first(p.LastInclusionProof) }},
		{name: "last-inclusion-last", summary: "path of the newest leaf has another last node (step 5)", expect: wrong("last-inclusion"), change: func(p *schema.DualProof) { last(p.LastInclusionProof) }},
		{name: "linear-start", summary: "linear part begins elsewhere (step 6)", expect: wrong("linear"), change: func(p *schema.DualProof) { first(p.GetLinearProof().GetTerms()) }},
		{name: "linear-end", summary: "linear part ends elsewhere (step 6)", expect: wrong("linear"), change: func(p *schema.DualProof) { last(p.GetLinearProof().GetTerms()) }},
		{name: "linear-source", summary: "linear part claims to begin at another transaction (step 6)", expect: absurd(), change: func(p *schema.DualProof) {
			if p.LinearProof != nil {
				p.LinearProof.SourceTxId++
			}
		}},
		{name: "linear-target", summary: "linear part claims to end at another transaction (step 6)", expect: absurd(), change: func(p *schema.DualProof) {
			if p.LinearProof != nil {
				p.LinearProof.TargetTxId++
			}
		}},
		{name: "advance-first", summary: "advance proof begins elsewhere (step 7)", lagging: true, expect: wrong("linear-advance"), change: advance(func(a *schema.LinearAdvanceProof) { first(a.LinearProofTerms) })},
		{name: "advance-last", summary: "advance proof ends elsewhere (step 7)", lagging: true, expect: wrong("linear-advance"), change: advance(func(a *schema.LinearAdvanceProof) { last(a.LinearProofTerms) })},
		{name: "advance-inclusion-first", summary: "advance proof has another node in its first path (step 7)", lagging: true, expect: wrong("linear-advance"), change: inAdvance(first, func(a *schema.LinearAdvanceProof) *schema.InclusionProof { return a.InclusionProofs[0] })},
		{name: "advance-inclusion-last", summary: "advance proof has another node in its last path (step 7)", lagging: true, expect: wrong("linear-advance"), change: inAdvance(last, func(a *schema.LinearAdvanceProof) *schema.InclusionProof {
			return a.InclusionProofs[len(a.InclusionProofs)-1]
		})},
		{name: "advance-swapped", summary: "advance proof has its paths in another order (step 7)", lagging: true, expect: wrong("linear-advance"), change: advance(func(a *schema.LinearAdvanceProof) {
			if n := len(a.InclusionProofs); n > 1 {
				a.InclusionProofs[0], a.InclusionProofs[n-1] = a.InclusionProofs[n-1], a.InclusionProofs[0]
			}
		})},
	}
}

// proofs changes every dual proof about the attacked database, whoever asked.
func (st *Stage) proofs(change func(p *schema.DualProof)) {
	st.verifiable(func(tx *schema.VerifiableTx) {
		if tx.GetDualProof() != nil {
			change(tx.DualProof)
		}
	})
}

// verifiable changes every provable transaction that is answered.
func (st *Stage) verifiable(change func(tx *schema.VerifiableTx)) {
	answers(st, change)
	answers(st, func(e *schema.VerifiableEntry) {
		if e.GetVerifiableTx() != nil {
			change(e.VerifiableTx)
		}
	})
}

// fillLagging makes a history whose trees lag, as servers before 1.3.2 left it
// (docs/protocol.md §3).
func (st *Stage) fillLagging(by uint64) error {
	db, err := st.database()
	if err != nil {
		return err
	}
	db.SetBlTxID(lagging(by))
	return st.Write(historyLength)
}

func lagging(by uint64) func(string, uint64) uint64 {
	return func(_ string, id uint64) uint64 { return id - 1 - min(id-1, by) }
}

// forgedHeader is transaction id as it never was: in its place in the chain,
// with other content.
func forgedHeader(h *ledger.History, id uint64) ledger.Header {
	hd := *h.Header(id)
	hd.EH = ledger.HashValue([]byte(forged))
	return hd
}

package attack

import (
	"bytes"
	"context"
	"fmt"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// advanceScenarios are CVE-2022-36111: the tree of the audited header lags, and
// a transaction that only the linear part covered enters the tree as another
// one. A verifier without step 7 of docs/protocol.md §4.2 accepts it.
func advanceScenarios() []Scenario {
	var out []Scenario
	for version := range 2 {
		for _, v := range [...]struct{ name, summary string }{
			{"forged", "and forges the advance proof where it passes the swapped one"},
			{"missing", "and leaves the advance proof out, as servers before 1.4.1 do"},
			{"honest", "and gives the advance proof that follows from its chain"},
		} {
			out = append(out, Scenario{
				Name: fmt.Sprintf("advance-%s-v%d", v.name, version), Row: "A15", Known: cveLag,
				Summary: fmt.Sprintf("swaps a transaction under a lagging tree, headers of version %d, %s", version, v.summary),
				Expect:  Expectation{Verdict: isTampered, Kind: "tree", Check: "bl-root", DualKind: "proof", DualCheck: "linear-advance", FirstBad: underLag},
				prepare: func(st *Stage) error {
					db, err := st.database()
					if err != nil {
						return err
					}
					if err := db.SetHeaderVersion(version); err != nil {
						return err
					}
					return st.fillLagging(lag)
				},
				Steps: once("swap a transaction that no audited tree holds, and commit until one does", func(st *Stage) error {
					return st.swapUnderLag(v.name)
				}),
			})
		}
	}
	return out
}

// underLag is the transaction that is swapped: the tree has not taken it in yet.
func underLag(n uint64) uint64 { return n - 2 }

func (st *Stage) swapUnderLag(proof string) error {
	n, err := st.last()
	if err != nil {
		return err
	}
	victim := underLag(n)
	swapped, err := st.swapLeaf(victim)
	if err != nil {
		return err
	}
	switch proof {
	case "missing":
		st.proofs(func(p *schema.DualProof) { p.LinearAdvanceProof = nil })
	case "forged":
		inner := swapped.Inner()
		st.proofs(func(p *schema.DualProof) {
			// Terms stand for Alh(start+1) and the inner hashes after it; with
			// the forged one the swapped leaf is reached and included.
			start := p.GetSourceTxHeader().GetBlTxId()
			terms := p.GetLinearAdvanceProof().GetLinearProofTerms()
			if at := victim - start - 1; victim > start+1 && at < uint64(len(terms)) {
				terms[at] = inner[:]
			}
		})
	}
	return st.Write(15)
}

// junkFrom is the first of ten new transactions that is junk in the tree.
const junkFrom = 4

// treeScenarios put leaves into the transaction tree that are not the chain's:
// docs/protocol.md §4.2 step 8.
func treeScenarios() []Scenario {
	leaf := Expectation{Verdict: isTampered, Kind: "tree", Check: "bl-root", DualKind: "tree", DualCheck: "leaf-binding", FirstBad: newest}
	const behind = 3 // transactions that a lagging tree has not taken in
	return []Scenario{
		{
			Name: "leaf-swap", Row: "A31", Known: own, Expect: leaf,
			Summary: "puts another transaction N into the tree while N+1 is committed, the chain untouched; then shows it to whoever asks for N",
			Steps:   swapSteps(0),
		},
		{
			Name: "leaf-swap-lagging", Row: "A31", Known: own, Expect: leaf.from(func(n uint64) uint64 { return n - behind }),
			Summary: "as leaf-swap, where the tree lags: the swapped leaf lies before the audited transaction",
			prepare: func(st *Stage) error { return st.fillLagging(behind) },
			Steps:   swapSteps(behind),
		},
		{
			Name: "leaf-swap-catching-up", Row: "A31", Known: own, Expect: leaf,
			Summary: "as leaf-swap, where a lagging tree catches up in one step, with an advance proof that leads to the swapped leaf",
			prepare: func(st *Stage) error { return st.fillLagging(behind) },
			Steps: append([]Step{{"end the lag", func(st *Stage) error {
				db, err := st.Ledger.Database(st.Database)
				if err == nil {
					db.SetBlTxID(nil)
				}
				return err
			}}}, swapSteps(0)...),
		},
		{
			Name: "junk-leaves", Row: "A32", Known: own,
			Expect:  Expectation{Verdict: isTampered, Kind: "tree", Check: "bl-root", WalkOnly: true, FirstBad: func(n uint64) uint64 { return n + junkFrom }},
			Summary: "puts other transactions into the tree for some between two audited states, the chain untouched; then shows them to whoever asks",
			Steps: once("commit ten transactions, swap the leaves of four of them, and commit one more", func(st *Stage) error {
				n, err := st.last()
				if err != nil {
					return err
				}
				if err := st.Write(10); err != nil {
					return err
				}
				for tx := n + junkFrom; tx < n+8; tx++ {
					swapped, err := st.swapLeaf(tx)
					if err != nil {
						return err
					}
					st.show(tx, swapped)
				}
				return st.Write(1)
			}),
		},
		{
			Name: "lagging-trees", Row: "A33", Known: "immudb before 1.3.2", Expect: honest(),
			Summary: "no attack: trees that lag behind, and that step back, as concurrent writes left them",
			prepare: func(st *Stage) error {
				db, err := st.database()
				if err != nil {
					return err
				}
				db.SetBlTxID(unsteady)
				return st.Write(historyLength)
			},
			Steps: once("commit thirty transactions", func(st *Stage) error { return st.Write(30) }),
		},
	}
}

// unsteady lags by 0 to 18, not monotonously, as the v1.2.4 recording does.
func unsteady(_ string, id uint64) uint64 {
	return id - 1 - min(id-1, id*7%19)
}

// swapSteps swap the leaf that enters the tree next, commit, and show the
// swapped transaction.
func swapSteps(behind uint64) []Step {
	return []Step{
		{"put another transaction N into the tree while N+1 is committed", func(st *Stage) error {
			n, err := st.last()
			if err != nil {
				return err
			}
			victim := n - behind
			swapped, err := st.swapLeaf(victim)
			if err != nil {
				return err
			}
			st.show(victim, swapped)
			return st.Write(1)
		}},
		{"commit more, on which every audit by dual proof passes", func(st *Stage) error { return st.Write(6) }},
	}
}

// swapLeaf puts a forged transaction into the tree in the place of an honest one.
func (st *Stage) swapLeaf(id uint64) (swapped ledger.Header, err error) {
	err = st.tamper(func(h *ledger.History, _ uint64) {
		swapped = forgedHeader(h, id)
		h.SetLeaf(id, swapped.Alh())
	})
	return swapped, err
}

// show makes answers lead to the swapped transaction where they can: a dual
// proof from it, or through it to the newest leaf.
func (st *Stage) show(id uint64, swapped ledger.Header) {
	inner, alh := swapped.Inner(), swapped.Alh()
	st.Layer.Add(Rule{Method: "VerifiableTxById", Database: st.Database, Change: func(_ context.Context, c *Call) error {
		req, _ := c.Request.(*schema.VerifiableTxRequest)
		m, _ := c.Response.(*schema.VerifiableTx)
		p := m.GetDualProof()
		source, target := p.GetSourceTxHeader(), p.GetTargetTxHeader()
		if req == nil || source == nil || target == nil {
			return nil
		}
		terms := p.GetLinearAdvanceProof().GetLinearProofTerms()
		// The one who asks for N itself, against a later state, is shown the
		// swapped one; the auditor that moves on from N asks for the later one.
		if req.GetTx() == id && source.GetId() == id && id < target.GetBlTxId() {
			rewrite(source, swapped)
			rewrite(m.GetTx().GetHeader(), swapped)
			if n := len(terms); n > 0 {
				terms[n-1] = inner[:]
			}
			return nil
		}
		// An advance proof that ends at the swapped leaf, which is what the
		// proof names as the tree's newest.
		if n := len(terms); n > 1 && target.GetBlTxId() == id && bytes.Equal(p.GetTargetBlTxAlh(), alh[:]) && source.GetId() >= id {
			terms[n-1] = inner[:]
		}
		return nil
	}})
}

// rewrite makes a header on the wire the swapped one.
func rewrite(h *schema.TxHeader, swapped ledger.Header) {
	if h.GetId() == swapped.ID {
		h.EH = bytes.Clone(swapped.EH[:])
	}
}

package audit

import (
	"errors"
	"slices"
	"strconv"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// findingOf turns a mismatch into a finding; false for any other error. The
// kind follows from the check that failed, except that the caller looks for a
// fork first.
func findingOf(err error) (evidence.Finding, bool) {
	var fork *forkError
	if errors.As(err, &fork) {
		return fork.finding, true
	}
	var m *proof.Mismatch
	if !errors.As(err, &m) {
		return evidence.Finding{}, false
	}
	f := evidence.Finding{Check: string(m.Check), Tx: m.Tx, Detail: m.Detail}
	if m.Want != m.Got {
		f.Want, f.Got = m.Want.String(), m.Got.String()
	}
	if f.Detail == "" {
		f.Detail = details[m.Check]
	}
	switch m.Check {
	case proof.CheckBlRoot, proof.CheckLeafBinding:
		// Leaf binding: docs/protocol.md §4.2 step 8. The chain is whole, the
		// tree holds another leaf.
		f.Kind = evidence.Tree
	case proof.CheckID, proof.CheckPrevAlh, proof.CheckAlh:
		f.Kind = evidence.Header
	case proof.CheckSignature:
		f.Kind = evidence.SignatureInvalid
	case proof.CheckEntryTree, proof.CheckEntryInclusion:
		f.Kind = evidence.Entries
	case proof.CheckValue:
		f.Kind = evidence.Value
	default:
		f.Kind = evidence.Proof
	}
	return f, true
}

// details says for a person what a failed check means, where the mismatch
// itself does not.
var details = map[proof.Check]string{
	proof.CheckPrevAlh:       "its header does not continue the transaction before it",
	proof.CheckAlhSource:     "the proof starts from another transaction than the trusted one",
	proof.CheckAlhTarget:     "the proof leads to another transaction than the one that the server claims",
	proof.CheckInclusion:     "the trusted transaction is not in the tree that the server claims",
	proof.CheckConsistency:   "the tree that the server claims does not extend the trusted one",
	proof.CheckLastInclusion: "the newest leaf is not in the tree that the server claims",
	proof.CheckLinear:        "the chain does not lead to the transaction that the server claims",
	proof.CheckLinearAdvance: "transactions were swapped where the tree took them in (CVE-2022-36111)",
}

func forked(tx uint64, want, got proof.Hash) evidence.Finding {
	return evidence.Finding{
		Kind: evidence.Fork, Check: string(proof.CheckAlh), Tx: tx, Want: want.String(), Got: got.String(),
		Detail: "transaction " + strconv.FormatUint(tx, 10) + " is not the one that was proven before: the history was rewritten at or before it",
	}
}

// forkedLeaf is forked where only the mirror's leaf hash is remembered.
func forkedLeaf(tx uint64, want, got proof.Hash) evidence.Finding {
	f := forked(tx, want, got)
	f.Detail += " (leaf hashes)"
	return f
}

func rolledBack(trusted, observed proof.State) evidence.Finding {
	f := evidence.Finding{
		Kind: evidence.Rollback, Check: "growth", Tx: observed.TxID,
		Want:   "transaction " + strconv.FormatUint(trusted.TxID, 10) + " or later",
		Got:    "transaction " + strconv.FormatUint(observed.TxID, 10),
		Detail: strconv.FormatUint(trusted.TxID-observed.TxID, 10) + " proven transactions are missing from the end",
	}
	if observed.TxID == 0 {
		f.Kind = evidence.Emptied
		f.Detail = "the database is empty; " + strconv.FormatUint(trusted.TxID, 10) + " proven transactions are gone"
	}
	return f
}

// wrongDatabase is an answer for another database than was asked for. Its name
// is the server's text, so it is quoted.
func wrongDatabase(want string, s *proof.SignedState) evidence.Finding {
	return evidence.Finding{
		Kind: evidence.WrongDatabase, Check: "database", Tx: s.TxID,
		Want: want, Got: strconv.QuoteToASCII(s.DB), Detail: "the server answers for another database",
	}
}

// addFinding keeps the list within bounds, free of repetition, and the most
// telling first: that is the one that incidents and events speak of.
func addFinding(list []evidence.Finding, f evidence.Finding) []evidence.Finding {
	for _, other := range list {
		if other == f {
			return list
		}
	}
	if len(list) >= evidence.MaxFindings {
		return list
	}
	at := len(list)
	for at > 0 && list[at-1].Kind.Rank() > f.Kind.Rank() {
		at--
	}
	return slices.Insert(list, at, f)
}

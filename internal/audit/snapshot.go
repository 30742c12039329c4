package audit

import (
	"slices"
	"sort"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// view is what a round works on: a copy of what was remembered when it began.
// Its walk is shared and is cloned before it moves.
type view struct {
	epoch  uint64
	trust  evidence.Trust
	walk   *walked
	marks  []proof.State // ascending, above walk.At()
	open   []evidence.Incident
	past   *mirrored
	ahead  *reached  // where walk stands if that is not stored
	newest time.Time // the newest timestamp seen of a proven transaction
	trace  bool      // the checks are to be noted, one by one
}

// view copies the ledger's memory.
func (l *ledger) view() view {
	l.mu.Lock()
	defer l.mu.Unlock()
	return view{epoch: l.epoch, trust: l.trust, walk: l.walk, marks: l.marks, open: l.open, past: l.past, newest: l.newest}
}

// known reports whether there is a baseline to compare with.
func (v *view) known() bool { return known(&v.trust) }

func known(t *evidence.Trust) bool { return t.Version > 0 && t.Baseline.Origin != "" }

// frozen reports whether an open incident about the chain forbids new trust.
func (v *view) frozen() bool { return frozen(v.open) }

func frozen(open []evidence.Incident) bool {
	for _, inc := range open {
		if !inc.Kind.AboutData() {
			return true
		}
	}
	return false
}

// has reports whether an incident of that kind is open already.
func (v *view) has(kind evidence.Kind) bool {
	for _, inc := range v.open {
		if inc.Kind == kind {
			return true
		}
	}
	return false
}

// owes reports whether the evidence of such an incident could not be written.
func (v *view) owes(kind evidence.Kind) bool {
	return slices.ContainsFunc(v.open, func(inc evidence.Incident) bool { return inc.Kind == kind && inc.EvidenceError != "" })
}

// remembered finds the Alh that is remembered for a transaction: of the states
// that were proven, and of the newest ones that were walked.
func (v *view) remembered(tx uint64) (proof.Hash, bool) {
	if v.trust.Proven.TxID == tx {
		return v.trust.Proven.Alh, true
	}
	if v.trust.Baseline.State.TxID == tx {
		return v.trust.Baseline.State.Alh, true
	}
	if alh, ok := v.walk.Alh(tx); ok {
		return alh, true
	}
	i := sort.Search(len(v.marks), func(i int) bool { return v.marks[i].TxID >= tx })
	if i < len(v.marks) && v.marks[i].TxID == tx {
		return v.marks[i].Alh, true
	}
	return proof.Hash{}, false
}

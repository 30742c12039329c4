package evidence

import (
	"slices"

	"immuaudit/proof"
)

// account is what a file holds of the transactions around a divergence, as
// leaf hashes: for that is all that a probe keeps of what was remembered.
type account struct {
	remembered map[uint64]proof.Hash
	shown      map[uint64][]proof.Hash
	breaks     map[uint64]bool // transactions whose header does not name the one before
	observed   uint64          // the last transaction that was shown, 0 where that is not known
}

func (f *File) account() *account {
	a := &account{remembered: map[uint64]proof.Hash{}, shown: map[uint64][]proof.Hash{}, breaks: map[uint64]bool{}, observed: f.Observed.TxID}
	for i, s := range f.allStates() {
		switch {
		case s.TxID == 0:
		case i == 1: // the observed one
			a.show(s.State)
		default:
			a.remembered[s.TxID] = proof.LeafHash(s.Alh)
		}
	}
	for i := range f.Probes {
		p := &f.Probes[i]
		a.remembered[p.Tx] = p.Leaf
		if p.Shown != nil {
			a.show(proof.State{TxID: p.Tx, Alh: *p.Shown})
		}
	}
	for i := range f.Headers {
		h := &f.Headers[i]
		a.show(stateOf(h))
		before, known := a.remembered[h.ID-1]
		follows := known && before == proof.LeafHash(h.PrevAlh)
		a.breaks[h.ID] = known && !follows
		// Behind the trusted state, to agree is to continue it.
		if _, known := a.remembered[h.ID]; follows && !known && h.ID > f.Trusted.TxID && !isZero(&f.Trusted) {
			a.remembered[h.ID] = proof.LeafHash(h.Alh())
		}
	}
	return a
}

func (a *account) show(s proof.State) {
	a.shown[s.TxID] = append(a.shown[s.TxID], proof.LeafHash(s.Alh))
}

// looks reports whether a transaction was shown as it is remembered, and
// whether it was shown otherwise.
func (a *account) looks(tx uint64) (same, other bool) {
	leaf, known := a.remembered[tx]
	if !known {
		return false, false
	}
	shown := a.shown[tx]
	return slices.Contains(shown, leaf), slices.ContainsFunc(shown, func(h proof.Hash) bool { return h != leaf })
}

// recomputeDivergence says of each end of the divergence whether the file
// bears it out: it is the auditor's word wherever it does not.
func (o *Outcome) recomputeDivergence(say func(string, ...any)) {
	f, d := o.File, o.File.Divergence
	if d == nil || f.Kind.AboutData() {
		return
	}
	if d.FirstBadTx > 0 && d.FirstBadTx <= d.LastGoodTx {
		say("That the ledger parts at transaction %d and agrees up to %d cannot both be.", d.FirstBadTx, d.LastGoodTx)
		return
	}
	a := f.account()
	if good := d.LastGoodTx; good > 0 {
		switch same, other := a.looks(good); {
		case same && other:
			say("Transaction %d was shown both as it is remembered and otherwise: the server contradicts itself.", good)
		case same && good > f.Trusted.TxID && !isZero(&f.Trusted):
			say("Transaction %d was shown to continue what is remembered.", good)
		case same:
			say("Transaction %d was shown as it is remembered.", good)
		case other:
			say("Transaction %d is said to agree, and was shown otherwise than it is remembered.", good)
		default:
			say("Nothing in the file shows transaction %d as it is remembered: that it agrees is the auditor's word.", good)
		}
	}
	if bad := d.FirstBadTx; bad > 0 {
		switch same, other := a.looks(bad); {
		case same && other:
			say("Transaction %d was shown both as it is remembered and otherwise: the server contradicts itself.", bad)
		case other:
			say("Transaction %d was shown otherwise than it is remembered.", bad)
		case bad > a.observed && !isZero(&f.Observed):
			say("Transaction %d is missing: the observed state ends at transaction %d.", bad, a.observed)
		case f.Kind == Tree:
			say("The leaf of transaction %d in the transaction tree is the auditor's word, and the notes of its probes.", bad)
		case same:
			say("Transaction %d is said to differ, and was shown as it is remembered.", bad)
		case a.breaks[bad]:
			say("The header of transaction %d does not follow transaction %d.", bad, bad-1)
		default:
			say("Nothing in the file shows transaction %d otherwise than it is remembered: that it differs is the auditor's word.", bad)
		}
	}
	// An Alh commits to all before it: what agrees behind the divergence, or
	// differs before it, is at odds with it. A tree may differ in one leaf.
	for _, p := range f.Probes {
		switch same, other := a.looks(p.Tx); {
		case p.Tx == d.LastGoodTx || p.Tx == d.FirstBadTx || f.Kind == Tree:
		case other && (p.Tx < d.LastGoodTx || d.FirstBadTx == 0):
			say("Transaction %d was shown otherwise than it is remembered, which is at odds with where the ledger is said to part.", p.Tx)
		case same && p.Tx > d.FirstBadTx && d.FirstBadTx > 0:
			say("Transaction %d, which commits to all before it, was shown as it is remembered: the server contradicts itself.", p.Tx)
		}
	}
}

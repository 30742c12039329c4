package audit

import (
	"context"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
	"immuaudit/proof"
)

// verifyNew verifies the contents of what a round has just proven, before trust
// advances over it. What does not fit into one round is gone on with in the
// next, as long as the history is the same.
func (e *Engine) verifyNew(ctx context.Context, l *ledger, v *view, out *outcome) {
	if e.o.Deep.Source == nil || !e.o.Deep.NewValues || out.proven == nil || out.first || len(out.findings) > 0 || out.doubt != nil {
		return
	}
	trusted, goal := v.trust.Proven.State, out.proven.State
	if goal.TxID <= trusted.TxID || v.frozen() {
		return
	}
	from := trusted.TxID + 1
	l.mu.Lock()
	checked := l.checked
	l.mu.Unlock()
	if alh, ok := out.walkedAlh(checked.TxID); ok && alh == checked.Alh && checked.TxID >= from {
		from = checked.TxID + 1
	}
	if from > goal.TxID {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, roundTimeout/2)
	defer cancel()
	began := time.Now()
	bindings := []proof.State{trusted, goal}
	if trusted.TxID == 0 {
		bindings = bindings[1:]
	}
	g := e.lookInto(ctx, v, from, goal.TxID, false, bindings, verify.Options{BytesPerSecond: e.o.Deep.BytesPerSecond})
	g.unseen = true
	out.damaged(g.damages)
	if g.doubt == nil && g.sum.Unsettled.TxID <= goal.TxID {
		// Of what earlier rounds looked at it is not known here whether it held:
		// then the background looks at all of it.
		if v.trust.Scrub.Settled >= trusted.TxID && from == trusted.TxID+1 {
			out.scrubbed = &g
		}
		return
	}
	if alh, ok := out.walkedAlh(g.sum.Through); ok && g.sum.Through >= from {
		l.mu.Lock()
		l.checked = proof.State{TxID: g.sum.Through, Alh: alh}
		l.mu.Unlock()
	}
	switch {
	case len(g.damages) > 0: // that much is sure
	case g.doubt == nil:
		out.doubt = doubtf(evidence.Unproven, "values are gone, and the transaction that explains it, %d, is not trusted yet", g.sum.Unsettled.TxID)
	case ctx.Err() != nil:
		out.doubt = doubtf(evidence.Timeout, "verifying the values of transactions %d to %d takes longer than a round: %d of them in %s; the next round goes on from there",
			from, goal.TxID, g.sum.Through+1-from, time.Since(began).Round(time.Millisecond))
	default:
		out.doubt = g.doubt
	}
	out.unverified = len(g.damages) > 0 || out.doubt != nil
}

// walkedAlh gives the Alh of a transaction that this round walked over.
func (o *outcome) walkedAlh(tx uint64) (proof.Hash, bool) {
	if len(o.alhs) > 0 && tx >= o.begins && tx-o.begins < uint64(len(o.alhs)) {
		return o.alhs[tx-o.begins], true
	}
	return proof.Hash{}, false
}

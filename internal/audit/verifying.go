package audit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
)

// Verification is a deep verification that somebody asked for.
type Verification struct {
	// From and To are its first and last transaction; 0 is the first there is,
	// and the trusted one.
	From, To uint64
	// Sample is the share of the transactions to look at, in blocks taken at
	// random; 0 and 1 are all of them.
	Sample float64
	// Progress is told how far it has come, of the whole.
	Progress func(verify.Progress)
}

// Walk brings the walk over a ledger, and its mirror, up to what is proven of
// it: contents can be recorded as verified only that far. progress is told how
// far it has come, of how many transactions.
func (e *Engine) Walk(ctx context.Context, database string, progress func(at, to uint64)) evidence.Report {
	l := e.ledger(database)
	if l == nil || e.walkRate == nil {
		return evidence.Report{}
	}
	for ctx.Err() == nil {
		v := l.view()
		at := v.walk.At().TxID
		if !v.known() || v.frozen() || at >= v.trust.Proven.TxID {
			break
		}
		e.walkBehind(ctx, l, walkSave)
		now := l.view()
		if now.walk.At().TxID <= at {
			break
		}
		// Before more waits for it than is kept.
		e.mirror(ctx, l)
		progress(now.walk.At().TxID, now.trust.Proven.TxID)
	}
	if l.past != nil && e.mirror(ctx, l) {
		e.refill(ctx, l)
	}
	return e.standing(l, nil)
}

// sampleBlock is how many transactions in a row are looked at or passed over.
const sampleBlock = 1000

// Verify verifies the contents of a ledger that is known, and records what does
// not hold as a round does. How far it came is stored as it goes. The error says
// why not everything could be looked at; damage is none.
func (e *Engine) Verify(ctx context.Context, database string, o Verification) (verify.Summary, evidence.Report, error) {
	l := e.ledger(database)
	if l == nil {
		return verify.Summary{}, evidence.Report{}, errTooMany
	}
	v := l.view()
	if !v.known() || v.trust.Proven.TxID == 0 {
		return verify.Summary{}, e.standing(l, nil), nil
	}
	newest := v.trust.Proven.TxID
	from, to := max(o.From, begins(&v.trust)), o.To
	if to == 0 {
		to = newest
	}
	if from > to || to > newest {
		return verify.Summary{}, evidence.Report{}, fmt.Errorf("transactions %d to %d: those from %d to %d can be verified", from, to, begins(&v.trust), newest)
	}
	total := verify.Summary{From: from, To: to, Through: from - 1, Clean: from - 1}
	clean := true
	var unread *doubt
	for at := from; at <= to; {
		end := to
		whole := o.Sample <= 0 || o.Sample >= 1
		if !whole {
			end = min(to, at+sampleBlock-1)
			if rand.Float64() >= o.Sample && !(end == to && total.Transactions == 0) { // at least one
				total.Through, at = end, end+1
				continue
			}
		}
		began := time.Now()
		before := total.Tally
		g := e.lookInto(ctx, &v, at, end, true, v.bindings(), verify.Options{
			BytesPerSecond: e.o.Deep.BytesPerSecond,
			Progress: func(p verify.Progress) {
				if o.Progress != nil {
					sum := before
					sum.Add(p.Tally)
					o.Progress(verify.Progress{Through: p.Through, To: to, Tally: sum})
				}
			},
		})
		g.unseen = at <= v.trust.Scrub.Settled+1 && g.looked() > v.trust.Scrub.Settled
		total.Tally.Add(g.sum.Tally)
		total.Damages = append(total.Damages, g.sum.Damages[:min(len(g.sum.Damages), evidence.MaxFindings-len(total.Damages))]...)
		if len(total.Unread) == 0 {
			total.Through = max(total.Through, g.sum.Through)
		}
		total.Unread = append(total.Unread, g.sum.Unread[:min(len(g.sum.Unread), evidence.MaxFindings-len(total.Unread))]...)
		if clean && total.Clean+1 >= at {
			total.Clean = max(total.Clean, g.sum.Clean)
		}
		clean = clean && g.sum.Clean >= g.sum.Through
		if !whole {
			g.unseen = false
		}
		r := e.settleAsked(ctx, l, &v, &g, began, whole)
		if r.Reason == evidence.StateProblem || r.Reason == evidence.Unstable {
			return total, r, fmt.Errorf("storing what was verified: %s", r.Detail)
		}
		v = l.view()
		switch {
		case ctx.Err() != nil:
			return total, e.standing(l, g.doubt), &verify.Stopped{At: total.Through + 1, Err: context.Cause(ctx)}
		case g.doubt != nil && (g.looked() < at || len(g.sum.Unread) == 0 && !g.ended):
			return total, e.standing(l, g.doubt), &verify.Stopped{At: min(total.Through, g.sum.Through) + 1, Err: g.doubt}
		}
		if len(g.sum.Unread) > 0 && unread == nil {
			unread = g.doubt
		}
		at = g.looked() + 1
	}
	// An operator who repaired something is waiting for this.
	l.mu.Lock()
	l.recheckAt = time.Time{}
	l.mu.Unlock()
	e.recheck(ctx, l, &v, time.Now())
	if n := total.Tally.Unread; n > 0 && unread != nil {
		d := doubtf(unread.reason, "%d transactions could not be read, the first is %d: %s", n, total.Unread[0].Tx, unread.detail)
		return total, e.standing(l, d), d
	}
	return total, e.standing(l, nil), nil
}

// settleAsked stores how far a run came only where it goes on from what was
// looked at before.
func (e *Engine) settleAsked(ctx context.Context, l *ledger, v *view, g *glance, began time.Time, whole bool) evidence.Report {
	if !whole || !g.unseen {
		g2 := *g
		g2.from = g.looked() + 1 // nothing of it is stored but damage
		return e.settle(context.WithoutCancel(ctx), l, v, &g2, began)
	}
	return e.settle(context.WithoutCancel(ctx), l, v, g, began)
}

// standing is the verdict that stands over a ledger, or why there is none.
func (e *Engine) standing(l *ledger, d *doubt) evidence.Report {
	v := l.view()
	out := outcome{behind: true, observed: v.trust.Proven, have: v.known(), doubt: d}
	return e.report(context.Background(), l, &v, out, time.Now(), time.Now())
}

package audit

import (
	"context"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
)

// left is the first transaction that was looked at and is not verified, though
// no open incident says why: it could not be read. 0: none. l.mu is held.
func (l *ledger) left() uint64 {
	t := &l.trust
	first := max(t.Verified+1, begins(t))
	if first > t.Scrub.Settled || damagesIn(l.open) > 0 {
		return 0
	}
	return first
}

// leftDue reports whether that one is to be looked at again. What was never
// looked at comes first. l.mu is held.
func (l *ledger) leftDue(now time.Time) bool {
	return !now.Before(l.leftAfter) && l.trust.Scrub.Settled >= l.trust.Walked && l.left() > 0
}

// lookBack looks again at the first transaction that could not be read, one
// call every now and then. Once it can be read, everything from there on is
// verified again, for only then it can be said how far all of it holds.
func (e *Engine) lookBack(ctx context.Context, l *ledger, v *view, began time.Time) {
	l.mu.Lock()
	due, tx := l.leftDue(began), l.left()
	l.mu.Unlock()
	if !due {
		return
	}
	g := e.lookInto(ctx, v, tx, tx, false, v.bindings(), verify.Options{BytesPerSecond: e.o.Deep.BytesPerSecond})
	readable := g.doubt == nil && len(g.sum.Unread) == 0
	pause := deepRetry
	l.mu.Lock()
	if readable && l.leftAt == tx { // that was tried, and did not help
		pause = leftRetry
	}
	if readable {
		l.leftAt = tx
	}
	l.leftAfter = time.Now().Add(pause)
	l.mu.Unlock()
	if !readable {
		return
	}
	e.log.Info("what could not be read can be read now; it is verified from there on", "database", l.name.Database, "transaction", tx)
	out := outcome{behind: true, observed: v.trust.Proven, have: true, again: true}
	if r := e.conclude(ctx, l, v, out, began); r.Verdict == evidence.Undetermined {
		return
	}
	*v = l.view()
}

package audit

import (
	"context"
	"time"

	"immuaudit/evidence"
)

// round audits one ledger once and reports. The record it began with is
// compared and swapped, so that a decision made meanwhile voids it.
func (e *Engine) round(ctx context.Context, l *ledger) evidence.Report {
	began := time.Now()
	roundCtx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	v := l.view()
	out := e.examine(roundCtx, &v)
	if len(out.findings) > 0 && !v.has(evidence.Worst(out.findings)) {
		out = e.confirm(roundCtx, &v)
	}
	if out.doubt != nil && out.doubt.reason == evidence.NotFound {
		out = e.lookFor(roundCtx, l, &v)
	} else if out.doubt == nil || out.have {
		l.found()
	}
	e.verifyNew(roundCtx, l, &v, &out)
	report := e.conclude(ctx, l, &v, out, began)
	if report.Verdict != evidence.Consistent && report.Reason != evidence.FirstContact && out.goal.TxID == 0 {
		return report
	}
	if !e.once {
		e.beginWalk(ctx, l)
		return report
	}
	// A round that is made alone does not wait for the walk to catch up, but
	// takes a stretch of it, so that an auditor run by cron gets there too.
	if e.walkRate != nil && ctx.Err() == nil {
		walkCtx, cancel := context.WithTimeout(ctx, roundTimeout)
		defer cancel()
		if r := e.walkBehind(walkCtx, l, max(e.o.WalkLimit, defaultWalk)); r.Verdict == evidence.Tampered {
			return r
		}
		if e.mirror(walkCtx, l) {
			if r := e.refill(walkCtx, l); r.Verdict == evidence.Tampered {
				return r
			}
		}
	}
	return report
}

// confirm repeats an examination on a token that was just bound by name, with
// the right database named before and after. A mismatch counts only if it
// shows again then: a stale token holds the index of a database, which can
// honestly have come to mean another one, and proofs carry no name
// (docs/protocol.md §1).
func (e *Engine) confirm(ctx context.Context, v *view) outcome {
	db := v.trust.Name.Database
	if err := e.o.Server.Bind(ctx, db); err != nil {
		return outcome{doubt: doubtOf(err)}
	}
	binding := e.o.Server.Binding(db)
	v.trace = true
	out := e.examine(ctx, v)
	v.trace = false
	if len(out.findings) == 0 || evidence.Worst(out.findings) == evidence.WrongDatabase {
		return out
	}
	after, err := e.o.Server.CurrentState(ctx, db)
	switch {
	case err != nil:
		return outcome{observed: out.observed, have: true, doubt: doubtOf(err)}
	case binding == 0 || e.o.Server.Binding(db) != binding:
		return outcome{observed: out.observed, have: true, doubt: doubtf(evidence.Unstable, "a mismatch was seen, but the server's token changed in mid-check; it is checked again in the next round")}
	case after.DB != db:
		wrong := outcome{observed: after, have: true}
		wrong.add(wrongDatabase(db, &after))
		return wrong
	}
	return out
}

// lookFor decides whether a database is gone: only when the server, asked by
// name with a fresh login, says so in several rounds over some time. With
// --once there is one round, so the tries are made in it.
func (e *Engine) lookFor(ctx context.Context, l *ledger, v *view) outcome {
	tries := 1
	if e.once {
		tries = vanishRounds
	}
	for try := range tries {
		if try > 0 {
			if err := pause(ctx, oncePause); err != nil {
				return outcome{doubt: doubtOf(err)}
			}
		}
		err := e.o.Server.Bind(ctx, v.trust.Name.Database)
		if err == nil {
			l.found()
			out := e.examine(ctx, v)
			if len(out.findings) > 0 && !v.has(evidence.Worst(out.findings)) {
				return e.confirm(ctx, v)
			}
			return out
		}
		if d := doubtOf(err); d.reason != evidence.NotFound {
			return outcome{doubt: d}
		}
		l.notFound()
	}
	gone := doubtf(evidence.NotFound, "the server says that database %q does not exist", v.trust.Name.Database)
	if !v.known() || !l.gone(e.once) {
		return outcome{doubt: gone}
	}
	var out outcome
	out.add(evidence.Finding{
		Kind: evidence.Vanished, Check: "existence", Want: v.trust.Name.Database, Got: "does not exist",
		Detail: "the server has no database of this name any more: it was deleted or renamed",
	})
	return out
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *ledger) notFound() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missing.times == 0 {
		l.missing.since = time.Now()
	}
	l.missing.times++
}

func (l *ledger) found() {
	l.mu.Lock()
	l.missing = missing{}
	l.mu.Unlock()
}

func (l *ledger) gone(once bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missing.times >= vanishRounds && (once || time.Since(l.missing.since) >= vanishSpan)
}

package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// beginWalk starts the background walk of a ledger if there is something to
// walk and none is under way. It closes every jump that was made by dual proof
// alone, from transaction 1 on, and must meet every remembered state.
func (e *Engine) beginWalk(ctx context.Context, l *ledger) {
	if e.walkRate == nil || e.once || ctx.Err() != nil {
		return
	}
	v := l.view()
	l.mu.Lock()
	resting := time.Now().Before(l.walkAfter)
	l.mu.Unlock()
	if resting || !v.known() || v.frozen() || v.trust.Retired || l.destination(&v).TxID <= v.walk.At().TxID {
		return
	}
	if !l.walking.CompareAndSwap(false, true) {
		return
	}
	e.work.Add(1)
	go func() {
		defer e.work.Done()
		defer l.walking.Store(false)
		if err := e.walks.Acquire(ctx, 1); err != nil {
			return
		}
		defer e.walks.Release(1)
		e.walkBehind(ctx, l)
	}()
}

// destination is where the background walk goes: the proven state, or a later
// one that no dual proof could reach.
func (l *ledger) destination(v *view) proof.SignedState {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.goal.TxID > v.trust.Proven.TxID {
		return l.goal
	}
	return v.trust.Proven
}

// walkBehind walks until it stands at the newest proven state.
func (e *Engine) walkBehind(ctx context.Context, l *ledger) {
	for ctx.Err() == nil {
		v := l.view()
		goal := l.destination(&v)
		if v.frozen() || goal.TxID <= v.walk.At().TxID {
			return
		}
		began := time.Now()
		out := e.walkSome(ctx, &v, goal)
		if len(out.findings) > 0 {
			out = e.confirmWalk(ctx, &v, goal)
		}
		if d := out.doubt; d != nil {
			l.mu.Lock()
			l.walkAfter = time.Now().Add(walkRetry)
			l.mu.Unlock()
			if ctx.Err() == nil {
				e.log.Warn("the background walk rests", "database", l.name.Database, "walked", v.walk.At().TxID, "reason", string(d.reason), "detail", d.detail)
			}
			return
		}
		r := e.conclude(ctx, l, &v, out, began)
		if r.Verdict != evidence.Consistent {
			return
		}
	}
}

// walkSome walks a stretch towards the goal. On success out.walk stands at its
// end, and out.proven is the goal if that was reached.
func (e *Engine) walkSome(ctx context.Context, v *view, goal proof.SignedState) outcome {
	out := outcome{observed: goal, have: true}
	if v.walkless() {
		walk, err := e.walkFromBaseline(ctx, v)
		if err != nil {
			out.doubt = doubtOf(err)
			return out
		}
		out.walk = walk
		return out
	}
	walk := v.walk.Clone()
	for end := min(goal.TxID, walk.At().TxID+walkSave); walk.At().TxID < end; {
		if err := e.walkRate.WaitN(ctx, int(min(pageHeaders, end-walk.At().TxID, uint64(e.walkRate.Burst())))); err != nil {
			out.doubt = doubtOf(err)
			return out
		}
		if err := e.walkPage(ctx, v, walk, goal.State, &out); err != nil {
			if f, ok := findingOf(err); ok {
				e.mismatch(ctx, v, &out, f)
			} else {
				out.doubt = doubtOf(err)
			}
			return out
		}
	}
	out.walk, out.lags = walk, 0
	if walk.At().TxID == goal.TxID {
		out.proven = &out.observed
	}
	return out
}

// confirmWalk repeats a stretch that did not hold, on a fresh token that names
// the right database before and after. What the server shows then becomes the
// observed state of the incident.
func (e *Engine) confirmWalk(ctx context.Context, v *view, goal proof.SignedState) outcome {
	db := v.trust.Name.Database
	if err := e.o.Server.Bind(ctx, db); err != nil {
		return outcome{doubt: doubtOf(err)}
	}
	binding := e.o.Server.Binding(db)
	before, err := e.o.Server.CurrentState(ctx, db)
	if err != nil {
		return outcome{doubt: doubtOf(err)}
	}
	out := e.walkSome(ctx, v, goal)
	if len(out.findings) == 0 {
		return out
	}
	after, err := e.o.Server.CurrentState(ctx, db)
	switch {
	case err != nil:
		return outcome{doubt: doubtOf(err)}
	case before.DB != db || after.DB != db || e.o.Server.Binding(db) != binding:
		return outcome{doubt: doubtf(evidence.Unstable, "a mismatch was seen, but the token did not stay bound to %q; it is walked again", db)}
	}
	out.observed = after
	return out
}

// walkFromBaseline places the walk at an accepted baseline, with the server's
// own tree: what lies before is known not to hold together, and was accepted.
func (e *Engine) walkFromBaseline(ctx context.Context, v *view) (*proof.Walk, error) {
	base := v.trust.Baseline.State
	db := v.trust.Name.Database
	p, err := e.o.Server.DualProof(ctx, db, base.TxID, base.TxID)
	if err != nil {
		return nil, err
	}
	var extra proof.Extra
	walk, err := proof.WalkAt(p, base, base, &extra)
	var unproven *proof.Unproven
	if errors.As(err, &unproven) && unproven.Need == proof.NeedBinding {
		if extra.Binding, err = e.o.Server.DualProof(ctx, db, unproven.From, base.TxID); err != nil {
			return nil, err
		}
		walk, err = proof.WalkAt(p, base, base, &extra)
	}
	if err != nil {
		return nil, fmt.Errorf("placing the walk at the accepted baseline: %w", err)
	}
	return walk, nil
}

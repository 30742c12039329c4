package audit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
	m := march{budget: math.MaxUint64}
	var turn func()
	turn = func() { // others are let past between two stretches
		if m.step(ctx, e, l) {
			e.walks.do(turn)
			return
		}
		l.walking.Store(false)
		e.work.Done()
	}
	e.walks.do(turn)
}

// destination is where the background walk goes: the proven state, and after
// it a later one that no dual proof could reach. What is proven comes first: a
// later one is the server's word, and it may not even exist.
func (l *ledger) destination(v *view) proof.SignedState {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.goal.TxID > v.trust.Proven.TxID && v.walk.At().TxID >= v.trust.Proven.TxID {
		return l.goal
	}
	return v.trust.Proven
}

// march is a background walk under way.
type march struct {
	budget uint64 // headers that it may still take
	// Beyond the proven state a walk is nothing to trust until it meets the
	// state that the server claims (and signs), and before it not until it is
	// bound to it: it is kept here, not stored. A decision voids it.
	ahead *reached
	epoch uint64
	// report is that of the newest stretch; only tampering found by it says
	// more than the rounds do.
	report evidence.Report
}

// step walks one stretch and reports whether there is more to walk.
func (m *march) step(ctx context.Context, e *Engine, l *ledger) bool {
	if m.budget == 0 || ctx.Err() != nil {
		return false
	}
	v := l.view()
	if m.ahead != nil && m.epoch == v.epoch && m.ahead.walk.At().TxID > v.walk.At().TxID {
		v.walk, v.ahead = holding(m.ahead.walk), m.ahead
	}
	var taken uint64
	var more bool
	m.report, m.ahead, taken, more = e.stretch(ctx, l, &v, m.budget)
	m.epoch, m.budget = v.epoch, m.budget-min(m.budget, taken)
	return more
}

// walkBehind walks until it stands at the newest proven state, or has taken
// budget headers.
func (e *Engine) walkBehind(ctx context.Context, l *ledger, budget uint64) evidence.Report {
	m := march{budget: budget}
	for m.step(ctx, e, l) {
	}
	return m.report
}

// reached is where a walk stands that is not stored yet, with what it went over
// since the stored one.
type reached struct {
	walk   *proof.Walk
	begins uint64
	alhs   []proof.Hash
}

func (o *outcome) reached() *reached { return &reached{o.walk, o.begins, o.alhs} }

// stretch walks one stretch and concludes it. ahead is where the walk stands if
// that is beyond what is proven, or not bound to it yet.
func (e *Engine) stretch(ctx context.Context, l *ledger, v *view, budget uint64) (r evidence.Report, ahead *reached, taken uint64, more bool) {
	goal, at := l.destination(v), v.walk.At().TxID
	if v.frozen() || v.trust.Retired || goal.TxID <= at {
		return r, nil, 0, false
	}
	began := time.Now()
	out := e.walkSome(ctx, v, goal, min(budget, walkSave))
	if len(out.findings) > 0 {
		out = e.steadily(ctx, v, func() outcome { return e.walkSome(ctx, v, goal, min(budget, walkSave)) })
	}
	if d := out.doubt; d != nil {
		l.mu.Lock()
		l.walkAfter = time.Now().Add(walkRetry)
		l.mu.Unlock()
		if ctx.Err() == nil && (d.reason != evidence.TreeLag || out.walk == nil) && e.mayLog() {
			e.log.Warn("the background walk rests", "database", l.name.Database, "walked", at, "reason", string(d.reason), "detail", d.detail)
		}
		if out.walk != nil && !out.loose { // as far as it came it holds
			reason := d.reason
			out.doubt = nil
			r = e.conclude(ctx, l, v, out, began)
			if reason == evidence.TreeLag && r.Verdict == evidence.Consistent && l.past != nil {
				// What was walked can be mirrored now, and the roots that were
				// too old had from there.
				l.mu.Lock()
				l.walkAfter = time.Time{}
				l.mu.Unlock()
				return r, nil, out.walk.At().TxID - at, true
			}
		}
		return r, nil, 0, false
	}
	if out.loose {
		return r, out.reached(), out.walk.At().TxID - at, true
	}
	if r = e.conclude(ctx, l, v, out, began); r.Verdict != evidence.Consistent {
		return r, nil, 0, false
	}
	if out.proven == nil && out.walk.At().TxID > v.trust.Proven.TxID {
		ahead = out.reached()
	}
	return r, ahead, out.walk.At().TxID - at, true
}

// walkSome walks a stretch of at most so many headers, or of walkTurn, towards
// the goal. out.walk stands at its end, or where an answer could not be had,
// and out.proven is the goal if that was reached.
func (e *Engine) walkSome(ctx context.Context, v *view, goal proof.SignedState, most uint64) (out outcome) {
	out = outcome{observed: goal, have: true, behind: true}
	if v.ahead != nil {
		out.begins, out.alhs = v.ahead.begins, slices.Clone(v.ahead.alhs)
	}
	if v.walkless() {
		walk, err := e.walkFromBaseline(ctx, v)
		if err != nil {
			out.doubt = doubtOf(err)
			return out
		}
		out.walk = walk
		return out
	}
	defer func() { out.trace(v) }()
	walk := v.walk.Clone()
	began := time.Now()
	for end := min(goal.TxID, walk.At().TxID+most); walk.At().TxID < end && time.Since(began) < walkTurn && out.doubt == nil; {
		page := min(pageHeaders, end-walk.At().TxID)
		err := e.walkRate.WaitN(ctx, int(page))
		if err == nil {
			err = e.walkPage(ctx, v, walk, goal.State, page, &out)
		}
		if f, ok := findingOf(err); ok {
			e.mismatch(ctx, v, &out, f)
			return out
		}
		if err != nil {
			out.doubt = doubtOf(err)
		}
	}
	if walk.At().TxID == v.walk.At().TxID {
		return out
	}
	err := e.anchor(ctx, v, walk.At())
	if f, ok := findingOf(err); ok {
		e.mismatch(ctx, v, &out, f)
		out.doubt = nil
		return out
	}
	out.walk, out.lags, out.loose = walk, 0, err != nil
	if walk.At().TxID == goal.TxID {
		out.proven = &out.observed
	}
	return out
}

// anchor binds the end of a stretch to what is proven. Chained from
// transaction 1 as it is, a stretch may still be of another history, until it
// meets a remembered state or a proof leads from it to one: stored before that
// it would speak against the right history ever after.
func (e *Engine) anchor(ctx context.Context, v *view, at proof.State) error {
	target := v.trust.Proven.State
	if _, met := v.remembered(at.TxID); met || at.TxID > target.TxID { // beyond, it is not stored
		return nil
	}
	_, err := e.dual(ctx, v.trust.Name.Database, at, target)
	var m *proof.Mismatch
	if errors.As(err, &m) && m.Check == proof.CheckAlhSource {
		return &proof.Mismatch{Check: proof.CheckAlh, Tx: at.TxID, Want: m.Want, Got: m.Got, Detail: "the headers listed lead to another transaction than the one that the trusted state continues"}
	}
	return err
}

// steadily repeats work that found a mismatch, on a fresh token that names the
// right database before and after. What the server shows then becomes the
// observed state of the incident.
func (e *Engine) steadily(ctx context.Context, v *view, work func() outcome) outcome {
	db := v.trust.Name.Database
	if err := e.o.Server.Bind(ctx, db); err != nil {
		return outcome{doubt: doubtOf(err)}
	}
	binding := e.o.Server.Binding(db)
	before, err := e.o.Server.CurrentState(ctx, db)
	if err != nil {
		return outcome{doubt: doubtOf(err)}
	}
	v.trace = true
	out := work()
	v.trace = false
	if len(out.findings) == 0 {
		return out
	}
	after, err := e.o.Server.CurrentState(ctx, db)
	switch {
	case err != nil:
		return outcome{doubt: doubtOf(err)}
	case before.DB != db || after.DB != db || binding == 0 || e.o.Server.Binding(db) != binding:
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

package audit

import (
	"context"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
)

// keepVerifying starts what is due of deep verification: first everything
// once, then what was newly committed, and pass after pass over all of it
// again. It never waits.
func (e *Engine) keepVerifying(ctx context.Context) {
	if e.o.Deep.Source == nil || e.once {
		return
	}
	now := time.Now()
	for _, l := range e.all() {
		if l.idle() {
			continue
		}
		due, long := l.deepDue(e, now)
		if !due || !l.verifying.CompareAndSwap(false, true) {
			continue
		}
		e.work.Add(1)
		lane := e.shorts
		if long {
			lane = e.longs
		}
		lane.do(func() {
			defer e.work.Done()
			defer l.verifying.Store(false)
			e.scrub(ctx, l, long)
		})
	}
}

// deepDue reports whether there is anything to look at, and whether that is
// much. It is asked of every ledger every second: it copies nothing.
func (l *ledger) deepDue(e *Engine, now time.Time) (due, long bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := &l.trust; now.Before(l.deepAfter) || !known(t) || t.Retired || frozen(l.open) {
		return false, false
	}
	from, to, _, due := e.nextRange(&l.trust, now)
	return due || l.recheckDue(now) || l.leftDue(now), due && to-from >= longLook
}

// begins is the first transaction that can be bound to what is trusted.
func begins(t *evidence.Trust) uint64 {
	if t.WalkFromBaseline {
		return t.Baseline.State.TxID + 1
	}
	return 1
}

// nextRange says what is to be verified next, if anything is: first what was
// never looked at.
func (e *Engine) nextRange(t *evidence.Trust, now time.Time) (from, to uint64, unseen, due bool) {
	s, first := &t.Scrub, begins(t)
	if s.Settled < t.Walked {
		return max(s.Settled+1, first), t.Walked, true, true
	}
	if e.o.Deep.Every <= 0 && e.o.Deep.ScrubBytes <= 0 || s.Settled < first {
		return 0, 0, false, false
	}
	from, to = max(s.Position+1, first), s.Settled
	if e.o.Deep.ScrubBytes > 0 {
		return from, to, false, s.Position > 0 || now.Sub(s.Began) >= scrubPause
	}
	// As many as the period has had time for.
	share := min(1, max(0, float64(now.Sub(s.Began))/float64(e.o.Deep.Every)))
	to = min(to, first-1+uint64(share*float64(s.Settled-first+1)))
	return from, to, false, to >= from && (to == s.Settled || to >= s.Position+scrubLeast)
}

// scrub looks at one slice of what is due and stores how far it came. One that
// is not long holds up others that are not.
func (e *Engine) scrub(ctx context.Context, l *ledger, long bool) {
	v := l.view()
	began := time.Now()
	e.recheck(ctx, l, &v, began)
	e.lookBack(ctx, l, &v, began)
	from, to, unseen, due := e.nextRange(&v.trust, began)
	if !due || ctx.Err() != nil {
		return
	}
	if !long {
		to = min(to, from+longLook-1)
	}
	rate, source := e.o.Deep.BytesPerSecond, &paced{e.o.Deep.Source, e.reading}
	if !unseen && e.o.Deep.ScrubBytes > 0 {
		rate, source = e.o.Deep.ScrubBytes, &paced{source, e.scrubbing}
	}
	g := e.lookInto(ctx, &v, from, to, long, v.bindings(), verify.Options{
		Source: source, BytesPerSecond: rate,
		Progress: func(p verify.Progress) { l.looking(p.Through) },
	})
	g.unseen = unseen
	l.looking(0)
	e.settle(ctx, l, &v, &g, began)
	if g.doubt == nil || g.ended {
		return // there is more, and it goes on at the next turn
	}
	if len(g.sum.Unread) == 0 || g.looked() < g.from { // else it goes on behind them
		l.mu.Lock()
		l.deepAfter = time.Now().Add(deepRetry)
		l.mu.Unlock()
	}
	if ctx.Err() == nil && e.mayLog() {
		e.log.Warn("deep verification could not read everything", "database", l.name.Database, "looked_at", g.looked(), "verified", g.clean(),
			"unread", g.sum.Tally.Unread, "reason", string(g.doubt.reason), "detail", g.doubt.detail)
	}
}

// settle concludes a slice: what was found, and how far it came.
func (e *Engine) settle(ctx context.Context, l *ledger, v *view, g *glance, began time.Time) evidence.Report {
	out := outcome{behind: true, observed: v.trust.Proven, have: true}
	out.damaged(g.damages)
	if g.sum.Unsettled.TxID > v.trust.Proven.TxID {
		// Values are gone, and the header that explains it is not trusted yet:
		// they are looked at again when it is.
		l.mu.Lock()
		l.deepAfter = time.Now().Add(deepRetry)
		l.mu.Unlock()
	} else if g.looked() >= g.from {
		out.scrubbed = g
	}
	return e.conclude(ctx, l, v, out, began)
}

// advanceScrub puts what a slice has come to into the record.
func advanceScrub(t *evidence.Trust, g *glance, now time.Time) {
	s := &t.Scrub
	if s.Began.IsZero() {
		s.Began = now
	}
	through, clean := min(g.looked(), t.Walked), min(g.clean(), t.Walked)
	all := g.sum.Total()
	s.Verified += all.Verified
	s.Bytes += all.Bytes
	s.Retained = max(s.Retained, g.sum.Retained)
	firstPass := s.Pass == 0
	// What a look began behind may have been taken back meanwhile, see lookAgain:
	// then it says nothing of what lies between.
	if g.unseen && g.from <= max(s.Settled+1, begins(t)) {
		if t.Verified >= s.Settled { // nothing before was left out
			t.Verified = max(t.Verified, clean)
		}
		s.Settled = max(s.Settled, through)
	}
	if g.unseen == firstPass && g.from <= max(s.Position+1, begins(t)) {
		s.Damaged += uint64(len(g.damages))
		if s.Clean >= s.Position {
			s.Clean = max(s.Clean, clean)
		}
		s.Position = max(s.Position, through)
		t.Verified = max(t.Verified, s.Clean)
	}
	if s.Position >= s.Settled && s.Settled >= t.Walked { // all of it was looked at
		s.Pass++
		s.Finished, s.Began = now, now
		s.Position, s.Clean, s.Damaged = 0, 0, 0
	}
}

// lookAgain makes deep verification begin again behind what is verified: an
// operator decided about what was found there.
func lookAgain(t *evidence.Trust) {
	s := &t.Scrub
	s.Settled = min(s.Settled, t.Verified)
	if s.Pass == 0 {
		s.Position, s.Clean = s.Settled, s.Settled
	} else {
		s.Position = min(s.Position, s.Settled)
		s.Clean = min(s.Clean, s.Position)
	}
}

func (l *ledger) looking(through uint64) {
	l.mu.Lock()
	l.lookedAt = through
	l.mu.Unlock()
}

package audit

import (
	"context"
	"fmt"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// report gives the verdict of a round and keeps it as the ledger's newest.
// Tampered beats undetermined: while an incident is open, nothing a server
// does makes its ledger look well.
func (e *Engine) report(ctx context.Context, l *ledger, v *view, out outcome, began, now time.Time) evidence.Report {
	r := evidence.Report{
		Time: now, Server: l.name.Server, ServerUUID: e.o.Server.UUID(), Database: l.name.Database,
		DurationMS: float64(now.Sub(began).Microseconds()) / 1000,
	}
	l.mu.Lock()
	t := &l.trust
	r.Trusted = evidence.MarkOf(t.Proven.State)
	if out.have {
		r.Observed = evidence.MarkOf(out.observed.State)
	}
	if t.Version > 0 {
		r.Assurance = &evidence.Assurance{Proven: t.Proven.TxID, Walked: t.Walked, Verified: t.Verified}
	}
	r.Findings = out.findings
	switch {
	case len(l.open) > 0:
		r.Verdict = evidence.Tampered
		worst := &l.open[0]
		for i := range l.open {
			if l.open[i].Kind.Rank() < worst.Kind.Rank() {
				worst = &l.open[i]
			}
		}
		r.Kind, r.Incident, r.Evidence, r.Divergence = worst.Kind, worst.ID, worst.Evidence, worst.Divergence
		if len(r.Findings) == 0 {
			r.Findings = worst.Findings
			r.Detail = stillOpen(worst, out.doubt)
		}
	case out.doubt != nil:
		r.Verdict, r.Reason, r.Detail = evidence.Undetermined, out.doubt.reason, out.doubt.detail
	case out.first:
		r.Verdict, r.Reason = evidence.Undetermined, evidence.FirstContact
		r.Detail = fmt.Sprintf("nothing was remembered of this ledger; from now on it must agree with transaction %d", out.observed.TxID)
	default:
		r.Verdict = evidence.Consistent
	}
	if out.behind && len(out.findings) == 0 {
		l.mu.Unlock()
		return r // rounds speak for the ledger
	}
	if r.Verdict == evidence.Consistent {
		l.lastSuccess = now
	}
	l.lastAttempt = now
	if out.have {
		l.observedTx = out.observed.TxID
	}
	switch {
	case out.goal.TxID > 0:
		l.goal = out.goal
	case out.doubt == nil && len(out.findings) == 0:
		l.goal = proof.SignedState{} // no walk was needed to prove what the server shows now
	}
	l.slow = out.doubt != nil && out.doubt.reason == evidence.Timeout || now.Sub(began) >= slowRound
	before := l.last
	l.last = r
	wentStale, recovered := l.ageing(out.doubt != nil, now, e.o.StaleAfter)
	since := l.undetermined
	odd := l.odd(&out)
	stopped, grows := l.growing(&out, now, e.o.ExpectGrowth)
	provenAt, tx := t.ProvenAt, t.Proven.TxID
	l.mu.Unlock()

	e.speak(l.name, &before, &r, out.doubt)
	if wentStale {
		e.outage(e.note(ctx, l.name, r.Verdict, evidence.EventStale, out.doubt.reason, fmt.Sprintf("not auditable since %s: %s", since.UTC().Format(time.RFC3339), out.doubt.detail)))
	}
	if recovered {
		e.recovery(e.note(ctx, l.name, r.Verdict, evidence.EventRecovered, "", "auditable again"))
	}
	if odd {
		e.collect(e.note(ctx, l.name, r.Verdict, evidence.EventClockSkew, "", out.skew))
	}
	if stopped {
		e.collect(e.note(ctx, l.name, r.Verdict, evidence.EventNotGrowing, "", fmt.Sprintf("no transaction after %d since %s, although one is expected every %s: the database is not written to, or an old state is shown", tx, provenAt.UTC().Format(time.RFC3339), e.o.ExpectGrowth)))
	}
	if grows {
		e.collect(e.note(ctx, l.name, r.Verdict, evidence.EventRecovered, "", fmt.Sprintf("there are new transactions, up to %d", tx)))
	}
	return r
}

func stillOpen(inc *evidence.Incident, d *doubt) string {
	if d != nil {
		return fmt.Sprintf("incident %s is open; this round reached no verdict of its own (%s)", inc.ID, d)
	}
	return fmt.Sprintf("incident %s is open since %s: decide with immuclient trust accept or trust keep", inc.ID, inc.OpenedAt.UTC().Format(time.RFC3339))
}

// ageing keeps count of how long the ledger could not be audited, also while
// an incident is open. l.mu is held.
func (l *ledger) ageing(untold bool, now time.Time, after time.Duration) (wentStale, recovered bool) {
	if !untold {
		recovered = l.stale
		l.undetermined, l.stale = time.Time{}, false
		return false, recovered
	}
	if l.undetermined.IsZero() {
		l.undetermined = now
	}
	if !l.stale && after > 0 && now.Sub(l.undetermined) >= after {
		l.stale = true
		return true, false
	}
	return false, false
}

// speak logs what changed, not what stayed: at one round a second nobody reads
// a line a round. A server that is gone is one line, however many ledgers it has.
func (e *Engine) speak(name evidence.Name, before, r *evidence.Report, d *doubt) {
	quiet := e.reach(d)
	if before.Verdict == r.Verdict && before.Reason == r.Reason && before.Kind == r.Kind && !before.Time.IsZero() {
		return
	}
	if r.Verdict != evidence.Tampered && !e.mayLog() {
		return
	}
	attrs := []any{"database", name.Database, "verdict", r.Verdict.String()}
	if r.Trusted != nil {
		attrs = append(attrs, "trusted_tx", r.Trusted.Tx)
	}
	switch {
	case r.Verdict == evidence.Tampered:
		e.log.Error("verdict", append(attrs, "kind", string(r.Kind), "incident", r.Incident)...)
	case quiet || r.Reason == evidence.Interrupted || before.Reason == evidence.Unreachable && r.Verdict == evidence.Consistent:
		e.log.Debug("verdict", append(attrs, "reason", string(r.Reason))...)
	case r.Reason == evidence.FirstContact:
		e.log.Info("first contact", attrs...)
	case r.Verdict == evidence.Undetermined:
		e.log.Warn("verdict", append(attrs, "reason", string(r.Reason), "detail", r.Detail)...)
	default:
		e.log.Info("verdict", attrs...)
	}
}

// reach keeps count of whether the server as a whole is there, and says so
// when that changes. It reports whether that is all there was to say.
func (e *Engine) reach(d *doubt) (gone bool) {
	if d != nil && (d.reason == evidence.Interrupted || d.reason == evidence.StateProblem) {
		return false
	}
	gone = d != nil && d.reason == evidence.Unreachable
	e.mu.Lock()
	changed := e.gone != gone
	e.gone = gone
	if gone {
		e.serverErr = d.detail
	} else if changed {
		e.serverErr = ""
	}
	e.mu.Unlock()
	if changed && !e.mayLog() {
		return gone
	}
	if changed && gone {
		e.log.Warn("the server is unreachable: none of its ledgers can be audited", "detail", d.detail)
	} else if changed {
		e.log.Info("the server answers again")
	}
	return gone
}

// mayLog bounds what a server can have logged by being one way and then the
// other; what is left out is counted in the summary.
func (e *Engine) mayLog() bool {
	if e.chatter.Allow() {
		return true
	}
	e.silenced.Add(1)
	return false
}

// note stores an event that goes with no other change.
func (e *Engine) note(ctx context.Context, name evidence.Name, verdict evidence.Verdict, kind evidence.EventType, reason evidence.Reason, message string) evidence.Event {
	level := e.log.Warn
	if kind == evidence.EventStale {
		level = e.log.Error
	}
	if name.Database == "" || e.mayLog() {
		attrs := []any{"database", name.Database}
		if reason != "" {
			attrs = append(attrs, "reason", string(reason))
		}
		level(string(kind), append(attrs, "detail", message)...)
	}
	var c evidence.Change
	ev := e.tell(&c, evidence.Event{Type: kind, Name: name, Verdict: verdict, Message: message})
	if err := e.o.Memory.Apply(ctx, c); err != nil {
		e.log.Error("storing an event", "event", string(kind), "error", err)
	}
	return ev
}

// Status is what the engine knows now.
func (e *Engine) Status() Status {
	e.mu.Lock()
	s := Status{
		Server: e.o.Name, Address: e.o.Address, Started: e.started, LoopAt: e.loopAt, FirstPass: e.firstPass,
		ServerError: e.serverErr, Tags: e.o.Tags,
	}
	e.mu.Unlock()
	s.UUID = e.o.Server.UUID()
	s.Rounds, s.Dropped, s.InFlight = e.rounds.Load(), e.dropped.Load(), int(e.inFlight.Load())
	for _, l := range e.all() {
		l.mu.Lock()
		if !l.roundAt.IsZero() && (s.OldestRound.IsZero() || l.roundAt.Before(s.OldestRound)) {
			s.OldestRound = l.roundAt
		}
		s.Ledgers = append(s.Ledgers, LedgerStatus{
			Name: l.name, Last: l.last, Paused: l.paused, Retired: l.trust.Retired,
			LastAttempt: l.lastAttempt, LastSuccess: l.lastSuccess, UndeterminedSince: l.undetermined, Stale: l.stale,
			OpenIncidents: len(l.open), ProvenTx: l.trust.Proven.TxID, WalkedTx: l.trust.Walked, VerifiedTx: l.trust.Verified,
			Scrub: l.trust.Scrub, LookedAt: l.lookedAt, UnreadableTx: l.left(), Damages: damagesIn(l.open),
			MirroredTx: l.past.reach(), NotGrowing: l.still, ClockSkew: l.skewed,
			ObservedTx: l.observedTx, PreviousTx: l.prevTx, LaggingTrees: l.lagging,
		})
		l.mu.Unlock()
	}
	sortLedgers(s.Ledgers)
	return s
}

func damagesIn(open []evidence.Incident) (n int) {
	for _, inc := range open {
		for _, f := range inc.Findings {
			if f.Kind.AboutData() {
				n++
			}
		}
	}
	return n
}

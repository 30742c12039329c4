package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// conclude judges an outcome, stores what follows from it, and reports.
// Nothing is trusted, and no verdict given on the strength of it, before it is
// on disk.
func (e *Engine) conclude(ctx context.Context, l *ledger, v *view, out outcome, began time.Time) evidence.Report {
	if kind := evidence.Worst(out.findings); len(out.findings) > 0 && (!v.has(kind) || v.owes(kind) && time.Since(l.saved()) >= saveEvery) {
		// Before the record is locked: the server may take its time.
		e.investigate(ctx, v, &out)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	now := time.Now()
	if len(out.findings) > 0 {
		e.convict(ctx, l, v, &out, now)
	}
	// Damaged contents are no reason to stop following the chain. They are
	// recorded first: what was looked at once is not looked at again soon.
	if out.doubt == nil && !out.unverified && !aboutChain(out.findings) {
		if err := e.advance(ctx, l, v, &out, now); err != nil {
			out.doubt = e.notStored(ctx, err)
		}
	}
	e.retell(ctx, l, now)
	return e.report(ctx, l, v, out, began, now)
}

// notStored is why a round that found nothing amiss has no verdict.
func (e *Engine) notStored(ctx context.Context, err error) *doubt {
	var d *doubt
	switch {
	case errors.As(err, &d):
		return d
	case conflicts(err):
		e.outdated.Store(true)
		return decidedMeanwhile()
	case ctx.Err() != nil:
		return doubtOf(context.Canceled)
	}
	return doubtf(evidence.StateProblem, "storing what was proven: %v", err)
}

// advance moves trust to what the outcome proved, in one change.
func (e *Engine) advance(ctx context.Context, l *ledger, v *view, out *outcome, now time.Time) error {
	l.mu.Lock()
	if l.epoch != v.epoch || l.void {
		l.mu.Unlock()
		return epochError{}
	}
	t, walk := l.trust, l.walk
	// Frozen is what is frozen now: round and background walk end in any
	// order, and the other one may have found tampering since this one began.
	frozen := frozen(l.open)
	if !v.known() && frozen {
		l.mu.Unlock()
		return nil // an incident at first contact: nothing is trusted before it is decided
	}
	// Only a round compares what the server shows now with what is trusted:
	// where a walk got on, the server has agreed with nothing.
	agreedAgain := !out.behind && !l.agreed && len(l.open) > 0
	due := !out.behind && now.Sub(l.savedAt) >= saveEvery
	var seen []evidence.Incident // LastSeen and Seen are kept in memory between writes
	if agreedAgain || due {
		for _, inc := range l.open {
			if inc.Version > 0 {
				seen = append(seen, inc)
			}
		}
	}
	l.mu.Unlock()

	var c evidence.Change
	var tellLater []evidence.Event
	dirty := agreedAgain || due && t.Version > 0
	if !out.behind {
		t.LastAgreed, t.LastAttempt = now, now
	}
	if out.first {
		dirty = true
		t.Baseline = evidence.Baseline{State: out.observed.State, Origin: evidence.OriginFirstContact, At: now}
		t.Proven, t.ProvenAt = out.observed, now
		c.Remember = []proof.State{out.observed.State}
		tellLater = append(tellLater, e.tell(&c, evidence.Event{Type: evidence.EventFirstContact, Name: l.name, Current: &out.observed, Message: e.firstWords(l.name, &out.observed)}))
	}
	// A round and the background walk may have proven different continuations
	// of one state to themselves, if the server showed two. What was proven
	// against a trusted state that is no longer the trusted one is dropped;
	// the next round proves it again, against the new one.
	current := t.Proven.State == v.trust.Proven.State || out.first
	if p := out.proven; p != nil && !current && p.State != t.Proven.State && !out.behind && !frozen {
		return doubtf(evidence.Unstable, "transaction %d became the trusted one in mid-round; the next round checks against it", t.Proven.TxID)
	}
	if p := out.proven; p != nil && current && !frozen && p.TxID > t.Proven.TxID {
		dirty = true
		t.Proven, t.ProvenAt = *p, now
		c.Remember = []proof.State{p.State}
	}
	if w := out.walk; w != nil && (current || w.At().TxID <= v.trust.Proven.TxID) && !frozen &&
		w.At().TxID > walk.At().TxID && w.At().TxID <= t.Proven.TxID {
		b, err := w.MarshalBinary()
		if err != nil {
			return fmt.Errorf("encoding the walk: %w", err)
		}
		dirty = true
		t.Walk, t.Walked, walk = b, w.At().TxID, restingAt(w, b)
		c.Forget = t.Walked
	}
	if g := out.scrubbed; g != nil && !frozen {
		dirty = true
		advanceScrub(&t, g, now)
	}
	if out.again && !frozen {
		dirty = true
		lookAgain(&t)
	}
	if out.key != nil {
		dirty = true
		if !out.first {
			verdict := evidence.Consistent
			if frozen {
				verdict = evidence.Tampered
			}
			tellLater = append(tellLater, e.tell(&c, evidence.Event{Type: evidence.EventSigningBegan, Name: l.name, Verdict: verdict, Current: &out.observed, Message: "states are signed now; from here on they must be signed by this key"}))
		}
		t.Key = out.key
	}
	untold := func() {}
	if uuid := e.o.Server.UUID(); uuid != "" && uuid != t.UUID {
		var told bool
		if told, untold = e.identity(&c, t.UUID, uuid); told {
			dirty = true
			t.UUID = uuid
		}
	}
	if e.o.Comparisons && !out.first && !out.behind {
		e.compared(&c, l.name, v, out, now)
	}
	if dirty {
		c.Trust = &t
		c.Incidents = seen
	}
	if dirty || len(c.Deliveries) > 0 {
		if err := e.o.Memory.Apply(ctx, c); err != nil {
			untold()
			return err
		}
	}
	for _, ev := range tellLater {
		e.collect(ev)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !out.behind {
		l.prevTx, l.agreed = l.trust.Proven.TxID, true
	}
	if dirty {
		t.Version++
		l.savedAt = now
		l.open = bump(l.open, seen)
	}
	if walk != l.walk && !t.WalkFromBaseline {
		l.past.add(out.begins, out.alhs)
	}
	if t.Proven.State != l.trust.Proven.State {
		l.past.witness(t.Proven, now)
	}
	l.trust, l.walk = t, walk
	if c.Forget > 0 || len(c.Remember) > 0 {
		l.marks = keepMarks(l.marks, c.Remember, walk.At().TxID)
	}
	l.lagging += out.lags
	return nil
}

// bump counts the stored change of some incidents.
func bump(open, stored []evidence.Incident) []evidence.Incident {
	out := append([]evidence.Incident(nil), open...)
	for i := range out {
		for _, inc := range stored {
			if inc.ID == out[i].ID {
				out[i].Version++
			}
		}
	}
	return out
}

func decidedMeanwhile() *doubt {
	return doubtf(evidence.Unstable, "an operator's decision came in mid-round; it counts from the next round on")
}

// keepMarks gives the states above the walk, in ascending order, as a new list:
// rounds in flight still read the old one. Where no walk gets on for days every
// second one is forgotten, which costs precision, not proof: each is bound to
// all before it.
func keepMarks(old, more []proof.State, walked uint64) []proof.State {
	var out []proof.State
	for _, list := range [][]proof.State{old, more} {
		for _, m := range list {
			if m.TxID > walked && (len(out) == 0 || m.TxID > out[len(out)-1].TxID) {
				out = append(out, m)
			}
		}
	}
	if len(out) > maxMarks {
		thin := out[:0]
		for i, m := range out {
			if i%2 == 0 || i == len(out)-1 {
				thin = append(thin, m)
			}
		}
		out = thin
	}
	return out
}

// convict records findings as an incident, or as one more sighting of an open
// one of the same kind.
func (e *Engine) convict(ctx context.Context, l *ledger, v *view, out *outcome, now time.Time) {
	kind := evidence.Worst(out.findings)
	l.mu.Lock()
	stale := l.epoch != v.epoch || l.void
	wasAgreed := l.agreed
	if !kind.AboutData() {
		l.agreed = false
		l.prevTx = l.trust.Proven.TxID
	}
	open := append([]evidence.Incident(nil), l.open...)
	l.mu.Unlock()
	if stale {
		// A decision came in mid-round: what was found was found against the
		// old baseline. The next round judges anew.
		out.findings, out.doubt = nil, decidedMeanwhile()
		return
	}
	for i := range open {
		if open[i].Kind != kind && !explains(&open[i], out.findings) {
			continue
		}
		open[i].LastSeen, open[i].Seen = now, open[i].Seen+1
		var c evidence.Change
		if e.o.Comparisons && !out.behind {
			e.compared(&c, l.name, v, out, now)
		}
		grown := kind.AboutData() && e.extend(v, &open[i], out)
		if wasAgreed && !kind.AboutData() || grown || now.Sub(l.saved()) >= saveEvery {
			if open[i].EvidenceError != "" && out.investigated && !grown { // the disk may be well again
				open[i].EvidenceError = ""
				e.testify(v, &open[i], out)
			}
			c.Incidents = []evidence.Incident{open[i]}
		}
		if (len(c.Incidents) > 0 || len(c.Deliveries) > 0) && !l.isUnsaved() {
			err := e.o.Memory.Apply(ctx, c)
			if err == nil && len(c.Incidents) > 0 {
				open[i].Version++
				l.setSaved(now)
			} else if err != nil {
				// The old baseline must not be kept as if the server had not
				// contradicted it again: this is stored by the next round.
				l.setAgreed(wasAgreed)
				e.outdated.Store(true)
				if !conflicts(err) {
					e.log.Error("storing another sighting of an incident", "database", l.name.Database, "incident", open[i].ID, "error", err)
				}
			}
		}
		l.setOpen(open)
		return
	}
	l.setOpen(append(open, e.openIncident(ctx, l, v, out, now)))
}

// explains reports whether an open incident is the cause of all that was found:
// where the history is another one, its old headers are others too. Should there
// be more behind it, it is found once somebody decided.
func explains(inc *evidence.Incident, findings []evidence.Finding) bool {
	switch inc.Kind {
	case evidence.Fork, evidence.Rollback, evidence.Emptied:
	default:
		return false
	}
	if inc.Divergence == nil { // not known where it begins
		return false
	}
	return !slices.ContainsFunc(findings, func(f evidence.Finding) bool {
		return f.Kind != evidence.Header || f.Tx == 0 || f.Tx <= inc.Divergence.LastGoodTx
	})
}

// extend adds damage that was found later to the incident about the first: one
// that grows is kinder than a hundred. The evidence is written anew.
func (e *Engine) extend(v *view, inc *evidence.Incident, out *outcome) (grown bool) {
	known := slices.Clone(inc.Findings)
	for _, f := range out.findings {
		if n := len(known); f.Kind.AboutData() {
			known = addFinding(known, f)
			grown = grown || len(known) > n
		}
	}
	if !grown {
		return false
	}
	inc.Findings = known
	out.divergence, out.material.Further = inc.Divergence, true
	e.testify(v, inc, out)
	return true
}

// openIncident records what was found: the evidence first, then the incident
// with its alarm, in one change.
func (e *Engine) openIncident(ctx context.Context, l *ledger, v *view, out *outcome, now time.Time) evidence.Incident {
	kind := evidence.Worst(out.findings)
	inc := evidence.Incident{
		ID: newIncidentID(now), Name: l.name, UUID: e.o.Server.UUID(), Kind: kind, Status: evidence.Open,
		OpenedAt: now, LastSeen: now, Seen: 1, Findings: out.findings, Told: len(out.findings), Trusted: v.trust.Proven, Observed: out.observed,
		Divergence: out.divergence,
	}
	e.testify(v, &inc, out)
	var c evidence.Change
	untold := func() {}
	if inc.UUID != "" {
		_, untold = e.identity(&c, v.trust.UUID, inc.UUID)
	}
	event := e.tell(&c, tamperedEvent(&inc))
	c.Incidents = []evidence.Incident{inc}
	e.log.Error("TAMPERED", "database", l.name.Database, "kind", kind, "incident", inc.ID, "finding", out.findings[0].Detail,
		"trusted_tx", inc.Trusted.TxID, "observed_tx", inc.Observed.TxID, "next", "immuclient incident show "+inc.ID)
	err := e.storeInTime(ctx, l, inc.ID, c)
	if err != nil {
		untold()
		// The alarm must not wait for a disk: it leaves now, the incident is
		// kept in mind and stored as soon as that is possible.
		e.log.Error("storing an incident failed; it is kept in memory and tried again every round", "incident", inc.ID, "error", err)
		if e.o.Alarm != nil {
			e.o.Alarm(event, err)
		}
		l.mu.Lock()
		l.unsaved = append(l.unsaved, event)
		l.mu.Unlock()
	} else {
		inc.Version = 1
	}
	return inc
}

// lateStoring is the storing of an incident that is still under way.
type lateStoring struct {
	incident string
	answer   <-chan error
}

// storeInTime stores an incident, or gives up waiting for that: a disk that
// hangs must not hold up the alarm. l.writing is held.
func (e *Engine) storeInTime(ctx context.Context, l *ledger, incident string, c evidence.Change) error {
	if l.late != nil {
		return errSlowDisk
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), alarmWithin)
	answer := make(chan error, 1)
	e.work.Go(func() {
		defer cancel()
		answer <- e.o.Memory.Apply(ctx, c)
	})
	waited := time.NewTimer(alarmWithin + alarmWithin/10) // the context ends what was not begun
	defer waited.Stop()
	select {
	case err := <-answer:
		return err
	case <-waited.C:
		l.late = &lateStoring{incident, answer}
		return errSlowDisk
	}
}

// retell stores incidents that could not be stored when they were found, with
// the events that were told without them. l.writing is held.
func (e *Engine) retell(ctx context.Context, l *ledger, now time.Time) {
	if !l.isUnsaved() {
		return
	}
	l.mu.Lock()
	open, events := slices.Clone(l.open), slices.Clone(l.unsaved)
	l.mu.Unlock()
	if l.late != nil {
		select {
		case err := <-l.late.answer:
			if err == nil {
				events = slices.DeleteFunc(events, func(ev evidence.Event) bool { return ev.Incident == l.late.incident })
				for i := range open {
					if open[i].ID == l.late.incident {
						open[i].Version = 1
					}
				}
			}
			l.late = nil
			l.mu.Lock()
			l.open, l.unsaved = slices.Clone(open), slices.Clone(events)
			l.mu.Unlock()
		default:
			return // it is still being written
		}
	}
	var c evidence.Change
	for i := range open {
		if open[i].Version > 0 {
			continue
		}
		if !open[i].OpenedAt.Before(now) {
			return // found in this very round
		}
		c.Incidents = append(c.Incidents, open[i])
	}
	for _, event := range events {
		c.Events = append(c.Events, event)
		e.deliver(&c, event)
	}
	if len(c.Incidents) > 0 {
		if err := e.o.Memory.Apply(ctx, c); err != nil {
			return
		}
	}
	for i := range open {
		if open[i].Version == 0 {
			open[i].Version = 1
		}
	}
	l.mu.Lock()
	l.open, l.unsaved = open, nil
	l.mu.Unlock()
	e.outdated.Store(true) // decisions about others may have come in meanwhile
	e.log.Info("an incident kept in memory is stored now", "database", l.name.Database)
}

func (l *ledger) saved() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.savedAt
}

func (l *ledger) setSaved(at time.Time) {
	l.mu.Lock()
	l.savedAt = at
	l.mu.Unlock()
}

func (l *ledger) setAgreed(agreed bool) {
	l.mu.Lock()
	l.agreed = agreed
	l.mu.Unlock()
}

func (l *ledger) isUnsaved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.unsaved) > 0
}

func (l *ledger) setOpen(open []evidence.Incident) {
	l.mu.Lock()
	l.open = open
	l.mu.Unlock()
}

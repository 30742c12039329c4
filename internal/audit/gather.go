package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
)

// gathered are events that are recorded already and wait a moment for others
// like them: what happens to a thousand ledgers of one server at a time is one
// alert, not a thousand. Tampering never waits.
type gathered struct {
	since  time.Time // when the oldest of events came
	events []evidence.Event

	// unsent could not be stored when they were to be told.
	unsent []evidence.Event

	// out are the ledgers that cannot be audited, by name; told those of them
	// that somebody was told of, alone those of them that were told of by
	// themselves, and when.
	out   map[string]evidence.Event
	told  map[string]bool
	alone map[string]time.Time
	// changed is when the first ledger joined or left them since that was
	// last thought about, zero if none did; latest when the last one did.
	changed, latest time.Time
	// whole: an alert about the server as a whole is out, last told at wholeAt
	// and not told again before wholeNext because of more ledgers.
	whole              bool
	wholeAt, wholeNext time.Time
	wholeWait          time.Duration
}

// alone reports whether an event is told by itself, at once.
func alone(ev *evidence.Event) bool {
	if ev.Name.Database == "" {
		return true
	}
	switch ev.Type {
	case evidence.EventFirstContact, evidence.EventSigningBegan, evidence.EventNotGrowing, evidence.EventClockSkew,
		evidence.EventStale, evidence.EventRecovered:
		return false
	}
	return true
}

// collect keeps an event for the delivery of several together. It is in the
// record by then.
func (e *Engine) collect(ev evidence.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.news.events) == 0 {
		e.news.since = time.Now()
	}
	e.news.events = append(e.news.events, ev)
}

// outage notes that a ledger cannot be audited any more, recovery that it can.
func (e *Engine) outage(ev evidence.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.news.out[ev.Name.Database] = ev
	e.news.change()
}

func (e *Engine) recovery(ev evidence.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	db := ev.Name.Database
	if !e.news.alone[db].IsZero() {
		if len(e.news.events) == 0 {
			e.news.since = time.Now()
		}
		e.news.events = append(e.news.events, ev)
	}
	e.news.leave(db)
}

// resume goes on with the outages of an auditor that ran before: who was told of
// one is told when it ends, and not told of it again now. e.mu is held.
func (e *Engine) resume(out []evidence.Event, now time.Time) {
	n := &e.news
	n.out, n.told, n.alone = map[string]evidence.Event{}, map[string]bool{}, map[string]time.Time{}
	for _, ev := range out { // the oldest first
		switch {
		case ev.Name.Server != e.o.Name:
		case ev.Name.Database != "":
			n.out[ev.Name.Database] = ev
			// What there was no time to tell of is told now.
			if !n.whole && now.Sub(ev.At) > gatherNews+alarmWithin {
				n.told[ev.Name.Database], n.alone[ev.Name.Database] = true, ev.At
			}
			n.change()
			if l := e.ledgers[ev.Name.Database]; l != nil {
				l.mu.Lock()
				l.stale, l.undetermined = true, ev.At
				l.mu.Unlock()
			}
		case ev.Ledgers == 0:
			e.mute = e.o.List
		default:
			n.whole, n.wholeAt, n.wholeWait = true, ev.At, wholeSoon
			for db := range n.out { // it stands for all before it
				n.told[db] = true
				delete(n.alone, db)
			}
		}
	}
}

// leave takes a ledger out of those that cannot be audited.
func (n *gathered) leave(db string) {
	delete(n.told, db)
	delete(n.alone, db)
	delete(n.out, db)
	n.change()
}

func (n *gathered) change() {
	n.latest = time.Now()
	if n.changed.IsZero() {
		n.changed = n.latest
	}
}

// keepTelling tells what was gathered and what is owed, unless that is being
// done. It never waits for the disk.
func (e *Engine) keepTelling(ctx context.Context) {
	if !e.telling.CompareAndSwap(false, true) {
		return
	}
	e.work.Go(func() {
		defer e.telling.Store(false)
		now := time.Now()
		e.tellGathered(ctx, now, false)
		e.remind(ctx, now)
	})
}

// tellGathered delivers what has waited long enough, or all of it.
func (e *Engine) tellGathered(ctx context.Context, now time.Time, all bool) {
	e.mu.Lock()
	var due []evidence.Event
	n := &e.news
	if len(n.events) > 0 && (all || now.Sub(n.since) >= gatherNews) {
		due, n.events = n.events, nil
	}
	unsent := n.unsent
	n.unsent = nil
	e.mu.Unlock()
	tell := slices.Concat(unsent, e.bundled(due), e.outages(now, all))
	if len(tell) == 0 {
		return
	}
	var c evidence.Change
	for _, ev := range tell {
		e.deliver(&c, ev)
		if ev.Name.Database == "" { // those it stands for are recorded already
			c.Events = append(c.Events, ev)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), alarmWithin)
	defer cancel()
	if err := e.o.Memory.Apply(ctx, c); err != nil {
		e.log.Error("storing notifications failed; it is tried again", "notifications", len(c.Deliveries), "error", err)
		e.mu.Lock()
		n.unsent = append(tell[:min(len(tell), maxUnsent)], n.unsent...)
		e.mu.Unlock()
	}
}

// bundled puts one event about the server in the place of many of a type.
func (e *Engine) bundled(events []evidence.Event) []evidence.Event {
	var out []evidence.Event
	byType := map[evidence.EventType][]evidence.Event{}
	var order []evidence.EventType
	for _, ev := range events {
		if byType[ev.Type] == nil {
			order = append(order, ev.Type)
		}
		byType[ev.Type] = append(byType[ev.Type], ev)
	}
	for _, t := range order {
		same := byType[t]
		if len(same) < bundleFrom {
			out = append(out, same...)
			continue
		}
		out = append(out, e.complete(evidence.Event{
			Type: t, Name: evidence.Name{Server: e.o.Name}, Ledgers: len(same),
			Message: fmt.Sprintf("%d ledgers: %s. %s: %s", len(same), someNames(same), same[0].Name.Database, same[0].Message),
		}))
	}
	return out
}

// outages gives what is to be told about ledgers that cannot be audited: each
// by itself where they are few, else the server. What was told of is told again
// once a day: whoever is on duty changes.
func (e *Engine) outages(now time.Time, all bool) (out []evidence.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := &e.news
	for db := range n.out { // those that are not audited any more are not awaited
		if l := e.ledgers[db]; l == nil && !(e.o.List && e.listed.IsZero()) || l != nil && l.idle() {
			n.leave(db)
		}
	}
	var fresh []evidence.Event
	for db, ev := range n.out {
		if !n.told[db] {
			fresh = append(fresh, ev)
		}
	}
	gathered := all || !n.changed.IsZero() && now.Sub(n.changed) >= gatherNews
	if gathered {
		n.changed = time.Time{}
	}
	many := len(fresh) > 0 && (len(fresh)+e.failing(now) >= bundleFrom || len(fresh) > 1 && e.gone)
	switch {
	case n.whole && len(fresh) > 0 && !now.Before(n.wholeNext):
		n.wholeWait = min(2*n.wholeWait, wholeAgain)
		out = append(out, e.serverOut(fresh, now))
	case n.whole && now.Sub(n.wholeAt) >= remindEvery:
		out = append(out, e.serverOut(nil, now))
	case !n.whole && gathered && many:
		n.whole, n.wholeWait = true, wholeSoon
		out = append(out, e.serverOut(fresh, now))
	}
	// The last ones of many get some time to follow the others.
	if n.whole && (len(n.out) == 0 && gathered || len(n.out) < bundleFrom && !e.gone && now.Sub(n.latest) >= lastOnes) {
		n.whole = false
		clear(n.told) // those that are left are told of by themselves from now on
		ev := evidence.Event{Type: evidence.EventRecovered, Name: evidence.Name{Server: e.o.Name}, Message: "all ledgers of the server can be audited again"}
		if len(n.out) > 0 {
			ev.Message = fmt.Sprintf("the ledgers of the server can be audited again but for %d", len(n.out))
		}
		out = append(out, e.complete(ev))
		gathered = true
	}
	if n.whole {
		return out
	}
	for db, ev := range n.out {
		if !n.told[db] && gathered || n.told[db] && now.Sub(n.alone[db]) >= remindEvery {
			n.told[db], n.alone[db] = true, now
			out = append(out, e.again(ev))
		}
	}
	return out
}

// again gives an event that was recorded another identity: it is told anew.
func (e *Engine) again(ev evidence.Event) evidence.Event {
	ev.ID = newEventID()
	return ev
}

// failing counts the ledgers that are on their way out: where a server hangs,
// one follows the other. e.mu is held.
func (e *Engine) failing(now time.Time) (n int) {
	for _, l := range e.ledgers {
		l.mu.Lock()
		if !l.stale && !l.undetermined.IsZero() && now.Sub(l.undetermined) >= e.o.StaleAfter/2 {
			n++
		}
		l.mu.Unlock()
	}
	return n
}

// serverOut is the event of a server of which many ledgers cannot be audited,
// these since it was last told. e.mu is held.
func (e *Engine) serverOut(fresh []evidence.Event, now time.Time) evidence.Event {
	n := &e.news
	if len(fresh) == 0 {
		for _, ev := range n.out {
			fresh = append(fresh, ev)
		}
	}
	slices.SortFunc(fresh, func(a, b evidence.Event) int { return strings.Compare(a.Name.Database, b.Name.Database) })
	n.wholeAt, n.wholeNext = now, now.Add(n.wholeWait)
	for _, ev := range fresh {
		n.told[ev.Name.Database] = true
	}
	return e.complete(evidence.Event{
		Type: evidence.EventStale, Name: evidence.Name{Server: e.o.Name}, Ledgers: len(n.out),
		Message: fmt.Sprintf("%d of %d ledgers of the server cannot be audited: %s. %s: %s",
			len(n.out), len(e.ledgers), someNames(fresh), fresh[0].Name.Database, fresh[0].Message),
	})
}

// someNames names the first ledgers of many.
func someNames(events []evidence.Event) string {
	const most = 5
	var names []string
	for _, ev := range events[:min(most, len(events))] {
		names = append(names, fmt.Sprintf("%q", ev.Name.Database))
	}
	text := strings.Join(names, ", ")
	if len(events) > most {
		text += ", …"
	}
	return text
}

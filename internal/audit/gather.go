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

	// out are the ledgers that cannot be audited, by name; told those of them
	// of which an alert of their own went out.
	out  map[string]evidence.Event
	told map[string]bool
	// changed is when the first ledger joined or left them since that was
	// last thought about; zero: none did.
	changed time.Time
	latest  time.Time // when the last one did
	// whole: an alert about the server as a whole went out, at wholeAt, when
	// wholeOut ledgers were out.
	whole    bool
	wholeAt  time.Time
	wholeOut int
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
	if e.news.out == nil {
		e.news.out, e.news.told = map[string]evidence.Event{}, map[string]bool{}
	}
	e.news.out[ev.Name.Database] = ev
	e.news.change()
}

func (e *Engine) recovery(ev evidence.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	db := ev.Name.Database
	if e.news.told[db] {
		if len(e.news.events) == 0 {
			e.news.since = time.Now()
		}
		e.news.events = append(e.news.events, ev)
	}
	delete(e.news.told, db)
	delete(e.news.out, db)
	e.news.change()
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
	if n := &e.news; len(n.events) > 0 && (all || now.Sub(n.since) >= gatherNews) {
		due, n.events = n.events, nil
	}
	e.mu.Unlock()
	var c evidence.Change
	for _, ev := range e.bundled(due) {
		e.deliver(&c, ev)
		if ev.Name.Database == "" { // those it stands for are recorded already
			c.Events = append(c.Events, ev)
		}
	}
	for _, ev := range e.outages(now, all) {
		e.deliver(&c, ev)
		if ev.Name.Database == "" {
			c.Events = append(c.Events, ev)
		}
	}
	if len(c.Events)+len(c.Deliveries) == 0 {
		return
	}
	if err := e.o.Memory.Apply(ctx, c); err != nil {
		e.log.Error("storing notifications; they are in the record and are not sent", "notifications", len(c.Deliveries), "error", err)
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
// by itself where they are few, the server where it is about more, which then
// also stands for those that follow.
func (e *Engine) outages(now time.Time, all bool) (out []evidence.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := &e.news
	again := n.whole && len(n.out) >= 2*n.wholeOut && now.Sub(n.wholeAt) >= wholeAgain
	// The last ones of many get some time to follow the others.
	settled := len(n.out) == 0 || len(n.out) < bundleFrom && !e.gone && now.Sub(n.latest) >= lastOnes
	if !again && !(n.whole && settled) && (n.changed.IsZero() || !all && now.Sub(n.changed) < gatherNews) {
		return nil
	}
	n.changed = time.Time{}
	many := len(n.out) > 0 && (len(n.out)+e.failing(now) >= bundleFrom || len(n.out) > 1 && e.gone)
	if many && (!n.whole || again) {
		n.whole, n.wholeAt, n.wholeOut = true, now, len(n.out)
		return []evidence.Event{e.complete(e.serverOut())}
	}
	if n.whole && settled {
		n.whole = false
		ev := evidence.Event{Type: evidence.EventRecovered, Name: evidence.Name{Server: e.o.Name}, Message: "all ledgers of the server can be audited again"}
		if len(n.out) > 0 {
			ev.Message = fmt.Sprintf("the ledgers of the server can be audited again but for %d", len(n.out))
		}
		out = append(out, e.complete(ev))
	}
	if !n.whole {
		for db, ev := range n.out {
			if !n.told[db] {
				n.told[db] = true
				out = append(out, ev)
			}
		}
	}
	return out
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

// serverOut is the event of a server of which many ledgers cannot be audited.
// e.mu is held.
func (e *Engine) serverOut() evidence.Event {
	var events []evidence.Event
	for _, ev := range e.news.out {
		events = append(events, ev)
	}
	slices.SortFunc(events, func(a, b evidence.Event) int { return strings.Compare(a.Name.Database, b.Name.Database) })
	return evidence.Event{
		Type: evidence.EventStale, Name: evidence.Name{Server: e.o.Name}, Ledgers: len(events),
		Message: fmt.Sprintf("%d of %d ledgers of the server cannot be audited: %s. %s: %s",
			len(events), len(e.ledgers), someNames(events), events[0].Name.Database, events[0].Message),
	}
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

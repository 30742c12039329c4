package alert

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"immuaudit/evidence"
)

// lane is what deliveries follow each other in: one ledger, one sink.
type lane struct {
	sink string
	name evidence.Name
	test bool // an operator waits for it: it follows nothing
}

// task is a waiting delivery as the schedule sees it.
type task struct {
	evidence.Pending
	running  bool
	rejected bool
	gone     bool      // left the outbox while under way
	urgent   bool      // its lane has news of tampering
	failed   bool      // and was not seen in the outbox since
	seen     time.Time // when it was first seen here
}

func (t *task) lane() lane {
	return lane{t.Sink, t.Event.Name, t.Event.Type == evidence.EventTest}
}

// holds reports whether the later ones of the lane wait for this one.
func (t *task) holds() bool { return !t.rejected && t.Attempts < giveWay }

// schedule decides what is tried when. It is the dispatcher's picture of the
// outbox and used by one goroutine.
type schedule struct {
	sinks   map[string]Sink
	log     *slog.Logger
	tasks   map[int64]*task
	order   []*task         // by id, that is in the order in which they were queued
	running map[string]int  // tries under way, by sink
	busy    map[lane]bool   // lanes with a try under way
	unknown map[string]bool // sinks that were complained about
	wakeAt  time.Time       // when the first of those that wait is due
}

func newSchedule(sinks map[string]Sink, log *slog.Logger) *schedule {
	return &schedule{
		sinks:   sinks,
		log:     log,
		tasks:   make(map[int64]*task),
		running: make(map[string]int),
		busy:    make(map[lane]bool),
		unknown: make(map[string]bool),
	}
}

// replace takes over what waits in the outbox now. Those under way are kept.
func (s *schedule) replace(waiting []evidence.Pending, now time.Time) {
	old := s.tasks
	s.tasks = make(map[int64]*task, len(waiting))
	for _, p := range waiting {
		if _, ok := s.sinks[p.Sink]; !ok {
			s.complain(p.Sink)
			continue
		}
		// No wait is longer than maxRetry: where it seems to be, the clock was
		// set back.
		if latest := now.Add(maxRetry); p.NextTry.After(latest) {
			p.NextTry = latest
		}
		t := &task{Pending: p, seen: now}
		if known := old[p.ID]; known != nil {
			if known.running {
				t = known
			}
			t.rejected, t.seen = known.rejected, known.seen
			// The clamp above must not move on with every look.
			if known.NextTry.Before(t.NextTry) {
				t.NextTry = known.NextTry
			}
		}
		s.tasks[p.ID] = t
	}
	for id, t := range old {
		if t.running && s.tasks[id] == nil {
			t.gone = true
			s.tasks[id] = t
		}
	}
	urgent := make(map[lane]bool)
	for _, t := range s.tasks {
		if t.Event.Type == evidence.EventTampered || t.Event.Type == evidence.EventTest {
			urgent[t.lane()] = true
		}
	}
	s.order = s.order[:0]
	for _, t := range s.tasks {
		t.urgent = urgent[t.lane()]
		s.order = append(s.order, t)
	}
	slices.SortFunc(s.order, byTurn)
}

// carryOn makes do without the outbox, where that cannot be read: what is known
// to wait is still to be told.
func (s *schedule) carryOn() {
	for _, t := range s.tasks {
		t.failed = false
	}
}

// byTurn lets the ledgers go first of which tampering is to be told; within a
// ledger, and otherwise, the id decides, that is the order of queueing.
func byTurn(a, b *task) int {
	switch {
	case a.urgent && !b.urgent:
		return -1
	case b.urgent && !a.urgent:
		return 1
	default:
		return cmp.Compare(a.ID, b.ID)
	}
}

func (s *schedule) complain(sink string) {
	if !s.unknown[sink] {
		s.unknown[sink] = true
		s.log.Warn("notifications wait for a sink that is not configured; configure it again to have them delivered", "sink", sink)
	}
}

// start gives what is to be tried now, what goes out together together, and
// counts it as under way.
func (s *schedule) start(now time.Time) [][]evidence.Pending {
	s.wakeAt = time.Time{}
	var ready [][]evidence.Pending
	held := make(map[lane]bool)
	gathered := make(map[string][]*task)
	full := 0
	for sink, n := range s.running {
		if n >= s.room(sink) {
			full++
		}
	}
	for _, t := range s.order {
		if full == len(s.sinks) {
			break // nothing can start before a try ends
		}
		l := t.lane()
		batch, many := s.sinks[t.Sink].(Batch)
		switch {
		case s.busy[l] || held[l] || s.running[t.Sink] >= s.room(t.Sink):
		case t.failed:
			held[l] = t.holds()
		case t.NextTry.After(now):
			s.dueAt(t.NextTry)
			held[l] = t.holds()
		case many:
			if g := gathered[t.Sink]; len(g) < batch.Most() && (len(g) == 0 || !t.rejected && !g[0].rejected) {
				gathered[t.Sink] = append(g, t)
			} else {
				held[l] = true // the next message carries it, and what follows it
			}
		default:
			ready = append(ready, []evidence.Pending{t.Pending})
			t.running, s.busy[l] = true, true
			if s.running[t.Sink]++; s.running[t.Sink] == triesPerSink {
				full++
			}
		}
	}
	for sink, group := range gathered {
		if at := companyUntil(group, s.sinks[sink].(Batch)); at.After(now) {
			s.dueAt(at)
			continue
		}
		pending := make([]evidence.Pending, len(group))
		for i, t := range group {
			t.running, s.busy[t.lane()] = true, true
			pending[i] = t.Pending
		}
		s.running[sink]++
		ready = append(ready, pending)
	}
	return ready
}

// room is how many tries may be under way to a sink at once.
func (s *schedule) room(sink string) int {
	if _, many := s.sinks[sink].(Batch); many {
		return 1
	}
	return triesPerSink
}

func (s *schedule) dueAt(t time.Time) {
	if s.wakeAt.IsZero() || t.Before(s.wakeAt) {
		s.wakeAt = t
	}
}

// companyUntil is when what was gathered goes out: once it is complete, once
// the first of it waited long enough, and at once what was tried before or is
// waited for.
func companyUntil(group []*task, sink Batch) time.Time {
	if len(group) >= sink.Most() {
		return time.Time{}
	}
	var until time.Time
	for i, t := range group {
		began := t.seen
		if t.Queued.Before(began) {
			began = t.Queued
		}
		if t.Attempts > 0 || t.Event.Type == evidence.EventTest {
			return time.Time{}
		}
		if at := began.Add(sink.Patience()); i == 0 || at.Before(until) {
			until = at
		}
	}
	return until
}

// next is when something is due that start did not give yet, if nothing else
// happens before.
func (s *schedule) next() (time.Time, bool) { return s.wakeAt, !s.wakeAt.IsZero() }

// finish takes note of how a try ended.
func (s *schedule) finish(o outcome) {
	for i, id := range o.ids {
		t := s.tasks[id]
		if t == nil {
			continue
		}
		if i == 0 {
			s.running[t.Sink]--
		}
		delete(s.busy, t.lane())
		s.end(t, o)
	}
}

func (s *schedule) end(t *task, o outcome) {
	if o.done || t.gone {
		delete(s.tasks, t.ID)
		if i, ok := slices.BinarySearchFunc(s.order, t, byTurn); ok {
			s.order = slices.Delete(s.order, i, i+1)
		}
		if !o.done {
			s.inherit(t, o.next)
		}
		return
	}
	t.running, t.failed = false, true
	t.rejected = o.rejected
	t.Attempts++
	t.NextTry = o.next
}

// inherit makes what replaced a delivery under way wait in its stead: a
// receiver that is down is not tried more often because there is more news.
func (s *schedule) inherit(t *task, next time.Time) {
	for _, heir := range s.order {
		if heir.lane() == t.lane() && heir.Event.Type == t.Event.Type && heir.NextTry.Before(next) {
			heir.NextTry = next
			heir.Attempts = max(heir.Attempts, t.Attempts+1)
		}
	}
}

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
}

// task is a waiting delivery as the schedule sees it.
type task struct {
	evidence.Pending
	running  bool
	rejected bool
	gone     bool // left the outbox while under way
	urgent   bool // its lane has news of tampering
	failed   bool // and was not seen in the outbox since
}

func (t *task) lane() lane { return lane{t.Sink, t.Event.Name} }

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
		t := &task{Pending: p}
		if known := old[p.ID]; known != nil {
			if known.running {
				t = known
			}
			t.rejected = known.rejected
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
		if t.Event.Type == evidence.EventTampered {
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

// start gives what is to be tried now and counts it as under way.
func (s *schedule) start(now time.Time) []evidence.Pending {
	s.wakeAt = time.Time{}
	var ready []evidence.Pending
	held := make(map[lane]bool)
	full := 0
	for _, n := range s.running {
		if n >= triesPerSink {
			full++
		}
	}
	for _, t := range s.order {
		if full == len(s.sinks) {
			break // nothing can start before a try ends
		}
		l := t.lane()
		switch {
		case s.busy[l] || held[l] || s.running[t.Sink] >= triesPerSink:
		case t.failed:
			held[l] = t.holds()
		case t.NextTry.After(now):
			if s.wakeAt.IsZero() || t.NextTry.Before(s.wakeAt) {
				s.wakeAt = t.NextTry
			}
			held[l] = t.holds()
		default:
			t.running, s.busy[l] = true, true
			if s.running[t.Sink]++; s.running[t.Sink] == triesPerSink {
				full++
			}
			ready = append(ready, t.Pending)
		}
	}
	return ready
}

// next is when something is due that start did not give yet, if nothing else
// happens before.
func (s *schedule) next() (time.Time, bool) { return s.wakeAt, !s.wakeAt.IsZero() }

// finish takes note of how a try ended.
func (s *schedule) finish(o outcome) {
	t := s.tasks[o.id]
	if t == nil {
		return
	}
	s.running[t.Sink]--
	delete(s.busy, t.lane())
	if o.done || t.gone {
		delete(s.tasks, o.id)
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

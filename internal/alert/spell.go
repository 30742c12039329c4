package alert

import (
	"log/slog"
	"sync"
	"time"

	"immuaudit/evidence"
)

// spells keep the log readable while a receiver is away for a night: its sink
// fails for as many deliveries as wait, each again and again, and that is said
// once, then seldom, and once more when it is over.
type spells struct {
	log *slog.Logger
	mu  sync.Mutex
	of  map[string]*spell // by sink
}

// spell is a time in which no try of a sink succeeded.
type spell struct {
	since    time.Time // its first failure; zero while the sink works
	failures int
	told     time.Time // when a failure was last said aloud
	silent   bool      // nothing was said aloud of this one
	rejected time.Time // when it was last said aloud that the receiver found fault with an event
}

func newSpells(log *slog.Logger) *spells {
	return &spells{log: log, of: make(map[string]*spell)}
}

func (s *spells) sink(name string) *spell {
	if s.of[name] == nil {
		s.of[name] = new(spell)
	}
	return s.of[name]
}

// failed says that a try failed. A receiver that finds fault with an event may
// well take others, so that is no spell.
func (s *spells) failed(p evidence.Pending, events, tries int, rejected bool, next time.Time, why string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	spell := s.sink(p.Sink)
	told := &spell.told
	if rejected {
		told = &spell.rejected
	} else {
		if spell.since.IsZero() {
			spell.since, spell.failures, spell.silent = now, 0, true
		}
		spell.failures++
	}
	say := s.log.Debug
	if told.IsZero() || now.Sub(*told) >= sayAgain || now.Before(*told) {
		*told = now
		say = s.log.Warn
		if !rejected {
			spell.silent = false
		}
	}
	args := []any{"sink", p.Sink, "about", subject(p.Event), "event", p.Event.ID, "events", events, "tries", tries, "next", next, "error", why}
	if !rejected && spell.failures > 1 {
		args = append(args, "failing_since", spell.since, "failures", spell.failures)
	}
	say("a notification was not delivered and is tried again", args...)
}

// succeeded says that a sink works again, if it was said that it does not.
func (s *spells) succeeded(sink string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	spell := s.of[sink]
	if spell == nil || spell.since.IsZero() {
		return
	}
	if !spell.silent {
		s.log.Info("notifications are delivered again", "sink", sink, "failing_since", spell.since, "failures", spell.failures)
	}
	spell.since = time.Time{}
}

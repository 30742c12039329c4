package alert

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
)

// A night without a receiver is a handful of lines in the log, however many
// deliveries wait for it: when it began, that it goes on, that it is over.
func TestNightWithoutReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const night = 8 * time.Hour
		outbox := newDurable()
		begun := time.Now()
		var mu sync.Mutex
		tries := 0
		sink := fakeSink{"webhook", func(context.Context, evidence.Event) error {
			mu.Lock()
			defer mu.Unlock()
			tries++
			if time.Since(begun) < night {
				return errDown
			}
			return nil
		}}
		for n := range 20 {
			outbox.queue("webhook", tampered(fmt.Sprintf("db%d", n), n))
		}
		var log bytes.Buffer
		stop := running(t, outbox, func(d *Dispatcher) { d.spells = newSpells(slog.New(slog.NewTextHandler(&log, nil))) }, sink)
		pass(night + 2*maxRetry)
		stop()
		if left := outbox.pending(); len(left) != 0 || tries < 1000 {
			t.Fatalf("%d still waiting after %d tries", len(left), tries)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if most := int(night/sayAgain) + 2; len(lines) < most-5 || len(lines) > most {
			t.Errorf("%d lines of %d tries, want about %d", len(lines), tries, most)
		}
		first, last := lines[0], lines[len(lines)-1]
		if !strings.Contains(first, "level=WARN") || !strings.Contains(first, "about=prod/db") || !strings.Contains(first, `error="connection refused"`) || strings.Contains(first, "failing_since") {
			t.Errorf("first line: %s", first)
		}
		if !strings.Contains(lines[1], "failing_since="+begun.Format("2006-01-02")) {
			t.Errorf("second line: %s", lines[1])
		}
		if n := strings.Count(log.String(), "delivered again"); n != 1 || !strings.Contains(last, "level=INFO msg=\"notifications are delivered again\" sink=webhook") {
			t.Errorf("said %d times that it is over; last line: %s", n, last)
		}
	})
}

// One that answers now and then is not a new story each time; one whose
// receiver finds fault with an event works for the others; and sinks speak for
// themselves.
func TestSpells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSpells(slog.New(slog.NewTextHandler(&log, nil)))
		said := func(want ...string) {
			t.Helper()
			got := strings.TrimSpace(log.String())
			log.Reset()
			lines := strings.Split(got, "\n")
			if got == "" {
				lines = nil
			}
			if len(lines) != len(want) {
				t.Fatalf("said %d lines, want %d:\n%s", len(lines), len(want), got)
			}
			for i, w := range want {
				if !strings.Contains(lines[i], w) {
					t.Errorf("line %d is %s\nwithout %s", i+1, lines[i], w)
				}
			}
		}
		one := evidence.Pending{Sink: "a", Event: tampered("db", 1)}
		other := evidence.Pending{Sink: "b", Event: evidence.Event{ID: "x", Type: evidence.EventStateProblem}}
		fail := func(p evidence.Pending, rejected bool) {
			s.failed(p, 1, 1, rejected, time.Now(), "no")
		}

		s.succeeded("a")
		said()
		fail(one, false)
		fail(one, false)
		fail(other, false)
		said("sink=a", `sink=b about="the auditor"`)
		s.succeeded("a")
		s.succeeded("a")
		said("msg=\"notifications are delivered again\" sink=a")
		for range 5 {
			fail(one, false)
			s.succeeded("a")
		}
		said()
		fail(one, true)
		fail(one, true)
		said("level=WARN")
		s.succeeded("a")
		said()
		pass(sayAgain)
		fail(one, true)
		fail(one, false)
		said("level=WARN", "level=WARN")
	})
}

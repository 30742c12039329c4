package alert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"immuaudit/evidence"
)

// DispatcherOptions is what a Dispatcher works with.
type DispatcherOptions struct {
	Outbox Outbox
	Sinks  []Sink
	// Wake is signalled when something was put into the outbox. Without it the
	// outbox is looked at once a minute.
	Wake   <-chan struct{}
	Logger *slog.Logger // nil: no log
}

// Dispatcher brings what waits in the outbox to the sinks. Of one ledger, one
// delivery at a time is under way to a sink, in the order in which they were
// queued; sinks, and ledgers, wait for nobody but themselves.
type Dispatcher struct {
	outbox Outbox
	sinks  map[string]Sink
	wake   <-chan struct{}
	log    *slog.Logger
	spells *spells
	wait   func(tries int) time.Duration
	pause  time.Duration // between two looks at the outbox
}

// NewDispatcher checks the options.
func NewDispatcher(o DispatcherOptions) (*Dispatcher, error) {
	if o.Outbox == nil {
		return nil, errors.New("a dispatcher needs an outbox")
	}
	d := &Dispatcher{outbox: o.Outbox, sinks: make(map[string]Sink, len(o.Sinks)), wake: o.Wake, log: o.Logger, wait: wait, pause: lookPause}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.spells = newSpells(d.log)
	for _, s := range o.Sinks {
		if _, twice := d.sinks[s.Name()]; twice {
			return nil, fmt.Errorf("two sinks are named %q; give each its own name", s.Name())
		}
		d.sinks[s.Name()] = s
	}
	return d, nil
}

// outcome is how a try ended.
type outcome struct {
	ids  []int64
	done bool      // they left the outbox
	next time.Time // otherwise: when to try again
	// rejected: the receiver found fault with this very event.
	rejected bool
}

// looks says when the outbox is to be read next: soon after it was asked for,
// but not without pause, and otherwise once in a while.
type looks struct {
	next     time.Time
	earliest time.Time
	pause    time.Duration
}

func (l *looks) done(now time.Time, err error) {
	if err != nil {
		l.earliest = now.Add(lookRetry)
		l.next = l.earliest
		return
	}
	l.earliest = now.Add(l.pause)
	l.next = now.Add(lookEvery)
}

func (l *looks) wanted() { l.next = l.earliest }

// Run delivers until ctx ends. Tries under way then have three seconds to
// finish; what could not be delivered waits in the outbox for the next start.
func (d *Dispatcher) Run(ctx context.Context) error {
	tries, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var workers sync.WaitGroup
	outcomes := make(chan outcome)
	plan := newSchedule(d.sinks, d.log)
	timer := time.NewTimer(0)
	defer timer.Stop()

	looks := looks{next: time.Now(), pause: d.pause}
	wake := d.wake
	others, stopWatching := d.watch(ctx)
	defer stopWatching()
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(looks.next) {
			waiting, err := d.outbox.Due(ctx, now.Add(lookAhead), maxWaiting)
			looks.done(time.Now(), err)
			if err == nil {
				plan.replace(waiting, now)
			} else if ctx.Err() == nil {
				d.log.Error("reading the outbox failed; new notifications wait until it can be read", "error", err)
				plan.carryOn()
			}
		}
		for _, p := range plan.start(now) {
			workers.Go(func() {
				o := d.try(tries, p)
				select {
				case outcomes <- o:
				case <-ctx.Done(): // nobody plans any more
				}
			})
		}

		until := looks.next
		if next, ok := plan.next(); ok && next.Before(until) {
			until = next
		}
		timer.Reset(time.Until(until))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case _, open := <-wake:
			if !open {
				wake = nil
			}
			looks.wanted()
		case <-others:
			looks.wanted()
		case o := <-outcomes:
			plan.finish(o)
			if !o.done {
				// What failed is looked for again before it is tried again:
				// something newer may have taken its place.
				looks.wanted()
			}
		}
	}
	grace := time.AfterFunc(stopGrace, stop)
	defer grace.Stop()
	workers.Wait()
	return nil
}

// watch signals when somebody else wrote to the outbox.
func (d *Dispatcher) watch(ctx context.Context) (<-chan struct{}, func()) {
	watched, ok := d.outbox.(Watched)
	if !ok {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		last, _ := watched.Generation(ctx) // where it cannot be told, the outbox is read once more
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			now, err := watched.Generation(ctx)
			if err != nil || now == last {
				continue // whoever reads the outbox says what is wrong with it
			}
			last = now
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	return changed, func() { cancel(); watcher.Wait() }
}

// try makes one try and records how it went. More than one delivery is for a
// Batch.
func (d *Dispatcher) try(ctx context.Context, group []evidence.Pending) outcome {
	first := group[0]
	o := outcome{ids: make([]int64, len(group))}
	events := make([]evidence.Event, len(group))
	tries := 0
	for i, p := range group {
		o.ids[i], events[i], tries = p.ID, p.Event, max(tries, p.Attempts+1)
	}
	limited, cancel := context.WithTimeout(ctx, tryTimeout)
	err := send(limited, d.sinks[first.Sink], events)
	cancel()
	var partly *PartlyError
	if errors.As(err, &partly) {
		d.log.Warn("a notification was accepted, but not for everybody", "sink", first.Sink, "event", first.Event.ID, "missed", partly.Missed)
		err = nil
	}
	if err == nil {
		d.spells.succeeded(first.Sink)
		d.record(ctx, first, "delivered", func(ctx context.Context) error { return d.outbox.Delivered(ctx, o.ids...) })
		o.done = true
		return o
	}
	if ctx.Err() != nil {
		// Broken off by ourselves: that is nobody's failure. It is made again
		// at the next start, with the same key.
		o.next = time.Now()
		return o
	}
	o.next = time.Now().Add(d.wait(tries))
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Permanent() {
		o.rejected = true
		// Of many, one is at fault: they are soon tried one by one.
		if len(group) == 1 {
			o.next = time.Now().Add(maxRetry)
		}
	}
	text := cut(err.Error(), maxErrorBytes)
	d.spells.failed(first, len(group), tries, o.rejected, o.next, text)
	d.record(ctx, first, "not delivered", func(ctx context.Context) error { return d.outbox.Retry(ctx, o.next, text, o.ids...) })
	return o
}

func send(ctx context.Context, sink Sink, events []evidence.Event) error {
	if batch, ok := sink.(Batch); ok {
		return batch.SendAll(ctx, events)
	}
	return sink.Send(ctx, events[0])
}

// record writes to the outbox until that succeeded: the delivery stays under
// way meanwhile, so that what was sent is not sent again because the disk is
// full. When the auditor stops there is one more try.
func (d *Dispatcher) record(ctx context.Context, p evidence.Pending, what string, write func(context.Context) error) {
	for attempt := 1; ; attempt++ {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		err := write(limited)
		cancel()
		if err == nil {
			return
		}
		d.log.Error("noting how a notification went failed; trying again",
			"sink", p.Sink, "event", p.Event.ID, "outcome", what, "error", err)
		timer := time.NewTimer(d.wait(attempt))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// wait is how long to wait after so many failed tries: 1 s, doubled each time
// up to 5 min, a fifth more or less so that many deliveries do not come back
// all at once. The count is stored with the delivery and goes on after a
// restart.
func wait(tries int) time.Duration {
	policy := backoff.ExponentialBackOff{
		InitialInterval:     minRetry,
		MaxInterval:         maxRetry,
		Multiplier:          2,
		RandomizationFactor: 0.2,
	}
	var next time.Duration
	for range min(tries, 12) { // the longest wait is reached with the tenth
		next = policy.NextBackOff()
	}
	return min(max(next, minRetry), maxRetry)
}

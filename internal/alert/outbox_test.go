package alert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"immuaudit/evidence"
	"immuaudit/proof"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// durable is an outbox that outlives dispatchers, as the one on disk does.
type durable struct {
	mu      sync.Mutex
	next    int64
	waiting map[int64]evidence.Pending
	wake    chan struct{}
	given   map[int64]bool // handed out and not answered yet
	broken  error          // what writes answer while set
	looks   int
	unread  error // what reads answer while set
	heir    int64 // what replaced those that were withdrawn
	unasked int   // answers about deliveries that were not handed out since the last one
}

func newDurable() *durable {
	return &durable{waiting: make(map[int64]evidence.Pending), given: make(map[int64]bool), wake: make(chan struct{}, 1)}
}

func (o *durable) queue(sink string, e evidence.Event) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.put(evidence.Pending{Sink: sink, Event: e, NextTry: time.Now()})
}

// replace queues an event in the place of all that wait; it goes on with their
// backoff, as a store does that coalesces.
func (o *durable) replace(sink string, e evidence.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	heir := evidence.Pending{Sink: sink, Event: e, NextTry: time.Now()}
	for id, p := range o.waiting {
		heir.Attempts, heir.NextTry = p.Attempts, p.NextTry
		delete(o.waiting, id)
	}
	o.heir = o.put(heir)
}

func (o *durable) put(p evidence.Pending) int64 {
	o.next++
	p.ID, p.Queued = o.next, time.Now()
	o.waiting[p.ID] = p
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return o.next
}

func (o *durable) Due(_ context.Context, now time.Time, limit int) ([]evidence.Pending, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looks++
	if o.unread != nil {
		return nil, o.unread
	}
	var due []evidence.Pending
	for _, p := range o.waiting {
		if !p.NextTry.After(now) {
			due = append(due, p)
		}
	}
	slices.SortFunc(due, func(a, b evidence.Pending) int {
		return cmp.Or(a.NextTry.Compare(b.NextTry), cmp.Compare(a.ID, b.ID))
	})
	due = due[:min(len(due), limit)]
	for _, p := range due {
		o.given[p.ID] = true
	}
	return due, nil
}

func (o *durable) Delivered(_ context.Context, ids ...int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		return o.broken
	}
	for _, id := range ids {
		o.answered(id)
		delete(o.waiting, id)
	}
	return nil
}

func (o *durable) Retry(_ context.Context, next time.Time, lastErr string, ids ...int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		return o.broken
	}
	for _, id := range ids {
		o.answered(id)
		if _, ok := o.waiting[id]; !ok && o.heir != 0 {
			id = o.heir
		}
		if p, ok := o.waiting[id]; ok {
			p.Attempts++
			p.NextTry, p.LastErr = next, lastErr
			o.waiting[id] = p
		}
	}
	return nil
}

// withdraw takes a delivery out without an answer to it.
func (o *durable) withdraw(id int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.waiting, id)
}

func (o *durable) answered(id int64) {
	if !o.given[id] {
		o.unasked++
	}
	delete(o.given, id)
}

func (o *durable) breakDown(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = err
}

func (o *durable) pending() []evidence.Pending {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []evidence.Pending
	for _, p := range o.waiting {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b evidence.Pending) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// fakeSink is a sink whose behaviour is a function.
type fakeSink struct {
	name string
	send func(context.Context, evidence.Event) error
}

func (s fakeSink) Name() string                                     { return s.name }
func (s fakeSink) Send(ctx context.Context, e evidence.Event) error { return s.send(ctx, e) }
func accepting(name string, got chan<- evidence.Event) fakeSink {
	return fakeSink{name, func(_ context.Context, e evidence.Event) error {
		got <- e
		return nil
	}}
}

var errDown = errors.New("connection refused")

func failing(name string) fakeSink {
	return fakeSink{name, func(context.Context, evidence.Event) error { return errDown }}
}

func tampered(db string, n int) evidence.Event {
	return evidence.Event{
		ID:      fmt.Sprintf("%s-%04d", db, n),
		Type:    evidence.EventTampered,
		At:      time.Date(2026, 11, 23, 12, 0, n, 0, time.UTC),
		Name:    evidence.Name{Server: "prod", Database: db},
		Verdict: evidence.Tampered,
		Kind:    evidence.Fork,
		Current: &proof.SignedState{DB: db, State: proof.State{TxID: uint64(n)}},
	}
}

// running starts a dispatcher and gives what stops it and waits for its end.
func running(t *testing.T, o *durable, adjust func(*Dispatcher), sinks ...Sink) (stop func()) {
	t.Helper()
	d, err := NewDispatcher(DispatcherOptions{Outbox: o, Sinks: sinks, Wake: o.wake})
	if err != nil {
		t.Fatal(err)
	}
	if adjust != nil {
		adjust(d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run ended with %v", err)
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.unasked > 0 {
				t.Errorf("%d answers about deliveries that were not handed out", o.unasked)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// hurried makes a dispatcher wait milliseconds instead of seconds.
func hurried(d *Dispatcher) {
	d.wait = func(int) time.Duration { return 5 * time.Millisecond }
	d.pause = time.Millisecond
}

// pass lets time go by in a synctest bubble, where it costs none; outside of one
// it panics.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

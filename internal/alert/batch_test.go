package alert

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
)

// digest is a Batch whose behaviour is a function.
type digest struct {
	fakeSink
	most     int
	patience time.Duration
	all      func([]evidence.Event) error
}

func (d digest) Most() int                                                { return d.most }
func (d digest) Patience() time.Duration                                  { return d.patience }
func (d digest) SendAll(_ context.Context, events []evidence.Event) error { return d.all(events) }

// A thousand incidents are twenty messages, each soon, and each event is in one.
func TestStormIsFewMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		var mu sync.Mutex
		var sizes []int
		seen := map[string]int{}
		sink := digest{fakeSink{name: "mail"}, 50, 10 * time.Second, func(events []evidence.Event) error {
			mu.Lock()
			defer mu.Unlock()
			sizes = append(sizes, len(events))
			for _, e := range events {
				seen[e.ID]++
			}
			return nil
		}}
		stop := running(t, outbox, nil, sink)
		pass(time.Second)
		outbox.queue("mail", tampered("first", 0))
		pass(9 * time.Second)
		if len(sizes) != 0 {
			t.Errorf("it was sent without waiting for company: %v", sizes)
		}
		for n := 1; n < 1000; n++ {
			outbox.queue("mail", tampered(fmt.Sprint("db", n%400), n))
		}
		pass(12 * time.Second)
		stop()
		if len(sizes) != 20 || len(seen) != 1000 || len(outbox.pending()) != 0 {
			t.Errorf("%d events in messages of %v", len(seen), sizes)
		}
	})
}

// Whatever fails, the order of each ledger stays, and what is sent again is
// sent whole.
func TestBatchesKeepOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		var mu sync.Mutex
		var failed []string
		tries := 0
		got := map[string][]string{}
		sink := digest{fakeSink{name: "mail"}, 7, time.Second, func(events []evidence.Event) error {
			mu.Lock()
			defer mu.Unlock()
			var ids []string
			for _, e := range events {
				ids = append(ids, e.ID)
			}
			for _, id := range failed {
				if !slices.Contains(ids, id) {
					t.Errorf("%v follows a failed %v", ids, failed)
				}
			}
			if tries++; tries%3 != 0 {
				failed = ids
				return errDown
			}
			failed = nil
			for _, e := range events {
				got[e.Name.Database] = append(got[e.Name.Database], e.ID)
			}
			return nil
		}}
		want := map[string][]string{}
		for n := range 60 {
			e := tampered(fmt.Sprint("db", n%4), n)
			want[e.Name.Database] = append(want[e.Name.Database], e.ID)
			outbox.queue("mail", e)
		}
		stop := running(t, outbox, nil, sink)
		pass(time.Hour)
		stop()
		for db, ids := range want {
			if !slices.Equal(got[db], ids) {
				t.Errorf("%s: got %v, want %v", db, got[db], ids)
			}
		}
	})
}

// One event that the receiver will not have does not keep the others from it.
func TestOneBadEventOfABatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		var mu sync.Mutex
		got := map[string]bool{}
		sink := digest{fakeSink{name: "mail"}, 50, 0, func(events []evidence.Event) error {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				if e.ID == "db3-0003" {
					return &Refusal{Status: 554, final: true}
				}
			}
			for _, e := range events {
				got[e.ID] = true
			}
			return nil
		}}
		for n := range 10 {
			outbox.queue("mail", tampered(fmt.Sprint("db", n), n))
		}
		stop := running(t, outbox, nil, sink)
		pass(time.Minute)
		stop()
		if len(got) != 9 || len(outbox.pending()) != 1 {
			t.Errorf("%d arrived, %d wait", len(got), len(outbox.pending()))
		}
	})
}

// A test waits for nobody: not for company, and not behind what fails.
func TestATestFollowsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		e := evidence.Event{ID: "stale", Type: evidence.EventStale, Name: evidence.Name{Server: "prod"}}
		got := make(chan string, 9)
		sink := digest{fakeSink{name: "mail"}, 1, time.Minute, func(events []evidence.Event) error {
			if events[0].Type != evidence.EventTest {
				return errDown
			}
			got <- events[0].ID
			return nil
		}}
		outbox.queue("mail", e)
		stop := running(t, outbox, nil, sink)
		pass(2 * time.Minute)
		outbox.queue("mail", NewTest("prod", time.Now()))
		begun := time.Now()
		<-got
		if waited := time.Since(begun); waited > time.Second {
			t.Errorf("it waited %s", waited)
		}
		stop()
	})
}

// watchedOutbox is one that others write to without waking anybody.
type watchedOutbox struct {
	*durable
	generation uint64
}

func (o *watchedOutbox) Generation(context.Context) (uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.generation, nil
}

func TestOthersAreNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &watchedOutbox{durable: newDurable()}
		got := make(chan evidence.Event, 1)
		d, err := NewDispatcher(DispatcherOptions{Outbox: o, Sinks: []Sink{accepting("hook", got)}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()
		pass(10 * time.Second)
		o.queue("hook", tampered("db", 1))
		o.mu.Lock()
		o.generation++
		looks := o.looks
		o.mu.Unlock()
		begun := time.Now()
		<-got
		if waited := time.Since(begun); waited > 2*time.Second || looks > 1 {
			t.Errorf("it waited %s; %d looks before", waited, looks)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

type book struct {
	mu    sync.Mutex
	notes []string
}

func (b *book) NoteSink(_ context.Context, sink, lastErr string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes = append(b.notes, sink+":"+lastErr)
	return nil
}

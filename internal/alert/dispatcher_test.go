package alert

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
)

func TestWaitGrowsFromASecondToFiveMinutes(t *testing.T) {
	t.Parallel()
	for range 50 {
		for tries := 1; tries <= 40; tries++ {
			ideal := min(minRetry<<min(tries-1, 20), maxRetry)
			low, high := max(ideal*8/10, minRetry), min(ideal*12/10+1, maxRetry)
			if got := wait(tries); got < low || got > high {
				t.Fatalf("wait(%d) = %s, want %s to %s", tries, got, low, high)
			}
		}
	}
}

// A receiver that is away is tried ever more seldom, at most every five
// minutes, and gets everything when it is back.
func TestBackoffOverADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		start := time.Now()
		var mu sync.Mutex
		var tries []time.Time
		up := start.Add(24 * time.Hour)
		sink := fakeSink{"webhook", func(context.Context, evidence.Event) error {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, time.Now())
			if time.Now().Before(up) {
				return errDown
			}
			return nil
		}}
		outbox.queue("webhook", tampered("db", 1))
		stop := running(t, outbox, nil, sink)
		time.Sleep(24*time.Hour + maxRetry + time.Second)
		synctest.Wait()
		stop()
		if left := outbox.pending(); len(left) != 0 {
			t.Fatalf("still waiting: %+v", left)
		}
		for i := 1; i < len(tries); i++ {
			if gap := tries[i].Sub(tries[i-1]); gap < minRetry || gap > maxRetry {
				t.Errorf("%s between try %d and %d", gap, i, i+1)
			}
		}
		if n := len(tries); n < 24*12 || n > 24*18 {
			t.Errorf("%d tries in a day", n)
		}
	})
}

// The count of tries is stored: a restart does not begin again with a second.
func TestBackoffGoesOnAfterRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.queue("webhook", tampered("db", 1))
		stop := running(t, outbox, nil, failing("webhook"))
		time.Sleep(time.Minute)
		stop()
		before := outbox.pending()[0]
		if before.Attempts < 5 || before.LastErr != errDown.Error() {
			t.Fatalf("after a minute: %+v", before)
		}
		tried := make(chan evidence.Event, 1)
		stop = running(t, outbox, nil, accepting("webhook", tried))
		begun := time.Now()
		<-tried
		if waited := time.Since(begun); time.Now().Before(before.NextTry) {
			t.Errorf("tried %s after the restart, before its time", waited)
		}
		stop()
	})
}

// After a restart an older delivery that waits for its next try still comes
// before the newer ones of its ledger.
func TestOrderSurvivesRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.queue("webhook", tampered("db", 1))
		stop := running(t, outbox, nil, failing("webhook"))
		time.Sleep(10 * time.Second)
		stop()
		outbox.queue("webhook", tampered("db", 2))
		got := make(chan evidence.Event, 2)
		stop = running(t, outbox, nil, accepting("webhook", got))
		if first, second := <-got, <-got; first.ID != "db-0001" || second.ID != "db-0002" {
			t.Errorf("got %s, then %s", first.ID, second.ID)
		}
		stop()
	})
}

// Whatever fails, each ledger's deliveries are made one at a time, in order,
// and each is accepted exactly once.
func TestOrderPerLedger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ledgers, each = 9, 12
		outbox := newDurable()
		random := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		inFlight := make(map[string]int)
		accepted := make(map[string][]string)
		most, total := 0, 0
		sink := fakeSink{"webhook", func(_ context.Context, e evidence.Event) error {
			db := e.Name.Database
			mu.Lock()
			inFlight[db]++
			total++
			most = max(most, total)
			if inFlight[db] > 1 {
				t.Errorf("two deliveries of %s at once", db)
			}
			down := random.IntN(2) == 0
			pause := time.Duration(random.IntN(3000)) * time.Millisecond
			mu.Unlock()
			time.Sleep(pause)
			mu.Lock()
			defer mu.Unlock()
			inFlight[db]--
			total--
			if down {
				return &Refusal{Status: 503}
			}
			accepted[db] = append(accepted[db], e.ID)
			return nil
		}}
		stop := running(t, outbox, nil, sink)
		want := make(map[string][]string)
		for n := range each {
			for l := range ledgers {
				e := tampered(fmt.Sprintf("db%d", l), n)
				want[e.Name.Database] = append(want[e.Name.Database], e.ID)
				outbox.queue("webhook", e)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		stop()
		for db, ids := range want {
			if !slices.Equal(accepted[db], ids) {
				t.Errorf("%s: accepted %v, want %v", db, accepted[db], ids)
			}
		}
		if len(outbox.pending()) != 0 {
			t.Errorf("%d still wait", len(outbox.pending()))
		}
		if most > triesPerSink || most < 2 {
			t.Errorf("%d tries at once, want 2 to %d", most, triesPerSink)
		}
	})
}

// A sink that hangs, with a thousand ledgers waiting for it, delays no other;
// and it is given ten seconds a try.
func TestHangingSinkDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		for n := range 1000 {
			outbox.queue("hanging", tampered(fmt.Sprintf("db%d", n), n))
		}
		tried := make(chan time.Duration, 2000)
		hanging := fakeSink{"hanging", func(ctx context.Context, _ evidence.Event) error {
			begun := time.Now()
			<-ctx.Done()
			tried <- time.Since(begun)
			return ctx.Err()
		}}
		got := make(chan evidence.Event, 1)
		stop := running(t, outbox, nil, hanging, accepting("quick", got))
		time.Sleep(25 * time.Second)
		queued := time.Now()
		outbox.queue("quick", tampered("db1", 7))
		<-got
		if waited := time.Since(queued); waited > lookPause {
			t.Errorf("the quick sink waited %s", waited)
		}
		for range triesPerSink {
			if took := <-tried; took != tryTimeout {
				t.Errorf("a try took %s, want %s", took, tryTimeout)
			}
		}
		stop()
	})
}

// What was sent is not sent again because the disk is full.
func TestFailingOutboxRepeatsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.breakDown(errors.New("no space left on device"))
		got := make(chan evidence.Event, 100)
		outbox.queue("webhook", tampered("db", 1))
		stop := running(t, outbox, nil, accepting("webhook", got))
		time.Sleep(time.Hour)
		outbox.breakDown(nil)
		time.Sleep(maxRetry)
		synctest.Wait()
		stop()
		if len(got) != 1 || len(outbox.pending()) != 0 {
			t.Errorf("sent %d times, %d still waiting", len(got), len(outbox.pending()))
		}
	})
}

// A try under way when the auditor is told to stop may finish, and is recorded.
func TestStopLetsATryFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.queue("webhook", tampered("db", 1))
		stop := running(t, outbox, nil, fakeSink{"webhook", func(ctx context.Context, _ evidence.Event) error {
			select {
			case <-time.After(2 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		time.Sleep(time.Second)
		stop()
		if left := outbox.pending(); len(left) != 0 {
			t.Errorf("delivered but still waiting: %+v", left)
		}
	})
}

// One that hangs is broken off after three seconds; that counts as no failure.
func TestStopBreaksOffAHangingTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.queue("webhook", tampered("db", 1))
		stop := running(t, outbox, nil, fakeSink{"webhook", func(ctx context.Context, _ evidence.Event) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		time.Sleep(time.Second)
		begun := time.Now()
		stop()
		if took := time.Since(begun); took != stopGrace {
			t.Errorf("stopping took %s, want %s", took, stopGrace)
		}
		if left := outbox.pending(); len(left) != 1 || left[0].Attempts != 0 {
			t.Errorf("want the delivery waiting, untried: %+v", left)
		}
	})
}

// An event that the receiver will not have is tried every five minutes and
// holds back nothing.
func TestRejectedEventHoldsNothingBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		var mu sync.Mutex
		var rejected []time.Time
		got := make(chan evidence.Event, 10)
		sink := fakeSink{"webhook", func(_ context.Context, e evidence.Event) error {
			if e.ID == "db-0001" {
				mu.Lock()
				defer mu.Unlock()
				rejected = append(rejected, time.Now())
				return &Refusal{Status: 422}
			}
			got <- e
			return nil
		}}
		outbox.queue("webhook", tampered("db", 1))
		outbox.queue("webhook", tampered("db", 2))
		begun := time.Now()
		stop := running(t, outbox, nil, sink)
		<-got
		if waited := time.Since(begun); waited > time.Second {
			t.Errorf("the second waited %s for the first", waited)
		}
		time.Sleep(time.Hour)
		stop()
		for i := 1; i < len(rejected); i++ {
			if gap := rejected[i].Sub(rejected[i-1]); gap != maxRetry {
				t.Errorf("%s between tries of a rejected event, want %s", gap, maxRetry)
			}
		}
		if len(rejected) < 12 {
			t.Errorf("%d tries in an hour", len(rejected))
		}
	})
}

// Nobody can keep news from being told for ever by failing on older news.
func TestOldFailureGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		got := make(chan evidence.Event, 10)
		sink := fakeSink{"webhook", func(_ context.Context, e evidence.Event) error {
			if e.ID == "db-0001" {
				return &Refusal{Status: 500}
			}
			got <- e
			return nil
		}}
		outbox.queue("webhook", tampered("db", 1))
		outbox.queue("webhook", tampered("db", 2))
		begun := time.Now()
		stop := running(t, outbox, nil, sink)
		<-got
		if waited := time.Since(begun); waited < 10*time.Minute || waited > 2*time.Hour {
			t.Errorf("the second came after %s", waited)
		}
		stop()
	})
}

// A time to try again that lies far ahead comes from a clock that was wrong.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		id := outbox.queue("webhook", tampered("db", 1))
		if err := outbox.Retry(t.Context(), id, time.Now().Add(30*24*time.Hour), "earlier"); err != nil {
			t.Fatal(err)
		}
		got := make(chan evidence.Event, 1)
		begun := time.Now()
		stop := running(t, outbox, nil, accepting("webhook", got))
		<-got
		if waited := time.Since(begun); waited > maxRetry+lookEvery {
			t.Errorf("waited %s", waited)
		}
		stop()
	})
}

// Deliveries for a sink that is no longer configured wait, cost nothing, and
// go out when it is configured again.
func TestUnknownSinkWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.queue("gone", tampered("db", 1))
		stop := running(t, outbox, nil, failing("webhook"))
		time.Sleep(time.Hour)
		stop()
		if outbox.looks > 62 {
			t.Errorf("the outbox was read %d times in an hour", outbox.looks)
		}
		got := make(chan evidence.Event, 1)
		stop = running(t, outbox, nil, accepting("gone", got))
		<-got
		stop()
	})
}

// A newer delivery that replaces one under way is delivered as well.
func TestReplacedUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		old := outbox.queue("webhook", tampered("db", 1))
		var mu sync.Mutex
		var got []string
		stop := running(t, outbox, nil, fakeSink{"webhook", func(_ context.Context, e evidence.Event) error {
			time.Sleep(5 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e.ID)
			return nil
		}})
		time.Sleep(time.Second)
		if err := outbox.Delivered(t.Context(), old); err != nil { // as a store does that coalesces
			t.Fatal(err)
		}
		outbox.queue("webhook", tampered("db", 2))
		time.Sleep(time.Minute)
		stop()
		if want := []string{"db-0001", "db-0002"}; !slices.Equal(got, want) {
			t.Errorf("sent %v, want %v", got, want)
		}
	})
}

func TestClosedWakeDoesNotSpin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		close(outbox.wake)
		stop := running(t, outbox, nil)
		time.Sleep(time.Hour)
		stop()
		if outbox.looks > 63 {
			t.Errorf("the outbox was read %d times in an hour", outbox.looks)
		}
	})
}

func TestNewDispatcherRefuses(t *testing.T) {
	t.Parallel()
	if _, err := NewDispatcher(DispatcherOptions{}); err == nil {
		t.Error("a dispatcher without an outbox")
	}
	twice := DispatcherOptions{Outbox: newDurable(), Sinks: []Sink{failing("a"), failing("a")}}
	if _, err := NewDispatcher(twice); err == nil {
		t.Error("two sinks of one name")
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	types := []evidence.EventType{
		evidence.EventComparison, evidence.EventTampered, evidence.EventFirstContact, evidence.EventIdentityChanged,
		evidence.EventSigningBegan, evidence.EventStale, evidence.EventRecovered, evidence.EventStateCreated, evidence.EventDecision,
	}
	type answer struct{ want, coalesce bool }
	for _, c := range []struct {
		on, sink string
		want     map[evidence.EventType]answer
	}{
		{OnTamper, "webhook", map[evidence.EventType]answer{evidence.EventTampered: {true, false}}},
		{"", "webhook", map[evidence.EventType]answer{evidence.EventTampered: {true, false}}},
		{OnAlways, "webhook", map[evidence.EventType]answer{evidence.EventTampered: {true, false}, evidence.EventComparison: {true, true}}},
		{OnAlways, "", nil},
	} {
		rule := Rules(c.on, c.sink)
		for _, typ := range types {
			want, coalesce := rule(evidence.Event{Type: typ})
			if got := (answer{want, coalesce}); got != c.want[typ] {
				t.Errorf("Rules(%q, %q)(%s) = %v, want %v", c.on, c.sink, typ, got, c.want[typ])
			}
		}
	}
}

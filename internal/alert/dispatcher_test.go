package alert

import (
	"context"
	"errors"
	"fmt"
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
		pass(24*time.Hour + maxRetry + time.Second)
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
		pass(time.Minute)
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
		pass(25 * time.Second)
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
		pass(time.Hour)
		outbox.breakDown(nil)
		pass(maxRetry)
		stop()
		if len(got) != 1 || len(outbox.pending()) != 0 {
			t.Errorf("sent %d times, %d still waiting", len(got), len(outbox.pending()))
		}
	})
}

// An outbox that can no longer be read stops nothing that is known to wait.
func TestUnreadableOutbox(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.queue("webhook", tampered("db", 1))
		var mu sync.Mutex
		tries := 0
		stop := running(t, outbox, nil, fakeSink{"webhook", func(context.Context, evidence.Event) error {
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries < 3 {
				return errDown
			}
			return nil
		}})
		synctest.Wait()
		outbox.mu.Lock()
		outbox.unread = errors.New("database disk image is malformed")
		outbox.mu.Unlock()
		pass(time.Minute)
		outbox.mu.Lock()
		if tries != 3 || len(outbox.waiting) != 0 || outbox.looks > 35 {
			t.Errorf("%d tries, %d waiting, %d looks", tries, len(outbox.waiting), outbox.looks)
		}
		outbox.unread, outbox.unasked = nil, 0 // nothing could be handed out
		outbox.mu.Unlock()
		outbox.queue("webhook", tampered("db", 2))
		pass(time.Minute)
		stop()
		if tries != 4 {
			t.Errorf("%d tries after the outbox came back, want 4", tries)
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
		pass(time.Second)
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
		pass(time.Second)
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

// A time to try again that lies far ahead comes from a clock that was wrong.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		id := outbox.queue("webhook", tampered("db", 1))
		p := outbox.waiting[id]
		p.NextTry = time.Now().Add(30 * 24 * time.Hour)
		outbox.waiting[id] = p
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
		pass(time.Hour)
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
			<-time.After(5 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e.ID)
			return nil
		}})
		pass(time.Second)
		outbox.withdraw(old) // as a store does that coalesces
		outbox.queue("webhook", tampered("db", 2))
		pass(time.Minute)
		stop()
		if want := []string{"db-0001", "db-0002"}; !slices.Equal(got, want) {
			t.Errorf("sent %v, want %v", got, want)
		}
	})
}

// With one comparison after another, each replacing the one before, a receiver
// that hangs is still tried ever more seldom.
func TestReplacedUnderWayKeepsBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		var mu sync.Mutex
		tries := 0
		stop := running(t, outbox, nil, fakeSink{"webhook", func(ctx context.Context, _ evidence.Event) error {
			mu.Lock()
			tries++
			mu.Unlock()
			<-ctx.Done()
			return ctx.Err()
		}})
		for n := range 3600 {
			e := tampered("db", n)
			e.Type = evidence.EventComparison
			outbox.replace("webhook", e)
			pass(time.Second)
		}
		stop()
		if tries < 10 || tries > 30 {
			t.Errorf("%d tries in an hour", tries)
		}
	})
}

func TestClosedWakeDoesNotSpin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		close(outbox.wake)
		stop := running(t, outbox, nil)
		pass(time.Hour)
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

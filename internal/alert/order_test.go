package alert

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
)

// After a restart an older delivery that waits for its next try still comes
// before the newer ones of its ledger.
func TestOrderSurvivesRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		outbox.queue("webhook", tampered("db", 1))
		stop := running(t, outbox, nil, failing("webhook"))
		pass(10 * time.Second)
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
			<-time.After(pause)
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
			pass(time.Second)
		}
		pass(2 * time.Hour)
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

// News of tampering does not queue behind thousands of comparisons.
func TestTamperingGoesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := newDurable()
		for n := range 1000 {
			e := tampered(fmt.Sprintf("db%d", n), n)
			e.Type, e.Verdict = evidence.EventComparison, evidence.Consistent
			outbox.queue("webhook", e)
		}
		outbox.queue("webhook", tampered("db999", 1001))
		var mu sync.Mutex
		var got []string
		stop := running(t, outbox, nil, fakeSink{"webhook", func(_ context.Context, e evidence.Event) error {
			<-time.After(time.Second)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e.ID)
			return nil
		}})
		pass(time.Hour)
		stop()
		if len(got) != 1001 {
			t.Fatalf("%d delivered", len(got))
		}
		// Its ledger's comparison, queued before it, still comes before it.
		before, at := slices.Index(got, "db999-0999"), slices.Index(got, "db999-1001")
		if at > 2*triesPerSink || before > at {
			t.Errorf("the comparison was number %d, the tampering %d", before, at)
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
		pass(time.Hour)
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

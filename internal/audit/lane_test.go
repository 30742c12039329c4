package audit

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestLaneKeepsOrderAndLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, works = 3, 100
		l := newLane(limit)
		gate := make(chan struct{})
		var running, most atomic.Int32
		var mu sync.Mutex
		var order []int
		var done sync.WaitGroup
		for i := range works {
			done.Add(1)
			l.do(func() {
				defer done.Done()
				mu.Lock()
				order = append(order, i)
				most.Store(max(most.Load(), running.Add(1)))
				mu.Unlock()
				<-gate
				running.Add(-1)
			})
		}
		synctest.Wait()
		if got := running.Load(); got != limit {
			t.Fatalf("%d at a time, want %d", got, limit)
		}
		for range works {
			gate <- struct{}{}
			synctest.Wait()
		}
		done.Wait()
		synctest.Wait()
		if most.Load() != limit {
			t.Errorf("%d at a time, want at most %d", most.Load(), limit)
		}
		// The first ones begin together, in any order.
		slices.Sort(order[:limit])
		if !slices.IsSorted(order) || len(order) != works {
			t.Errorf("done in the order %v", order)
		}
		if l.running != 0 || l.waiting != nil {
			t.Errorf("%d still running, room for %d kept", l.running, cap(l.waiting))
		}
	})
}

// Work may ask for more work: a walk that takes turns with others does.
func TestLaneTakesTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLane(1)
		var said []string
		var turns func(name string, n int) func()
		turns = func(name string, n int) func() {
			return func() {
				said = append(said, name)
				if n > 1 {
					l.do(turns(name, n-1))
				}
			}
		}
		block := make(chan struct{})
		l.do(func() { <-block })
		l.do(turns("a", 2))
		l.do(turns("b", 3))
		close(block)
		synctest.Wait()
		if want := []string{"a", "b", "a", "b", "b"}; !slices.Equal(said, want) {
			t.Errorf("turns taken %v, want %v", said, want)
		}
	})
}

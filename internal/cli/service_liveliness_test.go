package cli

import (
	"testing"
	"time"

	"immuaudit/internal/audit"
)

// TestLiveliness: an auditor that hangs is one whose scheduler stands still or
// one of whose rounds does not end; one that waits for a long interval, or for a server
// that does not answer, is not.
func TestLiveliness(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const none = -1
	type moment struct {
		after  time.Duration
		loop   time.Duration // when the scheduler last turned
		oldest time.Duration // when the oldest round in flight began
		want   bool
	}
	for name, moments := range map[string][]moment{
		"just started":                  {{0, none, none, true}, {15 * time.Second, none, none, true}},
		"never began":                   {{0, none, none, true}, {25 * time.Second, none, none, false}},
		"a long interval":               {{0, 0, none, true}, {time.Hour, time.Hour, none, true}, {2 * time.Hour, 2*time.Hour - time.Second, none, true}},
		"the scheduler stands still":    {{0, 0, none, true}, {10 * time.Second, 0, 10 * time.Second, true}, {20 * time.Second, 0, 20 * time.Second, false}},
		"the scheduler turns again":     {{20 * time.Second, 0, none, false}, {30 * time.Second, 30 * time.Second, none, true}},
		"a round that does not end":     {{time.Minute, time.Minute, 0, true}, {3 * time.Minute, 3 * time.Minute, 0, false}},
		"rounds that end at a deadline": {{time.Minute, time.Minute, 0, true}, {4 * time.Minute, 4 * time.Minute, 3 * time.Minute, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var now moment
			healthy := liveliness(func() []audit.Status {
				s := audit.Status{Started: start}
				if now.loop != none {
					s.LoopAt = start.Add(now.loop)
				}
				if now.oldest != none {
					s.OldestRound = start.Add(now.oldest)
				}
				return []audit.Status{s}
			}, func() time.Time { return start.Add(now.after) })
			for _, now = range moments {
				if got := healthy(); got != now.want {
					t.Errorf("after %s it is said to be healthy: %v", now.after, got)
				}
			}
		})
	}
}

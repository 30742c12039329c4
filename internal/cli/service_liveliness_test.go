package cli

import (
	"testing"
	"time"

	"immuaudit/internal/audit"
)

// TestLiveliness: an auditor that hangs is one whose scheduler stands still or
// whose rounds do not end; one that waits for a long interval, or for a server
// that does not answer, is not.
func TestLiveliness(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	type moment struct {
		after    time.Duration
		loop     time.Duration // when the scheduler last turned; <0: never
		rounds   uint64
		inFlight int
		want     bool
	}
	for name, moments := range map[string][]moment{
		"just started":                   {{0, -1, 0, 0, true}, {15 * time.Second, -1, 0, 0, true}},
		"never began":                    {{0, -1, 0, 0, true}, {25 * time.Second, -1, 0, 0, false}},
		"a long interval":                {{0, 0, 1, 0, true}, {time.Hour, time.Hour, 1, 0, true}, {2 * time.Hour, 2*time.Hour - time.Second, 1, 0, true}},
		"the scheduler stands still":     {{0, 0, 1, 0, true}, {10 * time.Second, 0, 2, 1, true}, {20 * time.Second, 0, 3, 1, false}},
		"the scheduler turns again":      {{20 * time.Second, 0, 3, 1, false}, {30 * time.Second, 30 * time.Second, 4, 0, true}},
		"a round that does not end":      {{0, 0, 1, 1, true}, {time.Minute, time.Minute, 1, 1, true}, {3 * time.Minute, 3 * time.Minute, 1, 1, false}},
		"rounds that end at a deadline":  {{0, 0, 1, 4, true}, {time.Minute, time.Minute, 5, 4, true}, {4 * time.Minute, 4 * time.Minute, 6, 4, true}},
		"a round after a quiet interval": {{0, 0, 1, 0, true}, {time.Hour, time.Hour, 1, 0, true}, {time.Hour + 10*time.Second, time.Hour + 10*time.Second, 1, 1, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var now moment
			healthy := liveliness(func() audit.Status {
				s := audit.Status{Started: start, Rounds: now.rounds, InFlight: now.inFlight}
				if now.loop >= 0 {
					s.LoopAt = start.Add(now.loop)
				}
				return s
			}, func() time.Time { return start.Add(now.after) })
			for _, now = range moments {
				if got := healthy(); got != now.want {
					t.Errorf("after %s it is said to be healthy: %v", now.after, got)
				}
			}
		})
	}
}

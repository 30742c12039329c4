package page

import (
	"sync"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// growth measures how fast ledgers grow, in memory: history would need a read
// from disk for every row.
type growth struct {
	mu      sync.Mutex
	samples map[evidence.Name]sample
	turned  time.Time
}

// sample holds the trusted transaction one to two periods ago, and at most one
// ago.
type sample struct {
	oldAt, newAt int64 // Unix seconds
	oldTx, newTx uint64
}

func (g *growth) take(statuses []audit.Status, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	turn := now.Sub(g.turned) >= growthPeriod
	if turn {
		g.turned = now
	}
	seen := make(map[evidence.Name]sample, len(g.samples))
	for i := range statuses {
		for j := range statuses[i].Ledgers {
			l := &statuses[i].Ledgers[j]
			if l.ProvenTx == 0 {
				continue
			}
			old, known := g.samples[l.Name]
			switch {
			// A new baseline may lie lower than what was trusted before.
			case !known || l.ProvenTx < old.newTx:
				old = sample{now.Unix(), now.Unix(), l.ProvenTx, l.ProvenTx}
			case turn:
				old = sample{old.newAt, now.Unix(), old.newTx, l.ProvenTx}
			}
			seen[l.Name] = old
		}
	}
	g.samples = seen
}

// perHour gives transactions per hour; false while less than a minute is known.
func (g *growth) perHour(name evidence.Name, tx uint64, now time.Time) (float64, bool) {
	g.mu.Lock()
	s, known := g.samples[name]
	g.mu.Unlock()
	seconds := now.Unix() - s.oldAt
	if !known || seconds < 60 || tx < s.oldTx {
		return 0, false
	}
	return float64(tx-s.oldTx) * 3600 / float64(seconds), true
}

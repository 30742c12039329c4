package cli

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"
)

const (
	// spareHeap is how much garbage may gather before it is collected, however
	// much is live: by default the collector lets the heap grow to twice what
	// is live, which for an auditor of many ledgers, whose memory hardly
	// changes, is a price without a return. Below leastPercent collecting
	// would cost more than it saves.
	spareHeap    = 10 << 20
	leastPercent = 25
	mostPercent  = 100
	frugalEvery  = 5 * time.Second
	// What was needed once, at first contact above all, is given back when more
	// than idleHeap of it is left over; that costs a collection, so it is done
	// at most every giveBackEvery.
	idleHeap      = 6 << 20
	giveBackEvery = time.Minute
)

// frugal keeps the garbage in bounds while the auditor runs, unless the operator
// says with GOGC what the collector is to do.
func frugal(ctx context.Context, env *Env) {
	if slices.ContainsFunc(env.Environ, func(v string) bool { return strings.HasPrefix(v, "GOGC=") }) {
		return
	}
	before := debug.SetGCPercent(mostPercent)
	defer debug.SetGCPercent(before)
	ticker := time.NewTicker(frugalEvery)
	defer ticker.Stop()
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	set, given := mostPercent, time.Now()
	for {
		metrics.Read(heap)
		if want := garbagePercent(heap[0].Value.Uint64()); want != set {
			debug.SetGCPercent(want)
			set = want
		}
		if heap[1].Value.Uint64() > idleHeap && time.Since(given) >= giveBackEvery {
			debug.FreeOSMemory()
			given = time.Now()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// garbagePercent is how much garbage may gather, as a share of what is live.
func garbagePercent(live uint64) int {
	if live == 0 {
		return mostPercent
	}
	return int(max(leastPercent, min(mostPercent, 100*spareHeap/live)))
}

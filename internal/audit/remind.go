package audit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"immuaudit/evidence"
)

// remind tells once a day of each open incident that nobody acknowledged, and
// at most once an hour that one about damage has grown.
func (e *Engine) remind(ctx context.Context, now time.Time) {
	for _, l := range e.all() {
		if !l.owed(now) {
			continue
		}
		if !l.writing.TryLock() {
			continue // something about it is being stored; the next turn comes soon
		}
		e.remindOf(ctx, l, now)
		l.writing.Unlock()
	}
}

// owed reports whether there is something to remind of.
func (l *ledger) owed(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.open, func(inc evidence.Incident) bool { return reminds(&inc, now) || l.grew(&inc, now) })
}

func reminds(inc *evidence.Incident, now time.Time) bool {
	last := inc.OpenedAt
	if inc.RemindedAt.After(last) {
		last = inc.RemindedAt
	}
	return inc.Version > 0 && inc.AckedAt.IsZero() && now.Sub(last) >= remindEvery
}

// grew reports whether more damage was found than was told. l.mu is held.
func (l *ledger) grew(inc *evidence.Incident, now time.Time) bool {
	return inc.Version > 0 && inc.Kind.AboutData() && len(inc.Findings) > inc.Told && now.Sub(l.grownTold) >= growthEvery
}

// remindOf stores and tells what is owed. l.writing is held.
func (e *Engine) remindOf(ctx context.Context, l *ledger, now time.Time) {
	l.mu.Lock()
	open := slices.Clone(l.open)
	grown := make([]bool, len(open))
	for i := range open {
		grown[i] = l.grew(&open[i], now)
	}
	l.mu.Unlock()
	var c evidence.Change
	for i := range open {
		inc := &open[i]
		told := inc.Told
		if grown[i] {
			inc.Told = len(inc.Findings)
			ev := tamperedEvent(inc)
			ev.Type, ev.At = evidence.EventDamage, now
			ev.Message = fmt.Sprintf("%d more places are damaged, %d in all that are known; the newest: %s", len(inc.Findings)-told, len(inc.Findings), inc.Findings[len(inc.Findings)-1].Detail)
			e.tell(&c, ev)
		}
		if reminds(inc, now) {
			ev := tamperedEvent(inc)
			ev.Type, ev.At = evidence.EventStillTampered, now
			ev.Message = fmt.Sprintf("open since %s and not acknowledged: %s. Next: immuclient incident show %s", inc.OpenedAt.UTC().Format(time.RFC3339), ev.Message, inc.ID)
			e.tell(&c, ev)
			inc.RemindedAt = now
		}
		if inc.Told > told || inc.RemindedAt.Equal(now) {
			c.Incidents = append(c.Incidents, *inc)
		}
	}
	if len(c.Events) == 0 {
		return
	}
	if err := e.o.Memory.Apply(ctx, c); err != nil {
		if conflicts(err) {
			e.outdated.Store(true) // somebody decided about it
		} else if ctx.Err() == nil {
			e.log.Error("storing a reminder", "database", l.name.Database, "error", err)
		}
		return
	}
	for _, stored := range c.Incidents {
		for i := range open {
			if open[i].ID == stored.ID {
				open[i].Version++
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = open
	if slices.Contains(grown, true) {
		l.grownTold = now
	}
}

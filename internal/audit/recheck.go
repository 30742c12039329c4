package audit

import (
	"context"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
)

// recheckDue reports whether damage that is known is to be looked at again: it
// may have been repaired. l.mu is held.
func (l *ledger) recheckDue(now time.Time) bool {
	if now.Before(l.recheckAt) {
		return false
	}
	return slices.ContainsFunc(l.open, func(inc evidence.Incident) bool { return inc.Kind.AboutData() && inc.Version > 0 })
}

// recheck looks again at the transactions of open incidents about data, so that
// an operator who repaired them can keep the baseline.
func (e *Engine) recheck(ctx context.Context, l *ledger, v *view, now time.Time) {
	l.mu.Lock()
	due := l.recheckDue(now)
	l.mu.Unlock()
	if !due {
		return
	}
	var sound, still []string
	for _, inc := range v.open {
		if !inc.Kind.AboutData() || inc.Version == 0 {
			continue
		}
		switch holds, err := e.soundAgain(ctx, v, &inc); {
		case err != nil:
		case holds:
			sound = append(sound, inc.ID)
		default:
			still = append(still, inc.ID)
		}
	}
	l.mu.Lock()
	l.recheckAt = time.Now().Add(recheckEvery)
	l.mu.Unlock()
	if len(sound)+len(still) > 0 {
		e.markSound(ctx, l, v, sound, still)
	}
}

// soundAgain reports whether every transaction that an incident names holds.
func (e *Engine) soundAgain(ctx context.Context, v *view, inc *evidence.Incident) (bool, error) {
	done := map[uint64]bool{}
	for _, f := range inc.Findings {
		if done[f.Tx] || f.Tx == 0 || f.Tx > v.trust.Walked {
			continue
		}
		done[f.Tx] = true
		g := e.lookInto(ctx, v, f.Tx, f.Tx, false, v.bindings(), verify.Options{})
		if g.doubt != nil {
			return false, g.doubt
		}
		if g.sum.Tally.Damages() > 0 || len(g.sum.Unread) > 0 {
			return false, nil
		}
	}
	return len(done) > 0, nil
}

// markSound stores when damage was last seen, or last seen repaired.
func (e *Engine) markSound(ctx context.Context, l *ledger, v *view, sound, still []string) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	if l.epoch != v.epoch || l.void {
		l.mu.Unlock()
		return
	}
	open := slices.Clone(l.open)
	l.mu.Unlock()
	now := time.Now()
	var c evidence.Change
	for i := range open {
		switch {
		case slices.Contains(sound, open[i].ID) && !open[i].SoundAt.After(open[i].LastSeen):
			open[i].SoundAt = now
			e.log.Info("what was damaged is sound again", "database", l.name.Database, "incident", open[i].ID, "next", "immuclient trust keep "+open[i].ID)
		case slices.Contains(still, open[i].ID) && open[i].SoundAt.After(open[i].LastSeen):
			open[i].LastSeen, open[i].Seen = now, open[i].Seen+1
		default:
			continue
		}
		c.Incidents = append(c.Incidents, open[i])
	}
	if len(c.Incidents) == 0 {
		return
	}
	if err := e.o.Memory.Apply(ctx, c); err != nil {
		e.outdated.Store(true)
		if !conflicts(err) {
			e.log.Error("storing that damage was looked at again", "database", l.name.Database, "error", err)
		}
		return
	}
	l.setOpen(bump(open, c.Incidents))
}

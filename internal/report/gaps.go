package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/history"
)

// idleTimes are when no process of the auditor was running. Where it is
// started again and again, for one round each, the time in between is usual.
func idleTimes(runs []history.Run, from, to, now time.Time) []Gap {
	var idle []Gap
	at := from
	for _, r := range runs {
		if r.Started.After(at) {
			idle = append(idle, gap(at, r.Started, whyNotRunning))
		}
		alive := r.Alive
		if !r.Ended && now.Sub(alive) < leastGap {
			alive = now
		}
		at = later(at, alive)
	}
	if at.Before(to) {
		idle = append(idle, gap(at, to, whyNotRunning))
	}
	least := leastGap
	if len(idle) >= 10 {
		long := make([]float64, 0, len(idle))
		for _, g := range idle {
			long = append(long, g.Seconds)
		}
		slices.Sort(long)
		least = max(least, 3*seconds(long[len(long)/2]))
	}
	return slices.DeleteFunc(idle, func(g Gap) bool { return g.To.Sub(g.From) <= least })
}

// measure finds how often a ledger was audited, and when it was not.
func (l *Ledger) measure(to time.Time, idle []Gap) {
	var usual []float64
	for _, s := range l.stretches {
		l.Rounds += s.Rounds
		l.Consistent += s.Sound
		l.LongestSec = max(l.LongestSec, s.Longest.Seconds())
		if n := s.Rounds; s.To.After(s.From) && n > 1 {
			usual = append(usual, s.To.Sub(s.From).Seconds()/float64(n-1))
		} else if s.Longest > 0 {
			usual = append(usual, s.Longest.Seconds())
		}
	}
	if len(usual) > 0 {
		slices.Sort(usual)
		l.UsualSec = usual[len(usual)/2]
	}
	if l.Retired {
		return
	}
	allowed := max(leastGap, 3*seconds(l.UsualSec))
	at := l.since // up to here it is known what was
	for i, s := range l.stretches {
		if silent := s.From.Sub(at); s.Torn && silent > allowed || i == 0 && silent > allowed {
			l.silence(at, s.From, idle)
			l.LongestSec = max(l.LongestSec, silent.Seconds())
		}
		end := s.To
		if i+1 < len(l.stretches) && !l.stretches[i+1].Torn {
			end = l.stretches[i+1].From
		}
		if end.After(to) {
			end = to
		}
		if s.Verdict == evidence.Undetermined {
			why := string(s.Reason)
			if s.Sound > 0 {
				why = whyChanging
			}
			l.gap(later(l.since, s.From), end, why)
		}
		at = later(at, end)
	}
	if silent := to.Sub(at); silent > allowed {
		why := idle
		if len(l.stretches) == 0 {
			why = nil
		}
		l.silence(at, to, why)
	}
	for _, g := range l.Gaps {
		l.GapSec += g.Seconds
	}
	l.GapCount = len(l.Gaps)
}

// silence is a time without rounds: the auditor did not run for most of it, or
// it did and made none.
func (l *Ledger) silence(from, to time.Time, idle []Gap) {
	var covered time.Duration
	for _, g := range idle {
		begin, end := later(from, g.From), g.To
		if to.Before(end) {
			end = to
		}
		covered += max(0, end.Sub(begin))
	}
	switch {
	case len(l.stretches) == 0:
		l.gap(from, to, whyNotRecorded)
	case covered > to.Sub(from)/2:
		l.gap(from, to, whyNotRunning)
	default:
		l.gap(from, to, whyNoRounds)
	}
}

func (l *Ledger) gap(from, to time.Time, why string) {
	if n := len(l.Gaps) - 1; n >= 0 && l.Gaps[n].Why == why && !from.After(l.Gaps[n].To) {
		l.Gaps[n] = gap(l.Gaps[n].From, later(l.Gaps[n].To, to), why)
		return
	}
	if to.Before(from) {
		to = from
	}
	l.Gaps = append(l.Gaps, gap(from, to, why))
}

func gap(from, to time.Time, why string) Gap {
	return Gap{From: from.UTC(), To: to.UTC(), Seconds: to.Sub(from).Round(time.Millisecond).Seconds(), Why: why}
}

// gapTable puts gaps together that several ledgers had at once.
type gapTable struct {
	rows map[gapKey]*Gap
}

type gapKey struct {
	from, to int64 // minutes
	why      string
}

func newGapTable() *gapTable { return &gapTable{rows: map[gapKey]*Gap{}} }

func (t *gapTable) add(name evidence.Name, gaps []Gap) {
	for _, g := range gaps {
		// A minute may lie between what is one outage for two ledgers.
		key := gapKey{g.From.Unix() / 60, g.To.Unix() / 60, g.Why}
		row := t.rows[key]
		if row == nil {
			row = &Gap{From: g.From, To: g.To, Why: g.Why}
			t.rows[key] = row
		}
		if g.From.Before(row.From) {
			row.From = g.From
		}
		row.To = later(row.To, g.To)
		row.Seconds = row.To.Sub(row.From).Round(time.Millisecond).Seconds()
		if row.Ledgers++; len(row.Examples) < 3 {
			row.Examples = append(row.Examples, name.String())
		}
	}
}

// gapsOf puts the table into the document: the longest, in the order of time.
func (d *Document) gapsOf(t *gapTable) {
	d.Totals.Gaps = len(t.rows)
	for _, g := range t.rows {
		d.Gaps = append(d.Gaps, *g)
	}
	slices.SortFunc(d.Gaps, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), a.From.Compare(b.From), cmp.Compare(a.Why, b.Why))
	})
	if over := len(d.Gaps) - maxGaps; over > 0 {
		d.Omitted = append(d.Omitted, fmt.Sprintf("%d shorter gaps are not listed; the longest of them lasts %s", over, lasting(seconds(d.Gaps[maxGaps].Seconds))))
		d.Gaps = d.Gaps[:maxGaps]
	}
	slices.SortFunc(d.Gaps, func(a, b Gap) int {
		return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.Why, b.Why))
	})
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

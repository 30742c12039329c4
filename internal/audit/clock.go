package audit

import (
	"fmt"
	"time"

	"immuaudit/proof"
)

// timed looks at the timestamp of a new transaction. Timestamps are the
// server's word and prove nothing, but clocks that run backwards or far ahead
// are how histories are made up (attack A24).
func (e *Engine) timed(v *view, out *outcome, h *proof.Header) {
	skew := e.o.ClockSkew
	if skew <= 0 || !v.known() {
		return
	}
	at := time.Unix(h.Ts, 0)
	if out.newest.IsZero() {
		out.newest = v.newest
	}
	if out.skew == "" {
		switch {
		case at.After(time.Now().Add(skew)):
			out.skew = fmt.Sprintf("transaction %d is dated %s, %s ahead of this machine's clock", h.ID, stamp(at), time.Until(at).Round(time.Second))
		case !out.newest.IsZero() && at.Before(out.newest.Add(-skew)):
			out.skew = fmt.Sprintf("transaction %d is dated %s, %s before one that was committed earlier", h.ID, stamp(at), out.newest.Sub(at).Round(time.Second))
		}
	}
	if at.After(out.newest) {
		out.newest = at
	}
}

// stamp prints any 64-bit number of seconds: some are no date that has a name.
func stamp(t time.Time) string {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Sprintf("%d seconds after 1970", t.Unix())
	}
	return t.UTC().Format(time.RFC3339)
}

// odd keeps count of skewed clocks: one alert until new transactions come with
// sound timestamps again. l.mu is held.
func (l *ledger) odd(out *outcome) (told bool) {
	if out.newest.IsZero() {
		return false
	}
	l.newest = out.newest
	told = out.skew != "" && !l.skewed
	l.skewed = out.skew != ""
	return told
}

// growing keeps count of how long the ledger got no new transaction, by what
// was proven. While it cannot be told, or an incident is open, other alerts say
// so. l.mu is held.
func (l *ledger) growing(out *outcome, now time.Time, expect time.Duration) (stopped, again bool) {
	if expect <= 0 || l.trust.Version == 0 || out.doubt != nil || frozen(l.open) {
		return false, false
	}
	still := now.Sub(l.trust.ProvenAt) >= expect
	stopped, again = still && !l.still, !still && l.still
	l.still = still
	return stopped, again
}

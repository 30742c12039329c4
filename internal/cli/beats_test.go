package cli

import (
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// A round counts as full where every ledger that is audited came to a verdict
// since; one that hangs, or that was never looked at, stops the beats.
func TestFullRound(t *testing.T) {
	t.Parallel()
	since := time.Unix(1000, 0)
	at := func(after time.Duration, v evidence.Verdict) audit.LedgerStatus {
		return audit.LedgerStatus{LastAttempt: since.Add(after), Last: evidence.Report{Verdict: v}}
	}
	paused := at(-time.Hour, evidence.Consistent)
	paused.Paused = true
	for name, c := range map[string]struct {
		ledgers []audit.LedgerStatus
		want    bool
	}{
		"none is known":        {nil, false},
		"all of them":          {[]audit.LedgerStatus{at(1, evidence.Consistent), at(2, evidence.Tampered)}, true},
		"one is paused":        {[]audit.LedgerStatus{at(1, evidence.Consistent), paused}, true},
		"one had none since":   {[]audit.LedgerStatus{at(1, evidence.Consistent), at(0, evidence.Consistent)}, false},
		"one could not be had": {[]audit.LedgerStatus{at(1, evidence.Consistent), at(1, evidence.Undetermined)}, false},
	} {
		if got := fullRound(&audit.Status{Ledgers: c.ledgers}, since); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

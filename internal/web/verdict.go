package web

import (
	"cmp"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// standing is the verdict to show for a ledger. Tampering sticks: while an
// incident is open the ledger is tampered, whatever the newest round found.
func standing(l *audit.LedgerStatus) evidence.Verdict {
	if l.OpenIncidents > 0 {
		return evidence.Tampered
	}
	if l.Last.Time.IsZero() {
		return evidence.Undetermined
	}
	return l.Last.Verdict
}

// idle reports whether nobody expects news of the ledger: taken out of the
// configuration or given up, and with nothing open.
func idle(l *audit.LedgerStatus) bool {
	return (l.Paused || l.Retired) && l.OpenIncidents == 0
}

// urgency orders ledgers for where not all can be shown. A server can invent
// thousands of databases; they must not crowd out those that are tampered with,
// nor those that something is known of.
func urgency(l *audit.LedgerStatus) int {
	verdict := standing(l)
	switch {
	case idle(l):
		return 5
	case verdict == evidence.Tampered:
		return 0
	case l.Stale:
		return 1
	case verdict == evidence.Undetermined && l.ProvenTx > 0:
		return 2
	case verdict == evidence.Consistent:
		return 3
	default:
		return 4
	}
}

// byUrgency gives the ledgers, most urgent first and then by name.
func byUrgency(ledgers []audit.LedgerStatus) []*audit.LedgerStatus {
	sorted := make([]*audit.LedgerStatus, len(ledgers))
	for i := range ledgers {
		sorted[i] = &ledgers[i]
	}
	slices.SortFunc(sorted, func(a, b *audit.LedgerStatus) int {
		return cmp.Or(cmp.Compare(urgency(a), urgency(b)), cmp.Compare(a.Name.Database, b.Name.Database))
	})
	return sorted
}

// answers reports whether the server answered lately: in the newest round of
// any ledger, or, while there was none, when it was asked for its databases.
// Nothing starts as good: before the first round it has not answered.
func answers(s *audit.Status) bool {
	rounds := false
	for i := range s.Ledgers {
		l := &s.Ledgers[i]
		if idle(l) || l.Last.Time.IsZero() {
			continue
		}
		rounds = true
		switch l.Last.Reason {
		case evidence.Unreachable, evidence.Timeout, evidence.Interrupted, evidence.StateProblem:
		default:
			return true
		}
	}
	return !rounds && s.Rounds > 0 && s.ServerError == ""
}

func countVerdicts(ledgers []audit.LedgerStatus) map[string]int {
	counts := map[string]int{"consistent": 0, "tampered": 0, "undetermined": 0}
	for i := range ledgers {
		if !idle(&ledgers[i]) {
			counts[standing(&ledgers[i]).String()]++
		}
	}
	return counts
}

// The values of the original's gauge of results.
const (
	resultTampered   = 0
	resultError      = -2
	resultNotChecked = -1
	resultOK         = 1
)

// originalValues are the original's four gauges, for the server as a whole.
type originalValues struct {
	result, current, previous, runAt float64
}

// originalOf lets the worst ledger speak for the server, in the order tampered,
// error, not checked, ok; the roots are that ledger's. Among equals it is the
// first by name, so that the gauges do not jump from ledger to ledger.
func originalOf(s audit.Status) originalValues {
	values := originalValues{result: resultNotChecked, current: resultNotChecked, previous: resultNotChecked, runAt: -1}
	var worst *audit.LedgerStatus
	var latest time.Time
	for i := range s.Ledgers {
		l := &s.Ledgers[i]
		for _, at := range [...]time.Time{l.Last.Time, l.LastAttempt} {
			if at.After(latest) {
				latest = at
			}
		}
		if idle(l) {
			continue
		}
		if worst == nil || worse(l, worst) {
			worst = l
		}
	}
	if latest.Unix() > 0 {
		values.runAt = float64(latest.Unix())
	}
	switch {
	case worst != nil:
		values.result = resultOf(worst)
	case s.ServerError != "":
		values.result = resultError
	}
	switch values.result {
	case resultTampered, resultOK:
		values.current, values.previous = float64(worst.ObservedTx), float64(worst.PreviousTx)
	case resultError:
		values.current, values.previous = resultError, resultError
	}
	return values
}

func worse(a, b *audit.LedgerStatus) bool {
	rank := func(l *audit.LedgerStatus) int {
		return slices.Index([]float64{resultTampered, resultError, resultNotChecked, resultOK}, resultOf(l))
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name.Database, b.Name.Database)) < 0
}

func resultOf(l *audit.LedgerStatus) float64 {
	switch verdict := standing(l); {
	case verdict == evidence.Tampered:
		return resultTampered
	case l.Last.Time.IsZero():
		return resultNotChecked
	case verdict == evidence.Consistent:
		return resultOK
	case l.Last.Reason == evidence.FirstContact:
		// There was nothing to compare with.
		return resultNotChecked
	default:
		return resultError
	}
}

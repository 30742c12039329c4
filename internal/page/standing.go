package page

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

// idle reports whether nobody expects news of the ledger.
func idle(l *audit.LedgerStatus) bool { return (l.Paused || l.Retired) && l.OpenIncidents == 0 }

// silent reports whether nothing was heard of a ledger because its server
// could not be reached: one server that is down is one piece of news, however
// many ledgers it has.
func silent(l *audit.LedgerStatus) bool {
	return standing(l) == evidence.Undetermined && (l.Last.Time.IsZero() || l.Last.Reason == evidence.Unreachable || l.Last.Reason == evidence.Timeout)
}

// urgency orders ledgers, the most urgent first.
func urgency(l *audit.LedgerStatus) int {
	switch verdict := standing(l); {
	case idle(l):
		return 6
	case verdict == evidence.Tampered:
		return 0
	case l.Stale:
		return 1
	case verdict == evidence.Undetermined && l.ProvenTx > 0:
		return 2
	case verdict == evidence.Undetermined:
		return 3
	case l.NotGrowing || l.ClockSkew:
		return 4
	default:
		return 5
	}
}

// tally counts ledgers by verdict; those that nobody expects news of apart.
type tally struct {
	Consistent   int `json:"consistent"`
	Tampered     int `json:"tampered"`
	Undetermined int `json:"undetermined"`
	Idle         int `json:"idle"`
}

func (t tally) audited() int { return t.Consistent + t.Tampered + t.Undetermined }

func (t *tally) add(l *audit.LedgerStatus) {
	switch verdict := standing(l); {
	case idle(l):
		t.Idle++
	case verdict == evidence.Tampered:
		t.Tampered++
	case verdict == evidence.Consistent:
		t.Consistent++
	default:
		t.Undetermined++
	}
}

// verdict is good only if every ledger is.
func (t tally) verdict() evidence.Verdict {
	switch {
	case t.Tampered > 0:
		return evidence.Tampered
	case t.Undetermined > 0 || t.Consistent == 0:
		return evidence.Undetermined
	default:
		return evidence.Consistent
	}
}

// entry is one ledger with the server it belongs to.
type entry struct {
	*audit.LedgerStatus
	server *site
}

// site is one server at one moment.
type site struct {
	*audit.Status
	tally tally
	// Down: no call to it succeeds. Silent counts the ledgers of which
	// nothing is known for that.
	down   bool
	silent int
	since  time.Time
}

// fleet is everything at one moment, worst first.
type fleet struct {
	sites   []*site
	entries []entry
	tally   tally
	silent  int // ledgers of servers that are down
	down    int
}

func newFleet(statuses []audit.Status) *fleet {
	f := &fleet{}
	for i := range statuses {
		one := &site{Status: &statuses[i]}
		heard := false
		for j := range statuses[i].Ledgers {
			l := &statuses[i].Ledgers[j]
			one.tally.add(l)
			f.tally.add(l)
			f.entries = append(f.entries, entry{l, one})
			switch {
			case idle(l):
			case silent(l):
				one.silent++
				if s := l.UndeterminedSince; !s.IsZero() && (one.since.IsZero() || s.Before(one.since)) {
					one.since = s
				}
			case standing(l) != evidence.Tampered || l.Last.Reason == "":
				heard = true
			}
		}
		// Before the first round nothing was heard, and nothing is wrong.
		one.down = !heard && (one.ServerError != "" || one.silent > 0 && one.Rounds > 0)
		if one.down {
			f.down++
			f.silent += one.silent
		}
		f.sites = append(f.sites, one)
	}
	slices.SortStableFunc(f.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(urgency(a.LedgerStatus), urgency(b.LedgerStatus)),
			cmp.Compare(a.Name.Server, b.Name.Server), cmp.Compare(a.Name.Database, b.Name.Database))
	})
	slices.SortStableFunc(f.sites, func(a, b *site) int {
		return cmp.Or(cmp.Compare(b.tally.Tampered, a.tally.Tampered), cmp.Compare(rank(b.down), rank(a.down)),
			cmp.Compare(b.tally.Undetermined, a.tally.Undetermined), cmp.Compare(a.Server, b.Server))
	})
	return f
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (f *fleet) find(name evidence.Name) (entry, bool) {
	for _, e := range f.entries {
		if e.Name == name {
			return e, true
		}
	}
	return entry{}, false
}

// headline says in one line how it stands.
func (f *fleet) headline() string {
	all := count(uint64(f.tally.audited()))
	switch t := f.tally; {
	case t.Tampered > 0:
		return "Tampered: " + count(uint64(t.Tampered)) + " of " + plural(t.audited(), "ledger", "ledgers")
	case f.down > 0 && f.down == len(f.sites):
		if f.down == 1 {
			return "Undetermined: the server does not answer"
		}
		return "Undetermined: no server answers"
	case t.Undetermined > 0 && f.down > 0:
		return "Undetermined: " + count(uint64(t.Undetermined)) + " of " + plural(t.audited(), "ledger", "ledgers") + ", " + plural(f.down, "server does", "servers do") + " not answer"
	case t.Undetermined > 0:
		return "Undetermined: " + count(uint64(t.Undetermined)) + " of " + plural(t.audited(), "ledger", "ledgers")
	case t.Consistent == 1:
		return "Consistent: the one ledger says what it said before"
	case t.Consistent > 1:
		return "Consistent: all " + all + " ledgers say what they said before"
	default:
		return "Undetermined: nothing was audited yet"
	}
}

package report

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"immuaudit/evidence"
)

// conclude says in plain words what can be said, and what cannot.
func (d *Document) conclude() {
	c, t := &d.Conclusion, &d.Totals
	said := func(format string, args ...any) { c.Said = append(c.Said, fmt.Sprintf(format, args...)) }
	not := func(format string, args ...any) { c.NotSaid = append(c.NotSaid, fmt.Sprintf(format, args...)) }
	span := fmt.Sprintf("from %s to %s (UTC)", stamp(d.From), stamp(d.To))
	switch {
	case len(d.Incidents) > 0:
		c.Verdict = evidence.Tampered
		c.Title = fmt.Sprintf("Tampering was found: %s.", count(len(d.Incidents), "incident"))
	case t.Ledgers == 0:
		c.Title = "Nothing can be said: no database was audited."
	case t.Rounds == 0:
		c.Title = "Nothing can be said: no check is on record."
	case t.Consistent == 0:
		c.Title = "Nothing can be said: no check came to a result."
	case t.NeverChecked > 0:
		c.Title = fmt.Sprintf("No tampering was found, but %s had no check at all.", count(t.NeverChecked, "database"))
	case t.Gaps > 0:
		c.Verdict = evidence.Consistent
		c.Title = "No tampering was found; there were times without checks."
	default:
		c.Verdict = evidence.Consistent
		c.Title = "No tampering was found."
	}
	if t.Rounds > 0 {
		said("%s this auditor made %s over %s on %s.", upper(span), count(int(t.Rounds), "check"), count(t.Ledgers, "database"), count(t.Servers, "server"))
	} else {
		said("%s no check of %s is on record.", upper(span), count(t.Ledgers, "database"))
	}
	if t.Consistent > 0 {
		said("%s of these checks proved that the database still held the whole history that was trusted before, with nothing changed, removed or put in between, and with what is new only added at its end.", share(t.Consistent, t.Rounds))
	}
	if n := len(d.Incidents); n > 0 {
		said("In %s a database contradicted what had been proven of it before (opened in this time: %d; not decided yet: %d). Each is told below, with what was found and what was decided.", count(n, "incident"), t.IncidentsOpened, t.IncidentsOpen)
	}
	if t.DeepComplete > 0 {
		said("The stored values themselves were read and compared, completely at least once or up to the newest transaction, in %d of %s.", t.DeepComplete, count(t.Ledgers, "database"))
	}
	if len(d.Gaps) > 0 {
		longest := d.Gaps[0]
		for _, g := range d.Gaps {
			if g.Seconds > longest.Seconds {
				longest = g
			}
		}
		not("There were %s without a result; the longest lasted %s, from %s (%s). What was changed in such a time and is still changed is noticed by the next check, or by the next reading of the values; what was changed and put back in between is not.",
			count(t.Gaps, "time"), lasting(seconds(longest.Seconds)), stamp(longest.From), why(longest.Why))
	}
	if d.History.Problem != "" {
		not("How often was checked is not known, because there is no history of the checks that could be read: %s.", plain(d.History.Problem))
	} else if b := d.History.Began; b == nil || b.After(d.From) {
		since := "there is no record of when checks were made"
		if b != nil {
			since = "the record of when checks were made begins on " + stamp(*b)
		}
		not("%s: of the time before, only incidents, decisions and what is trusted now are known.", upper(since))
	}
	not("Trust begins with what a database showed when this auditor first met it, or with what somebody confirmed then. Nothing is said about whether that, or anything written since, is true; only that it is still there as it was.")
	if t.DeepComplete < t.Ledgers {
		not("In %s not every stored value was read again yet; for those not read, this report speaks of their recorded fingerprints only.", count(t.Ledgers-t.DeepComplete, "database"))
	}
}

// ExitCode is 3 where tampering is told, 1 where something was not checked at
// all or nothing came to a result, 0 else.
func (d *Document) ExitCode() int {
	switch d.Conclusion.Verdict {
	case evidence.Tampered:
		return 3
	case evidence.Consistent:
		return 0
	default:
		return 1
	}
}

// whys are the reasons of gaps in plain words.
var whys = map[string]string{
	whyNotRunning:                 "the auditor was not running",
	whyNoRounds:                   "the auditor was running and made no check",
	whyNotRecorded:                "no check is on record",
	whyChanging:                   "checks failed again and again, with others that succeeded in between",
	string(evidence.FirstContact): "first contact: there was nothing to compare with",
	string(evidence.Unreachable):  "the server could not be reached",
	string(evidence.Timeout):      "the server did not answer in time",
	string(evidence.Unauthorised): "the server refused the auditor's login or rights",
	string(evidence.NotLoaded):    "the database was not open on the server",
	string(evidence.NotFound):     "the server said that there is no such database",
	string(evidence.Malformed):    "the server's answer could not be understood",
	string(evidence.TooLarge):     "the server's answer was too large",
	string(evidence.Overloaded):   "the server turned requests away",
	string(evidence.Refused):      "the server answered with an error",
	string(evidence.Unproven):     "the server gave no complete proof",
	string(evidence.TreeLag):      "the server's proofs lagged behind",
	string(evidence.Unstable):     "a contradiction did not repeat itself",
	string(evidence.StateProblem): "the auditor could not read or write its own state",
	string(evidence.Interrupted):  "the auditor was stopped while it checked",
}

func why(reason string) string {
	if text, ok := whys[reason]; ok {
		return text
	}
	return plain(reason)
}

// kinds say what kind of tampering it is, in plain words.
var kinds = map[evidence.Kind]string{
	evidence.WrongDatabase:    "the server answered with another database",
	evidence.SignatureMissing: "the server stopped signing what it shows",
	evidence.SignatureInvalid: "the server's signature does not hold",
	evidence.KeyChanged:       "the server signs with another key",
	evidence.Emptied:          "the database is empty",
	evidence.Vanished:         "the database is gone",
	evidence.Fork:             "the history was replaced by another one",
	evidence.Rollback:         "the database went back to an older state",
	evidence.Tree:             "the tree over all transactions does not fit them",
	evidence.Header:           "the header of a transaction was changed",
	evidence.Proof:            "the server's proof does not hold",
	evidence.Entries:          "the list of what a transaction wrote was changed",
	evidence.Value:            "a stored value was changed",
	evidence.ValueMissing:     "a stored value is missing",
}

var origins = map[evidence.Origin]string{
	evidence.OriginFirstContact: "first contact: what the server showed then",
	evidence.OriginPinned:       "set by hand",
	evidence.OriginImported:     "taken over from another auditor",
	evidence.OriginAccepted:     "accepted by an operator after an incident",
}

func worded[K ~string](table map[K]string, key K) string {
	if text, ok := table[key]; ok {
		return text
	}
	return plain(string(key))
}

// stamp is a time for people; every one is UTC.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	t = t.UTC()
	if t.Second() == 0 && t.Nanosecond() == 0 {
		return t.Format("2006-01-02 15:04")
	}
	return t.Format("2006-01-02 15:04:05")
}

// lasting is a length of time for people.
func lasting(d time.Duration) string {
	switch {
	case d <= 0:
		return "—"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.4g s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
	case d < 48*time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		d = d.Round(time.Hour)
		return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return grouped(uint64(n)) + " " + what + "s"
}

// grouped is a number with its thousands set apart.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// share is a part of a whole, never rounded up to all of it.
func share(part, whole uint64) string {
	switch {
	case whole == 0:
		return "—"
	case part >= whole:
		return "All"
	}
	percent := float64(part) / float64(whole) * 100
	if percent > 99.99 {
		return fmt.Sprintf("All but %s", grouped(whole-part))
	}
	return fmt.Sprintf("%.4g %%", percent)
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// plain makes foreign text harmless to read: bounded, and with nothing in it
// that cannot be seen or that turns the order of what stands around it.
func plain(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxText {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "<%04X>", r)
		}
	}
	return b.String()
}

package alert

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"

	"immuaudit/evidence"
)

// NewTest is an event that says of itself that nothing happened.
func NewTest(server string, now time.Time) evidence.Event {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return evidence.Event{
		ID: hex.EncodeToString(id[:]), Type: evidence.EventTest, At: now, Name: evidence.Name{Server: server},
		Message: "TEST: an operator tries where alerts go; nothing happened",
	}
}

// plain makes text of what may come from a hostile server: what does not print,
// or changes the direction of writing, becomes a question mark.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || r != ' ' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// subject is what an event is about, as text.
func subject(e evidence.Event) string {
	switch {
	case e.Name.Database != "" && e.Name.Server != "":
		return plain(e.Name.String())
	case e.Name.Server != "":
		return "server " + plain(e.Name.Server)
	default:
		return "the auditor"
	}
}

// phrases say in a few words what happened. Capitals are for what is proven.
var phrases = map[evidence.EventType]string{
	evidence.EventTampered:        "TAMPERED",
	evidence.EventStillTampered:   "STILL TAMPERED",
	evidence.EventDamage:          "MORE DAMAGE",
	evidence.EventAcknowledged:    "incident acknowledged",
	evidence.EventDecision:        "operator's decision",
	evidence.EventStale:           "cannot be audited",
	evidence.EventRecovered:       "audited again",
	evidence.EventFirstContact:    "first contact",
	evidence.EventIdentityChanged: "identity changed",
	evidence.EventSigningBegan:    "signing began",
	evidence.EventStateCreated:    "memory begins anew",
	evidence.EventStateProblem:    "state has a problem",
	evidence.EventNotGrowing:      "not growing",
	evidence.EventClockSkew:       "clock skew",
	evidence.EventComparison:      "compared",
	evidence.EventTest:            "TEST",
}

// headline is an event in one line.
func headline(e evidence.Event) string {
	phrase := phrases[e.Type]
	if phrase == "" {
		phrase = plain(string(e.Type))
	}
	if e.Kind != "" {
		phrase += " (" + plain(string(e.Kind)) + ")"
	}
	return phrase + ": " + subject(e)
}

// tampering reports whether an event is about an incident that is not decided.
func tampering(e evidence.Event) bool {
	return e.Type == evidence.EventTampered || e.Type == evidence.EventStillTampered || e.Type == evidence.EventDamage
}

// story is an event for somebody who was just woken by it.
func story(e evidence.Event) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name+":", fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(&b, headline(e))
	fmt.Fprintln(&b)
	switch {
	case tampering(e):
		fmt.Fprintf(&b, "What the server shows contradicts what was proven of it before.\n\n")
	case e.Type == evidence.EventTest:
		fmt.Fprintf(&b, "This is a test. If you can read it, alerts arrive here.\n\n")
	}
	if e.Message != "" {
		fmt.Fprintf(&b, "%s\n\n", cut(plain(e.Message), maxVariable))
	}
	line("when", "%s", e.At.UTC().Format(time.RFC3339))
	if e.Name.Server != "" {
		line("server", "%s", plain(e.Name.Server))
	}
	if e.UUID != "" {
		line("uuid", "%s", plain(e.UUID))
	}
	if e.Name.Database != "" {
		line("database", "%s", plain(e.Name.Database))
	}
	if e.Ledgers > 0 {
		line("databases", "%d are concerned", e.Ledgers)
	}
	if e.Previous != nil {
		line("trusted", "transaction %d, %s", e.Previous.TxID, e.Previous.Alh)
	}
	if e.Current != nil {
		line("observed", "transaction %d, %s", e.Current.TxID, e.Current.Alh)
	}
	if d := e.Divergence; d != nil {
		if d.LastGoodTx > 0 {
			line("agrees to", "transaction %d", d.LastGoodTx)
		}
		if d.FirstBadTx > 0 {
			line("parts at", "transaction %d", d.FirstBadTx)
		}
		if d.KeyText != "" {
			line("key", "%s", plain(d.KeyText))
		}
	}
	if e.Incident != "" {
		line("incident", "%s", plain(e.Incident))
		fmt.Fprintf(&b, "\nNext, where the auditor runs:\n\n    immuclient incident show %s\n", plain(e.Incident))
		if tampering(e) {
			fmt.Fprintf(&b, "\nIt names the evidence file, which anybody can check offline with\nimmuclient evidence verify. Change nothing on the server before you kept a copy.\n")
		}
	}
	return b.String()
}

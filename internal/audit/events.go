package audit

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// newEventID gives 128 random bits: the idempotency key of a delivery.
func newEventID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// newIncidentID gives a name that a tired person can type: the day and four
// letters.
func newIncidentID(at time.Time) string {
	var b [3]byte
	rand.Read(b[:])
	return at.UTC().Format("20060102") + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:])[:4])
}

// tell adds an event to the record and a delivery for each sink that wants it,
// unless it is to be gathered with others once it is stored.
func (e *Engine) tell(c *evidence.Change, ev evidence.Event) evidence.Event {
	ev = e.complete(ev)
	c.Events = append(c.Events, ev)
	if alone(&ev) {
		e.deliver(c, ev)
	}
	return ev
}

func (e *Engine) complete(ev evidence.Event) evidence.Event {
	ev.ID = newEventID()
	if ev.At.IsZero() {
		ev.At = time.Now()
	}
	ev.Tags = e.o.Tags
	if ev.UUID == "" {
		ev.UUID = e.o.Server.UUID()
	}
	return ev
}

func (e *Engine) deliver(c *evidence.Change, ev evidence.Event) {
	for _, sink := range e.o.Sinks {
		if want, coalesce := sink.Wants(ev); want {
			c.Deliveries = append(c.Deliveries, evidence.Delivery{Sink: sink.Name, Event: ev, Coalesce: coalesce})
		}
	}
}

func tamperedEvent(inc *evidence.Incident) evidence.Event {
	trusted, observed := inc.Trusted, inc.Observed
	ev := evidence.Event{
		Type: evidence.EventTampered, At: inc.OpenedAt, Name: inc.Name, UUID: inc.UUID, Verdict: evidence.Tampered,
		Kind: inc.Kind, Incident: inc.ID, Message: inc.Findings[0].Detail, Divergence: inc.Divergence,
	}
	if inc.Divergence != nil {
		ev.Message += ". " + inc.Divergence.String()
	}
	if trusted.State != (proof.State{}) {
		ev.Previous = &trusted
	}
	if observed.State != (proof.State{}) {
		ev.Current = &observed
	}
	return ev
}

// compared makes the event of a comparison, which is delivered but not kept.
func (e *Engine) compared(c *evidence.Change, name evidence.Name, v *view, out *outcome, now time.Time) {
	ev := evidence.Event{Type: evidence.EventComparison, At: now, Name: name, Verdict: evidence.Consistent}
	if len(out.findings) > 0 || len(v.open) > 0 {
		ev.Verdict = evidence.Tampered
		ev.Kind = evidence.Worst(out.findings)
		for _, inc := range v.open {
			if ev.Kind == "" || inc.Kind.Rank() < ev.Kind.Rank() {
				ev.Kind = inc.Kind
			}
		}
	}
	if v.known() {
		previous := v.trust.Proven
		ev.Previous = &previous
	}
	if out.have {
		observed := out.observed
		ev.Current = &observed
	}
	e.deliver(c, e.complete(ev))
}

// identity reports once per server that it gives itself another name. That is
// information: it changes neither verdict nor trust (CVE-2022-39199 is about a
// client that trusted it). told is false where the server changed its name too
// often lately: then the old one is kept in mind, and the change is told later.
// undo takes back that it was told, for when it could not be stored.
func (e *Engine) identity(c *evidence.Change, old, now string) (told bool, undo func()) {
	undo = func() {}
	if old == "" || old == now {
		return true, undo
	}
	at := time.Now()
	e.mu.Lock()
	was, before := e.uuid, e.identities
	if was == now {
		e.mu.Unlock()
		return true, undo
	}
	if len(before) >= identityBurst && at.Sub(before[len(before)-identityBurst]) < identitySpan {
		e.mu.Unlock()
		return false, undo
	}
	e.uuid = now
	e.identities = append(slices.Clone(before[max(0, len(before)-identityBurst):]), at)
	e.mu.Unlock()
	undo = func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.uuid == now {
			e.uuid, e.identities = was, before
		}
	}
	message := fmt.Sprintf("the server calls itself %q now, it was %q: it was restored, replaced or answers from elsewhere. What was proven before stays in force.", now, old)
	e.log.Warn("the server's identity changed", "was", old, "is", now)
	e.tell(c, evidence.Event{Type: evidence.EventIdentityChanged, Name: evidence.Name{Server: e.o.Name}, UUID: now, Message: message})
	return true, undo
}

// firstWords says what there is to know about a first contact, above all
// whether this state directory knows the ledger under another name.
func (e *Engine) firstWords(name evidence.Name, s *proof.SignedState) string {
	message := fmt.Sprintf("first contact: trust begins at transaction %d", s.TxID)
	if other, ok := e.o.Common.relative(name, e.o.Server.UUID(), s); ok {
		message += fmt.Sprintf("; this state directory already knows this ledger as %s (proven up to transaction %d). If it is the same, stop the auditor and type: immuclient trust rename %s %s", other.name, other.proven.TxID, other.name, name)
		e.log.Warn("first contact with a ledger that is known under another name", "database", name.Database, "known_as", other.name.String())
	}
	return message
}

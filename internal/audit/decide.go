package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// Decisions are an operator's: they work on the stored records, whether or not
// an auditor is running, and a running one notices. Each is one change, and
// fails with a conflict if the auditor wrote meanwhile.

// Decider carries out decisions.
type Decider struct {
	Memory Memory
	Now    func() time.Time
	// By says who decides: user@host, as the machine knows it.
	By string
	// Sinks are told what is decided about a ledger of a server.
	Sinks func(server string) []SinkRule
}

// KeyChoice is the signing key that goes with accepting an incident about
// signatures: exactly one field is set.
type KeyChoice struct {
	Point    []byte // this key
	Observed bool   // the key that the recorded observed state carries
	None     bool   // states need not be signed
}

func (k KeyChoice) given() bool { return len(k.Point) > 0 || k.Observed || k.None }

// ErrDecision is a decision that cannot be carried out as asked.
var ErrDecision = errors.New("not decided")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDecision}, args...)...)
}

const maxReason = 1000

func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return refuse("a decision needs a reason that somebody can read a year from now; add --reason \"…\"")
	}
	if len(reason) > maxReason {
		return refuse("the reason is longer than %d bytes", maxReason)
	}
	return nil
}

// Accept makes the incident's recorded observed state the new baseline: never
// what the server shows at this moment.
func (d *Decider) Accept(ctx context.Context, inc evidence.Incident, trust *evidence.Trust, key KeyChoice, reason string) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	if inc.Status != evidence.Open {
		return refuse("incident %s is %s already", inc.ID, inc.Status)
	}
	if key.given() && !inc.Kind.AboutSignature() {
		return refuse("incident %s is about %s, not about a signing key; leave --key away", inc.ID, inc.Kind)
	}
	now := d.now()
	var c evidence.Change
	message := "accepted: " + reason
	switch {
	case inc.Kind == evidence.WrongDatabase:
		return refuse("an answer for another database cannot become the baseline of this one. Repair the server, then type: immuclient trust keep %s --reason \"…\"", inc.ID)
	case inc.Kind.AboutData() && trust != nil:
		// The listed damage only; the chain was audited all along.
		t := *trust
		t.Accepted = slices.Clone(t.Accepted)
		for _, f := range inc.Findings {
			if !slices.Contains(t.Accepted, f) {
				t.Accepted = append(t.Accepted, f)
			}
		}
		if len(t.Accepted) > maxAccepted {
			return refuse("more than %d damages of %s would be lived with; repair the server, or move the database away and begin anew", maxAccepted, inc.Name)
		}
		lookAgain(&t)
		c.Trust = &t
	case trust == nil:
		// An incident at first contact: nothing was trusted before, and what
		// the server showed contradicts itself, so there is no state to take.
		message = "accepted: the next contact is the first; " + reason
	case inc.Kind == evidence.Vanished:
		t := *trust
		t.Retired = true
		c.Trust = &t
	default:
		t, err := acceptState(trust, &inc, key, reason, now)
		if err != nil {
			return err
		}
		c.Trust, c.ForgetAll, c.Remember = t, true, []proof.State{t.Proven.State}
	}
	return d.closeIncident(ctx, c, inc, evidence.Accepted, reason, message, now)
}

// acceptState begins trust anew at the recorded observed state.
func acceptState(trust *evidence.Trust, inc *evidence.Incident, key KeyChoice, reason string, now time.Time) (*evidence.Trust, error) {
	t := *trust
	t.Baseline = evidence.Baseline{State: inc.Observed.State, Origin: evidence.OriginAccepted, At: now, Note: reason}
	t.Proven, t.ProvenAt = inc.Observed, now
	t.Walk, t.Walked, t.Verified = nil, 0, 0
	t.Scrub, t.Accepted = evidence.Scrub{}, nil
	// Where the history before is known not to hold together, a walk from
	// transaction 1 would find the accepted damage again for ever.
	t.WalkFromBaseline = inc.Kind == evidence.Tree || inc.Kind == evidence.Header || inc.Kind == evidence.Proof
	if !inc.Kind.AboutSignature() {
		return &t, nil
	}
	switch {
	case key.None:
		t.Key = nil
	case key.Observed:
		if !carriedVerifies(&inc.Observed) {
			return nil, refuse("the recorded state is not signed by the key that it carries; give the new key as a PEM file with --key FILE, or --key none")
		}
		t.Key = bytes.Clone(inc.Observed.PublicKey)
	case len(key.Point) > 0:
		if _, err := proof.ParsePoint(key.Point); err != nil {
			return nil, refuse("the key cannot be used: %v", err)
		}
		t.Key = bytes.Clone(key.Point)
	default:
		return nil, refuse("an incident about signatures also needs the new key: add --key FILE (PEM), --key observed, or --key none")
	}
	return &t, nil
}

// Keep closes an incident because the server agrees with the old baseline
// again, which a round must have seen.
func (d *Decider) Keep(ctx context.Context, inc evidence.Incident, trust *evidence.Trust, reason string) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	if inc.Status != evidence.Open {
		return refuse("incident %s is %s already", inc.ID, inc.Status)
	}
	var c evidence.Change
	if inc.Kind.AboutData() {
		if !inc.SoundAt.After(inc.LastSeen) {
			return refuse("what was damaged was not found sound again since %s. Repair it, let the auditor look (it does every minute, or type: immuclient verify), then try again", inc.LastSeen.UTC().Format(time.RFC3339))
		}
		if trust != nil {
			t := *trust
			lookAgain(&t)
			c.Trust = &t
		}
		return d.closeIncident(ctx, c, inc, evidence.Kept, reason, "kept: "+reason, d.now())
	}
	if trust != nil && !trust.LastAgreed.After(inc.LastSeen) {
		return refuse("the server has not agreed with the trusted state since it contradicted it at %s. Repair it, let the auditor make a round (or type: immuclient audit-mode --once), then try again", inc.LastSeen.UTC().Format(time.RFC3339))
	}
	return d.closeIncident(ctx, c, inc, evidence.Kept, reason, "kept: "+reason, d.now())
}

// Acknowledge records that somebody knows; it only stops reminders.
func (d *Decider) Acknowledge(ctx context.Context, inc evidence.Incident, note string) error {
	if inc.Status != evidence.Open {
		return refuse("incident %s is %s already", inc.ID, inc.Status)
	}
	if len(note) > maxReason {
		return refuse("the note is longer than %d bytes", maxReason)
	}
	now := d.now()
	inc.AckedAt, inc.AckedBy, inc.AckedNote = now, d.By, note
	c := evidence.Change{Incidents: []evidence.Incident{inc}}
	ev := decision(inc.Name, inc.ID, "acknowledged"+d.by()+": "+note, now)
	ev.Type, ev.Verdict, ev.Kind = evidence.EventAcknowledged, evidence.Tampered, inc.Kind
	d.tell(&c, ev)
	return d.Memory.Apply(ctx, c)
}

// Import takes over a state that another auditor had proven, only where there
// is no baseline. The next round must find the server's history extending it.
func (d *Decider) Import(ctx context.Context, name evidence.Name, s proof.SignedState, key []byte, uuid, note string) error {
	return d.begin(ctx, name, s, key, uuid, evidence.OriginImported, note)
}

// Pin sets the expected first state by hand, only where there is no baseline.
func (d *Decider) Pin(ctx context.Context, name evidence.Name, s proof.State, key []byte, reason string) error {
	return d.begin(ctx, name, proof.SignedState{DB: name.Database, State: s}, key, "", evidence.OriginPinned, reason)
}

// begin records a baseline that does not come from a first contact.
func (d *Decider) begin(ctx context.Context, name evidence.Name, s proof.SignedState, key []byte, uuid string, origin evidence.Origin, note string) error {
	if s.TxID == 0 && s.Alh != proof.EmptyAlh() {
		return refuse("transaction 0 is the empty database, whose hash is %s", proof.EmptyAlh())
	}
	if s.TxID > proof.MaxTxID {
		return refuse("transaction %d is beyond what immudb can number", s.TxID)
	}
	if len(key) > 0 {
		if _, err := proof.ParsePoint(key); err != nil {
			return refuse("the key cannot be used: %v", err)
		}
	}
	now := d.now()
	t := evidence.Trust{
		Name: name, Key: key, UUID: uuid, ProvenAt: now,
		Baseline: evidence.Baseline{State: s.State, Origin: origin, At: now, Note: note}, Proven: s,
	}
	c := evidence.Change{Trust: &t, Remember: []proof.State{s.State}}
	d.tell(&c, decision(name, "", fmt.Sprintf("%s at transaction %d%s: %s", origin, s.TxID, d.by(), note), now))
	err := d.Memory.Apply(ctx, c)
	if conflicts(err) {
		return refuse("%s has a baseline already; this is only for a ledger that was never met (see immuclient trust show %s)", name, name)
	}
	return err
}

func (d *Decider) closeIncident(ctx context.Context, c evidence.Change, inc evidence.Incident, status evidence.Status, reason, message string, now time.Time) error {
	inc.Status, inc.ClosedAt, inc.ClosedBy, inc.CloseNote = status, now, d.By, reason
	c.Incidents = []evidence.Incident{inc}
	ev := decision(inc.Name, inc.ID, message+d.by(), now)
	ev.Kind = inc.Kind
	d.tell(&c, ev)
	return d.Memory.Apply(ctx, c)
}

// tell adds an event to the record and a delivery for each sink that wants it.
func (d *Decider) tell(c *evidence.Change, ev evidence.Event) {
	c.Events = append(c.Events, ev)
	if d.Sinks == nil {
		return
	}
	for _, sink := range d.Sinks(ev.Name.Server) {
		if want, coalesce := sink.Wants(ev); want {
			c.Deliveries = append(c.Deliveries, evidence.Delivery{Sink: sink.Name, Event: ev, Coalesce: coalesce})
		}
	}
}

func (d *Decider) by() string {
	if d.By == "" {
		return ""
	}
	return " (" + d.By + ")"
}

// StateCreated records that a state directory was made anew: an auditor that
// lost its memory must not look like one that never had any.
func (d *Decider) StateCreated(ctx context.Context, server, dir string) error {
	return d.record(ctx, evidence.Event{
		ID: newEventID(), Type: evidence.EventStateCreated, At: time.Now(), Name: evidence.Name{Server: server},
		Message: "a new state directory was made: " + dir,
	})
}

// StateProblem records that the auditor's own state is not what it was left.
func (d *Decider) StateProblem(ctx context.Context, server, message string) error {
	return d.record(ctx, evidence.Event{
		ID: newEventID(), Type: evidence.EventStateProblem, At: time.Now(), Name: evidence.Name{Server: server}, Message: message,
	})
}

func (d *Decider) record(ctx context.Context, ev evidence.Event) error {
	var c evidence.Change
	d.tell(&c, ev)
	return d.Memory.Apply(ctx, c)
}

// Decision is the event of an operator's decision that is stored elsewhere.
func Decision(name evidence.Name, incident, message string) evidence.Event {
	return decision(name, incident, message, time.Now())
}

func decision(name evidence.Name, incident, message string, now time.Time) evidence.Event {
	return evidence.Event{ID: newEventID(), Type: evidence.EventDecision, At: now, Name: name, Incident: incident, Message: message}
}

func (d *Decider) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

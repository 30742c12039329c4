package evidence

import (
	"time"

	"immuaudit/proof"
)

// Name identifies a ledger: the operator's name for the server and the name
// of the database. What a server says of itself (UUID, address, key) is
// information and never part of the identity.
type Name struct {
	Server   string
	Database string
}

func (n Name) String() string { return n.Server + "/" + n.Database }

// Origin says how trust in a ledger began.
type Origin string

const (
	OriginFirstContact Origin = "first-contact" // what the server showed when it was first met
	OriginPinned       Origin = "pinned"        // set by hand
	OriginImported     Origin = "imported"      // taken over from another auditor's state
	OriginAccepted     Origin = "accepted"      // the recorded branch of an incident, accepted by an operator
)

// Baseline is the state from which trust in a ledger began.
type Baseline struct {
	State  proof.State
	Origin Origin
	At     time.Time
	Note   string // the operator's reason, or where it was imported from
}

// Trust is all that is remembered of one ledger. Proven is the trusted state;
// it moves forward only, by compare-and-swap on Version.
type Trust struct {
	Name     Name
	Version  uint64 // counts changes of this record; 0 = not stored yet
	Baseline Baseline
	// Proven is the newest state bound to the baseline, with the server's
	// signature over it if there was one.
	Proven   proof.SignedState
	ProvenAt time.Time
	// Walk is the binary form of a proof.Walk that stands at the walked
	// watermark; empty before the first transaction was walked.
	Walk []byte
	// WalkFromBaseline: the history before the baseline is known not to hold
	// together (an accepted incident about its tree, headers or proofs), so
	// the walk begins at the baseline instead of transaction 0.
	WalkFromBaseline bool
	// Walked and Verified are the other two watermarks (transaction numbers).
	Walked   uint64
	Verified uint64
	// Key is the signing key in force: the uncompressed point that signed
	// states were seen under since first contact. Empty: never signed.
	Key []byte
	// UUID is the server's self-given identity when last seen.
	UUID string
	// Scrub is how far deep verification has come, and Accepted the damage that
	// an operator knows of and lives with.
	Scrub    Scrub
	Accepted []Finding
	// Retired is set when an operator accepted that the database is gone.
	Retired bool
	// LastAgreed is when the server's history last agreed with Proven;
	// LastAttempt is when a round was last made. Both are written lazily.
	LastAgreed  time.Time
	LastAttempt time.Time
}

// Scrub is where the deep verification of a ledger stands: pass after pass over
// all of its transactions.
type Scrub struct {
	// Settled: every transaction up to here was looked at at least once.
	Settled uint64
	// Position is how far the pass under way has come, and Clean how much of
	// it, from its beginning on, held without exception.
	Position uint64
	Clean    uint64
	// Pass counts the passes that were finished; the one under way began at
	// Began, the last one ended at Finished.
	Pass     uint64
	Began    time.Time
	Finished time.Time
	// Retained is the newest truncation that a trusted header records.
	Retained uint64
	// Damaged counts what did not hold in the pass under way, Verified the
	// entries and Bytes the bytes of values that did, since the first pass.
	Damaged  uint64
	Verified uint64
	Bytes    uint64
}

// Status is where an incident stands.
type Status string

const (
	Open     Status = "open"
	Accepted Status = "accepted" // trust began anew from the recorded observed state
	Kept     Status = "kept"     // the old baseline stands and the server agrees with it again
)

// Incident is a proven contradiction of one kind on one ledger. It stays open
// until an operator decides.
type Incident struct {
	ID       string // as printed: the day it opened and four letters, 20261123-k7qd
	Version  uint64 // counts changes of this record; 0 = not stored yet
	Name     Name
	UUID     string
	Kind     Kind
	Status   Status
	OpenedAt time.Time
	// Findings are those of the round that opened it (≤ MaxFindings).
	Findings []Finding
	// Trusted is what was remembered, Observed what the server showed in the
	// round that opened the incident. Accepting takes Observed, never what
	// the server shows later.
	Trusted  proof.SignedState
	Observed proof.SignedState
	// Divergence is where the server's history parts from the remembered one,
	// nil where that could not be found out.
	Divergence *Divergence
	// LastSeen is when a round last ran into the same contradiction, Seen how often.
	LastSeen time.Time
	Seen     uint64
	// SoundAt is when all that was damaged was last found sound again, for
	// kinds about data.
	SoundAt time.Time
	// Told is how many of Findings somebody was told of.
	Told int
	// RemindedAt is when somebody was last told that it is still open.
	RemindedAt time.Time
	// AckedAt, AckedBy, AckedNote: an operator knows; reminders stop.
	AckedAt   time.Time
	AckedBy   string // user@host as the machine knew it where the decision was made
	AckedNote string
	// ClosedAt, ClosedBy, CloseNote: who accepted or kept, and why.
	ClosedAt  time.Time
	ClosedBy  string
	CloseNote string
	// Evidence is the path of the evidence file; EvidenceError says why there is none.
	Evidence      string
	EvidenceError string
}

// Witnessed is a state that the server signed, and when it was proven.
type Witnessed struct {
	State proof.SignedState
	At    time.Time
}

// EventType names what is worth telling somebody.
type EventType string

const (
	EventComparison      EventType = "comparison"       // a round compared two states (only for --audit-notification-on=always)
	EventTampered        EventType = "tampered"         // an incident was opened
	EventStillTampered   EventType = "still-tampered"   // a day later it is open, and nobody acknowledged it
	EventDamage          EventType = "damage"           // more damage was found by an incident that is open already
	EventFirstContact    EventType = "first-contact"    // a baseline was recorded
	EventIdentityChanged EventType = "identity-changed" // the server gives itself another UUID
	EventSigningBegan    EventType = "signing-began"    // states are signed that were not before
	EventStale           EventType = "stale"            // not auditable for longer than --audit-stale-after: a ledger, or several of a server at once
	EventRecovered       EventType = "recovered"        // auditable again after stale
	EventStateCreated    EventType = "state-created"    // a state directory was made anew
	EventNotGrowing      EventType = "not-growing"      // no new transaction for longer than --audit-expect-growth
	EventClockSkew       EventType = "clock-skew"       // timestamps run backwards or ahead by more than --audit-clock-skew
	EventStateProblem    EventType = "state-problem"    // the auditor's own state is not what it left behind
	EventAcknowledged    EventType = "acknowledged"     // an operator knows of an incident
	EventDecision        EventType = "decision"         // an operator accepted, kept, pinned, imported or renamed
	EventTest            EventType = "test"             // an operator tries a sink; nothing happened
)

// Event is one thing that happened, in words and with the states it is about.
type Event struct {
	ID       string // random, 128 bits in hex: the idempotency key of its deliveries
	Type     EventType
	At       time.Time
	Name     Name // Database empty: about the server or the auditor
	UUID     string
	Verdict  Verdict // of the ledger then; says nothing where HasVerdict does not
	Kind     Kind
	Incident string
	Message  string
	// Ledgers is how many ledgers an event about a server concerns, 0 where it
	// is not about ledgers. Tags are those the operator gave the server.
	Ledgers int
	Tags    []string
	// Previous is the trusted state, nil where there is none; Current what
	// the server showed.
	Previous *proof.SignedState
	Current  *proof.SignedState
	// Divergence is that of the incident.
	Divergence *Divergence
	// Sequence is the number of the commit that stored the event: whoever
	// keeps notifications can tell an auditor whose state was rolled back. It
	// is set by the store; 0 where the event was not stored.
	Sequence uint64
}

// HasVerdict reports whether the event tells of a verdict: it does where a round
// on one ledger gave rise to it.
func (e *Event) HasVerdict() bool {
	switch e.Type {
	case EventDecision, EventStateCreated, EventStateProblem:
		return false
	}
	return e.Name.Database != ""
}

// Delivery asks for an event to be sent to a sink. It is stored in the same
// transaction as what it is about, so that neither can be lost alone.
type Delivery struct {
	Sink  string
	Event Event
	// Coalesce: a newer delivery for the same sink, ledger and event type
	// replaces this one while it waits.
	Coalesce bool
}

// Change is what one round, or one decision, writes: all of it or nothing.
type Change struct {
	// Trust is the new record of a ledger. It is stored only if the stored
	// version equals Trust.Version (0: only if there is none), as Version+1.
	Trust *Trust
	// Remember adds states that the walk must meet on its way; Forget drops
	// those at or below that transaction number; ForgetAll drops all first.
	Remember  []proof.State
	Forget    uint64
	ForgetAll bool
	// Incidents to insert (Version 0) or replace (compare-and-swap like Trust).
	Incidents []Incident
	// Events to keep for the record, Deliveries to put into the outbox.
	Events     []Event
	Deliveries []Delivery
}

// Pending is a delivery waiting in the outbox.
type Pending struct {
	ID       int64
	Sink     string
	Event    Event
	Queued   time.Time
	Attempts int
	NextTry  time.Time
	LastErr  string // of the newest attempt, without credentials
}

// Queue sums up the outbox of one sink, and what became of what was sent to it.
// That is kept: it does not begin anew with the process.
type Queue struct {
	Sink      string
	Waiting   int
	Oldest    time.Time // when the oldest waiting delivery was queued
	Sent      uint64
	Failed    uint64    // failed tries, each delivery of a digest counted
	LastOK    time.Time // newest success, zero if none
	LastErr   string    // of the newest try, empty if it was a success
	LastErrAt time.Time // newest failure, zero if none
}

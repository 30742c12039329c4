// Package evidence holds the words in which the auditor speaks: verdicts, the
// kinds of tampering, the reasons for not knowing, findings, incidents, and
// what is remembered of a ledger.
//
// A verdict is one of three. Undetermined is the zero value: nothing starts as
// good. A verdict of Tampered names a Kind and carries at least one Finding; a
// verdict of Undetermined names a Reason.
//
// It also writes and re-checks the evidence file of an incident
// (docs/evidence-format.md). An auditor calls [Record] with the [Material] it
// has in hand; anyone else calls [Recheck] with the file and the keys they
// trust, and needs no server for it. What a file proves to anyone is a
// [Contradiction] that the server itself signed; all the rest is the auditor's
// testimony.
package evidence

import "fmt"

// Verdict is the outcome of a round over one ledger.
type Verdict uint8

const (
	Undetermined Verdict = iota
	Consistent
	Tampered
)

var verdictNames = [...]string{"undetermined", "consistent", "tampered"}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// MarshalText gives the name used in JSON and on the command line.
func (v Verdict) MarshalText() ([]byte, error) {
	if int(v) >= len(verdictNames) {
		return nil, fmt.Errorf("unknown verdict %d", uint8(v))
	}
	return []byte(verdictNames[v]), nil
}

// UnmarshalText accepts exactly what MarshalText gives.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if string(text) == name {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("unknown verdict %q", text)
}

// Kind says how a ledger was tampered with.
type Kind string

// The kinds, most telling first: an incident's kind is the first of these
// among its findings.
const (
	WrongDatabase    Kind = "wrong-database"
	SignatureMissing Kind = "signature-missing"
	SignatureInvalid Kind = "signature-invalid"
	KeyChanged       Kind = "key-changed"
	Emptied          Kind = "emptied"
	Vanished         Kind = "vanished"
	Fork             Kind = "fork"
	Rollback         Kind = "rollback"
	Tree             Kind = "tree"
	Header           Kind = "header"
	Proof            Kind = "proof"
	Entries          Kind = "entries"
	Value            Kind = "value"
	ValueMissing     Kind = "value-missing"
)

var kinds = [...]Kind{
	WrongDatabase, SignatureMissing, SignatureInvalid, KeyChanged, Emptied, Vanished,
	Fork, Rollback, Tree, Header, Proof, Entries, Value, ValueMissing,
}

// Kinds lists every kind, most telling first.
func Kinds() []Kind { return append([]Kind(nil), kinds[:]...) }

// Rank orders kinds: the lower, the more telling. An unknown kind ranks last.
func (k Kind) Rank() int {
	for i, other := range kinds {
		if k == other {
			return i
		}
	}
	return len(kinds)
}

// AboutData reports whether the kind is about the content of transactions
// rather than their chain. Such an incident sticks, but the chain goes on
// being audited.
func (k Kind) AboutData() bool { return k == Entries || k == Value || k == ValueMissing }

// AboutSignature reports whether accepting the incident also needs a decision
// about the signing key.
func (k Kind) AboutSignature() bool {
	return k == SignatureMissing || k == SignatureInvalid || k == KeyChanged
}

// Reason says why no verdict could be reached.
type Reason string

const (
	FirstContact Reason = "first-contact" // only with --once: there was nothing to compare with
	Unreachable  Reason = "unreachable"   // no connection, or it broke
	Timeout      Reason = "timeout"       // no answer in time
	Unauthorised Reason = "unauthorised"  // login or permission refused
	NotLoaded    Reason = "not-loaded"    // the database exists but is not open
	NotFound     Reason = "not-found"     // said not to exist, not yet often enough to be "vanished"
	Malformed    Reason = "malformed"     // cannot be decoded, or breaks a bound
	TooLarge     Reason = "too-large"     // does not fit --max-recv-msg-size
	Overloaded   Reason = "overloaded"    // the server turns requests away
	Refused      Reason = "refused"       // any other error the server answered with
	Unproven     Reason = "unproven"      // well-formed, but a needed part of the proof is not to be had
	TreeLag      Reason = "tree-lag"      // a transaction tree older than what the walk remembers
	Unstable     Reason = "unstable"      // a mismatch that did not repeat itself
	StateProblem Reason = "state"         // the auditor's own state could not be read or written
	Interrupted  Reason = "interrupted"   // the auditor was stopped in mid-round
)

var reasons = [...]Reason{
	FirstContact, Unreachable, Timeout, Unauthorised, NotLoaded, NotFound, Malformed, TooLarge,
	Overloaded, Refused, Unproven, TreeLag, Unstable, StateProblem, Interrupted,
}

// Known reports whether r is one of the reasons above.
func (r Reason) Known() bool {
	for _, known := range reasons {
		if r == known {
			return true
		}
	}
	return false
}

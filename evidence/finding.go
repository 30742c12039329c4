package evidence

import (
	"time"

	"immuaudit/proof"
)

// MaxFindings bounds what one incident records.
const MaxFindings = 100

// Finding is one check that did not hold.
type Finding struct {
	Kind   Kind   `json:"kind"`
	Check  string `json:"check"`            // which check, in the words of package proof or of the round
	Tx     uint64 `json:"tx,omitempty"`     // the transaction it is about, 0 where it is about none
	Key    string `json:"key,omitempty"`    // of the entry it is about, with its prefix, in hex
	Want   string `json:"want,omitempty"`   // hex of a digest, or the expected word
	Got    string `json:"got,omitempty"`    // hex of a digest, or the word found
	Detail string `json:"detail,omitempty"` // one sentence for a person
}

// Worst gives the kind of a set of findings: the most telling one, or "".
func Worst(findings []Finding) Kind {
	var worst Kind
	for _, f := range findings {
		if worst == "" || f.Kind.Rank() < worst.Rank() {
			worst = f.Kind
		}
	}
	return worst
}

// Mark is a transaction and its accumulative linear hash, as printed.
type Mark struct {
	Tx  uint64 `json:"tx"`
	Alh string `json:"alh"` // lower-case hex
}

// MarkOf prints a state; nil for the zero state.
func MarkOf(s proof.State) *Mark {
	if s == (proof.State{}) {
		return nil
	}
	return &Mark{Tx: s.TxID, Alh: s.Alh.String()}
}

// Assurance holds the three watermarks: verified ≤ walked ≤ proven, as
// transaction numbers.
type Assurance struct {
	Proven   uint64 `json:"proven"`
	Walked   uint64 `json:"walked"`
	Verified uint64 `json:"verified"`
}

// Divergence says where a ledger stops agreeing with what was proven.
type Divergence struct {
	LastGoodTx uint64 `json:"last_good_tx,omitempty"`
	FirstBadTx uint64 `json:"first_bad_tx,omitempty"`
	Key        string `json:"key,omitempty"`      // hex
	KeyText    string `json:"key_text,omitempty"` // only if printable UTF-8
}

// Report is the outcome of one round over one ledger: one line of --json.
type Report struct {
	Time       time.Time   `json:"time"`
	Server     string      `json:"server"`
	ServerUUID string      `json:"server_uuid,omitempty"`
	Database   string      `json:"database,omitempty"`
	Verdict    Verdict     `json:"verdict"`
	Kind       Kind        `json:"kind,omitempty"`
	Reason     Reason      `json:"reason,omitempty"`
	Detail     string      `json:"detail,omitempty"` // for a person: what went wrong and what to do
	Findings   []Finding   `json:"findings,omitempty"`
	Trusted    *Mark       `json:"trusted,omitempty"`
	Observed   *Mark       `json:"observed,omitempty"`
	Assurance  *Assurance  `json:"assurance,omitempty"`
	Divergence *Divergence `json:"divergence,omitempty"`
	Incident   string      `json:"incident,omitempty"`
	Evidence   string      `json:"evidence,omitempty"`
	DurationMS float64     `json:"duration_ms"`
}

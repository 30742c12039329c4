// Package report writes what an auditor can say about a span of time: one page
// for people, with the same as data, signed by the auditor. It needs neither a
// server nor the running auditor, only what they left in the state directory.
//
// A page is HTML with nothing active in it and nothing loaded from elsewhere.
// Behind it stand two comments:
//
//	<!-- immuaudit-report-data
//	{"format":"immuaudit-report", …}
//	-->
//	<!-- immuaudit-report-signature
//	immuaudit-report-v1
//	sha256 HEX
//	key NAME+HASH+KEY
//
//	— NAME BASE64
//	-->
//
// The second is a C2SP signed note; its hash is over every byte before it. As
// JSON a report is {"report":…,"note":…}, with the hash over the first value.
package report

import (
	"context"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/history"
	"immuaudit/proof"
)

// Bounds of a report: it is to be read.
const (
	maxGaps        = 200   // in the table; the longest stay
	maxGapsLedger  = 50    // of one ledger in the data
	maxIncidents   = 500   // told; the newest stay
	maxFindings    = 10    // of one incident on the page
	maxEvents      = 500   // told; the newest stay
	maxRead        = 20000 // events looked at
	maxRows        = 2000  // ledgers in the table
	maxDetails     = 40    // ledgers that are shown on their own
	maxStretches   = 100_000
	maxText        = 300 // characters of a text on the page
	leastGap       = 2 * time.Minute
	dataFormat     = "immuaudit-report"
	dataVersion    = 1
	whyNotRunning  = "auditor-not-running"
	whyNoRounds    = "no-rounds"
	whyNotRecorded = "not-recorded"
	whyChanging    = "changing"
)

// State is what is remembered of ledgers, incidents and events: the state
// directory's store. What it gives is not changed.
type State interface {
	Ledgers(ctx context.Context) ([]evidence.Trust, error)
	Incidents(ctx context.Context, all bool) ([]evidence.Incident, error)
	// Events are those at or after since, oldest first, at most limit of the newest.
	Events(ctx context.Context, since time.Time, limit int) ([]evidence.Event, error)
}

// Past is what rounds came to: a *history.History, nil where there is none.
type Past interface {
	Of(ctx context.Context, name evidence.Name, from, to time.Time, limit int) ([]history.Stretch, error)
	Last(ctx context.Context, name evidence.Name, at time.Time) (history.Stretch, bool, error)
	Runs(ctx context.Context, from, to time.Time) ([]history.Run, error)
	Began(ctx context.Context) (time.Time, error)
}

// Options say what to report on.
type Options struct {
	Span Span
	// Wanted chooses ledgers; nil: all.
	Wanted func(evidence.Name) bool
	// Filter says in words what was chosen, "" for everything.
	Filter  string
	Made    time.Time
	Version string // of the auditor
	Key     string // the auditor's verifier key
	// Sum gives the SHA-256 of an evidence file, in hex.
	Sum func(path string) (string, error)
	// Problem: why there is no history, "" where there is one. Doubts are why
	// the state may not be what the auditor left behind.
	Problem string
	Doubts  []string
}

// Document is a report as data: docs/report.md explains every field.
type Document struct {
	Format        string     `json:"format"`
	FormatVersion int        `json:"format_version"`
	From          time.Time  `json:"from"`
	To            time.Time  `json:"to"`
	Made          time.Time  `json:"made"`
	Filter        string     `json:"filter,omitempty"`
	Auditor       Auditor    `json:"auditor"`
	Conclusion    Conclusion `json:"conclusion"`
	Totals        Totals     `json:"totals"`
	History       Kept       `json:"history"`
	Runs          []Run      `json:"auditor_runs"`
	Gaps          []Gap      `json:"gaps"`
	Incidents     []Incident `json:"incidents"`
	Events        []Event    `json:"events"`
	Ledgers       []Ledger   `json:"ledgers"`
	Omitted       []string   `json:"omitted,omitempty"`
}

// Auditor is who says all this.
type Auditor struct {
	Version     string `json:"version"`
	Key         string `json:"key"`
	Fingerprint string `json:"fingerprint"`
}

// Conclusion is what can be said: Verdict is that of evidence, over everything.
type Conclusion struct {
	Verdict evidence.Verdict `json:"verdict"`
	Title   string           `json:"title"`
	Said    []string         `json:"said"`
	NotSaid []string         `json:"not_said"`
}

// Totals are over all ledgers of the report.
type Totals struct {
	Servers         int    `json:"servers"`
	Ledgers         int    `json:"ledgers"`
	Rounds          uint64 `json:"rounds"`
	Consistent      uint64 `json:"consistent_rounds"`
	NeverChecked    int    `json:"ledgers_without_a_round"`
	IncidentsOpened int    `json:"incidents_opened"`
	IncidentsOpen   int    `json:"incidents_open"`
	Gaps            int    `json:"gaps"`
	DeepComplete    int    `json:"ledgers_verified_completely"`
}

// Kept says since when there is a history.
type Kept struct {
	Began   *time.Time `json:"began,omitempty"`
	Problem string     `json:"problem,omitempty"`
}

// Run is a process of the auditor.
type Run struct {
	Started time.Time `json:"started"`
	Alive   time.Time `json:"last_alive"`
	Ended   bool      `json:"ended_in_order"`
	Version string    `json:"version"`
}

// Gap is a time without a verdict.
type Gap struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Seconds float64   `json:"seconds"`
	Why     string    `json:"why"`
	// Ledgers is how many had this gap, Examples names a few of them.
	Ledgers  int      `json:"ledgers,omitempty"`
	Examples []string `json:"examples,omitempty"`
}

// Checkpoint is a state that was trusted at a time.
type Checkpoint struct {
	Tx  uint64    `json:"tx"`
	Alh string    `json:"alh,omitempty"`
	At  time.Time `json:"at"`
}

// Ledger is what is known of one ledger in the span.
type Ledger struct {
	Server     string `json:"server"`
	Database   string `json:"database"`
	ServerUUID string `json:"server_uuid,omitempty"`
	Retired    bool   `json:"retired,omitempty"`

	Baseline Baseline `json:"baseline"`

	Rounds     uint64  `json:"rounds"`
	Consistent uint64  `json:"consistent_rounds"`
	UsualSec   float64 `json:"usual_distance_seconds"`
	LongestSec float64 `json:"longest_distance_seconds"`
	GapSec     float64 `json:"gap_seconds"`
	GapCount   int     `json:"gap_count"`
	Gaps       []Gap   `json:"gaps,omitempty"`
	Incidents  int     `json:"incidents,omitempty"`

	AtFrom *Checkpoint `json:"checkpoint_from,omitempty"`
	AtTo   *Checkpoint `json:"checkpoint_to,omitempty"`
	Now    *Checkpoint `json:"trusted_now,omitempty"`

	Deep Deep `json:"deep_verification"`

	since     time.Time // what came before is no gap
	stretches []history.Stretch
}

// Baseline is how trust began.
type Baseline struct {
	Origin evidence.Origin `json:"origin"`
	At     time.Time       `json:"at"`
	Tx     uint64          `json:"tx"`
	Alh    string          `json:"alh,omitempty"`
	Note   string          `json:"note,omitempty"`
}

// Deep is where deep verification stands when the report is made.
type Deep struct {
	Proven     uint64     `json:"proven"`
	Walked     uint64     `json:"walked"`
	Verified   uint64     `json:"verified"`
	Passes     uint64     `json:"passes"`
	LastPass   *time.Time `json:"last_pass_finished,omitempty"`
	Position   uint64     `json:"position"`
	Settled    uint64     `json:"settled"`
	Damaged    uint64     `json:"damaged_in_this_pass"`
	Accepted   int        `json:"damage_accepted"`
	Retained   uint64     `json:"truncated_up_to,omitempty"`
	EntriesRun uint64     `json:"entries_verified"`
}

// Incident is one incident, as it stands when the report is made.
type Incident struct {
	ID            string               `json:"incident"`
	Server        string               `json:"server"`
	Database      string               `json:"database"`
	Kind          evidence.Kind        `json:"kind"`
	Status        evidence.Status      `json:"status"`
	OpenedAt      time.Time            `json:"opened_at"`
	LastSeen      *time.Time           `json:"last_seen,omitempty"`
	Seen          uint64               `json:"seen"`
	Findings      []evidence.Finding   `json:"findings"`
	Divergence    *evidence.Divergence `json:"divergence,omitempty"`
	Trusted       *evidence.Mark       `json:"trusted,omitempty"`
	Observed      *evidence.Mark       `json:"observed,omitempty"`
	Evidence      string               `json:"evidence,omitempty"` // the file's name
	EvidenceSum   string               `json:"evidence_sha256,omitempty"`
	EvidenceError string               `json:"evidence_error,omitempty"`
	AckedAt       *time.Time           `json:"acked_at,omitempty"`
	AckedBy       string               `json:"acked_by,omitempty"`
	AckNote       string               `json:"ack_note,omitempty"`
	ClosedAt      *time.Time           `json:"closed_at,omitempty"`
	ClosedBy      string               `json:"closed_by,omitempty"`
	CloseNote     string               `json:"close_note,omitempty"`
	SoundAt       *time.Time           `json:"sound_at,omitempty"`
}

// Event is something else that happened.
type Event struct {
	At       time.Time          `json:"at"`
	Type     evidence.EventType `json:"type"`
	Server   string             `json:"server,omitempty"`
	Database string             `json:"database,omitempty"`
	Message  string             `json:"message"`
}

func checkpoint(state proof.State, at time.Time) *Checkpoint {
	mark := evidence.MarkOf(state)
	if mark == nil {
		return nil
	}
	return &Checkpoint{Tx: mark.Tx, Alh: mark.Alh, At: at.UTC()}
}

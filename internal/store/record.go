package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// The shapes in which records are kept and exported. They are this package's
// own, so that a change elsewhere cannot change what is on disk.

type alhText [32]byte

func (h alhText) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

func (h *alhText) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) || strings.ToLower(string(text)) != string(text) {
		return fmt.Errorf("a hash is %d lower-case hex digits", 2*len(h))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

type stateRecord struct {
	Tx  uint64  `json:"tx"`
	Alh alhText `json:"alh"`
}

func recordState(s proof.State) stateRecord { return stateRecord{s.TxID, alhText(s.Alh)} }

func (r stateRecord) state() proof.State { return proof.State{TxID: r.Tx, Alh: proof.Hash(r.Alh)} }

type signedRecord struct {
	Database string `json:"database,omitempty"`
	stateRecord
	PublicKey []byte `json:"public_key,omitempty"`
	Signature []byte `json:"signature,omitempty"`
}

func recordSigned(s proof.SignedState) signedRecord {
	return signedRecord{s.DB, recordState(s.State), s.PublicKey, s.Signature}
}

func (r signedRecord) signed() proof.SignedState {
	return proof.SignedState{DB: r.Database, State: r.state(), PublicKey: r.PublicKey, Signature: r.Signature}
}

func recordSignedMaybe(s *proof.SignedState) *signedRecord {
	if s == nil {
		return nil
	}
	r := recordSigned(*s)
	return &r
}

func (r *signedRecord) signedMaybe() *proof.SignedState {
	if r == nil {
		return nil
	}
	s := r.signed()
	return &s
}

type baselineRecord struct {
	stateRecord
	Origin evidence.Origin `json:"origin"`
	At     time.Time       `json:"at,omitzero"`
	Note   string          `json:"note,omitempty"`
}

// digest stands for the baseline in comparisons: trust that begins anew has
// another one.
func (r baselineRecord) digest() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	return sum[:], nil
}

type trustRecord struct {
	Baseline baselineRecord `json:"baseline"`
	Proven   signedRecord   `json:"proven"`
	ProvenAt time.Time      `json:"proven_at,omitzero"`
	Walked   uint64         `json:"walked"`
	// FromBaseline: the walk begins at the baseline, not at transaction 1.
	FromBaseline bool               `json:"walk_from_baseline,omitempty"`
	Verified     uint64             `json:"verified"`
	Key          []byte             `json:"key,omitempty"`
	UUID         string             `json:"uuid,omitempty"`
	Retired      bool               `json:"retired,omitempty"`
	Scrub        scrubRecord        `json:"scrub,omitzero"`
	Accepted     []evidence.Finding `json:"accepted,omitempty"`
	LastAgreed   time.Time          `json:"last_agreed,omitzero"`
	LastAttempt  time.Time          `json:"last_attempt,omitzero"`
}

func recordTrust(t evidence.Trust) trustRecord {
	b := t.Baseline
	return trustRecord{
		Baseline: baselineRecord{recordState(b.State), b.Origin, plain(b.At), b.Note},
		Proven:   recordSigned(t.Proven), ProvenAt: plain(t.ProvenAt),
		Walked: t.Walked, FromBaseline: t.WalkFromBaseline, Verified: t.Verified,
		Key: t.Key, UUID: t.UUID, Retired: t.Retired,
		Scrub: recordScrub(t.Scrub), Accepted: t.Accepted,
		LastAgreed: plain(t.LastAgreed), LastAttempt: plain(t.LastAttempt),
	}
}

func (r trustRecord) trust(name evidence.Name, version uint64, walk []byte) evidence.Trust {
	if len(walk) == 0 {
		walk = nil
	}
	b := r.Baseline
	return evidence.Trust{
		Name: name, Version: version,
		Baseline: evidence.Baseline{State: b.state(), Origin: b.Origin, At: b.At, Note: b.Note},
		Proven:   r.Proven.signed(), ProvenAt: r.ProvenAt,
		Walk: walk, Walked: r.Walked, WalkFromBaseline: r.FromBaseline, Verified: r.Verified,
		Key: r.Key, UUID: r.UUID, Retired: r.Retired,
		Scrub: evidence.Scrub(r.Scrub), Accepted: r.Accepted,
		LastAgreed: r.LastAgreed, LastAttempt: r.LastAttempt,
	}
}

// scrubRecord has the fields of evidence.Scrub, under this package's names.
type scrubRecord struct {
	Settled  uint64    `json:"settled,omitempty"`
	Position uint64    `json:"position,omitempty"`
	Clean    uint64    `json:"clean,omitempty"`
	Pass     uint64    `json:"pass,omitempty"`
	Began    time.Time `json:"began,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Retained uint64    `json:"retained,omitempty"`
	Damaged  uint64    `json:"damaged,omitempty"`
	Verified uint64    `json:"verified,omitempty"`
	Bytes    uint64    `json:"bytes,omitempty"`
}

func recordScrub(s evidence.Scrub) scrubRecord {
	r := scrubRecord(s)
	r.Began, r.Finished = plain(s.Began), plain(s.Finished)
	return r
}

type incidentRecord struct {
	UUID          string               `json:"uuid,omitempty"`
	Kind          evidence.Kind        `json:"kind"`
	OpenedAt      time.Time            `json:"opened_at,omitzero"`
	Findings      []evidence.Finding   `json:"findings,omitempty"`
	Trusted       signedRecord         `json:"trusted"`
	Observed      signedRecord         `json:"observed"`
	Divergence    *evidence.Divergence `json:"divergence,omitempty"`
	LastSeen      time.Time            `json:"last_seen,omitzero"`
	Seen          uint64               `json:"seen"`
	SoundAt       time.Time            `json:"sound_at,omitzero"`
	Told          int                  `json:"told"`
	RemindedAt    time.Time            `json:"reminded_at,omitzero"`
	AckedAt       time.Time            `json:"acked_at,omitzero"`
	AckedBy       string               `json:"acked_by,omitempty"`
	AckedNote     string               `json:"acked_note,omitempty"`
	ClosedAt      time.Time            `json:"closed_at,omitzero"`
	ClosedBy      string               `json:"closed_by,omitempty"`
	CloseNote     string               `json:"close_note,omitempty"`
	Evidence      string               `json:"evidence,omitempty"`
	EvidenceError string               `json:"evidence_error,omitempty"`
}

func recordIncident(i evidence.Incident) incidentRecord {
	return incidentRecord{
		UUID: i.UUID, Kind: i.Kind, OpenedAt: plain(i.OpenedAt), Findings: i.Findings,
		Trusted: recordSigned(i.Trusted), Observed: recordSigned(i.Observed), Divergence: i.Divergence,
		LastSeen: plain(i.LastSeen), Seen: i.Seen, SoundAt: plain(i.SoundAt),
		Told: i.Told, RemindedAt: plain(i.RemindedAt), AckedAt: plain(i.AckedAt), AckedBy: i.AckedBy, AckedNote: i.AckedNote,
		ClosedAt: plain(i.ClosedAt), ClosedBy: i.ClosedBy, CloseNote: i.CloseNote,
		Evidence: i.Evidence, EvidenceError: i.EvidenceError,
	}
}

func (r incidentRecord) incident(id string, version uint64, name evidence.Name, status evidence.Status) evidence.Incident {
	return evidence.Incident{
		ID: id, Version: version, Name: name, UUID: r.UUID, Kind: r.Kind, Status: status,
		OpenedAt: r.OpenedAt, Findings: r.Findings,
		Trusted: r.Trusted.signed(), Observed: r.Observed.signed(), Divergence: r.Divergence,
		LastSeen: r.LastSeen, Seen: r.Seen, SoundAt: r.SoundAt, Told: r.Told, RemindedAt: r.RemindedAt, AckedAt: r.AckedAt, AckedBy: r.AckedBy, AckedNote: r.AckedNote,
		ClosedAt: r.ClosedAt, ClosedBy: r.ClosedBy, CloseNote: r.CloseNote,
		Evidence: r.Evidence, EvidenceError: r.EvidenceError,
	}
}

type eventRecord struct {
	ID         string               `json:"id"`
	Type       evidence.EventType   `json:"type"`
	At         time.Time            `json:"at,omitzero"`
	UUID       string               `json:"uuid,omitempty"`
	Verdict    evidence.Verdict     `json:"verdict"`
	Kind       evidence.Kind        `json:"kind,omitempty"`
	Incident   string               `json:"incident,omitempty"`
	Message    string               `json:"message,omitempty"`
	Previous   *signedRecord        `json:"previous,omitempty"`
	Current    *signedRecord        `json:"current,omitempty"`
	Divergence *evidence.Divergence `json:"divergence,omitempty"`
	Ledgers    int                  `json:"ledgers,omitempty"`
	Tags       []string             `json:"tags,omitempty"`
}

func recordEvent(e evidence.Event) eventRecord {
	return eventRecord{
		ID: e.ID, Type: e.Type, At: plain(e.At), UUID: e.UUID, Verdict: e.Verdict, Kind: e.Kind,
		Incident: e.Incident, Message: e.Message,
		Previous: recordSignedMaybe(e.Previous), Current: recordSignedMaybe(e.Current), Divergence: e.Divergence,
		Ledgers: e.Ledgers, Tags: e.Tags,
	}
}

func (r eventRecord) event(name evidence.Name, sequence uint64) evidence.Event {
	return evidence.Event{
		ID: r.ID, Type: r.Type, At: r.At, Name: name, UUID: r.UUID, Verdict: r.Verdict, Kind: r.Kind,
		Incident: r.Incident, Message: r.Message,
		Previous: r.Previous.signedMaybe(), Current: r.Current.signedMaybe(), Divergence: r.Divergence, Sequence: sequence,
		Ledgers: r.Ledgers, Tags: r.Tags,
	}
}

// plain is a time as it comes back from the disk.
func plain(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Round(0)
}

// instant and moment keep times that are searched by as nanoseconds, 0 for none.
func instant(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// encode is JSON in the shapes above; decode takes back exactly those.
func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, invalid("a record cannot be written down: %v", err)
	}
	if len(body) > maxRecord {
		return nil, invalid("a record of %d bytes; at most %d are kept", len(body), maxRecord)
	}
	return body, nil
}

func decode(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// sum covers a row: every field with its length, so that none can lend bytes
// to the next.
func sum(table string, fields ...any) [32]byte {
	h := sha256.New()
	buf := make([]byte, 0, 64)
	add := func(b []byte) {
		buf = binary.BigEndian.AppendUint64(buf[:0], uint64(len(b)))
		h.Write(buf)
		h.Write(b)
	}
	add([]byte(table))
	for _, field := range fields {
		switch f := field.(type) {
		case string:
			add([]byte(f))
		case []byte:
			add(f)
		case uint64:
			add(binary.BigEndian.AppendUint64(nil, f))
		case int64:
			add(binary.BigEndian.AppendUint64(nil, uint64(f)))
		default:
			add(fmt.Append(nil, f))
		}
	}
	var s [32]byte
	h.Sum(s[:0])
	return s
}

// Bounds on what is kept. They are far above what a healthy auditor writes and
// keep what comes from servers and files from filling the disk or the memory.
const (
	maxName       = 255     // bytes of a server's name (a database's is 128)
	maxDatabase   = 128     // bytes
	maxUUID       = 64      // bytes
	maxKey        = 1 << 10 // bytes of a public key or a signature
	maxText       = 16 << 10
	maxWalk       = 1 << 20
	maxRecord     = 4 << 20
	maxMarks      = 10_000  // per ledger; above it every second one is forgotten
	maxEvents     = 20_000  // the newest are kept
	maxLasting    = 5_000   // so are the newest of each type that lasts
	maxWaiting    = 10_000  // per sink; deliveries about tampering do not count and are never dropped
	maxChange     = 1 << 16 // parts of one change
	maxErrText    = 1 << 10 // bytes of a delivery's newest error
	maxTx         = 1<<63 - 1
	maxIncidentID = 64
)

// checkName refuses names no ledger can have. Invalid UTF-8 would not come
// back as it was.
func checkName(n evidence.Name, database bool) error {
	switch {
	case n.Server == "" || len(n.Server) > maxName || !utf8.ValidString(n.Server):
		return invalid("a server name of %d bytes: 1 to %d of valid UTF-8 are kept", len(n.Server), maxName)
	case database && n.Database == "":
		return invalid("a ledger of server %q without a database name", n.Server)
	case len(n.Database) > maxDatabase || !utf8.ValidString(n.Database):
		return invalid("a database name of %d bytes: 1 to %d of valid UTF-8 are kept", len(n.Database), maxDatabase)
	}
	return nil
}

func checkSigned(s proof.SignedState) error {
	if s.TxID > maxTx || len(s.DB) > maxText || len(s.PublicKey) > maxKey || len(s.Signature) > maxKey {
		return invalid("a state out of bounds (tx %d, key of %d bytes, signature of %d bytes)", s.TxID, len(s.PublicKey), len(s.Signature))
	}
	return nil
}

func checkText(what string, texts ...string) error {
	for _, t := range texts {
		if len(t) > maxText {
			return invalid("%s of %d bytes; at most %d are kept", what, len(t), maxText)
		}
	}
	return nil
}

package page

import (
	_ "embed"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/history"
)

//go:embed openapi.yaml
var openAPI string

// The shapes of the API: in the words of --json where that has them. A field
// never changes its meaning; what is absent is left out.

type serverJSON struct {
	Server  string           `json:"server"`
	Address string           `json:"address,omitempty"`
	UUID    string           `json:"server_uuid,omitempty"`
	Tags    []string         `json:"tags,omitempty"`
	Answers bool             `json:"answers"`
	Error   string           `json:"error,omitempty"`
	Verdict evidence.Verdict `json:"verdict"`
	Ledgers tally            `json:"ledgers"`
	Rounds  uint64           `json:"rounds"`
}

func serverJSONOf(one *site) serverJSON {
	out := serverJSON{
		Server: label(one.Server), Address: label(one.Address), UUID: label(one.UUID), Answers: !one.down,
		Error: prose(one.ServerError), Verdict: one.tally.verdict(), Ledgers: one.tally, Rounds: one.Rounds,
	}
	for _, tag := range one.Tags {
		out.Tags = append(out.Tags, label(tag))
	}
	return out
}

type ledgerJSON struct {
	Server     string               `json:"server"`
	ServerUUID string               `json:"server_uuid,omitempty"`
	Database   string               `json:"database"`
	Tags       []string             `json:"tags,omitempty"`
	Verdict    evidence.Verdict     `json:"verdict"`
	Kind       evidence.Kind        `json:"kind,omitempty"`
	Reason     evidence.Reason      `json:"reason,omitempty"`
	Detail     string               `json:"detail,omitempty"`
	Time       *time.Time           `json:"time,omitempty"` // of the newest round
	DurationMS float64              `json:"duration_ms"`
	Trusted    *evidence.Mark       `json:"trusted,omitempty"`
	Observed   *evidence.Mark       `json:"observed,omitempty"`
	Assurance  evidence.Assurance   `json:"assurance"`
	Divergence *evidence.Divergence `json:"divergence,omitempty"`
	Incident   string               `json:"incident,omitempty"`

	OpenIncidents     int        `json:"open_incidents"`
	LastAttempt       *time.Time `json:"last_attempt,omitempty"`
	LastConsistent    *time.Time `json:"last_consistent,omitempty"`
	UndeterminedSince *time.Time `json:"undetermined_since,omitempty"`
	Stale             bool       `json:"stale"`
	NotGrowing        bool       `json:"not_growing"`
	ClockSkew         bool       `json:"clock_skew"`
	Paused            bool       `json:"paused"`
	Retired           bool       `json:"retired"`
	GrowthPerHour     *float64   `json:"growth_per_hour,omitempty"`
	Passes            uint64     `json:"verification_passes"`
	LookedAt          uint64     `json:"verification_position"`
	Unreadable        uint64     `json:"unreadable_tx,omitempty"`
}

func (s *Site) ledgerJSON(e entry, private bool, now time.Time) ledgerJSON {
	l := e.LedgerStatus
	out := ledgerJSON{
		Server: label(e.Name.Server), ServerUUID: label(e.server.UUID), Database: label(e.Name.Database), Verdict: standing(l),
		Time: timeOrNil(l.Last.Time), DurationMS: l.Last.DurationMS, Trusted: l.Last.Trusted, Observed: l.Last.Observed,
		Assurance: evidence.Assurance{Proven: l.ProvenTx, Walked: l.WalkedTx, Verified: l.VerifiedTx}, Incident: l.Last.Incident,
		OpenIncidents: l.OpenIncidents, LastAttempt: timeOrNil(l.LastAttempt), LastConsistent: timeOrNil(l.LastSuccess),
		UndeterminedSince: timeOrNil(l.UndeterminedSince), Stale: l.Stale, NotGrowing: l.NotGrowing, ClockSkew: l.ClockSkew,
		Paused: l.Paused, Retired: l.Retired, Passes: l.Scrub.Pass, LookedAt: l.LookedAt, Unreadable: l.UnreadableTx,
		Divergence: divergenceFor(l.Last.Divergence, private),
	}
	for _, tag := range e.server.Tags {
		out.Tags = append(out.Tags, label(tag))
	}
	switch out.Verdict {
	case evidence.Tampered:
		out.Kind = l.Last.Kind
	case evidence.Undetermined:
		out.Reason = l.Last.Reason
	}
	if tells(l.Last.Kind, private) {
		out.Detail = prose(l.Last.Detail)
	}
	if rate, known := s.growth.perHour(e.Name, l.ProvenTx, now); known {
		out.GrowthPerHour = &rate
	}
	return out
}

func divergenceFor(d *evidence.Divergence, private bool) *evidence.Divergence {
	if d == nil || private {
		return d
	}
	return &evidence.Divergence{LastGoodTx: d.LastGoodTx, FirstBadTx: d.FirstBadTx}
}

type incidentJSON struct {
	ID            string               `json:"incident"`
	Server        string               `json:"server"`
	ServerUUID    string               `json:"server_uuid,omitempty"`
	Database      string               `json:"database"`
	Kind          evidence.Kind        `json:"kind"`
	Status        evidence.Status      `json:"status"`
	OpenedAt      time.Time            `json:"opened_at"`
	LastSeen      time.Time            `json:"last_seen"`
	Seen          uint64               `json:"seen"`
	Findings      []evidence.Finding   `json:"findings"`
	Trusted       *evidence.Mark       `json:"trusted,omitempty"`
	Observed      *evidence.Mark       `json:"observed,omitempty"`
	Divergence    *evidence.Divergence `json:"divergence,omitempty"`
	AckedAt       *time.Time           `json:"acked_at,omitempty"`
	AckedBy       string               `json:"acked_by,omitempty"`
	AckNote       string               `json:"ack_note,omitempty"`
	ClosedAt      *time.Time           `json:"closed_at,omitempty"`
	ClosedBy      string               `json:"closed_by,omitempty"`
	CloseNote     string               `json:"close_note,omitempty"`
	Evidence      string               `json:"evidence,omitempty"`
	EvidenceError string               `json:"evidence_error,omitempty"`
}

func incidentJSONOf(inc *evidence.Incident, private bool) incidentJSON {
	out := incidentJSON{
		ID: inc.ID, Server: label(inc.Name.Server), ServerUUID: label(inc.UUID), Database: label(inc.Name.Database), Kind: inc.Kind, Status: inc.Status,
		OpenedAt: inc.OpenedAt.UTC(), LastSeen: inc.LastSeen.UTC(), Seen: inc.Seen, Findings: make([]evidence.Finding, 0, len(inc.Findings)),
		Trusted: evidence.MarkOf(inc.Trusted.State), Observed: evidence.MarkOf(inc.Observed.State), Divergence: divergenceFor(inc.Divergence, private),
		AckedAt: timeOrNil(inc.AckedAt), AckedBy: label(inc.AckedBy), AckNote: prose(inc.AckedNote),
		ClosedAt: timeOrNil(inc.ClosedAt), ClosedBy: label(inc.ClosedBy), CloseNote: prose(inc.CloseNote),
		Evidence: prose(inc.Evidence), EvidenceError: prose(inc.EvidenceError),
	}
	for _, f := range inc.Findings {
		f.Check, f.Want, f.Got, f.Detail = label(f.Check), shown(f.Want, maxLabel), shown(f.Got, maxLabel), prose(f.Detail)
		if !tells(f.Kind, private) {
			f.Detail = ""
		}
		if !private {
			f.Key = ""
		}
		out.Findings = append(out.Findings, f)
	}
	return out
}

type eventJSON struct {
	ID       string             `json:"id"`
	Time     time.Time          `json:"time"`
	Type     evidence.EventType `json:"type"`
	Server   string             `json:"server,omitempty"`
	Database string             `json:"database,omitempty"`
	Kind     evidence.Kind      `json:"kind,omitempty"`
	Incident string             `json:"incident,omitempty"`
	Message  string             `json:"message,omitempty"`
}

func eventJSONOf(ev *evidence.Event, private bool) eventJSON {
	out := eventJSON{ev.ID, ev.At.UTC(), ev.Type, label(ev.Name.Server), label(ev.Name.Database), ev.Kind, label(ev.Incident), ""}
	if tells(ev.Kind, private) {
		out.Message = prose(ev.Message)
	}
	return out
}

type stretchJSON struct {
	Torn      bool             `json:"torn"` // a gap lies before
	From      time.Time        `json:"from"`
	To        time.Time        `json:"to"`
	Rounds    uint64           `json:"rounds"`
	Verdict   evidence.Verdict `json:"verdict"`
	Kind      evidence.Kind    `json:"kind,omitempty"`
	Reason    evidence.Reason  `json:"reason,omitempty"`
	FirstTx   uint64           `json:"first_tx"`
	LastTx    uint64           `json:"last_tx"`
	Verified  uint64           `json:"verified"`
	TotalMS   float64          `json:"total_ms"`
	SlowestMS float64          `json:"slowest_ms"`
}

func stretchJSONOf(one *history.Stretch) stretchJSON {
	ms := float64(time.Millisecond)
	return stretchJSON{
		one.Torn, one.From.UTC(), one.To.UTC(), one.Rounds, one.Verdict, one.Kind, one.Reason, one.FirstTx, one.LastTx, one.Verified,
		float64(one.Took) / ms, float64(one.Slowest) / ms,
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

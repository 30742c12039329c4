package page

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

func reading(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), queryTimeout)
}

// unreadable says that something on disk could not be read, and logs why: the
// reason names paths that are nobody's business here.
func (s *Site) unreadable(w http.ResponseWriter, r *http.Request, what string, err error) {
	s.opts.Logger.Error("reading "+what+" for the page", "error", err)
	s.oops(w, r, http.StatusInternalServerError, "Reading "+what+" failed. The auditor's log says why; `immuclient trust check` looks at the state directory.")
}

// span is how far back plots and gaps go.
type span struct {
	Name, Words string
	Length      time.Duration
}

var spans = []span{{"24h", "24 hours", 24 * time.Hour}, {"7d", "7 days", 7 * 24 * time.Hour}, {"90d", "90 days", 90 * 24 * time.Hour}}

type ledgerView struct {
	Row                                   row
	Detail                                string
	Proven, Walked, Verified, Mirrored    uint64
	Known                                 bool // a trust is recorded
	TrustProblem                          bool
	Origin, OriginNote, Fingerprint, UUID string
	BaselineTx                            uint64
	BaselineAt, ProvenAt, LastSuccess     time.Time
	TrustedAlh, Address                   string
	Passes                                uint64
	PassFinished                          time.Time
	LookedAt, Retained, Unreadable        uint64
	NotGrowing, ClockSkew, Stale          bool
	UndeterminedSince                     time.Time
	Incidents                             []incidentRow
	Checkpoints                           []checkpointRow
	Events                                []eventRow
	Span                                  span
	Spans                                 []span
	HasHistory                            bool
	Plots                                 plots
	Problems                              []string
}

type checkpointRow struct {
	At     time.Time
	Tx     uint64
	Alh    string
	Signed bool
}

type eventRow struct {
	At            time.Time
	Type, Message string
	Incident      string
}

var origins = map[evidence.Origin]string{
	evidence.OriginFirstContact: "what the server showed when the auditor first met it; what was before that, nobody vouches for",
	evidence.OriginPinned:       "set by hand by an operator",
	evidence.OriginImported:     "taken over from another auditor's state",
	evidence.OriginAccepted:     "accepted by an operator after an incident",
}

func ledgerOf(r *http.Request) evidence.Name {
	if server := r.PathValue("server"); server != "" {
		return evidence.Name{Server: server, Database: r.PathValue("database")}
	}
	q := r.URL.Query()
	return evidence.Name{Server: q.Get("server"), Database: q.Get("database")}
}

func (s *Site) ledgerPage(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r, "server", "database", "span")
	if err != nil {
		s.oops(w, r, http.StatusBadRequest, "The address asks for something that cannot be: "+err.Error()+".")
		return
	}
	at := 0
	if values.Get("span") != "" {
		if at = slices.IndexFunc(spans, func(one span) bool { return one.Name == values.Get("span") }); at < 0 {
			s.oops(w, r, http.StatusBadRequest, "The address asks for a time that is not offered: there are 24h, 7d and 90d.")
			return
		}
	}
	name := ledgerOf(r)
	e, known := newFleet(s.opts.Statuses()).find(name)
	if !known {
		s.oops(w, r, http.StatusNotFound, "The auditor knows no ledger of this name. It may have been renamed; the first page lists all there are.")
		return
	}
	ctx, cancel := reading(r)
	defer cancel()
	now := time.Now()
	l := e.LedgerStatus
	view := ledgerView{
		Row: s.rowOf(e, now), Proven: l.ProvenTx, Walked: l.WalkedTx, Verified: l.VerifiedTx, Mirrored: l.MirroredTx, UUID: label(e.server.UUID),
		Address: label(e.server.Address), LastSuccess: l.LastSuccess, Passes: l.Scrub.Pass, PassFinished: l.Scrub.Finished, LookedAt: l.LookedAt,
		Retained: l.Scrub.Retained, Unreadable: l.UnreadableTx, NotGrowing: l.NotGrowing, ClockSkew: l.ClockSkew, Stale: l.Stale,
		UndeterminedSince: l.UndeterminedSince, Span: spans[at], Spans: spans, HasHistory: s.opts.History != nil,
	}
	private := s.opts.Private(r)
	if tells(l.Last.Kind, private) {
		view.Detail = prose(l.Last.Detail)
	}
	s.trustOf(ctx, &view, e, now)
	s.incidentsOf(ctx, &view, name, now)
	s.eventsOf(ctx, &view, name, now, private)
	s.checkpointsOf(ctx, &view, name)
	if s.opts.History != nil {
		list, err := s.opts.History.Of(ctx, name, now.Add(-view.Span.Length), now, maxStretches)
		if err != nil {
			s.opts.Logger.Error("reading the history for the page", "error", err)
			view.Problems = append(view.Problems, "The history could not be read; the auditor's log says why.")
		}
		view.Plots = draw(list, now.Add(-view.Span.Length), now)
	}
	title := label(name.Database) + ": " + view.Row.Word
	s.render(w, r, http.StatusOK, "ledger.html", title, view.Row.Verdict, view)
}

// tells: a text about damaged contents may name a key.
func tells(kind evidence.Kind, private bool) bool { return private || !kind.AboutData() }

func (s *Site) trustOf(ctx context.Context, view *ledgerView, e entry, now time.Time) {
	if e.ProvenTx == 0 && e.server.Rounds == 0 {
		return
	}
	trust, err := s.opts.Book.Trust(ctx, e.Name)
	if err != nil {
		if e.ProvenTx > 0 {
			s.opts.Logger.Error("reading the trust for the page", "error", err)
			view.Problems = append(view.Problems, "What is trusted could not be read from disk; the auditor's log says why.")
		}
		return
	}
	view.Known, view.Origin, view.OriginNote = true, origins[trust.Baseline.Origin], prose(trust.Baseline.Note)
	view.BaselineTx, view.BaselineAt, view.ProvenAt = trust.Baseline.State.TxID, trust.Baseline.At, trust.ProvenAt
	view.Fingerprint, view.TrustedAlh = fingerprint(trust.Key), trust.Proven.Alh.String()
	if trust.UUID != "" {
		view.UUID = label(trust.UUID)
	}
}

// fingerprint names a key by the SHA-256 of its PKIX form; "" where there is none.
func fingerprint(point []byte) string {
	if len(point) == 0 {
		return ""
	}
	key, err := proof.ParsePoint(point)
	if err != nil {
		return "a key that cannot be read"
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "a key that cannot be read"
	}
	sum := sha256.Sum256(der)
	return "SHA256:" + hex.EncodeToString(sum[:])
}

func (s *Site) incidentsOf(ctx context.Context, view *ledgerView, name evidence.Name, now time.Time) {
	list, err := s.opts.Book.Incidents(ctx, true)
	if err != nil {
		s.opts.Logger.Error("reading the incidents for the page", "error", err)
		view.Problems = append(view.Problems, "The incidents could not be read from disk; the auditor's log says why.")
		return
	}
	for i := len(list) - 1; i >= 0 && len(view.Incidents) < maxIncidents; i-- {
		if list[i].Name == name {
			view.Incidents = append(view.Incidents, incidentRowOf(&list[i], now))
		}
	}
}

func (s *Site) eventsOf(ctx context.Context, view *ledgerView, name evidence.Name, now time.Time, private bool) {
	list, err := s.opts.Book.Events(ctx, now.Add(-90*24*time.Hour), maxScanned)
	if err != nil {
		s.opts.Logger.Error("reading the events for the page", "error", err)
		view.Problems = append(view.Problems, "The events could not be read from disk; the auditor's log says why.")
		return
	}
	for i := len(list) - 1; i >= 0 && len(view.Events) < maxEvents; i-- {
		if ev := &list[i]; ev.Name == name || ev.Name.Database == "" && ev.Name.Server == name.Server {
			view.Events = append(view.Events, eventRowOf(ev, private))
		}
	}
}

func eventRowOf(ev *evidence.Event, private bool) eventRow {
	out := eventRow{At: ev.At, Type: label(string(ev.Type)), Incident: label(ev.Incident)}
	switch {
	case tells(ev.Kind, private):
		out.Message = prose(ev.Message)
	default:
		out.Message = kindWords(ev.Kind)
	}
	return out
}

func (s *Site) checkpointsOf(ctx context.Context, view *ledgerView, name evidence.Name) {
	if s.opts.Checkpoints == nil {
		return
	}
	list, err := s.opts.Checkpoints(ctx, name)
	if err != nil {
		s.opts.Logger.Error("reading the kept states for the page", "error", err)
		view.Problems = append(view.Problems, "The states kept over time could not be read; the auditor's log says why.")
		return
	}
	for i := len(list) - 1; i >= 0 && len(view.Checkpoints) < maxEvents; i-- {
		c := &list[i]
		view.Checkpoints = append(view.Checkpoints, checkpointRow{c.At, c.State.TxID, c.State.Alh.String(), c.Signed})
	}
}

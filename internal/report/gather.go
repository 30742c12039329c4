package report

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/history"
	"immuaudit/proof"
)

// Gather puts together what is known of a span.
func Gather(ctx context.Context, state State, past Past, o Options) (*Document, error) {
	d := &Document{
		Format: dataFormat, FormatVersion: dataVersion, From: o.Span.From.UTC(), To: o.Span.To.UTC(), Made: o.Made.UTC().Truncate(time.Second),
		Filter: o.Filter, Auditor: Auditor{Version: o.Version, Key: o.Key, Fingerprint: Fingerprint(o.Key)},
		Runs: []Run{}, Gaps: []Gap{}, Incidents: []Incident{}, Events: []Event{}, Ledgers: []Ledger{},
	}
	if o.Wanted == nil {
		o.Wanted = func(evidence.Name) bool { return true }
	}
	d.History.Problem = o.Problem
	if past == nil {
		past = (*history.History)(nil)
		if d.History.Problem == "" {
			d.History.Problem = "there is none"
		}
	}
	idle, err := d.gatherRuns(ctx, past, o.Made)
	if err != nil {
		return nil, err
	}
	if err := d.gatherIncidents(ctx, state, o); err != nil {
		return nil, err
	}
	if err := d.gatherEvents(ctx, state, o); err != nil {
		return nil, err
	}
	trusts, err := state.Ledgers(ctx)
	if err != nil {
		return nil, err
	}
	all := newGapTable()
	for i := range trusts {
		t := &trusts[i]
		if !o.Wanted(t.Name) {
			continue
		}
		l, err := d.ledger(ctx, past, t, idle)
		if err != nil {
			return nil, err
		}
		all.add(t.Name, l.Gaps)
		d.bound(&l)
		d.Ledgers = append(d.Ledgers, l)
	}
	d.gapsOf(all)
	d.sumUp()
	for _, doubt := range o.Doubts {
		d.Conclusion.NotSaid = append(d.Conclusion.NotSaid, "It is doubtful whether this is all that the auditor remembered: "+plain(doubt))
	}
	d.conclude()
	return d, nil
}

func (d *Document) gatherRuns(ctx context.Context, past Past, now time.Time) (idle []Gap, err error) {
	began, err := past.Began(ctx)
	if err != nil {
		return nil, err
	}
	if began.IsZero() {
		return nil, nil
	}
	d.History.Began = &began
	runs, err := past.Runs(ctx, d.From, d.To)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		d.Runs = append(d.Runs, Run{Started: r.Started, Alive: r.Alive, Ended: r.Ended, Version: r.Version})
	}
	if over := len(d.Runs) - maxEvents; over > 0 {
		d.Omitted = append(d.Omitted, fmt.Sprintf("%d older runs of the auditor are not listed", over))
		d.Runs = d.Runs[over:]
	}
	return idleTimes(runs, later(d.From, began), d.To, now), nil
}

func (d *Document) gatherIncidents(ctx context.Context, state State, o Options) error {
	incidents, err := state.Incidents(ctx, true)
	if err != nil {
		return err
	}
	for i := range incidents {
		inc := &incidents[i]
		// What was open at any time of the span, or was seen in it.
		closedBefore := inc.Status != evidence.Open && !inc.ClosedAt.IsZero() && inc.ClosedAt.Before(d.From)
		if !o.Wanted(inc.Name) || !inc.OpenedAt.Before(d.To) || closedBefore {
			continue
		}
		v := Incident{
			ID: inc.ID, Server: inc.Name.Server, Database: inc.Name.Database, Kind: inc.Kind, Status: inc.Status, OpenedAt: inc.OpenedAt.UTC(),
			LastSeen: timeOrNil(inc.LastSeen), Seen: inc.Seen, Findings: inc.Findings, Divergence: inc.Divergence,
			Trusted: evidence.MarkOf(inc.Trusted.State), Observed: evidence.MarkOf(inc.Observed.State), EvidenceError: inc.EvidenceError,
			AckedAt: timeOrNil(inc.AckedAt), AckedBy: inc.AckedBy, AckNote: inc.AckedNote,
			ClosedAt: timeOrNil(inc.ClosedAt), ClosedBy: inc.ClosedBy, CloseNote: inc.CloseNote, SoundAt: timeOrNil(inc.SoundAt),
		}
		if v.Findings == nil {
			v.Findings = []evidence.Finding{}
		}
		if inc.Evidence != "" {
			v.Evidence = filepath.Base(inc.Evidence)
			if o.Sum != nil {
				if v.EvidenceSum, err = o.Sum(inc.Evidence); err != nil {
					v.EvidenceError = err.Error()
				}
			}
		}
		d.Incidents = append(d.Incidents, v)
	}
	if over := len(d.Incidents) - maxIncidents; over > 0 {
		d.Omitted = append(d.Omitted, fmt.Sprintf("%d older incidents are not told; immuclient incident list --all shows them", over))
		d.Totals.IncidentsOpened = over // told or not, they count
		d.Incidents = d.Incidents[over:]
	}
	return nil
}

// told are the events that say something an incident or a gap does not.
var told = []evidence.EventType{
	evidence.EventFirstContact, evidence.EventIdentityChanged, evidence.EventSigningBegan, evidence.EventStateCreated, evidence.EventNotGrowing,
	evidence.EventClockSkew, evidence.EventStateProblem, evidence.EventAcknowledged, evidence.EventDecision, evidence.EventDamage,
}

func (d *Document) gatherEvents(ctx context.Context, state State, o Options) error {
	events, err := state.Events(ctx, d.From, maxRead)
	if err != nil {
		return err
	}
	if len(events) == maxRead {
		d.Omitted = append(d.Omitted, fmt.Sprintf("of the events only the newest %d are kept, since %s", maxRead, stamp(events[0].At)))
	}
	for i := range events {
		e := &events[i]
		// An event about a server or the auditor concerns whatever was chosen.
		if e.At.Before(d.To) && slices.Contains(told, e.Type) && (e.Name.Database == "" || o.Wanted(e.Name)) {
			d.Events = append(d.Events, Event{At: e.At.UTC(), Type: e.Type, Server: e.Name.Server, Database: e.Name.Database, Message: e.Message})
		}
	}
	if over := len(d.Events) - maxEvents; over > 0 {
		d.Omitted = append(d.Omitted, fmt.Sprintf("%d older events are not told", over))
		d.Events = d.Events[over:]
	}
	return nil
}

func (d *Document) ledger(ctx context.Context, past Past, t *evidence.Trust, idle []Gap) (Ledger, error) {
	l := Ledger{
		Server: t.Name.Server, Database: t.Name.Database, ServerUUID: t.UUID, Retired: t.Retired,
		Baseline: Baseline{Origin: t.Baseline.Origin, At: t.Baseline.At.UTC(), Tx: t.Baseline.State.TxID, Note: t.Baseline.Note},
		Now:      checkpoint(t.Proven.State, t.ProvenAt),
		Deep: Deep{
			Proven: t.Proven.State.TxID, Walked: t.Walked, Verified: t.Verified, Passes: t.Scrub.Pass, LastPass: timeOrNil(t.Scrub.Finished),
			Position: t.Scrub.Position, Settled: t.Scrub.Settled, Damaged: t.Scrub.Damaged, Accepted: len(t.Accepted),
			Retained: t.Scrub.Retained, EntriesRun: t.Scrub.Verified,
		},
	}
	if m := evidence.MarkOf(t.Baseline.State); m != nil {
		l.Baseline.Alh = m.Alh
	}
	for i := range d.Incidents {
		if d.Incidents[i].Server == l.Server && d.Incidents[i].Database == l.Database {
			l.Incidents++
		}
	}
	list, err := past.Of(ctx, t.Name, d.From, d.To, maxStretches)
	if err != nil {
		return l, err
	}
	for _, edge := range []struct {
		at time.Time
		to **Checkpoint
	}{{d.From, &l.AtFrom}, {d.To, &l.AtTo}} {
		s, found, err := past.Last(ctx, t.Name, edge.at)
		if err != nil {
			return l, err
		}
		if found {
			*edge.to = &Checkpoint{Tx: s.LastTx, At: s.To}
			if m := evidence.MarkOf(proof.State{TxID: s.LastTx, Alh: s.LastAlh}); m != nil && s.LastAlh != (proof.Hash{}) {
				(*edge.to).Alh = m.Alh
			}
		}
	}
	l.stretches = list
	l.since = d.From
	// Where trust began within the span there was nothing to audit before;
	// accepted later, it was audited from the other baseline until then.
	if t.Baseline.Origin == evidence.OriginFirstContact && t.Baseline.At.After(l.since) {
		l.since = t.Baseline.At
		if len(list) > 0 && list[0].From.Before(l.since) {
			l.since = later(d.From, list[0].From)
		}
	}
	l.measure(d.To, idle)
	return l, nil
}

// bound leaves the longest gaps of a ledger.
func (d *Document) bound(l *Ledger) {
	if len(l.Gaps) <= maxGapsLedger {
		return
	}
	slices.SortStableFunc(l.Gaps, func(a, b Gap) int { return cmp.Compare(b.Seconds, a.Seconds) })
	l.Gaps = l.Gaps[:maxGapsLedger]
	slices.SortStableFunc(l.Gaps, func(a, b Gap) int { return a.From.Compare(b.From) })
}

func (d *Document) sumUp() {
	t := &d.Totals
	servers := map[string]bool{}
	for i := range d.Ledgers {
		l := &d.Ledgers[i]
		servers[l.Server] = true
		t.Rounds += l.Rounds
		t.Consistent += l.Consistent
		if l.Rounds == 0 && !l.Retired {
			t.NeverChecked++
		}
		if l.Deep.Proven > 0 && l.Deep.Verified == l.Deep.Proven || l.Deep.Passes > 0 {
			t.DeepComplete++
		}
	}
	t.Servers, t.Ledgers = len(servers), len(d.Ledgers)
	for i := range d.Incidents {
		if !d.Incidents[i].OpenedAt.Before(d.From) {
			t.IncidentsOpened++
		}
		if d.Incidents[i].Status == evidence.Open {
			t.IncidentsOpen++
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

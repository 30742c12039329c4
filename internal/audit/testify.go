package audit

import (
	"context"
	"time"

	"immuaudit/evidence"
)

// testify puts the evidence of a new incident on disk, before any alarm
// leaves. If that takes too long, or cannot be done, the alarm leaves all the
// same and the incident says why it has none.
func (e *Engine) testify(v *view, inc *evidence.Incident, out *outcome) {
	if e.o.Record == nil {
		return
	}
	material := out.material
	material.Version, material.Incident, material.Kind, material.At = e.o.Version, inc.ID, inc.Kind, inc.OpenedAt
	material.Name, material.UUID, material.Findings = inc.Name, inc.UUID, inc.Findings
	material.Trusted, material.Observed, material.ServerKey = inc.Trusted, inc.Observed, e.o.KeyPoint
	if material.ServerKey == nil {
		material.ServerKey = v.trust.Key
	}
	material.Divergence = inc.Divergence
	for i := range out.damages {
		material.Damaged = append(material.Damaged, damagedOf(&out.damages[i]))
	}
	if e.o.Channel != nil {
		material.Channel = e.o.Channel()
	}
	type recorded struct {
		path string
		err  error
	}
	done := make(chan recorded, 1)
	e.work.Go(func() {
		path, err := e.o.Record(material)
		done <- recorded{path, err}
	})
	waited := time.NewTimer(alarmWithin)
	defer waited.Stop()
	select {
	case r := <-done:
		inc.Evidence = r.path
		if r.err != nil {
			inc.EvidenceError = r.err.Error()
		}
	case <-waited.C:
		inc.EvidenceError = errSlowDisk.Error()
	}
	if inc.EvidenceError != "" {
		e.log.Error("the evidence could not be put on disk", "incident", inc.ID, "error", inc.EvidenceError)
	}
}

// gather collects what the incident rests on, and asks the server once more for
// what it shows of it: with luck it signs the contradiction itself. Nothing of
// that is needed for the verdict, so what cannot be had is left out.
func (e *Engine) gather(ctx context.Context, v *view, inc *evidence.Incident) evidence.Material {
	var m evidence.Material
	if inc.Kind == evidence.Vanished || inc.Kind == evidence.WrongDatabase {
		return m
	}
	db, from, to := inc.Name.Database, inc.Trusted.TxID, inc.Observed.TxID
	if from == 0 || to < from {
		from = to
	}
	if to == 0 {
		return m
	}
	pairs := [][2]uint64{{from, to}}
	// A state that the server signed before, and that is not behind what it
	// shows now: it signed two histories if that transaction is another one.
	var since uint64
	if d := inc.Divergence; d != nil && d.FirstBadTx > 0 {
		since = d.FirstBadTx
	}
	for _, kept := range v.past.states(v, since, min(inc.Trusted.TxID, to), keptStates) {
		m.States = append(m.States, kept.State)
	}
	if len(m.States) > 0 && m.States[0].TxID != from {
		pairs = append(pairs, [2]uint64{m.States[0].TxID, to})
	}
	if from != to {
		pairs = append(pairs, [2]uint64{to, to})
	}
	for _, pair := range pairs {
		if p, err := e.o.Server.DualProof(ctx, db, pair[0], pair[1]); err == nil {
			m.Proofs = append(m.Proofs, p)
		}
	}
	// Headers from the last transaction that agrees on show the change itself.
	if d := inc.Divergence; d != nil && d.Exact() {
		from = max(1, min(from, d.LastGoodTx))
	}
	for next := from; next <= to && len(m.Headers) < gatherHeaders; {
		page, err := e.o.Server.Headers(ctx, db, next, int(min(to-next+1, uint64(gatherHeaders-len(m.Headers)))))
		if err != nil || len(page) == 0 {
			break
		}
		m.Headers = append(m.Headers, page...)
		next += uint64(len(page))
	}
	return m
}

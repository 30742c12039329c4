package audit

import (
	"context"
	"time"

	"immuaudit/evidence"
)

// testify puts the evidence of a new incident on disk, before any alarm
// leaves. If that takes too long, or cannot be done, the alarm leaves all the
// same and the incident says why it has none.
func (e *Engine) testify(ctx context.Context, v *view, inc *evidence.Incident) {
	if e.o.Record == nil {
		return
	}
	material := e.gather(context.WithoutCancel(ctx), v, inc)
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
	m := evidence.Material{
		Version: e.o.Version, Incident: inc.ID, Kind: inc.Kind, At: inc.OpenedAt, Name: inc.Name, UUID: inc.UUID,
		Channel: e.o.Channel, Findings: inc.Findings, ServerKey: e.o.KeyPoint, Trusted: inc.Trusted, Observed: inc.Observed,
	}
	if m.ServerKey == nil {
		m.ServerKey = v.trust.Key
	}
	if inc.Kind == evidence.Vanished || inc.Kind == evidence.WrongDatabase {
		return m
	}
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	db, from, to := inc.Name.Database, inc.Trusted.TxID, inc.Observed.TxID
	if from == 0 || to < from {
		from = to
	}
	if to == 0 {
		return m
	}
	for next := from; next <= to && len(m.Headers) < gatherHeaders; {
		page, err := e.o.Server.Headers(ctx, db, next, int(min(to-next+1, uint64(gatherHeaders-len(m.Headers)))))
		if err != nil || len(page) == 0 {
			break
		}
		m.Headers = append(m.Headers, page...)
		next += uint64(len(page))
	}
	for _, pair := range [][2]uint64{{from, to}, {to, to}} {
		if p, err := e.o.Server.DualProof(ctx, db, pair[0], pair[1]); err == nil {
			m.Proofs = append(m.Proofs, p)
		}
		if from == to {
			break
		}
	}
	return m
}

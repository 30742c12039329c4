package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// prove moves from the trusted to the observed state by the server's dual
// proof, asking for the parts that the proof needs and did not bring
// (docs/protocol.md §4.2 steps 7 and 8). It proves less than a walk, so the
// background walk closes the jump afterwards.
func (e *Engine) prove(ctx context.Context, v *view, out *outcome) error {
	db, source, target := v.trust.Name.Database, v.trust.Proven.State, out.observed.State
	if source.TxID == 0 {
		// Any history extends the empty one, if its first transaction begins
		// it; from there a dual proof is to be had.
		first, err := e.header(ctx, db, 1)
		if err != nil {
			return err
		}
		if first.PrevAlh != proof.EmptyAlh() {
			return &proof.Mismatch{Check: proof.CheckPrevAlh, Tx: 1, Want: proof.EmptyAlh(), Got: first.PrevAlh, Detail: "the first transaction does not begin the history"}
		}
		source = proof.State{TxID: 1, Alh: first.Alh()}
	}
	p, err := e.dual(ctx, db, source, target)
	out.proved(v, source.TxID, target.TxID, err)
	if err != nil {
		return err
	}
	if p.Target.BlTxID+1 != p.Target.ID {
		out.lags++
	}
	if out.newest.IsZero() && v.newest.IsZero() {
		out.newest = time.Unix(p.Source.Ts, 0)
	}
	e.timed(v, out, &p.Target)
	out.proven = &out.observed
	return nil
}

// dual gets and verifies the server's proof that one state extends another,
// with whatever it asks for.
func (e *Engine) dual(ctx context.Context, db string, source, target proof.State) (*proof.DualProof, error) {
	p, err := e.o.Server.DualProof(ctx, db, source.TxID, target.TxID)
	if err != nil {
		return nil, err
	}
	var extra proof.Extra
	// Each part is fetched at most once, so three tries are enough.
	for range 3 {
		err = proof.VerifyDual(p, source, target, &extra)
		var unproven *proof.Unproven
		if !errors.As(err, &unproven) {
			break
		}
		switch {
		case unproven.Need == proof.NeedAdvance && extra.Advance == nil:
			extra.Advance, err = e.rebuild(ctx, db, unproven.From, unproven.To, target.TxID)
		case unproven.Need == proof.NeedBinding && extra.Binding == nil:
			extra.Binding, err = e.o.Server.DualProof(ctx, db, unproven.From, target.TxID)
		default:
			return nil, err
		}
		if err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("verifying the proof from transaction %d to %d: %w", source.TxID, target.TxID, err)
	}
	return p, nil
}

// rebuild collects the linear advance proof that servers before 1.4.1 do not
// send, from answers that they do give (CVE-2022-36111).
func (e *Engine) rebuild(ctx context.Context, db string, from, to, target uint64) (*proof.AdvanceProof, error) {
	if to <= from || to-from > proof.MaxAdvance {
		return nil, doubtf(evidence.Unproven, "the transaction tree lags by %d transactions; at most %d are rebuilt", to-from, proof.MaxAdvance)
	}
	headers := make([]proof.Header, 0, to-from)
	for next := from + 1; next <= to; {
		page, err := e.o.Server.Headers(ctx, db, next, int(to-next+1))
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			return nil, doubtf(evidence.Unproven, "the server lists no transaction %d", next)
		}
		headers = append(headers, page...)
		next += uint64(len(page))
	}
	inclusions := make([][]proof.Hash, 0, to-from)
	for tx := from + 1; tx < to; tx++ {
		q, err := e.o.Server.DualProof(ctx, db, tx, target)
		if err != nil {
			return nil, err
		}
		inclusions = append(inclusions, q.Inclusion)
	}
	return proof.RebuildAdvance(from, to, headers, inclusions)
}

// header fetches one header.
func (e *Engine) header(ctx context.Context, db string, tx uint64) (*proof.Header, error) {
	headers, err := e.o.Server.Headers(ctx, db, tx, 1)
	if err != nil {
		return nil, err
	}
	if len(headers) != 1 || headers[0].ID != tx {
		return nil, doubtf(evidence.Unproven, "the server lists no transaction %d", tx)
	}
	return &headers[0], nil
}

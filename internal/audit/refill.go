package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// refill fetches again what the mirror lacks of what was walked: after a crash,
// and where it was begun late, lost or damaged. The chain of headers must lead
// to the walked state, so that the server cannot say anything else than it did
// when they were walked; if it does, that is found here.
func (e *Engine) refill(ctx context.Context, l *ledger) (r evidence.Report) {
	for ctx.Err() == nil {
		v := l.view()
		size := l.past.size()
		if size >= v.walk.At().TxID {
			return r
		}
		if v.unmirrored() || v.frozen() || v.trust.Retired {
			break
		}
		began := time.Now()
		out, before, alhs := e.refetch(ctx, &v, size)
		if len(out.findings) > 0 {
			out = e.steadily(ctx, &v, func() outcome {
				var again outcome
				again, before, alhs = e.refetch(ctx, &v, size)
				return again
			})
		}
		if len(out.findings) > 0 {
			return e.conclude(ctx, l, &v, out, began)
		}
		if out.doubt != nil {
			if ctx.Err() == nil && e.mayLog() {
				e.log.Warn("filling the mirror rests", "database", l.name.Database, "mirrored", size, "reason", string(out.doubt.reason), "detail", out.doubt.detail)
			}
			break
		}
		if !e.patch(ctx, l, &v, size, before, alhs) {
			break
		}
	}
	l.past.rest()
	return r
}

func (k *mirrored) size() uint64 {
	k.files.Lock()
	defer k.files.Unlock()
	m, err := k.opened()
	if err != nil {
		return 0
	}
	return m.Size()
}

func (k *mirrored) rest() {
	k.mu.Lock()
	k.rests = time.Now().Add(mirrorRetry)
	k.mu.Unlock()
}

// patch appends what was fetched, if the mirror ends where that begins.
func (e *Engine) patch(ctx context.Context, l *ledger, v *view, size uint64, before proof.Hash, alhs []proof.Hash) bool {
	k := l.past
	k.files.Lock()
	defer k.files.Unlock()
	life := k.lives()
	if now := l.view(); now.epoch != v.epoch {
		return false
	}
	m, err := k.opened()
	if err == nil && size > 0 {
		var tip proof.Hash
		if tip, err = m.LeafHash(size); err == nil && tip != proof.LeafHash(before) {
			e.unfit(ctx, v, fmt.Sprintf("transaction %d in it is not the one that the walked history continues", size))
			if err = m.Truncate(0); err == nil {
				k.settle(life, 0, true)
				return true
			}
		}
	}
	if err == nil {
		err = m.Append(size+1, alhs)
	}
	var salvage Salvage
	if errors.As(err, &salvage) {
		e.salvage(ctx, k, v, salvage)
		return true
	}
	if err != nil {
		e.log.Error("filling the mirror", "database", l.name.Database, "error", err)
		return false
	}
	k.mu.Lock()
	k.checked = false // the whole of it is compared with the walk again
	k.mu.Unlock()
	walk := l.view().walk
	misfit, err := k.bind(m, walk, life)
	if err == nil && misfit {
		e.unfit(ctx, v, "what it held before is not what was walked")
		if err = m.Truncate(0); err == nil {
			k.settle(life, 0, true)
		}
	}
	if err == nil {
		err = k.write(m)
	}
	return err == nil
}

// refetch fetches the headers after the first size transactions, up to where
// they can be bound to what was walked. before is the Alh that the first of
// them names before it.
func (e *Engine) refetch(ctx context.Context, v *view, size uint64) (out outcome, before proof.Hash, alhs []proof.Hash) {
	out = outcome{behind: true, observed: v.trust.Proven, have: true}
	goal := v.walk.At()
	fail := func(err error) (outcome, proof.Hash, []proof.Hash) {
		if f, ok := findingOf(err); ok {
			e.mismatch(ctx, v, &out, f)
		} else {
			out.doubt = doubtOf(err)
		}
		return out, before, alhs
	}
	db, at := v.trust.Name.Database, proof.State{TxID: size}
	for at.TxID < goal.TxID {
		end := min(goal.TxID, at.TxID+walkSave)
		for at.TxID < end {
			page := int(min(pageHeaders, end-at.TxID))
			if err := e.walkRate.WaitN(ctx, page); err != nil {
				return fail(err)
			}
			headers, err := e.o.Server.Headers(ctx, db, at.TxID+1, page)
			if err != nil {
				return fail(err)
			}
			if len(headers) == 0 {
				return fail(doubtf(evidence.Unproven, "the server lists no transaction %d", at.TxID+1))
			}
			for i := range headers {
				h := &headers[i]
				if h.ID > end {
					break
				}
				if err := follows(h, at, len(alhs) > 0 || at.TxID == 0); err != nil {
					return fail(err)
				}
				if len(alhs) == 0 {
					before = h.PrevAlh
				}
				at = proof.State{TxID: h.ID, Alh: h.Alh()}
				alhs = append(alhs, at.Alh)
				if err := meets(v, at); err != nil {
					return fail(err)
				}
			}
		}
		if at.TxID == goal.TxID {
			break // meets has compared it
		}
		err := e.anchor(ctx, v, at)
		if err == nil {
			break
		}
		// Where no proof is to be had the next stretch is fetched as well.
		var unproven *proof.Unproven
		if !(errors.As(err, &unproven) || isRefused(err)) || len(alhs) >= maxRefill {
			return fail(err)
		}
	}
	return out, before, alhs
}

// follows: a header continues the transaction before it, where that is known.
func follows(h *proof.Header, at proof.State, known bool) error {
	if err := h.Validate(); err != nil {
		return err
	}
	if at.TxID == 0 {
		at.Alh = proof.EmptyAlh()
	}
	switch {
	case h.ID != at.TxID+1:
		return &proof.Mismatch{Check: proof.CheckID, Tx: at.TxID + 1, Detail: fmt.Sprintf("the header is that of transaction %d", h.ID)}
	case known && h.PrevAlh != at.Alh:
		return &proof.Mismatch{Check: proof.CheckPrevAlh, Tx: h.ID, Want: at.Alh, Got: h.PrevAlh}
	}
	return nil
}

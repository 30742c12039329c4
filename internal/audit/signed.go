package audit

import (
	"math"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// witness takes a state that was proven.
func (k *mirrored) witness(s proof.SignedState, at time.Time) {
	if k == nil || len(s.Signature) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.pending) == 0 && len(k.signed) == 0 {
		k.since = time.Now()
	}
	if len(k.signed) >= maxSigned { // each is signed for all before it
		thin := make([]evidence.Witnessed, 0, maxSigned)
		for i := 0; i < len(k.signed); i += 2 {
			thin = append(thin, k.signed[i])
		}
		k.signed = thin
	}
	k.signed = append(k.signed, evidence.Witnessed{State: s, At: at})
}

// keep puts on disk the signed states that wait. k.files is held.
func (k *mirrored) keep(m Mirror, v *view, life uint64) error {
	k.mu.Lock()
	if k.life != life {
		k.mu.Unlock()
		return nil
	}
	signed, bound, parted := k.signed, k.bound, k.parted
	k.resigns = time.Now().Add(mirrorEvery) // for where it is too early
	k.mu.Unlock()
	if !parted {
		if done, err := part(m, v, bound); err != nil || !done {
			return err
		}
		k.mu.Lock()
		if k.life == life {
			k.parted = true
			if m.Size() < bound { // it is shorter now
				k.bound, k.checked = m.Size(), false
			}
		}
		k.mu.Unlock()
	}
	if len(signed) > 0 {
		if err := m.Witness(signed); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.resigns = time.Time{}
	if n := len(signed); k.life == life && n > 0 {
		k.signed = slices.DeleteFunc(slices.Clone(k.signed), func(w evidence.Witnessed) bool {
			return w.State.TxID <= signed[n-1].State.TxID
		})
	}
	return nil
}

// part sets aside the signed states of the history before an accepted incident,
// from the first on that the accepted one contradicts: beside it they would look
// like a contradiction that nobody decided on. Which those are is known once
// what was walked up to the accepted state is mirrored; done is false before
// that. bound is how far the mirror is known to be what was walked. The accepted
// state itself, kept as of the time of the decision, says that this was done.
func part(m Mirror, v *view, bound uint64) (done bool, err error) {
	base := &v.trust.Baseline
	if base.Origin != evidence.OriginAccepted {
		return true, nil
	}
	if tx := base.State.TxID; tx > 0 {
		own, err := m.States(tx, tx, 1)
		if err != nil {
			return false, err
		}
		if len(own) > 0 && own[0].State.State == base.State && own[0].At.Unix() == base.At.Unix() {
			return true, nil
		}
	}
	switch {
	case v.unmirrored():
		bound = 0 // nothing tells
	case bound < base.State.TxID:
		return false, nil
	}
	aside, agreed := false, bound
	for to := uint64(math.MaxUint64); to > 0; {
		page, err := m.States(1, to, statesPage)
		if err != nil {
			return false, err
		}
		for _, w := range page {
			to = w.State.TxID - 1
			if w.State.TxID > bound {
				// Kept since, or by the history before, while nothing was kept
				// as the incident was open. Times are kept to the second.
				aside = aside || !w.At.After(base.At)
				continue
			}
			leaf, err := m.LeafHash(w.State.TxID)
			if err != nil {
				return false, err
			}
			if leaf == proof.LeafHash(w.State.Alh) {
				to = 0 // and so do all before it
				break
			}
			aside, agreed = true, to
		}
		if len(page) < statesPage {
			break
		}
	}
	if !aside {
		return true, nil
	}
	return true, m.Truncate(agreed)
}

// states gives the newest signed states of a range of transactions.
func (k *mirrored) states(v *view, from, to uint64, limit int) []evidence.Witnessed {
	if k == nil || from > to {
		return nil
	}
	k.mu.Lock()
	mixed := !k.parted && v.trust.Baseline.Origin == evidence.OriginAccepted
	var out []evidence.Witnessed
	for i := len(k.signed) - 1; i >= 0 && len(out) < limit; i-- {
		if tx := k.signed[i].State.TxID; from <= tx && tx <= to {
			out = append(out, k.signed[i])
		}
	}
	k.mu.Unlock()
	k.files.Lock()
	defer k.files.Unlock()
	if m, err := k.opened(); err == nil && len(out) < limit {
		if kept, err := m.States(from, to, limit-len(out)); err == nil {
			if mixed { // with those of the history before
				kept = slices.DeleteFunc(kept, func(w evidence.Witnessed) bool { return !w.At.After(v.trust.Baseline.At) })
			}
			out = append(out, kept...)
		}
	}
	return out
}

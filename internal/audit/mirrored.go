package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// mirrored is the mirror of one ledger as the engine keeps it: what is on disk,
// and what was walked and stored as trusted but waits to be written. Writing
// costs a few syncs however much it is, so that it is done seldom; what a crash
// loses is fetched again.
type mirrored struct {
	open func(anew bool) (Mirror, error)

	files sync.Mutex // held while files are read or written; taken before mu
	m     Mirror     // nil before it was opened

	mu      sync.Mutex // held for moments only
	life    uint64     // counts decisions: what was taken before one does not count after it
	bound   uint64     // mirrored transactions that are known to be the walked ones
	checked bool       // bound was looked for since trust last changed by a decision
	first   uint64     // transaction of pending[0]
	pending []proof.Hash
	signed  []evidence.Witnessed
	resigns time.Time // signed states that could not be kept wait until then
	parted  bool      // what was kept of a history before the accepted one is set aside
	since   time.Time // when the oldest of what waits came
	behind  bool      // transactions before first are missing
	rests   time.Time // trouble with it rests until then
	trouble string    // what was said last, so that it is said once
}

// add takes walked transactions that are stored as trusted.
func (k *mirrored) add(first uint64, alhs []proof.Hash) {
	if k == nil || len(alhs) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.first + uint64(len(k.pending))
	switch {
	case len(k.pending) == 0:
		k.first = first
	case first <= next && next-first <= uint64(len(alhs)): // round and background walk may overlap
		alhs = alhs[next-first:]
	default:
		k.first, k.pending, k.behind = first, nil, true
	}
	if len(k.pending) == 0 && len(k.signed) == 0 {
		k.since = time.Now()
	}
	k.pending = append(k.pending, alhs...)
	if len(k.pending) > maxPending {
		k.first, k.pending, k.behind = 0, nil, true
	}
}

// forget drops what waits: trust changed by a decision, and what is mirrored
// may be of the history before it.
func (k *mirrored) forget() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.life++
	k.bound, k.checked, k.parted, k.first, k.pending, k.signed = 0, false, false, 0, nil, nil
	k.behind, k.rests, k.resigns = false, time.Time{}, time.Time{}
	k.mu.Unlock()
}

// due reports whether it is worth writing now; what waits may do so for a while.
func (k *mirrored) due(now time.Time, while time.Duration) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Before(k.rests) {
		return false
	}
	waits := len(k.pending) > 0 || len(k.signed) > 0 && !now.Before(k.resigns)
	// The first ones do not wait: a mirror that exists protects what it holds.
	first := k.bound == 0 && len(k.pending) > 0
	return !k.checked || k.behind || first || len(k.pending) >= pendingEnough || waits && now.Sub(k.since) >= while
}

// waits reports whether anything waits to be written.
func (k *mirrored) waits() bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.pending)+len(k.signed) > 0
}

// opened gives the mirror; k.files is held.
func (k *mirrored) opened() (Mirror, error) {
	if k.m == nil {
		m, err := k.open(false)
		if err != nil {
			return nil, err
		}
		k.m = m
	}
	return k.m, nil
}

// bind finds out how much of the mirror is known to be what was walked: the
// root over it must be the walk's. misfit says that it is not. What is found
// does not count after a decision, which ends the life. k.files is held.
func (k *mirrored) bind(m Mirror, walk *walked, life uint64) (misfit bool, err error) {
	at := min(m.Size(), walk.At().TxID)
	want, err := walk.Root(at)
	var unproven *proof.Unproven
	if errors.As(err, &unproven) {
		// It lags too far to tell. What is fetched to fill it leads there.
		k.settle(life, 0, true)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if at > 0 {
		got, err := m.Root(at)
		if err != nil {
			return false, err
		}
		if got != want {
			return true, nil
		}
	}
	k.settle(life, at, at < walk.At().TxID)
	return false, nil
}

func (k *mirrored) settle(life, bound uint64, behind bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life != life {
		return
	}
	k.bound, k.checked = bound, true
	// What waits may close the gap.
	k.behind = behind && (len(k.pending) == 0 || k.first > bound+1)
}

// lives gives the life that goes with a view of the ledger that is taken after
// it.
func (k *mirrored) lives() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.life
}

// write puts walked transactions on disk that wait. k.files is held.
func (k *mirrored) write(m Mirror) error {
	k.mu.Lock()
	life, first, alhs := k.life, k.first, k.pending
	k.mu.Unlock()
	if len(alhs) == 0 {
		return nil
	}
	if first > m.Size()+1 {
		k.mu.Lock()
		k.behind = true
		k.mu.Unlock()
		return nil
	}
	if err := m.Append(first, alhs); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life == life && k.first == first && len(k.pending) >= len(alhs) {
		k.first, k.pending, k.since = first+uint64(len(alhs)), k.pending[len(alhs):], time.Now()
		if len(k.pending) == 0 {
			k.pending = nil // nothing is held for a ledger that does not grow
		}
		if first <= k.bound+1 {
			k.bound = max(k.bound, k.first-1)
		}
	}
	return nil
}

// root gives the root over the first size walked transactions, from disk.
func (k *mirrored) root(size uint64) (proof.Hash, bool) {
	if k == nil || !k.files.TryLock() { // what holds it may be a disk that hangs
		return proof.Hash{}, false
	}
	defer k.files.Unlock()
	k.mu.Lock()
	bound, waits := k.bound, len(k.pending) > 0 && size >= k.first
	k.mu.Unlock()
	m, err := k.opened()
	if err != nil {
		return proof.Hash{}, false
	}
	if waits && k.write(m) == nil {
		k.mu.Lock()
		bound = k.bound
		k.mu.Unlock()
	}
	if size > bound {
		return proof.Hash{}, false
	}
	root, err := m.Root(size)
	return root, err == nil
}

// reach gives how far the mirror and what waits reach, with no gap.
func (k *mirrored) reach() uint64 {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.pending) > 0 && k.first <= k.bound+1 {
		return k.first - 1 + uint64(len(k.pending))
	}
	return k.bound
}

// leaf gives the leaf hash of a walked transaction.
func (k *mirrored) leaf(tx uint64) (proof.Hash, bool) {
	if k == nil || tx == 0 {
		return proof.Hash{}, false
	}
	k.mu.Lock()
	if tx >= k.first && tx-k.first < uint64(len(k.pending)) {
		alh := k.pending[tx-k.first]
		k.mu.Unlock()
		return proof.LeafHash(alh), true
	}
	bound := k.bound
	k.mu.Unlock()
	if tx > bound {
		return proof.Hash{}, false
	}
	k.files.Lock()
	defer k.files.Unlock()
	m, err := k.opened()
	if err != nil {
		return proof.Hash{}, false
	}
	leaf, err := m.LeafHash(tx)
	return leaf, err == nil
}

// subtree gives the root of a perfect subtree of what is on disk.
func (k *mirrored) subtree(level uint, index uint64) (proof.Hash, bool) {
	if k == nil {
		return proof.Hash{}, false
	}
	k.mu.Lock()
	bound := k.bound
	k.mu.Unlock()
	if level > 62 || (index+1)<<level > bound {
		return proof.Hash{}, false
	}
	k.files.Lock()
	defer k.files.Unlock()
	m, err := k.opened()
	if err != nil {
		return proof.Hash{}, false
	}
	root, err := m.Subtree(level, index)
	return root, err == nil
}

// keepMirrors writes what waits where it is worth it, and fetches what is
// missing. It never waits.
func (e *Engine) keepMirrors(ctx context.Context) {
	now, all := time.Now(), e.all()
	// The more ledgers grow, the longer each waits: what a disk can sync in a
	// second does not grow with them.
	while := max(mirrorEvery, time.Duration(len(all))*time.Second/mirrorsPerSecond)
	for _, l := range all {
		if !l.past.due(now, while) || !l.mirroring.CompareAndSwap(false, true) {
			continue
		}
		e.work.Add(1)
		done := func() {
			l.mirroring.Store(false)
			e.work.Done()
		}
		e.mirrors.do(func() {
			if ctx.Err() != nil || !e.mirror(ctx, l) {
				done()
				return
			}
			e.walks.do(func() {
				defer done()
				e.refill(ctx, l)
			})
		})
	}
}

// mirror writes what waits and reports whether transactions before it are
// missing.
func (e *Engine) mirror(ctx context.Context, l *ledger) (behind bool) {
	k := l.past
	if k == nil {
		return false
	}
	k.files.Lock()
	defer k.files.Unlock()
	life := k.lives()
	v := l.view()
	if v.unmirrored() {
		k.mu.Lock()
		if k.life == life {
			k.first, k.pending, k.checked, k.behind = 0, nil, true, false
		}
		k.mu.Unlock()
	}
	err := e.salvaging(ctx, k, &v, func(m Mirror) error { return e.mirrorOnce(ctx, k, m, &v, life) })
	// Trouble with the signed states is none of the transactions', nor the
	// other way round.
	unkept := e.salvaging(ctx, k, &v, func(m Mirror) error { return k.keep(m, &v, life) })
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.rests = time.Now().Add(mirrorRetry)
	}
	if unkept != nil {
		k.resigns = time.Now().Add(mirrorRetry)
	}
	told := k.trouble
	k.trouble = ""
	switch {
	case err != nil:
		if k.trouble = err.Error(); k.trouble != told {
			e.log.Error("the mirror cannot be kept; rounds go on without it, and where a ledger was changed may not be said exactly", "database", l.name.Database, "error", err)
		}
	case unkept != nil:
		if k.trouble = unkept.Error(); k.trouble != told {
			e.log.Error("states that the server signed cannot be kept; rounds go on, and evidence may show fewer of them", "database", l.name.Database, "error", unkept)
		}
	}
	return err == nil && k.behind && !v.unmirrored()
}

// salvaging does work on the mirror, once more if a damaged part of it had to
// be set aside. k.files is held.
func (e *Engine) salvaging(ctx context.Context, k *mirrored, v *view, work func(Mirror) error) error {
	for again := false; ; again = true {
		m, err := k.opened()
		if err == nil {
			err = work(m)
		}
		var salvage Salvage
		if again || !errors.As(err, &salvage) {
			return err
		}
		e.salvage(ctx, k, v, salvage)
	}
}

// mirrorOnce binds the mirror to the walk where that was not done yet, and
// writes what waits. k.files is held.
func (e *Engine) mirrorOnce(ctx context.Context, k *mirrored, m Mirror, v *view, life uint64) error {
	k.mu.Lock()
	checked := k.checked
	k.mu.Unlock()
	if !checked {
		misfit, err := k.bind(m, v.walk, life)
		if err == nil && misfit {
			e.unfit(ctx, v, "what it holds is not what was walked")
			if err = m.Truncate(0); err == nil {
				k.settle(life, 0, true)
			}
		}
		if err != nil {
			return err
		}
	}
	return k.write(m)
}

// unmirrored: a history that does not begin at transaction 1 has no mirror.
func (v *view) unmirrored() bool { return v.trust.WalkFromBaseline }

// salvage keeps as much of a mirror as can be. k.files is held.
func (e *Engine) salvage(ctx context.Context, k *mirrored, v *view, s Salvage) {
	e.unfit(ctx, v, s.Error())
	m, err := k.opened()
	if err != nil { // it cannot even be opened
		m, err = k.open(true)
		k.m = m
	}
	if err == nil {
		err = m.Truncate(min(s.Keep(), m.Size()))
	}
	if err != nil {
		k.m = nil
		e.log.Error("setting a part of the mirror aside", "database", v.trust.Name.Database, "error", err)
		return
	}
	k.mu.Lock()
	k.bound, k.checked = min(k.bound, m.Size()), false
	k.mu.Unlock()
}

// unfit says that a mirror is not what it was left. After an accepted incident
// that is to be expected: it is of the history before.
func (e *Engine) unfit(ctx context.Context, v *view, why string) {
	name := v.trust.Name
	if v.trust.Baseline.Origin == evidence.OriginAccepted {
		e.log.Info("the mirror of the history before the accepted incident is set aside", "database", name.Database)
		return
	}
	e.note(ctx, name, evidence.Undetermined, evidence.EventStateProblem, evidence.StateProblem,
		fmt.Sprintf("the mirror of %s is not as the auditor left it: %s. It is set aside and filled again; find out who can write to the state directory, then type immuclient trust check", name, why))
}

// checkMirrors binds every mirror to what was walked, and refuses a state that
// knows less than its mirrors: it was replaced by an older copy. What else is
// wrong with a mirror is found, and said, when it is written to.
func (e *Engine) checkMirrors() error {
	for _, l := range e.all() {
		if l.past == nil || l.trust.WalkFromBaseline {
			continue
		}
		size, err := l.past.begin(l.walk)
		if err == nil && size > l.trust.Walked && l.trust.Baseline.Origin != evidence.OriginAccepted {
			return &StateError{Name: l.name, Err: fmt.Errorf("its mirror holds %d transactions, the state knows of %d: the state was replaced by an older copy", size, l.trust.Walked)}
		}
	}
	return nil
}

// begin binds the mirror if that can be done at once.
func (k *mirrored) begin(walk *walked) (size uint64, err error) {
	k.files.Lock()
	defer k.files.Unlock()
	m, err := k.opened()
	if err != nil {
		return 0, err
	}
	if misfit, err := k.bind(m, walk, k.lives()); misfit || err != nil {
		k.forget() // it is looked at again, and said
	}
	return m.Size(), nil
}

package audit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// far is a gap that no round walks where no dual proof is to be had.
const far = defaultWalk + 100

// walkingAhead has a background walk on its way to a state that no dual proof
// reaches, and stops it before its last page.
func walkingAhead(t *testing.T, h *history) (*bench, *gate) {
	t.Helper()
	b := newBench(t, h)
	last := newGate()
	b.server.state = h.shows(far)
	b.server.headers = func(db string, from uint64, limit int) ([]proof.Header, error) {
		if from+uint64(limit) > far {
			last.pass()
		}
		return h.page(db, from, limit)
	}
	b.pin(h.states[5])
	if r := b.expect(evidence.Undetermined); r.Reason != evidence.Refused {
		t.Fatalf("%+v", r)
	}
	last.await(t, "the background walk comes to its last page")
	return b, last
}

// A walk that ends after a round found tampering must not move trust: what it
// began with was not frozen yet.
func TestWalkEndsAfterAnIncident(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, far, 0, 1)
	b, last := walkingAhead(t, h)
	b.server.set(func(s *scripted) { s.state = h.shows(3) })
	if r := b.expect(evidence.Tampered); r.Kind != evidence.Rollback {
		t.Fatalf("%+v", r)
	}
	close(last.open)
	b.e.work.Wait()
	if got := b.trust(); got.Proven.TxID != 5 || got.Walked != 5 {
		t.Errorf("trust moved to %d, walked %d, while an incident was open", got.Proven.TxID, got.Walked)
	}
	// Nor is it an agreement of the server with what is trusted.
	trust := b.trust()
	if err := (&Decider{Memory: b.store}).Keep(t.Context(), b.incident(), &trust, "really?"); !errors.Is(err, ErrDecision) {
		t.Errorf("kept although the server has not agreed since: %v", err)
	}
}

// A round that proved a continuation of what is trusted no longer must not
// call it consistent with what is trusted now.
func TestTrustMovesInMidRound(t *testing.T) {
	t.Parallel()
	a, other := makeHistory(t, far, 5, 2), makeHistory(t, 20, 5, 3)
	b, last := walkingAhead(t, a)
	mid := newGate()
	b.server.set(func(s *scripted) {
		s.state = other.shows(20)
		walking := s.headers
		s.headers = func(db string, from uint64, limit int) ([]proof.Header, error) {
			if from+uint64(limit) > far {
				return walking(db, from, limit)
			}
			mid.pass()
			return other.page(db, from, limit)
		}
	})
	round := b.rounding()
	mid.await(t, "the round asks for headers")
	close(last.open)
	b.e.work.Wait()
	if got := b.trust().Proven.State; got != a.states[far] {
		t.Fatalf("the walk proved %v", got)
	}
	close(mid.open)
	if r := <-round; r.Verdict != evidence.Undetermined || r.Reason != evidence.Unstable {
		t.Errorf("observed %+v, trusted %+v: %s %s", r.Observed, r.Trusted, r.Verdict, r.Reason)
	}
	if r := b.expect(evidence.Tampered); r.Kind != evidence.Rollback {
		t.Errorf("%+v", r)
	}
}

// A goal that is never reached must not keep the walk from what is proven.
func TestGoalThatIsNeverReached(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 200, 0, 1)
	b := newBench(t, h)
	b.server.state = func(db string) (proof.SignedState, error) {
		return proof.SignedState{DB: db, State: proof.State{TxID: 1 << 62, Alh: proof.Hash{1}}}, nil
	}
	b.pin(h.states[100])
	b.expect(evidence.Undetermined)
	b.e.work.Wait()
	if got := b.trust(); got.Walked != 100 {
		t.Errorf("walked %d of 100 that are proven", got.Walked)
	}
	// Once the server shows what it has, the goal is forgotten.
	b.server.set(func(s *scripted) { s.state = h.shows(200) })
	b.expect(evidence.Consistent)
	l := b.e.ledger("db")
	v := l.view()
	if got := l.destination(&v); got.TxID != 200 {
		t.Errorf("the walk is still to go to %d", got.TxID)
	}
}

// A mismatch that is seen while looking for a missing database is repeated
// like any other before it is believed.
func TestMismatchWhileLookingForADatabase(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	b := newBench(t, h)
	var calls int
	b.server.state = func(db string) (proof.SignedState, error) {
		switch calls++; calls {
		case 1:
			return proof.SignedState{}, fault(evidence.NotFound)
		case 2:
			return proof.SignedState{DB: db, State: proof.State{TxID: 10, Alh: proof.Hash{1}}}, nil
		default:
			return h.shows(20)(db)
		}
	}
	b.pin(h.states[10])
	b.expect(evidence.Consistent)
}

// A database that is listed no more while its first contact is under way must
// not be lost: it is trusted from then on.
func TestUnlistedDuringFirstContact(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	b := newBench(t, h)
	mid := newGate()
	b.server.state = func(db string) (proof.SignedState, error) { mid.pass(); return h.shows(20)(db) }
	b.server.list = []string{"db"}
	b.begin()
	b.must(b.e.list(t.Context()))
	round := b.rounding()
	mid.await(t, "the round asks for the state")
	b.server.set(func(s *scripted) { s.list = nil })
	b.must(b.e.list(t.Context()))
	close(mid.open)
	r := <-round
	trusted := r.Reason == evidence.FirstContact
	if shown := len(b.e.Status().Ledgers) == 1; trusted && !shown {
		t.Errorf("trusted, and audited no more: %+v", r)
	}
}

// A ledger whose first contact is stored while the state is read again must
// not be forgotten because it was not in what was read.
func TestFirstContactDuringReload(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	b := newBench(t, h)
	b.server.state = h.shows(20)
	loaded := newGate()
	b.opts.Memory = &hooked{Memory: b.store, loaded: loaded}
	go func() { <-loaded.reached; loaded.open <- struct{}{} }() // of New
	b.begin()
	reload := make(chan error, 1)
	go func() { reload <- b.e.reload(context.WithoutCancel(t.Context())) }()
	loaded.await(t, "the state was read")
	if r := b.round(); r.Reason != evidence.FirstContact {
		t.Fatalf("%+v", r)
	}
	close(loaded.open)
	b.must(<-reload)
	if r := b.expect(evidence.Consistent); r.Trusted.Tx != 20 {
		t.Errorf("%+v", r)
	}
}

// hooked is a state whose reading and writing a test can stop or fail.
type hooked struct {
	Memory
	loaded *gate
	fail   atomic.Int64 // so many changes are refused
	err    error
}

func (h *hooked) Load(ctx context.Context) (*evidence.Remembered, error) {
	r, err := h.Memory.Load(ctx)
	if h.loaded != nil {
		h.loaded.pass()
	}
	return r, err
}

func (h *hooked) Apply(ctx context.Context, c evidence.Change) error {
	if h.fail.Add(-1) >= 0 {
		return h.err
	}
	return h.Memory.Apply(ctx, c)
}

// An identity change whose storing fails is told by the next round.
func TestIdentityChangeIsNotLost(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	b := newBench(t, h)
	mem := &hooked{Memory: b.store, err: errors.New("no space left on device")}
	b.opts.Memory = mem
	b.server.state = h.shows(20)
	b.pin(h.states[10])
	b.expect(evidence.Consistent)
	b.server.set(func(s *scripted) { s.uuid = "another" })
	mem.fail.Store(1)
	b.expect(evidence.Undetermined)
	b.expect(evidence.Consistent)
	if n := b.events(evidence.EventIdentityChanged); n != 1 {
		t.Errorf("%d identity events, want 1", n)
	}
}

// A server that calls itself something else in every answer fills neither the
// record of events nor the disk.
func TestIdentityFlood(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	b := newBench(t, h)
	b.server.state = h.shows(20)
	b.pin(h.states[20])
	for i := range 300 {
		b.server.set(func(s *scripted) { s.uuid = fmt.Sprintf("u%d", i%[]int{2, 300}[i/150]) })
		b.expect(evidence.Consistent)
	}
	if n := b.events(evidence.EventIdentityChanged); n < 1 || n > 10 {
		t.Errorf("%d identity events", n)
	}
	if v := b.trust().Version; v > 20 {
		t.Errorf("the record was written %d times in 300 quiet rounds", v)
	}
}

// An incident that another process acknowledged in between makes storing the
// newest sighting fail: it must not be left at that, because keeping the old
// baseline depends on it.
func TestSightingAfterAcknowledgement(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	b := newBench(t, h)
	d := &Decider{Memory: b.store}
	b.server.state = h.shows(5)
	b.pin(h.states[10])
	b.expect(evidence.Tampered)
	b.server.set(func(s *scripted) { s.state = h.shows(10) })
	b.expect(evidence.Tampered) // the server agrees again
	b.must(d.Acknowledge(t.Context(), b.incident(), "seen"))
	b.server.set(func(s *scripted) { s.state = h.shows(5) })
	b.expect(evidence.Tampered) // a conflict
	b.must(b.e.reload(t.Context()))
	b.expect(evidence.Tampered)
	trust := b.trust()
	if err := d.Keep(t.Context(), b.incident(), &trust, "really?"); !errors.Is(err, ErrDecision) {
		t.Errorf("kept although the server contradicts at this moment: %v", err)
	}
}

// The auditor being stopped while it stores is no trouble with its state.
func TestStoppedWhileStoring(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	b := newBench(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	mem := &hooked{Memory: b.store}
	b.opts.Memory = mem
	b.server.state = h.shows(20)
	b.pin(h.states[10])
	mem.err = context.Canceled
	mem.fail.Store(1)
	b.server.headers = func(db string, from uint64, limit int) ([]proof.Header, error) {
		page, err := h.page(db, from, limit)
		if from+uint64(len(page)) > 20 {
			cancel()
		}
		return page, err
	}
	if r := b.e.Round(ctx, "db"); r.Reason != evidence.Interrupted {
		t.Errorf("%s: %s", r.Reason, r.Detail)
	}
}

// What the walk must still meet does not grow without bound where no walk is
// made.
func TestMarksAreBounded(t *testing.T) {
	t.Parallel()
	var marks []proof.State
	for tx := uint64(1); tx <= 3*maxMarks; {
		var more []proof.State
		for range 100 {
			more = append(more, proof.State{TxID: tx})
			tx++
		}
		marks = keepMarks(marks, more, 0)
	}
	if len(marks) > maxMarks || marks[0].TxID != 1 || marks[len(marks)-1].TxID != 3*maxMarks {
		t.Errorf("%d marks from %d to %d", len(marks), marks[0].TxID, marks[len(marks)-1].TxID)
	}
}

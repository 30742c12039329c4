package audit_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// truth knows every transaction of every history that was ever there, and
// which one each follows.
type truth struct {
	mu     sync.Mutex
	before map[proof.State]proof.State
	// accepted are states that an operator made a baseline: from then on they
	// are as good as what was trusted before.
	accepted map[string][]proof.State
}

func newTruth() *truth {
	return &truth{before: map[proof.State]proof.State{}, accepted: map[string][]proof.State{}}
}

// learn takes up a history by its headers: what a header hashes to, and what
// it names as its past.
func (t *truth) learn(s *ledger.Snapshot) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, _ := s.State()
	for tx := last; tx > 0; tx-- {
		stored, err := s.Tx(tx)
		if err != nil {
			return err
		}
		t.before[proof.State{TxID: tx, Alh: stored.Header.Alh()}] = proof.State{TxID: tx - 1, Alh: stored.Header.PrevAlh}
	}
	return nil
}

func (t *truth) accept(db string, s proof.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accepted[db] = append(t.accepted[db], s)
}

func (t *truth) isAccepted(db string, s proof.State) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.accepted[db], s)
}

// extends reports whether a state continues another, or what was accepted.
func (t *truth) extends(db string, s, from proof.State) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, known := s, true; known; at, known = t.before[at] {
		if at == from || slices.Contains(t.accepted[db], at) {
			return true
		}
	}
	return false
}

// exists reports whether a state was ever that of a history.
func (t *truth) exists(s proof.State) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.before[s]
	return ok || s == proof.State{TxID: 0, Alh: proof.EmptyAlh()}
}

// hangs is how long a call of the adversary's tests may take: short, so that
// an adversary that never answers costs little time.
const hangs = 250 * time.Millisecond

// TestAdversary lets a server that holds several histories do whatever it
// likes, and checks after every round what must hold all the same: only a
// continuation of what was trusted is ever trusted, nothing while an incident
// about the chain is open, and consistent is said of nothing else.
//
// IMMUAUDIT_SOAK=<rounds> makes it longer, IMMUAUDIT_SEED=<seed> makes it the
// one that failed, as far as goroutines allow.
func TestAdversary(t *testing.T) {
	t.Parallel()
	rounds, seed := numberFrom(t, "IMMUAUDIT_SOAK", 150), numberFrom(t, "IMMUAUDIT_SEED", rand.Uint64N(1<<32))
	t.Logf("IMMUAUDIT_SOAK=%d IMMUAUDIT_SEED=%d", rounds, seed)
	config := ledger.Config{HeaderVersion: int(seed % 2), Version: []string{"1.2.4", "1.11.1"}[seed/2%2]}
	if seed/4%2 == 0 {
		config.SigningKey = newKey(t)
	}
	a := newAdversary(t, seed, config)
	j := newJudge(a)
	for j.rounds.Load() < rounds && !t.Failed() {
		j.connect()
		a.opts.WalkLimit = []uint64{0, 5, 10_000}[a.roll(3)]
		a.opts.WalkRate = []int{0, 20_000, 1_000_000}[a.roll(3)]
		a.opts.Comparisons = a.roll(3) == 0
		if a.roll(2) == 0 {
			j.byCron()
		} else {
			j.watched()
		}
		j.remembered()
		j.decide(a.store)
	}
	t.Logf("%v", j.told)
}

// TestTransportIsNoTampering: whatever happens on the line, an honest history
// is never called tampered.
func TestTransportIsNoTampering(t *testing.T) {
	t.Parallel()
	rounds, seed := numberFrom(t, "IMMUAUDIT_SOAK", 150), numberFrom(t, "IMMUAUDIT_SEED", rand.Uint64N(1<<32))
	t.Logf("IMMUAUDIT_SOAK=%d IMMUAUDIT_SEED=%d", rounds, seed)
	a := newAdversary(t, seed, ledger.Config{HeaderVersion: 1, Version: "1.2.4"})
	a.gentle = true
	j := newJudge(a)
	j.connect()
	for j.rounds.Load() < rounds && !t.Failed() {
		a.opts.WalkLimit = []uint64{0, 5, 10_000}[a.roll(3)]
		a.mu.Lock()
		a.plan = plan{refuse: a.rnd.Float64() * 0.5, hang: 0.005, short: a.rnd.Float64(), identities: 0.3}
		a.mu.Unlock()
		for range 3 {
			a.write(0, a.dbs[a.roll(len(a.dbs))], 1+a.roll(30))
		}
		for _, rep := range a.once() {
			j.look(rep)
		}
		j.remembered()
	}
	if all := a.incidents(); len(all) > 0 {
		t.Errorf("incidents about an honest history: %+v", all)
	}
}

// judge holds every report against the truth.
type judge struct {
	*adversary
	rounds atomic.Uint64

	mu      sync.Mutex
	trusted map[string]proof.State
	frozen  map[string]string // the incident about the chain that was open in the newest report
	told    map[string]int    // how often each verdict was reached, and why not
}

func newJudge(a *adversary) *judge {
	return &judge{adversary: a, trusted: map[string]proof.State{}, frozen: map[string]string{}, told: map[string]int{}}
}

// connect talks to the server anew, without the patience that a client has
// with one that refused it.
func (j *judge) connect() {
	j.t.Helper()
	client, err := wire.New(wire.Options{Address: j.ledger.Addr(), Username: "immudb", Password: "immudb", CallTimeout: hangs})
	j.must(err)
	j.t.Cleanup(func() { client.Close() })
	j.opts.Server, j.opts.Interval = client, 10*time.Millisecond
}

func stateOf(m *evidence.Mark) proof.State {
	if m == nil {
		return proof.State{}
	}
	s := proof.State{TxID: m.Tx}
	if n, err := hex.Decode(s.Alh[:], []byte(m.Alh)); err != nil || n != len(s.Alh) {
		return proof.State{}
	}
	return s
}

func (j *judge) look(rep evidence.Report) {
	j.rounds.Add(1)
	if rep.DurationMS > 70_000 {
		j.t.Errorf("a round without end: %+v", rep)
	}
	if rep.Database == "" {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	db, trusted := rep.Database, stateOf(rep.Trusted)
	j.told[strings.TrimSpace(fmt.Sprint(rep.Verdict, " ", rep.Kind, rep.Reason))]++
	if rep.Verdict == evidence.Consistent && (rep.Trusted == nil || stateOf(rep.Observed) != trusted) {
		j.t.Errorf("%s: consistent, but trusted %+v is not observed %+v: %+v", db, rep.Trusted, rep.Observed, rep)
	}
	if rep.Trusted != nil {
		j.moved(db, trusted)
	}
	if was := j.frozen[db]; was != "" && (rep.Verdict != evidence.Tampered || rep.Incident == "") && !j.wasDecided(was) {
		j.t.Errorf("%s: incident %s is open, the verdict is %s: %+v", db, was, rep.Verdict, rep)
	}
	j.frozen[db] = ""
	if rep.Verdict == evidence.Tampered && !rep.Kind.AboutData() {
		j.frozen[db] = rep.Incident
	}
	if a := rep.Assurance; a != nil && (a.Verified > a.Walked || a.Walked > a.Proven) {
		j.t.Errorf("%s: watermarks %+v", db, *a)
	}
}

// moved checks a step of trust. j.mu is held.
func (j *judge) moved(db string, to proof.State) {
	from, met := j.trusted[db]
	j.trusted[db] = to
	switch {
	case met && from == to:
	case !met && !j.truth.exists(to):
		j.t.Errorf("%s: trust began at %v, which never was", db, to)
	case met && !j.truth.extends(db, to, from):
		j.t.Errorf("%s: trust moved from %v to %v, which does not continue it", db, from, to)
	case met && j.frozen[db] != "" && !j.truth.isAccepted(db, to) && !j.wasDecided(j.frozen[db]):
		j.t.Errorf("%s: trust moved from %v to %v while incident %s is open", db, from, to, j.frozen[db])
	}
}

func (j *judge) wasDecided(incident string) bool {
	inc, err := j.store.Incident(context.WithoutCancel(j.t.Context()), incident)
	return err == nil && inc.Status != evidence.Open
}

// remembered checks what is on disk.
func (j *judge) remembered() {
	j.t.Helper()
	j.must(j.store.Verify(j.t.Context()))
	all, err := j.store.Load(j.t.Context())
	j.must(err)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, trust := range all.Trust {
		db := trust.Name.Database
		j.moved(db, trust.Proven.State)
		var walk proof.Walk
		if len(trust.Walk) > 0 {
			j.must(walk.UnmarshalBinary(trust.Walk))
		}
		if !j.truth.extends(db, trust.Proven.State, walk.At()) && walk.At().TxID > 0 {
			j.t.Errorf("%s: walked %v is not in the past of %v", db, walk.At(), trust.Proven.State)
		}
		for _, m := range all.Marks[trust.Name] {
			if !j.truth.extends(db, trust.Proven.State, m) {
				j.t.Errorf("%s: remembered %v is not in the past of %v", db, m, trust.Proven.State)
			}
		}
	}
}

// byCron makes a few single rounds.
func (j *judge) byCron() {
	j.t.Helper()
	for range 4 {
		j.scheme()
		for range 1 + j.roll(3) {
			j.scene()
		}
		for _, rep := range j.once() {
			j.look(rep)
		}
	}
}

// watched has an auditor run while histories change, and another process
// decide now and then.
func (j *judge) watched() {
	j.t.Helper()
	e, err := audit.New(j.t.Context(), j.opts)
	j.must(err)
	e.OnReport(j.look)
	ctx, cancel := context.WithCancel(j.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	other := j.reopen()
	for range 6 {
		j.scheme()
		for range 1 + j.roll(3) {
			j.scene()
		}
		before := j.rounds.Load()
		poll(j.t, "rounds are made", func() bool { return j.rounds.Load() >= before+6 })
		if j.roll(2) == 0 {
			j.decide(other)
		}
	}
	cancel()
	j.must(<-done)
	j.must(other.Close())
}

// decide carries out what operators may: a conflict, or a refusal, is none.
func (j *judge) decide(m audit.Memory) {
	j.t.Helper()
	ctx := j.t.Context()
	d := audit.Decider{Memory: m}
	for _, inc := range j.incidents() {
		trust, err := j.store.Trust(ctx, inc.Name)
		known := &trust
		if err != nil {
			known = nil
		}
		switch j.roll(4) {
		case 0:
			if inc.Kind != evidence.WrongDatabase && inc.Kind != evidence.Vanished {
				// Before it is done: a report may be quicker than this test.
				j.truth.accept(inc.Name.Database, inc.Observed.State)
				key := audit.KeyChoice{None: inc.Kind.AboutSignature()}
				err = d.Accept(ctx, inc, known, key, "as you like")
			}
		case 1:
			err = d.Keep(ctx, inc, known, "well again")
		case 2:
			err = d.Acknowledge(ctx, inc, "seen")
		case 3:
			// What Keep comes to once the server agreed: here it need not
			// wait for an adversary to do so.
			inc.Status, inc.ClosedAt, inc.CloseNote = evidence.Kept, time.Now(), "kept"
			err = m.Apply(ctx, evidence.Change{Incidents: []evidence.Incident{inc}})
		}
		var conflict interface{ Conflict() bool }
		if err != nil && known != nil && !errors.Is(err, audit.ErrDecision) && !errors.As(err, &conflict) {
			j.t.Errorf("deciding about %+v: %v", inc, err)
		}
	}
}

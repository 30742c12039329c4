package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/mirror"
	"immuaudit/internal/store"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

const (
	maxHeap = 256 << 20
	// maxRound is the deadline of a round, and of the stretch of the walk that
	// one made alone takes; maxCalls is far above what any round here needs.
	maxRound = 2 * time.Minute
	maxCalls = 1000
)

// FuzzRound drives whole rounds, from the bytes on the wire to the state on the
// disk, with whatever answers a script asks for, and holds every verdict
// against a model of the ledger. Its corpus is made by TestRoundSeeds.
func FuzzRound(f *testing.F) {
	a := newArena(f)
	wants := map[string]seed{}
	for _, s := range seeds() {
		wants[string(s.script().bytes())] = s
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		s := parseScript(input)
		p := a.play(t, s)
		if seed, ok := wants[string(input)]; ok {
			p.expect(seed)
		}
		if t.Failed() {
			t.Logf("what was played: %s", s)
		}
	})
}

// expect holds the verdicts of a script that is known against those that are
// right, and sees that it did something at all.
func (p *performance) expect(s seed) {
	p.t.Helper()
	reports := p.reports
	if !p.is(unannounced) {
		reports = reports[1:]
	}
	for i, want := range strings.Split(s.want, ",") {
		r := reports[i]
		if got := fmt.Sprint(r.Verdict, " ", r.Kind, r.Reason); !strings.HasPrefix(got, want) {
			p.t.Errorf("%s: verdict %d is %s, the right one is %s: %+v", s.name, i+1, got, want, r)
		}
	}
	lies := slices.ContainsFunc(s.records, func(r record) bool { return r.op >= opClear })
	p.liar.with(func(w *show) {
		if lies != (w.touched > 0) {
			p.t.Errorf("%s: %d answers were not the honest ones", s.name, w.touched)
		}
	})
}

// arena is where scripts are played, one after the other, and nothing else: it
// counts goroutines and memory.
type arena struct {
	liar   *liar
	models map[byte]*model
	idle   int // goroutines before the script under way

	dir    string
	memory *store.Store
	mirror *mirror.Mirror
	key    *evidence.Key
	plays  int // also tells the ledgers in one state apart
}

func newArena(tb testing.TB) *arena {
	tb.Helper()
	a := &arena{liar: newLiar(tb), models: map[byte]*model{}, dir: tb.TempDir()}
	tb.Cleanup(func() {
		if err := a.end(); err != nil {
			tb.Error(err)
		}
	})
	runtime.GC() // of what other tests left
	return a
}

// renew begins a new state now and then: one for each script would take most of
// the time, and one for all would grow.
func (a *arena) renew(t *testing.T) {
	t.Helper()
	if a.plays++; a.plays%8 != 1 {
		return
	}
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(a.dir, fmt.Sprint(a.plays))
	log := slog.New(slog.DiscardHandler)
	var err error
	if a.memory, err = store.Open(t.Context(), store.Options{Dir: dir, Create: true, Logger: log}); err != nil {
		t.Fatal(err)
	}
	if a.mirror, err = mirror.Open(filepath.Join(dir, "mirror"), log); err != nil {
		t.Fatal(err)
	}
	if a.key, err = evidence.LoadOrCreateKey(dir); err != nil {
		t.Fatal(err)
	}
}

// end closes the state and removes it.
func (a *arena) end() error {
	if a.memory == nil {
		return nil
	}
	return errors.Join(a.mirror.Close(), a.memory.Close(), os.RemoveAll(a.memory.Dir()))
}

func (a *arena) model(t *testing.T, s script) *model {
	t.Helper()
	kind := s.flags & (newHeaders | lagging)
	if a.models[kind] == nil {
		version := 0
		if s.is(newHeaders) {
			version = 1
		}
		a.models[kind] = newModel(t, version, s.is(lagging))
	}
	return a.models[kind]
}

// play makes the rounds of one script: an honest first contact, what the script
// says, and honest rounds again.
func (a *arena) play(t *testing.T, s script) *performance {
	t.Helper()
	a.renew(t)
	p := &performance{t: t, arena: a, script: s, m: a.model(t, s), name: evidence.Name{Server: fmt.Sprint("server", a.plays), Database: defaultDB}}
	if err := a.liar.stage(s, p.m); err != nil {
		t.Fatal(err)
	}
	p.before = p.remembered()
	a.idle = runtime.NumGoroutine()
	defer p.leave()
	if !s.is(unannounced) {
		p.round()
	}
	p.perform()
	p.close()
	if err := a.memory.Verify(t.Context()); err != nil {
		t.Errorf("the state's invariants: %v", err)
	}
	return p
}

// performance is a script being played.
type performance struct {
	t *testing.T
	*arena
	script
	m      *model
	name   evidence.Name
	client *wire.Client
	engine *audit.Engine

	rounds  int
	before  memory // what was remembered after the newest round
	trusted []proof.State
	reports []evidence.Report
}

// perform goes through the script.
func (p *performance) perform() {
	for _, r := range p.records {
		switch r.op {
		case opRound:
			if p.rounds < maxRounds {
				p.round()
			}
			if r.arg%2 == 0 {
				p.liar.with(func(s *show) { s.armed = nil })
			}
		case opGrow:
			p.liar.with(func(s *show) { s.height = min(s.height+1+int(r.arg%16), tallest) })
		case opRestart:
			p.leave()
		default:
			p.liar.with(func(s *show) { s.armed = append(s.armed, r) })
		}
	}
	armed := false
	p.liar.with(func(s *show) { armed = len(s.armed) > 0 })
	if armed && p.rounds < maxRounds {
		p.round()
	}
}

// close makes honest rounds: whatever the server did, the auditor recovers from
// it by itself, or has an incident open.
func (p *performance) close() {
	p.t.Helper()
	p.liar.with(func(s *show) { s.armed = nil })
	p.leave() // a client is patient with a server that refused it
	for range 3 {
		if p.round().Verdict != evidence.Undetermined {
			break
		}
	}
	var now proof.State
	p.liar.with(func(s *show) { now = p.m.state(honest, uint64(s.height)) })
	want, last, trust := evidence.Consistent, p.reports[len(p.reports)-1], p.before.trust
	foreign := len(trust.Key) > 0 && (!p.is(signing) || string(trust.Key) != string(p.point()))
	if len(p.before.open) > 0 || !p.m.follows(now, trust.Proven.State) || foreign {
		want = evidence.Tampered
	}
	if last.Verdict != want {
		p.t.Errorf("the server is honest again, and the verdict is %s, want %s: %+v", last.Verdict, want, last)
	}
}

// leave ends the auditor, as a process ends: nothing of it must be left.
func (p *performance) leave() {
	p.t.Helper()
	if p.engine != nil {
		p.settle()
	}
	if p.client != nil {
		p.client.Close()
	}
	p.engine, p.client = nil, nil
	p.liar.with(func(s *show) { s.logins = 0 })
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > p.idle; runtime.Gosched() {
		if time.Now().After(end) {
			stacks := make([]byte, 64<<10)
			p.t.Errorf("%d goroutines are left: %s", runtime.NumGoroutine()-p.idle, stacks[:runtime.Stack(stacks, true)])
			return
		}
	}
}

// settle waits for what goes on behind rounds.
func (p *performance) settle() {
	p.t.Helper()
	ended, end := context.WithCancel(p.t.Context())
	end()
	if err := p.engine.Run(ended); err != nil {
		p.t.Fatal(err)
	}
}

func (p *performance) point() []byte {
	b, err := p.liar.key.PublicKey.Bytes()
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// begin makes the auditor that the script asks for.
func (p *performance) begin() {
	p.t.Helper()
	var err error
	if p.client == nil {
		timeout := 5 * time.Second
		p.liar.with(func(s *show) {
			if s.hanging() {
				timeout = 100 * time.Millisecond
			}
		})
		p.client, err = wire.New(wire.Options{Address: p.liar.ledger.Addr(), Username: "immudb", Password: "immudb", CallTimeout: timeout})
		if err != nil {
			p.t.Fatal(err)
		}
	}
	o := audit.Options{
		Server: p.client, Memory: p.memory, Name: p.name.Server,
		Matches: func(db string) bool { return db == defaultDB }, Interval: time.Hour, StaleAfter: time.Hour,
		WalkLimit: 10_000, WalkRate: 1_000_000, ExpectGrowth: time.Hour, ClockSkew: time.Minute,
		Record: func(m evidence.Material) (string, error) {
			return evidence.Record(filepath.Join(p.memory.Dir(), "evidence"), m, p.key)
		},
	}
	if p.start&mirrored != 0 {
		o.Mirror = mirrors(p.mirror)
	}
	switch {
	case p.is(byProof) && p.is(loosely):
		o.WalkLimit, o.WalkRate = 0, 0
	case p.is(byProof):
		o.WalkLimit = 0
	case p.is(loosely):
		o.WalkLimit = 5
	}
	if p.pinned() {
		o.Key, o.KeyPoint = &p.liar.key.PublicKey, p.point()
	}
	if o.List = !p.is(watching); !o.List {
		o.Exact = []string{defaultDB}
	}
	if p.engine, err = audit.New(p.t.Context(), o); err != nil {
		p.t.Fatal(err)
	}
}

// round makes one round and checks what came of it.
func (p *performance) round() evidence.Report {
	p.t.Helper()
	p.rounds++
	logins, hangs := 0, false
	p.liar.with(func(s *show) {
		s.nth, s.made, s.shown, s.round = [calls]int{}, 0, nil, p.rounds
		logins, hangs = s.logins, s.hanging()
	})
	if logins > 3 || hangs {
		p.leave() // a client paces its logins, and hanging takes one of little patience
	}
	if p.engine == nil || !p.is(watching) {
		p.begin()
	}
	began := time.Now()
	var r evidence.Report
	if p.is(watching) {
		r = p.engine.Round(p.t.Context(), defaultDB)
		p.settle()
	} else {
		for _, one := range p.engine.Once(p.t.Context()) {
			if one.Database == defaultDB {
				r = one
			}
		}
	}
	if took := time.Since(began); took > maxRound {
		p.t.Errorf("a round took %s", took)
	}
	p.judge(r)
	p.reports = append(p.reports, r)
	return r
}

func heapInUse() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

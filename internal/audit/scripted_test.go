package audit

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/store"
	"immuaudit/proof"
)

// scripted is a server that answers as a test tells it, so that rounds, walks
// and decisions can be made to meet at any point.
type scripted struct {
	mu      sync.Mutex // guards what follows
	state   func(db string) (proof.SignedState, error)
	headers func(db string, from uint64, limit int) ([]proof.Header, error)
	bind    func(db string) error
	list    []string
	uuid    string
	calls   int
	bound   uint64
}

// fault is an answer that could not be had.
type fault evidence.Reason

func (f fault) Error() string  { return string(f) }
func (f fault) Reason() string { return string(f) }

func (s *scripted) set(f func(s *scripted)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *scripted) CurrentState(ctx context.Context, db string) (proof.SignedState, error) {
	s.mu.Lock()
	f := s.state
	s.calls++
	s.mu.Unlock()
	return f(db)
}

func (s *scripted) Headers(ctx context.Context, db string, from uint64, limit int) ([]proof.Header, error) {
	s.mu.Lock()
	f := s.headers
	s.calls++
	s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f(db, from, limit)
}

func (s *scripted) DualProof(context.Context, string, uint64, uint64) (*proof.DualProof, error) {
	return nil, fault(evidence.Refused)
}

func (s *scripted) Databases(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list, nil
}

func (s *scripted) DefaultDatabase(context.Context) (string, error) { return "db", nil }

func (s *scripted) Bind(_ context.Context, db string) error {
	s.mu.Lock()
	s.bound++
	f := s.bind
	s.mu.Unlock()
	if f != nil {
		return f(db)
	}
	return nil
}

func (s *scripted) Binding(string) uint64 { s.mu.Lock(); defer s.mu.Unlock(); return s.bound }
func (s *scripted) UUID() string          { s.mu.Lock(); defer s.mu.Unlock(); return s.uuid }

// history is a chain of empty transactions; two of different seeds have
// nothing in common after transaction fork.
type history struct {
	headers []proof.Header
	states  []proof.State // by transaction, from 0
}

func makeHistory(t testing.TB, n int, fork uint64, seed int64) *history {
	t.Helper()
	var walk proof.Walk
	h := &history{states: []proof.State{walk.At()}}
	for tx := uint64(1); tx <= uint64(n); tx++ {
		header := proof.Header{ID: tx, PrevAlh: walk.At().Alh, Ts: 1, Version: 1, EH: proof.EmptyAlh(), BlTxID: tx - 1}
		if tx > fork {
			header.Ts = seed
		}
		if tx > 1 {
			root, err := walk.Root(tx - 1)
			if err != nil {
				t.Fatal(err)
			}
			header.BlRoot = root
		}
		if err := walk.Next(&header); err != nil {
			t.Fatal(err)
		}
		h.headers, h.states = append(h.headers, header), append(h.states, walk.At())
	}
	return h
}

// shows is a state func: the history up to a transaction.
func (h *history) shows(tx uint64) func(string) (proof.SignedState, error) {
	return func(db string) (proof.SignedState, error) {
		return proof.SignedState{DB: db, State: h.states[tx]}, nil
	}
}

func (h *history) page(_ string, from uint64, limit int) ([]proof.Header, error) {
	if from > uint64(len(h.headers)) {
		return nil, nil
	}
	return h.headers[from-1 : min(int(from)-1+limit, len(h.headers))], nil
}

// gate is a place where a goroutine can be made to wait.
type gate struct{ reached, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

// pass waits until the gate is opened, and says that it does.
func (g *gate) pass() {
	select {
	case <-g.open: // opened for good
	case g.reached <- struct{}{}:
		<-g.open
	}
}

func (g *gate) await(t testing.TB, what string) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(2 * time.Minute):
		t.Fatalf("waited in vain: %s", what)
	}
}

// bench is an engine over a scripted server and a real state.
type bench struct {
	t      testing.TB
	server *scripted
	store  *store.Store
	opts   Options
	e      *Engine
	name   evidence.Name
}

func newBench(t testing.TB, h *history) *bench {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(t.TempDir(), "state"), Create: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Verify(context.Background()), s.Close()); err != nil {
			t.Error(err)
		}
	})
	b := &bench{t: t, store: s, server: &scripted{headers: h.page, uuid: "u"}, name: evidence.Name{Server: "srv", Database: "db"}}
	b.opts = Options{
		Server: b.server, Memory: s, Name: "srv", Matches: func(string) bool { return true }, List: true,
		Interval: time.Hour, WalkLimit: 10_000, WalkRate: 10_000_000, StaleAfter: time.Hour,
	}
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// pin makes a state the baseline and begins.
func (b *bench) pin(s proof.State) {
	b.t.Helper()
	b.must((&Decider{Memory: b.store}).Pin(b.t.Context(), b.name, s, nil, "known"))
	b.begin()
}

func (b *bench) begin() {
	b.t.Helper()
	e, err := New(b.t.Context(), b.opts)
	b.must(err)
	b.e = e
	b.t.Cleanup(e.work.Wait)
}

func (b *bench) round() evidence.Report { b.t.Helper(); return b.e.Round(b.t.Context(), "db") }

func (b *bench) expect(v evidence.Verdict) evidence.Report {
	b.t.Helper()
	r := b.round()
	if r.Verdict != v {
		b.t.Fatalf("verdict %s, want %s: %+v", r.Verdict, v, r)
	}
	return r
}

func (b *bench) trust() evidence.Trust {
	b.t.Helper()
	t, err := b.store.Trust(b.t.Context(), b.name)
	b.must(err)
	return t
}

func (b *bench) incident() evidence.Incident {
	b.t.Helper()
	all, err := b.store.Incidents(b.t.Context(), false)
	b.must(err)
	if len(all) != 1 {
		b.t.Fatalf("%d incidents, want 1: %+v", len(all), all)
	}
	return all[0]
}

func (b *bench) events(kind evidence.EventType) (n int) {
	b.t.Helper()
	all, err := b.store.Events(b.t.Context(), time.Time{}, 20_000)
	b.must(err)
	for _, ev := range all {
		if ev.Type == kind {
			n++
		}
	}
	return n
}

// reports waits in the background for a round.
func (b *bench) rounding() <-chan evidence.Report {
	done := make(chan evidence.Report, 1)
	go func() { done <- b.e.Round(context.WithoutCancel(b.t.Context()), "db") }()
	return done
}

package audit_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/store"
	"immuaudit/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const defaultDB = ledger.DefaultDB

// rig is a real ledger, audited over real gRPC into a real state directory.
type rig struct {
	t      testing.TB
	ledger *ledger.Ledger
	key    *ecdsa.PrivateKey
	store  *store.Store
	client *wire.Client
	opts   audit.Options
	hostile
	dir string
}

// hostile sits between ledger and auditor and may change every answer.
type hostile struct {
	mu     sync.Mutex
	change func(method string, req, resp any) (any, error)
}

func (h *hostile) set(f func(method string, req, resp any) (any, error)) {
	h.mu.Lock()
	h.change = f
	h.mu.Unlock()
}

func (h *hostile) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	h.mu.Lock()
	change := h.change
	h.mu.Unlock()
	if err != nil || change == nil {
		return resp, err
	}
	return change(info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:], req, resp)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func point(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	p, err := key.PublicKey.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return p.Bytes()
}

func newRig(t testing.TB, config ledger.Config) *rig {
	t.Helper()
	r := &rig{t: t, key: config.SigningKey, dir: filepath.Join(t.TempDir(), "state")}
	config.ServerOptions = append(config.ServerOptions, grpc.ChainUnaryInterceptor(r.intercept))
	l, err := ledger.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.ledger = l
	r.store, err = store.Open(t.Context(), store.Options{Dir: r.dir, Create: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.store.Verify(context.Background()); err != nil {
			t.Errorf("the state's invariants: %v", err)
		}
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
	r.client, err = wire.New(wire.Options{Address: l.Addr(), Username: "immudb", Password: "immudb", CallTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.client.Close() })
	r.opts = audit.Options{
		Server: r.client, Memory: r.store, Name: "srv", Address: l.Addr(), List: true,
		Matches: func(string) bool { return true }, Interval: 20 * time.Millisecond,
		WalkLimit: 10_000, WalkRate: 1_000_000, StaleAfter: time.Hour,
	}
	return r
}

func (r *rig) db(name string) *ledger.Database {
	r.t.Helper()
	db, err := r.ledger.Database(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return db
}

// write commits n transactions to the default database.
func (r *rig) write(n int) { r.t.Helper(); r.writeTo(defaultDB, n, "v") }

func (r *rig) writeTo(name string, n int, value string) {
	r.t.Helper()
	db := r.db(name)
	last, _ := db.State()
	for i := range n {
		if _, err := db.Set(fmt.Appendf(nil, "k%d", last+uint64(i)), []byte(value)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// once makes one round by a fresh engine, as audit-mode --once does.
func (r *rig) once() map[string]evidence.Report {
	r.t.Helper()
	e, err := audit.New(r.t.Context(), r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]evidence.Report{}
	for _, rep := range e.Once(r.t.Context()) {
		out[rep.Database] = rep
	}
	return out
}

// round is once for the default database.
func (r *rig) round() evidence.Report { r.t.Helper(); return r.once()[defaultDB] }

func (r *rig) expect(v evidence.Verdict) evidence.Report {
	r.t.Helper()
	rep := r.round()
	if rep.Verdict != v {
		r.t.Fatalf("verdict %s, want %s: %+v", rep.Verdict, v, rep)
	}
	return rep
}

// settle makes the first contact and a consistent round after it.
func (r *rig) settle() evidence.Report {
	r.t.Helper()
	if rep := r.round(); rep.Reason != evidence.FirstContact {
		r.t.Fatalf("first round: %+v", rep)
	}
	return r.expect(evidence.Consistent)
}

func (r *rig) tampered(kind evidence.Kind) evidence.Report {
	r.t.Helper()
	rep := r.expect(evidence.Tampered)
	if rep.Kind != kind {
		r.t.Fatalf("kind %s, want %s: %+v", rep.Kind, kind, rep.Findings)
	}
	if rep.Incident == "" || len(rep.Findings) == 0 {
		r.t.Fatalf("no incident or no finding: %+v", rep)
	}
	return rep
}

func (r *rig) trust(db string) evidence.Trust {
	r.t.Helper()
	t, err := r.store.Trust(r.t.Context(), evidence.Name{Server: "srv", Database: db})
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

func (r *rig) incidents() []evidence.Incident {
	r.t.Helper()
	all, err := r.store.Incidents(r.t.Context(), false)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *rig) events(kind evidence.EventType) []evidence.Event {
	r.t.Helper()
	all, err := r.store.Events(r.t.Context(), time.Time{}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e evidence.Event) bool { return e.Type != kind })
}

// running is an engine that makes rounds.
type running struct {
	t       testing.TB
	engine  *audit.Engine
	reports chan evidence.Report
	stop    func()
}

// start runs an engine until the test ends.
func (r *rig) start() *running {
	r.t.Helper()
	e, err := audit.New(r.t.Context(), r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	run := &running{t: r.t, engine: e, reports: make(chan evidence.Report, 4096)}
	e.OnReport(func(rep evidence.Report) {
		select {
		case run.reports <- rep:
		default:
		}
	})
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	run.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		})
	}
	r.t.Cleanup(run.stop)
	return run
}

// await takes reports until one is as wanted.
func (run *running) await(what string, want func(evidence.Report) bool) evidence.Report {
	run.t.Helper()
	timeout := time.After(2 * time.Minute)
	var last evidence.Report
	for {
		select {
		case rep := <-run.reports:
			if want(rep) {
				return rep
			}
			last = rep
		case <-timeout:
			run.t.Fatalf("%s: not seen; the newest report was %+v", what, last)
		}
	}
}

func is(v evidence.Verdict) func(evidence.Report) bool {
	return func(r evidence.Report) bool { return r.Verdict == v }
}

// poll waits for a condition.
func poll(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(2 * time.Minute)
	for !cond() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

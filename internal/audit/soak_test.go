package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/mirror"
	"immuaudit/internal/store"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// TestSoak is a long life of an honest server, as random as it gets, with
// everything of docs/protocol.md §7 and the troubles of operation in it. No
// round may ever say tampered, except of a database that was deleted, and what
// is trusted must at every moment be what the ledger really holds.
//
// IMMUAUDIT_SOAK=<rounds> makes it longer, IMMUAUDIT_SEED=<seed> makes it the
// one that failed, as far as goroutines allow: each ledger's seed follows that
// of the one before. Every soakLife rounds begin with a new server, for what
// one costs grows with the square of its life where all of it is verified again
// and again, key by key on the oldest versions.
func TestSoak(t *testing.T) {
	t.Parallel()
	rounds, seed := numberFrom(t, "IMMUAUDIT_SOAK", 200), numberFrom(t, "IMMUAUDIT_SEED", rand.Uint64N(1<<32))
	t.Logf("IMMUAUDIT_SOAK=%d IMMUAUDIT_SEED=%d", rounds, seed)
	for n := uint64(0); n < rounds; n, seed = n+soakLife, seed+1 {
		t.Run(fmt.Sprintf("IMMUAUDIT_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			s := newSoak(t, seed)
			for s.rounds.Load() < min(rounds-n, soakLife) && !t.Failed() {
				s.live()
				s.heal()
			}
		})
	}
}

const soakLife = 500

func numberFrom(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: give a number", name, text)
	}
	return n
}

// maxLive bounds the databases that a soak keeps at a time.
const maxLive = 6

type soak struct {
	*rig
	mirror *mirror.Mirror
	rnd    *rand.Rand // of the driving goroutine alone
	rounds atomic.Uint64
	made   int

	mu      sync.Mutex
	dbs     map[string]*soaked
	weather float64 // the share of answers that something happens to
	storm   *rand.Rand
}

// soaked is one database, which is known here even after it was deleted.
type soaked struct {
	*ledger.Database
	gone bool
	last evidence.Assurance // in the newest report
}

func newSoak(t *testing.T, seed uint64) *soak {
	rnd := rand.New(rand.NewPCG(seed, 1))
	version := []string{"1.0.5", "1.2.4", "1.3.2", "1.11.1"}[rnd.IntN(4)]
	config := ledger.Config{Version: version}
	if rnd.IntN(2) == 0 {
		config.SigningKey = newKey(t)
	}
	s := &soak{rig: newRig(t, config), rnd: rnd, dbs: map[string]*soaked{}, storm: rand.New(rand.NewPCG(seed, 2))}
	s.must(s.ledger.CreateUser("auditor", "Secret1!"))
	s.mirror = s.mirrored()
	s.opts.ClockSkew = time.Hour
	s.opts.Interval = 10 * time.Millisecond
	s.opts.Sinks = []audit.SinkRule{{Name: "all", Wants: func(ev evidence.Event) (bool, bool) { return true, true }}}
	s.adopt(defaultDB)
	s.create()
	s.create()
	s.set(s.trouble)
	return s
}

// connect is what a new process begins with: a client that knows nothing of the
// logins before, nor has lost patience with the server.
func (s *soak) connect() {
	s.t.Helper()
	client, err := wire.New(wire.Options{Address: s.ledger.Addr(), Username: "auditor", Password: "Secret1!", CallTimeout: 400 * time.Millisecond})
	s.must(err)
	s.t.Cleanup(func() { client.Close() })
	s.opts.Server = client
	s.opts.Deep = audit.Deep{Source: client, NewValues: s.rnd.IntN(3) == 0}
	if s.rnd.IntN(3) > 0 {
		s.opts.Deep.Every = 100 * time.Millisecond
	}
}

// adopt lets the auditor read a database.
func (s *soak) adopt(name string) {
	s.must(s.ledger.Grant("auditor", name, ledger.Read))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dbs[name] = &soaked{Database: s.db(name)}
}

func (s *soak) create() {
	s.made++
	name := fmt.Sprintf("db%d", s.made)
	s.must(s.ledger.CreateDatabase(name))
	s.adopt(name)
}

// alive names the databases that were not deleted, in a fixed order.
func (s *soak) alive() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, name := range s.ledger.Databases() {
		if d := s.dbs[name]; d != nil && !d.gone {
			names = append(names, name)
		}
	}
	return names
}

func (s *soak) any() string {
	names := s.alive()
	return names[s.rnd.IntN(len(names))]
}

// trouble happens to answers of an honest server.
func (s *soak) trouble(_ string, _, resp any) (any, error) {
	s.mu.Lock()
	happens, what := s.storm.Float64() < s.weather, s.storm.IntN(20)
	s.mu.Unlock()
	if !happens {
		return resp, nil
	}
	switch {
	case what == 0:
		<-time.After(500 * time.Millisecond) // longer than the client waits
	case what < 10:
		<-time.After(time.Duration(what) * 3 * time.Millisecond)
	case what < 14:
		return nil, status.Error(codes.Unknown, "max concurrency limit exceeded")
	case what < 16:
		return nil, status.Error(codes.Unavailable, "going away")
	case what < 18:
		return nil, status.Error(codes.Internal, "index is stalled")
	case what < 19:
		return nil, status.Error(codes.Unauthenticated, "please login")
	}
	return resp, nil
}

func (s *soak) setWeather(share float64) {
	s.mu.Lock()
	s.weather = share
	s.mu.Unlock()
}

// look checks one report against what the ledger really holds.
func (s *soak) look(rep evidence.Report) {
	s.rounds.Add(1)
	if rep.Database == "" {
		if rep.Verdict != evidence.Undetermined {
			s.t.Errorf("a report of no database: %+v", rep)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dbs[rep.Database]
	if d == nil {
		s.t.Errorf("a report of a database that never was: %+v", rep)
		return
	}
	if rep.Verdict == evidence.Tampered && !(d.gone && rep.Kind == evidence.Vanished) {
		s.t.Errorf("%s (deleted: %v): %+v", rep.Database, d.gone, rep)
	}
	for what, mark := range map[string]*evidence.Mark{"trusted": rep.Trusted, "observed": rep.Observed} {
		if mark != nil && d.alh(s, mark.Tx).String() != mark.Alh {
			s.t.Errorf("%s: %s is not what the ledger holds: %+v", rep.Database, what, rep)
		}
	}
	a := rep.Assurance
	if a == nil {
		if rep.Verdict == evidence.Consistent {
			s.t.Errorf("consistent with nothing: %+v", rep)
		}
		return
	}
	if a.Verified > a.Walked || a.Walked > a.Proven || rep.Trusted == nil || a.Proven != rep.Trusted.Tx {
		s.t.Errorf("%s: watermarks %+v, trusted %+v", rep.Database, *a, rep.Trusted)
	}
	if a.Proven < d.last.Proven || a.Walked < d.last.Walked || a.Verified < d.last.Verified {
		s.t.Errorf("%s: watermarks went back from %+v to %+v", rep.Database, d.last, *a)
	}
	d.last = *a
}

// alh is what the ledger itself holds.
func (d *soaked) alh(s *soak, tx uint64) proof.Hash {
	if tx == 0 {
		return proof.EmptyAlh()
	}
	stored, err := d.Snapshot().Tx(tx)
	if err != nil {
		s.t.Errorf("%s: transaction %d: %v", d.Name(), tx, err)
		return proof.Hash{}
	}
	return stored.Alh
}

// remembered checks what is on disk.
func (s *soak) remembered() {
	s.t.Helper()
	s.must(s.store.Verify(s.t.Context()))
	all, err := s.store.Load(s.t.Context())
	s.must(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, trust := range all.Trust {
		d := s.dbs[trust.Name.Database]
		var walk proof.Walk
		if len(trust.Walk) > 0 {
			s.must(walk.UnmarshalBinary(trust.Walk))
		}
		marks := append([]proof.State{trust.Proven.State, trust.Baseline.State, walk.At()}, all.Marks[trust.Name]...)
		for i, m := range marks {
			if d.alh(s, m.TxID) != m.Alh {
				s.t.Errorf("%s: remembered %v (%d of %d) is not what the ledger holds", trust.Name, m, i, len(marks))
			}
		}
	}
	for _, trust := range all.Trust {
		l, err := s.mirror.Ledger(trust.Name)
		s.must(err)
		if l.Size() > trust.Walked {
			s.t.Errorf("%s: %d transactions are mirrored, %d walked", trust.Name, l.Size(), trust.Walked)
		}
		s.must(l.Check(s.t.Context()))
		for tx := l.Size(); tx > 0 && tx+100 > l.Size(); tx-- {
			if ok, err := l.Holds(tx, s.dbs[trust.Name.Database].alh(s, tx)); err != nil || !ok {
				s.t.Errorf("%s: transaction %d is mirrored otherwise (%v)", trust.Name, tx, err)
			}
		}
	}
	for _, what := range []evidence.EventType{evidence.EventStateProblem, evidence.EventClockSkew} {
		if events := s.events(what); len(events) > 0 {
			s.t.Errorf("an alert about nothing: %+v", events[0])
		}
	}
	for _, inc := range all.Open {
		if inc.Kind != evidence.Vanished || !s.dbs[inc.Name.Database].gone {
			s.t.Errorf("an incident about an honest ledger: %+v", inc)
		}
	}
	if n, deleted := len(s.events(evidence.EventTampered)), s.made+1-len(s.ledger.Databases()); n > deleted {
		s.t.Errorf("%d tampered events, %d databases were deleted", n, deleted)
	}
}

// live is one life of an auditor's process.
func (s *soak) live() {
	s.t.Helper()
	if s.rnd.IntN(2) == 0 {
		s.must(s.store.Close())
		again, err := store.Open(s.t.Context(), store.Options{Dir: s.dir, Logger: slog.New(slog.DiscardHandler)})
		s.must(err)
		s.store, s.opts.Memory = again, again
	}
	s.opts.WalkLimit = []uint64{0, 5, 10_000}[s.rnd.IntN(3)]
	s.opts.WalkRate = []int{0, 5_000, 1_000_000}[s.rnd.IntN(3)]
	if withMirror := s.opts.Mirror; s.rnd.IntN(4) == 0 { // as after a crash before it was written
		s.opts.Mirror = nil
		defer func() { s.opts.Mirror = withMirror }()
	}
	s.opts.Comparisons = s.rnd.IntN(3) == 0
	s.setWeather([]float64{0, 0.05, 0.3}[s.rnd.IntN(3)])
	s.connect()
	defer s.write2()()

	if s.rnd.IntN(3) == 0 { // by cron
		for range 5 {
			s.happen()
			for _, rep := range s.once() {
				s.look(rep)
			}
		}
		return
	}
	e, err := audit.New(s.t.Context(), s.opts)
	s.must(err)
	e.OnReport(s.look)
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	for range 10 {
		s.happen()
		before := s.rounds.Load()
		poll(s.t, "rounds are made", func() bool { return s.rounds.Load() >= before+uint64(len(s.alive())) })
		if st := e.Status(); len(st.Ledgers) > s.made+1 {
			s.t.Errorf("%d ledgers of %d", len(st.Ledgers), s.made+1)
		}
	}
	cancel()
	s.must(<-done)
}

// write2 has two writers write until what it gives is called.
func (s *soak) write2() (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var writers sync.WaitGroup
	for range 2 {
		rnd := rand.New(rand.NewPCG(s.rnd.Uint64(), 3))
		writers.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				names := s.alive()
				db, err := s.ledger.Database(names[rnd.IntN(len(names))])
				for i := 0; err == nil && i <= rnd.IntN(1+rnd.IntN(12)); i++ {
					// A database that was deleted or unloaded meanwhile takes nothing.
					_, err = db.Set(fmt.Appendf(nil, "k%d", n), []byte("v"))
				}
			}
		})
	}
	return func() { cancel(); writers.Wait() }
}

// happen is one thing that honest operators and honest servers do.
func (s *soak) happen() {
	s.t.Helper()
	db := s.any()
	switch s.rnd.IntN(14) {
	case 0:
		s.must(s.ledger.Restart())
	case 1:
		s.must(s.ledger.SetHeaderVersion(s.rnd.IntN(2)))
	case 2, 3: // lagging and not monotone, at times by more than was ever seen
		salt, most := s.rnd.Uint64(), uint64(s.rnd.IntN(60)+1)
		s.ledger.SetBlTxID(func(_ string, id uint64) uint64 {
			return id - 1 - min(id-1, rand.New(rand.NewPCG(salt, id)).Uint64N(most))
		})
	case 4:
		s.ledger.SetBlTxID(nil)
	case 5:
		s.must(s.ledger.UnloadDatabase(db))
	case 6:
		s.must(s.ledger.LoadDatabase(db))
	case 7:
		s.must(s.ledger.Revoke("auditor", db))
	case 8:
		s.must(s.ledger.Grant("auditor", db, ledger.Read))
	case 9:
		s.must(s.ledger.SetUUID(fmt.Sprintf("uuid%d", s.rnd.IntN(5))))
	case 10:
		if len(s.alive()) < maxLive {
			s.create()
		}
	case 11: // its index is the next new one's
		if len(s.alive()) > 2 && db != defaultDB {
			s.mu.Lock()
			s.dbs[db].gone = true
			s.mu.Unlock()
			s.must(s.ledger.DeleteDatabase(db))
			if s.rnd.IntN(2) == 0 {
				s.create()
			}
		}
	case 12: // retention
		if last, _ := s.dbs[db].State(); last > 5 {
			_, err := s.dbs[db].Truncate(1 + s.rnd.Uint64N(last))
			if err != nil && !strings.Contains(err.Error(), "closed") {
				s.t.Errorf("truncating: %v", err)
			}
		}
	case 13:
		d := s.dbs[db].Database
		for range 200 { // a burst, longer than most walk limits here
			if _, err := d.Set([]byte("burst"), []byte("v")); err != nil {
				break
			}
		}
	}
}

// verifyAll looks at every entry and value: nothing was ever damaged.
func (s *soak) verifyAll() {
	s.t.Helper()
	e, err := audit.New(s.t.Context(), s.opts)
	s.must(err)
	for _, db := range s.alive() {
		e.Walk(s.t.Context(), db, func(uint64, uint64) {})
		sum, rep, err := e.Verify(s.t.Context(), db, audit.Verification{})
		if err != nil || rep.Verdict != evidence.Consistent || sum.Tally.Damages() > 0 || sum.Clean != sum.To {
			s.t.Errorf("%s: verified %+v: %+v, %v", db, sum, rep, err)
		}
	}
}

// heal ends all trouble; then every ledger must soon be consistent up to its
// newest transaction, and what was deleted gets an operator's decision.
func (s *soak) heal() {
	s.t.Helper()
	s.setWeather(0)
	for _, db := range s.alive() {
		s.must(s.ledger.LoadDatabase(db))
		s.must(s.ledger.Grant("auditor", db, ledger.Read))
	}
	s.connect()
	if s.opts.WalkRate == 0 {
		s.opts.WalkRate = 1_000_000
	}
	var missing string
	again := time.NewTicker(50 * time.Millisecond) // a lost connection comes back within a second
	defer again.Stop()
	for range 100 {
		missing = ""
		reports := s.once()
		for _, rep := range reports {
			s.look(rep)
		}
		for _, db := range s.alive() {
			last, _ := s.db(db).State()
			if rep := reports[db]; rep.Verdict != evidence.Consistent || rep.Trusted.Tx != last {
				missing += fmt.Sprintf("%s at %d: %+v\n", db, last, rep)
			}
		}
		if missing == "" {
			break
		}
		<-again.C
	}
	if missing != "" {
		s.t.Errorf("after all trouble ended, with a walk limit of %d:\n%s", s.opts.WalkLimit, missing)
	}
	s.verifyAll()
	s.remembered()
	for _, inc := range s.incidents() {
		trust := s.trust(inc.Name.Database)
		err := (&audit.Decider{Memory: s.store}).Accept(s.t.Context(), inc, &trust, audit.KeyChoice{}, "deleted on purpose")
		if err != nil && !errors.Is(err, audit.ErrDecision) {
			s.t.Fatal(err)
		}
	}
}

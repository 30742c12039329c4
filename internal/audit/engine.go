// Package audit is the engine: a round over one ledger fetches what the server
// claims, checks it against what was proven before, judges, remembers and
// reports; a watch makes rounds over all ledgers of a server, each independent
// of the others.
//
// Only this package turns a mismatch into a verdict of tampered. Everything a
// server does may be hostile or just broken: a contradiction of what was proven
// is tampered, never "error"; a cable pulled is undetermined, never tampered.
// A mismatch is believed only after it repeated itself on a token that was
// bound by name a moment before, and that named the right database before and
// after (docs/protocol.md §1: a stale token may honestly point elsewhere).
package audit

import (
	"context"
	"crypto/ecdsa"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// SinkRule says which events a sink wants.
type SinkRule struct {
	Name  string
	Wants func(evidence.Event) (want, coalesce bool)
}

// Options configure an engine. Server, Memory, Name and Matches are required.
type Options struct {
	Server  Server
	Memory  Memory
	Name    string // the operator's name for the server
	Address string // host:port, for people
	Logger  *slog.Logger

	// Key, if set, is authoritative: states must be signed by it.
	Key *ecdsa.PublicKey
	// KeyPoint is Key as an uncompressed point.
	KeyPoint []byte

	// List: ask the server for its databases and audit those that match.
	List bool
	// Matches filters listed and remembered names.
	Matches func(database string) bool
	// Exact names are audited whether or not they are listed.
	Exact []string
	// Fallback names are audited where the server refuses to list any.
	Fallback []string

	Interval   time.Duration
	WalkLimit  uint64 // longest gap that a round closes by walking; 0 = dual proofs only
	WalkRate   int    // headers per second of all background walks; 0 = no background walk
	StaleAfter time.Duration

	Sinks []SinkRule
	// Comparisons: make an event of every comparison.
	Comparisons bool
	// Alarm is called when an incident could not be stored in time: the last
	// way out for an alert.
	Alarm func(evidence.Event, error)
}

// Engine audits the ledgers of one server.
type Engine struct {
	o       Options
	log     *slog.Logger
	started time.Time
	once    bool // one round each, nothing in the background
	tellAll func(evidence.Report)

	slots, slow, walks *semaphore.Weighted
	walkRate           *rate.Limiter

	mu         sync.Mutex // guards what follows
	ledgers    map[string]*ledger
	listed     time.Time // when the list was last had
	listNext   time.Time
	listing    bool
	mute       bool // never listed for so long that it was told
	serverErr  string
	gone       bool             // the server could not be reached when last asked
	uuid       string           // last UUID reported
	others     []evidence.Trust // every record of the state directory
	loopAt     time.Time
	firstPass  bool
	generation uint64
	checkedGen time.Time
	warnedList bool

	outdated        atomic.Bool // another process decided something
	rounds, dropped atomic.Uint64
	inFlight        atomic.Int64
	work            sync.WaitGroup
}

// ledger is one database of the server as the engine keeps it in mind.
type ledger struct {
	name evidence.Name

	// writing serialises changes of the record; it may be held while the
	// change is synced to disk.
	writing sync.Mutex

	mu     sync.Mutex // guards what follows; held for moments only
	epoch  uint64     // counts decisions of other processes: work begun before one is void
	trust  evidence.Trust
	walk   *proof.Walk // stands at trust.Walked
	marks  []proof.State
	open   []evidence.Incident
	last   evidence.Report
	prevTx uint64

	observedTx   uint64
	lagging      uint64
	undetermined time.Time
	stale        bool
	paused       bool
	slow         bool
	missing      missing
	goal         proof.SignedState // where the background walk is to go beyond proven, if anywhere
	walkAfter    time.Time         // a walk that failed rests until then
	agreed       bool              // what the server showed last agreed with Proven
	savedAt      time.Time
	lastSuccess  time.Time
	lastAttempt  time.Time
	unsaved      bool // an incident in open is not on disk yet

	busy    atomic.Bool // a round is in flight
	walking atomic.Bool // a background walk is in flight
}

// missing counts how often the server said that the database does not exist.
type missing struct {
	since time.Time
	times int
}

// New prepares an engine from what is remembered. It talks to no server.
func New(ctx context.Context, o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		o: o, log: o.Logger.With("server", o.Name), started: time.Now(),
		slots: semaphore.NewWeighted(slotsPerServer), slow: semaphore.NewWeighted(slowSlots),
		walks:   semaphore.NewWeighted(walksPerServer),
		ledgers: map[string]*ledger{},
	}
	if o.WalkRate > 0 {
		e.walkRate = rate.NewLimiter(rate.Limit(o.WalkRate), max(o.WalkRate, pageHeaders))
	}
	if err := e.reload(ctx); err != nil {
		return nil, err
	}
	for _, name := range o.Exact {
		e.ledger(name)
	}
	return e, nil
}

// OnReport sets what is called after every round, from many goroutines. It is
// to be set before Run.
func (e *Engine) OnReport(f func(evidence.Report)) { e.tellAll = f }

// ledger finds or adds a ledger; nil if there are too many.
func (e *Engine) ledger(database string) *ledger {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.ledgers[database]; l != nil {
		return l
	}
	if len(e.ledgers) >= maxLedgers {
		return nil
	}
	l := &ledger{name: evidence.Name{Server: e.o.Name, Database: database}, walk: new(proof.Walk)}
	l.trust.Name = l.name
	l.paused = !e.wanted(database)
	e.ledgers[database] = l
	return l
}

// wanted reports whether the configuration asks for a database.
func (e *Engine) wanted(database string) bool {
	return slices.Contains(e.o.Exact, database) || e.o.Matches(database)
}

// reload takes over what is on disk: at the start, and whenever another
// process decided something. It holds every ledger's write lock meanwhile, so
// that what it read is not outdated when it is taken over. Only the scheduler
// calls it.
func (e *Engine) reload(ctx context.Context) error {
	for _, l := range e.all() {
		l.writing.Lock()
		defer l.writing.Unlock()
	}
	gen, err := e.o.Memory.Generation(ctx)
	if err != nil {
		return err
	}
	remembered, err := e.o.Memory.Load(ctx)
	if err != nil {
		return err
	}
	records := map[string]*record{}
	of := func(db string) *record {
		if records[db] == nil {
			records[db] = &record{trust: evidence.Trust{Name: evidence.Name{Server: e.o.Name, Database: db}}}
		}
		return records[db]
	}
	for _, t := range remembered.Trust {
		if t.Name.Server == e.o.Name {
			of(t.Name.Database).trust = t
		}
	}
	for _, inc := range remembered.Open {
		if inc.Name.Server == e.o.Name { // also before any trust: at first contact
			r := of(inc.Name.Database)
			r.open = append(r.open, inc)
		}
	}
	for db, r := range records {
		r.marks = remembered.Marks[r.trust.Name]
		if err := e.adopt(db, r); err != nil {
			return err
		}
	}
	for _, l := range e.all() {
		if records[l.name.Database] == nil {
			e.forget(l)
		}
	}
	e.mu.Lock()
	e.generation, e.others = gen, remembered.Trust
	e.mu.Unlock()
	return nil
}

// record is what is stored of one ledger.
type record struct {
	trust evidence.Trust
	marks []proof.State
	open  []evidence.Incident
}

// adopt puts a stored record into mind unless it is the one already there.
func (e *Engine) adopt(db string, r *record) error {
	walk := new(proof.Walk)
	if len(r.trust.Walk) > 0 {
		if err := walk.UnmarshalBinary(r.trust.Walk); err != nil {
			return &StateError{Name: r.trust.Name, Err: err}
		}
	}
	if walk.At().TxID != r.trust.Walked {
		return &StateError{Name: r.trust.Name, Err: errWalkPosition}
	}
	l := e.ledger(db)
	if l == nil {
		return &StateError{Name: r.trust.Name, Err: errTooMany}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.trust.Version == l.trust.Version && sameIncidents(l.open, r.open) {
		return nil
	}
	l.epoch++
	l.trust, l.walk, l.marks = r.trust, walk, r.marks
	if !l.unsaved {
		l.open = r.open
	}
	l.missing, l.goal = missing{}, proof.SignedState{}
	if l.lastSuccess.IsZero() {
		l.lastSuccess, l.lastAttempt = r.trust.LastAgreed, r.trust.LastAttempt
	}
	return nil
}

// forget drops what is no longer stored: a ledger renamed away, or one whose
// only record was an incident that was closed.
func (e *Engine) forget(l *ledger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trust.Version == 0 && (len(l.open) == 0 || l.unsaved) {
		return
	}
	l.epoch++
	l.trust, l.walk, l.marks, l.open = evidence.Trust{Name: l.name}, new(proof.Walk), nil, nil
	if !slices.Contains(e.o.Exact, l.name.Database) {
		e.mu.Lock()
		delete(e.ledgers, l.name.Database) // found again if it is listed
		e.mu.Unlock()
	}
}

func sameIncidents(a, b []evidence.Incident) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].Version != b[i].Version {
			return false
		}
	}
	return true
}

// all gives the ledgers in no order.
func (e *Engine) all() []*ledger {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*ledger, 0, len(e.ledgers))
	for _, l := range e.ledgers {
		out = append(out, l)
	}
	return out
}

// idle reports whether the ledger is not to be audited now.
func (l *ledger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused || l.trust.Retired
}

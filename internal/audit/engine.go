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

	// Record puts evidence on disk and gives its path; nil keeps none. It may
	// take as long as the disk takes.
	Record func(evidence.Material) (path string, err error)
	// Version of the auditor and the channel to the server, for the evidence.
	Version string
	Channel func() evidence.Channel

	// Mirror gives the mirror of a ledger, an empty one where it is to be
	// anew: what there was is set aside. Nil keeps none.
	Mirror func(name evidence.Name, anew bool) (Mirror, error)

	// Deep verifies the contents of transactions.
	Deep Deep
	// Common is what the engines of one process share; nil: this one is alone.
	Common *Common
	// Tags are those the operator gave the server; they go with every event.
	Tags []string

	// ExpectGrowth alerts when a ledger gets no new transaction for so long,
	// ClockSkew when timestamps of new ones run backwards or ahead by more.
	// 0 = never.
	ExpectGrowth, ClockSkew time.Duration

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

	brisk, slow        *lane         // rounds; those of ledgers whose last one timed out
	walks              *lane         // background walks
	mirrors            *lane         // writing to mirrors
	shorts, longs      *lane         // deep verification in the background: of few transactions, and of many
	reading, scrubbing *rate.Limiter // bytes of contents that are read in a second; nil: no bound
	walkRate           *rate.Limiter
	chatter            *rate.Limiter
	nowhere            *walked // before transaction 1

	mu         sync.Mutex // guards what follows
	ledgers    map[string]*ledger
	listed     time.Time // when the list was last had
	listNext   time.Time
	listing    bool
	mute       bool // never listed for so long that it was told
	serverErr  string
	gone       bool        // the server could not be reached when last asked
	uuid       string      // last UUID reported
	identities []time.Time // when the newest changes of it were
	news       gathered
	loopAt     time.Time
	firstPass  bool
	generation uint64
	checkedGen time.Time
	reloadNext time.Time // a reading of the state that failed rests until then
	warnedList bool

	outdated        atomic.Bool // another process decided something
	rounds, dropped atomic.Uint64
	silenced        atomic.Uint64 // lines that were not logged since the last summary
	inFlight        atomic.Int64
	telling         atomic.Bool // what was gathered is being told
	work            sync.WaitGroup
}

// ledger is one database of the server as the engine keeps it in mind.
type ledger struct {
	name evidence.Name

	// writing serialises changes of the record; it may be held while the
	// change is synced to disk. It guards late: the storing of an incident
	// that did not end in time.
	writing sync.Mutex
	late    *lateStoring

	mu     sync.Mutex // guards what follows; held for moments only
	epoch  uint64     // counts decisions of other processes: work begun before one is void
	void   bool       // dropped from the engine: all work on it is void
	trust  evidence.Trust
	walk   *walked // stands at trust.Walked
	marks  []proof.State
	open   []evidence.Incident
	last   evidence.Report
	prevTx uint64

	observedTx   uint64
	lagging      uint64
	undetermined time.Time
	stale        bool
	newest       time.Time // the newest timestamp of a proven transaction
	skewed       bool      // it was told that the timestamps are odd
	still        bool      // it was told that the ledger does not grow
	paused       bool
	slow         bool
	missing      missing
	goal         proof.SignedState // where the background walk is to go beyond proven, if anywhere
	walkAfter    time.Time         // a walk that failed rests until then
	agreed       bool              // what the server showed last agreed with Proven
	savedAt      time.Time
	lastSuccess  time.Time
	lastAttempt  time.Time
	roundAt      time.Time   // when the round in flight began
	deepAfter    time.Time   // deep verification that met an error rests until then
	recheckAt    time.Time   // known damage is not looked at again before
	leftAfter    time.Time   // nor what could not be verified
	leftAt       uint64      // the first such that could be, when looked at again
	lookedAt     uint64      // how far deep verification has come just now
	checked      proof.State // how far new values are verified that are not trusted yet
	// unsaved are the events of incidents in open that are not on disk yet.
	unsaved []evidence.Event
	// grownTold is when somebody was last told that damage has grown.
	grownTold time.Time

	busy      atomic.Bool // a round is in flight
	walking   atomic.Bool // a background walk is in flight
	mirroring atomic.Bool // the mirror is being written or filled
	verifying atomic.Bool // contents are being verified
	past      *mirrored   // nil where nothing is mirrored
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
		brisk: newLane(slotsPerServer), slow: newLane(slowSlots), walks: newLane(walksPerServer),
		mirrors: newLane(mirrorers),
		chatter: rate.NewLimiter(chatter, chatterBurst),
		nowhere: holding(new(proof.Walk)), ledgers: map[string]*ledger{},
	}
	if e.o.Common == nil {
		e.o.Common = NewCommon(&o.Deep)
	}
	_, _, shorts := o.Deep.shares()
	// Rounds that verify before they trust always find one slot free of these.
	e.shorts, e.longs = newLane(max(1, int(shorts)-1)), newLane(1)
	e.reading, e.scrubbing = newPace(o.Deep.BytesPerSecond), newPace(o.Deep.ScrubBytes)
	if o.WalkRate > 0 {
		e.walkRate = rate.NewLimiter(rate.Limit(o.WalkRate), max(o.WalkRate, pageHeaders))
	}
	if err := e.reload(ctx); err != nil {
		return nil, err
	}
	for _, name := range o.Exact {
		e.known(name)
	}
	if err := e.checkMirrors(); err != nil {
		return nil, err
	}
	return e, nil
}

// OnReport sets what is called after every round, from many goroutines. It is
// to be set before Run.
func (e *Engine) OnReport(f func(evidence.Report)) { e.tellAll = f }

// ledger finds or adds a ledger that somebody named; nil if there are too
// many. What a server lists must not crowd out what is known otherwise.
func (e *Engine) ledger(database string) *ledger {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ledgers[database] == nil && len(e.ledgers) >= maxLedgers {
		return nil
	}
	return e.add(database)
}

// known finds or adds a ledger that is remembered or configured, however many
// there are.
func (e *Engine) known(database string) *ledger {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.add(database)
}

// add finds or adds a ledger; e.mu is held.
func (e *Engine) add(database string) *ledger {
	if l := e.ledgers[database]; l != nil {
		return l
	}
	l := &ledger{name: evidence.Name{Server: e.o.Name, Database: database}, walk: e.nowhere}
	l.trust.Name = l.name
	if e.o.Mirror != nil && e.walkRate != nil {
		l.past = &mirrored{open: func(anew bool) (Mirror, error) { return e.o.Mirror(l.name, anew) }}
	}
	l.paused = !e.wanted(database)
	if ev, out := e.news.out[database]; out { // before the auditor was started
		l.stale, l.undetermined = true, ev.At
	}
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
	held := e.all()
	for _, l := range held {
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
		l := e.known(db)
		if err := e.adopt(l, r, slices.Contains(held, l)); err != nil {
			return err
		}
	}
	// A ledger that came up meanwhile may have been stored after the state was
	// read: only those that were held are known not to be there.
	for _, l := range held {
		if records[l.name.Database] == nil {
			e.forget(l)
		}
	}
	e.o.Common.remember(remembered.Trust)
	e.mu.Lock()
	if e.news.out == nil {
		e.resume(remembered.Out, time.Now())
	}
	e.generation = gen
	e.mu.Unlock()
	return nil
}

// record is what is stored of one ledger.
type record struct {
	trust evidence.Trust
	marks []proof.State
	open  []evidence.Incident
}

// adopt puts a stored record into mind unless it is the one already there. A
// ledger that was not held while the state was read and has a record already is
// newer than what was read.
func (e *Engine) adopt(l *ledger, r *record, held bool) error {
	walk, err := walkedOf(r.trust.Walk)
	if err != nil {
		return &StateError{Name: r.trust.Name, Err: err}
	}
	if walk.At().TxID != r.trust.Walked {
		return &StateError{Name: r.trust.Name, Err: errWalkPosition}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var stored, unsaved []evidence.Incident
	for _, inc := range l.open {
		if inc.Version > 0 {
			stored = append(stored, inc)
		} else {
			unsaved = append(unsaved, inc)
		}
	}
	if r.trust.Version == l.trust.Version && sameIncidents(stored, r.open) || !held && (l.trust.Version > 0 || len(l.open) > 0) {
		return nil
	}
	l.epoch++
	if r.trust.Baseline != l.trust.Baseline || r.trust.Walked != l.trust.Walked {
		l.past.forget()
		if s := r.trust.Proven; r.trust.Baseline.Origin == evidence.OriginAccepted && carriedVerifies(&s) {
			l.past.witness(s, r.trust.ProvenAt) // an accepted state is kept as one that was proven
		}
	}
	l.trust, l.walk, l.marks = r.trust, walk, r.marks
	l.open = append(slices.Clip(r.open), unsaved...)
	l.missing, l.goal, l.deepAfter = missing{}, proof.SignedState{}, time.Time{}
	if l.lastSuccess.IsZero() {
		l.lastSuccess, l.lastAttempt = r.trust.LastAgreed, r.trust.LastAttempt
	}
	return nil
}

// forget drops what is no longer stored: a ledger renamed away, or one whose
// only record was an incident that was closed. l.writing is held.
func (e *Engine) forget(l *ledger) {
	l.mu.Lock()
	if l.trust.Version == 0 && (len(l.open) == 0 || len(l.unsaved) > 0) {
		l.mu.Unlock()
		return
	}
	l.epoch++
	l.trust, l.walk, l.marks, l.open, l.unsaved = evidence.Trust{Name: l.name}, e.nowhere, nil, nil, nil
	l.goal, l.missing = proof.SignedState{}, missing{}
	l.past.forget()
	l.mu.Unlock()
	if !slices.Contains(e.o.Exact, l.name.Database) {
		e.drop(l)
		e.mu.Lock()
		e.listNext = time.Time{} // it is found again at once if it is listed
		e.mu.Unlock()
	}
}

// drop takes a ledger of which nothing is stored out of the engine. Should it
// be named again it begins anew; work in flight on this one is void, so that
// there are never two minds about one database. l.writing is held.
func (e *Engine) drop(l *ledger) {
	l.mu.Lock()
	l.void = true
	l.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ledgers[l.name.Database] == l {
		delete(e.ledgers, l.name.Database)
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
	return l.paused || l.void || l.trust.Retired
}

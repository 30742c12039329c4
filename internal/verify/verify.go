// Package verify checks what the transactions of a ledger contain, from any
// transaction to any other: every header is the remembered one, every listing
// of entries hashes to what its header commits to, and every value, hashed
// here, is the one its entry commits to. It knows no clock but for expiry,
// stores nothing, and decides nothing: what does not hold is a [Damage], for
// the caller to judge.
//
//	sum, err := verify.Run(ctx, verify.Options{
//		Source: client, Database: "orders", Mirror: mirror, Trusted: states, Found: report,
//	})
//	// sum.Through: everything up to there is settled; the next run begins after it
//
// # What holds a transaction
//
// Headers chain: each names the Alh of the one before. One that hashes to a
// known Alh therefore vouches for all before it that chain up to it. Known are
// the leaf hashes of the mirror, where there is one, and the trusted states.
// A transaction is settled when its header is bound to one of them in this
// way; until then what was found in it waits.
//
// # Where values come from
//
// Best first, chosen page by page: listings with raw values; listings of
// digests, for what those leave out; and where that was asked for, exports. One
// value that is damaged or gone fails a whole page of transactions, and so
// pages are halved down to the transaction, and that is asked for kind by kind
// of entry and key by key. docs/decisions/0012 says why.
//
// Four things may keep a value from being seen with nothing being wrong: its
// entry has expired; retention has removed it, and a trusted header says so; it
// belongs to a document, and nobody asked for exports; the server is older than
// 1.2.3 and its entry can neither be asked for by key nor exported. They are
// counted apart ([Count]) and never called verified.
//
// # What a server can do
//
// A server that reports damage and one that hides it end in the same finding:
// whatever it says, a value was either seen and hashed to what is committed,
// or was not. Trouble with the connection is tried again, and then ends the
// run with an error that says where; it is never damage.
package verify

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"immuaudit/proof"
)

// Options say what to verify, against what, and how gently.
type Options struct {
	Source   Source
	Database string

	// Mirror holds the leaf hash of every transaction from the first to its
	// size; nil where there is none. Trusted are states that are known beside
	// it: at least one at or after To must be among both together.
	Mirror  Mirror
	Trusted []proof.State

	// From and To are the first and the last transaction to verify; 0 is the
	// first there is, and the newest that is known.
	From, To uint64

	// Export fetches what listings leave out, documents above all, with
	// exportTx: see the warnings of docs/protocol.md §2.
	Export bool

	// Retained is the newest truncation that is known from earlier runs:
	// values before that transaction may be gone. See [Summary.Retained].
	Retained uint64

	// MessageBytes is the most that the Source takes as one answer; 0 is
	// 4 MiB. MemoryBytes bounds how much is held at a time, whatever the size
	// of the ledger and whatever the server sends; 0 is 256 MiB, and less than
	// [LeastMemory] is that much, which one answer can take.
	MessageBytes, MemoryBytes int64
	// BytesPerSecond bounds what is read from the server; 0 does not.
	BytesPerSecond int64

	// Confirm makes sure that what look is shown is about this database: on a
	// fresh token that names it before and after, say. It must call look, and
	// fails where that cannot be made sure. It is called, once at a time,
	// before a contradiction is believed, which is then looked at again. Nil
	// only looks again.
	Confirm func(ctx context.Context, look func(context.Context) error) error

	// Progress is told after each page how far everything is settled; Found is
	// given each damage, in the order of transactions, as soon as it is sure,
	// up to evidence.MaxFindings of them. Both are called one at a time.
	Progress func(Progress)
	Found    func(Damage)
}

// Progress says how far a run has come.
type Progress struct {
	Through uint64 // everything up to this transaction is settled
	To      uint64
	Tally
}

// Summary is what a run has come to.
type Summary struct {
	From, To uint64
	// Through is how far everything is settled: verified, or found damaged.
	// The next run goes on after it. It is less than To only beside an error,
	// and From−1 if nothing was settled.
	Through uint64
	// Clean is how far every transaction is bound and undamaged: at most
	// Through.
	Clean uint64
	Tally
	// Damages are the first that were found, Unread the first transactions
	// that could not be looked at.
	Damages []Damage
	Unread  []Unread
	// Exports is why there were no more exports although they were asked for:
	// no permission, or one that did not return.
	Exports error
	// Retained is the newest truncation that was seen, to be remembered: it is
	// an option of the next run.
	Retained uint64
	// Unsettled is a state after the newest trusted one, whose header records
	// the truncation that some values counted as truncated need. Unless it
	// becomes part of the trusted history, they are missing. Zero for none.
	Unsettled proof.State
}

// Unread is a transaction that the server would not or could not show, for a
// reason that speaks neither of damage nor of the connection.
type Unread struct {
	Tx  uint64
	Err error
}

// Stopped is the error of a run that ended early. What came before At is
// settled, so that a run from there goes on.
type Stopped struct {
	At  uint64
	Err error
}

func (e *Stopped) Error() string {
	return fmt.Sprintf("stopped before transaction %d: %v; verify again from there", e.At, e.Err)
}

func (e *Stopped) Unwrap() error { return e.Err }

// errUnread is the error of a run that came to its end and had to leave some
// transactions out.
func errUnread(list []Unread) error {
	return fmt.Errorf("%d transactions could not be read, the first is %d: %w; all others were looked at, verify again from there", len(list), list[0].Tx, list[0].Err)
}

// Run verifies. It returns what it has come to in any case: damage that was
// found is no error. An error says that not everything was looked at, as a
// *Stopped where it says from where on.
func Run(ctx context.Context, o Options) (Summary, error) {
	r, err := newRun(o)
	if err != nil {
		return Summary{}, err
	}
	return r.run(ctx)
}

// run is what the parts of one run share.
type run struct {
	o      Options
	known  known
	flight int // stretches that are looked at at a time

	sizes   sizer
	pace    pace
	retain  retention
	old     oldServer
	exports exporting
	believe believer
	kept    atomic.Int64 // bytes of damages
}

func newRun(o Options) (*run, error) {
	if o.Source == nil {
		return nil, errors.New("verifying needs a server to read from")
	}
	if o.MessageBytes <= 0 {
		o.MessageBytes = defaultMessage
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = DefaultMemory
	}
	r := &run{o: o, pace: newPace(o.BytesPerSecond)}
	var err error
	if r.known, err = newKnown(o.Mirror, o.Trusted); err != nil {
		return nil, err
	}
	if r.o.From == 0 {
		r.o.From = 1
	}
	newest := r.known.newest()
	if r.o.To == 0 {
		r.o.To = newest
	}
	if r.o.To > newest {
		return nil, fmt.Errorf("transaction %d is beyond the newest trusted one, %d; verify up to that, or let the auditor come further first", r.o.To, newest)
	}
	most := max(2, 2*runtime.GOMAXPROCS(0))
	r.flight = int(min(max(1, o.MemoryBytes/answerMemory/o.MessageBytes), int64(min(most, maxFlight))))
	target := min(pageTarget, o.MessageBytes/2)
	if o.BytesPerSecond > 0 { // no page is more than a second's worth
		target = min(target, o.BytesPerSecond)
	}
	r.sizes = newSizer(target)
	r.retain.before = o.Retained
	r.retain.known.Store(o.Retained)
	return r, nil
}

// stretch is a range of transactions that one worker looks at.
type stretch struct{ from, to uint64 }

// task is a stretch on its way.
type task struct {
	stretch
	done   chan struct{}
	result result // written before done is closed
	err    error
}

// run looks at stretches, several at a time, and settles them in order.
func (r *run) run(ctx context.Context) (Summary, error) {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan *task, aheadPerFlight*r.flight)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		r.dispatch(ctx, queue)
	}()
	defer func() { // nobody is left behind
		cancel()
		for range queue {
		}
		<-finished
	}()

	s := newSettler(r)
	for t := range queue {
		select {
		case <-t.done:
		case <-ctx.Done():
			<-t.done // soon: its calls end with ctx
		}
		if t.err == nil {
			t.err = s.take(ctx, &t.result)
		}
		if t.err != nil {
			return s.sum, s.stopped(t.err)
		}
	}
	if err := ctx.Err(); err != nil { // with nothing under way
		return s.sum, s.stopped(context.Cause(ctx))
	}
	if err := s.end(ctx); err != nil {
		return s.sum, s.stopped(err)
	}
	if len(s.sum.Unread) > 0 {
		return s.sum, errUnread(s.sum.Unread)
	}
	return s.sum, nil
}

// dispatch hands stretches to workers, in order, and waits for them. A stretch
// ends where something is known, so that it can be bound there.
func (r *run) dispatch(ctx context.Context, queue chan<- *task) {
	defer close(queue)
	slots := make(chan struct{}, r.flight)
	for next := r.o.From; next <= r.o.To && ctx.Err() == nil; {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		to := min(next+uint64(r.sizes.next())-1, r.known.boundary(next), r.o.To)
		t := &task{stretch: stretch{next, to}, done: make(chan struct{})}
		go func() {
			t.result, t.err = r.look(ctx, t.stretch)
			close(t.done)
			<-slots
		}()
		queue <- t
		next = to + 1
	}
	for range r.flight { // until every worker has given its slot back
		slots <- struct{}{}
	}
}

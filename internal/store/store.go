// Package store keeps what the auditor must not forget: the trust in every
// ledger, the states its walk must still meet, incidents, events, and the
// outbox of alerts that were not delivered yet.
//
// A state directory holds:
//
//	state.db       one SQLite database (with -wal and -shm beside it while open)
//	state.id       which state.db belongs here and how far it had come
//	auditor.lock   held by the running auditor
//
// Outside of it, best on another disk, lies its guard: a short text, replaced
// after commits, at most once a second and at the end, which says how far the
// state had come and what it held. It notices what the directory itself cannot
// tell: that all of it was deleted, rolled back to an older copy, or edited.
//
//	immuaudit guard 1
//	state 0f8f0000000000000000000000000000
//	sequence 1234
//	ledgers 2
//	hash 207f2ad1f350ef6364954c621b099b74f0bc37dee8552f2197dd9dce8c669054
//	written 2026-11-23T12:00:00Z
//	sum 2c0b0520965b7129
//
// state is the identity of the state, as in state.id; sequence the number of
// its newest commit; hash the SHA-256 over server, database, proven
// transaction (u64) and its Alh of every ledger, in the order of their names,
// and the digest of all records at the end, each field after its length (u64,
// big-endian); sum the first 8 bytes of the SHA-256 of the lines above it. Not
// opened for writing is a state whose guard is ahead of it, is as far and has
// another hash, or is of another state, and none is made where a guard is left
// of one. A guard that is behind is what a crash leaves. One that is missing is
// said, and begun anew: moving it away is how to go on with an older copy.
//
// The directory is 0700 and its files 0600. A state that somebody else could
// change, that is cut, damaged, foreign, older than what was acknowledged, or
// gone while traces of it are left, is refused with an *Error: it is never
// taken for a beginning. Every row carries a checksum and all rows of trust,
// marks and incidents together a digest, because SQLite notices a damaged
// page only where its structure is hit.
//
// Changes of many ledgers are written together: a single goroutine owns the
// writing connection, puts whatever waits into one transaction, each change in
// a savepoint of its own, and answers when all of it is synced.
package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Options say which state to open.
type Options struct {
	Dir string
	// Create makes the directory and an empty state where there is none and
	// never was one.
	Create bool
	// ReadOnly refuses every change. A state whose state.id is missing or
	// does not fit is opened nevertheless, so that what is left of it can be
	// looked at and exported.
	ReadOnly bool
	// Guard is the file that witnesses the state, "" for none. Where it is
	// missing, those who may Create begin it anew, and GuardProblem says so.
	Guard string
	// GuardGiven: somebody named that place, so that to Create where no guard
	// can be kept is an error instead of a warning.
	GuardGiven bool
	Logger     *slog.Logger // nil: slog.Default
}

// Store is an open state directory. All methods may be called concurrently.
type Store struct {
	dir      directory
	path     string // of state.db
	id       [16]byte
	log      *slog.Logger
	created  bool
	readOnly bool

	reader *sql.DB
	writer *sql.DB
	commit *committer // nil where read-only
	mark   *os.File   // state.id

	place   *place   // of the guard, nil for none
	witness *witness // nil where no guard is kept
	problem string

	// Why a state that is opened for reading only should not be gone on with.
	markDoubt, guardDoubt error

	// own counts the commits of this store; it changes together with the
	// database under the lock, so that Generation can leave them out.
	ownMu sync.RWMutex
	own   uint64

	handed handedOut
	wake   chan struct{}

	closing sync.Once
	closed  chan struct{}
	failed  error // of Close
}

// Open opens the state in a directory, making one where Options.Create allows it.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	create := o.Create && !o.ReadOnly
	// Before the state, so that it can only be behind it.
	p, err := findGuard(&o)
	if err != nil {
		return nil, err
	}
	dir, err := findState(ctx, &o, create && !p.witnessed())
	switch {
	case errors.Is(err, ErrAbsent) && p.witnessed():
		return nil, p.gone(o.Dir)
	case err != nil:
		return nil, err
	case p != nil && !p.given:
		// Its directory is that of the state directory, which is there by now.
		if err := p.tryOut(&o); err != nil {
			return nil, err
		}
	}
	s := &Store{
		dir: dir, path: dir.file(fileState), log: o.Logger,
		readOnly: o.ReadOnly, place: p,
		handed: newHandedOut(), wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	if err := s.open(ctx, create); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

// findState checks the directory and what is in it, making both where there
// never was a state.
func findState(ctx context.Context, o *Options, create bool) (directory, error) {
	dir, err := findDirectory(o.Dir, create, o.Logger)
	if err != nil {
		return dir, err
	}
	if !o.ReadOnly && !dir.settled() {
		err := dir.exclusively(ctx, func() error { return dir.settle(ctx, create) })
		if err != nil {
			return dir, err
		}
	}
	exists, err := dir.checkFiles()
	if err == nil && !exists {
		err = absent(dir.path)
	}
	return dir, err
}

func (s *Store) open(ctx context.Context, create bool) (err error) {
	// Read before the database: it may only be behind.
	mark, markErr := s.dir.readWatermark()
	if s.reader, err = openDatabase(s.path, 2, true); err != nil {
		return err
	}
	if err := recognise(ctx, s.reader, s.path); err != nil {
		return err
	}
	if err := s.Verify(ctx); err != nil {
		return err
	}
	state, err := readState(ctx, s.reader, s.path)
	if err != nil {
		return explain(s.path, err)
	}
	s.id = state.id
	if markErr == nil {
		markErr = s.dir.judgeWatermark(mark, state)
	}
	now, guardErr := s.judgeGuard(ctx)
	if s.readOnly {
		s.markDoubt, s.guardDoubt = markErr, guardErr
		if err := errors.Join(markErr, guardErr); err != nil {
			s.log.Warn("the state is opened for reading only, although it would not be trusted", "error", err)
		}
		return nil
	}
	if markErr != nil {
		return markErr
	}
	if guardErr != nil {
		return guardErr
	}
	if s.mark, err = os.OpenFile(s.dir.file(fileID), os.O_WRONLY|noFollow, 0); err != nil {
		return unusable(s.dir.file(fileID), err)
	}
	if s.writer, err = openDatabase(s.path, 1, false); err != nil {
		return err
	}
	conn, err := s.writer.Conn(ctx)
	if err != nil {
		return explain(s.path, err)
	}
	s.commit = newCommitter(s, conn, state.commits)
	if err := s.commit.probe(ctx); err != nil {
		return errors.Join(explain(s.path, err), conn.Close())
	}
	s.created = state.commits == 1
	if err := s.beginGuard(ctx, now, create); err != nil {
		return errors.Join(err, conn.Close())
	}
	go s.commit.run()
	s.signal()
	return nil
}

// readState gives identity and age of an open state.
func readState(ctx context.Context, q querier, path string) (watermark, error) {
	var w watermark
	var id []byte
	switch there, err := found(q.QueryRowContext(ctx, "SELECT state_id, commits FROM meta WHERE one = 1").Scan(&id, &w.commits)); {
	case err != nil:
		return w, misshapen(path, "meta", err)
	case !there || len(id) != len(w.id):
		return w, damaged(path, "it does not say which state it is")
	}
	copy(w.id[:], id)
	return w, nil
}

// Created reports whether Open made this state, or found one that nothing was
// ever written to: that a memory begins anew is worth telling somebody.
func (s *Store) Created() bool { return s.created }

// GuardProblem says that the guard of a state that was in use is missing, and
// was begun anew; "" where there is nothing to say.
func (s *Store) GuardProblem() string { return s.problem }

// Doubts are why nobody should go on with a state that was opened for reading
// only: what its state.id, and what its guard says against it.
func (s *Store) Doubts() (mark, guard error) { return s.markDoubt, s.guardDoubt }

// Guarded says how far the state and its guard have come.
type Guarded struct {
	Path     string // of the guard, "" for none
	State    uint64 // the newest change
	Sequence uint64 // the one that the guard witnessed, 0 where there is no guard
	Written  time.Time
}

// Guarded reads the guard; what it says against the state is in Doubts.
func (s *Store) Guarded(ctx context.Context) (Guarded, error) {
	var g Guarded
	if s.place != nil {
		g.Path = s.place.path
		switch on, err := s.place.read(); {
		case err != nil:
			return g, err
		case on != nil:
			g.Sequence, g.Written = on.sequence, on.written
		}
	}
	state, err := readState(ctx, s.reader, s.path)
	g.State = state.commits
	return g, s.explain(err)
}

// Dir is the directory, with links resolved.
func (s *Store) Dir() string { return s.dir.path }

// Wake is signalled after a delivery was queued here. What another process
// queues shows in Generation and in NextDue alone.
func (s *Store) Wake() <-chan struct{} { return s.wake }

func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Generation is a number that changes whenever another process, or another
// Store, wrote to the state; what this one writes leaves it alone.
func (s *Store) Generation(ctx context.Context) (uint64, error) {
	s.ownMu.RLock()
	defer s.ownMu.RUnlock()
	state, err := readState(ctx, s.reader, s.path)
	if err != nil {
		return 0, s.explain(err)
	}
	return state.commits - s.own, nil
}

// explain also recognises calls that come after Close.
func (s *Store) explain(err error) error {
	if err != nil && s.isClosed() {
		return &Error{Kind: ErrClosed, Path: s.path}
	}
	return explain(s.path, err)
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// Close finishes what was handed over, moves the write-ahead log into the
// database, syncs and closes it. Changes that come later get ErrClosed.
func (s *Store) Close() error {
	s.closing.Do(func() {
		if s.commit != nil {
			s.commit.stop()
		}
		if s.witness != nil {
			s.witness.stop()
		}
		close(s.closed)
		s.failed = s.closeFiles()
	})
	return s.failed
}

func (s *Store) closeFiles() error {
	var errs []error
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.writer != nil {
		// The last connection to close moves the log and removes it.
		errs = append(errs, s.writer.Close())
	}
	if s.mark != nil {
		errs = append(errs, s.mark.Sync(), s.mark.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return &Error{Kind: ErrDisk, Path: s.path, Err: err, Next: "look into the system log for errors of the disk"}
	}
	return nil
}

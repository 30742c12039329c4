package store

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"

	"immuaudit/evidence"
)

// maxBatch bounds how many changes share one transaction, and so how long the
// first of them waits.
const maxBatch = 2_000

// job is one change on its way to the disk.
type job struct {
	do    func(*writing) error
	after func() // once it is stored; nil for nothing
	done  chan error
}

// committer owns the writing connection.
type committer struct {
	s     *Store
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	last  uint64 // the newest commit that is known here
	jobs  chan *job
	quit  chan struct{}
	ended chan struct{}
	// lost is set when a sync failed: what is stored afterwards could not be
	// called durable.
	lost error
	// markFailed: the watermark could not be written; said once.
	markFailed bool
}

func newCommitter(s *Store, conn *sql.Conn, last uint64) *committer {
	return &committer{
		s: s, conn: conn, stmts: map[string]*sql.Stmt{}, last: last,
		// Not buffered: a change that was not taken yet can be withdrawn.
		jobs: make(chan *job), quit: make(chan struct{}), ended: make(chan struct{}),
	}
}

// submit hands a change over and waits until it is synced. A context that ends
// before the change is taken withdraws it; once it is taken the answer is
// waited for, so that the caller always knows what is on disk.
func (s *Store) submit(ctx context.Context, do func(*writing) error, after func()) error {
	if s.readOnly {
		return &Error{Kind: ErrReadOnly, Path: s.path, What: "it was opened for reading only"}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{do: do, after: after, done: make(chan error, 1)}
	select {
	case s.commit.jobs <- j:
		return <-j.done
	case <-ctx.Done():
		return ctx.Err()
	case <-s.commit.quit:
		return &Error{Kind: ErrClosed, Path: s.path}
	}
}

// run is the committing goroutine; stop ends it.
func (c *committer) run() {
	defer close(c.ended)
	batch := make([]*job, 0, maxBatch)
	for {
		select {
		case j := <-c.jobs:
			batch = append(batch[:0], j)
		case <-c.quit:
			return
		}
		// Whoever waits by now goes along: the sync is what costs.
		for full := false; !full && len(batch) < maxBatch; {
			select {
			case j := <-c.jobs:
				batch = append(batch, j)
			default:
				full = true
			}
		}
		c.commit(batch)
		clear(batch)
	}
}

func (c *committer) stop() {
	close(c.quit)
	<-c.ended
	for _, stmt := range c.stmts {
		if err := stmt.Close(); err != nil {
			c.s.log.Warn("closing a statement of the state", "error", err)
		}
	}
	if err := c.conn.Close(); err != nil {
		c.s.log.Warn("closing the writing connection of the state", "error", err)
	}
}

// probe refuses a medium that cannot be written before anything depends on it.
func (c *committer) probe(ctx context.Context) error {
	var mode string
	if err := c.conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return damaged(c.s.path, "its journal mode is %.20q and cannot be made a write-ahead log", mode)
	}
	if _, err := c.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	_, err := c.conn.ExecContext(ctx, "ROLLBACK")
	return err
}

// writing is one transaction on its way.
type writing struct {
	c        *committer
	sequence uint64 // the number that this commit will have
	digest   [32]byte
	proven   []*preparedTrust // what is proven now
	renamed  bool             // ledgers have other names
	// what to do at the end of the transaction
	queued bool                            // deliveries were put into the outbox
	sinks  map[string]struct{}             // … of these sinks
	events map[evidence.EventType]struct{} // types of events that were added
}

func (w *writing) stmt(query string) (*sql.Stmt, error) {
	if stmt := w.c.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := w.c.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	w.c.stmts[query] = stmt
	return stmt, nil
}

func (w *writing) exec(query string, args ...any) (int64, error) {
	stmt, err := w.stmt(query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.Exec(args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// row scans the one row a query gives; sql.ErrNoRows if there is none.
func (w *writing) row(query string, args []any, into ...any) error {
	stmt, err := w.stmt(query)
	if err != nil {
		return err
	}
	return stmt.QueryRow(args...).Scan(into...)
}

// rows scans every row a query gives.
func (w *writing) rows(query string, args []any, scan func(*sql.Rows) error) error {
	stmt, err := w.stmt(query)
	if err != nil {
		return err
	}
	rows, err := stmt.Query(args...)
	if err != nil {
		return err
	}
	return each(rows, scan)
}

func each(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// toggle puts the checksum of a row into the digest of all rows, or takes it
// out again: the digest is their exclusive or.
func (w *writing) toggle(sum []byte) { toggle(&w.digest, sum) }

func toggle(digest *[32]byte, sum []byte) {
	if len(sum) == len(digest) {
		subtle.XORBytes(digest[:], digest[:], sum)
	}
}

// commit writes a batch and answers every job in it.
func (c *committer) commit(batch []*job) {
	if c.lost != nil {
		answer(batch, nil, c.lost)
		return
	}
	results := make([]error, len(batch))
	queued, err := c.write(batch, results)
	if err != nil {
		c.rollBack()
		if unsynced(err) {
			c.lost = &Error{Kind: ErrDisk, Path: c.s.path, Err: err, What: "a change could not be synced", Next: "look into the system log for errors of the disk, then start the auditor again"}
		}
		answer(batch, results, explain(c.s.path, err))
		return
	}
	if queued {
		c.s.signal()
	}
	answer(batch, results, nil)
}

// answer tells every job how it went: its own error, or what befell them all.
func answer(batch []*job, results []error, all error) {
	for i, j := range batch {
		err := all
		if results != nil && results[i] != nil {
			err = results[i]
		}
		if err == nil && j.after != nil {
			j.after()
		}
		j.done <- err
	}
}

func (c *committer) write(batch []*job, results []error) (queued bool, err error) {
	w := &writing{c: c, sinks: map[string]struct{}{}, events: map[evidence.EventType]struct{}{}}
	if err := c.begin(w); err != nil {
		return false, err
	}
	var before uint64
	var digest []byte
	if err := w.row("SELECT commits, digest FROM meta WHERE one = 1", nil, &before, &digest); err != nil {
		return false, err
	}
	w.sequence = before + 1
	copy(w.digest[:], digest)
	stored := 0
	for i, j := range batch {
		if results[i], err = w.attempt(j); err != nil {
			return false, err
		}
		if results[i] == nil {
			stored++
		}
	}
	if stored == 0 {
		c.rollBack()
		return false, nil
	}
	if err := w.prune(); err != nil {
		return false, err
	}
	if _, err := w.exec("UPDATE meta SET commits = ?, digest = ? WHERE one = 1", w.sequence, w.digest[:]); err != nil {
		return false, err
	}
	c.s.ownMu.Lock()
	if _, err = w.exec("COMMIT"); err == nil {
		c.s.own++
	}
	c.s.ownMu.Unlock()
	if err != nil {
		return false, err
	}
	c.watermark(w.sequence)
	if c.s.witness != nil {
		c.s.witness.saw(w, w.renamed || before != c.last)
	}
	c.last = w.sequence
	return w.queued, nil
}

func (c *committer) begin(w *writing) error {
	// The write lock is taken at once: what is read below stays true.
	_, err := w.exec("BEGIN IMMEDIATE")
	if primary, _ := resultCode(err); primary == 1 {
		// A transaction that could not be rolled back is still open.
		c.rollBack()
		_, err = w.exec("BEGIN IMMEDIATE")
	}
	return err
}

// rollBack undoes what SQLite has not undone itself: a full disk ends a
// transaction of its own accord, after which there is none to undo.
func (c *committer) rollBack() {
	if _, err := c.conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		c.s.log.Debug("rolling back", "file", c.s.path, "error", err)
	}
}

// attempt makes one change in a savepoint. own is the change's error and
// leaves the others alone; err spoils the transaction.
func (w *writing) attempt(j *job) (own, err error) {
	if _, err := w.exec("SAVEPOINT change"); err != nil {
		return nil, err
	}
	digest, proven := w.digest, len(w.proven)
	own = j.do(w)
	if own == nil {
		_, err = w.exec("RELEASE change")
		return nil, err
	}
	if spoils(own) {
		return nil, own
	}
	w.digest, w.proven = digest, w.proven[:proven]
	if _, err := w.exec("ROLLBACK TO change"); err != nil {
		return nil, err
	}
	_, err = w.exec("RELEASE change")
	return explain(w.c.s.path, own), err
}

// prune keeps the record of events and the outbox within their bounds.
func (w *writing) prune() error {
	if len(w.events) > 0 {
		if _, err := w.exec("DELETE FROM event WHERE lasting = 0 AND seq <= (SELECT max(seq) FROM event) - ?", maxEvents); err != nil {
			return err
		}
	}
	for typ := range w.events {
		if !lasting(typ) {
			continue
		}
		// Where there are not that many of it, the comparison is with NULL and
		// none is deleted.
		_, err := w.exec(`DELETE FROM event WHERE lasting = 1 AND type = ? AND seq <= min((SELECT max(seq) FROM event) - ?,
			(SELECT seq FROM event WHERE lasting = 1 AND type = ? ORDER BY seq DESC LIMIT 1 OFFSET ?))`, string(typ), maxEvents, string(typ), maxLasting)
		if err != nil {
			return err
		}
	}
	for sink := range w.sinks {
		var waiting int
		if err := w.row("SELECT count(*) FROM outbox WHERE sink = ? AND urgent = 0", []any{sink}, &waiting); err != nil {
			return err
		}
		if waiting <= maxWaiting {
			continue
		}
		dropped, err := w.exec("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE sink = ? AND urgent = 0 ORDER BY id LIMIT ?)", sink, waiting-maxWaiting)
		if err != nil {
			return err
		}
		w.c.s.log.Warn("too many deliveries are waiting: the oldest were dropped, none of them about tampering", "sink", sink, "dropped", dropped)
	}
	return nil
}

// watermark notes an acknowledged commit in state.id. That it lags is
// harmless, so that a failure costs no change.
func (c *committer) watermark(commits uint64) {
	w := watermark{commits: commits}
	copy(w.id[:], c.s.id[:])
	if _, err := c.s.mark.WriteAt(w.line(), 0); err != nil && !c.markFailed {
		c.markFailed = true
		c.s.log.Warn("noting how far the state has come; an older copy of it may go unnoticed", "file", c.s.mark.Name(), "error", err)
	}
}

// found tells a missing row from other errors.
func found(err error) (bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// broken is a row whose checksum does not fit.
func broken(path, table string, row any) error {
	return damaged(path, "the checksum of %s %v does not fit", table, fmt.Sprintf("%.60v", row))
}

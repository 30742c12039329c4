package history

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"immuaudit/evidence"
)

// write brings everything that is new to the disk, in one transaction, and
// tidies now and then. ended: the auditor stops in good order.
func (h *History) write(ctx context.Context, now time.Time, ended bool) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	if h.writer == nil {
		return nil // closed, or begun anew in vain
	}
	err := h.flush(ctx, now, ended)
	if err == nil && now.Sub(h.tidied).Abs() >= tidyEvery {
		h.tidied = now
		err = h.tidyFor(ctx, now, ended)
	}
	if err != nil && unfit(err) && ctx.Err() == nil {
		err = h.replace(ctx, now)
	}
	return explain(h.path, err)
}

// tidyFor tidies; at the end for a short time only, the next process goes on.
func (h *History) tidyFor(ctx context.Context, now time.Time, ended bool) error {
	if !ended {
		return h.tidy(ctx, now)
	}
	short, cancel := context.WithTimeout(ctx, lastTidy)
	defer cancel()
	err := h.tidy(short, now)
	if short.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// replace begins anew while rounds go on.
func (h *History) replace(ctx context.Context, now time.Time) error {
	h.mu.Lock()
	for _, t := range h.tracks {
		t.row = 0
	}
	h.mu.Unlock()
	if err := h.closeFiles(); err != nil {
		h.log.Warn("closing a damaged history", "file", h.path, "error", err)
	}
	aside, err := setAside(h.path, now)
	if err != nil {
		return err
	}
	fresh := &History{path: h.path, version: h.version, log: h.log, index: map[evidence.Name]int32{}}
	if err := fresh.openForWriting(ctx, now); err != nil {
		return errors.Join(err, fresh.closeFiles())
	}
	h.dbMu.Lock()
	h.reader, h.writer, h.run = fresh.reader, fresh.writer, fresh.run
	h.problem = errors.New("the history was damaged while it was in use; it was moved to " + aside + " and begins anew")
	h.dbMu.Unlock()
	h.log.Warn("the history was damaged; it begins anew", "file", h.path, "moved", aside)
	return nil
}

// flush writes what ended and what is under way.
func (h *History) flush(ctx context.Context, now time.Time, ended bool) (err error) {
	batch, names := h.take()
	defer func() { h.settle(batch, err) }()
	tx, err := h.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreDone(tx.Rollback()))
		}
	}()
	rows, err := h.rows(ctx, tx, batch, names)
	if err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, "INSERT OR REPLACE INTO stretch ("+columns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer insert.Close() // ends with the transaction
	for i := range batch {
		s := batch[i].shown
		if err := put(ctx, insert, rows[batch[i].track], 0, &s); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "UPDATE run SET alive = ?, ended = ? WHERE id = ?", now.UnixMicro(), ended, h.run); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, row := range rows {
		h.tracks[i].row = row
	}
	return nil
}

// item is a stretch on its way to the disk.
type item struct {
	finished
	shown Stretch
	usual uint32
	row   int64
	open  bool // still under way
}

// take gives what is new, and the name of every ledger in it.
func (h *History) take() (batch []item, names map[int32]evidence.Name) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost > 0 {
		h.log.Warn("the history leaves out what is too much for it: verdicts change too often, or there are too many ledgers", "left_out", h.lost)
		h.lost = 0
	}
	names = make(map[int32]evidence.Name, len(h.index))
	for name, i := range h.index {
		names[i] = name
	}
	add := func(f finished, open bool) {
		t := h.tracks[f.track]
		batch = append(batch, item{finished: f, shown: h.stretch(names[f.track], &f.piece), usual: t.usual, row: t.row, open: open})
		h.flushing = append(h.flushing, f)
	}
	h.flushing = nil
	for _, f := range h.pending {
		add(f, false)
	}
	h.pending = nil
	for i, t := range h.tracks {
		if t.rounds > 0 && t.dirty {
			add(finished{track: int32(i), piece: t.piece}, true)
			t.dirty = false
		}
	}
	return batch, names
}

// settle ends a flush. What did not reach the disk waits for the next one.
func (h *History) settle(batch []item, failed error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flushing = nil
	if failed == nil {
		return
	}
	var again []finished
	for _, it := range batch {
		if t := h.tracks[it.track]; it.open && t.from == it.from {
			t.dirty = true
		} else {
			again = append(again, it.finished)
		}
	}
	h.pending = append(again, h.pending...)
	if over := len(h.pending) - maxPending; over > 0 {
		h.pending = h.pending[over:]
		h.lost += uint64(over)
	}
}

// rows gives the row of every ledger of a batch, making those that are new.
func (h *History) rows(ctx context.Context, tx *sql.Tx, batch []item, names map[int32]evidence.Name) (map[int32]int64, error) {
	save, err := tx.PrepareContext(ctx, "INSERT INTO ledger (server, database, usual) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET usual = ?3 RETURNING id")
	if err != nil {
		return nil, err
	}
	defer save.Close() // ends with the transaction
	rows := map[int32]int64{}
	for i := range batch {
		it := &batch[i]
		if _, known := rows[it.track]; known {
			continue
		}
		var row int64
		name := names[it.track]
		if err := save.QueryRowContext(ctx, name.Server, name.Database, it.usual).Scan(&row); err != nil {
			return nil, err
		}
		rows[it.track] = row
	}
	return rows, nil
}

const columns = "ledger, began, ended, level, verdict, flags, kind, reason, rounds, sound, first_tx, last_tx, last_alh, verified, took, slowest, longest"

const (
	flagTorn = 1 << iota
	flagBroken
)

func put(ctx context.Context, insert *sql.Stmt, ledger int64, level int, s *Stretch) error {
	flags := 0
	if s.Torn {
		flags |= flagTorn
	}
	if s.Broken {
		flags |= flagBroken
	}
	alh := s.LastAlh[:]
	if s.LastTx == 0 {
		alh = []byte{}
	}
	_, err := insert.ExecContext(ctx, ledger, s.From.UnixMicro(), s.To.UnixMicro(), level, int64(s.Verdict), flags, string(s.Kind), string(s.Reason),
		int64(s.Rounds), int64(s.Sound), int64(s.FirstTx), int64(s.LastTx), alh, int64(s.Verified), s.Took.Microseconds(), s.Slowest.Microseconds(), s.Longest.Milliseconds())
	return err
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

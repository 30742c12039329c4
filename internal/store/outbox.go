package store

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"time"

	"immuaudit/evidence"
)

// waitingKey is what a newer delivery must share with a waiting one to take
// its place.
type waitingKey struct {
	sink string
	name evidence.Name
	typ  evidence.EventType
}

// handedOut are deliveries that were given out and not answered yet. One of
// them may be replaced while it is on its way.
type handedOut struct {
	mu   *sync.Mutex
	keys map[int64]waitingKey
}

func newHandedOut() handedOut { return handedOut{mu: &sync.Mutex{}, keys: map[int64]waitingKey{}} }

func (h handedOut) hand(id int64, key waitingKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Answers that never came must not pile up.
	if len(h.keys) > 4*maxWaiting {
		clear(h.keys)
	}
	h.keys[id] = key
}

func (h handedOut) key(id int64) (waitingKey, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key, ok := h.keys[id]
	return key, ok
}

func (h handedOut) answered(ids []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		delete(h.keys, id)
	}
}

func deliverySum(sequence uint64, key waitingKey, replaceable, urgent bool, queued int64, body []byte) [32]byte {
	return sum("outbox", sequence, key.sink, key.name.Server, key.name.Database, string(key.typ), replaceable, urgent, queued, body)
}

// putDelivery queues a delivery. It takes the place of a waiting one of the
// same sink, ledger and type that allows it, and goes on with its backoff: a
// receiver that is down is not tried more often because there is more news.
func (w *writing) putDelivery(d preparedDelivery) error {
	key := waitingKey{d.sink, d.event.name, d.event.typ}
	var attempts, nextTry int64
	var lastErr string
	err := w.rows("DELETE FROM outbox WHERE sink = ? AND server = ? AND database = ? AND type = ? AND replaceable = 1 RETURNING attempts, next_try, last_err",
		[]any{key.sink, key.name.Server, key.name.Database, string(key.typ)}, func(rows *sql.Rows) error {
			return rows.Scan(&attempts, &nextTry, &lastErr)
		})
	if err != nil {
		return err
	}
	// A test is answered while somebody waits for it.
	urgent := key.typ == evidence.EventTampered || key.typ == evidence.EventTest
	queued := time.Now().UnixNano()
	s := deliverySum(w.sequence, key, d.coalesce, urgent, queued, d.event.body)
	_, err = w.exec("INSERT INTO outbox (sequence, sink, server, database, type, replaceable, urgent, queued, attempts, next_try, last_err, body, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		w.sequence, key.sink, key.name.Server, key.name.Database, string(key.typ), d.coalesce, urgent, queued, attempts, nextTry, lastErr, d.event.body, s[:])
	w.queued = true
	w.sinks[key.sink] = struct{}{}
	return err
}

// Due gives deliveries whose time has come, at most limit, taking turns
// between the sinks so that one that is down does not hold up the others.
// Within a sink those about tampering come first.
func (s *Store) Due(ctx context.Context, now time.Time, limit int) ([]evidence.Pending, error) {
	limit = min(limit, maxWaiting)
	if limit <= 0 {
		return nil, nil
	}
	sinks, err := s.waitingSinks(ctx)
	if err != nil {
		return nil, err
	}
	perSink := make([][]evidence.Pending, len(sinks))
	for i, sink := range sinks {
		if perSink[i], err = s.dueOf(ctx, sink, now, limit); err != nil {
			return nil, err
		}
	}
	var due []evidence.Pending
	for turn := 0; len(due) < limit; turn++ {
		before := len(due)
		for i := range perSink {
			if turn < len(perSink[i]) && len(due) < limit {
				due = append(due, perSink[i][turn])
			}
		}
		if len(due) == before {
			break
		}
	}
	for _, p := range due {
		s.handed.hand(p.ID, waitingKey{p.Sink, p.Event.Name, p.Event.Type})
	}
	return due, nil
}

func (s *Store) waitingSinks(ctx context.Context) ([]string, error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT DISTINCT sink FROM outbox ORDER BY sink")
	if err != nil {
		return nil, s.explain(err)
	}
	var sinks []string
	err = each(rows, func(rows *sql.Rows) error {
		var sink string
		if err := rows.Scan(&sink); err != nil {
			return err
		}
		sinks = append(sinks, sink)
		return nil
	})
	return sinks, s.explain(err)
}

const pendingColumns = "id, sequence, sink, server, database, type, replaceable, urgent, queued, attempts, next_try, last_err, body, sum"

func (s *Store) dueOf(ctx context.Context, sink string, now time.Time, limit int) ([]evidence.Pending, error) {
	// Twice the same query, so that each goes along the index.
	var due []evidence.Pending
	for _, urgent := range [...]int{1, 0} {
		rows, err := s.reader.QueryContext(ctx, "SELECT "+pendingColumns+" FROM outbox WHERE sink = ? AND urgent = ? AND next_try <= ? ORDER BY next_try, id LIMIT ?",
			sink, urgent, instant(now), limit-len(due))
		if err != nil {
			return nil, s.explain(err)
		}
		err = each(rows, func(rows *sql.Rows) error {
			p, err := s.scanPending(rows)
			if err == nil {
				due = append(due, p)
			}
			return err
		})
		if err != nil {
			return nil, s.explain(err)
		}
	}
	return due, nil
}

func (s *Store) scanPending(rows *sql.Rows) (evidence.Pending, error) {
	var p evidence.Pending
	var key waitingKey
	var typ string
	var sequence uint64
	var replaceable, urgent bool
	var queued, nextTry int64
	var body, rowSum []byte
	if err := rows.Scan(&p.ID, &sequence, &key.sink, &key.name.Server, &key.name.Database, &typ, &replaceable, &urgent, &queued, &p.Attempts, &nextTry, &p.LastErr, &body, &rowSum); err != nil {
		return p, misshapen(s.path, "delivery", err)
	}
	key.typ = evidence.EventType(typ)
	var r eventRecord
	if want := deliverySum(sequence, key, replaceable, urgent, queued, body); !slices.Equal(want[:], rowSum) || decode(body, &r) != nil {
		return p, broken(s.path, "delivery", p.ID)
	}
	p.Sink, p.Event, p.Queued, p.NextTry = key.sink, r.event(key.name, sequence), moment(queued), moment(nextTry)
	return p, nil
}

// Delivered takes deliveries out of the outbox, and counts them for their sink.
// One that was replaced on its way stays replaced: the newer one is still to be
// sent.
func (s *Store) Delivered(ctx context.Context, ids ...int64) error {
	return s.submit(ctx, func(w *writing) error {
		sent := map[string]uint64{}
		for _, id := range ids {
			sink := ""
			if key, handed := s.handed.key(id); handed {
				sink = key.sink
			}
			err := w.rows("DELETE FROM outbox WHERE id = ? RETURNING sink", []any{id}, func(rows *sql.Rows) error { return rows.Scan(&sink) })
			if err != nil {
				return err
			}
			if sink != "" {
				sent[sink]++
			}
		}
		return w.tally(sent, func(q *evidence.Queue, n uint64) {
			q.Sent += n
			q.LastOK, q.LastErr = time.Now(), ""
		})
	}, func() { s.handed.answered(ids) })
}

// Retry notes a failed try. The deliveries keep their IDs; where one was
// replaced on its way, the newer one waits until next.
func (s *Store) Retry(ctx context.Context, next time.Time, lastErr string, ids ...int64) error {
	lastErr = errText(lastErr)
	return s.submit(ctx, func(w *writing) error {
		failed := map[string]uint64{}
		for _, id := range ids {
			key, handed := s.handed.key(id)
			sink := key.sink
			n := 0
			err := w.rows("UPDATE outbox SET attempts = attempts + 1, next_try = ?, last_err = ? WHERE id = ? RETURNING sink",
				[]any{instant(next), lastErr, id}, func(rows *sql.Rows) error { n++; return rows.Scan(&sink) })
			if err != nil {
				return err
			}
			if n == 0 && handed {
				_, err = w.exec("UPDATE outbox SET attempts = attempts + 1, next_try = ?, last_err = ? WHERE sink = ? AND server = ? AND database = ? AND type = ? AND replaceable = 1",
					instant(next), lastErr, key.sink, key.name.Server, key.name.Database, string(key.typ))
				if err != nil {
					return err
				}
			}
			if sink != "" {
				failed[sink]++
			}
		}
		return w.tally(failed, func(q *evidence.Queue, n uint64) {
			q.Failed += n
			q.LastErr, q.LastErrAt = lastErr, time.Now()
		})
	}, func() { s.handed.answered(ids) })
}

// Tests gives the tests that wait to be sent.
func (s *Store) Tests(ctx context.Context) ([]evidence.Pending, error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT "+pendingColumns+" FROM outbox WHERE urgent = 1 AND type = ?", string(evidence.EventTest))
	if err != nil {
		return nil, s.explain(err)
	}
	var list []evidence.Pending
	err = each(rows, func(rows *sql.Rows) error {
		p, err := s.scanPending(rows)
		list = append(list, p)
		return err
	})
	return list, s.explain(err)
}

// Withdraw takes deliveries back that nobody wants to be sent any more.
func (s *Store) Withdraw(ctx context.Context, ids ...int64) error {
	return s.submit(ctx, func(w *writing) error {
		for _, id := range ids {
			if _, err := w.exec("DELETE FROM outbox WHERE id = ?", id); err != nil {
				return err
			}
		}
		return nil
	}, func() { s.handed.answered(ids) })
}

// NextDue says when the next delivery is to be tried; false if none waits. A
// zero time means at once.
func (s *Store) NextDue(ctx context.Context) (time.Time, bool, error) {
	var next sql.NullInt64
	if err := s.reader.QueryRowContext(ctx, "SELECT min(next_try) FROM outbox").Scan(&next); err != nil {
		return time.Time{}, false, s.explain(err)
	}
	return moment(next.Int64), next.Valid, nil
}

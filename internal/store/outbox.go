package store

import (
	"context"
	"database/sql"
	"slices"
	"strings"
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

// sinkBook is what is known of the sinks since the start; it is not kept.
type sinkBook struct {
	mu   *sync.Mutex
	book map[string]*evidence.Queue
	// handed are deliveries that were given out and not answered yet. One of
	// them may be replaced while it is on its way.
	handed map[int64]waitingKey
}

func newSinkBook() sinkBook {
	return sinkBook{mu: &sync.Mutex{}, book: map[string]*evidence.Queue{}, handed: map[int64]waitingKey{}}
}

func (b sinkBook) hand(id int64, key waitingKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Answers that never came must not pile up.
	if len(b.handed) > 4*maxWaiting {
		clear(b.handed)
	}
	b.handed[id] = key
}

func (b sinkBook) key(id int64) (waitingKey, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key, ok := b.handed[id]
	return key, ok
}

func (b sinkBook) answered(id int64, note func(*evidence.Queue)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key, ok := b.handed[id]
	if !ok {
		return
	}
	delete(b.handed, id)
	q := b.book[key.sink]
	if q == nil {
		q = &evidence.Queue{Sink: key.sink}
		b.book[key.sink] = q
	}
	note(q)
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
	urgent := key.typ == evidence.EventTampered
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
		s.sinks.hand(p.ID, waitingKey{p.Sink, p.Event.Name, p.Event.Type})
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

// Delivered takes a delivery out of the outbox. One that was replaced on its
// way stays replaced: the newer one is still to be sent.
func (s *Store) Delivered(ctx context.Context, id int64) error {
	return s.submit(ctx, func(w *writing) error {
		_, err := w.exec("DELETE FROM outbox WHERE id = ?", id)
		return err
	}, func() {
		s.sinks.answered(id, func(q *evidence.Queue) {
			q.Sent++
			q.LastOK = time.Now()
			q.LastErr = ""
		})
	})
}

// Retry notes a failed try. The delivery keeps its ID; where it was replaced
// on its way, the newer one waits until next.
func (s *Store) Retry(ctx context.Context, id int64, next time.Time, lastErr string) error {
	lastErr = strings.ToValidUTF8(lastErr[:min(len(lastErr), maxErrText)], "")
	key, handed := s.sinks.key(id)
	return s.submit(ctx, func(w *writing) error {
		n, err := w.exec("UPDATE outbox SET attempts = attempts + 1, next_try = ?, last_err = ? WHERE id = ?", instant(next), lastErr, id)
		if err != nil || n > 0 || !handed {
			return err
		}
		_, err = w.exec("UPDATE outbox SET attempts = attempts + 1, next_try = ?, last_err = ? WHERE sink = ? AND server = ? AND database = ? AND type = ? AND replaceable = 1",
			instant(next), lastErr, key.sink, key.name.Server, key.name.Database, string(key.typ))
		return err
	}, func() {
		s.sinks.answered(id, func(q *evidence.Queue) {
			q.Failed++
			q.LastErr = lastErr
		})
	})
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

// Queues sums up the outbox, sink by sink.
func (s *Store) Queues(ctx context.Context) ([]evidence.Queue, error) {
	queues := map[string]evidence.Queue{}
	s.sinks.mu.Lock()
	for sink, q := range s.sinks.book {
		queues[sink] = *q
	}
	s.sinks.mu.Unlock()
	rows, err := s.reader.QueryContext(ctx, `SELECT sink, count(*), min(queued),
		coalesce((SELECT last_err FROM outbox AS o WHERE o.sink = outbox.sink AND last_err <> '' ORDER BY next_try DESC LIMIT 1), '')
		FROM outbox GROUP BY sink`)
	if err != nil {
		return nil, s.explain(err)
	}
	err = each(rows, func(rows *sql.Rows) error {
		var sink, lastErr string
		var waiting int
		var oldest int64
		if err := rows.Scan(&sink, &waiting, &oldest, &lastErr); err != nil {
			return err
		}
		q := queues[sink]
		q.Sink, q.Waiting, q.Oldest = sink, waiting, moment(oldest)
		if q.LastErr == "" && q.LastOK.IsZero() {
			q.LastErr = lastErr
		}
		queues[sink] = q
		return nil
	})
	if err != nil {
		return nil, s.explain(err)
	}
	list := make([]evidence.Queue, 0, len(queues))
	for _, q := range queues {
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b evidence.Queue) int { return strings.Compare(a.Sink, b.Sink) })
	return list, nil
}

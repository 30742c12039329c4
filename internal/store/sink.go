package store

import (
	"bytes"
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
)

// errText is an error as it is kept.
func errText(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxErrText)], "")
}

const sinkColumns = "name, sent, failed, last_ok, last_err, last_err_at, sum"

func sinkSum(q *evidence.Queue) [32]byte {
	return sum("sink", q.Sink, q.Sent, q.Failed, instant(q.LastOK), q.LastErr, instant(q.LastErrAt))
}

func scanSink(path string, scan func(...any) error) (evidence.Queue, error) {
	var q evidence.Queue
	var lastOK, lastErrAt int64
	var rowSum []byte
	if err := scan(&q.Sink, &q.Sent, &q.Failed, &lastOK, &q.LastErr, &lastErrAt, &rowSum); err != nil {
		return q, err
	}
	q.LastOK, q.LastErrAt = moment(lastOK), moment(lastErrAt)
	if want := sinkSum(&q); !bytes.Equal(want[:], rowSum) {
		return q, broken(path, "sink", q.Sink)
	}
	return q, nil
}

// tally changes what is known of sinks, in the transaction of what happened to
// their deliveries.
func (w *writing) tally(counts map[string]uint64, change func(*evidence.Queue, uint64)) error {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		q, err := scanSink(w.c.s.path, func(into ...any) error {
			return w.row("SELECT "+sinkColumns+" FROM sink WHERE name = ?", []any{name}, into...)
		})
		there, err := found(err)
		if err != nil {
			return err
		}
		if !there {
			q = evidence.Queue{Sink: name}
		}
		change(&q, counts[name])
		s := sinkSum(&q)
		_, err = w.exec("INSERT INTO sink ("+sinkColumns+") VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET sent = excluded.sent, failed = excluded.failed, last_ok = excluded.last_ok, last_err = excluded.last_err, last_err_at = excluded.last_err_at, sum = excluded.sum",
			q.Sink, q.Sent, q.Failed, instant(q.LastOK), q.LastErr, instant(q.LastErrAt), s[:])
		if err != nil {
			return err
		}
	}
	return nil
}

// NoteSink counts what was sent to a sink past the outbox: a beat, a test.
// lastErr is empty where it arrived.
func (s *Store) NoteSink(ctx context.Context, sink, lastErr string) error {
	if sink == "" || len(sink) > maxName {
		return invalid("a sink with a name of %d bytes", len(sink))
	}
	lastErr = errText(lastErr)
	return s.submit(ctx, func(w *writing) error {
		return w.tally(map[string]uint64{sink: 1}, func(q *evidence.Queue, n uint64) {
			if q.LastErr = lastErr; lastErr == "" {
				q.Sent += n
				q.LastOK = time.Now()
			} else {
				q.Failed += n
				q.LastErrAt = time.Now()
			}
		})
	}, nil)
}

// DropSink forgets a sink and all that waits for it; it says how much that was.
func (s *Store) DropSink(ctx context.Context, sink string) (dropped int, err error) {
	err = s.submit(ctx, func(w *writing) error {
		n, err := w.exec("DELETE FROM outbox WHERE sink = ?", sink)
		if err != nil {
			return err
		}
		dropped = int(n)
		_, err = w.exec("DELETE FROM sink WHERE name = ?", sink)
		return err
	}, nil)
	return dropped, err
}

// Queues sums up the outbox, sink by sink.
func (s *Store) Queues(ctx context.Context) ([]evidence.Queue, error) {
	queues := map[string]evidence.Queue{}
	err := s.read(ctx, func(q querier) error {
		rows, err := q.QueryContext(ctx, "SELECT "+sinkColumns+" FROM sink")
		if err != nil {
			return err
		}
		err = each(rows, func(rows *sql.Rows) error {
			sink, err := scanSink(s.path, rows.Scan)
			queues[sink.Sink] = sink
			return err
		})
		if err != nil {
			return err
		}
		rows, err = q.QueryContext(ctx, "SELECT sink, count(*), min(queued) FROM outbox GROUP BY sink")
		if err != nil {
			return err
		}
		return each(rows, func(rows *sql.Rows) error {
			var sink string
			var waiting int
			var oldest int64
			if err := rows.Scan(&sink, &waiting, &oldest); err != nil {
				return err
			}
			q := queues[sink]
			q.Sink, q.Waiting, q.Oldest = sink, waiting, moment(oldest)
			queues[sink] = q
			return nil
		})
	})
	if err != nil {
		return nil, s.explain(err)
	}
	return slices.SortedFunc(maps.Values(queues), func(a, b evidence.Queue) int { return strings.Compare(a.Sink, b.Sink) }), nil
}

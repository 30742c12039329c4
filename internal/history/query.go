package history

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"immuaudit/evidence"
)

// longestStretch bounds how far back a stretch may have begun that is not over.
const longestStretch = day

// Of gives the stretches of a ledger that touch [from, to), oldest first, at
// most limit of the newest. What is not on disk yet is among them.
func (h *History) Of(ctx context.Context, name evidence.Name, from, to time.Time, limit int) ([]Stretch, error) {
	if h == nil || limit <= 0 {
		return nil, nil
	}
	// Memory first: what leaves it meanwhile is then found twice, not missed.
	recent := h.recent(name, func(s *Stretch) bool { return s.From.Before(to) && !s.To.Before(from) })
	list, err := h.stored(ctx, name, `SELECT `+columns+` FROM stretch
  WHERE ledger = (SELECT id FROM ledger WHERE server = ? AND database = ?) AND began >= ? AND began < ? AND ended >= ? ORDER BY began DESC LIMIT ?`,
		name.Server, name.Database, instant(from)-longestStretch.Microseconds(), instant(to), instant(from), limit)
	if err != nil {
		return nil, err
	}
	slices.Reverse(list)
	list = overlay(list, recent)
	return list[max(0, len(list)-limit):], nil
}

// Last gives the newest stretch of a ledger that ended at or before a time
// with something trusted; false where none is known.
func (h *History) Last(ctx context.Context, name evidence.Name, at time.Time) (Stretch, bool, error) {
	if h == nil {
		return Stretch{}, false, nil
	}
	recent := h.recent(name, func(s *Stretch) bool { return !s.To.After(at) && s.LastTx > 0 })
	list, err := h.stored(ctx, name, `SELECT `+columns+` FROM stretch
  WHERE ledger = (SELECT id FROM ledger WHERE server = ? AND database = ?) AND began <= ? AND ended <= ? AND last_tx > 0 ORDER BY began DESC LIMIT 1`,
		name.Server, name.Database, instant(at), instant(at))
	if err != nil {
		return Stretch{}, false, err
	}
	list = overlay(list, recent)
	if len(list) == 0 {
		return Stretch{}, false, nil
	}
	return list[len(list)-1], true, nil
}

// Names gives every ledger there is a history of.
func (h *History) Names(ctx context.Context) ([]evidence.Name, error) {
	if h == nil {
		return nil, nil
	}
	seen := map[evidence.Name]bool{}
	h.mu.Lock()
	for name := range h.index {
		seen[name] = true
	}
	h.mu.Unlock()
	err := h.read(ctx, "SELECT server, database FROM ledger LIMIT ?", []any{maxLedgers}, func(rows *sql.Rows) error {
		var name evidence.Name
		if err := rows.Scan(&name.Server, &name.Database); err != nil {
			return err
		}
		seen[name] = true
		return nil
	})
	names := make([]evidence.Name, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b evidence.Name) int {
		return cmp.Or(cmp.Compare(a.Server, b.Server), cmp.Compare(a.Database, b.Database))
	})
	return names, err
}

// Runs gives the processes of the auditor that were alive in [from, to),
// oldest first.
func (h *History) Runs(ctx context.Context, from, to time.Time) ([]Run, error) {
	if h == nil {
		return nil, nil
	}
	var runs []Run
	err := h.read(ctx, "SELECT started, alive, ended, version FROM run WHERE started < ? AND alive >= ? ORDER BY started LIMIT ?",
		[]any{instant(to), instant(from), maxRuns}, func(rows *sql.Rows) error {
			var started, alive, ended int64
			var r Run
			if err := rows.Scan(&started, &alive, &ended, &r.Version); err != nil {
				return err
			}
			r.Started, r.Alive, r.Ended = time.UnixMicro(started).UTC(), time.UnixMicro(alive).UTC(), ended != 0
			runs = append(runs, r)
			return nil
		})
	return runs, err
}

// Began is when the oldest thing that is kept happened; zero where there is
// nothing.
func (h *History) Began(ctx context.Context) (time.Time, error) {
	if h == nil {
		return time.Time{}, nil
	}
	var began time.Time
	err := h.read(ctx, "SELECT min(started) FROM run UNION ALL SELECT (SELECT min(began) FROM stretch WHERE level = l) FROM (SELECT 0 l UNION SELECT 1 UNION SELECT 2)", nil,
		func(rows *sql.Rows) error {
			var at sql.NullInt64
			if err := rows.Scan(&at); err != nil {
				return err
			}
			if t := time.UnixMicro(at.Int64).UTC(); at.Valid && (began.IsZero() || t.Before(began)) {
				began = t
			}
			return nil
		})
	return began, err
}

// recent gives the stretches of a ledger that may not be on disk, oldest first.
func (h *History) recent(name evidence.Name, wanted func(*Stretch) bool) []Stretch {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, known := h.index[name]
	if !known {
		return nil
	}
	var list []Stretch
	add := func(p *piece) {
		if s := h.stretch(name, p); wanted(&s) {
			list = append(list, s)
		}
	}
	for _, queue := range [][]finished{h.flushing, h.pending} {
		for j := range queue {
			if queue[j].track == i {
				add(&queue[j].piece)
			}
		}
	}
	if t := h.tracks[i]; t.rounds > 0 && t.dirty {
		add(&t.piece)
	}
	return list
}

// overlay puts newer forms of stretches in the place of older ones.
func overlay(list, newer []Stretch) []Stretch {
	for _, s := range newer {
		at, found := slices.BinarySearchFunc(list, s.From, func(e Stretch, from time.Time) int { return e.From.Compare(from) })
		if found {
			list[at] = s
		} else {
			list = slices.Insert(list, at, s)
		}
	}
	return list
}

func (h *History) stored(ctx context.Context, name evidence.Name, query string, args ...any) ([]Stretch, error) {
	var list []Stretch
	err := h.read(ctx, query, args, func(rows *sql.Rows) error {
		_, _, s, err := scan(rows)
		if err != nil {
			return err
		}
		s.Name = name
		list = append(list, s)
		return nil
	})
	return list, err
}

func scan(rows *sql.Rows) (ledger int64, level int, s Stretch, err error) {
	var began, ended, verdict, flags, rounds, sound, firstTx, lastTx, verified, took, slowest, longest int64
	var alh []byte
	if err := rows.Scan(&ledger, &began, &ended, &level, &verdict, &flags, &s.Kind, &s.Reason, &rounds, &sound,
		&firstTx, &lastTx, &alh, &verified, &took, &slowest, &longest); err != nil {
		return 0, 0, s, err
	}
	if v := evidence.Verdict(verdict); verdict == int64(v) && v <= evidence.Tampered {
		s.Verdict = v
	}
	s.From, s.To = time.UnixMicro(began).UTC(), time.UnixMicro(max(began, ended)).UTC()
	s.Torn, s.Broken = flags&flagTorn != 0, flags&flagBroken != 0
	s.Rounds, s.Sound = uint64(max(0, rounds)), uint64(max(0, sound))
	s.FirstTx, s.LastTx, s.Verified = uint64(firstTx), uint64(lastTx), uint64(verified)
	s.Took, s.Slowest, s.Longest = time.Duration(took)*time.Microsecond, time.Duration(slowest)*time.Microsecond, time.Duration(longest)*time.Millisecond
	if len(alh) == len(s.LastAlh) {
		copy(s.LastAlh[:], alh)
	}
	s.Kind, s.Reason = evidence.Kind(clean(string(s.Kind), 64)), evidence.Reason(clean(string(s.Reason), 64))
	return ledger, level, s, nil
}

// read runs a query; its errors say where and what to do.
func (h *History) read(ctx context.Context, query string, args []any, f func(*sql.Rows) error) error {
	h.dbMu.RLock()
	defer h.dbMu.RUnlock()
	if h.reader == nil {
		return fmt.Errorf("the history %s is closed", h.path)
	}
	rows, err := h.reader.QueryContext(ctx, query, args...)
	if err != nil {
		return explain(h.path, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return explain(h.path, err)
		}
	}
	return explain(h.path, rows.Err())
}

// instant is a time as it stands in the file; one beyond what fits there is
// the last that does.
func instant(t time.Time) int64 {
	const first, last = -62_135_596_800, 253_402_300_799 // years 1 and 9999
	return min(max(t.Unix(), first), last)*1_000_000 + int64(t.Nanosecond()/1000)
}

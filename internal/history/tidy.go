package history

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// perTransaction bounds how many ledgers are tidied between two commits.
const perTransaction = 200

// tidy puts older stretches together and drops the oldest.
func (h *History) tidy(ctx context.Context, now time.Time) error {
	if err := h.merge(ctx, 0, hour, now.Add(-hourlyAfter)); err != nil {
		return err
	}
	if err := h.merge(ctx, 1, day, now.Add(-dailyAfter)); err != nil {
		return err
	}
	for level := range 3 {
		if _, err := h.writer.ExecContext(ctx, "DELETE FROM stretch WHERE level = ? AND began < ?", level, now.Add(-dropAfter).UnixMicro()); err != nil {
			return err
		}
	}
	_, err := h.writer.ExecContext(ctx, "DELETE FROM run WHERE alive < ? OR id <= (SELECT max(id) FROM run) - ?", now.Add(-dropAfter).UnixMicro(), maxRuns)
	return err
}

// merge takes all whole periods before a time from one level to the next.
func (h *History) merge(ctx context.Context, level int, period time.Duration, before time.Time) error {
	end := before.UTC().Truncate(period).UnixMicro()
	for {
		var oldest sql.NullInt64
		if err := h.writer.QueryRowContext(ctx, "SELECT min(began) FROM stretch WHERE level = ?", level).Scan(&oldest); err != nil {
			return err
		}
		if !oldest.Valid || oldest.Int64 >= end {
			return nil
		}
		from := time.UnixMicro(oldest.Int64).UTC().Truncate(period)
		if err := h.mergePeriod(ctx, level, from.UnixMicro(), from.Add(period).UnixMicro()); err != nil {
			return err
		}
	}
}

func (h *History) mergePeriod(ctx context.Context, level int, from, to int64) error {
	for {
		rows, err := h.writer.QueryContext(ctx, "SELECT DISTINCT ledger FROM stretch INDEXED BY stretch_level WHERE level = ? AND began >= ? AND began < ? LIMIT ?", level, from, to, perTransaction)
		if err != nil {
			return err
		}
		var ledgers []int64
		for rows.Next() {
			var ledger int64
			if err := rows.Scan(&ledger); err != nil {
				return errors.Join(err, rows.Close())
			}
			ledgers = append(ledgers, ledger)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if len(ledgers) == 0 {
			return nil
		}
		if err := h.mergeLedgers(ctx, level, from, to, ledgers); err != nil {
			return err
		}
	}
}

func (h *History) mergeLedgers(ctx context.Context, level int, from, to int64, ledgers []int64) (err error) {
	tx, err := h.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreDone(tx.Rollback()))
		}
	}()
	insert, err := tx.PrepareContext(ctx, "INSERT INTO stretch ("+columns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer insert.Close() // ends with the transaction
	for _, ledger := range ledgers {
		rows, err := tx.QueryContext(ctx, "SELECT "+columns+" FROM stretch WHERE ledger = ? AND began >= ? AND began < ? AND level <= ? ORDER BY began", ledger, from, to, level+1)
		if err != nil {
			return err
		}
		var list []Stretch
		for rows.Next() {
			_, _, s, err := scan(rows)
			if err != nil {
				return errors.Join(err, rows.Close())
			}
			list = append(list, s)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM stretch WHERE ledger = ? AND began >= ? AND began < ? AND level <= ?", ledger, from, to, level+1); err != nil {
			return err
		}
		for _, s := range merged(list) {
			if err := put(ctx, insert, ledger, level+1, &s); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

// merged puts neighbours together that touch and say the same; and, where
// verdicts changed too often, neighbours that do not.
func merged(list []Stretch) []Stretch {
	var out []Stretch
	for i := range list {
		s := &list[i]
		if last := len(out) - 1; last >= 0 && !s.Torn && s.Verdict == out[last].Verdict && s.Kind == out[last].Kind && s.Reason == out[last].Reason && s.Broken == out[last].Broken {
			out[last] = join(out[last], s)
		} else {
			out = append(out, *s)
		}
	}
	if len(out) <= maxMerged {
		return out
	}
	width := (len(out) + maxMerged - 1) / maxMerged
	var few []Stretch
	for i := 0; i < len(out); i += width {
		s := out[i]
		for j := i + 1; j < min(i+width, len(out)); j++ {
			s = join(s, &out[j])
			s.Broken = true
		}
		few = append(few, s)
	}
	return few
}

// join adds the stretch that follows.
func join(s Stretch, next *Stretch) Stretch {
	s.Longest = max(s.Longest, next.Longest)
	if next.Torn {
		s.Longest = max(s.Longest, next.From.Sub(s.To))
	}
	if worse(next.Verdict, s.Verdict) {
		s.Verdict, s.Kind, s.Reason = next.Verdict, next.Kind, next.Reason
	}
	s.To = next.To
	s.Rounds += next.Rounds
	s.Sound += next.Sound
	s.LastTx, s.LastAlh, s.Verified = next.LastTx, next.LastAlh, next.Verified
	s.Took += next.Took
	s.Slowest = max(s.Slowest, next.Slowest)
	s.Broken = s.Broken || next.Broken
	return s
}

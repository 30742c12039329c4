package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// read runs f on one unchanging view of the state.
func (s *Store) read(ctx context.Context, f func(q querier) error) error {
	tx, err := s.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.explain(err)
	}
	err = f(tx)
	if end := tx.Rollback(); err == nil && end != nil {
		err = end
	}
	return s.explain(err)
}

// Load gives everything the engine keeps in mind.
func (s *Store) Load(ctx context.Context) (*evidence.Remembered, error) {
	r := &evidence.Remembered{Marks: map[evidence.Name][]proof.State{}}
	err := s.read(ctx, func(q querier) error {
		names := map[uint64]evidence.Name{}
		err := s.eachTrust(ctx, q, "", nil, func(id uint64, t evidence.Trust, _ []byte) error {
			names[id] = t.Name
			r.Trust = append(r.Trust, t)
			return nil
		})
		if err != nil {
			return err
		}
		err = s.eachMark(ctx, q, func(trust uint64, state proof.State, _ []byte) error {
			name := names[trust]
			r.Marks[name] = append(r.Marks[name], state)
			return nil
		})
		if err != nil {
			return err
		}
		if r.Open, err = s.incidents(ctx, q, "WHERE status = 'open'"); err != nil {
			return err
		}
		r.Out, err = s.events(ctx, q, outages, string(evidence.EventStale), string(evidence.EventRecovered), string(evidence.EventStale))
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Verify reads every row of what must not be forgotten and compares it with
// its checksum, and all of them with the digest.
func (s *Store) Verify(ctx context.Context) error {
	return s.read(ctx, func(q querier) error {
		var want []byte
		switch there, err := found(q.QueryRowContext(ctx, "SELECT digest FROM meta WHERE one = 1").Scan(&want)); {
		case err != nil:
			return err
		case !there:
			return damaged(s.path, "it does not say which state it is")
		}
		var digest [32]byte
		known := map[uint64]bool{}
		err := s.eachTrust(ctx, q, "", nil, func(id uint64, _ evidence.Trust, rowSum []byte) error {
			known[id] = true
			toggle(&digest, rowSum)
			return nil
		})
		if err != nil {
			return err
		}
		err = s.eachMark(ctx, q, func(trust uint64, state proof.State, rowSum []byte) error {
			if !known[trust] {
				return damaged(s.path, "a remembered state belongs to no ledger")
			}
			toggle(&digest, rowSum)
			return nil
		})
		if err != nil {
			return err
		}
		err = s.eachIncident(ctx, q, "", nil, func(_ evidence.Incident, rowSum []byte) error {
			toggle(&digest, rowSum)
			return nil
		})
		if err != nil {
			return err
		}
		if !bytes.Equal(digest[:], want) {
			return damaged(s.path, "its records are not those that were written together")
		}
		return s.verifyRest(ctx, q)
	})
}

// verifyRest looks at what is not part of the digest: events, the outbox, sinks.
func (s *Store) verifyRest(ctx context.Context, q querier) error {
	if _, err := s.events(ctx, q, ""); err != nil {
		return err
	}
	rows, err := q.QueryContext(ctx, "SELECT "+pendingColumns+" FROM outbox")
	if err != nil {
		return err
	}
	err = each(rows, func(rows *sql.Rows) error {
		_, err := s.scanPending(rows)
		return err
	})
	if err != nil {
		return err
	}
	if rows, err = q.QueryContext(ctx, "SELECT "+sinkColumns+" FROM sink"); err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		_, err := scanSink(s.path, rows.Scan)
		return err
	})
}

// Ledgers gives the trust in every ledger, by name.
func (s *Store) Ledgers(ctx context.Context) ([]evidence.Trust, error) {
	var list []evidence.Trust
	err := s.read(ctx, func(q querier) error {
		return s.eachTrust(ctx, q, "", nil, func(_ uint64, t evidence.Trust, _ []byte) error {
			list = append(list, t)
			return nil
		})
	})
	return list, err
}

// Trust gives the trust in one ledger; ErrNotFound if it was never met.
func (s *Store) Trust(ctx context.Context, name evidence.Name) (evidence.Trust, error) {
	var one evidence.Trust
	err := s.read(ctx, func(q querier) error {
		return s.eachTrust(ctx, q, "WHERE server = ? AND database = ?", []any{name.Server, name.Database}, func(_ uint64, t evidence.Trust, _ []byte) error {
			one = t
			return nil
		})
	})
	if err == nil && one.Version == 0 {
		err = s.missing("ledger "+name.String(), "`immuclient trust list` shows those that are known")
	}
	return one, err
}

func (s *Store) missing(what, next string) error {
	return &Error{Kind: ErrNotFound, Path: s.path, What: what, Next: next}
}

// eachTrust gives the records a clause selects, in the order of their names.
func (s *Store) eachTrust(ctx context.Context, q querier, where string, args []any, f func(id uint64, t evidence.Trust, rowSum []byte) error) error {
	rows, err := q.QueryContext(ctx, "SELECT id, server, database, version, proven, proven_alh, base, body, walk, sum FROM trust "+where+" ORDER BY server, database", args...)
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var id, version, proven uint64
		var name evidence.Name
		var provenAlh, base, body, walk, rowSum []byte
		if err := rows.Scan(&id, &name.Server, &name.Database, &version, &proven, &provenAlh, &base, &body, &walk, &rowSum); err != nil {
			return misshapen(s.path, "ledger", err)
		}
		var r trustRecord
		want := trustSum(id, name, version, proven, provenAlh, base, body, walk)
		if !bytes.Equal(want[:], rowSum) || decode(body, &r) != nil {
			return broken(s.path, "ledger", name)
		}
		return f(id, r.trust(name, version, walk), rowSum)
	})
}

func (s *Store) eachMark(ctx context.Context, q querier, f func(trust uint64, state proof.State, rowSum []byte) error) error {
	rows, err := q.QueryContext(ctx, "SELECT trust, tx, alh, sum FROM mark ORDER BY trust, tx")
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var trust, tx uint64
		var alh, rowSum []byte
		if err := rows.Scan(&trust, &tx, &alh, &rowSum); err != nil {
			return misshapen(s.path, "remembered state", err)
		}
		state := proof.State{TxID: tx}
		want := markSum(trust, tx, alh)
		if !bytes.Equal(want[:], rowSum) || copy(state.Alh[:], alh) != len(alh) || len(alh) != len(state.Alh) {
			return broken(s.path, "remembered state", tx)
		}
		return f(trust, state, rowSum)
	})
}

func (s *Store) eachIncident(ctx context.Context, q querier, where string, args []any, f func(i evidence.Incident, rowSum []byte) error) error {
	rows, err := q.QueryContext(ctx, "SELECT id, server, database, version, status, opened, body, sum FROM incident "+where, args...)
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var id, status string
		var name evidence.Name
		var version uint64
		var opened int64
		var body, rowSum []byte
		if err := rows.Scan(&id, &name.Server, &name.Database, &version, &status, &opened, &body, &rowSum); err != nil {
			return misshapen(s.path, "incident", err)
		}
		var r incidentRecord
		if decode(body, &r) != nil {
			return broken(s.path, "incident", id)
		}
		i := r.incident(id, version, name, evidence.Status(status))
		want := incidentSum(i, version, body)
		if !bytes.Equal(want[:], rowSum) || instant(i.OpenedAt) != opened {
			return broken(s.path, "incident", id)
		}
		return f(i, rowSum)
	})
}

func (s *Store) incidents(ctx context.Context, q querier, where string, args ...any) ([]evidence.Incident, error) {
	var list []evidence.Incident
	err := s.eachIncident(ctx, q, where+" ORDER BY opened, id", args, func(i evidence.Incident, _ []byte) error {
		list = append(list, i)
		return nil
	})
	return list, err
}

// Incidents gives the open incidents, oldest first, or all of them.
func (s *Store) Incidents(ctx context.Context, all bool) ([]evidence.Incident, error) {
	where := "WHERE status = 'open'"
	if all {
		where = ""
	}
	var list []evidence.Incident
	err := s.read(ctx, func(q querier) (err error) {
		list, err = s.incidents(ctx, q, where)
		return err
	})
	return list, err
}

// Incident finds an incident by its identity or by a beginning of it that no
// other has.
func (s *Store) Incident(ctx context.Context, idOrPrefix string) (evidence.Incident, error) {
	none := s.missing(fmt.Sprintf("incident %.80q", idOrPrefix), "`immuclient incident list` shows them")
	if !incidentID(idOrPrefix) {
		return evidence.Incident{}, none
	}
	var list []evidence.Incident
	err := s.read(ctx, func(q querier) (err error) {
		// '~' comes after all that an identity is made of.
		list, err = s.incidents(ctx, q, "WHERE id >= ?1 AND id < ?1 || '~'", idOrPrefix)
		return err
	})
	if err != nil {
		return evidence.Incident{}, err
	}
	if exact := slices.IndexFunc(list, func(i evidence.Incident) bool { return i.ID == idOrPrefix }); exact >= 0 {
		return list[exact], nil
	}
	switch len(list) {
	case 0:
		return evidence.Incident{}, none
	case 1:
		return list[0], nil
	}
	ids := make([]string, 0, len(list))
	for _, i := range list[:min(len(list), 20)] {
		ids = append(ids, i.ID)
	}
	return evidence.Incident{}, &Error{Kind: ErrAmbiguous, Path: s.path, What: fmt.Sprintf("%d incidents begin with %q: %s", len(list), idOrPrefix, strings.Join(ids, ", ")),
		Next: "give more of the identity"}
}

// Events gives what happened at or after since, oldest first, at most limit
// of the newest. Only the newest 20,000 are kept.
func (s *Store) Events(ctx context.Context, since time.Time, limit int) ([]evidence.Event, error) {
	var list []evidence.Event
	err := s.read(ctx, func(q querier) (err error) {
		list, err = s.events(ctx, q, "WHERE at >= ? ORDER BY at DESC, seq DESC LIMIT ?", instant(since), max(0, limit))
		return err
	})
	slices.Reverse(list)
	return list, err
}

// outages are the newest events of stale and recovered, of each name one, that
// are stale.
const outages = `WHERE seq IN (SELECT max(seq) FROM event WHERE lasting = 0 AND type IN (?, ?) GROUP BY server, database) AND type = ? ORDER BY seq`

func (s *Store) events(ctx context.Context, q querier, which string, args ...any) ([]evidence.Event, error) {
	rows, err := q.QueryContext(ctx, "SELECT seq, sequence, server, database, type, lasting, at, body, sum FROM event "+which, args...)
	if err != nil {
		return nil, err
	}
	var list []evidence.Event
	err = each(rows, func(rows *sql.Rows) error {
		var seq, sequence uint64
		var at int64
		var kept bool
		var name evidence.Name
		var typ evidence.EventType
		var body, rowSum []byte
		if err := rows.Scan(&seq, &sequence, &name.Server, &name.Database, &typ, &kept, &at, &body, &rowSum); err != nil {
			return misshapen(s.path, "event", err)
		}
		var r eventRecord
		if want := eventSum(sequence, name, typ, at, body); !bytes.Equal(want[:], rowSum) || kept != lasting(typ) || decode(body, &r) != nil {
			return broken(s.path, "event", seq)
		}
		list = append(list, r.event(name, sequence))
		return nil
	})
	return list, err
}

// misshapen is a row whose fields cannot be what was written: a number below
// zero, a text that is none.
func misshapen(path, table string, err error) error {
	if primary, _ := resultCode(err); primary != 0 || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &Error{Kind: ErrDamaged, Path: path, What: "a field of a row of " + table, Err: err, Next: nextRestore}
}

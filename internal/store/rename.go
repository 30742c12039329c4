package store

import (
	"context"
	"database/sql"

	"immuaudit/evidence"
)

// Rename gives a ledger another name: its trust, incidents, events and waiting
// deliveries go with it. It refuses a name that is known already. Versions
// count on, so that whoever still holds the old records meets a conflict. The
// events given are stored together with it.
func (s *Store) Rename(ctx context.Context, from, to evidence.Name, events ...evidence.Event) error {
	if err := checkName(to, true); err != nil {
		return err
	}
	return s.rename(ctx, renaming{
		where: "server = ? AND database = ?", from: []any{from.Server, from.Database}, to: []any{to.Server, to.Database},
		name:   func(evidence.Name) evidence.Name { return to },
		source: "ledger " + from.String(), target: "ledger " + to.String(),
	}, events)
}

// RenameServer does the same for all ledgers of a server, and for what is
// recorded about the server itself.
func (s *Store) RenameServer(ctx context.Context, from, to string, events ...evidence.Event) error {
	if err := checkName(evidence.Name{Server: to}, false); err != nil {
		return err
	}
	return s.rename(ctx, renaming{
		where: "server = ?", from: []any{from}, to: []any{to},
		name:   func(n evidence.Name) evidence.Name { return evidence.Name{Server: to, Database: n.Database} },
		source: "server " + from, target: "server " + to,
	}, events)
}

type renaming struct {
	where          string // which rows
	from, to       []any  // its arguments for the old and the new name
	name           func(evidence.Name) evidence.Name
	source, target string // for messages
}

func (s *Store) rename(ctx context.Context, r renaming, events []evidence.Event) error {
	p, err := prepare(evidence.Change{Events: events})
	if err != nil {
		return err
	}
	return s.submit(ctx, func(w *writing) error {
		var source, target int
		if err := w.row("SELECT count(*) FROM trust WHERE "+r.where, r.from, &source); err != nil {
			return err
		}
		if err := w.row("SELECT count(*) FROM trust WHERE "+r.where, r.to, &target); err != nil {
			return err
		}
		if source == 0 {
			return s.missing(r.source, "`immuclient trust list` shows those that are known")
		}
		if target > 0 {
			return &Error{Kind: ErrExists, Path: s.path, What: r.target, Next: "choose a name that is not in use"}
		}
		for _, move := range [...]func(renaming) error{w.moveTrust, w.moveIncidents, w.moveEvents, w.moveOutbox} {
			if err := move(r); err != nil {
				return err
			}
		}
		return p.write(w)
	}, nil)
}

// collect reads whole rows before any of them is written.
func collect[T any](w *writing, query string, args []any, scan func(*sql.Rows, *T) error) ([]T, error) {
	var all []T
	err := w.rows(query, args, func(rows *sql.Rows) error {
		var one T
		err := scan(rows, &one)
		all = append(all, one)
		return err
	})
	return all, err
}

func (w *writing) moveTrust(r renaming) error {
	type row struct {
		id, version, proven                 uint64
		name                                evidence.Name
		provenAlh, base, body, walk, oldSum []byte
	}
	w.renamed = true
	all, err := collect(w, "SELECT id, server, database, version, proven, proven_alh, base, body, walk, sum FROM trust WHERE "+r.where, r.from, func(rows *sql.Rows, t *row) error {
		return rows.Scan(&t.id, &t.name.Server, &t.name.Database, &t.version, &t.proven, &t.provenAlh, &t.base, &t.body, &t.walk, &t.oldSum)
	})
	if err != nil {
		return err
	}
	for _, t := range all {
		name := r.name(t.name)
		s := trustSum(t.id, name, t.version+1, t.proven, t.provenAlh, t.base, t.body, t.walk)
		if _, err := w.exec("UPDATE trust SET server = ?, database = ?, version = ?, sum = ? WHERE id = ?", name.Server, name.Database, t.version+1, s[:], t.id); err != nil {
			return err
		}
		w.toggle(t.oldSum)
		w.toggle(s[:])
	}
	return nil
}

func (w *writing) moveIncidents(r renaming) error {
	type row struct {
		evidence.Incident
		opened       int64
		body, oldSum []byte
	}
	all, err := collect(w, "SELECT id, server, database, version, status, opened, body, sum FROM incident WHERE "+r.where, r.from, func(rows *sql.Rows, i *row) error {
		return rows.Scan(&i.ID, &i.Name.Server, &i.Name.Database, &i.Version, &i.Status, &i.opened, &i.body, &i.oldSum)
	})
	if err != nil {
		return err
	}
	for _, i := range all {
		i.Name, i.OpenedAt = r.name(i.Name), moment(i.opened)
		s := incidentSum(i.Incident, i.Version+1, i.body)
		if _, err := w.exec("UPDATE incident SET server = ?, database = ?, version = ?, sum = ? WHERE id = ?", i.Name.Server, i.Name.Database, i.Version+1, s[:], i.ID); err != nil {
			return err
		}
		w.toggle(i.oldSum)
		w.toggle(s[:])
	}
	return nil
}

func (w *writing) moveEvents(r renaming) error {
	type row struct {
		seq, at  int64
		sequence uint64
		name     evidence.Name
		typ      evidence.EventType
		body     []byte
	}
	all, err := collect(w, "SELECT seq, sequence, server, database, type, at, body FROM event WHERE "+r.where, r.from, func(rows *sql.Rows, e *row) error {
		return rows.Scan(&e.seq, &e.sequence, &e.name.Server, &e.name.Database, &e.typ, &e.at, &e.body)
	})
	if err != nil {
		return err
	}
	for _, e := range all {
		name := r.name(e.name)
		s := eventSum(e.sequence, name, e.typ, e.at, e.body)
		if _, err := w.exec("UPDATE event SET server = ?, database = ?, sum = ? WHERE seq = ?", name.Server, name.Database, s[:], e.seq); err != nil {
			return err
		}
	}
	return nil
}

func (w *writing) moveOutbox(r renaming) error {
	type row struct {
		id, queued          int64
		sequence            uint64
		key                 waitingKey
		replaceable, urgent bool
		body                []byte
	}
	all, err := collect(w, "SELECT id, sequence, sink, server, database, type, replaceable, urgent, queued, body FROM outbox WHERE "+r.where, r.from, func(rows *sql.Rows, d *row) error {
		return rows.Scan(&d.id, &d.sequence, &d.key.sink, &d.key.name.Server, &d.key.name.Database, &d.key.typ, &d.replaceable, &d.urgent, &d.queued, &d.body)
	})
	if err != nil {
		return err
	}
	for _, d := range all {
		d.key.name = r.name(d.key.name)
		s := deliverySum(d.sequence, d.key, d.replaceable, d.urgent, d.queued, d.body)
		if _, err := w.exec("UPDATE outbox SET server = ?, database = ?, sum = ? WHERE id = ?", d.key.name.Server, d.key.name.Database, s[:], d.id); err != nil {
			return err
		}
	}
	return nil
}

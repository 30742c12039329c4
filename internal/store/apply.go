package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// Apply stores a change, all of it or nothing, and returns once it is synced.
//
// A *ConflictError says that a record changed since it was read; ErrInvalid
// that the change would break a promise of the state (trust moves forward
// only; verified ≤ walked ≤ proven; a decided incident stays decided); an
// *Error with Full that there was no room. In each case nothing was stored.
// If ctx ends the change was not stored either.
func (s *Store) Apply(ctx context.Context, c evidence.Change) error {
	p, err := prepare(c)
	if err != nil {
		return err
	}
	return s.submit(ctx, p.write, nil)
}

// prepared is a change with all that needs no transaction already done, so
// that it is done by many goroutines and not by the committer.
type prepared struct {
	trust      *preparedTrust
	remember   []proof.State
	forget     uint64
	forgetAll  bool
	incidents  []preparedIncident
	events     []preparedEvent
	deliveries []preparedDelivery
}

type preparedTrust struct {
	evidence.Trust
	base, body, walk []byte
}

type preparedIncident struct {
	evidence.Incident
	body []byte
}

type preparedEvent struct {
	name evidence.Name
	typ  evidence.EventType
	at   int64
	body []byte
}

type preparedDelivery struct {
	sink     string
	coalesce bool
	event    preparedEvent
}

func prepare(c evidence.Change) (*prepared, error) {
	if n := len(c.Remember) + len(c.Incidents) + len(c.Events) + len(c.Deliveries); n > maxChange {
		return nil, invalid("a change of %d parts; at most %d go together", n, maxChange)
	}
	p := &prepared{forget: min(c.Forget, maxTx), forgetAll: c.ForgetAll}
	if c.Trust != nil {
		t, err := prepareTrust(*c.Trust)
		if err != nil {
			return nil, err
		}
		p.trust = t
	} else if len(c.Remember) > 0 || c.Forget > 0 || c.ForgetAll {
		return nil, invalid("states to remember or to forget without the ledger they belong to")
	}
	for _, state := range c.Remember {
		if state.TxID > c.Trust.Proven.TxID {
			return nil, invalid("ledger %s: a state to remember (transaction %d) beyond what is proven (%d)", c.Trust.Name, state.TxID, c.Trust.Proven.TxID)
		}
	}
	p.remember = slices.Clone(c.Remember)
	for _, i := range c.Incidents {
		pi, err := prepareIncident(i)
		if err != nil {
			return nil, err
		}
		p.incidents = append(p.incidents, pi)
	}
	for _, e := range c.Events {
		pe, err := prepareEvent(e)
		if err != nil {
			return nil, err
		}
		p.events = append(p.events, pe)
	}
	for _, d := range c.Deliveries {
		if d.Sink == "" || len(d.Sink) > maxName {
			return nil, invalid("a delivery to a sink with a name of %d bytes", len(d.Sink))
		}
		pe, err := prepareEvent(d.Event)
		if err != nil {
			return nil, err
		}
		p.deliveries = append(p.deliveries, preparedDelivery{d.Sink, d.Coalesce, pe})
	}
	return p, nil
}

func prepareTrust(t evidence.Trust) (*preparedTrust, error) {
	if err := checkName(t.Name, true); err != nil {
		return nil, err
	}
	b := t.Baseline
	switch {
	case knownOrigin(b.Origin):
	case b.Origin == "":
		// Met, but nothing of it is trusted yet.
		if b.State != (proof.State{}) || t.Proven.State != (proof.State{}) {
			return nil, invalid("ledger %s: trust that began nowhere", t.Name)
		}
	default:
		return nil, invalid("ledger %s: trust of unknown origin %.40q", t.Name, b.Origin)
	}
	if err := checkSigned(t.Proven); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", t.Name, err)
	}
	// The watermarks: verified ≤ walked ≤ proven, none behind the baseline.
	switch {
	case t.Verified > t.Walked || t.Walked > t.Proven.TxID:
		return nil, invalid("ledger %s: verified %d ≤ walked %d ≤ proven %d does not hold", t.Name, t.Verified, t.Walked, t.Proven.TxID)
	case t.Proven.TxID < b.State.TxID:
		return nil, invalid("ledger %s: proven %d lies before its baseline %d", t.Name, t.Proven.TxID, b.State.TxID)
	case t.Proven.TxID == b.State.TxID && t.Proven.Alh != b.State.Alh:
		return nil, invalid("ledger %s: proven is another state of transaction %d than its baseline", t.Name, b.State.TxID)
	case len(t.Walk) > maxWalk || len(t.Key) > maxKey || len(t.UUID) > maxUUID:
		return nil, invalid("ledger %s: a walk of %d, key of %d or UUID of %d bytes is out of bounds", t.Name, len(t.Walk), len(t.Key), len(t.UUID))
	case t.Version >= maxTx:
		return nil, invalid("ledger %s: version %d", t.Name, t.Version)
	}
	if err := checkText("a note", b.Note); err != nil {
		return nil, err
	}
	r := recordTrust(t)
	base, err := r.Baseline.digest()
	if err != nil {
		return nil, invalid("ledger %s: %v", t.Name, err)
	}
	body, err := encode(r)
	if err != nil {
		return nil, err
	}
	// A nil slice would be stored as NULL.
	return &preparedTrust{Trust: t, base: base, body: body, walk: append([]byte{}, t.Walk...)}, nil
}

func knownOrigin(o evidence.Origin) bool {
	return o == evidence.OriginFirstContact || o == evidence.OriginPinned || o == evidence.OriginImported || o == evidence.OriginAccepted
}

func prepareIncident(i evidence.Incident) (preparedIncident, error) {
	p := preparedIncident{Incident: i}
	if !incidentID(i.ID) {
		return p, invalid("an incident with the identity %.80q: 1 to %d lower-case letters, digits and dashes", i.ID, maxIncidentID)
	}
	if err := checkName(i.Name, false); err != nil {
		return p, err
	}
	switch i.Status {
	case evidence.Open, evidence.Accepted, evidence.Kept:
	default:
		return p, invalid("incident %s: unknown status %.40q", i.ID, i.Status)
	}
	if i.Kind.Rank() >= len(evidence.Kinds()) {
		return p, invalid("incident %s: unknown kind %.40q", i.ID, i.Kind)
	}
	if len(i.Findings) > evidence.MaxFindings || len(i.UUID) > maxUUID || i.Version >= maxTx {
		return p, invalid("incident %s: %d findings or a UUID of %d bytes are out of bounds", i.ID, len(i.Findings), len(i.UUID))
	}
	if err := checkSigned(i.Trusted); err != nil {
		return p, err
	}
	if err := checkSigned(i.Observed); err != nil {
		return p, err
	}
	if err := checkText("a text of an incident", i.AckedBy, i.AckedNote, i.ClosedBy, i.CloseNote, i.Evidence, i.EvidenceError); err != nil {
		return p, err
	}
	body, err := encode(recordIncident(i))
	p.body = body
	return p, err
}

func incidentID(id string) bool {
	if id == "" || len(id) > maxIncidentID {
		return false
	}
	for _, r := range []byte(id) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}

func prepareEvent(e evidence.Event) (preparedEvent, error) {
	p := preparedEvent{name: e.Name, typ: e.Type, at: instant(e.At)}
	if len(e.Name.Server) > maxName {
		return p, checkName(e.Name, false)
	}
	if e.Type == "" || len(e.Type) > maxUUID || len(e.ID) > maxUUID || len(e.UUID) > maxUUID {
		return p, invalid("an event with a type of %d, ID of %d and UUID of %d bytes", len(e.Type), len(e.ID), len(e.UUID))
	}
	if err := checkText("a message", append(slices.Clone(e.Tags), e.Message, e.Incident)...); err != nil {
		return p, err
	}
	for _, s := range [...]*proof.SignedState{e.Previous, e.Current} {
		if s == nil {
			continue
		}
		if err := checkSigned(*s); err != nil {
			return p, err
		}
	}
	body, err := encode(recordEvent(e))
	p.body = body
	return p, err
}

func (p *prepared) write(w *writing) error {
	if p.trust != nil {
		id, err := w.putTrust(p.trust)
		if err != nil {
			return err
		}
		if err := w.putMarks(id, p); err != nil {
			return err
		}
	}
	for _, i := range p.incidents {
		if err := w.putIncident(i); err != nil {
			return err
		}
	}
	for _, e := range p.events {
		if err := w.putEvent(e); err != nil {
			return err
		}
	}
	for _, d := range p.deliveries {
		if err := w.putDelivery(d); err != nil {
			return err
		}
	}
	return nil
}

// storedTrust is what a change of trust is judged by.
type storedTrust struct {
	id, version, proven     uint64
	provenAlh, base, rowSum []byte
}

// putTrust stores a record of trust if the stored version is the one it was
// made from, and gives the row's number.
func (w *writing) putTrust(t *preparedTrust) (uint64, error) {
	var old storedTrust
	exists, err := found(w.row("SELECT id, version, proven, proven_alh, base, sum FROM trust WHERE server = ? AND database = ?",
		[]any{t.Name.Server, t.Name.Database}, &old.id, &old.version, &old.proven, &old.provenAlh, &old.base, &old.rowSum))
	if err != nil {
		return 0, err
	}
	if old.version != t.Version {
		return 0, &ConflictError{Record: "ledger " + t.Name.String(), Want: t.Version, Have: old.version}
	}
	if !exists {
		if err := w.row("SELECT coalesce(max(id), 0) + 1 FROM trust", nil, &old.id); err != nil {
			return 0, err
		}
	} else if err := w.judgeMove(old, t); err != nil {
		return 0, err
	}
	s := trustSum(old.id, t.Name, t.Version+1, t.Proven.TxID, t.Proven.Alh[:], t.base, t.body, t.walk)
	if exists {
		_, err = w.exec("UPDATE trust SET version = ?, proven = ?, proven_alh = ?, base = ?, body = ?, walk = ?, sum = ? WHERE id = ?",
			t.Version+1, t.Proven.TxID, t.Proven.Alh[:], t.base, t.body, t.walk, s[:], old.id)
	} else {
		_, err = w.exec("INSERT INTO trust (id, server, database, version, proven, proven_alh, base, body, walk, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			old.id, t.Name.Server, t.Name.Database, t.Version+1, t.Proven.TxID, t.Proven.Alh[:], t.base, t.body, t.walk, s[:])
	}
	w.toggle(old.rowSum)
	w.toggle(s[:])
	w.proven = append(w.proven, t)
	return old.id, err
}

// judgeMove is the last guard of what is trusted. While a baseline stands, the
// proven state only moves forward and never changes in place. A baseline is
// replaced by a decision alone, or where the ledger was retired by one.
func (w *writing) judgeMove(old storedTrust, t *preparedTrust) error {
	if bytes.Equal(old.base, t.base) {
		switch {
		case t.Proven.TxID < old.proven:
			return invalid("ledger %s: proven would move back from transaction %d to %d", t.Name, old.proven, t.Proven.TxID)
		case t.Proven.TxID == old.proven && !bytes.Equal(old.provenAlh, t.Proven.Alh[:]):
			return invalid("ledger %s: the proven state of transaction %d would become another one", t.Name, old.proven)
		}
		return nil
	}
	if t.Baseline.Origin == evidence.OriginAccepted {
		return nil
	}
	var body []byte
	if err := w.row("SELECT body FROM trust WHERE id = ?", []any{old.id}, &body); err != nil {
		return err
	}
	var was trustRecord
	if err := decode(body, &was); err != nil {
		return broken(w.c.s.path, "ledger", t.Name)
	}
	if !was.Retired && was.Baseline.Origin != "" {
		return invalid("ledger %s: it has a baseline (%s, transaction %d) that only a decision replaces", t.Name, was.Baseline.Origin, was.Baseline.Tx)
	}
	return nil
}

func trustSum(id uint64, name evidence.Name, version, proven uint64, provenAlh, base, body, walk []byte) [32]byte {
	return sum("trust", id, name.Server, name.Database, version, proven, provenAlh, base, body, walk)
}

func markSum(trust, tx uint64, alh []byte) [32]byte { return sum("mark", trust, tx, alh) }

// putMarks forgets and remembers states that the walk must meet.
func (w *writing) putMarks(trust uint64, p *prepared) error {
	forget := p.forget
	if p.forgetAll {
		forget = maxTx
	}
	if forget > 0 {
		if err := w.dropMarks("DELETE FROM mark WHERE trust = ? AND tx <= ? RETURNING sum", trust, forget); err != nil {
			return err
		}
	}
	for _, state := range p.remember {
		// Met by the walk in the round that proved it.
		if p.forget > 0 && state.TxID <= p.forget {
			continue
		}
		var alh []byte
		exists, err := found(w.row("SELECT alh FROM mark WHERE trust = ? AND tx = ?", []any{trust, state.TxID}, &alh))
		if err != nil {
			return err
		}
		if exists {
			// Two remembered states of one transaction contradict each
			// other; neither may replace the other silently.
			if !bytes.Equal(alh, state.Alh[:]) {
				return invalid("ledger %s: another state of transaction %d is remembered already", p.trust.Name, state.TxID)
			}
			continue
		}
		s := markSum(trust, state.TxID, state.Alh[:])
		if _, err := w.exec("INSERT INTO mark (trust, tx, alh, sum) VALUES (?, ?, ?, ?)", trust, state.TxID, state.Alh[:], s[:]); err != nil {
			return err
		}
		w.toggle(s[:])
	}
	// What is remembered lies before what is proven: a decision that goes
	// back must say what becomes of the states after it.
	var beyond int
	if err := w.row("SELECT count(*) FROM (SELECT 1 FROM mark WHERE trust = ? AND tx > ? LIMIT 1)", []any{trust, p.trust.Proven.TxID}, &beyond); err != nil {
		return err
	}
	if beyond > 0 {
		return invalid("ledger %s: states after its new proven transaction %d are remembered; they have to be forgotten with it", p.trust.Name, p.trust.Proven.TxID)
	}
	if len(p.remember) == 0 || (p.trust.Version%256 != 0 && len(p.remember) < 256) {
		return nil
	}
	return w.thinMarks(trust)
}

// thinMarks halves the remembered states where they became too many: a walk
// that does not get on for days leaves one a round. Each of those kept was
// bound to all before it, so that thinning costs precision, not proof.
func (w *writing) thinMarks(trust uint64) error {
	for {
		var n int
		if err := w.row("SELECT count(*) FROM mark WHERE trust = ?", []any{trust}, &n); err != nil {
			return err
		}
		if n <= maxMarks {
			return nil
		}
		// The second, fourth, … go: the first and, of an odd number, the last stay.
		err := w.dropMarks(`DELETE FROM mark WHERE trust = ?1 AND tx IN (
			SELECT tx FROM (SELECT tx, row_number() OVER (ORDER BY tx) AS n FROM mark WHERE trust = ?1)
			WHERE n % 2 = 0 AND tx < (SELECT max(tx) FROM mark WHERE trust = ?1)) RETURNING sum`, trust)
		if err != nil {
			return err
		}
	}
}

func (w *writing) dropMarks(query string, args ...any) error {
	return w.rows(query, args, func(rows *sql.Rows) error {
		var s sql.RawBytes
		if err := rows.Scan(&s); err != nil {
			return err
		}
		w.toggle(s)
		return nil
	})
}

func incidentSum(i evidence.Incident, version uint64, body []byte) [32]byte {
	return sum("incident", i.ID, i.Name.Server, i.Name.Database, version, string(i.Status), instant(i.OpenedAt), body)
}

func (w *writing) putIncident(i preparedIncident) error {
	var version uint64
	var status string
	var body, oldSum []byte
	var name evidence.Name
	exists, err := found(w.row("SELECT version, server, database, status, body, sum FROM incident WHERE id = ?", []any{i.ID},
		&version, &name.Server, &name.Database, &status, &body, &oldSum))
	if err != nil {
		return err
	}
	if version != i.Version {
		return &ConflictError{Record: "incident " + i.ID, Want: i.Version, Have: version}
	}
	s := incidentSum(i.Incident, i.Version+1, i.body)
	if !exists {
		_, err = w.exec("INSERT INTO incident (id, server, database, version, status, opened, body, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			i.ID, i.Name.Server, i.Name.Database, i.Version+1, string(i.Status), instant(i.OpenedAt), i.body, s[:])
		w.toggle(s[:])
		return err
	}
	var was incidentRecord
	if err := decode(body, &was); err != nil {
		return broken(w.c.s.path, "incident", i.ID)
	}
	// An operator decides about what was recorded, so that it stays as it
	// was recorded; and what was decided stays decided.
	old := was.incident(i.ID, version, name, evidence.Status(status))
	switch {
	case old.Status != evidence.Open && i.Status != old.Status:
		return invalid("incident %s: it was %s already", i.ID, old.Status)
	case old.Name != i.Name, !old.OpenedAt.Equal(i.OpenedAt), !sameState(old.Trusted, i.Trusted), !sameState(old.Observed, i.Observed):
		return invalid("incident %s: its ledger, its beginning and the states it was opened with do not change", i.ID)
	}
	_, err = w.exec("UPDATE incident SET version = ?, status = ?, body = ?, sum = ? WHERE id = ?", i.Version+1, string(i.Status), i.body, s[:], i.ID)
	w.toggle(oldSum)
	w.toggle(s[:])
	return err
}

func sameState(a, b proof.SignedState) bool {
	return a.DB == b.DB && a.State == b.State && bytes.Equal(a.PublicKey, b.PublicKey) && bytes.Equal(a.Signature, b.Signature)
}

func eventSum(sequence uint64, name evidence.Name, typ evidence.EventType, at int64, body []byte) [32]byte {
	return sum("event", sequence, name.Server, name.Database, string(typ), at, body)
}

func (w *writing) putEvent(e preparedEvent) error {
	s := eventSum(w.sequence, e.name, e.typ, e.at, e.body)
	_, err := w.exec("INSERT INTO event (sequence, server, database, type, lasting, at, body, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		w.sequence, e.name.Server, e.name.Database, string(e.typ), lasting(e.typ), e.at, e.body, s[:])
	w.events[e.typ] = struct{}{}
	return err
}

// lasting are events that no flood of others may wash away: what was found,
// what people decided about it, and where trust began. Of each of these types
// the newest maxLasting are kept, of all events the newest maxEvents.
func lasting(t evidence.EventType) bool {
	switch t {
	case evidence.EventTampered, evidence.EventDamage, evidence.EventFirstContact, evidence.EventStateCreated,
		evidence.EventStateProblem, evidence.EventAcknowledged, evidence.EventDecision:
		return true
	default:
		return false
	}
}

package audit_test

import (
	"os"
	"slices"

	"immuaudit/evidence"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// memory is what is remembered of the ledger of a script.
type memory struct {
	trust evidence.Trust
	walk  proof.State
	open  []evidence.Incident
}

func (m *memory) known() bool { return m.trust.Version > 0 }

// frozen reports whether an incident about the chain is open.
func (m *memory) frozen() bool {
	return slices.ContainsFunc(m.open, func(inc evidence.Incident) bool { return !inc.Kind.AboutData() })
}

// remembered reads what is on disk.
func (p *performance) remembered() memory {
	p.t.Helper()
	all, err := p.arena.memory.Load(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	var m memory
	for _, trust := range all.Trust {
		if trust.Name == p.name {
			m.trust = trust
		}
	}
	for _, inc := range all.Open {
		if inc.Name == p.name {
			m.open = append(m.open, inc)
		}
	}
	var walk proof.Walk
	if len(m.trust.Walk) > 0 {
		if err := walk.UnmarshalBinary(m.trust.Walk); err != nil {
			p.t.Fatal(err)
		}
	}
	m.walk = walk.At()
	return m
}

// judge holds the report of a round, and what is remembered after it, against
// the model.
func (p *performance) judge(r evidence.Report) {
	p.t.Helper()
	before, now := p.before, p.remembered()
	p.before = now
	var said show
	p.liar.with(func(s *show) { said = *s })

	if heap := heapInUse(); heap > maxHeap {
		p.t.Errorf("%d MiB of heap in use", heap>>20)
	}
	if said.made > maxCalls {
		p.t.Errorf("%d calls in one round", said.made)
	}
	p.judgeTrust(&before, &now)
	p.judgeIncidents(&before, &now, r)
	if r.Verdict == evidence.Tampered && !said.guilty {
		p.t.Errorf("tampered, and the server said nothing but the truth: %+v", r)
	}
	if r.Verdict != evidence.Consistent {
		return
	}
	observed, trusted := stateOf(r.Observed), now.trust.Proven.State
	if observed != trusted || stateOf(r.Trusted) != trusted {
		p.t.Errorf("consistent, with %+v observed and %+v trusted: %+v", r.Observed, trusted, r)
	}
	if !before.known() {
		p.t.Errorf("consistent, with nothing to compare with: %+v", r)
	}
	key := before.trust.Key
	if p.pinned() {
		key = p.point()
	}
	if !slices.ContainsFunc(said.shown, func(s *schema.ImmutableState) bool {
		return s.Db == defaultDB && s.TxId == observed.TxID && string(s.TxHash) == string(observed.Alh[:]) &&
			(len(key) == 0 || signedBy(s, key))
	}) {
		p.t.Errorf("consistent, with a state that the server did not show, or not for this database, or not signed: %+v", r)
	}
}

// judgeTrust: trust begins at a state that there is, moves forward only, to
// what continues it, and not while an incident about the chain is open.
func (p *performance) judgeTrust(before, now *memory) {
	p.t.Helper()
	from, to := before.trust.Proven.State, now.trust.Proven.State
	switch {
	case !now.known():
		if before.known() {
			p.t.Errorf("trust in %v was forgotten", from)
		}
		return
	case !before.known():
		if !p.m.exists(to) || p.walks() && !p.m.sound(to) {
			p.t.Errorf("trust began at %v, which is no state of any history", to)
		}
	case from == to:
	case before.frozen():
		p.t.Errorf("trust moved from %v to %v although %+v is open", from, to, before.open)
	case p.m.extends(to, from):
	case p.walks() || !p.m.admits(to, from):
		p.t.Errorf("trust moved from %v to %v, which does not continue it", from, to)
	}
	if !slices.Contains(p.trusted, to) {
		p.trusted = append(p.trusted, to)
	}
	t, was := &now.trust, &before.trust
	if t.Verified > t.Walked || t.Walked > to.TxID || t.Walked != now.walk.TxID {
		p.t.Errorf("watermarks: verified %d, walked %d (%v), proven %d", t.Verified, t.Walked, now.walk, to.TxID)
	}
	if before.known() && (t.Baseline != was.Baseline || t.Walked < was.Walked || len(was.Key) > 0 && string(t.Key) != string(was.Key) || t.Retired) {
		p.t.Errorf("baseline, walk or key changed from %+v to %+v, and nobody decided so", was, t)
	}
	if before.known() && before.frozen() && t.Walked != was.Walked {
		p.t.Errorf("the walk went on from %d to %d although %+v is open", was.Walked, t.Walked, before.open)
	}
	p.judgeWalk(now)
}

// judgeWalk: what was walked is a history whose trees are over its own chain,
// and what was proven has it in its past, as far as proofs can say.
func (p *performance) judgeWalk(now *memory) {
	p.t.Helper()
	if now.walk.TxID == 0 {
		return
	}
	bound := slices.ContainsFunc(p.trusted, func(s proof.State) bool { return p.m.follows(s, now.walk) })
	if !p.m.sound(now.walk) || !bound && !p.m.admits(now.trust.Proven.State, now.walk) {
		p.t.Errorf("walked to %v, which is not in the past of %v", now.walk, now.trust.Proven.State)
		return
	}
	l, err := p.mirror.Ledger(p.name)
	if err != nil {
		p.t.Fatal(err)
	}
	switch size := l.Size(); {
	case size > now.walk.TxID:
		p.t.Errorf("%d transactions are mirrored, and %d walked", size, now.walk.TxID)
	case size > 0:
		if root, err := l.Root(size); err != nil || root != merkle(p.m.past(now.walk)[:size]) {
			p.t.Errorf("the mirror of %d transactions is not of those that were walked: %v", size, err)
		}
	}
}

// judgeIncidents: an incident is open until somebody decides, the verdict says
// so, and its evidence convinces whoever trusts the auditor's key.
func (p *performance) judgeIncidents(before, now *memory, r evidence.Report) {
	p.t.Helper()
	known := func(list []evidence.Incident, id string) bool {
		return slices.ContainsFunc(list, func(inc evidence.Incident) bool { return inc.ID == id })
	}
	for _, inc := range before.open {
		if !known(now.open, inc.ID) {
			p.t.Errorf("incident %+v was closed, and nobody decided so", inc)
		}
	}
	// Where the walk goes on behind rounds, the next one tells what it found.
	// Without a report there was no round: the server lists no such database.
	untold := p.is(watching) && len(before.open) == 0
	if r.Verdict != evidence.Tampered && len(now.open) > 0 && !untold && r.Database != "" {
		p.t.Errorf("the verdict is %s with %d incidents open: %+v", r.Verdict, len(now.open), r)
	}
	if r.Verdict == evidence.Tampered && !known(now.open, r.Incident) {
		p.t.Errorf("incident %q is not remembered", r.Incident)
	}
	for _, inc := range now.open {
		if known(before.open, inc.ID) {
			continue
		}
		p.judgeEvidence(inc)
		if d := inc.Divergence; d != nil && d.FirstBadTx > 0 && d.LastGoodTx >= d.FirstBadTx {
			p.t.Errorf("parts after transaction %d and before %d: %+v", d.LastGoodTx, d.FirstBadTx, inc)
		}
	}
}

func (p *performance) judgeEvidence(inc evidence.Incident) {
	p.t.Helper()
	if inc.EvidenceError != "" || len(inc.Findings) == 0 {
		p.t.Errorf("no evidence (%s): %+v", inc.EvidenceError, inc)
		return
	}
	text, err := os.ReadFile(inc.Evidence)
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := evidence.Recheck(text, evidence.RecheckOptions{AuditorKey: p.key.VerifierKey()})
	if err != nil || got.ExitCode() != 3 {
		p.t.Errorf("the evidence convinces nobody: %v, %+v", err, got)
	}
}

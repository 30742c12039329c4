package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// locate finds out where the server's history parts from the remembered one: a
// server can agree with it only up to the first transaction that was changed,
// for every Alh commits to all before it. So a binary search over what is
// remembered ends at two neighbours, or at a range where nothing in between is
// remembered. What follows the trusted state is walked again.
//
// The server is the accused: it is asked a bounded number of questions, and
// answers that contradict each other are one more finding.
func (e *Engine) locate(ctx context.Context, v *view, inc *evidence.Incident) (*evidence.Divergence, []evidence.Probe, []evidence.Finding) {
	switch {
	case inc.Kind == evidence.Vanished, inc.Kind == evidence.WrongDatabase, inc.Kind.AboutData(), !v.known():
		return nil, nil, nil
	case inc.Observed.TxID == 0:
		if inc.Kind != evidence.Emptied {
			return nil, nil, nil
		}
		return &evidence.Divergence{FirstBadTx: 1}, nil, nil
	}
	s := &search{e: e, ctx: ctx, v: v, inc: inc, shown: map[uint64]proof.Header{}}
	d := s.run()
	return d, s.probes, s.findings
}

// investigate asks the server, within bounds of time and number, for all that an
// incident should hold beside its findings. It must not hold up the alarm for
// long, whatever server and disk do.
func (e *Engine) investigate(ctx context.Context, v *view, out *outcome) {
	out.investigated = true
	inc := &evidence.Incident{
		Name: v.trust.Name, Kind: evidence.Worst(out.findings), Findings: out.findings,
		Trusted: v.trust.Proven, Observed: out.observed,
	}
	if inc.Kind.AboutData() {
		if len(out.damages) > 0 {
			where := out.damages[0].Where
			if where.LastGoodTx == 0 {
				where.LastGoodTx = where.FirstBadTx - 1 // what comes before it held
			}
			out.divergence = &where
		}
		return
	}
	ctx = context.WithoutCancel(ctx)
	type located struct {
		divergence *evidence.Divergence
		probes     []evidence.Probe
		findings   []evidence.Finding
	}
	found := patiently(e, ctx, locateWithin, func(ctx context.Context) (l located) {
		l.divergence, l.probes, l.findings = e.locate(ctx, v, inc)
		return l
	})
	inc.Divergence, out.divergence = found.divergence, found.divergence
	out.findings = slices.Clone(out.findings)
	for _, f := range found.findings {
		out.findings = addFinding(out.findings, f)
	}
	if e.o.Record == nil {
		return
	}
	out.material = patiently(e, ctx, gatherWithin, func(ctx context.Context) evidence.Material { return e.gather(ctx, v, inc) })
	out.material.Checks, out.material.Divergence, out.material.Probes = out.checks, found.divergence, found.probes
}

// patiently gives what work brings within a time, or nothing: a mirror may lie
// on a disk that hangs.
func patiently[T any](e *Engine, ctx context.Context, within time.Duration, work func(context.Context) T) (result T) {
	ctx, cancel := context.WithTimeout(ctx, within)
	done := make(chan T, 1)
	e.work.Go(func() {
		defer cancel()
		done <- work(ctx)
	})
	waited := time.NewTimer(within + within/10)
	defer waited.Stop()
	select {
	case result = <-done:
	case <-waited.C:
		e.log.Error("the investigation of a finding was given up: something hangs", "after", within.String())
	}
	return result
}

// search is one search for a divergence.
type search struct {
	e   *Engine
	ctx context.Context
	v   *view
	inc *evidence.Incident

	probes   []evidence.Probe
	findings []evidence.Finding
	shown    map[uint64]proof.Header
	// suffix are the Alhs after the walk, as walked again.
	suffix []proof.Hash
}

// errNoAnswer ends a search: what it found out so far stands.
var errNoAnswer = errors.New("the server gave no answer")

func (s *search) run() *evidence.Divergence {
	trusted, observed := s.v.trust.Proven.TxID, s.inc.Observed.TxID
	top := s.v.below(min(trusted, observed))
	if top > 0 {
		agrees, err := s.agrees(top)
		if err != nil {
			return nil // not even the newest remembered transaction was shown
		}
		if !agrees {
			lo, hi, err := s.halve(0, top)
			if err == nil {
				s.crossExamine(lo, hi)
			}
			return &evidence.Divergence{LastGoodTx: lo, FirstBadTx: hi}
		}
		if d := s.broken(top); d != nil {
			return d
		}
	}
	if observed < trusted {
		// What is there agrees; the rest is missing.
		return &evidence.Divergence{LastGoodTx: top, FirstBadTx: observed + 1}
	}
	return s.after(top)
}

// agrees asks the server for a remembered transaction.
func (s *search) agrees(tx uint64) (bool, error) {
	leaf, ok := s.v.leaf(tx)
	if !ok || len(s.probes) >= maxProbes {
		return false, errNoAnswer
	}
	p := evidence.Probe{Tx: tx, Leaf: leaf}
	h, err := s.e.header(s.ctx, s.v.trust.Name.Database, tx)
	var alh proof.Hash
	switch {
	case err == nil:
		alh = h.Alh()
		if before, asked := s.shown[tx]; asked && before.Alh() != alh {
			s.inconsistent(tx, "the server showed two different transactions of this number during the search", before.Alh(), alh)
		}
		s.shown[tx] = *h
	case tx == s.inc.Observed.TxID:
		alh, p.Note = s.inc.Observed.Alh, "as the state claims; the header was not to be had"
	default:
		p.Note = err.Error()
		s.probes = append(s.probes, p)
		return false, errNoAnswer
	}
	p.Shown = &alh
	s.probes = append(s.probes, p)
	return proof.LeafHash(alh) == leaf, nil
}

// halve narrows down between a transaction that agrees and one that does not.
func (s *search) halve(lo, hi uint64) (uint64, uint64, error) {
	for hi-lo > 1 {
		mid, ok := s.v.between(lo, hi)
		if !ok {
			break
		}
		agrees, err := s.agrees(mid)
		switch {
		case err != nil:
			return lo, hi, err
		case agrees:
			lo = mid
		default:
			hi = mid
		}
	}
	return lo, hi, nil
}

// crossExamine asks for both ends again: they must be what they were, and where
// they are neighbours, the one must follow the other.
func (s *search) crossExamine(lo, hi uint64) {
	for _, end := range []struct {
		tx     uint64
		agrees bool
	}{{lo, true}, {hi, false}} {
		if end.tx == 0 {
			continue
		}
		if agrees, err := s.agrees(end.tx); err != nil || agrees != end.agrees {
			return // agrees has noted the contradiction, if it is one
		}
	}
	good, ok1 := s.shown[lo]
	bad, ok2 := s.shown[hi]
	if ok1 && ok2 && hi == lo+1 && bad.PrevAlh != good.Alh() {
		s.inconsistent(hi, fmt.Sprintf("the server shows transaction %d as it was, but its transaction %d does not follow it", lo, hi), good.Alh(), bad.PrevAlh)
	}
}

// broken finds the header that is wrong where a later one is right, as when old
// headers are looked at again: everything before a transaction that agrees is
// bound by it, whatever is shown now.
func (s *search) broken(top uint64) *evidence.Divergence {
	for _, f := range s.inc.Findings {
		if f.Kind != evidence.Header || f.Tx == 0 || f.Tx > top {
			continue
		}
		bad := f.Tx
		if f.Check == string(proof.CheckPrevAlh) && f.Tx > 1 && s.bound(f.Tx, top) {
			bad-- // this header is right, so what does not lead to it is the one before
		}
		return &evidence.Divergence{LastGoodTx: bad - 1, FirstBadTx: bad}
	}
	return nil
}

// bound reports whether a header is the one that the next one names.
func (s *search) bound(tx, top uint64) bool {
	db := s.v.trust.Name.Database
	h, err := s.e.header(s.ctx, db, tx)
	if err != nil {
		return false
	}
	if tx == top {
		leaf, ok := s.v.leaf(tx)
		return ok && leaf == proof.LeafHash(h.Alh())
	}
	next, err := s.e.header(s.ctx, db, tx+1)
	return err == nil && next.PrevAlh == h.Alh()
}

// inconsistent notes that the answers contradict each other. The finding is of
// the incident's kind: how the search went does not change what it is about.
func (s *search) inconsistent(tx uint64, detail string, want, got proof.Hash) {
	s.findings = addFinding(s.findings, evidence.Finding{
		Kind: s.inc.Kind, Check: "search", Tx: tx, Want: want.String(), Got: got.String(), Detail: detail,
	})
}

// after looks for the change behind the walked transactions, where everything
// remembered still agrees: the first header that does not continue the walk.
func (s *search) after(good uint64) *evidence.Divergence {
	walk := s.v.walk.Clone()
	goal, db := s.inc.Observed.TxID, s.v.trust.Name.Database
	for from := walk.At().TxID; walk.At().TxID < goal && walk.At().TxID-from < suffixHeaders; {
		at := walk.At().TxID
		headers, err := s.e.o.Server.Headers(s.ctx, db, at+1, int(min(pageHeaders, goal-at)))
		if err != nil || len(headers) == 0 {
			return s.unsure(good, max(good, at), goal)
		}
		for i := range headers {
			h := &headers[i]
			if h.ID > goal {
				break
			}
			err := s.e.step(s.v, walk, h)
			var m *proof.Mismatch
			switch {
			case errors.As(err, &m) && m.Check == proof.CheckBlRoot:
				return s.swapped(walk, h)
			case errors.As(err, &m):
				at := walk.At().TxID
				return &evidence.Divergence{LastGoodTx: at, FirstBadTx: at + 1}
			case err != nil:
				return s.unsure(good, max(good, walk.At().TxID), goal)
			}
			s.suffix = append(s.suffix, walk.At().Alh)
		}
	}
	switch at := walk.At(); {
	case at.TxID < goal:
		return s.unsure(good, max(good, at.TxID), goal)
	case at.Alh != s.inc.Observed.Alh:
		return &evidence.Divergence{LastGoodTx: at.TxID - 1, FirstBadTx: at.TxID}
	}
	// The chain is whole: a proof was wrong, or a signature.
	return &evidence.Divergence{LastGoodTx: goal}
}

// unsure is what can be said where the walk did not get to the end: nothing
// about what follows, if the incident is about a signature.
func (s *search) unsure(good, at, goal uint64) *evidence.Divergence {
	switch {
	case s.inc.Kind.AboutSignature() || at >= goal:
		return &evidence.Divergence{LastGoodTx: at}
	default:
		return &evidence.Divergence{LastGoodTx: max(good, at), FirstBadTx: goal}
	}
}

// leaf gives what is remembered of a transaction, as a leaf hash.
func (v *view) leaf(tx uint64) (proof.Hash, bool) {
	if alh, ok := v.remembered(tx); ok {
		return proof.LeafHash(alh), true
	}
	return v.past.leaf(tx)
}

// points are the remembered transactions above what the mirror holds without a
// gap, in ascending order.
func (v *view) points() []uint64 {
	reach := v.past.reach()
	var out []uint64
	add := func(tx uint64) {
		if tx > reach {
			out = append(out, tx)
		}
	}
	for _, m := range v.marks {
		add(m.TxID)
	}
	for at := v.walk.At().TxID; at > 0; at-- {
		if _, ok := v.walk.Alh(at); !ok {
			break
		}
		add(at)
	}
	add(v.trust.Baseline.State.TxID)
	add(v.trust.Proven.TxID)
	slices.Sort(out)
	return slices.Compact(out)
}

// below gives the newest remembered transaction that is not after tx; 0 = none.
func (v *view) below(tx uint64) uint64 {
	reach := v.past.reach()
	if tx <= reach {
		return tx
	}
	found := reach
	for _, p := range v.points() {
		if p <= tx {
			found = p
		}
	}
	return found
}

// between gives a remembered transaction between two others, near the middle.
func (v *view) between(lo, hi uint64) (uint64, bool) {
	reach, mid := v.past.reach(), lo+(hi-lo)/2
	if mid <= reach && mid > lo {
		return mid, true
	}
	var inside []uint64
	if reach > lo && reach < hi {
		inside = append(inside, reach)
	}
	for _, p := range v.points() {
		if p > lo && p < hi {
			inside = append(inside, p)
		}
	}
	if len(inside) == 0 {
		return 0, false
	}
	return inside[len(inside)/2], true
}

package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
	"immuaudit/proof"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// outcome is what one examination of a ledger found. At most one of findings
// and doubt decides; with neither, the observed state agrees with the trusted.
type outcome struct {
	observed proof.SignedState
	have     bool // observed was received
	findings []evidence.Finding
	doubt    *doubt
	first    bool // no baseline yet: observed is to become it

	// What is newly proven, if anything.
	proven *proof.SignedState
	walk   *proof.Walk // at proven, if it was walked
	key    []byte      // signing key to remember
	lags   uint64      // new headers with a lagging tree
	goal   proof.SignedState
	alhs   []proof.Hash // of the transactions from begins on that were walked
	begins uint64
	skew   string    // what is odd about the timestamps of new transactions
	newest time.Time // the newest timestamp of them
	checks []evidence.CheckResult
	// What deep verification found and how far it came; unverified keeps trust
	// from advancing.
	damages    []verify.Damage
	scrubbed   *glance
	unverified bool
	again      bool // deep verification begins again behind what is verified
	// What the investigation of the findings brought to light.
	investigated bool
	divergence   *evidence.Divergence
	material     evidence.Material
	behind       bool // found by the background walk, not by a round
	loose        bool // walk stands where nothing binds it to what is proven yet
}

func (o *outcome) add(f evidence.Finding) { o.findings = addFinding(o.findings, f) }

// examine asks for the current state and checks it in every way that can be.
func (e *Engine) examine(ctx context.Context, v *view) outcome {
	var out outcome
	s, err := e.o.Server.CurrentState(ctx, v.trust.Name.Database)
	if err != nil {
		out.doubt = doubtOf(err)
		return out
	}
	out.observed, out.have = s, true
	out.held(v, "database", 0, "the answer is for the database that was asked for", s.DB == v.trust.Name.Database)
	// Every answer must be for the database that was asked for: a token
	// holds an index, and a server can answer for any (attack A19).
	if s.DB != v.trust.Name.Database {
		out.add(wrongDatabase(v.trust.Name.Database, &s))
		return out
	}
	if s.TxID == 0 && s.Alh != proof.EmptyAlh() {
		out.doubt = doubtf(evidence.Malformed, "the state of an empty database must be SHA-256 of nothing, got %s", s.Alh)
		return out
	}
	key, finding := e.signing(v, &s)
	out.key = key
	if finding == nil {
		out.held(v, string(proof.CheckSignature), s.TxID, signedHow(v, &s), true)
	}
	if finding != nil {
		out.add(*finding)
	}
	if err := e.extends(ctx, v, &out); err != nil {
		if f, ok := findingOf(err); ok {
			e.mismatch(ctx, v, &out, f)
		} else {
			out.doubt = doubtOf(err)
		}
	}
	out.trace(v)
	if len(out.findings) > 0 { // tampered beats undetermined, and moves no trust
		out.doubt, out.proven, out.walk, out.first = nil, nil, nil, false
		out.goal = proof.SignedState{}
	}
	return out
}

// mismatch records a failed check of the chain. The headers of the trusted
// transaction and of the baseline are always fetched then: if one of the
// server's is another than was proven, it is a fork, whatever check showed it.
// The baseline counts by itself: a dual proof may have led from it to a history
// that does not hold it.
func (e *Engine) mismatch(ctx context.Context, v *view, out *outcome, f evidence.Finding) {
	out.add(f)
	if f.Kind == evidence.Fork || !v.known() {
		return
	}
	asked := uint64(0)
	for _, s := range []proof.State{v.trust.Proven.State, v.trust.Baseline.State} {
		if s.TxID == asked { // there is no transaction 0
			continue
		}
		asked = s.TxID
		if h, err := e.header(ctx, v.trust.Name.Database, s.TxID); err == nil && h.Alh() != s.Alh {
			out.add(forked(s.TxID, s.Alh, h.Alh()))
			return
		}
	}
}

// extends checks that the observed history is the trusted one or continues it.
// A nil error means that what out.proven holds is proven.
func (e *Engine) extends(ctx context.Context, v *view, out *outcome) error {
	s, trusted := &out.observed, v.trust.Proven.State
	switch {
	case !v.known():
		return e.meet(ctx, v, out)
	case s.TxID == trusted.TxID:
		if s.Alh != trusted.Alh {
			out.add(forked(s.TxID, trusted.Alh, s.Alh))
		}
		return nil
	case s.TxID < trusted.TxID:
		// "No news" is never an answer to an older state. It is a fork if it
		// contradicts a remembered transaction, a rollback otherwise.
		if alh, ok := v.remembered(s.TxID); ok && alh != s.Alh && s.TxID > 0 {
			out.add(forked(s.TxID, alh, s.Alh))
		} else if leaf, ok := v.past.leaf(s.TxID); ok && leaf != proof.LeafHash(s.Alh) {
			out.add(forkedLeaf(s.TxID, leaf, proof.LeafHash(s.Alh)))
		}
		out.add(rolledBack(trusted, s.State))
		return nil
	}
	// The walk proves more than the dual proof does (docs/protocol.md §4), so
	// it is the normal check: from where the walk stands, meeting the trusted
	// state on its way.
	out.held(v, "growth", s.TxID, "the state is not older than the trusted one", true)
	if s.TxID-v.walk.At().TxID <= e.o.WalkLimit && !v.walkless() {
		err := e.walkOn(ctx, v, out)
		if lags(err) {
			out.goal = *s // the background walk stores as it goes, and so knows more roots
		}
		return err
	}
	err := e.prove(ctx, v, out)
	var unproven *proof.Unproven
	if errors.As(err, &unproven) || isRefused(err) {
		// Honest old data may have no dual proof (§4.2 step 9). The walk
		// decides: here if the walk stands at the trusted state, in the
		// background otherwise.
		out.goal = *s
		if gap := s.TxID - v.walk.At().TxID; gap <= max(e.o.WalkLimit, defaultWalk) && !v.walkless() {
			return e.walkOn(ctx, v, out)
		}
	}
	return err
}

// defaultWalk is the gap that a round walks where no dual proof is to be had,
// even if rounds are told to use dual proofs only.
const defaultWalk = 10_000

// walkless reports whether the walk cannot begin yet: it is to begin at the
// baseline, and does not stand there.
func (v *view) walkless() bool {
	return v.trust.WalkFromBaseline && v.trust.Baseline.State.TxID > 0 && v.walk.At().TxID == 0
}

func isRefused(err error) bool {
	var fault Fault
	return errors.As(err, &fault) && fault.Reason() == string(evidence.Refused)
}

// meet is the first contact: there is nothing to compare with, but what the
// server shows must at least agree with itself.
func (e *Engine) meet(ctx context.Context, v *view, out *outcome) error {
	s := &out.observed
	if s.TxID > 0 {
		headers, err := e.o.Server.Headers(ctx, v.trust.Name.Database, s.TxID, 1)
		if err != nil {
			return err
		}
		if len(headers) == 0 {
			return doubtf(evidence.Unproven, "the server claims transaction %d but has no header for it", s.TxID)
		}
		if alh := headers[0].Alh(); alh != s.Alh {
			return &proof.Mismatch{Check: proof.CheckAlh, Tx: s.TxID, Want: s.Alh, Got: alh, Detail: "the newest transaction is not the one that the state names"}
		}
		if s.TxID <= e.o.WalkLimit {
			if err := e.walkOn(ctx, v, out); err != nil {
				return err
			}
		}
	}
	out.first, out.proven = true, s
	return nil
}

// walkOn walks from where the walk stands to the observed state.
func (e *Engine) walkOn(ctx context.Context, v *view, out *outcome) error {
	walk := v.walk.Clone()
	for walk.At().TxID < out.observed.TxID {
		if err := e.walkPage(ctx, v, walk, out.observed.State, pageHeaders, out); err != nil {
			return err
		}
	}
	out.proven, out.walk = &out.observed, walk
	return nil
}

// walkPage walks over at most so many headers, at most up to the target, meeting
// every remembered state on its way.
func (e *Engine) walkPage(ctx context.Context, v *view, walk *proof.Walk, target proof.State, most uint64, out *outcome) error {
	at := walk.At().TxID
	headers, err := e.o.Server.Headers(ctx, v.trust.Name.Database, at+1, int(min(most, target.TxID-at)))
	if err != nil {
		return err
	}
	if len(headers) == 0 {
		return doubtf(evidence.Unproven, "the server claims transaction %d but lists none after %d", target.TxID, at)
	}
	for i := range headers {
		h := &headers[i]
		if h.ID > target.TxID {
			break
		}
		if err := e.step(v, walk, h); err != nil {
			out.chained(v, at, walk.At().TxID)
			return fmt.Errorf("walking over transaction %d: %w", at+1+uint64(i), err)
		}
		if h.ID > v.trust.Proven.TxID {
			if h.BlTxID+1 != h.ID {
				out.lags++
			}
			e.timed(v, out, h)
		}
		if err := meets(v, walk.At()); err != nil {
			return err
		}
		out.walked(walk.At())
	}
	out.chained(v, at, walk.At().TxID)
	if walk.At().TxID == target.TxID && walk.At().Alh != target.Alh {
		return &proof.Mismatch{Check: proof.CheckAlh, Tx: target.TxID, Want: target.Alh, Got: walk.At().Alh, Detail: "the chain of headers does not lead to the state that the server claims"}
	}
	return nil
}

// step moves the walk over a header; a root that is too old for it comes from
// the mirror (docs/protocol.md §4.1).
func (e *Engine) step(v *view, walk *proof.Walk, h *proof.Header) error {
	err := walk.Next(h)
	if lags(err) {
		if root, ok := v.past.root(h.BlTxID); ok {
			return walk.NextWithRoot(h, root)
		}
	}
	return err
}

// lags reports whether a walk could not go on because a tree ends before what
// it remembers.
func lags(err error) bool {
	var unproven *proof.Unproven
	return errors.As(err, &unproven) && unproven.Need == proof.NeedRoot
}

// walked notes a transaction that the walk went over, for the mirror.
func (o *outcome) walked(at proof.State) {
	if len(o.alhs) == 0 {
		o.begins = at.TxID
	}
	if len(o.alhs) <= maxPending { // what is beyond is not kept in memory either
		o.alhs = append(o.alhs, at.Alh)
	}
}

// forkError is a remembered transaction that turned out to be another one.
type forkError struct{ finding evidence.Finding }

func (f *forkError) Error() string { return f.finding.Detail }

// meets checks a walked state against the remembered one of that transaction.
func meets(v *view, at proof.State) error {
	if !v.known() {
		return nil
	}
	if alh, ok := v.remembered(at.TxID); ok && alh != at.Alh {
		return &forkError{forked(at.TxID, alh, at.Alh)}
	}
	return nil
}

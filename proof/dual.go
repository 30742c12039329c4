package proof

import "fmt"

// MaxAdvance bounds the transactions whose proofs may be collected to rebuild
// an absent linear advance proof. A wider gap is for the walk.
const MaxAdvance = 1024

// Extra is what was fetched beside a dual proof, because it asked for it with
// an *Unproven.
type Extra struct {
	// Advance is the linear advance proof as rebuilt with RebuildAdvance; used
	// only where the answer carries no complete one.
	Advance *AdvanceProof
	// Binding is the dual proof from the target header's BlTxID to the target.
	Binding *DualProof
}

// VerifyDual checks that the claimed target state extends the trusted source
// state (docs/protocol.md §4.2). extra may be nil.
//
// All steps that can be made are made: a *Mismatch is returned wherever one
// shows, in the order of the steps, and only then the first *Unproven. A
// *Malformed is found before anything is hashed.
//
// A proof that holds binds the source, every leaf up to it that its own tree
// did not hold, the newest leaf and the target to one chain. It does not show
// that the leaves source+1 … Target.BlTxID−1 belong to that chain: junk there
// verifies, and only the Walk finds it.
func VerifyDual(p *DualProof, source, target State, extra *Extra) error {
	// Step 1: everything is there, within bounds and about what was asked.
	if err := checkShape(p, source, target, extra); err != nil {
		return err
	}
	s, t := &p.Source, &p.Target

	// Step 2: both headers are the ones that the states stand for.
	if got := s.Alh(); got != source.Alh {
		return &Mismatch{Check: CheckAlhSource, Tx: source.TxID, Want: source.Alh, Got: got}
	}
	if got := t.Alh(); got != target.Alh {
		return &Mismatch{Check: CheckAlhTarget, Tx: target.TxID, Want: target.Alh, Got: got}
	}

	v := verifiers.Get().(*verifier)
	defer v.release()
	var gap *Unproven
	for _, step := range [...]func(*verifier, *DualProof, State, State, *Extra) error{
		checkInclusion, checkConsistency, checkLastInclusion, checkLinear, checkAdvance, checkBinding,
	} {
		err := step(v, p, source, target, extra)
		if u, ok := err.(*Unproven); ok {
			if gap == nil {
				gap = u
			}
			continue
		}
		if err != nil {
			return err
		}
	}

	// Step 9: a tree that holds less than the source's did is legitimate on
	// data of old servers (§3), but no consistency proof can speak of it.
	if s.BlTxID > t.BlTxID {
		return &Unproven{Check: CheckConsistency, Need: NeedWalk, From: source.TxID, To: target.TxID,
			Detail: fmt.Sprintf("the source's tree holds %d transactions, the target's %d", s.BlTxID, t.BlTxID)}
	}
	if gap != nil {
		return gap
	}
	return nil
}

// linearStart is the transaction at which the linear part begins (step 6).
func linearStart(source uint64, t *Header) uint64 {
	if source < t.BlTxID {
		return t.BlTxID
	}
	return source
}

// advanceSpan is the part of the chain that the source's linear part covered
// and the target's tree has taken in since (step 7): the transactions
// start+1 … end. It needs a proof where it is longer than one transaction.
func advanceSpan(p *DualProof) (start, end uint64, needed bool) {
	start, end = p.Source.BlTxID, min(p.Source.ID, p.Target.BlTxID)
	return start, end, end > start && end-start > 1
}

// checkShape is step 1. Lists must not be longer than what is needed; that
// they may be shorter is for the step that uses them. So no loop and no
// allocation after it depends on a number that was not checked.
func checkShape(p *DualProof, source, target State, extra *Extra) error {
	switch {
	case p == nil:
		return malformed("dualProof", "is missing")
	case source.TxID == 0 || target.TxID > MaxTxID || source.TxID > target.TxID:
		return malformed("dualProof", "cannot lead from transaction %d to %d", source.TxID, target.TxID)
	}
	s, t := &p.Source, &p.Target
	if err := s.Validate(); err != nil {
		return inside("sourceTxHeader", err)
	}
	if err := t.Validate(); err != nil {
		return inside("targetTxHeader", err)
	}
	if s.ID != source.TxID {
		return malformed("sourceTxHeader.id", "%d where %d was asked for", s.ID, source.TxID)
	}
	if t.ID != target.TxID {
		return malformed("targetTxHeader.id", "%d where %d was asked for", t.ID, target.TxID)
	}

	inclusion, consistency, last := 0, 0, 0
	if s.ID < t.BlTxID {
		inclusion = pathLen(s.ID-1, t.BlTxID)
	}
	if s.BlTxID > 0 && s.BlTxID <= t.BlTxID {
		consistency = consistencyLen(s.BlTxID, t.BlTxID)
	}
	if t.BlTxID > 0 {
		last = pathLen(t.BlTxID-1, t.BlTxID)
	} else if p.TargetBlTxAlh != (Hash{}) {
		return malformed("targetBlTxAlh", "is not zero although the target's tree is empty")
	}
	if err := atMost("inclusionProof", len(p.Inclusion), inclusion); err != nil {
		return err
	}
	// Where the target's tree holds less than the source's (step 9), there is
	// no right length, and the proof is refused whatever the list says.
	if s.BlTxID <= t.BlTxID {
		if err := atMost("consistencyProof", len(p.Consistency), consistency); err != nil {
			return err
		}
	}
	if err := atMost("lastInclusionProof", len(p.LastInclusion), last); err != nil {
		return err
	}
	if err := checkLinearShape(&p.Linear, linearStart(s.ID, t), t.ID); err != nil {
		return err
	}
	if err := checkAdvanceShape(p, p.Advance); err != nil {
		return inside("LinearAdvanceProof", err)
	}
	if extra == nil {
		return nil
	}
	if err := checkAdvanceShape(p, extra.Advance); err != nil {
		return inside("rebuilt LinearAdvanceProof", err)
	}
	if err := checkBindingShape(p, extra.Binding); err != nil {
		return inside("binding", err)
	}
	return nil
}

func atMost(what string, got, need int) error {
	if got > need {
		return malformed(what, "%d nodes where %d are needed", got, need)
	}
	return nil
}

func checkLinearShape(l *LinearProof, start, target uint64) error {
	if len(l.Terms) == 0 && l.SourceTxID == 0 && l.TargetTxID == 0 {
		return nil // absent, which is not proven rather than malformed
	}
	if l.SourceTxID != start || l.TargetTxID != target {
		return malformed("linearProof", "leads from %d to %d where %d to %d is needed",
			l.SourceTxID, l.TargetTxID, start, target)
	}
	if need := target - start + 1; uint64(len(l.Terms)) > need {
		return malformed("linearProof.terms", "%d where %d are needed", len(l.Terms), need)
	}
	return nil
}

func checkAdvanceShape(p *DualProof, a *AdvanceProof) error {
	if a == nil || p.Source.BlTxID > p.Target.BlTxID {
		return nil
	}
	start, end, needed := advanceSpan(p)
	var terms uint64
	if needed {
		terms = end - start
	}
	if uint64(len(a.Terms)) > terms {
		return malformed("linearProofTerms", "%d where %d are needed", len(a.Terms), terms)
	}
	if len(a.Inclusions) > 0 && uint64(len(a.Inclusions)) >= terms {
		return malformed("inclusionProofs", "%d beside %d terms, needs one less", len(a.Inclusions), terms)
	}
	for i, path := range a.Inclusions {
		if need := pathLen(start+uint64(i), p.Target.BlTxID); len(path) > need {
			return malformed(fmt.Sprintf("inclusionProofs[%d]", i), "%d nodes where %d are needed", len(path), need)
		}
	}
	return nil
}

func checkBindingShape(p *DualProof, b *DualProof) error {
	if b == nil {
		return nil
	}
	start := bindingStart(&p.Target)
	if b.Source.ID != start || b.Target.ID != p.Target.ID {
		return malformed("dualProof", "leads from transaction %d to %d where %d to %d is needed",
			b.Source.ID, b.Target.ID, start, p.Target.ID)
	}
	if err := b.Source.Validate(); err != nil {
		return inside("sourceTxHeader", err)
	}
	if err := b.Target.Validate(); err != nil {
		return inside("targetTxHeader", err)
	}
	return checkLinearShape(&b.Linear, start, p.Target.ID)
}

// incomplete says that a list is too short to be checked.
func incomplete(check Check, source, target State, got, need int) error {
	return &Unproven{Check: check, Need: NeedComplete, From: source.TxID, To: target.TxID,
		Detail: fmt.Sprintf("%d of %d hashes are there", got, need)}
}

// checkInclusion is step 3: where the target's tree holds the source, it
// holds it as leaf number source, with the trusted Alh.
func checkInclusion(v *verifier, p *DualProof, source, target State, _ *Extra) error {
	t := &p.Target
	if source.TxID >= t.BlTxID {
		return nil
	}
	if need := pathLen(source.TxID-1, t.BlTxID); len(p.Inclusion) < need {
		return incomplete(CheckInclusion, source, target, len(p.Inclusion), need)
	}
	got, err := v.inclusion(source.TxID-1, t.BlTxID, leafHash(&source.Alh), p.Inclusion)
	if err != nil {
		return fmt.Errorf("following the inclusion proof: %w", err)
	}
	if got != t.BlRoot {
		return &Mismatch{Check: CheckInclusion, Tx: source.TxID, Want: t.BlRoot, Got: got}
	}
	return nil
}

// checkConsistency is step 4: the target's tree has the source's as a prefix.
func checkConsistency(v *verifier, p *DualProof, source, target State, _ *Extra) error {
	s, t := &p.Source, &p.Target
	if s.BlTxID == 0 || s.BlTxID > t.BlTxID {
		return nil
	}
	if need := consistencyLen(s.BlTxID, t.BlTxID); len(p.Consistency) < need {
		return incomplete(CheckConsistency, source, target, len(p.Consistency), need)
	}
	err := v.consistency(s.BlTxID, t.BlTxID, s.BlRoot, t.BlRoot, p.Consistency)
	if m, ok := err.(*Mismatch); ok {
		m.Check, m.Tx = CheckConsistency, target.TxID
		return m
	}
	if err != nil {
		return fmt.Errorf("following the consistency proof: %w", err)
	}
	return nil
}

// checkLastInclusion is step 5: targetBlTxAlh is the last leaf of the
// target's tree.
func checkLastInclusion(v *verifier, p *DualProof, source, target State, _ *Extra) error {
	t := &p.Target
	if t.BlTxID == 0 {
		return nil
	}
	if need := pathLen(t.BlTxID-1, t.BlTxID); len(p.LastInclusion) < need {
		return incomplete(CheckLastInclusion, source, target, len(p.LastInclusion), need)
	}
	got, err := v.inclusion(t.BlTxID-1, t.BlTxID, leafHash(&p.TargetBlTxAlh), p.LastInclusion)
	if err != nil {
		return fmt.Errorf("following the last inclusion proof: %w", err)
	}
	if got != t.BlRoot {
		return &Mismatch{Check: CheckLastInclusion, Tx: t.BlTxID, Want: t.BlRoot, Got: got}
	}
	return nil
}

// checkLinear is step 6: a chain leads from the newest transaction that the
// target's tree holds, or from the source if that is newer, to the target.
func checkLinear(_ *verifier, p *DualProof, source, target State, _ *Extra) error {
	start, from := linearStart(source.TxID, &p.Target), source.Alh
	if source.TxID < p.Target.BlTxID {
		from = p.TargetBlTxAlh
	}
	_, err := followLinear(CheckLinear, p.Linear.Terms, start, from, target, source.TxID)
	return err
}

// followLinear follows the terms of a linear proof that begins at transaction
// start, whose Alh must be from, and must end at target. It returns the Alh
// that it met at transaction via, if that is on its way.
func followLinear(check Check, terms []Hash, start uint64, from Hash, target State, via uint64) (Hash, error) {
	if need := target.TxID - start + 1; uint64(len(terms)) < need {
		return Hash{}, &Unproven{Check: check, Need: NeedComplete, From: start, To: target.TxID,
			Detail: fmt.Sprintf("%d of %d terms are there", len(terms), need)}
	}
	if terms[0] != from {
		return Hash{}, &Mismatch{Check: check, Tx: start, Want: from, Got: terms[0], Detail: "the chain starts elsewhere"}
	}
	alh, met := from, Hash{}
	if start == via {
		met = alh
	}
	for i := 1; i < len(terms); i++ {
		tx := start + uint64(i)
		alh = chain(tx, &alh, &terms[i])
		if tx == via {
			met = alh
		}
	}
	if alh != target.Alh {
		return Hash{}, &Mismatch{Check: check, Tx: target.TxID, Want: target.Alh, Got: alh}
	}
	return met, nil
}

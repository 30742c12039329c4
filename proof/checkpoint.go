package proof

import (
	"fmt"
	"slices"
)

// CheckpointRoot verifies p as VerifyDual does and returns the RFC 6962 root
// over Alh(1)…Alh(target): with it an immudb database is a standard
// transparency log of size target (docs/protocol.md §4.2).
//
// Where a lagging tree leaves transactions between its last leaf and the
// source unknown, *Unproven{NeedBinding} asks for Extra.Binding. What
// VerifyDual does not show, a root from a dual proof does not show either; the
// Walk's root has no such limit.
func CheckpointRoot(p *DualProof, source, target State, extra *Extra) (Hash, error) {
	var t tree
	rest, err := leaves(&t, p, source, target, extra)
	if err != nil {
		return Hash{}, err
	}
	for i := range rest {
		if err := t.append(leafHash(&rest[i])); err != nil {
			return Hash{}, fmt.Errorf("appending to the tree of transaction %d: %w", target.TxID, err)
		}
	}
	return t.root()
}

// WalkAt verifies p as VerifyDual does and returns a walk that stands at the
// target, with the tree that the server shows for it. Nothing before it was
// walked: it is for a history whose beginning is known not to hold together
// and was accepted as it is. The window begins at the target's own tree.
// Errors are those of CheckpointRoot, and *Unproven{NeedWalk} where that tree
// lags by more than Window.
func WalkAt(p *DualProof, source, target State, extra *Extra) (*Walk, error) {
	w := new(Walk)
	rest, err := leaves(&w.base, p, source, target, extra)
	if err != nil {
		return nil, err
	}
	if len(rest) > Window {
		return nil, &Unproven{Check: CheckLeafBinding, Need: NeedWalk, From: w.base.size(), To: target.TxID,
			Detail: fmt.Sprintf("the tree lags by more than %d transactions", Window)}
	}
	w.now.set(&w.base)
	root, err := w.base.root()
	if err != nil {
		return nil, fmt.Errorf("forming the root of %d transactions: %w", w.base.size(), err)
	}
	w.roots[w.base.size()%(Window+1)] = root
	w.alh = p.TargetBlTxAlh
	for _, alh := range rest {
		if err := w.record(alh); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// leaves verifies p, makes t the tree of its target header, and gives the Alhs
// of the transactions after it, up to the target.
func leaves(t *tree, p *DualProof, source, target State, extra *Extra) ([]Hash, error) {
	if err := VerifyDual(p, source, target, extra); err != nil {
		return nil, err
	}
	size := p.Target.BlTxID

	// The audit path of the last leaf, reversed, is the frontier of the
	// leaves before it.
	if size > 0 {
		frontier := slices.Clone(p.LastInclusion)
		slices.Reverse(frontier)
		if err := t.restore(size-1, frontier); err != nil {
			return nil, fmt.Errorf("restoring the tree of %d transactions: %w", size-1, err)
		}
		if err := t.append(leafHash(&p.TargetBlTxAlh)); err != nil {
			return nil, fmt.Errorf("appending transaction %d: %w", size, err)
		}
	}

	// The chain from there on: p's own linear part, unless it begins later.
	start, terms := linearStart(source.TxID, &p.Target), p.Linear.Terms
	if start > size+1 {
		leaf := State{size, p.TargetBlTxAlh}
		if extra == nil || extra.Binding == nil {
			return nil, &Unproven{Check: CheckLeafBinding, Need: NeedBinding, From: bindingStart(&p.Target), To: target.TxID,
				Detail: "the transactions between the tree and the source are not in the proof"}
		}
		if size == 0 {
			// No leaf to begin at: begin at transaction 1, whose header the
			// chain through the trusted source vouches for.
			leaf = State{1, extra.Binding.Source.Alh()}
		}
		if err := followBinding(extra.Binding, leaf, source, target); err != nil {
			return nil, err
		}
		start, terms = leaf.TxID, extra.Binding.Linear.Terms
	}
	var rest []Hash
	alh := terms[0]
	for i := range terms {
		tx := start + uint64(i)
		if i > 0 {
			alh = chain(tx, &alh, &terms[i])
		}
		if tx > size {
			rest = append(rest, alh)
		}
	}
	return rest, nil
}

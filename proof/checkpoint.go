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
	if err := VerifyDual(p, source, target, extra); err != nil {
		return Hash{}, err
	}
	size := p.Target.BlTxID

	// The audit path of the last leaf, reversed, is the frontier of the
	// leaves before it.
	var t tree
	if size > 0 {
		frontier := slices.Clone(p.LastInclusion)
		slices.Reverse(frontier)
		if err := t.restore(size-1, frontier); err != nil {
			return Hash{}, fmt.Errorf("restoring the tree of %d transactions: %w", size-1, err)
		}
		if err := t.append(leafHash(&p.TargetBlTxAlh)); err != nil {
			return Hash{}, fmt.Errorf("appending transaction %d: %w", size, err)
		}
	}

	// The chain from there on: p's own linear part, unless it begins later.
	start, terms := linearStart(source.TxID, &p.Target), p.Linear.Terms
	if start > size+1 {
		leaf := State{size, p.TargetBlTxAlh}
		if extra == nil || extra.Binding == nil {
			return Hash{}, &Unproven{Check: CheckLeafBinding, Need: NeedBinding, From: bindingStart(&p.Target), To: target.TxID,
				Detail: "the transactions between the tree and the source are not in the proof"}
		}
		if size == 0 {
			// No leaf to begin at: begin at transaction 1, whose header the
			// chain through the trusted source vouches for.
			leaf = State{1, extra.Binding.Source.Alh()}
		}
		if err := followBinding(extra.Binding, leaf, source, target); err != nil {
			return Hash{}, err
		}
		start, terms = leaf.TxID, extra.Binding.Linear.Terms
	}
	alh := terms[0]
	for i := range terms {
		tx := start + uint64(i)
		if i > 0 {
			alh = chain(tx, &alh, &terms[i])
		}
		if tx <= size {
			continue
		}
		if err := t.append(leafHash(&alh)); err != nil {
			return Hash{}, fmt.Errorf("appending transaction %d: %w", tx, err)
		}
	}
	return t.root()
}

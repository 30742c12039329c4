package mirror

import (
	"context"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	merkle "github.com/transparency-dev/merkle/proof"

	"immuaudit/proof"
)

// look locks the ledger for reading the first size transactions.
func (l *Ledger) look(size uint64) error {
	l.mu.RLock()
	if l.stale {
		l.mu.RUnlock()
		if err := l.reload(); err != nil {
			return err
		}
		l.mu.RLock()
	}
	err := error(nil)
	switch {
	case l.stale:
		err = fmt.Errorf("%w; try again", ErrChanged)
	case size > l.head.size:
		err = fmt.Errorf("%w: %d of %d transactions of %q", ErrBeyond, size, l.head.size, l.name.String())
	}
	if err != nil {
		l.mu.RUnlock()
	}
	return err
}

func (l *Ledger) reload() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stale {
		return nil
	}
	if err := l.load(); err != nil {
		return fmt.Errorf("reading the mirror of %q again: %w", l.name.String(), err)
	}
	return nil
}

// LeafHash gives the RFC 6962 leaf hash of a transaction, H(00 || Alh).
func (l *Ledger) LeafHash(tx uint64) (proof.Hash, error) {
	if err := l.look(tx); err != nil {
		return proof.Hash{}, err
	}
	defer l.mu.RUnlock()
	if tx == 0 {
		return proof.Hash{}, fmt.Errorf("%w: there is no transaction 0", ErrBeyond)
	}
	r := reader{l: l}
	return r.hash(0, tx-1)
}

// maxLeaves is how many leaf hashes are given at once: two megabytes of them.
const maxLeaves = 1 << 16

// LeafHashes gives the leaf hashes of n transactions from first on, at most
// 65,536 of them.
func (l *Ledger) LeafHashes(first uint64, n int) ([]proof.Hash, error) {
	if n < 0 || n > maxLeaves {
		return nil, fmt.Errorf("%d leaf hashes asked for, at most %d are given at once", n, maxLeaves)
	}
	if first == 0 || first > maxTx {
		return nil, fmt.Errorf("%w: there is no transaction %d", ErrBeyond, first)
	}
	if err := l.look(first - 1 + uint64(n)); err != nil {
		return nil, err
	}
	defer l.mu.RUnlock()
	r := reader{l: l}
	out := make([]proof.Hash, n)
	for i := range out {
		var err error
		if out[i], err = r.hash(0, first-1+uint64(i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Subtree gives the root of a perfect subtree: the one with that index among
// those of 2^level transactions, so that Subtree(0, n−1) is the leaf hash of
// transaction n.
func (l *Ledger) Subtree(level uint, index uint64) (proof.Hash, error) {
	if err := l.look(0); err != nil {
		return proof.Hash{}, err
	}
	defer l.mu.RUnlock()
	if index >= l.head.size>>level {
		return proof.Hash{}, fmt.Errorf("%w: subtree %d of height %d in %d transactions of %q", ErrBeyond, index, level, l.head.size, l.name.String())
	}
	r := reader{l: l}
	roots, err := r.nodes([]compact.NodeID{compact.NewNodeID(level, index)})
	if err != nil {
		return proof.Hash{}, err
	}
	return roots[0], nil
}

// Holds reports whether a transaction is mirrored with this Alh.
func (l *Ledger) Holds(tx uint64, alh proof.Hash) (bool, error) {
	have, err := l.LeafHash(tx)
	return err == nil && have == leafHash(&alh), err
}

// Root gives the RFC 6962 root over the first size transactions; of none it is
// SHA-256 of nothing. It is the root that proof.Walk.NextWithRoot asks for.
func (l *Ledger) Root(size uint64) (proof.Hash, error) {
	if err := l.look(size); err != nil {
		return proof.Hash{}, err
	}
	defer l.mu.RUnlock()
	if size == l.head.size {
		return rootOf(l.head.frontier), nil
	}
	r := reader{l: l}
	frontier, err := r.nodes(compact.RangeNodes(0, size, nil))
	if err != nil {
		return proof.Hash{}, err
	}
	return rootOf(frontier), nil
}

// Inclusion gives the RFC 6962 audit path of a transaction in the tree of the
// first size, lowest level first.
func (l *Ledger) Inclusion(tx, size uint64) ([]proof.Hash, error) {
	return l.path(size, func() (merkle.Nodes, error) { return merkle.Inclusion(tx-1, size) })
}

// Consistency gives the RFC 6962 consistency proof between the trees of the
// first from and the first to transactions. Unlike in an immudb consistency
// proof (docs/protocol.md §3) there is no extra first node for a power of two,
// and nothing for equal sizes.
func (l *Ledger) Consistency(from, to uint64) ([]proof.Hash, error) {
	return l.path(to, func() (merkle.Nodes, error) { return merkle.Consistency(from, to) })
}

func (l *Ledger) path(size uint64, plan func() (merkle.Nodes, error)) ([]proof.Hash, error) {
	if err := l.look(size); err != nil {
		return nil, err
	}
	defer l.mu.RUnlock()
	nodes, err := plan()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBeyond, err)
	}
	r := reader{l: l}
	hashes, err := r.nodes(nodes.IDs)
	if err != nil {
		return nil, err
	}
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	list, err = nodes.Rehash(list, func(left, right []byte) []byte {
		h := nodeHash(left, right)
		return h[:]
	})
	if err != nil {
		return nil, fmt.Errorf("forming a proof: %w", err)
	}
	path := make([]proof.Hash, len(list))
	for i := range list {
		path[i] = proof.Hash(list[i])
	}
	return path, nil
}

// nodes gives the roots of perfect subtrees, which must all be in the tree.
func (r *reader) nodes(ids []compact.NodeID) ([]proof.Hash, error) {
	out := make([]proof.Hash, len(ids))
	for i, id := range ids {
		// The subtree's own leaves in the tile that holds them: a tile has a
		// power of two, so that they never cross into the next.
		level, rise := int(id.Level/tileHeight), id.Level%tileHeight
		first := id.Index << rise
		data, err := r.tile(tileOf(level, first, r.l.head.size))
		if err != nil {
			return nil, err
		}
		from := first % tileWidth * hashSize
		out[i] = subtree(data[from : from+hashSize<<rise])
	}
	return out, nil
}

// checkStride is how many tiles Check and Inspect read before it lets others write.
const checkStride = 64

// Check reads every tile and compares it with the one above, and so with the
// head. The first that does not fit is a *Damage. What is appended meanwhile
// may or may not be looked at.
func (l *Ledger) Check(ctx context.Context) error {
	_, err := l.Inspect(ctx, func(d *Damage) error { return d }, nil)
	return err
}

package verify

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"immuaudit/proof"
)

// known is what headers are compared with: the mirror up to its size, and the
// trusted states wherever they are.
type known struct {
	mirror Mirror
	size   uint64
	marks  []proof.State // by transaction
}

func newKnown(m Mirror, trusted []proof.State) (known, error) {
	k := known{mirror: m, marks: slices.Clone(trusted)}
	if m != nil {
		k.size = m.Size()
	}
	k.marks = slices.DeleteFunc(k.marks, func(s proof.State) bool { return s.TxID == 0 })
	slices.SortFunc(k.marks, func(a, b proof.State) int { return cmp.Compare(a.TxID, b.TxID) })
	for i, s := range k.marks {
		if i > 0 && s.TxID == k.marks[i-1].TxID && s != k.marks[i-1] {
			return k, fmt.Errorf("two trusted states of transaction %d: %s and %s", s.TxID, k.marks[i-1].Alh, s.Alh)
		}
		if s.TxID > k.size {
			continue
		}
		leaf, err := k.mirrored(s.TxID, 1)
		if err != nil {
			return k, err
		}
		if leaf[0] != proof.LeafHash(s.Alh) {
			return k, fmt.Errorf("the mirror has another transaction %d than the trusted state of it; compare the auditor's own memory with immuclient trust check", s.TxID)
		}
	}
	if k.newest() == 0 {
		return k, errors.New("nothing is known of the ledger that its transactions could be compared with; let the auditor make its first contact")
	}
	return k, nil
}

// newest is the last transaction that is known.
func (k *known) newest() uint64 {
	if n := len(k.marks); n > 0 {
		return max(k.size, k.marks[n-1].TxID)
	}
	return k.size
}

// boundary is where a stretch that begins at a transaction must end at the
// latest, so that it can be bound there.
func (k *known) boundary(from uint64) uint64 {
	if from <= k.size {
		return k.size
	}
	if i := k.mark(from); i < len(k.marks) {
		return k.marks[i].TxID
	}
	return math.MaxUint64
}

// mark finds the first trusted state at or after a transaction.
func (k *known) mark(tx uint64) int {
	i, _ := slices.BinarySearchFunc(k.marks, tx, func(s proof.State, tx uint64) int { return cmp.Compare(s.TxID, tx) })
	return i
}

// leaf is the leaf hash of a transaction, if it is known.
func (k *known) leaf(tx uint64) (h proof.Hash, ok bool, err error) {
	if tx <= k.size {
		list, err := k.mirrored(tx, 1)
		if err != nil {
			return h, false, err
		}
		return list[0], true, nil
	}
	if i := k.mark(tx); i < len(k.marks) && k.marks[i].TxID == tx {
		return proof.LeafHash(k.marks[i].Alh), true, nil
	}
	return h, false, nil
}

func (k *known) mirrored(first uint64, n int) ([]proof.Hash, error) {
	list, err := k.mirror.LeafHashes(first, n)
	if err == nil && len(list) != n {
		err = fmt.Errorf("%d leaf hashes instead of %d", len(list), n)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the mirror: %w", err)
	}
	return list, nil
}

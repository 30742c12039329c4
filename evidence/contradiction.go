package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"immuaudit/proof"
)

// Contradiction is proof for anyone: the holder of Key signed two histories
// of database Database, because under the states it signed transaction Tx has
// two accumulative hashes.
//
// It does not say which history is the true one, nor when or by which server
// it was signed: a signature covers neither (docs/protocol.md §5), so two
// servers that share a key and a database name contradict each other. An
// older state, or that of an empty database, contradicts nothing.
type Contradiction struct {
	Key      []byte // uncompressed P-256 point
	Database string
	Tx       uint64
	First    Showing
	Second   Showing
}

// Showing is a signed state and a path from it down to an earlier
// transaction. An empty path shows the state's own transaction. Both showings
// of a contradiction may begin at one state: its chain and its tree can
// contradict each other (docs/protocol.md §4.2 step 8).
type Showing struct {
	State proof.SignedState
	Path  []Step
}

// By names the way in which a step leads to an earlier transaction.
type By string

const (
	// ByHeaders: Headers are those of transactions To.TxID+1 … n, where n is
	// the transaction shown so far; each names the Alh of the one before.
	ByHeaders By = "headers"
	// ByInclusion: Headers is the one header of the transaction shown so far;
	// Hashes is the audit path of To in its tree.
	ByInclusion By = "inclusion"
	// ByLinear: Hashes are the inner hashes of transactions To.TxID+1 … n;
	// chained to To.Alh they lead to the Alh shown so far.
	ByLinear By = "linear"
)

// Step leads from a transaction whose Alh is known to an earlier one's.
type Step struct {
	By      By
	To      proof.State
	Headers []proof.Header
	Hashes  []proof.Hash
}

// ServerContradiction checks that two showings under one key contradict each
// other, and gives the contradiction. The key must be known to be the
// server's by other means than the states.
func ServerContradiction(key []byte, first, second Showing) (*Contradiction, error) {
	c := &Contradiction{Key: key, Database: first.State.DB, First: first, Second: second}
	shown, err := first.Shown()
	if err != nil {
		return nil, fmt.Errorf("following the first path: %w", err)
	}
	c.Tx = shown.TxID
	if err := c.Verify(); err != nil {
		return nil, err
	}
	return c, nil
}

// Verify checks everything that the contradiction claims. An error means that
// it proves nothing.
func (c *Contradiction) Verify() error {
	if err := c.bounded(); err != nil {
		return err
	}
	key, err := proof.ParsePoint(c.Key)
	if err != nil {
		return fmt.Errorf("reading the key of the contradiction: %w", err)
	}
	first, err := c.First.verify(key, c.Database)
	if err != nil {
		return fmt.Errorf("following the first path: %w", err)
	}
	second, err := c.Second.verify(key, c.Database)
	if err != nil {
		return fmt.Errorf("following the second path: %w", err)
	}
	// The heart of it: one transaction, two hashes.
	switch {
	case first.TxID != c.Tx || second.TxID != c.Tx:
		return fmt.Errorf("the paths lead to transactions %d and %d, not both to %d", first.TxID, second.TxID, c.Tx)
	case first.Alh == second.Alh:
		return fmt.Errorf("both paths show the same hash for transaction %d: no contradiction", c.Tx)
	}
	return nil
}

func (c *Contradiction) bounded() error {
	var headers, hashes int
	for _, s := range []*Showing{&c.First, &c.Second} {
		if len(s.Path) > maxSteps {
			return fmt.Errorf("a path of %d steps, at most %d", len(s.Path), maxSteps)
		}
		for i := range s.Path {
			headers, hashes = headers+len(s.Path[i].Headers), hashes+len(s.Path[i].Hashes)
		}
	}
	if headers > maxPathHeaders || hashes > maxPathHashes {
		return fmt.Errorf("paths of %d headers and %d hashes, at most %d and %d", headers, hashes, maxPathHeaders, maxPathHashes)
	}
	return nil
}

func (s *Showing) verify(key *ecdsa.PublicKey, database string) (proof.State, error) {
	// The state must be of this database: a key may sign many
	// (docs/protocol.md §5; the name is under the signature).
	if s.State.DB != database {
		return proof.State{}, fmt.Errorf("the state is of database %q, not %q", s.State.DB, database)
	}
	if err := proof.VerifySignature(key, &s.State); err != nil {
		return proof.State{}, err
	}
	return s.Shown()
}

// Shown follows the path and gives the transaction it ends at, with the hash
// that the state commits to for it. The signature is not looked at.
func (s *Showing) Shown() (proof.State, error) {
	at := s.State.State
	// An empty database has no transaction that could be contradicted.
	if at.TxID == 0 || at.TxID > proof.MaxTxID {
		return proof.State{}, fmt.Errorf("a state of transaction %d shows no transaction", at.TxID)
	}
	for i := range s.Path {
		next, err := s.Path[i].follow(at)
		if err != nil {
			return proof.State{}, fmt.Errorf("step %d: %w", i+1, err)
		}
		at = next
	}
	return at, nil
}

// follow checks one step from a state that is known.
func (s *Step) follow(from proof.State) (proof.State, error) {
	if s.To.TxID == 0 || s.To.TxID >= from.TxID {
		return proof.State{}, fmt.Errorf("leads from transaction %d to %d, not to an earlier one", from.TxID, s.To.TxID)
	}
	var err error
	switch s.By {
	case ByHeaders:
		err = s.followHeaders(from)
	case ByInclusion:
		err = s.followInclusion(from)
	case ByLinear:
		err = s.followLinear(from)
	default:
		err = fmt.Errorf("%q is no kind of step", s.By)
	}
	if err != nil {
		return proof.State{}, err
	}
	return s.To, nil
}

// followHeaders: an Alh hashes the Alh before it (docs/protocol.md §3).
func (s *Step) followHeaders(from proof.State) error {
	if n := from.TxID - s.To.TxID; uint64(len(s.Headers)) != n || len(s.Hashes) != 0 {
		return fmt.Errorf("%d headers and %d hashes where %d headers are needed", len(s.Headers), len(s.Hashes), n)
	}
	at := s.To
	for i := range s.Headers {
		h := &s.Headers[i]
		if err := h.Validate(); err != nil {
			return err
		}
		if h.ID != at.TxID+1 || h.PrevAlh != at.Alh {
			return fmt.Errorf("the header of transaction %d does not follow transaction %d", h.ID, at.TxID)
		}
		at = proof.State{TxID: h.ID, Alh: h.Alh()}
	}
	if at != from {
		return fmt.Errorf("the headers do not lead to transaction %d as signed", from.TxID)
	}
	return nil
}

// followInclusion: a header commits to the root of an RFC 6962 tree whose leaf
// number n is Alh(n) (docs/protocol.md §3).
func (s *Step) followInclusion(from proof.State) error {
	if len(s.Headers) != 1 {
		return fmt.Errorf("%d headers where one is needed", len(s.Headers))
	}
	h := &s.Headers[0]
	if err := h.Validate(); err != nil {
		return err
	}
	if h.ID != from.TxID || h.Alh() != from.Alh {
		return fmt.Errorf("the header is not that of transaction %d as signed", from.TxID)
	}
	if s.To.TxID > h.BlTxID {
		return fmt.Errorf("transaction %d is not among the %d in the tree", s.To.TxID, h.BlTxID)
	}
	if !included(s.To, h.BlTxID, h.BlRoot, s.Hashes) {
		return fmt.Errorf("the audit path of transaction %d does not lead to the tree's root", s.To.TxID)
	}
	return nil
}

// followLinear: Alh(id) = H(id || Alh(id−1) || inner) (docs/protocol.md §3).
func (s *Step) followLinear(from proof.State) error {
	if n := from.TxID - s.To.TxID; uint64(len(s.Hashes)) != n || len(s.Headers) != 0 {
		return fmt.Errorf("%d hashes and %d headers where %d hashes are needed", len(s.Hashes), len(s.Headers), n)
	}
	at := s.To
	for i := range s.Hashes {
		at = link(at, &s.Hashes[i])
	}
	if at != from {
		return fmt.Errorf("the chain does not lead to transaction %d as signed", from.TxID)
	}
	return nil
}

// link gives the state after prev, by the inner hash of its header.
func link(prev proof.State, inner *proof.Hash) proof.State {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+32+32), prev.TxID+1)
	b = append(append(b, prev.Alh[:]...), inner[:]...)
	return proof.State{TxID: prev.TxID + 1, Alh: sha256.Sum256(b)}
}

// included follows an audit path as RFC 9162 §2.1.3.2 does: it must be used up
// exactly where the root is reached. Transaction n is leaf index n−1.
func included(leaf proof.State, size uint64, root proof.Hash, path []proof.Hash) bool {
	if leaf.TxID == 0 || leaf.TxID > size || len(path) > proof.MaxPath {
		return false
	}
	index, last := leaf.TxID-1, size-1
	at := proof.Hash(sha256.Sum256(append([]byte{0}, leaf.Alh[:]...)))
	node := func(left, right proof.Hash) proof.Hash {
		return sha256.Sum256(bytes.Join([][]byte{{1}, left[:], right[:]}, nil))
	}
	for _, sibling := range path {
		if last == 0 {
			return false
		}
		if index&1 == 1 || index == last {
			at = node(sibling, at)
			for index&1 == 0 && index != 0 {
				index, last = index>>1, last>>1
			}
		} else {
			at = node(at, sibling)
		}
		index, last = index>>1, last>>1
	}
	return last == 0 && at == root
}

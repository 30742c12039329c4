package audit_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"immuaudit/internal/ledger"
	"immuaudit/proof"
)

// The histories that the server of FuzzRound holds.
const (
	honest      = iota
	earlyFork   // another one from transaction 7 on
	lateFork    // another one from transaction 25 on
	swappedLeaf // the honest chain, whose tree has another leaf 20
	swappedLow  // the honest chain, whose tree has another leaf 19
	junkLeaves  // the honest chain, whose tree has four other leaves below 30
	twoFaces    // the early fork's chain, whose tree is the honest one up to leaf 20
	oneLeaf     // the early fork's chain, whose tree has the honest leaf 20
	honestTree  // the early fork's chain, whose tree is the honest one up to leaf 35
	patched     // the honest one with transaction 10 changed in place
	stranger    // nothing in common with the others
	branches
)

const (
	tallest   = 48 // transactions of a branch
	earlyLast = 6  // the last transaction that the early fork shares with the honest history
	lateLast  = 24
	swapAt    = 20
	junkFrom  = 26
	junkTo    = 29
	patchAt   = 10
)

// model knows every state of every branch, what each follows, and what the
// tree of its header is over. It checks nothing that a server says: what it
// knows it has from the ledger that wrote the branches, and from hashing of its
// own.
type model struct {
	at    [branches][]*ledger.Snapshot // by branch and height
	nodes map[proof.State]*node
}

// node is one transaction.
type node struct {
	before proof.State
	blTxID uint64
	leaves [][32]byte // that its tree is over
}

// newModel writes the branches, with headers of a version and with trees that
// lag or do not.
func newModel(tb testing.TB, version int, lagging bool) *model {
	tb.Helper()
	config := ledger.Config{HeaderVersion: version}
	if lagging { // and not monotone, as on servers before 1.3.2
		config.BlTxID = func(_ string, id uint64) uint64 { return id - 1 - min(id-1, id*5%7) }
	}
	l, err := ledger.Open(config)
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	db, err := l.Database(defaultDB)
	if err != nil {
		tb.Fatal(err)
	}
	m := &model{nodes: map[proof.State]*node{}}
	scribe := scribe{tb: tb, m: m, db: db, version: version}

	scribe.begin(honest, 0)
	scribe.write(tallest)
	scribe.begin(earlyFork, earlyLast)
	scribe.write(tallest)
	scribe.begin(lateFork, lateLast)
	scribe.write(tallest)
	for branch, leaf := range map[int]uint64{swappedLeaf: swapAt, swappedLow: swapAt - 1} {
		scribe.begin(branch, swapAt)
		scribe.plant(leaf, sha256.Sum256([]byte("another transaction")))
		scribe.hand = honest
		scribe.write(tallest)
	}
	scribe.begin(junkLeaves, 30)
	for tx := uint64(junkFrom); tx <= junkTo; tx++ {
		scribe.plant(tx, sha256.Sum256(fmt.Appendf(nil, "junk %d", tx)))
	}
	scribe.hand = honest
	scribe.write(tallest)
	for branch, leaves := range map[int][2]uint64{twoFaces: {earlyLast + 1, swapAt}, oneLeaf: {swapAt, swapAt}, honestTree: {earlyLast + 1, 35}} {
		scribe.begin(branch, earlyLast)
		scribe.hand = earlyFork
		scribe.write(leaves[1])
		for tx := leaves[0]; tx <= leaves[1]; tx++ {
			scribe.plant(tx, m.state(honest, tx).Alh)
		}
		scribe.write(tallest)
	}
	m.at[patched] = slices.Clone(m.at[honest])
	for h := patchAt; h <= tallest; h++ {
		m.at[patched][h] = m.at[honest][h].Tamper(func(h *ledger.History) { h.Header(patchAt).Ts++ })
	}
	scribe.begin(stranger, 0)
	scribe.write(tallest)
	return m
}

// scribe writes one branch and lets the model know.
type scribe struct {
	tb      testing.TB
	m       *model
	db      *ledger.Database
	version int
	branch  int
	hand    int // two branches written by one hand have the same content
	leaves  [][32]byte
}

// begin starts a branch that shares the first transactions with the honest one.
func (s *scribe) begin(branch int, shared uint64) {
	s.branch, s.hand, s.leaves = branch, branch, nil
	from := new(ledger.Snapshot)
	if shared > 0 {
		from = s.m.at[honest][shared]
		s.m.at[branch] = slices.Clone(s.m.at[honest][:shared+1])
	} else {
		s.m.at[branch] = []*ledger.Snapshot{from}
	}
	for tx := uint64(1); tx <= shared; tx++ {
		s.leaves = append(s.leaves, s.m.state(honest, tx).Alh)
	}
	if err := s.db.Restore(from); err != nil {
		s.tb.Fatal(err)
	}
}

// write commits up to a height.
func (s *scribe) write(to uint64) {
	s.tb.Helper()
	for tx, _ := s.db.State(); tx < to; {
		before, prev := s.db.State()
		c := ledger.Tx{Ts: int64(1_700_000_000 + before), Entries: []ledger.Entry{{Key: []byte("k"), Value: fmt.Appendf(nil, "%d by %d", before+1, s.hand)}}}
		if s.version == 1 && before%7 == 3 {
			c.Metadata.Extra = []byte("noted")
		}
		id, err := s.db.Commit(c)
		if err != nil {
			s.tb.Fatal(err)
		}
		snapshot := s.db.Snapshot()
		stored, err := snapshot.Tx(id)
		if err != nil {
			s.tb.Fatal(err)
		}
		h := stored.Header
		if h.PrevAlh != prev || h.BlTxID > 0 && h.BlRoot != merkle(s.leaves[:h.BlTxID]) {
			s.tb.Fatalf("branch %d: transaction %d is not what the model thinks it is", s.branch, id)
		}
		s.m.nodes[proof.State{TxID: id, Alh: h.Alh()}] = &node{
			before: proof.State{TxID: before, Alh: prev}, blTxID: h.BlTxID, leaves: s.leaves[:h.BlTxID:h.BlTxID],
		}
		s.leaves = append(s.leaves, h.Alh())
		s.m.at[s.branch] = append(s.m.at[s.branch], snapshot)
		tx = id
	}
}

// plant puts another transaction into the tree, the chain untouched.
func (s *scribe) plant(tx uint64, alh [32]byte) {
	if err := s.db.Tamper(func(h *ledger.History) { h.SetLeaf(tx, alh) }); err != nil {
		s.tb.Fatal(err)
	}
	s.leaves = slices.Clone(s.leaves)
	s.leaves[tx-1] = alh
	last := len(s.m.at[s.branch]) - 1
	s.m.at[s.branch][last] = s.db.Snapshot()
}

// merkle is the root of the tree over some leaves, as RFC 6962 defines it.
func merkle(leaves [][32]byte) [32]byte {
	if len(leaves) == 1 {
		return sha256.Sum256(append([]byte{0}, leaves[0][:]...))
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	left, right := merkle(leaves[:k]), merkle(leaves[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// state is that of a branch at a height.
func (m *model) state(branch int, height uint64) proof.State {
	tx, alh := m.at[branch][height].State()
	return proof.State{TxID: tx, Alh: alh}
}

func nothing() proof.State { return proof.State{Alh: sha256.Sum256(nil)} }

// exists reports whether a state is one of a branch.
func (m *model) exists(s proof.State) bool { return s == nothing() || m.nodes[s] != nil }

// past are the Alhs of all transactions up to a state, by the chain.
func (m *model) past(s proof.State) [][32]byte {
	alhs := make([][32]byte, s.TxID)
	for n := m.nodes[s]; n != nil; s, n = n.before, m.nodes[n.before] {
		alhs[s.TxID-1] = s.Alh
	}
	return alhs
}

// sound reports whether every tree up to a state is over its own chain.
func (m *model) sound(s proof.State) bool {
	if !m.exists(s) {
		return false
	}
	past := m.past(s)
	for n := m.nodes[s]; n != nil; s, n = n.before, m.nodes[n.before] {
		if !slices.Equal(n.leaves, past[:n.blTxID]) {
			return false
		}
	}
	return s == nothing()
}

// follows reports whether the chain of a state leads through another.
func (m *model) follows(to, from proof.State) bool {
	return m.exists(to) && to.TxID >= from.TxID && (from.TxID == 0 || m.past(to)[from.TxID-1] == from.Alh)
}

// extends is what a walk proves: the chain leads from one state to the other,
// and every tree is over that chain.
func (m *model) extends(to, from proof.State) bool { return m.follows(to, from) && m.sound(to) }

// admits is what dual proofs prove, and no more (docs/protocol.md §4.2). With S
// the trusted state and T the other: as far as the tree of T reaches, up to S,
// its leaves are those of the tree of S, then the transactions that S followed,
// S included. Where the tree of T does not reach beyond S, the chain leads from
// S to T; where it does, the chain of T leads through the newest leaf of its
// tree, and nothing is said about the leaves between that and S.
func (m *model) admits(to, from proof.State) bool {
	if to == from {
		return true
	}
	if from == nothing() { // any first transaction begins the empty history
		for s := range m.nodes {
			if s.TxID == 1 && m.admits(to, s) {
				return true
			}
		}
		return false
	}
	s, t := m.nodes[from], m.nodes[to]
	if s == nil || t == nil || to.TxID <= from.TxID || s.blTxID > t.blTxID {
		return false
	}
	known := append(slices.Clone(s.leaves), m.past(from)[s.blTxID:]...)
	reach := min(from.TxID, t.blTxID)
	if !slices.Equal(t.leaves[:reach], known[:reach]) {
		return false
	}
	if from.TxID >= t.blTxID {
		return m.follows(to, from)
	}
	return m.past(to)[t.blTxID-1] == t.leaves[t.blTxID-1]
}

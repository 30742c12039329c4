package evidence_test

import (
	"slices"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// rewritten is a ledger of which 100 transactions were proven, and that was
// then rolled back to transaction 80 and written anew up to 90. Neither of the
// two newest states says anything about a transaction of the other, but those
// that were signed in between were kept.
func rewritten(t testing.TB) (m evidence.Material, key serverKey, old, anew *book) {
	key = newServerKey(t, 7)
	root := new(book).commit(80, "common")
	old, anew = root.fork().commit(20, "old"), root.fork().commit(10, "new")
	m = incident(evidence.Fork)
	m.ServerKey = key.point
	m.Trusted, m.Observed = key.state(t, "db", old, 100), key.state(t, "db", anew, 90)
	m.States = []proof.SignedState{key.state(t, "db", old, 70), key.state(t, "db", old, 85)}
	return m, key, old, anew
}

// A state that was kept convicts where the newest ones do not.
func TestKeptStatesConvict(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]func(m *evidence.Material, anew *book){
		"headers":       func(m *evidence.Material, anew *book) { m.Headers = anew.headers[84:90] },
		"a dual proof":  func(m *evidence.Material, anew *book) { m.Proofs = []*proof.DualProof{anew.dual(85, 90)} },
		"a linear part": func(m *evidence.Material, anew *book) { m.Proofs = []*proof.DualProof{linearOnly(anew, 85, 90)} },
	} {
		m, key, old, anew := rewritten(t)
		if c := evidence.FindContradiction(&m); c != nil {
			t.Errorf("%s: proven without it: %+v", name, c)
		}
		link(&m, anew)
		f, err := evidence.Parse(encoded(t, m, newAuditor(t, 9)))
		if err != nil {
			t.Fatal(err)
		}
		c := f.Proof
		if c == nil || c.Tx != 85 || c.First.State.TxID != 85 || len(c.First.Path) != 0 || c.Second.State.TxID != 90 || len(c.Second.Path) != 1 {
			t.Fatalf("%s: %+v", name, c)
		}
		// Without the kept state there is none, nor with one that says less.
		other, unsigned := newServerKey(t, 8), m.States[1]
		unsigned.Signature = nil
		replayed := m.States[1]
		replayed.Signature = m.States[0].Signature
		for what, s := range map[string]proof.SignedState{
			"older": key.state(t, "db", old, 79), "as now": key.state(t, "db", anew, 85), "later": key.state(t, "db", old, 95),
			"of another database": key.state(t, "other", old, 85), "by another key": other.state(t, "db", old, 85), "unsigned": unsigned, "replayed": replayed,
		} {
			m.States[1] = s
			if c := evidence.FindContradiction(&m); c != nil {
				t.Errorf("%s, a state that is %s: %+v", name, what, c)
			}
		}
	}
}

// The one that tells may be the last of many, and not among those that are
// written down.
func TestManyKeptStates(t *testing.T) {
	t.Parallel()
	m, key, old, anew := rewritten(t)
	m.Headers = anew.headers[80:90]
	m.States = nil
	for tx := uint64(1); tx < 80; tx++ {
		m.States = append(m.States, key.state(t, "db", old, tx))
	}
	// Another database of the same server has its own transaction 100, and
	// what nobody signed hides nothing.
	unsigned := proof.SignedState{DB: "db", State: proof.State{TxID: 83}, PublicKey: key.point}
	m.States = append(m.States, key.state(t, "other", new(book).commit(100, "other"), 100), unsigned, key.state(t, "db", old, 83))
	f, err := evidence.Parse(encoded(t, m, newAuditor(t, 9)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Proof == nil || f.Proof.Tx != 83 || len(f.States) != 30 || !slices.Equal(f.Omitted, []string{"52 of 82 states"}) {
		t.Errorf("%+v, %d states, %q", f.Proof, len(f.States), f.Omitted)
	}
}

// A server that convicts itself by 500 headers lays a way of fewer hashes
// beside them that takes more steps than can be written down.
func TestMazeHidesNothing(t *testing.T) {
	t.Parallel()
	key := newServerKey(t, 7)
	old, anew := new(book).commit(100, "old"), new(book).commit(600, "new")
	m := incident(evidence.Fork)
	m.Trusted, m.Observed = key.state(t, "db", old, 100), key.state(t, "db", anew, 600)
	for tx := uint64(600); tx >= 107; tx -= 7 {
		p := anew.dual(tx-7, tx)
		p.Linear.Terms = nil
		m.Proofs = append(m.Proofs, p)
	}
	m.Headers = anew.headers[100:600]
	if c := evidence.FindContradiction(&m); c == nil || c.Tx != 100 {
		t.Errorf("%+v", c)
	}
	// As long as it can be written down, the smaller one is taken.
	m.Proofs = []*proof.DualProof{anew.dual(300, 600), anew.dual(100, 300)}
	c := evidence.FindContradiction(&m)
	if c == nil || c.Tx != 100 {
		t.Fatalf("%+v", c)
	}
	path := append(slices.Clone(c.First.Path), c.Second.Path...)
	if len(path) != 2 || path[0].By != evidence.ByInclusion || path[1].By != evidence.ByInclusion {
		t.Errorf("%+v", path)
	}
}

// What cannot be written down must not keep an incident without evidence.
func TestContradictionThatDoesNotFit(t *testing.T) {
	t.Parallel()
	m, key, old, anew := rewritten(t)
	name := strings.Repeat("x", 2000)
	m.Trusted, m.Observed = key.state(t, name, old, 90), key.state(t, name, anew, 90)
	f, err := evidence.Parse(encoded(t, m, newAuditor(t, 9)))
	if err != nil || f.Proof != nil || len(f.Omitted) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	// States of the ledger itself convict all the same.
	m.Headers = anew.headers[84:90]
	m.States = append(m.States, key.state(t, "db", anew, 90))
	if c := evidence.FindContradiction(&m); c == nil || c.Tx != 85 {
		t.Errorf("%+v", c)
	}
}

// BenchmarkSearch is the worst that fits into a file: chains and trees that
// lead everywhere, and states of many names and keys.
func BenchmarkSearch(b *testing.B) {
	key := newServerKey(b, 7)
	ledger := new(book).commit(400, "x")
	m := incident(evidence.Fork)
	m.Trusted, m.Observed = key.state(b, "db", ledger, 399), key.state(b, "db", ledger, 400)
	for i := range byte(250) {
		own := newServerKey(b, 1+i%100)
		for _, name := range []string{"a", "b", "c", "d"} {
			m.States = append(m.States, own.state(b, name+string([]byte{'a' + i%20}), ledger, 400))
		}
	}
	at := proof.State{TxID: 1}
	long := proof.LinearProof{SourceTxID: 1, TargetTxID: 60_000, Terms: make([]proof.Hash, 60_000)}
	h := proof.Header{ID: 60_000, Version: 1}
	for i := range long.Terms[1 : len(long.Terms)-1] {
		at = proof.State{TxID: at.TxID + 1, Alh: link(at.TxID+1, at.Alh, long.Terms[i+1])}
	}
	h.PrevAlh = at.Alh
	long.Terms[len(long.Terms)-1] = h.Inner()
	m.Proofs = append(m.Proofs, &proof.DualProof{Source: ledger.headers[0], Target: h, Linear: long})
	for tx := uint64(400); tx > 310; tx-- {
		p := ledger.dual(tx-200, tx)
		p.Linear = proof.LinearProof{SourceTxID: 1, TargetTxID: tx, Terms: []proof.Hash{ledger.leaves[0]}}
		for _, h := range ledger.headers[1:tx] {
			p.Linear.Terms = append(p.Linear.Terms, inner(h))
		}
		m.Proofs = append(m.Proofs, p)
	}
	m.Headers = ledger.headers
	b.ReportAllocs()
	for b.Loop() {
		if c := evidence.FindContradiction(&m); c != nil {
			b.Fatal(c)
		}
	}
}

package evidence_test

import (
	"crypto/sha256"
	"slices"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// From what a server sends in a round, its own contradiction is found, over
// every kind of way there is.
func TestFindsContradictions(t *testing.T) {
	t.Parallel()
	key := newServerKey(t, 7)
	root := new(book).commit(10, "common")
	old, anew := root.fork().commit(10, "old"), root.fork().commit(20, "new")
	// A31 in its plainest form (docs/protocol.md §4.2 step 8): one head whose
	// tree holds another hash for transaction 10 than its chain.
	swapped := root.fork()
	swapped.leaves[9] = sha256.Sum256([]byte("another"))
	swapped.commit(1, "swapped")
	at := func(b *book, tx uint64) proof.SignedState { return key.state(t, "db", b, tx) }

	for name, test := range map[string]struct {
		trusted, observed proof.SignedState
		headers           []proof.Header
		proofs            []*proof.DualProof
		states            []proof.SignedState
		tx                uint64
		first, second     []evidence.By
	}{
		"two heads at once":     {trusted: at(old, 15), observed: at(anew, 15), tx: 15},
		"inclusion":             {trusted: at(old, 15), observed: at(anew, 25), proofs: []*proof.DualProof{anew.dual(15, 25)}, tx: 15, second: []evidence.By{evidence.ByInclusion}},
		"headers":               {trusted: at(old, 15), observed: at(anew, 17), headers: anew.headers[14:17], tx: 15, second: []evidence.By{evidence.ByHeaders}},
		"headers of both":       {trusted: at(old, 15), observed: at(anew, 17), headers: slices.Concat(anew.headers[11:17], old.headers[11:15]), tx: 15, second: []evidence.By{evidence.ByHeaders}},
		"lower head":            {trusted: at(old, 20), observed: at(anew, 15), headers: old.headers[14:20], tx: 15, first: []evidence.By{evidence.ByHeaders}},
		"linear":                {trusted: at(old, 15), observed: at(anew, 17), proofs: []*proof.DualProof{linearOnly(anew, 15, 17)}, tx: 15, second: []evidence.By{evidence.ByLinear}},
		"inclusion and headers": {trusted: at(old, 15), observed: at(anew, 25), proofs: []*proof.DualProof{anew.dual(17, 25)}, headers: anew.headers[14:17], tx: 15, second: []evidence.By{evidence.ByInclusion, evidence.ByHeaders}},
		"remembered state":      {trusted: at(root, 5), observed: at(anew, 15), states: []proof.SignedState{at(root, 2), at(old, 15)}, tx: 15},
		"one head, two leaves":  {trusted: at(swapped, 11), observed: at(swapped, 11), headers: swapped.headers[10:], proofs: []*proof.DualProof{{Source: swapped.headers[9], Target: swapped.headers[10], TargetBlTxAlh: swapped.leaves[9], LastInclusion: auditPath(9, swapped.leaves[:10])}}, tx: 10, first: []evidence.By{evidence.ByHeaders}, second: []evidence.By{evidence.ByInclusion}},
		"advance proof":         {trusted: at(old, 15), observed: at(anew, 25), proofs: []*proof.DualProof{advanceOnly(anew, 14, 25)}, tx: 15, second: []evidence.By{evidence.ByInclusion}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := incident(evidence.Fork)
			m.Trusted, m.Observed, m.Headers, m.Proofs, m.States = test.trusted, test.observed, test.headers, test.proofs, test.states
			c := evidence.FindContradiction(&m)
			if c == nil {
				t.Fatal("not found")
			}
			if err := c.Verify(); err != nil {
				t.Fatal(err)
			}
			ways := func(s evidence.Showing) (out []evidence.By) {
				for _, step := range s.Path {
					out = append(out, step.By)
				}
				return out
			}
			first, second := ways(c.First), ways(c.Second)
			straight := slices.Equal(first, test.first) && slices.Equal(second, test.second)
			crossed := slices.Equal(first, test.second) && slices.Equal(second, test.first)
			if c.Tx != test.tx || !straight && !crossed {
				t.Errorf("transaction %d by %v and %v", c.Tx, first, second)
			}
			again := evidence.FindContradiction(&m)
			if again.Tx != c.Tx || again.First.State.Alh != c.First.State.Alh {
				t.Error("another one the second time")
			}
			f, err := evidence.Parse(encoded(t, m, newAuditor(t, 9)))
			if err != nil {
				t.Fatal(err)
			}
			if f.Proof == nil || f.Proof.Verify() != nil || f.Proof.Tx != test.tx {
				t.Errorf("the file holds %+v", f.Proof)
			}
		})
	}
}

// linearOnly leaves of a dual proof only its chain, begun at the source.
func linearOnly(b *book, source, target uint64) *proof.DualProof {
	p := b.dual(source, target)
	p.Inclusion, p.LastInclusion = nil, nil
	p.Linear = proof.LinearProof{SourceTxID: source, TargetTxID: target, Terms: []proof.Hash{b.headers[source-1].Alh()}}
	for _, h := range b.headers[source:target] {
		p.Linear.Terms = append(p.Linear.Terms, inner(h))
	}
	p.Source = b.headers[0]
	return p
}

// advanceOnly leaves of a dual proof only a linear advance from after start.
func advanceOnly(b *book, start, target uint64) *proof.DualProof {
	p := &proof.DualProof{Source: b.headers[start], Target: b.headers[target-1], Advance: &proof.AdvanceProof{Terms: []proof.Hash{b.headers[start].Alh()}}}
	for tx := start + 1; tx < start+3; tx++ {
		p.Advance.Inclusions = append(p.Advance.Inclusions, auditPath(int(tx-1), b.leaves[:target-1]))
		p.Advance.Terms = append(p.Advance.Terms, inner(b.headers[tx]))
	}
	return p
}

// What contradicts nothing must never become a proof.
func TestFindsNothingWhereThereIsNothing(t *testing.T) {
	t.Parallel()
	key, stranger := newServerKey(t, 7), newServerKey(t, 8)
	root := new(book).commit(10, "common")
	old, anew := root.fork().commit(10, "old"), root.fork().commit(20, "new")
	everything := []*proof.DualProof{anew.dual(15, 25), anew.dual(10, 25), old.dual(10, 20)}
	headers := slices.Concat(old.headers, anew.headers)
	at := func(k serverKey, db string, b *book, tx uint64) proof.SignedState { return k.state(t, db, b, tx) }
	unsigned := at(key, "db", anew, 25)
	unsigned.Signature = nil
	replayed := at(key, "db", anew, 25)
	replayed.Signature = at(key, "db", old, 20).Signature
	for name, states := range map[string][2]proof.SignedState{
		"one history":      {at(key, "db", anew, 12), at(key, "db", anew, 25)},
		"an older state":   {at(key, "db", old, 20), at(key, "db", old, 11)},
		"emptied":          {at(key, "db", old, 20), at(key, "db", old, 0)},
		"another database": {at(key, "db", old, 20), at(key, "other", anew, 25)},
		"another key":      {at(key, "db", old, 20), at(stranger, "db", anew, 25)},
		"unsigned":         {at(key, "db", old, 20), unsigned},
		"replayed":         {at(key, "db", old, 20), replayed},
		"before the fork":  {at(key, "db", root, 10), at(key, "db", anew, 25)},
		"nothing trusted":  {{}, at(key, "db", anew, 25)},
	} {
		m := incident(evidence.Fork)
		m.Trusted, m.Observed, m.Headers, m.Proofs = states[0], states[1], headers, everything
		if c := evidence.FindContradiction(&m); c != nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	// Signed twice, but no way from the newer head to the older transaction.
	m := incident(evidence.Fork)
	m.Trusted, m.Observed, m.Headers = at(key, "db", old, 15), at(key, "db", anew, 25), anew.headers[20:25]
	if c := evidence.FindContradiction(&m); c != nil {
		t.Errorf("no way: %+v", c)
	}
}

// Every part of a contradiction counts: whatever is changed, it is none.
func TestContradictionIsBound(t *testing.T) {
	t.Parallel()
	m, key := forked(t)
	other := new(book).commit(12, "x")
	change := map[string]func(c *evidence.Contradiction){
		"key":               func(c *evidence.Contradiction) { c.Key = newServerKey(t, 8).point },
		"no key":            func(c *evidence.Contradiction) { c.Key = nil },
		"key off the curve": func(c *evidence.Contradiction) { c.Key = append(slices.Clone(c.Key[:64]), c.Key[64]^1) },
		"database":          func(c *evidence.Contradiction) { c.Database = "other" },
		"transaction":       func(c *evidence.Contradiction) { c.Tx++ },
		"one side twice":    func(c *evidence.Contradiction) { c.Second = c.First },
		"signature":         func(c *evidence.Contradiction) { c.Second.State.Signature = c.First.State.Signature },
		"state":             func(c *evidence.Contradiction) { c.Second.State.Alh[0] ^= 1 },
		"state's tx":        func(c *evidence.Contradiction) { c.Second.State.TxID++ },
		"header":            func(c *evidence.Contradiction) { c.Second.Path[0].Headers[0].Ts++ },
		"header's tree":     func(c *evidence.Contradiction) { c.Second.Path[0].Headers[0].BlRoot[0] ^= 1 },
		"invalid header":    func(c *evidence.Contradiction) { c.Second.Path[0].Headers[0].Version = 7 },
		"no header":         func(c *evidence.Contradiction) { c.Second.Path[0].Headers = nil },
		"header too many": func(c *evidence.Contradiction) {
			c.Second.Path[0].Headers = append(c.Second.Path[0].Headers, other.headers[0])
		},
		"leaf":           func(c *evidence.Contradiction) { c.Second.Path[0].To.Alh[0] ^= 1 },
		"leaf's number":  func(c *evidence.Contradiction) { c.Second.Path[0].To.TxID-- },
		"leaf zero":      func(c *evidence.Contradiction) { c.Second.Path[0].To.TxID = 0 },
		"leaf too late":  func(c *evidence.Contradiction) { c.Second.Path[0].To.TxID = 6 },
		"path":           func(c *evidence.Contradiction) { c.Second.Path[0].Hashes[1][0] ^= 1 },
		"path too short": func(c *evidence.Contradiction) { c.Second.Path[0].Hashes = c.Second.Path[0].Hashes[1:] },
		"path too long": func(c *evidence.Contradiction) {
			c.Second.Path[0].Hashes = append(c.Second.Path[0].Hashes, proof.Hash{})
		},
		"kind of step":   func(c *evidence.Contradiction) { c.Second.Path[0].By = evidence.ByLinear },
		"no such step":   func(c *evidence.Contradiction) { c.Second.Path[0].By = "" },
		"no path":        func(c *evidence.Contradiction) { c.Second.Path = nil },
		"endless path":   func(c *evidence.Contradiction) { c.Second.Path = make([]evidence.Step, 1000) },
		"too much to do": func(c *evidence.Contradiction) { c.Second.Path[0].Hashes = make([]proof.Hash, 1<<20) },
		"empty database": func(c *evidence.Contradiction) { c.First.State = key.state(t, "defaultdb", new(book), 0) },
	}
	for name, f := range change {
		c := evidence.FindContradiction(&m)
		if c == nil || len(c.Second.Path) != 1 {
			t.Fatalf("%+v", c)
		}
		f(c)
		if err := c.Verify(); err == nil {
			t.Errorf("%s: still holds", name)
		}
	}
}

// The chain steps are bound like the inclusion.
func TestChainStepsAreBound(t *testing.T) {
	t.Parallel()
	key := newServerKey(t, 7)
	b := new(book).commit(9, "x")
	head := key.state(t, "db", b, 9)
	headers := evidence.Step{By: evidence.ByHeaders, To: proof.State{TxID: 6, Alh: b.headers[5].Alh()}, Headers: b.headers[6:9]}
	linear := evidence.Step{By: evidence.ByLinear, To: headers.To, Hashes: []proof.Hash{inner(b.headers[6]), inner(b.headers[7]), inner(b.headers[8])}}
	for _, step := range []evidence.Step{headers, linear} {
		good := evidence.Showing{State: head, Path: []evidence.Step{step}}
		if got, err := good.Shown(); err != nil || got != step.To {
			t.Fatalf("%s: %v, %v", step.By, got, err)
		}
		for name, f := range map[string]func(*evidence.Step){
			"hash":   func(s *evidence.Step) { s.To.Alh[31] ^= 1 },
			"number": func(s *evidence.Step) { s.To.TxID-- },
			"first":  func(s *evidence.Step) { s.To.TxID = 0 },
			"short": func(s *evidence.Step) {
				s.Headers, s.Hashes = s.Headers[:max(0, len(s.Headers)-1)], s.Hashes[:max(0, len(s.Hashes)-1)]
			},
			"both": func(s *evidence.Step) { s.Headers, s.Hashes = headers.Headers, linear.Hashes },
			"content": func(s *evidence.Step) {
				s.Headers, s.Hashes = slices.Clone(s.Headers), slices.Clone(s.Hashes)
				for i := range s.Headers {
					s.Headers[i].NEntries++
				}
				for i := range s.Hashes {
					s.Hashes[i][0] ^= 1
				}
			},
			"forward": func(s *evidence.Step) { s.To = proof.State{TxID: 10} },
		} {
			changed := step
			f(&changed)
			bad := evidence.Showing{State: head, Path: []evidence.Step{changed}}
			if got, err := bad.Shown(); err == nil {
				t.Errorf("%s, %s: shows %v", step.By, name, got)
			}
		}
	}
}

// Every leaf of every small tree is found where it is and nowhere else.
func TestInclusionOfEveryLeaf(t *testing.T) {
	t.Parallel()
	key := newServerKey(t, 7)
	b := new(book).commit(24, "x")
	for size := uint64(1); size < 24; size++ {
		head := key.state(t, "db", b, size+1)
		for tx := uint64(1); tx <= size; tx++ {
			for place := uint64(1); place <= size; place++ {
				s := evidence.Showing{State: head, Path: []evidence.Step{{By: evidence.ByInclusion, To: proof.State{TxID: place, Alh: b.leaves[tx-1]},
					Headers: b.headers[size : size+1], Hashes: auditPath(int(tx-1), b.leaves[:size])}}}
				if _, err := s.Shown(); (err == nil) != (place == tx) {
					t.Fatalf("leaf %d of %d as number %d: %v", tx, size, place, err)
				}
			}
		}
	}
}

package evidence_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// framer makes up material around the states that an honest server signed.
type framer struct {
	true, lie *book
	states    []proof.SignedState
}

func newFramer(t testing.TB) *framer {
	key := newServerKey(t, 7)
	b := new(book).commit(20, "true")
	return &framer{b, new(book).commit(5, "true").commit(15, "false"), []proof.SignedState{
		key.state(t, "db", b, 0), key.state(t, "db", b, 7), key.state(t, "db", b, 12), key.state(t, "db", b, 20),
	}}
}

func (f *framer) material(chance *rand.Rand) evidence.Material {
	b, lie := f.true, f.lie
	hash := func() proof.Hash {
		return []proof.Hash{{}, proof.EmptyAlh(), lie.headers[chance.IntN(20)].Alh(), b.headers[chance.IntN(20)].Alh(), lie.leaves[chance.IntN(20)]}[chance.IntN(5)]
	}
	list := func(list []proof.Hash) []proof.Hash {
		list = slices.Clone(list)
		switch at := chance.IntN(len(list) + 1); chance.IntN(4) {
		case 0:
			list = slices.Insert(list, at, hash())
		case 1:
			list = list[:at]
		case 2:
			if at < len(list) {
				list[at] = hash()
			}
		}
		return list
	}
	header := func(h proof.Header) proof.Header {
		switch chance.IntN(8) {
		case 0:
			h.PrevAlh = hash()
		case 1:
			h.BlRoot = hash()
		case 2:
			h.BlTxID = chance.Uint64N(h.ID)
		case 3:
			h.ID = 1 + chance.Uint64N(25)
		case 4:
			h.Version ^= 1
		case 5:
			return lie.headers[h.ID-1]
		}
		return h
	}
	m := incident(evidence.Fork)
	m.Trusted, m.Observed, m.States = f.states[1], f.states[3], f.states
	for range 3 {
		source := 1 + chance.Uint64N(19)
		target := source + 1 + chance.Uint64N(20-source)
		p := []*book{b, lie}[chance.IntN(2)].dual(source, target)
		p.Source, p.Target = header(p.Source), header(p.Target)
		p.Inclusion, p.LastInclusion, p.Linear.Terms = list(p.Inclusion), list(p.LastInclusion), list(p.Linear.Terms)
		if chance.IntN(3) == 0 {
			p.TargetBlTxAlh = hash()
		}
		if chance.IntN(3) == 0 {
			p.Advance = &proof.AdvanceProof{Terms: []proof.Hash{hash(), hash(), hash()}, Inclusions: [][]proof.Hash{list(p.Inclusion), list(p.LastInclusion)}}
		}
		if chance.IntN(3) == 0 {
			p.Linear.SourceTxID = chance.Uint64N(22)
		}
		m.Proofs = append(m.Proofs, p)
		m.Headers = append(m.Headers, header(b.headers[chance.IntN(20)]), lie.headers[chance.IntN(20)])
	}
	return m
}

// Nobody can frame an honest server: whatever is made up around the states it
// signed, they contradict nothing.
func TestNobodyIsFramed(t *testing.T) {
	t.Parallel()
	f, chance := newFramer(t), rand.New(rand.NewPCG(1, 2))
	for range 1500 {
		m := f.material(chance)
		if c := evidence.FindContradiction(&m); c != nil {
			t.Fatalf("framed: %+v", c)
		}
	}
}

// script is a source of chance that a fuzzer writes, byte by byte, and that
// goes on by itself.
type script struct {
	bytes []byte
	rest  *rand.PCG
}

func (s *script) Uint64() uint64 {
	n := s.rest.Uint64()
	if len(s.bytes) > 0 {
		n, s.bytes = uint64(s.bytes[0])<<56|n>>8, s.bytes[1:]
	}
	return n
}

// FuzzFraming is TestNobodyIsFramed, driven. A server that did sign another
// history is found out whatever is put around it.
func FuzzFraming(f *testing.F) {
	framer := newFramer(f)
	key := newServerKey(f, 7)
	other := key.state(f, "db", framer.lie, 12)
	signer := newAuditor(f, 9)
	f.Add([]byte{})
	for seed := range byte(4) {
		chance := rand.NewChaCha8([32]byte{seed})
		b := make([]byte, 200)
		chance.Read(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := framer.material(rand.New(&script{b, rand.NewPCG(1, 2)}))
		if c := evidence.FindContradiction(&m); c != nil {
			t.Fatalf("framed: %+v", c)
		}
		m.States = append(m.States, other)
		c := evidence.FindContradiction(&m)
		if c == nil || c.Verify() != nil {
			t.Fatalf("not found: %+v", c)
		}
		if x, err := evidence.Parse(encoded(t, m, signer)); err != nil || x.Proof == nil {
			t.Fatalf("not in the file: %v", err)
		}
	})
}

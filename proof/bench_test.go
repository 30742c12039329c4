package proof_test

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"testing"
	"time"

	"immuaudit/proof"
)

// million is a dual proof over a tree of 1,000,000 transactions.
func million(b testing.TB) (*proof.DualProof, proof.State, proof.State) {
	b.Helper()
	const n, source = 1_000_000, 654_321
	k := &book{leaves: make([]proof.Hash, n)}
	for i := range k.leaves {
		binary.BigEndian.PutUint64(k.leaves[i][:], uint64(i)+1)
	}
	k.grow()
	p := &proof.DualProof{
		Source: proof.Header{ID: source, Version: 1, NEntries: 1, BlTxID: source - 1, BlRoot: k.root(source - 1)},
		Target: proof.Header{ID: n + 1, Version: 1, NEntries: 1, BlTxID: n},
	}
	k.leaves[source-1] = alhOf(&p.Source)
	k.grow()
	p.TargetBlTxAlh = k.leaves[n-1]
	p.Target.PrevAlh, p.Target.BlRoot = p.TargetBlTxAlh, k.root(n)
	p.Inclusion = k.inclusion(source, n)
	p.Consistency = k.consistency(source-1, n)
	p.LastInclusion = k.inclusion(n, n)
	p.Linear = proof.LinearProof{SourceTxID: n, TargetTxID: n + 1, Terms: []proof.Hash{p.TargetBlTxAlh, innerOf(&p.Target)}}
	return p, proof.State{TxID: source, Alh: alhOf(&p.Source)}, proof.State{TxID: n + 1, Alh: alhOf(&p.Target)}
}

// bare is the hashing that a verification cannot do without.
type bare struct{ nodes, leaves, links, inners int }

var sink byte

func (c bare) run() {
	var buf [256]byte
	for _, part := range [...]struct{ times, size int }{{c.nodes, 65}, {c.leaves, 33}, {c.links, 72}, {c.inners, 88}} {
		for range part.times {
			h := sha256.Sum256(buf[:part.size])
			copy(buf[:], h[:]) // each hash waits for the one before, as in a path
		}
	}
	sink = buf[0]
}

// measure reports the cost of work, done b.N times in all, as a multiple of
// its bare hashes, interleaved so that both see the same machine.
func measure(b *testing.B, c bare, times int, work func()) {
	b.ReportAllocs()
	var hashing time.Duration
	rounds := 0
	for b.Loop() {
		work()
		b.StopTimer()
		start := time.Now()
		c.run()
		hashing += time.Since(start)
		rounds++
		b.StartTimer()
	}
	perOp := float64(b.Elapsed()) / float64(rounds)
	b.ReportMetric(perOp/(float64(hashing)/float64(rounds)), "x-bare")
	b.ReportMetric(perOp/float64(times), "ns/step")
}

func dualHashes(p *proof.DualProof) bare {
	from, to := p.Source.BlTxID, p.Target.BlTxID
	// Each consistency node after the seed goes into the new root, and into
	// the old one too where it lies to the left of the path.
	shift := bits.TrailingZeros64(from)
	inner := bits.Len64((from-1)^(to-1)) - shift
	left := bits.OnesCount64(((from - 1) >> shift) & (1<<inner - 1))
	border := len(p.Consistency) - 1 - inner
	return bare{
		nodes:  len(p.Inclusion) + len(p.LastInclusion) + inner + border + left + border,
		leaves: 2, links: 2 + len(p.Linear.Terms) - 1, inners: 2,
	}
}

func BenchmarkVerifyDual(b *testing.B) {
	p, s, t := million(b)
	if err := proof.VerifyDual(p, s, t, nil); err != nil {
		b.Fatal(err)
	}
	measure(b, dualHashes(p), 1, func() {
		if err := proof.VerifyDual(p, s, t, nil); err != nil {
			b.Fatal(err)
		}
	})
}

// far is a walk at transaction n, with the headers that follow.
func far(b testing.TB, n uint64, more int) (*proof.Walk, []proof.Header) {
	b.Helper()
	var w proof.Walk
	next := func() proof.Header {
		at := w.At()
		h := proof.Header{ID: at.TxID + 1, PrevAlh: at.Alh, Version: 1, NEntries: 1, BlTxID: at.TxID}
		if at.TxID > 0 {
			root, err := w.Root(at.TxID)
			if err != nil {
				b.Fatal(err)
			}
			h.BlRoot = root
		}
		if err := w.Next(&h); err != nil {
			b.Fatal(err)
		}
		return h
	}
	for range n {
		next()
	}
	start := w.Clone()
	headers := make([]proof.Header, more)
	for i := range headers {
		headers[i] = next()
	}
	return start, headers
}

func BenchmarkWalkNext(b *testing.B) {
	const n, more = 1_000_000, 1000
	start, headers := far(b, n, more)
	var c bare
	for i := range uint64(more) {
		size := n + i + 1
		c.nodes += bits.TrailingZeros64(size) + bits.OnesCount64(size) - 1
		c.leaves++
		c.links++
		c.inners++
	}
	w := start.Clone()
	measure(b, c, more, func() {
		b.StopTimer()
		w = start.Clone()
		b.StartTimer()
		for i := range headers {
			if err := w.Next(&headers[i]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVerifySignature(b *testing.B) {
	l := recordings(b)[0]
	s := l.states[0]
	b.ReportAllocs()
	for b.Loop() {
		if err := proof.VerifySignature(l.key, &s); err != nil {
			b.Fatal(err)
		}
	}
}

// The hot paths allocate nothing. Not parallel: allocations are counted for
// the whole process.
func TestNoAllocations(t *testing.T) {
	lag := lagging()
	bind := behind()
	p, q := lag.dual(10, 12), bind.dual(10, 11)
	x := bind.extra(q)
	w, headers := far(t, 100, 300)
	next := 0
	h := proof.Header{ID: 3, Version: 1, Metadata: proof.TxMetadata{TruncatedTxID: 1, Extra: make([]byte, proof.MaxExtra)}}
	for name, work := range map[string]func() error{
		"VerifyDual":              func() error { return proof.VerifyDual(p, lag.state(10), lag.state(12), nil) },
		"VerifyDual with binding": func() error { return proof.VerifyDual(q, bind.state(10), bind.state(11), x) },
		"Walk.Next":               func() error { next++; return w.Next(&headers[next-1]) },
		"Header.Alh":              func() error { h.Alh(); return h.Validate() },
	} {
		allocs := testing.AllocsPerRun(200, func() {
			if err := work(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s allocates %v times", name, allocs)
		}
	}
}

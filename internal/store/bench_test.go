package store

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// BenchmarkApply is the write of a round over 1,000 ledgers at once.
func BenchmarkApply(b *testing.B) {
	s := open(b, b.TempDir())
	const ledgers = 1_000
	version := uint64(0)
	walk := make([]byte, 3_000)
	for b.Loop() {
		var group sync.WaitGroup
		for n := range ledgers {
			group.Go(func() {
				trust := trustAt(ledger("prod", fmt.Sprint(n)), version, 10+version)
				trust.Walk = walk
				if err := s.Apply(b.Context(), evidence.Change{Trust: &trust}); err != nil {
					b.Error(err)
				}
			})
		}
		group.Wait()
		version++
	}
	seconds := b.Elapsed().Seconds()
	s.ownMu.RLock()
	defer s.ownMu.RUnlock()
	b.ReportMetric(float64(version)*ledgers/seconds, "changes/s")
	b.ReportMetric(float64(s.own)/seconds, "commits/s")
	b.ReportMetric(float64(version)*ledgers/float64(s.own), "changes/commit")
}

// BenchmarkApplyAlone is one change at a time: a sync each.
func BenchmarkApplyAlone(b *testing.B) {
	s := open(b, b.TempDir())
	version := uint64(0)
	for b.Loop() {
		trust := trustAt(ledger("prod", "a"), version, 10+version)
		if err := s.Apply(b.Context(), evidence.Change{Trust: &trust}); err != nil {
			b.Fatal(err)
		}
		version++
	}
}

// BenchmarkOpen reads and checks a state of 1,000 ledgers.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	for n := range 1_000 {
		trust := trustAt(ledger("prod", fmt.Sprint(n)), 0, 10)
		trust.Walk = make([]byte, 3_000)
		p, err := prepare(evidence.Change{Trust: &trust})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.submit(b.Context(), p.write, nil); err != nil {
			b.Fatal(err)
		}
	}
	finish(b, s)
	for b.Loop() {
		finish(b, open(b, dir))
	}
}

// BenchmarkGuard is what a second costs at most: the guard over 10,000 ledgers,
// of which all have moved on.
func BenchmarkGuard(b *testing.B) {
	const ledgers = 10_000
	s := open(b, b.TempDir())
	p := &place{path: filepath.Join(b.TempDir(), "guard"), kept: true}
	w := newWitness(s, p, standing{watermark: watermark{id: s.id, commits: 1}, proven: map[evidence.Name]proof.State{}})
	var c writing
	for n := range ledgers {
		trust := trustAt(ledger("production.example.org:3322", fmt.Sprint("database-", n)), 0, 10)
		c.proven = append(c.proven, &preparedTrust{Trust: trust})
	}
	for c.sequence = 2; b.Loop(); c.sequence++ {
		w.saw(&c, false)
		w.follow()
	}
}

// BenchmarkGuardHash is the part of it that grows with the ledgers, and
// BenchmarkGuardReread what it costs where another process wrote.
func BenchmarkGuardHash(b *testing.B) {
	now := standing{proven: map[evidence.Name]proof.State{}}
	for n := range 10_000 {
		now.proven[ledger("production.example.org:3322", fmt.Sprint("database-", n))] = stateAt(uint64(n))
	}
	for b.Loop() {
		now.hash()
	}
}

func BenchmarkGuardReread(b *testing.B) {
	s := open(b, b.TempDir())
	for first := 0; first < 10_000; first += 1_000 {
		err := s.submit(b.Context(), func(w *writing) error {
			for n := range 1_000 {
				trust := trustAt(ledger("production.example.org:3322", fmt.Sprint("database-", first+n)), 0, 10)
				trust.Walk = make([]byte, 3_000)
				p, err := prepare(evidence.Change{Trust: &trust})
				if err != nil {
					return err
				}
				if err := p.write(w); err != nil {
					return err
				}
			}
			return nil
		}, nil)
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := s.readStanding(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

package store

import (
	"fmt"
	"sync"
	"testing"

	"immuaudit/evidence"
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

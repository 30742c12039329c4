package mirror

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestBytesPerTransaction: 32 bytes a transaction and less than one in a
// hundred more, beside what the ends of the levels and the head take.
func TestBytesPerTransaction(t *testing.T) {
	t.Parallel()
	const constant = levels*tileBytes + maxHead + 1<<10
	dir := room(t)
	for _, size := range []uint64{1, 300, 70_000} {
		l := ledgerOf(t, opened(t, dir, unsynced), orders)
		appended(t, l, 1, alhs("a", 1, size))
		bytes := 0
		for _, content := range filesUnder(t, dir, ".") {
			bytes += len(content)
		}
		if limit := float64(size)*hashSize*1.01 + constant; float64(bytes) > limit || uint64(bytes) < size*hashSize {
			t.Errorf("%d transactions take %d bytes, more than %.0f", size, bytes, limit)
		}
		finished(t, l.m)
	}
}

// BenchmarkAppend mirrors a million transactions, in pages as the walk reads
// them, and one by one as rounds do.
func BenchmarkAppend(b *testing.B) {
	const size = 1_000_000
	all := alhs("a", 1, size)
	for _, page := range []int{1000, maxBatch} {
		b.Run(fmt.Sprint("pages of ", page), func(b *testing.B) {
			for b.Loop() {
				m, err := Open(room(b), quiet)
				if err != nil {
					b.Fatal(err)
				}
				l := ledgerOf(b, m, orders)
				for n := 0; n < size; n += page {
					appended(b, l, uint64(n)+1, all[n:min(n+page, size)])
				}
				if err := m.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "tx/s")
		})
	}
	b.Run("one by one", func(b *testing.B) {
		l := ledgerOf(b, opened(b, room(b), nil), orders)
		for n := uint64(0); b.Loop(); n++ {
			appended(b, l, n+1, all[n%size:n%size+1])
		}
	})
}

func BenchmarkRead(b *testing.B) {
	const size = 1_000_000
	l := filled(b, room(b), size)
	random := rand.New(rand.NewPCG(6, 7))
	b.Run("LeafHash", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.LeafHash(1 + random.Uint64N(size)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Root", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.Root(random.Uint64N(size)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Check", func(b *testing.B) {
		for b.Loop() {
			if err := l.Check(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

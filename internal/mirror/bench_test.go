package mirror

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"immuaudit/evidence"
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

// BenchmarkAppend appends as rounds do, as the engine gathers, and as the walk
// fills a mirror: on disk and synced, so that the first says how long a sync
// takes.
func BenchmarkAppend(b *testing.B) {
	all := alhs("a", 1, maxBatch)
	for _, batch := range []int{1, 256, maxBatch} {
		b.Run(fmt.Sprint("batches of ", batch), func(b *testing.B) {
			l := ledgerOf(b, opened(b, onDisk(b), nil), orders)
			for b.Loop() {
				appended(b, l, l.Size()+1, all[:batch])
			}
			b.ReportMetric(float64(batch)*float64(b.N)/b.Elapsed().Seconds(), "tx/s")
		})
	}
}

// BenchmarkWitness adds one state to each of a thousand ledgers in turn.
func BenchmarkWitness(b *testing.B) {
	m := opened(b, onDisk(b), nil)
	var ledgers []*Ledger
	for n := range 1000 {
		l := ledgerOf(b, m, evidence.Name{Server: "db1", Database: fmt.Sprint("d", n)})
		witnessed(b, l, signed(l.name, 1, 1))
		ledgers = append(ledgers, l)
	}
	for n := 0; b.Loop(); n++ {
		l := ledgers[n%len(ledgers)]
		witnessed(b, l, signedAt(l.name, uint64(2+n), day(1)))
	}
}

// BenchmarkStates looks for one old state in a day of one a second.
func BenchmarkStates(b *testing.B) {
	const size = 86_000
	l := ledgerOf(b, opened(b, room(b), unsynced), orders)
	states := make([]evidence.Witnessed, size)
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for n := range states {
		states[n] = signedAt(orders, uint64(n+1), start.Add(time.Duration(n)*time.Second))
	}
	witnessed(b, l, states...)
	random := rand.New(rand.NewPCG(13, 14))
	for b.Loop() {
		tx := 1 + random.Uint64N(size)
		if got, err := l.States(0, tx, 1); err != nil || len(got) != 1 || got[0].State.TxID != tx {
			b.Fatal(len(got), err)
		}
	}
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

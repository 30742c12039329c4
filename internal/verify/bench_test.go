//go:build unix

package verify_test

import (
	"crypto/sha256"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
)

// The auditor's own cost of deep verification: recorded answers, put together
// from the transport's pieces, decoded and verified on all cores, beside bare
// SHA-256 over the same values on as many. What counts is %bare, the share of
// bare SHA-256's speed, by the processor time both took in the same run:
// nothing else that runs on the machine is in it.
func BenchmarkVerify(b *testing.B) {
	for _, c := range []struct {
		name             string
		txs, values, len int
	}{
		{"10x1KiB", 4_000, 10, 1024},
		{"1x256B", 100_000, 1, 256},
		{"1x32B", 100_000, 1, 32},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := record(b, c.txs, c.values, c.len)
			o := verify.Options{Source: r, Database: ledger.DefaultDB, Mirror: r.mirror}
			if sum, err := verified(b, b.Context(), o); err != nil || sum.Tally.Damages() > 0 || sum.Total().Verified != uint64(c.txs*c.values) {
				b.Fatal(sum, err)
			}
			var bare, ours, bareWall, oursWall time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began, used := time.Now(), processor()
				r.hash()
				bare, bareWall = bare+processor()-used, bareWall+time.Since(began)
				began, used = time.Now(), processor()
				if _, err := verify.Run(b.Context(), o); err != nil {
					b.Fatal(err)
				}
				ours, oursWall = ours+processor()-used, oursWall+time.Since(began)
			}
			n := float64(b.N)
			b.ReportMetric(100*float64(bare)/float64(ours), "%bare")
			b.ReportMetric(100*float64(bareWall)/float64(oursWall), "%bare-wall")
			b.ReportMetric(n*float64(r.bytes)/1e6/oursWall.Seconds(), "MB/s")
			b.ReportMetric(n*float64(c.txs)/oursWall.Seconds(), "tx/s")
			b.ReportMetric(float64(ours.Nanoseconds())/n/float64(c.txs), "cpu-ns/tx")
		})
	}
}

// processor is the processor time of this process.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// hash is bare SHA-256 over the values, on all cores.
func (r *recorded) hash() {
	var group sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	for w := range n {
		group.Go(func() {
			for _, value := range r.values[len(r.values)*w/n : len(r.values)*(w+1)/n] {
				sha256.Sum256(value)
			}
		})
	}
	group.Wait()
}

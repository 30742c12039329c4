package audit_test

import (
	"fmt"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
)

// BenchmarkQuietRound is a round over one ledger that did not change, against
// the bare call that it makes, and against a login and the same call, which is
// what the original pays every time (x-call and x-login: ratios within the
// run; the ledger's login is cheaper than immudb's).
func BenchmarkQuietRound(b *testing.B) {
	r := newRig(b, ledger.Config{HeaderVersion: 1})
	r.write(100)
	r.settle()
	e, err := audit.New(b.Context(), r.opts)
	if err != nil {
		b.Fatal(err)
	}
	measure := func(n int, f func()) time.Duration {
		began := time.Now()
		for range n {
			f()
		}
		return time.Since(began) / time.Duration(n)
	}
	login := measure(20, func() {
		c, err := wire.New(wire.Options{Address: r.ledger.Addr(), Username: "immudb", Password: "immudb"})
		r.must(err)
		defer c.Close()
		if _, err := c.CurrentState(b.Context(), defaultDB); err != nil {
			b.Fatal(err)
		}
	})
	call := measure(500, func() {
		if _, err := r.client.CurrentState(b.Context(), defaultDB); err != nil {
			b.Fatal(err)
		}
	})
	b.ResetTimer()
	for b.Loop() {
		if rep := e.Round(b.Context(), defaultDB); rep.Verdict != evidence.Consistent {
			b.Fatalf("%+v", rep)
		}
	}
	per := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(per)/float64(call), "x-call")
	b.ReportMetric(float64(per)/float64(login), "x-login")
}

// BenchmarkManyLedgers is one round over every database of a server.
func BenchmarkManyLedgers(b *testing.B) {
	for _, n := range []int{200, 1000} {
		for _, busy := range []bool{false, true} {
			name := fmt.Sprintf("%d quiet", n)
			if busy {
				name = fmt.Sprintf("%d busy", n)
			}
			b.Run(name, func(b *testing.B) {
				r := newRig(b, ledger.Config{HeaderVersion: 1})
				for i := range n {
					db := fmt.Sprintf("db%04d", i)
					r.must(r.ledger.CreateDatabase(db))
					r.writeTo(db, 3, "v")
				}
				r.once()
				e, err := audit.New(b.Context(), r.opts)
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if busy {
						b.StopTimer()
						for i := range n {
							r.writeTo(fmt.Sprintf("db%04d", i), 1, "v")
						}
						b.StartTimer()
					}
					consistent := 0
					for _, rep := range e.Once(b.Context()) {
						if rep.Verdict == evidence.Consistent {
							consistent++
						}
					}
					if consistent != n+1 {
						b.Fatalf("%d of %d consistent", consistent, n+1)
					}
				}
				b.ReportMetric(float64(n+1)*float64(b.N)/b.Elapsed().Seconds(), "ledgers/s")
			})
		}
	}
}

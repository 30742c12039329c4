package audit_test

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/store"
)

// grownTo bounds BenchmarkGrowth: ten million transactions take about 6 GB of
// memory in the embedded ledger, and minutes to write, walk and fork.
var grownTo = flag.Uint64("grown-to", 1_000_000, "transactions to which BenchmarkGrowth lets its ledger grow")

// BenchmarkGrowth is what a round costs as a ledger grows: one that walks over
// a new transaction, one that proves it by dual proof, and the search for the
// first changed transaction after all from there on was rewritten, at a place
// taken at random (questions to the server, and time). docs/performance.md has
// the curve.
func BenchmarkGrowth(b *testing.B) {
	r := newRig(b, ledger.Config{HeaderVersion: 1})
	r.mirrored()
	// A second auditor of the same ledger never walks.
	proving := r.opts
	proving.WalkLimit, proving.WalkRate, proving.Mirror = 0, 0, nil
	s, err := store.Open(b.Context(), store.Options{Dir: filepath.Join(b.TempDir(), "state"), Create: true, Logger: slog.New(slog.DiscardHandler)})
	r.must(err)
	b.Cleanup(func() { s.Close() })
	proving.Memory = s
	for n := uint64(1000); n <= *grownTo; n *= 10 {
		r.growTo(n)
		for _, how := range []struct {
			name string
			o    audit.Options
		}{{"walk", r.opts}, {"dual-proof", proving}} {
			e := r.atProven(how.o)
			b.Run(fmt.Sprintf("transactions=%d/%s", n, how.name), func(b *testing.B) {
				before := r.client.Usages()[defaultDB]
				for b.Loop() {
					b.StopTimer()
					r.write(1)
					b.StartTimer()
					if rep := e.Round(b.Context(), defaultDB); rep.Verdict != evidence.Consistent {
						b.Fatalf("%+v", rep)
					}
				}
				after := r.client.Usages()[defaultDB]
				b.ReportMetric(float64(after.BytesIn-before.BytesIn)/float64(b.N), "received-B/op")
				b.ReportMetric(float64(after.Calls-before.Calls)/float64(b.N), "calls/op")
			})
		}
		var questions, took []float64
		for range 5 {
			q, d := r.locating()
			questions, took = append(questions, q), append(took, d.Seconds()*1e3)
		}
		b.Run(fmt.Sprintf("transactions=%d/locate", n), func(b *testing.B) {
			slices.Sort(questions)
			slices.Sort(took)
			b.ReportMetric(0, "ns/op") // the searches were made before
			b.ReportMetric(questions[len(questions)/2], "questions")
			b.ReportMetric(took[len(took)/2], "ms")
		})
	}
}

func (r *rig) growTo(n uint64) {
	r.t.Helper()
	db := r.db(defaultDB)
	for last, _ := db.State(); last < n; last, _ = db.State() {
		_, err := db.CommitAll(make([]ledger.Tx, min(100_000, n-last)))
		r.must(err)
	}
}

// atProven gives an engine that has proven, walked where it walks at all, and
// mirrored what there is.
func (r *rig) atProven(o audit.Options) *audit.Engine {
	r.t.Helper()
	e, err := audit.New(r.t.Context(), o)
	r.must(err)
	e.Round(r.t.Context(), defaultDB)
	if rep := e.Round(r.t.Context(), defaultDB); rep.Verdict != evidence.Consistent {
		r.t.Fatalf("%+v", rep)
	}
	if rep := e.Walk(r.t.Context(), defaultDB, func(uint64, uint64) {}); o.WalkRate > 0 && rep.Verdict != evidence.Consistent {
		r.t.Fatalf("%+v", rep)
	}
	return e
}

// locating rewrites the history from somewhere on, has it found, and undoes it.
func (r *rig) locating() (questions float64, took time.Duration) {
	r.t.Helper()
	e := r.atProven(r.opts)
	db := r.db(defaultDB)
	honest := db.Snapshot()
	last, _ := db.State()
	from := 1 + rand.Uint64N(last)
	r.tamper(func(h *ledger.History) {
		h.Header(from).Ts++
		h.Rehash(from)
	})
	asked := r.client.Usages()[defaultDB].Calls
	began := time.Now()
	rep := e.Round(r.t.Context(), defaultDB)
	took = time.Since(began)
	if rep.Divergence == nil || rep.Divergence.FirstBadTx != from {
		r.t.Fatalf("rewritten from transaction %d on: %+v", from, rep.Divergence)
	}
	questions = float64(r.client.Usages()[defaultDB].Calls - asked)
	r.must(db.Restore(honest))
	e.Round(r.t.Context(), defaultDB) // agrees again, so that the old baseline may be kept
	for _, inc := range r.incidents() {
		trust := r.trust(defaultDB)
		r.must((&audit.Decider{Memory: r.store}).Keep(r.t.Context(), inc, &trust, "measured"))
	}
	return questions, took
}

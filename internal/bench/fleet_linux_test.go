package bench_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"immuaudit/internal/ledger"
)

// BenchmarkFleet is audit-mode over many ledgers of one server, as handed out
// and with its defaults: what it holds in memory beyond what it holds for a
// single ledger (extra-MB, and peak-extra-MB from its start on), the processor
// time of a round beside that of a bare call to the same method in a client
// that does nothing else (x-call: against calls made a thousand at once, as
// here; x-call-alone: against one after the other), and how many of the rounds
// that were due took place (%on-time).
func BenchmarkFleet(b *testing.B) {
	for _, c := range []struct {
		ledgers  int
		interval time.Duration
		busy     bool
	}{
		{1_000, time.Second, false},
		{1_000, time.Second, true},
		{10_000, 10 * time.Second, false},
		{10_000, 10 * time.Second, true},
	} {
		name := fmt.Sprintf("ledgers=%d/every=%s/quiet", c.ledgers, c.interval)
		if c.busy {
			name = fmt.Sprintf("ledgers=%d/every=%s/growing", c.ledgers, c.interval)
		}
		b.Run(name, func(b *testing.B) {
			one := newFleet(b, 1, c.interval)
			alone := one.measure(b, 3*c.interval, c.busy)
			one.close()
			many := newFleet(b, c.ledgers, c.interval)
			defer many.close()
			call := bareCall(b, many.ledger.Addr())
			var all measured
			for b.Loop() {
				all = many.measure(b, 3*c.interval, c.busy)
			}
			b.ReportMetric(0, "ns/op") // a window of fixed length says nothing
			b.ReportMetric(float64(all.resident-alone.resident)/1e6, "extra-MB")
			b.ReportMetric(float64(all.peak-alone.peak)/1e6, "peak-extra-MB")
			b.ReportMetric(float64(all.perRound.Nanoseconds())/1e3, "cpu-µs/round")
			b.ReportMetric(float64(all.perRound)/float64(call.Together), "x-call")
			b.ReportMetric(float64(all.perRound)/float64(call.Alone), "x-call-alone")
			b.ReportMetric(100*all.onTime, "%on-time")
		})
	}
}

// fleet is a server with ledgers, and an auditor of it.
type fleet struct {
	tb       testing.TB
	ledger   *ledger.Ledger
	names    []string
	interval time.Duration
	auditor  *process
	site     string
}

func newFleet(tb testing.TB, n int, interval time.Duration) *fleet {
	tb.Helper()
	l, err := ledger.Open(ledger.Config{HeaderVersion: 1})
	if err != nil {
		tb.Fatal(err)
	}
	f := &fleet{tb: tb, ledger: l, interval: interval, names: []string{ledger.DefaultDB}}
	for i := range n - 1 {
		f.names = append(f.names, fmt.Sprintf("db%05d", i))
		if err := l.CreateDatabase(f.names[i+1]); err != nil {
			tb.Fatal(err)
		}
	}
	for range 10 {
		f.write()
	}
	if err := l.Start("127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	host, port, _ := strings.Cut(l.Addr(), ":")
	dir := tb.TempDir()
	f.auditor = start(tb, dir, "audit-mode", "-a", host, "-p", port, "--dir", dir+"/state", "--audit-username", "immudb", "--audit-password", "immudb",
		"--audit-interval", interval.String(), "--audit-monitoring-host", "127.0.0.1", "--audit-monitoring-port", "0")
	f.site = "http://" + f.auditor.logged(`msg=auditing .*monitoring=(\S+)`)
	until(tb, 5*time.Minute, func() bool { return f.settled() })
	return f
}

func (f *fleet) close() {
	f.auditor.end()
	if err := f.ledger.Close(); err != nil {
		f.tb.Error(err)
	}
}

// write adds a transaction to every ledger.
func (f *fleet) write() {
	f.tb.Helper()
	for _, name := range f.names {
		db, err := f.ledger.Database(name)
		if err != nil {
			f.tb.Fatal(err)
		}
		if _, err := db.Set([]byte("key"), []byte("value")); err != nil {
			f.tb.Fatal(err)
		}
	}
}

// metric adds up what a metric says of all ledgers.
func (f *fleet) metric(text, name string) (sum float64, lines int) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v); err != nil {
				f.tb.Fatal(line, err)
			}
			sum, lines = sum+v, lines+1
		}
	}
	return sum, lines
}

func (f *fleet) scrape() string {
	f.tb.Helper()
	resp, err := http.Get(f.site + "/metrics")
	if err != nil {
		f.tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		f.tb.Fatal(err)
	}
	return string(text)
}

// settled reports whether every ledger is trusted, verified and mirrored.
func (f *fleet) settled() bool {
	text := f.scrape()
	unverified, told := f.metric(text, "immuaudit_unverified_tx")
	consistent := fmt.Sprintf("immuaudit_ledgers{server=%q,verdict=\"consistent\"} %d\n", f.ledger.Addr(), len(f.names))
	if told != 1 || unverified > 0 || !strings.Contains(text, consistent) {
		return false
	}
	heads, err := filepath.Glob(filepath.Join(f.auditor.Dir, "state", "mirror", "*", "head"))
	if err != nil {
		f.tb.Fatal(err)
	}
	return len(heads) == len(f.names)
}

type measured struct {
	resident, peak int64
	perRound       time.Duration
	onTime         float64
}

// measure looks at the auditor for a while.
func (f *fleet) measure(tb testing.TB, window time.Duration, busy bool) measured {
	rounds := func() float64 { n, _ := f.metric(f.scrape(), "immuaudit_rounds_total"); return n }
	before, began := rounds(), time.Now()
	used := f.auditor.cost()
	ticker := time.NewTicker(f.interval)
	defer ticker.Stop()
	for range window / f.interval {
		if busy {
			f.write()
		}
		<-ticker.C
	}
	now := f.auditor.cost()
	took := time.Since(began)
	made := rounds() - before
	due := float64(len(f.names)) * took.Seconds() / f.interval.Seconds()
	return measured{resident: now.resident, peak: now.peak, perRound: (now.processor - used.processor) / time.Duration(max(1, made)), onTime: made / due}
}

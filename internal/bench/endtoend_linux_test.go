package bench_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"immuaudit/internal/ledger"
)

// BenchmarkEndToEnd is immuclient verify over a whole ledger on the same machine
// as the server: at first contact, the walk and the mirror included, and again.
// %auditor is the auditor's share of the processor time that both took. With IMMUDB_ADDRESS (host:port;
// IMMUDB_USERNAME, IMMUDB_PASSWORD and IMMUDB_DATABASE have immudb's defaults)
// that server is verified too; nothing is written to it, and of the machine's
// processor time all that is not the auditor's counts as the server's.
func BenchmarkEndToEnd(b *testing.B) {
	for _, c := range []struct {
		name             string
		txs, values, len int
	}{{"10x1KiB", 50_000, 10, 1024}, {"1x256B", 500_000, 1, 256}} {
		b.Run(c.name, func(b *testing.B) {
			l, err := ledger.Open(ledger.Config{HeaderVersion: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			fill(b, l, c.txs, c.values, c.len)
			if err := l.Start("127.0.0.1:0"); err != nil {
				b.Fatal(err)
			}
			verifies(b, l.Addr(), ledger.AdminUser, ledger.DefaultAdminPassword, ledger.DefaultDB, own)
		})
	}
	if address := os.Getenv("IMMUDB_ADDRESS"); address != "" {
		b.Run("server", func(b *testing.B) {
			verifies(b, address, or("IMMUDB_USERNAME", ledger.AdminUser), or("IMMUDB_PASSWORD", ledger.DefaultAdminPassword), or("IMMUDB_DATABASE", ledger.DefaultDB), nil)
		})
	}
}

func or(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func fill(tb testing.TB, l *ledger.Ledger, txs, values, size int) {
	tb.Helper()
	db, err := l.Database(ledger.DefaultDB)
	if err != nil {
		tb.Fatal(err)
	}
	for done := 0; done < txs; {
		batch := make([]ledger.Tx, min(10_000, txs-done))
		for i := range batch {
			for j := range values {
				value := bytes.Repeat(fmt.Appendf(nil, "%08d", done+i), size/8)
				batch[i].Entries = append(batch[i].Entries, ledger.Entry{Key: fmt.Appendf(nil, "key-%08d-%04d", done+i, j), Value: value})
			}
		}
		if _, err := db.CommitAll(batch); err != nil {
			tb.Fatal(err)
		}
		done += len(batch)
	}
}

// verifies runs verify with a fresh state again and again. server gives the
// processor time of the server; nil: what the machine spends beside the
// auditor.
func verifies(b *testing.B, address, user, password, database string, server func() time.Duration) {
	b.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		b.Fatal(err)
	}
	outer, state := b, ""
	for _, when := range []string{"first", "again"} {
		b.Run(when, func(b *testing.B) {
			var auditor, others time.Duration
			var sum verified
			for b.Loop() {
				dir := b.TempDir()
				if when == "first" {
					state = filepath.Join(outer.TempDir(), "state") // which outlives this one
				}
				before := machine(b)
				if server != nil {
					before = server()
				}
				p := start(b, dir, "verify", "-a", host, "-p", port, "--dir", state, "--audit-username", user, "--audit-password", password,
					"--audit-databases", database+"$", "--json")
				p.finish()
				used := p.ProcessState.UserTime() + p.ProcessState.SystemTime()
				auditor += used
				if server != nil {
					others += server() - before
				} else {
					others += machine(b) - before - used
				}
				sum.add(p.log, b)
			}
			seconds := b.Elapsed().Seconds()
			b.ReportMetric(100*float64(auditor)/float64(auditor+others), "%auditor")
			b.ReportMetric(float64(sum.Transactions)/seconds, "tx/s")
			b.ReportMetric(float64(sum.Received)/1e6/seconds, "MB/s")
		})
	}
}

// verified is what verify says it has done.
type verified struct {
	Transactions uint64
	Received     uint64 `json:"received_bytes"`
}

func (v *verified) add(log string, tb testing.TB) {
	tb.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		tb.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var said struct{ Verification verified }
		if json.Unmarshal(lines.Bytes(), &said) == nil && said.Verification.Transactions > 0 {
			v.Transactions += said.Verification.Transactions
			v.Received += said.Verification.Received
			return
		}
	}
	tb.Fatalf("verify says nothing of transactions:\n%s", text)
}

// machine is the time that all processors were busy.
func machine(tb testing.TB) time.Duration {
	tb.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		tb.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq …
	var busy int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		busy += number(tb, fields[i])
	}
	return time.Duration(busy) * time.Second / ticksPerSecond
}

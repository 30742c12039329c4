package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledgerAt is a ledger that was audited at a moment, with a verdict.
func ledgerAt(db string, v evidence.Verdict, at time.Time) audit.LedgerStatus {
	l := audit.LedgerStatus{
		Name:        evidence.Name{Server: "prod", Database: db},
		Last:        evidence.Report{Time: at, Server: "prod", Database: db, Verdict: v},
		LastAttempt: at,
		ProvenTx:    10, WalkedTx: 9, VerifiedTx: 8, ObservedTx: 12, PreviousTx: 7,
	}
	switch v {
	case evidence.Consistent:
		l.LastSuccess = at
	case evidence.Tampered:
		l.Last.Kind, l.OpenIncidents = evidence.Fork, 1
	default:
		l.Last.Reason = evidence.Unreachable
	}
	return l
}

// healthy is an auditor at work over two ledgers.
func healthy() audit.Status {
	now := time.Now()
	return audit.Status{
		Server: "prod", Address: "10.0.0.7:3322", UUID: "cd3hlfp5bm2bq8mmps0g",
		Started: now.Add(-time.Hour), LoopAt: now, FirstPass: true, Rounds: 40,
		Ledgers: []audit.LedgerStatus{
			ledgerAt("defaultdb", evidence.Consistent, now.Add(-time.Second)),
			ledgerAt("sales", evidence.Consistent, now.Add(-2*time.Second)),
		},
	}
}

func immudbUp(context.Context) error { return nil }

var errConnection = errors.New("connection refused")

func immudbDown(context.Context) error { return errConnection }

func showing(s audit.Status) func() []audit.Status {
	return func() []audit.Status { return []audit.Status{s} }
}

// start runs a server until the test ends; what is not set is healthy.
func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Statuses == nil {
		o.Statuses = showing(healthy())
	}
	if o.Immudb == nil {
		o.Immudb = immudbUp
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return s
}

func run(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var stopped atomic.Bool
	stop = func() {
		if stopped.CompareAndSwap(false, true) {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run ended with %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

type answer struct {
	code   int
	header http.Header
	body   string
}

// visitor is an HTTP client that keeps no connections.
func visitor(dial func() (net.Conn, error)) *http.Client {
	return &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the test's own certificate
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return dial()
			},
		},
	}
}

func tcp(addr net.Addr) *http.Client {
	return visitor(func() (net.Conn, error) { return net.Dial("tcp", addr.String()) })
}

func ask(t *testing.T, c *http.Client, method, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func get(t *testing.T, s *Server, path string, headers ...string) answer {
	t.Helper()
	return ask(t, tcp(s.Addr()), http.MethodGet, "http://auditor"+path, headers...)
}

// pass lets time go by in a synctest bubble, where it costs none; outside of one
// it panics.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func contains(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line) {
			t.Errorf("missing %q in:\n%.4000s", line, text)
		}
	}
}

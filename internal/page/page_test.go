package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/history"
	"immuaudit/proof"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a book in memory.
type shelf struct {
	mu        sync.Mutex
	incidents []evidence.Incident
	trust     map[evidence.Name]evidence.Trust
	events    []evidence.Event
	err       error
}

func (b *shelf) Incidents(_ context.Context, all bool) ([]evidence.Incident, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []evidence.Incident
	for _, inc := range b.incidents {
		if all || inc.Status == evidence.Open {
			list = append(list, inc)
		}
	}
	return list, b.err
}

func (b *shelf) Incident(_ context.Context, id string) (evidence.Incident, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, inc := range b.incidents {
		if strings.HasPrefix(inc.ID, id) {
			return inc, b.err
		}
	}
	return evidence.Incident{}, errors.New("not found")
}

func (b *shelf) Trust(_ context.Context, name evidence.Name) (evidence.Trust, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if trust, known := b.trust[name]; known {
		return trust, b.err
	}
	return evidence.Trust{}, errors.New("not found")
}

func (b *shelf) Events(_ context.Context, since time.Time, limit int) ([]evidence.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []evidence.Event
	for _, ev := range b.events {
		if !ev.At.Before(since) && len(list) < limit {
			list = append(list, ev)
		}
	}
	return list, b.err
}

var begun = time.Now()

// past is a history in memory: one day of rounds, with an hour without any.
type past struct{}

func (past) Of(_ context.Context, _ evidence.Name, from, to time.Time, limit int) ([]history.Stretch, error) {
	var list []history.Stretch
	day := begun.Add(-24 * time.Hour)
	for i := range 24 {
		at := day.Add(time.Duration(i) * time.Hour)
		if i == 7 || at.Before(from) || at.After(to) || len(list) >= limit {
			continue
		}
		one := history.Stretch{
			From: at, To: at.Add(time.Hour - time.Second), Rounds: 3600, Verdict: evidence.Consistent, FirstTx: uint64(1000 + 40*i), LastTx: uint64(1040 + 40*i + i*i),
			Verified: 900, Torn: i == 8, Took: 3600 * 4 * time.Millisecond, Slowest: time.Duration(20+i%5*9) * time.Millisecond,
		}
		if i == 15 {
			one.Verdict, one.Reason = evidence.Undetermined, evidence.Unreachable
		}
		list = append(list, one)
	}
	return list, nil
}

// fleetOf is one server with ledgers, all consistent.
func fleetOf(server string, ledgers int) audit.Status {
	now := time.Now()
	s := audit.Status{Server: server, Address: "10.0.0.7:3322", UUID: "cd3hlfp5bm2bq8mmps0g", Started: now.Add(-time.Hour), LoopAt: now, FirstPass: true, Rounds: 40, Tags: []string{"eu"}}
	for i := range ledgers {
		s.Ledgers = append(s.Ledgers, ledgerAt(server, fmt.Sprintf("db%05d", i), evidence.Consistent))
	}
	return s
}

func ledgerAt(server, db string, v evidence.Verdict) audit.LedgerStatus {
	now := time.Now()
	l := audit.LedgerStatus{
		Name:        evidence.Name{Server: server, Database: db},
		Last:        evidence.Report{Time: now.Add(-2 * time.Second), Server: server, Database: db, Verdict: v, DurationMS: 3.5},
		LastAttempt: now, ProvenTx: 123456, WalkedTx: 123456, VerifiedTx: 120000, ObservedTx: 123456, Scrub: evidence.Scrub{Pass: 3, Finished: now.Add(-time.Hour)},
	}
	switch v {
	case evidence.Consistent:
		l.LastSuccess = now
	case evidence.Tampered:
		l.Last.Kind, l.OpenIncidents = evidence.Fork, 1
	default:
		l.Last.Reason, l.UndeterminedSince = evidence.Unreachable, now.Add(-3*time.Minute)
	}
	return l
}

// scene is a fleet that tests change while it is watched.
type scene struct {
	mu       sync.Mutex
	statuses []audit.Status
}

func (s *scene) show() []audit.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]audit.Status(nil), s.statuses...)
}

func (s *scene) set(statuses ...audit.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses = statuses
}

func everybody(*http.Request) bool { return true }

// start serves a site over TCP until the test ends.
func start(t testing.TB, o Options) *httptest.Server {
	t.Helper()
	if o.Statuses == nil {
		o.Statuses = (&scene{statuses: []audit.Status{fleetOf("prod", 3)}}).show
	}
	if o.Book == nil {
		o.Book = &shelf{}
	}
	site, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- site.Run(ctx) }()
	server := httptest.NewServer(site)
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return server
}

type answer struct {
	code   int
	header http.Header
	body   string
}

func ask(t testing.TB, method, address string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
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

func get(t testing.TB, address string, headers ...string) answer {
	t.Helper()
	return ask(t, http.MethodGet, address, headers...)
}

func contains(t testing.TB, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q in:\n%.6000s", want, text)
		}
	}
}

const secretKey, secretText = "00616363742d34373131", "acct-4711" // hex with its prefix, and as text

// damaged is an incident about a value, with a key that not everybody may see.
func damaged() evidence.Incident {
	now := time.Now()
	return evidence.Incident{
		ID: "20261123-k7qd", Version: 1, Name: evidence.Name{Server: "prod", Database: "db00001"}, Kind: evidence.Value, Status: evidence.Open,
		OpenedAt: now.Add(-time.Hour), LastSeen: now, Seen: 4,
		Findings:   []evidence.Finding{{Kind: evidence.Value, Check: "value", Tx: 77, Key: secretKey, Want: strings.Repeat("ab", 32), Got: strings.Repeat("cd", 32), Detail: "the value of " + secretText + " was changed"}},
		Trusted:    proof.SignedState{State: proof.State{TxID: 80}},
		Divergence: &evidence.Divergence{LastGoodTx: 76, FirstBadTx: 77, Key: secretKey, KeyText: secretText},
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	status := fleetOf("prod", 3)
	status.Ledgers[1] = ledgerAt("prod", "db00001", evidence.Tampered)
	status.Ledgers[1].Last.Kind, status.Ledgers[1].Last.Incident = evidence.Value, "20261123-k7qd"
	book := &shelf{incidents: []evidence.Incident{damaged()}, events: []evidence.Event{{
		ID: "1", Type: evidence.EventTampered, At: time.Now().Add(-time.Hour), Name: evidence.Name{Server: "prod", Database: "db00001"}, Kind: evidence.Value, Incident: "20261123-k7qd",
		Message: "the value of " + secretText + " was changed",
	}}}
	server := start(t, Options{Statuses: (&scene{statuses: []audit.Status{status}}).show, Book: book, History: past{}, Private: everybody, Version: "1.2.3"})
	home := get(t, server.URL+"/")
	contains(t, home.body, "Tampered: 1 of 3 ledgers", "a stored value was changed", `href="./ledger/prod/db00001"`, "123\u202f456", "1–120\u202f000, pass 3", "1.2.3")
	if strings.Index(home.body, "db00001") > strings.Index(home.body, "db00000") {
		t.Error("the tampered ledger does not come first")
	}
	ledger := get(t, server.URL+"/ledger/prod/db00001")
	contains(t, ledger.body, "Proven to 123\u202f456", "<polyline", "no check was made", "the server cannot be reached", `href="../../incident/20261123-k7qd"`)
	incident := get(t, server.URL+"/incident/20261123-k7qd")
	contains(t, incident.body, "A stored value was changed", secretText, "immuclient trust accept 20261123-k7qd --reason", "What it cannot mean")
	for address, code := range map[string]int{
		"/incidents": 200, "/incidents?all=1": 200, "/?verdict=tampered&name=DB": 200, "/?page=2": 200, "/ledger/prod/db00001?span=90d": 200,
		"/ledger/prod/none": 404, "/incident/none": 404, "/incident/..%2f..": 404, "/nothing": 404, "/?page=0": 400, "/?page=1&page=2": 400, "/?verdict=good": 400,
		"/?unknown=1": 400, "/?name=" + strings.Repeat("x", 300): 400, "/?%zz": 400, "/ledger/prod/db00001?span=1y": 400,
	} {
		if got := get(t, server.URL+address); got.code != code {
			t.Errorf("%s: %d, want %d", address, got.code, code)
		}
	}
	if got := ask(t, http.MethodPost, server.URL+"/"); got.code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got.code)
	}
}

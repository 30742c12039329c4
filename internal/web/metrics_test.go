package web

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

func registry(t testing.TB, o Options) *metrics {
	t.Helper()
	if o.Traffic == nil {
		o.Traffic = func() map[string]Traffic { return nil }
	}
	if o.Queues == nil {
		o.Queues = func() []evidence.Queue { return nil }
	}
	if o.Reloads == nil {
		o.Reloads = func() (time.Time, bool) { return time.Unix(4, 0), true }
	}
	m, err := newMetrics(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The four gauges as the original's dashboards know them.
func TestOriginalGauges(t *testing.T) {
	t.Parallel()
	m := registry(t, Options{Statuses: showing(audit.Status{
		Address: "10.0.0.7:3322", UUID: "cd3hlfp5bm2bq8mmps0g",
		Ledgers: []audit.LedgerStatus{ledgerAt("db", evidence.Consistent, time.Unix(1795435200, 0))},
	})})
	want := `
# HELP immuclient_audit_curr_root_per_server Current root index used for the latest audit.
# TYPE immuclient_audit_curr_root_per_server gauge
immuclient_audit_curr_root_per_server{server_address="10.0.0.7:3322",server_id="cd3hlfp5bm2bq8mmps0g"} 12
# HELP immuclient_audit_prev_root_per_server Previous root index used for the latest audit.
# TYPE immuclient_audit_prev_root_per_server gauge
immuclient_audit_prev_root_per_server{server_address="10.0.0.7:3322",server_id="cd3hlfp5bm2bq8mmps0g"} 7
# HELP immuclient_audit_result_per_server Latest audit result (1 = ok, 0 = tampered).
# TYPE immuclient_audit_result_per_server gauge
immuclient_audit_result_per_server{server_address="10.0.0.7:3322",server_id="cd3hlfp5bm2bq8mmps0g"} 1
# HELP immuclient_audit_run_at_per_server Timestamp in unix seconds at which latest audit run.
# TYPE immuclient_audit_run_at_per_server gauge
immuclient_audit_run_at_per_server{server_address="10.0.0.7:3322",server_id="cd3hlfp5bm2bq8mmps0g"} 1.7954352e+09
`
	if err := testutil.GatherAndCompare(m.registry, strings.NewReader(want),
		"immuclient_audit_curr_root_per_server", "immuclient_audit_prev_root_per_server",
		"immuclient_audit_result_per_server", "immuclient_audit_run_at_per_server"); err != nil {
		t.Error(err)
	}
}

// One value for all ledgers: the worst, in the order 0, -2, -1, 1.
func TestWorstLedgerSpeaks(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	good, bad, lost := ledgerAt("b-good", evidence.Consistent, at), ledgerAt("c-bad", evidence.Tampered, at), ledgerAt("d-lost", evidence.Undetermined, at)
	bad.ObservedTx, bad.PreviousTx = 5, 10
	fresh := audit.LedgerStatus{Name: evidence.Name{Database: "e-fresh"}}
	first := ledgerAt("f-first", evidence.Undetermined, at.Add(time.Minute))
	first.Last.Reason = evidence.FirstContact
	other := ledgerAt("a-good", evidence.Consistent, at)
	other.ObservedTx, other.PreviousTx = 100, 99
	sticky := ledgerAt("g-sticky", evidence.Undetermined, at)
	sticky.OpenIncidents = 1
	pausedBad := bad
	pausedBad.Paused = true
	pausedLost, retired := lost, lost
	pausedLost.Paused, retired.Retired = true, true

	for name, c := range map[string]struct {
		ledgers []audit.LedgerStatus
		problem string
		want    originalValues // result, current, previous, runAt
	}{
		"before any round":                {nil, "", originalValues{-1, -1, -1, -1}},
		"server never reached":            {nil, "unreachable", originalValues{-2, -2, -2, -1}},
		"known, not audited":              {[]audit.LedgerStatus{fresh}, "", originalValues{-1, -1, -1, -1}},
		"good":                            {[]audit.LedgerStatus{good}, "", originalValues{1, 12, 7, 1000}},
		"of equals the first by name":     {[]audit.LedgerStatus{good, other}, "", originalValues{1, 100, 99, 1000}},
		"not checked beats good":          {[]audit.LedgerStatus{good, fresh}, "", originalValues{-1, -1, -1, 1000}},
		"first contact is not checked":    {[]audit.LedgerStatus{good, first}, "", originalValues{-1, -1, -1, 1060}},
		"error beats not checked":         {[]audit.LedgerStatus{good, fresh, lost}, "", originalValues{-2, -2, -2, 1000}},
		"tampered beats all":              {[]audit.LedgerStatus{good, fresh, lost, bad}, "", originalValues{0, 5, 10, 1000}},
		"an open incident sticks":         {[]audit.LedgerStatus{good, sticky}, "", originalValues{0, 12, 7, 1000}},
		"paused or retired do not count":  {[]audit.LedgerStatus{good, pausedLost, retired}, "", originalValues{1, 12, 7, 1000}},
		"unless an incident is open":      {[]audit.LedgerStatus{good, pausedBad}, "", originalValues{0, 5, 10, 1000}},
		"a refused list is no bad result": {[]audit.LedgerStatus{good}, "listing refused", originalValues{1, 12, 7, 1000}},
	} {
		if got := originalOf(audit.Status{Ledgers: c.ledgers, ServerError: c.problem}); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestOwnMetrics(t *testing.T) {
	t.Parallel()
	at := time.Unix(1795435200, 0)
	status := audit.Status{
		Server: "prod", Rounds: 3, InFlight: 2, Dropped: 4, LoopAt: at,
		Ledgers: []audit.LedgerStatus{ledgerAt("good", evidence.Consistent, at), ledgerAt("bad", evidence.Tampered, at), ledgerAt("lost", evidence.Undetermined, at)},
	}
	status.Ledgers[0].LaggingTrees, status.Ledgers[0].UnreadableTx = 6, 5
	status.Ledgers[2].Stale = true
	s := start(t, Options{
		Statuses: showing(status),
		Traffic: func() map[string]Traffic {
			return map[string]Traffic{"prod": {Logins: 5, CallsInFlight: 1, PerLedger: map[string]Usage{"good": {Calls: 7, BytesIn: 800, BytesOut: 90}}}}
		},
		Queues: func() []evidence.Queue {
			return []evidence.Queue{
				{Sink: "webhook", Waiting: 2, Oldest: time.Now().Add(-time.Hour), Sent: 11, Failed: 12, LastErr: "hunter2"},
				{Sink: "idle", LastOK: at},
			}
		},
		Version: VersionInfo{Version: "1.2.3"},
	})
	s.ObserveRound(evidence.Report{Server: "prod", DurationMS: 3})
	s.ObserveRound(evidence.Report{Server: "prod", DurationMS: 40_000})
	for _, impossible := range []float64{-1, math.NaN(), math.Inf(1)} {
		s.ObserveRound(evidence.Report{Server: "prod", DurationMS: impossible})
	}
	body := get(t, s, "/metrics").body
	contains(t, body,
		`immuaudit_ledger_verdict{database="good",server="prod",verdict="consistent"} 1`,
		`immuaudit_ledger_verdict{database="good",server="prod",verdict="tampered"} 0`,
		`immuaudit_ledger_verdict{database="bad",server="prod",verdict="consistent"} 0`,
		`immuaudit_ledger_verdict{database="bad",server="prod",verdict="tampered"} 1`,
		`immuaudit_ledger_verdict{database="lost",server="prod",verdict="undetermined"} 1`,
		`immuaudit_ledger_trusted_tx{database="good",server="prod"} 10`,
		`immuaudit_ledger_walked_tx{database="good",server="prod"} 9`,
		`immuaudit_ledger_verified_tx{database="good",server="prod"} 8`,
		`immuaudit_ledger_unreadable_tx{database="good",server="prod"} 5`,
		`immuaudit_ledger_observed_tx{database="good",server="prod"} 12`,
		`immuaudit_ledger_last_success_timestamp_seconds{database="good",server="prod"} 1.7954352e+09`,
		`immuaudit_ledger_last_success_timestamp_seconds{database="bad",server="prod"} 0`,
		`immuaudit_ledger_last_attempt_timestamp_seconds{database="bad",server="prod"} 1.7954352e+09`,
		`immuaudit_ledger_open_incidents{database="bad",server="prod"} 1`,
		`immuaudit_ledger_stale{database="lost",server="prod"} 1`,
		`immuaudit_ledger_paused{database="lost",server="prod"} 0`,
		`immuaudit_ledger_lagging_trees_total{database="good",server="prod"} 6`,
		`immuaudit_ledger_calls_total{database="good",server="prod"} 7`,
		`immuaudit_ledger_received_bytes_total{database="good",server="prod"} 800`,
		`immuaudit_ledger_sent_bytes_total{database="good",server="prod"} 90`,
		`immuaudit_ledgers{server="prod",verdict="tampered"} 1`,
		`immuaudit_ledgers_omitted{server="prod"} 0`,
		`immuaudit_unverified_tx{server="prod"} 6`,
		`immuaudit_server_up{server="prod"} 1`,
		`immuaudit_loop_timestamp_seconds{server="prod"} 1.7954352e+09`,
		`immuaudit_rounds_total{server="prod"} 3`,
		`immuaudit_rounds_in_flight{server="prod"} 2`,
		`immuaudit_calls_in_flight{server="prod"} 1`,
		`immuaudit_logins_total{server="prod"} 5`,
		`immuaudit_ticks_dropped_total{server="prod"} 4`,
		`immuaudit_round_duration_seconds_bucket{server="prod",le="0.005"} 1`,
		`immuaudit_round_duration_seconds_count{server="prod"} 2`,
		`immuaudit_notification_queue_length{sink="webhook"} 2`,
		`immuaudit_notification_oldest_age_seconds{sink="webhook"} 3600.`,
		`immuaudit_notification_oldest_age_seconds{sink="idle"} 0`,
		`immuaudit_notification_delivered_total{sink="webhook"} 11`,
		`immuaudit_notification_failures_total{sink="webhook"} 12`,
		`immuaudit_notification_last_success_timestamp_seconds{sink="idle"} 1.7954352e+09`,
		`immuaudit_build_info{goversion="go1.`,
		"go_goroutines ", "process_start_time_seconds ",
	)
	if strings.Contains(body, "hunter2") {
		t.Error("an error text became a metric")
	}
}

func TestServerUp(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	good, bad, lost := ledgerAt("good", evidence.Consistent, at), ledgerAt("bad", evidence.Tampered, at), ledgerAt("lost", evidence.Undetermined, at)
	slow, refused := lost, lost
	slow.Last.Reason, refused.Last.Reason = evidence.Timeout, evidence.Unauthorised
	paused := good
	paused.Paused = true
	for name, c := range map[string]struct {
		status audit.Status
		want   bool
	}{
		"before the first round":   {audit.Status{}, false},
		"empty server":             {audit.Status{Rounds: 1}, true},
		"never reached":            {audit.Status{Rounds: 1, ServerError: "unreachable"}, false},
		"known, not audited":       {audit.Status{Ledgers: []audit.LedgerStatus{{}}}, false},
		"consistent":               {audit.Status{Rounds: 1, Ledgers: []audit.LedgerStatus{good}}, true},
		"tampered":                 {audit.Status{Rounds: 1, Ledgers: []audit.LedgerStatus{bad}}, true},
		"list refused":             {audit.Status{Rounds: 1, ServerError: "refused", Ledgers: []audit.LedgerStatus{good}}, true},
		"credentials refused":      {audit.Status{Rounds: 1, Ledgers: []audit.LedgerStatus{refused}}, true},
		"one ledger hangs":         {audit.Status{Rounds: 2, Ledgers: []audit.LedgerStatus{good, slow}}, true},
		"all hang or break":        {audit.Status{Rounds: 2, Ledgers: []audit.LedgerStatus{lost, slow}}, false},
		"only a paused one was ok": {audit.Status{Rounds: 2, Ledgers: []audit.LedgerStatus{paused, lost}}, false},
	} {
		if got := answers(&c.status); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	s := start(t, Options{Statuses: showing(audit.Status{Server: "prod"})})
	contains(t, get(t, s, "/metrics").body, `immuaudit_server_up{server="prod"} 0`)
}

// promlint knows the conventions of Prometheus; a pedantic registry that the
// collector keeps its word about what it collects.
func TestMetricsFollowConventions(t *testing.T) {
	t.Parallel()
	status := healthy()
	o := Options{
		Reloads:  func() (time.Time, bool) { return time.Unix(4, 0), true },
		Statuses: showing(status),
		Traffic: func() map[string]Traffic {
			return map[string]Traffic{"prod": {PerLedger: map[string]Usage{"sales": {Calls: 1}}}}
		},
		Queues: func() []evidence.Queue { return []evidence.Queue{{Sink: "webhook", Waiting: 1}} },
	}
	m := registry(t, o)
	m.observe(evidence.Report{Server: "prod", DurationMS: 1})
	pedantic := prometheus.NewPedanticRegistry()
	pedantic.MustRegister(newSnapshot(o), m.rounds)
	problems, err := testutil.GatherAndLint(pedantic)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// seriesPerLedger is what the bound on series is computed with.
func TestSeriesPerLedger(t *testing.T) {
	t.Parallel()
	m := registry(t, Options{Statuses: showing(healthy())})
	if n := ledgerSeries(t, m); n != 2*seriesPerLedger {
		t.Errorf("%d series for two ledgers, want %d each", n, seriesPerLedger)
	}
}

func ledgerSeries(t *testing.T, m *metrics) int {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "immuaudit_ledger_") {
			n += len(f.GetMetric())
		}
	}
	return n
}

// A server that names 20,000 databases, in the most hostile way, cannot blow up
// the scrape nor hide the ledgers that matter.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	status := healthy()
	bad := ledgerAt("zz-bad", evidence.Tampered, status.LoopAt)
	status.Ledgers = append(status.Ledgers, bad)
	for i := range 20_000 {
		name := fmt.Sprintf("\"}\nimmuaudit_up 1\n\x00\xff%d%s", i/2, strings.Repeat("x", 200))
		status.Ledgers = append(status.Ledgers, audit.LedgerStatus{Name: evidence.Name{Database: name}})
	}
	m := registry(t, Options{Statuses: showing(status)})
	if n, want := ledgerSeries(t, m), maxSeries/seriesPerLedger*seriesPerLedger; n != want {
		t.Errorf("%d series, want %d", n, want)
	}
	s := start(t, Options{Statuses: showing(status)})
	body := get(t, s, "/metrics").body
	contains(t, body,
		`immuaudit_ledger_verdict{database="zz-bad",server="prod",verdict="tampered"} 1`,
		`immuaudit_ledger_verdict{database="sales",server="prod",verdict="consistent"} 1`,
		`immuaudit_ledgers{server="prod",verdict="undetermined"} 20000`,
		fmt.Sprintf(`immuaudit_ledgers_omitted{server="prod"} %d`, 20_003-maxSeries/seriesPerLedger),
	)
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "immuaudit_up") || !utf8.ValidString(line) || len(line) > 500 {
			t.Fatalf("line %q", line)
		}
	}
}

func FuzzLabel(f *testing.F) {
	for _, seed := range []string{"", "defaultdb", "données", "a\x00b", "\xff", strings.Repeat("é", 100), "x~0123456789abcdef", `a"b\c`} {
		f.Add(seed, seed+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		la, lb := label(a), label(b)
		if len(la) > maxLabel || !utf8.ValidString(la) || strings.IndexFunc(la, unprintable) >= 0 {
			t.Errorf("label(%q) = %q", a, la)
		}
		if label(la) != la {
			t.Errorf("label(%q) is not stable", a)
		}
		if a != b && la == lb && la != a && lb != b {
			t.Errorf("%q and %q both become %q", a, b, la)
		}
		if text := oneLine(a); len(text) > maxErrorText+len("…") || !utf8.ValidString(text) || strings.IndexFunc(text, unprintable) >= 0 {
			t.Errorf("oneLine(%q) = %q", a, text)
		}
	})
}

func BenchmarkScrape1000Ledgers(b *testing.B) {
	status := healthy()
	traffic := Traffic{PerLedger: make(map[string]Usage)}
	for i := range 998 {
		name := fmt.Sprintf("db%04d", i)
		status.Ledgers = append(status.Ledgers, ledgerAt(name, evidence.Consistent, status.LoopAt))
		traffic.PerLedger[name] = Usage{Calls: 1, BytesIn: 2, BytesOut: 3}
	}
	m := registry(b, Options{Statuses: showing(status), Traffic: func() map[string]Traffic { return map[string]Traffic{status.Server: traffic} }})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// Servers share the room for series, and what is one server to the original is
// one there, however often it is listed.
func TestMetricsOfManyServers(t *testing.T) {
	t.Parallel()
	of := func(server, address string, v evidence.Verdict) audit.Status {
		return audit.Status{Server: server, Address: address, UUID: "u", Rounds: 3, Ledgers: []audit.LedgerStatus{{
			Name: evidence.Name{Server: server, Database: "orders"}, Last: evidence.Report{Time: time.Unix(5, 0), Verdict: v}, ObservedTx: 7, ProvenTx: 7,
		}}}
	}
	all := []audit.Status{of("a", "x:1", evidence.Consistent), of("b", "x:1", evidence.Tampered), of("c", "y:1", evidence.Consistent), of("c", "z:1", evidence.Tampered)}
	text := get(t, start(t, Options{Statuses: func() []audit.Status { return all }}), "/metrics").body
	for _, line := range []string{
		`immuclient_audit_result_per_server{server_address="x:1",server_id="u"} 0`,
		`immuclient_audit_result_per_server{server_address="y:1",server_id="u"} 1`,
		`immuaudit_ledger_trusted_tx{database="orders",server="a"} 7`,
		`immuaudit_ledger_verdict{database="orders",server="b",verdict="tampered"} 1`,
		`immuaudit_ledger_verdict{database="orders",server="c",verdict="consistent"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not in\n%s", line, text)
		}
	}
}

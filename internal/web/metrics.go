package web

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// metrics is a registry of its own: nothing that a library registers globally
// is served.
type metrics struct {
	registry *prometheus.Registry
	rounds   *prometheus.HistogramVec
}

func newMetrics(opts Options) (*metrics, error) {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		rounds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "immuaudit_round_duration_seconds",
			Help: "How long rounds over a ledger took.",
			// From a quiet ledger on the same host to the deadline of a call.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"server"}),
	}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.rounds,
		newSnapshot(opts),
	} {
		if err := m.registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) observe(r evidence.Report) {
	if r.DurationMS < 0 || math.IsNaN(r.DurationMS) || math.IsInf(r.DurationMS, 0) {
		return
	}
	m.rounds.WithLabelValues(label(r.Server)).Observe(r.DurationMS / 1000)
}

// snapshot turns one status into all metrics about the audit, once per scrape:
// what a scrape shows belongs together, and a ledger that is gone leaves no
// series behind.
type snapshot struct {
	status  func() []audit.Status
	traffic func() map[string]Traffic
	queues  func() []evidence.Queue
	reloads func() (time.Time, bool)
	build   []string

	// As in the original: names, helps and labels are a contract.
	currentRoot, previousRoot, result, runAt *prometheus.Desc

	verdict, trusted, walked, verified, observed, lastSuccess, lastAttempt     *prometheus.Desc
	openIncidents, stale, paused, laggingTrees, calls, received, sent          *prometheus.Desc
	mirrored, notGrowing, clockSkew                                            *prometheus.Desc
	passes, passPosition, passEnd, contents, contentBytes, damages, unreadable *prometheus.Desc

	ledgers, ledgersOmitted, unverified, serverUp, loopAt, roundsTotal    *prometheus.Desc
	roundsInFlight, callsInFlight, logins, dropped                        *prometheus.Desc
	queueLength, queueAge, queueSent, queueFailed, queueLastOK, buildInfo *prometheus.Desc
	reloadOK, reloadAt                                                    *prometheus.Desc
}

// seriesPerLedger is how many series ledger() makes of one ledger.
const seriesPerLedger = 26

func newSnapshot(opts Options) *snapshot {
	original := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("immuclient_audit_"+name, help, []string{"server_address", "server_id"}, nil)
	}
	perLedger := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("immuaudit_ledger_"+name, help, append([]string{"server", "database"}, more...), nil)
	}
	perServer := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("immuaudit_"+name, help, append([]string{"server"}, more...), nil)
	}
	perSink := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("immuaudit_notification_"+name, help, []string{"sink"}, nil)
	}
	return &snapshot{
		status: opts.Statuses, traffic: opts.Traffic, queues: opts.Queues, reloads: opts.Reloads,
		build: []string{label(opts.Version.Version), runtime.Version()},

		currentRoot:  original("curr_root_per_server", "Current root index used for the latest audit."),
		previousRoot: original("prev_root_per_server", "Previous root index used for the latest audit."),
		result:       original("result_per_server", "Latest audit result (1 = ok, 0 = tampered)."),
		runAt:        original("run_at_per_server", "Timestamp in unix seconds at which latest audit run."),

		verdict:       perLedger("verdict", "Verdict over the ledger: 1 for the one that stands, 0 for the others. An open incident keeps it tampered.", "verdict"),
		trusted:       perLedger("trusted_tx", "Newest transaction that is proven to extend the baseline."),
		walked:        perLedger("walked_tx", "Newest transaction up to which every header was chained."),
		verified:      perLedger("verified_tx", "Newest transaction up to which every entry and value was checked."),
		mirrored:      perLedger("mirrored_tx", "Newest transaction of which a hash is kept, to say where a ledger was changed."),
		observed:      perLedger("observed_tx", "Newest transaction the server showed."),
		lastSuccess:   perLedger("last_success_timestamp_seconds", "When a round last ended consistent; 0 if never."),
		lastAttempt:   perLedger("last_attempt_timestamp_seconds", "When a round was last made; 0 if never."),
		passes:        perLedger("scrub_passes_total", "Passes over all entries and values that were finished."),
		passPosition:  perLedger("scrub_position_tx", "Transaction that deep verification has come to."),
		passEnd:       perLedger("scrub_last_pass_timestamp_seconds", "When a pass over all entries and values was last finished; 0 if never."),
		contents:      perLedger("scrub_entries_total", "Entries whose value was verified, since the first pass began."),
		contentBytes:  perLedger("scrub_value_bytes_total", "Bytes of values that were verified, since the first pass began."),
		damages:       perLedger("damages", "Damaged entries and values in open incidents."),
		unreadable:    perLedger("unreadable_tx", "First transaction that deep verification could not read, with no incident that says why; 0 if there is none."),
		openIncidents: perLedger("open_incidents", "Incidents that wait for an operator's decision."),
		stale:         perLedger("stale", "1 while no verdict could be reached for longer than --audit-stale-after."),
		notGrowing:    perLedger("not_growing", "1 while there was no new transaction for longer than --audit-expect-growth."),
		clockSkew:     perLedger("clock_skew", "1 while the newest transactions are dated further ahead or back than --audit-clock-skew."),
		paused:        perLedger("paused", "1 while the ledger is remembered but not audited."),
		laggingTrees:  perLedger("lagging_trees_total", "Newly committed transactions whose transaction tree lagged."),
		calls:         perLedger("calls_total", "Calls made to the server about the ledger."),
		received:      perLedger("received_bytes_total", "Bytes received from the server about the ledger."),
		sent:          perLedger("sent_bytes_total", "Bytes sent to the server about the ledger."),

		ledgers:        perServer("ledgers", "Ledgers by the verdict that stands; paused and retired ones are not counted.", "verdict"),
		ledgersOmitted: perServer("ledgers_omitted", "Ledgers without series of their own, because there are too many."),
		unverified:     perServer("unverified_tx", "Trusted transactions of all ledgers whose entries and values were not checked yet."),
		serverUp:       perServer("server_up", "1 if the server answered in the newest round of any ledger."),
		loopAt:         perServer("loop_timestamp_seconds", "When the scheduler last turned; 0 if never."),
		roundsTotal:    perServer("rounds_total", "Rounds finished."),
		roundsInFlight: perServer("rounds_in_flight", "Rounds in flight."),
		callsInFlight:  perServer("calls_in_flight", "Calls to the server in flight."),
		logins:         perServer("logins_total", "Logins made."),
		dropped:        perServer("ticks_dropped_total", "Ticks dropped because the round before was still in flight."),

		queueLength: perSink("queue_length", "Notifications waiting to be delivered."),
		queueAge:    perSink("oldest_age_seconds", "Age of the oldest notification that waits; 0 if none does."),
		queueSent:   perSink("delivered_total", "Notifications delivered."),
		queueFailed: perSink("failures_total", "Failed tries to deliver a notification."),
		queueLastOK: perSink("last_success_timestamp_seconds", "When a notification was last delivered; 0 if never."),

		reloadOK: prometheus.NewDesc("immuaudit_config_last_reload_successful", "1 if the configuration was taken over when it was last read, 0 if it was refused and the one before is in force.", nil, nil),
		reloadAt: prometheus.NewDesc("immuaudit_config_last_reload_timestamp_seconds", "When the configuration was last read.", nil, nil),

		buildInfo: prometheus.NewDesc("immuaudit_build_info", "What runs; always 1.", []string{"version", "goversion"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (s *snapshot) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.currentRoot, s.previousRoot, s.result, s.runAt,
		s.verdict, s.trusted, s.walked, s.verified, s.mirrored, s.observed, s.lastSuccess, s.lastAttempt,
		s.openIncidents, s.stale, s.paused, s.laggingTrees, s.calls, s.received, s.sent,
		s.notGrowing, s.clockSkew, s.passes, s.passPosition, s.passEnd, s.contents, s.contentBytes, s.damages, s.unreadable,
		s.ledgers, s.ledgersOmitted, s.unverified, s.serverUp, s.loopAt, s.roundsTotal, s.roundsInFlight,
		s.callsInFlight, s.logins, s.dropped,
		s.queueLength, s.queueAge, s.queueSent, s.queueFailed, s.queueLastOK, s.buildInfo, s.reloadOK, s.reloadAt,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *snapshot) Collect(out chan<- prometheus.Metric) {
	e := emitter(out)
	all, traffic := s.status(), s.traffic()
	s.originals(e, all)
	names, series := map[string]bool{}, 0
	for i := range all {
		status := &all[i]
		name := label(status.Server)
		if names[name] {
			continue // two names that look the same would break the whole scrape
		}
		names[name] = true
		s.server(e, status, traffic[status.Server])
		series = s.everyLedger(e, status.Ledgers, traffic[status.Server], name, series)
	}
	for _, q := range s.queues() {
		s.queue(e, q)
	}
	at, ok := s.reloads()
	e.gauge(s.reloadOK, truth(ok))
	e.gauge(s.reloadAt, seconds(at))
	e.gauge(s.buildInfo, 1, s.build...)
}

// originals emits the original's gauges. What has one address and identity is
// one server there, under however many names it is audited.
func (s *snapshot) originals(e emitter, all []audit.Status) {
	type id struct{ address, uuid string }
	together := map[id]audit.Status{}
	var order []id
	for _, status := range all {
		of := id{label(status.Address), label(status.UUID)}
		if before, ok := together[of]; ok {
			status.Ledgers = slices.Concat(before.Ledgers, status.Ledgers)
		} else {
			order = append(order, of)
		}
		together[of] = status
	}
	for _, of := range order {
		values := originalOf(together[of])
		e.gauge(s.currentRoot, values.current, of.address, of.uuid)
		e.gauge(s.previousRoot, values.previous, of.address, of.uuid)
		e.gauge(s.result, values.result, of.address, of.uuid)
		e.gauge(s.runAt, values.runAt, of.address, of.uuid)
	}
}

func (s *snapshot) server(e emitter, status *audit.Status, traffic Traffic) {
	server := label(status.Server)
	for verdict, n := range countVerdicts(status.Ledgers) {
		e.gauge(s.ledgers, float64(n), server, verdict)
	}
	e.gauge(s.unverified, float64(unverified(status.Ledgers)), server)
	e.gauge(s.serverUp, truth(answers(status)), server)
	e.gauge(s.loopAt, seconds(status.LoopAt), server)
	e.counter(s.roundsTotal, status.Rounds, server)
	e.gauge(s.roundsInFlight, float64(status.InFlight), server)
	e.gauge(s.callsInFlight, float64(traffic.CallsInFlight), server)
	e.counter(s.logins, traffic.Logins, server)
	e.counter(s.dropped, status.Dropped, server)
}

// unverified counts the transactions that deep verification has before it.
func unverified(ledgers []audit.LedgerStatus) (n uint64) {
	for i := range ledgers {
		if l := &ledgers[i]; !idle(l) && l.ProvenTx > l.VerifiedTx {
			n += l.ProvenTx - l.VerifiedTx
		}
	}
	return n
}

// everyLedger emits the series of the ledgers of one server, as many as there
// is room for beside those that were emitted already, and counts all of them.
func (s *snapshot) everyLedger(e emitter, all []audit.LedgerStatus, traffic Traffic, server string, series int) int {
	seen := make(map[string]bool, len(all))
	omitted := 0
	for _, l := range byUrgency(all) {
		if l.Retired && l.OpenIncidents == 0 {
			continue // given up on purpose: no news is expected of it ever again
		}
		name := label(l.Name.Database)
		if seen[name] || series+seriesPerLedger > maxSeries {
			omitted++
			continue
		}
		seen[name] = true
		series += seriesPerLedger
		s.ledger(e, l, traffic.PerLedger[l.Name.Database], server, name)
	}
	e.gauge(s.ledgersOmitted, float64(omitted), server)
	return series
}

func (s *snapshot) ledger(e emitter, l *audit.LedgerStatus, used Usage, server, name string) {
	stands := standing(l)
	for _, v := range [...]evidence.Verdict{evidence.Undetermined, evidence.Consistent, evidence.Tampered} {
		e.gauge(s.verdict, truth(v == stands), server, name, v.String())
	}
	e.gauge(s.trusted, float64(l.ProvenTx), server, name)
	e.gauge(s.walked, float64(l.WalkedTx), server, name)
	e.gauge(s.verified, float64(l.VerifiedTx), server, name)
	e.gauge(s.mirrored, float64(l.MirroredTx), server, name)
	e.gauge(s.observed, float64(l.ObservedTx), server, name)
	e.gauge(s.lastSuccess, seconds(l.LastSuccess), server, name)
	e.gauge(s.lastAttempt, seconds(l.LastAttempt), server, name)
	e.gauge(s.openIncidents, float64(l.OpenIncidents), server, name)
	e.gauge(s.stale, truth(l.Stale), server, name)
	e.counter(s.passes, l.Scrub.Pass, server, name)
	e.gauge(s.passPosition, float64(cmp.Or(l.LookedAt, l.Scrub.Position)), server, name)
	e.gauge(s.passEnd, seconds(l.Scrub.Finished), server, name)
	e.counter(s.contents, l.Scrub.Verified, server, name)
	e.counter(s.contentBytes, l.Scrub.Bytes, server, name)
	e.gauge(s.damages, float64(l.Damages), server, name)
	e.gauge(s.unreadable, float64(l.UnreadableTx), server, name)
	e.gauge(s.notGrowing, truth(l.NotGrowing), server, name)
	e.gauge(s.clockSkew, truth(l.ClockSkew), server, name)
	e.gauge(s.paused, truth(l.Paused || l.Retired), server, name)
	e.counter(s.laggingTrees, l.LaggingTrees, server, name)
	e.counter(s.calls, used.Calls, server, name)
	e.counter(s.received, used.BytesIn, server, name)
	e.counter(s.sent, used.BytesOut, server, name)
}

func (s *snapshot) queue(e emitter, q evidence.Queue) {
	sink := label(q.Sink)
	age := 0.0
	if q.Waiting > 0 && !q.Oldest.IsZero() {
		age = max(0, time.Since(q.Oldest).Seconds())
	}
	e.gauge(s.queueLength, float64(q.Waiting), sink)
	e.gauge(s.queueAge, age, sink)
	e.counter(s.queueSent, q.Sent, sink)
	e.counter(s.queueFailed, q.Failed, sink)
	e.gauge(s.queueLastOK, seconds(q.LastOK), sink)
}

// emitter makes metrics; one that cannot be made is reported by the registry
// and leaves the others alone.
type emitter chan<- prometheus.Metric

func (e emitter) gauge(d *prometheus.Desc, value float64, labels ...string) {
	e.emit(d, prometheus.GaugeValue, value, labels)
}

func (e emitter) counter(d *prometheus.Desc, value uint64, labels ...string) {
	e.emit(d, prometheus.CounterValue, float64(value), labels)
}

func (e emitter) emit(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, kind, value, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e <- m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// scrapeLog tells of series that could not be gathered.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	l.log.Warn("some metrics could not be gathered", "error", fmt.Sprint(v...))
}

package alert

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"immuaudit/evidence"
)

// How long an alert is taken to last: what is renewed daily a little longer
// than a day, what just happened for an hour.
const (
	lasts  = 25 * time.Hour
	oneOff = time.Hour
	tested = 5 * time.Minute
)

// AlertmanagerOptions describe a Prometheus Alertmanager.
type AlertmanagerOptions struct {
	Name, URL          string // of its root, with the prefix it is served under
	Username, Password string // a password alone is a bearer token
	Roots              *x509.CertPool
	Version            string
}

// Alertmanager posts alerts that fire until an operator decided, or a ledger
// can be audited again.
type Alertmanager struct {
	name string
	*endpoint
}

var _ Batch = (*Alertmanager)(nil)

// NewAlertmanager checks the options; it connects to nothing.
func NewAlertmanager(o AlertmanagerOptions) (*Alertmanager, error) {
	e, err := authorized(o.URL, o.Version, o.Roots, o.Username, o.Password)
	if err != nil {
		return nil, fmt.Errorf("the url %w", err)
	}
	if !strings.HasSuffix(e.target.Path, "/api/v2/alerts") {
		e.target = e.target.JoinPath("api/v2/alerts")
	}
	return &Alertmanager{name: o.Name, endpoint: e}, nil
}

// Name is the sink's name in the outbox.
func (a *Alertmanager) Name() string { return a.name }

// Most is how many alerts are posted together.
func (a *Alertmanager) Most() int { return maxBatch }

// Patience is none: Alertmanager groups by itself.
func (a *Alertmanager) Patience() time.Duration { return 0 }

// Send posts one alert.
func (a *Alertmanager) Send(ctx context.Context, e evidence.Event) error {
	return a.SendAll(ctx, []evidence.Event{e})
}

// SendAll posts alerts in their order; any 2xx is an acceptance.
func (a *Alertmanager) SendAll(ctx context.Context, events []evidence.Event) error {
	alerts := make([]postedAlert, len(events))
	now := time.Now()
	for i, e := range events {
		alerts[i] = alertOf(e, now)
	}
	body, err := json.Marshal(alerts)
	if err != nil {
		return fmt.Errorf("encoding the alerts: %w", err)
	}
	return a.send(ctx, http.MethodPost, body, http.Header{"Content-Type": {"application/json"}}, success)
}

type postedAlert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

// alertOf gives the alert of an event. An alert is what its labels are: they
// hold only what the event that fires it and the one that resolves it both
// know, and the kind of tampering is not among that.
func alertOf(e evidence.Event, now time.Time) postedAlert {
	name, severity, ends := "", "warning", now.Add(oneOff)
	switch e.Type {
	case evidence.EventTampered, evidence.EventStillTampered, evidence.EventDamage:
		name, severity, ends = "ImmuauditTampered", "critical", now.Add(lasts)
	case evidence.EventDecision:
		name, severity = "ImmuauditDecision", "info"
		if e.Incident != "" {
			name, severity, ends = "ImmuauditTampered", "critical", now
		}
	case evidence.EventStale:
		name, ends = "ImmuauditStale", now.Add(lasts)
	case evidence.EventRecovered:
		name, ends = "ImmuauditStale", now
	case evidence.EventFirstContact, evidence.EventAcknowledged, evidence.EventComparison, evidence.EventSigningBegan:
		name, severity = "Immuaudit"+camel(string(e.Type)), "info"
	case evidence.EventTest:
		name, severity, ends = "ImmuauditTest", "info", now.Add(tested)
	default:
		name = "Immuaudit" + camel(string(e.Type))
	}
	starts := e.At.UTC()
	if starts.After(now) || starts.IsZero() {
		starts = now.UTC()
	}
	p := postedAlert{Labels: map[string]string{"alertname": name, "severity": severity}, StartsAt: starts, EndsAt: ends.UTC()}
	p.Annotations = map[string]string{"summary": headline(e), "description": cut(plain(e.Message), maxVariable), "event": plain(e.ID)}
	for label, value := range map[string]string{"server": e.Name.Server, "database": e.Name.Database, "incident": e.Incident} {
		if value = strings.ToValidUTF8(value, string(utf8.RuneError)); value != "" {
			p.Labels[label] = value
		}
	}
	if e.Kind != "" {
		p.Annotations["kind"] = plain(string(e.Kind))
	}
	if e.Incident != "" {
		p.Annotations["next"] = "immuclient incident show " + plain(e.Incident)
	}
	return p
}

// camel is first-contact as FirstContact.
func camel(s string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(s, "-") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

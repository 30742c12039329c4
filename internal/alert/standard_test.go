package alert

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

const signingSecret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func standard(t *testing.T, o StandardWebhookOptions) *StandardWebhook {
	t.Helper()
	if o.Secret == "" {
		o.Secret = signingSecret
	}
	w, err := NewStandardWebhook(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// rich is an event with everything in it, some of it hostile.
func rich() evidence.Event {
	return evidence.Event{
		ID: "0f8f", Type: evidence.EventTampered, At: time.Date(2026, 11, 23, 12, 0, 0, 5, time.UTC), UUID: "u-1",
		Name: evidence.Name{Server: "prod/eu 1", Database: "cust\r\nBcc: x@y\x00ömers"}, Verdict: evidence.Tampered, Kind: evidence.Rollback,
		Incident: "20261123-k7qd", Message: "transaction 7 was\r\n.\r\nreplaced", Ledgers: 3, Tags: []string{"eu", "gold"}, Sequence: 9,
		Previous:   &proof.SignedState{State: proof.State{TxID: 9, Alh: hashOf(0xaa)}},
		Current:    &proof.SignedState{State: proof.State{TxID: 7, Alh: hashOf(0xbb)}},
		Divergence: &evidence.Divergence{LastGoodTx: 6, FirstBadTx: 7},
	}
}

func TestStandardWebhook(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/cloudevent.json")
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(signingSecret, "whsec_"))
	var body []byte
	var header http.Header
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusNonAuthoritativeInfo) // any 2xx
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	w := standard(t, StandardWebhookOptions{Name: "hook", URL: s.URL, Password: "t0ken", Roots: roots})
	if err := w.Send(t.Context(), rich()); err != nil {
		t.Fatal(err)
	}
	if string(body)+"\n" != string(want) {
		t.Errorf("sent %s\nwant %s", body, want)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(header.Get("webhook-id") + "." + header.Get("webhook-timestamp") + "." + string(body)))
	if got, want := header.Get("webhook-signature"), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
	if header.Get("webhook-id") != "0f8f" || header.Get("Content-Type") != "application/cloudevents+json" || header.Get("Authorization") != "Bearer t0ken" {
		t.Errorf("headers: %v", header)
	}
	// Without its authority the receiver is not trusted.
	if err := standard(t, StandardWebhookOptions{URL: s.URL}).Send(t.Context(), rich()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
}

func TestStandardWebhookRefusals(t *testing.T) {
	t.Parallel()
	followed := false
	other := receiver(t, func(http.ResponseWriter, *http.Request) { followed = true })
	for status, permanent := range map[int]bool{302: false, 410: true, 400: true, 429: false, 500: false} {
		r := receiver(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
		})
		for _, o := range []StandardWebhookOptions{
			{URL: r.URL, Username: "watcher", Password: "hunter2"}, {URL: r.URL, Password: "hunter2"},
			{URL: strings.Replace(r.URL, "http://", "http://watcher:hunter2@", 1)},
		} {
			err := standard(t, o).Send(t.Context(), rich())
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Permanent() != permanent {
				t.Errorf("%d: %v", status, err)
				continue
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte("watcher:hunter2"))) {
				t.Errorf("%d: credentials in %q", status, err)
			}
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
	for _, secret := range []string{"", "whsec_", "MDEy", "whsec_AAAA", "whsec_" + strings.Repeat("A", 200), "whsec_!"} {
		if _, err := NewStandardWebhook(StandardWebhookOptions{URL: "https://x", Secret: secret}); err == nil || !strings.Contains(err.Error(), "openssl rand") {
			t.Errorf("secret %q: %v", secret, err)
		}
	}
}

func TestAlertmanagerAlerts(t *testing.T) {
	t.Parallel()
	var path string
	var got []postedAlert
	r := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
	})
	a, err := NewAlertmanager(AlertmanagerOptions{Name: "am", URL: r.URL + "/prefix/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	fire := rich()
	daily, damage, resolve := fire, fire, evidence.Event{Type: evidence.EventDecision, At: fire.At, Name: fire.Name, Incident: fire.Incident}
	daily.Type, damage.Type = evidence.EventStillTampered, evidence.EventDamage
	stale := evidence.Event{Type: evidence.EventStale, At: fire.At, Name: evidence.Name{Server: "prod"}}
	back := stale
	back.Type = evidence.EventRecovered
	test := NewTest("prod", time.Now())
	first := evidence.Event{Type: evidence.EventFirstContact, At: fire.At, Name: evidence.Name{Server: "prod", Database: "a\xff"}}
	now := time.Now()
	if err := a.SendAll(t.Context(), []evidence.Event{fire, daily, damage, resolve, stale, back, test, first}); err != nil {
		t.Fatal(err)
	}
	if path != "/prefix/api/v2/alerts" || len(got) != 8 {
		t.Fatalf("%d alerts to %s", len(got), path)
	}
	same := func(i, j int) bool {
		a, _ := json.Marshal(got[i].Labels)
		b, _ := json.Marshal(got[j].Labels)
		return string(a) == string(b)
	}
	for _, pair := range [][2]int{{0, 1}, {0, 2}, {0, 3}, {4, 5}} {
		if !same(pair[0], pair[1]) {
			t.Errorf("labels differ: %v, %v", got[pair[0]].Labels, got[pair[1]].Labels)
		}
	}
	for i, lasting := range []time.Duration{lasts, lasts, lasts, 0, lasts, 0, tested, oneOff} {
		if left := got[i].EndsAt.Sub(now); left < lasting-time.Second || left > lasting+10*time.Second {
			t.Errorf("%d ends in %s, want %s", i, left, lasting)
		}
		if got[i].EndsAt.Before(got[i].StartsAt) {
			t.Errorf("%d ends before it starts", i)
		}
	}
	if l := got[0].Labels; l["alertname"] != "ImmuauditTampered" || l["severity"] != "critical" || l["incident"] != fire.Incident || l["kind"] != "" {
		t.Errorf("labels: %v", l)
	}
	if got[6].Labels["alertname"] != "ImmuauditTest" || !strings.HasPrefix(got[6].Annotations["summary"], "TEST") {
		t.Errorf("a test: %v", got[6])
	}
	if got[7].Labels["alertname"] != "ImmuauditFirstContact" || got[7].Labels["database"] != "a\ufffd" {
		t.Errorf("first contact: %v", got[7])
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	e := rich()
	server := e
	server.Name.Database = ""
	comparison := evidence.Event{Type: evidence.EventComparison, Name: e.Name}
	only := func(names ...string) []evidence.EventType {
		types, err := Events(names)
		if err != nil {
			t.Fatal(err)
		}
		return types
	}
	no := func(string) bool { return false }
	for name, test := range map[string]struct {
		filter Filter
		tags   []string
		event  evidence.Event
		want   bool
	}{
		"all":               {event: e, want: true},
		"no comparisons":    {event: comparison},
		"but where asked":   {filter: Filter{Events: only("comparison")}, event: comparison, want: true},
		"other event":       {filter: Filter{Events: only("stale")}, event: e},
		"server":            {filter: Filter{Servers: []string{e.Name.Server}}, event: e, want: true},
		"other server":      {filter: Filter{Servers: []string{"x"}}, event: e},
		"other database":    {filter: Filter{Databases: no}, event: e},
		"of a whole server": {filter: Filter{Databases: no}, event: server, want: true},
		"tag of the event":  {filter: Filter{Tags: []string{"x", "gold"}}, event: e, want: true},
		"tag of the server": {filter: Filter{Tags: []string{"x"}}, tags: []string{"x"}, event: e, want: true},
		"other tag":         {filter: Filter{Tags: []string{"x"}}, event: e},
		"test":              {filter: Filter{Tags: []string{"x"}, Events: only("stale")}, event: NewTest("prod", time.Now()), want: true},
	} {
		want, coalesce := Rule("s", test.filter, test.tags)(test.event)
		if want != test.want || coalesce != (want && test.event.Type == evidence.EventComparison) {
			t.Errorf("%s: %v, %v", name, want, coalesce)
		}
	}
	if _, err := Events([]string{"tampering"}); err == nil || !strings.Contains(err.Error(), "still-tampered") {
		t.Errorf("an unknown event: %v", err)
	}
}

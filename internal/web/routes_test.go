package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

const chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

// The paths, codes and bodies of the original, and the few deliberate
// differences.
func TestOriginalBodies(t *testing.T) {
	t.Parallel()
	up := start(t, Options{Version: VersionInfo{Version: "1.2.3", BuildTime: "2026-11-23", BuiltBy: "ci", Static: true}})
	down := start(t, Options{Immudb: immudbDown, Version: VersionInfo{Version: "1.2.3", BuildTime: "x", FIPS: true}})
	for _, c := range []struct {
		server *Server
		path   string
		code   int
		body   string
		star   bool
	}{
		{up, "/initz", 200, `{"immudb":"OK"}`, true},
		{up, "/readyz", 200, `{"immudb":"OK"}`, true},
		{up, "/livez", 200, `{"immudb":"OK"}`, true},
		{down, "/initz", 503, `{"immudb":"connection refused"}`, true},
		{down, "/readyz", 200, `{"immudb":"connection refused"}`, true},
		{down, "/livez", 200, `{"immudb":"connection refused"}`, true},
		{up, "/version", 200, `{"component":"immuclient-auditor","version":"1.2.3","buildtime":"2026-11-23","builtby":"ci","static":true,"fips":false}`, false},
		{down, "/version", 200, `{"component":"immuclient-auditor","version":"1.2.3","buildtime":"x","static":false,"fips":true}`, false},
	} {
		got := get(t, c.server, c.path)
		if got.code != c.code || got.body != c.body {
			t.Errorf("%s: %d %s, want %d %s", c.path, got.code, got.body, c.code, c.body)
		}
		if ct := got.header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s: Content-Type %q", c.path, ct)
		}
		if star := got.header.Get("Access-Control-Allow-Origin") == "*"; star != c.star {
			t.Errorf("%s: open to any origin: %v, want %v", c.path, star, c.star)
		}
		head := ask(t, tcp(c.server.Addr()), http.MethodHead, "http://auditor"+c.path)
		if head.code != c.code || head.body != "" {
			t.Errorf("HEAD %s: %d %q", c.path, head.code, head.body)
		}
	}
}

func TestRootServesMetricsToAllButBrowsers(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Pages: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
	})})
	for _, accept := range []string{"", "*/*", "text/plain", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "application/json"} {
		got := get(t, s, "/", "Accept", accept)
		if got.code != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain; version=0.0.4") || got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("Accept %q: %d %v", accept, got.code, got.header)
		}
		contains(t, got.body, "immuclient_audit_result_per_server")
	}
	page := get(t, s, "/", "Accept", chrome)
	if page.code != 200 || page.header.Get("Content-Type") != "text/html; charset=utf-8" || page.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("browser: %d %v", page.code, page.header)
	}
	if metrics := get(t, s, "/metrics", "Accept", chrome); !strings.HasPrefix(metrics.header.Get("Content-Type"), "text/plain") {
		t.Errorf("/metrics in a browser: %v", metrics.header)
	}
}

// What people see is served by whoever was given, but never to a scraper.
func TestPagesAreMounted(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Pages: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("pages " + r.URL.Path)) })})
	for _, path := range []string{"/", "/ledger", "/ledger/prod/a", "/incidents", "/incident/20261123-k7qd/evidence", "/api/v1/ledgers"} {
		if got := get(t, s, path, "Accept", chrome); got.body != "pages "+path {
			t.Errorf("%s: %d %.80q", path, got.code, got.body)
		}
	}
	for _, path := range []string{"/", "/metrics"} {
		if got := get(t, s, path); !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain; version=0.0.4") {
			t.Errorf("%s without a browser: %v", path, got.header)
		}
	}
}

// The original published its command line here, passwords included.
func TestVarsHoldNoCommandLine(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Version: VersionInfo{Version: "1.2.3"}})
	got := get(t, s, "/debug/vars")
	var body struct {
		Memstats  struct{ HeapAlloc uint64 } `json:"memstats"`
		Immuaudit struct {
			Version string
			Rounds  uint64
			Ledgers map[string]int
		} `json:"immuaudit"`
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatal(err)
	}
	if body.Memstats.HeapAlloc == 0 || body.Immuaudit.Version != "1.2.3" || body.Immuaudit.Rounds != 40 || body.Immuaudit.Ledgers["consistent"] != 2 {
		t.Errorf("body %+v", body)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(got.body), &members); err != nil || len(members) != 2 {
		t.Errorf("members %d, %v", len(members), err)
	}
	for _, never := range []string{"cmdline", "-test.", "web.test"} {
		if strings.Contains(got.body, never) {
			t.Errorf("/debug/vars holds %q", never)
		}
	}
	if got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("/debug/vars is open to any origin")
	}
}

func TestOnlyReading(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	client := tcp(s.Addr())
	for _, path := range []string{"/", "/metrics", "/initz", "/livez", "/readyz", "/version", "/debug/vars"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
			if got := ask(t, client, method, "http://auditor"+path); got.code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, got.code)
			}
		}
	}
	for _, path := range []string{"/nothing", "/debug", "/debug/pprof/", "/debug/requests", "/metrics/x", "/favicon.ico"} {
		if got := ask(t, client, "GET", "http://auditor"+path); got.code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, got.code)
		}
	}
	// The answer may be cut off: the server does not read what it refuses.
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://auditor/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Filler", strings.Repeat("x", 2*maxHeaderBytes))
	if resp, err := client.Do(req); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("huge header: %d", resp.StatusCode)
		}
	}
}

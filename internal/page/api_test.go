package page

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// Every answer is as the description says, and every route is in it.
func TestAPIIsAsDescribed(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	fleet, book := hostile()
	server := start(t, Options{Statuses: fleet.show, Book: book, History: past{}, Private: everybody})
	site, err := New(Options{Statuses: fleet.show, Book: book})
	if err != nil {
		t.Fatal(err)
	}
	for path := range site.apiRoutes() {
		if doc.Paths.Find("/api/v1/"+path) == nil {
			t.Errorf("%s is not described", path)
		}
	}
	if described := doc.Paths.Len(); described != len(site.apiRoutes()) {
		t.Errorf("%d paths are described, %d are there", described, len(site.apiRoutes()))
	}
	db := url.PathEscape(fleet.statuses[0].Ledgers[1].Name.Database)
	for path, code := range map[string]int{
		"servers": 200, "ledgers": 200, "ledgers?limit=2&page=2&verdict=tampered": 200, "ledgers/prod/db00000": 200, "ledgers/prod/" + db: 200,
		"ledgers/prod/db00000/history": 200, "incidents?all=true": 200, "incidents/20261123-k7qd": 200, "incidents/20261123": 200, "events?limit=5": 200,
		"openapi.yaml": 200, "ledgers?limit=0": 400, "ledgers?limit=1001": 400, "ledgers?secret=1": 400, "ledgers/prod/none": 404, "ledgers/prod/none/history": 404,
		"ledgers/prod/db00000/history?from=yesterday": 400, "ledgers/prod/db00000/history?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z": 400,
		"incidents?all=perhaps": 400, "incidents/none": 404, "events?since=now": 400,
	} {
		address := server.URL + "/api/v1/" + path
		got := get(t, address)
		if got.code != code {
			t.Errorf("%s: %d %.200s, want %d", path, got.code, got.body, code)
			continue
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimPrefix(address, server.URL), nil)
		route, params, err := router.FindRoute(req)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route}, Status: got.code, Header: got.header,
			Body: io.NopCloser(strings.NewReader(got.body)), Options: &openapi3filter.Options{IncludeResponseStatus: true},
		})
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if code == 200 {
			if same := get(t, address, "If-None-Match", got.header.Get("ETag")); same.code != http.StatusNotModified || same.body != "" {
				t.Errorf("%s asked for again: %d", path, same.code)
			}
		}
	}
	for path, code := range map[string]int{"ledgers": 405, "stream": 405, "none": 404} {
		if got := ask(t, http.MethodPost, server.URL+"/api/v1/"+path); got.code != code || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("POST %s: %d %v", path, got.code, got.header)
		}
	}
}

const nasty = "<script>alert(1)</script>\u202e\x00/../\"'{{.}}"

// hostile is a fleet whose server says whatever it likes.
func hostile() (*scene, *shelf) {
	status := fleetOf("prod", 3)
	status.UUID, status.ServerError = nasty, nasty+strings.Repeat("long ", 1000)
	status.Ledgers[1] = ledgerAt("prod", nasty, evidence.Tampered)
	status.Ledgers[1].Last.Kind, status.Ledgers[1].Last.Detail, status.Ledgers[1].Last.Incident = evidence.Value, nasty+secretText, "20261123-k7qd"
	status.Ledgers[1].Last.Divergence = damaged().Divergence
	inc := damaged()
	inc.Name.Database, inc.UUID, inc.AckedNote, inc.EvidenceError = nasty, nasty, nasty, nasty
	inc.Findings[0].Check, inc.Findings[0].Got = nasty, nasty
	ev := evidence.Event{ID: "1", Type: evidence.EventTampered, At: inc.OpenedAt, Name: inc.Name, Kind: evidence.Value, Incident: inc.ID, Message: secretText + nasty}
	return &scene{statuses: []audit.Status{status}}, &shelf{incidents: []evidence.Incident{inc}, events: []evidence.Event{ev}}
}

func everyAddress(db string) []string {
	return []string{
		"/", "/ledger/prod/" + url.PathEscape(db), "/ledger?server=prod&database=" + url.QueryEscape(db), "/incidents", "/incident/20261123-k7qd",
		"/api/v1/ledgers", "/api/v1/ledgers/prod/" + url.PathEscape(db), "/api/v1/incidents", "/api/v1/incidents/20261123-k7qd", "/api/v1/events", "/api/v1/servers",
	}
}

// Whatever a server calls itself, a page that shows it can do nothing.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	fleet, book := hostile()
	server := start(t, Options{Statuses: fleet.show, Book: book, History: past{}, Private: everybody})
	looks := newLooks()
	for _, path := range everyAddress(nasty) {
		got := get(t, server.URL+path)
		if got.code != 200 {
			t.Errorf("%s: %d", path, got.code)
		}
		text := strings.Replace(got.body, string(looks.Script), "", 1)
		for _, never := range []string{"<script>", "\u202e", "\x00", "ZgotmplZ", "unsafe"} {
			if strings.Contains(text, never) {
				t.Errorf("%s holds %q", path, never)
			}
		}
		if len(got.body) > 100_000 {
			t.Errorf("%s has %d bytes", path, len(got.body))
		}
		policy := got.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, got.header)
		}
	}
}

// Who may not see keys and values sees none, on no page and in no answer.
func TestPrivate(t *testing.T) {
	t.Parallel()
	fleet, book := hostile()
	public := start(t, Options{Statuses: fleet.show, Book: book, History: past{}})
	private := start(t, Options{Statuses: fleet.show, Book: book, History: past{}, Private: everybody})
	seen := 0
	for _, path := range everyAddress(nasty) {
		if got := get(t, public.URL+path); strings.Contains(got.body, secretText) || strings.Contains(got.body, secretKey) {
			t.Errorf("%s tells the key to everybody", path)
		}
		if got := get(t, private.URL+path); strings.Contains(got.body, secretText) || strings.Contains(got.body, secretKey) {
			seen++
		}
	}
	if seen < 6 {
		t.Errorf("only %d pages and answers tell the key to those who may see it", seen)
	}
}

package web

import (
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// routes are those of the monitoring port. A pattern with GET also serves HEAD;
// any other method gets 405.
func (s *Server) routes() http.Handler {
	scrape := s.scrape()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if s.opts.Pages != nil && wantsPage(r) {
			s.opts.Pages.ServeHTTP(w, r)
			return
		}
		scrape.ServeHTTP(w, r)
	})
	mux.Handle("GET /metrics", scrape)
	mux.HandleFunc("GET /initz", s.initz)
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /version", s.version)
	mux.HandleFunc("GET /debug/vars", s.vars)
	if s.opts.Pages != nil {
		for _, below := range [...]string{"/ledger", "/ledger/", "/incidents", "/incident/", "/api/"} {
			mux.Handle(below, s.opts.Pages)
		}
	}
	return hardened(mux)
}

// probeRoutes are those that need no credentials: they tell nothing but that
// the auditor lives and whether immudb answers.
func (s *Server) probeRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	return hardened(mux)
}

// hardened keeps a browser from guessing types and from framing.
func hardened(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "deny")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// wantsPage tells a browser from everything else: browsers name text/html
// among what they accept; Prometheus, curl and scripts do not.
func wantsPage(r *http.Request) bool {
	return strings.Contains(strings.ToLower(r.Header.Get("Accept")), "text/html")
}

func (s *Server) scrape() http.Handler {
	handler := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{s.opts.Logger},
		// One bad series must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowAnyOrigin(w)
		handler.ServeHTTP(w, r)
	})
}

// versionBody is the original's, member by member.
type versionBody struct {
	Component string `json:"component"`
	Version   string `json:"version"`
	BuildTime string `json:"buildtime"`
	BuiltBy   string `json:"builtby,omitempty"`
	Static    bool   `json:"static"`
	FIPS      bool   `json:"fips"`
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	v := s.opts.Version
	writeJSON(w, http.StatusOK, versionBody{
		Component: "immuclient-auditor",
		Version:   v.Version,
		BuildTime: v.BuildTime,
		BuiltBy:   v.BuiltBy,
		Static:    v.Static,
		FIPS:      v.FIPS,
	})
}

// varsBody is what /debug/vars publishes. The expvar package is not used: it
// publishes the command line to whoever asks, and with it the passwords in it.
type varsBody struct {
	Memstats  runtime.MemStats `json:"memstats"`
	Immuaudit ownVars          `json:"immuaudit"`
}

type ownVars struct {
	Version       string         `json:"version"`
	UptimeSeconds float64        `json:"uptime_seconds"`
	Goroutines    int            `json:"goroutines"`
	Rounds        uint64         `json:"rounds"`
	InFlight      int            `json:"rounds_in_flight"`
	Dropped       uint64         `json:"ticks_dropped"`
	Ledgers       map[string]int `json:"ledgers"` // by verdict
}

func (s *Server) vars(w http.ResponseWriter, _ *http.Request) {
	body := varsBody{Immuaudit: ownVars{
		Version:       s.opts.Version.Version,
		UptimeSeconds: time.Since(s.started).Seconds(),
		Goroutines:    runtime.NumGoroutine(),
		Ledgers:       countVerdicts(nil),
	}}
	for _, status := range s.opts.Statuses() {
		body.Immuaudit.Rounds += status.Rounds
		body.Immuaudit.InFlight += status.InFlight
		body.Immuaudit.Dropped += status.Dropped
		for verdict, n := range countVerdicts(status.Ledgers) {
			body.Immuaudit.Ledgers[verdict] += n
		}
	}
	runtime.ReadMemStats(&body.Memstats)
	writeJSON(w, http.StatusOK, body)
}

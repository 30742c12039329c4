package page

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// routeAPI mounts the API. What is not GET or HEAD, or not there, is answered
// as the rest: RFC 9457.
func (s *Site) routeAPI() {
	for pattern, handler := range s.apiRoutes() {
		s.mux.HandleFunc("GET /api/v1/"+pattern, handler)
		s.mux.HandleFunc("/api/v1/"+pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", "GET, HEAD")
			problem(w, http.StatusMethodNotAllowed, "only GET and HEAD are answered here; nothing can be changed through this API")
		})
	}
	s.mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusNotFound, "there is nothing at this address; /api/v1/openapi.yaml lists what there is")
	})
}

func (s *Site) apiRoutes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"servers":                             s.apiServers,
		"ledgers":                             s.apiLedgers,
		"ledgers/{server}/{database}":         s.apiLedger,
		"ledgers/{server}/{database}/history": s.apiHistory,
		"incidents":                           s.apiIncidents,
		"incidents/{id}":                      s.apiIncident,
		"events":                              s.apiEvents,
		"stream":                              s.stream,
		"openapi.yaml":                        s.apiDescription,
	}
}

// problem answers with a problem of RFC 9457.
func problem(w http.ResponseWriter, code int, detail string) {
	text, _ := json.Marshal(map[string]any{"type": "about:blank", "title": http.StatusText(code), "status": code, "detail": detail}) // plain data: it cannot fail
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

// answer gives JSON with a digest of it as ETag, so that whoever asks often
// need not read the same again.
func (s *Site) answer(w http.ResponseWriter, r *http.Request, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		s.opts.Logger.Error("making an answer of the API", "error", err)
		problem(w, http.StatusInternalServerError, "making the answer failed; the auditor's log says why")
		return
	}
	s.give(w, r, "application/json", text)
}

func (s *Site) give(w http.ResponseWriter, r *http.Request, kind string, text []byte) {
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	h := w.Header()
	s.secured(h)
	h.Set("Cache-Control", "no-cache, private")
	h.Set("ETag", tag)
	if strings.Contains(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", kind)
	_, _ = w.Write(text)
}

func (s *Site) apiFailed(w http.ResponseWriter, what string, err error) {
	s.opts.Logger.Error("reading "+what+" for the API", "error", err)
	problem(w, http.StatusInternalServerError, "reading "+what+" failed; the auditor's log says why")
}

func (s *Site) apiDescription(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	s.give(w, r, "application/yaml", []byte(openAPI))
}

func (s *Site) apiServers(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	all := newFleet(s.opts.Statuses())
	list := make([]serverJSON, 0, len(all.sites))
	for _, one := range all.sites {
		list = append(list, serverJSONOf(one))
	}
	s.answer(w, r, map[string]any{"verdict": all.tally.verdict(), "headline": all.headline(), "ledgers": all.tally, "servers": list})
}

func (s *Site) apiLedgers(w http.ResponseWriter, r *http.Request) {
	sel, err := selectionOf(r, 0)
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	all := newFleet(s.opts.Statuses())
	rows, total := all.choose(sel, false)
	list, private, now := make([]ledgerJSON, 0, len(rows)), s.opts.Private(r), time.Now()
	for _, e := range rows {
		list = append(list, s.ledgerJSON(e, private, now))
	}
	s.answer(w, r, map[string]any{"total": total, "page": sel.page, "limit": sel.limit, "ledgers": list})
}

func (s *Site) apiLedger(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	e, known := newFleet(s.opts.Statuses()).find(ledgerOf(r))
	if !known {
		problem(w, http.StatusNotFound, "no ledger of this name is known; /api/v1/ledgers lists all")
		return
	}
	s.answer(w, r, s.ledgerJSON(e, s.opts.Private(r), time.Now()))
}

func (s *Site) apiHistory(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r, "from", "to", "limit")
	now := time.Now().UTC()
	from, to, limit := now.Add(-24*time.Hour), now, maxAPIRows
	for name, at := range map[string]*time.Time{"from": &from, "to": &to} {
		if text := values.Get(name); text != "" && err == nil {
			if *at, err = time.Parse(time.RFC3339, text); err != nil {
				err = errors.New("the parameter " + name + " must be a time like 2026-11-23T10:00:00Z")
			}
		}
	}
	if err == nil && !from.Before(to) {
		err = errors.New("the parameter from must be before to")
	}
	if err == nil {
		limit, err = number(values, "limit", maxAPIRows, maxStretches)
	}
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	name := ledgerOf(r)
	if _, known := newFleet(s.opts.Statuses()).find(name); !known {
		problem(w, http.StatusNotFound, "no ledger of this name is known; /api/v1/ledgers lists all")
		return
	}
	list := []stretchJSON{}
	if s.opts.History != nil {
		ctx, cancel := reading(r)
		defer cancel()
		stretches, err := s.opts.History.Of(ctx, name, from, to, limit)
		if err != nil {
			s.apiFailed(w, "the history", err)
			return
		}
		for i := range stretches {
			list = append(list, stretchJSONOf(&stretches[i]))
		}
	}
	s.answer(w, r, map[string]any{"server": label(name.Server), "database": label(name.Database), "stretches": list})
}

func (s *Site) apiIncidents(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r, "all", "page", "limit")
	var page, limit int
	if err == nil {
		page, err = number(values, "page", 1, maxPage)
	}
	if err == nil {
		limit, err = number(values, "limit", defaultRows, maxAPIRows)
	}
	if all := values.Get("all"); err == nil && all != "" && all != "true" && all != "false" {
		err = errors.New("the parameter all must be true or false")
	}
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := reading(r)
	defer cancel()
	found, err := s.opts.Book.Incidents(ctx, values.Get("all") == "true")
	if err != nil {
		s.apiFailed(w, "the incidents", err)
		return
	}
	list, private := []incidentJSON{}, s.opts.Private(r)
	for i := (page - 1) * limit; i < len(found) && len(list) < limit; i++ {
		list = append(list, incidentJSONOf(&found[i], private))
	}
	s.answer(w, r, map[string]any{"total": len(found), "page": page, "limit": limit, "incidents": list})
}

func (s *Site) apiIncident(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := reading(r)
	defer cancel()
	inc, err := s.incident(ctx, r.PathValue("id"))
	switch {
	case errors.Is(err, errNoIncident):
		problem(w, http.StatusNotFound, "there is no incident of this name; /api/v1/incidents?all=true lists all")
	case err != nil:
		s.apiFailed(w, "the incident", err)
	default:
		s.answer(w, r, incidentJSONOf(&inc, s.opts.Private(r)))
	}
}

func (s *Site) apiEvents(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r, "since", "limit")
	since, limit := time.Now().Add(-24*time.Hour), 0
	if err == nil {
		limit, err = number(values, "limit", defaultRows, maxAPIRows)
	}
	if text := values.Get("since"); err == nil && text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			err = errors.New("the parameter since must be a time like 2026-11-23T10:00:00Z")
		}
	}
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := reading(r)
	defer cancel()
	found, err := s.opts.Book.Events(ctx, since, limit)
	if err != nil {
		s.apiFailed(w, "the events", err)
		return
	}
	list, private := make([]eventJSON, 0, len(found)), s.opts.Private(r)
	for i := range found {
		list = append(list, eventJSONOf(&found[i], private))
	}
	s.answer(w, r, map[string]any{"events": list})
}

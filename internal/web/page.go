package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var (
	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
	pagePolicy   = contentPolicy(pageCSS)
)

// contentPolicy allows a page its own style sheet, by its digest, and nothing
// else: no script, no image, no other address. Whatever name a server invents
// for a database, the page that shows it can do nothing.
func contentPolicy(style string) string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

type pageView struct {
	Style                          template.CSS
	Headline                       string
	Server, Address, UUID, Problem string
	Version, Now                   string
	Rows                           []pageRow
	More                           int
}

type pageRow struct {
	Class, Name, Verdict, Why, LastSuccess string
	Trusted                                uint64
}

func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, s.view()); err != nil {
		s.opts.Logger.Error("making the page failed", "error", err)
		http.Error(w, "making the page failed; the metrics are at /metrics", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")      // as the metrics have at the same address
	_, _ = w.Write(body.Bytes()) // a visitor that went away needs no answer
}

func (s *Server) view() pageView {
	status := s.opts.Status()
	sorted := byUrgency(status.Ledgers)
	view := pageView{
		Style:    template.CSS(pageCSS),
		Headline: headline(countVerdicts(status.Ledgers)),
		Server:   label(status.Server),
		Address:  label(status.Address),
		UUID:     label(status.UUID),
		Version:  label(s.opts.Version.Version),
		Now:      moment(time.Now()),
		More:     max(0, len(sorted)-maxPageLedgers),
	}
	if status.ServerError != "" {
		view.Problem = "The last call to it failed: " + oneLine(status.ServerError)
	}
	for _, l := range sorted[:len(sorted)-view.More] {
		view.Rows = append(view.Rows, rowOf(l))
	}
	return view
}

// headline is good only if every ledger is.
func headline(counts map[string]int) string {
	tampered, unknown, good := counts["tampered"], counts["undetermined"], counts["consistent"]
	switch {
	case tampered > 0:
		return fmt.Sprintf("TAMPERED: %d of %d", tampered, tampered+unknown+good)
	case unknown > 0:
		return fmt.Sprintf("Undetermined: %d of %d", unknown, unknown+good)
	case good > 0:
		return fmt.Sprintf("Consistent: all %d", good)
	default:
		return "Nothing audited yet"
	}
}

func rowOf(l *audit.LedgerStatus) pageRow {
	verdict := standing(l)
	row := pageRow{
		Class:       verdict.String(),
		Name:        label(l.Name.Database),
		Verdict:     verdict.String(),
		Trusted:     l.ProvenTx,
		LastSuccess: moment(l.LastSuccess),
	}
	switch {
	case verdict == evidence.Tampered && l.Last.Verdict == evidence.Tampered:
		row.Why = string(l.Last.Kind)
	case verdict == evidence.Tampered:
		row.Why = "an incident is open"
	case l.Retired:
		row.Class, row.Why = "idle", "retired"
	case l.Paused:
		row.Class, row.Why = "idle", "paused"
	case l.Last.Time.IsZero():
		row.Why = "not audited yet"
	case verdict == evidence.Undetermined:
		row.Why = string(l.Last.Reason)
	}
	return row
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

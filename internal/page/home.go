package page

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// row is one ledger as a line of a table.
type row struct {
	Link, Server, Database, Verdict, Word, Symbol, Why string
	Trusted, Growth, Verified                          string
	Last                                               time.Time
	Ago                                                string
	Open                                               int
	Incident                                           string
}

// symbols stand beside colours, which not everybody sees.
var symbols = map[string]string{"consistent": "✓", "tampered": "✗", "undetermined": "?", "idle": "–"}

func (s *Site) rowOf(e entry, now time.Time) row {
	l, verdict := e.LedgerStatus, verdictOf(e)
	out := row{
		Link: segments("ledger", e.Name.Server, e.Name.Database), Server: label(e.Name.Server), Database: label(e.Name.Database),
		Verdict: verdict, Word: verdict, Symbol: symbols[verdict], Why: why(e),
		Trusted: "none", Growth: "–", Verified: verifiedWords(l), Last: l.Last.Time, Ago: "never", Open: l.OpenIncidents,
	}
	if verdict == "tampered" {
		out.Incident = l.Last.Incident
	}
	if l.ProvenTx > 0 {
		out.Trusted = count(l.ProvenTx)
	}
	if rate, known := s.growth.perHour(e.Name, l.ProvenTx, now); known {
		out.Growth = rateWords(rate)
	}
	if !l.Last.Time.IsZero() {
		out.Ago = ago(now.Sub(l.Last.Time)) + " ago"
	}
	return out
}

func rateWords(perHour float64) string {
	switch {
	case perHour == 0:
		return "0"
	case perHour < 10:
		return fmt.Sprintf("%.1f", perHour)
	default:
		return count(uint64(perHour))
	}
}

// verifiedWords says how far entries and values were looked at themselves.
func verifiedWords(l *audit.LedgerStatus) string {
	text := "not yet"
	if l.VerifiedTx > 0 {
		text = count(min(1+l.Scrub.Retained, l.VerifiedTx)) + "–" + count(l.VerifiedTx)
	}
	if l.Scrub.Pass > 0 {
		text += fmt.Sprintf(", pass %d", l.Scrub.Pass)
	}
	return text
}

// serverRow is one server.
type serverRow struct {
	Link, Name, Address, UUID, State, Problem, Since string
	Tags                                             []string
	Ledgers                                          tally
	Down                                             bool
	Verdict                                          string
	Silent                                           string
}

func serverRowOf(one *site, now time.Time) serverRow {
	out := serverRow{
		Link: selection{Server: one.Server}.query(1), Name: label(one.Server), Address: label(one.Address), UUID: label(one.UUID),
		Ledgers: one.tally, Down: one.down, Verdict: one.tally.verdict().String(), State: "answers",
	}
	for _, tag := range one.Tags {
		out.Tags = append(out.Tags, label(tag))
	}
	if one.ServerError != "" {
		out.Problem = prose(one.ServerError)
	}
	if one.down {
		out.State = "does not answer"
		if one.silent > 0 {
			out.Silent = plural(one.silent, "ledger", "ledgers")
		}
		if !one.since.IsZero() {
			out.Since = ago(now.Sub(one.since))
		}
	} else if out.Problem != "" {
		out.State = "answers, but not everything"
	}
	return out
}

type homeView struct {
	Headline, Verdict, Symbol string
	Advice                    string
	Tally                     tally
	Banners                   []serverRow // servers that do not answer
	Servers                   []serverRow
	MoreServers               int
	Incidents                 []incidentRow
	MoreIncidents             int
	IncidentsProblem          bool
	Rows                      []row
	Total                     int
	From, To                  int
	Previous, Next            string
	Sel                       selection
	Tags                      []string
	Several                   bool
	Verdicts                  []string
}

func (s *Site) home(w http.ResponseWriter, r *http.Request) {
	sel, err := selectionOf(r, rowsPerPage)
	if err != nil {
		s.oops(w, r, http.StatusBadRequest, "The address asks for something that cannot be: "+err.Error()+".")
		return
	}
	all, now := newFleet(s.opts.Statuses()), time.Now()
	rows, total := all.choose(sel, !sel.narrowed())
	verdict := all.tally.verdict().String()
	view := homeView{
		Headline: all.headline(), Verdict: verdict, Symbol: symbols[verdict], Tally: all.tally, Total: total,
		Sel: sel, Several: len(all.sites) > 1, Verdicts: verdicts,
	}
	switch {
	case all.tally.Tampered > 0:
		view.Advice = "Something contradicts what was proven before. Begin with the incidents below: each says what happened and what to do now."
	case all.tally.Undetermined > 0:
		view.Advice = "Where it says undetermined, nothing is known at the moment: neither that all is well, nor that anything was changed."
	}
	for _, one := range all.sites {
		line := serverRowOf(one, now)
		if one.down && len(view.Banners) < maxServerRows {
			view.Banners = append(view.Banners, line)
		}
		if len(view.Servers) < maxServerRows {
			view.Servers = append(view.Servers, line)
		}
		for _, tag := range one.Tags {
			if !slices.Contains(view.Tags, tag) && len(view.Tags) < maxServerRows {
				view.Tags = append(view.Tags, tag)
			}
		}
	}
	slices.Sort(view.Tags)
	view.MoreServers = len(all.sites) - len(view.Servers)
	for _, e := range rows {
		view.Rows = append(view.Rows, s.rowOf(e, now))
	}
	if len(rows) > 0 {
		view.From = (sel.page-1)*sel.limit + 1
		view.To = view.From + len(rows) - 1
	}
	if sel.page > 1 {
		view.Previous = sel.query(sel.page - 1)
	}
	if view.To < total && len(rows) > 0 {
		view.Next = sel.query(sel.page + 1)
	}
	s.listOpen(r, &view, now)
	s.render(w, r, http.StatusOK, "home.html", view.Headline, verdict, view)
}

// listOpen lists the newest open incidents.
func (s *Site) listOpen(r *http.Request, view *homeView, now time.Time) {
	open, err := s.openIncidents(r.Context())
	if err != nil {
		s.opts.Logger.Error("reading the open incidents for the page", "error", err)
		view.IncidentsProblem = true
		return
	}
	const most = 10
	for i := len(open) - 1; i >= 0 && len(view.Incidents) < most; i-- {
		view.Incidents = append(view.Incidents, incidentRowOf(&open[i], now))
	}
	view.MoreIncidents = len(open) - len(view.Incidents)
}

// incidentRow is one incident as a line.
type incidentRow struct {
	ID, Link, Server, Database, What, Status string
	Open                                     bool
	Opened, LastSeen                         time.Time
	Ago                                      string
}

func incidentRowOf(inc *evidence.Incident, now time.Time) incidentRow {
	out := incidentRow{
		ID: label(inc.ID), Link: "incident/" + inc.ID, Server: label(inc.Name.Server), Database: label(inc.Name.Database),
		What: kindWords(inc.Kind), Status: statusWords(inc), Open: inc.Status == evidence.Open,
		Opened: inc.OpenedAt, LastSeen: inc.LastSeen, Ago: ago(now.Sub(inc.OpenedAt)),
	}
	return out
}

func statusWords(inc *evidence.Incident) string {
	switch {
	case inc.Status == evidence.Open && !inc.AckedAt.IsZero():
		return "open, somebody has it"
	case inc.Status == evidence.Open:
		return "open"
	case inc.Status == evidence.Accepted:
		return "closed: accepted"
	case inc.Status == evidence.Kept:
		return "closed: agrees again"
	}
	return strings.TrimSpace(string(inc.Status))
}

type incidentsView struct {
	Rows  []incidentRow
	All   bool
	Total int
	More  int
}

func (s *Site) incidentsPage(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r, "all")
	if err != nil {
		s.oops(w, r, http.StatusBadRequest, "The address asks for something that cannot be: "+err.Error()+".")
		return
	}
	view, now := incidentsView{All: values.Get("all") != ""}, time.Now()
	ctx, cancel := reading(r)
	defer cancel()
	list, err := s.opts.Book.Incidents(ctx, view.All)
	if err != nil {
		s.unreadable(w, r, "the incidents", err)
		return
	}
	for i := len(list) - 1; i >= 0 && len(view.Rows) < maxIncidents; i-- {
		view.Rows = append(view.Rows, incidentRowOf(&list[i], now))
	}
	view.Total, view.More = len(list), len(list)-len(view.Rows)
	verdict := ""
	for _, one := range view.Rows {
		if one.Open {
			verdict = "tampered"
		}
	}
	s.render(w, r, http.StatusOK, "incidents.html", "Incidents", verdict, view)
}

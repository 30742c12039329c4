package page

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"immuaudit/evidence"
)

// selection is what a visitor asks to see of the fleet.
type selection struct {
	Server, Tag, Verdict, Name string
	page, limit                int
}

// parameters reads the query: known names only, each once and bounded.
func parameters(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query cannot be read: it is not percent-encoded as it must be")
	}
	for name, given := range values {
		switch {
		case !slices.Contains(known, name):
			return nil, fmt.Errorf("the parameter %.40q is not known here; there are: %s", name, strings.Join(known, ", "))
		case len(given) > 1:
			return nil, fmt.Errorf("the parameter %s is given %d times; give it once", name, len(given))
		case len(given[0]) > maxParameter:
			return nil, fmt.Errorf("the parameter %s is longer than %d bytes", name, maxParameter)
		}
	}
	return values, nil
}

// number reads a parameter that is a whole number in its bounds.
func number(values url.Values, name string, otherwise, most int) (int, error) {
	text := values.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("the parameter %s must be a number from 1 to %d", name, most)
	}
	return n, nil
}

func selectionOf(r *http.Request, limit int) (sel selection, err error) {
	known := []string{"server", "tag", "verdict", "name", "page"}
	if limit == 0 {
		known = append(known, "limit")
	}
	values, err := parameters(r, known...)
	if err != nil {
		return sel, err
	}
	sel = selection{Server: values.Get("server"), Tag: values.Get("tag"), Verdict: values.Get("verdict"), Name: values.Get("name"), limit: limit}
	if sel.Verdict != "" && !slices.Contains(verdicts, sel.Verdict) {
		return sel, fmt.Errorf("the parameter verdict must be one of: %s", strings.Join(verdicts, ", "))
	}
	if sel.page, err = number(values, "page", 1, maxPage); err != nil {
		return sel, err
	}
	if limit == 0 {
		sel.limit, err = number(values, "limit", defaultRows, maxAPIRows)
	}
	return sel, err
}

var verdicts = []string{"tampered", "undetermined", "consistent", "idle"}

// narrowed: the visitor asked for some ledgers in particular.
func (s selection) narrowed() bool {
	return s.Server != "" || s.Tag != "" || s.Verdict != "" || s.Name != ""
}

func (s selection) wants(e entry) bool {
	if s.Server != "" && e.Name.Server != s.Server || s.Tag != "" && !slices.Contains(e.server.Tags, s.Tag) {
		return false
	}
	if s.Verdict != "" && s.Verdict != verdictOf(e) {
		return false
	}
	return s.Name == "" || strings.Contains(strings.ToLower(e.Name.Database), strings.ToLower(s.Name))
}

func verdictOf(e entry) string {
	if idle(e.LedgerStatus) {
		return "idle"
	}
	return standing(e.LedgerStatus).String()
}

// query gives the address of another page of the same selection.
func (s selection) query(page int) string {
	values := url.Values{}
	for name, value := range map[string]string{"server": s.Server, "tag": s.Tag, "verdict": s.Verdict, "name": s.Name} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if page > 1 {
		values.Set("page", strconv.Itoa(page))
	}
	return "?" + values.Encode()
}

// choose gives the ledgers on one page of a selection and how many there are.
// collapse leaves out those of servers that are down: one banner speaks for
// them.
func (f *fleet) choose(sel selection, collapse bool) (rows []entry, total int) {
	first := (sel.page - 1) * sel.limit
	for _, e := range f.entries {
		if !sel.wants(e) || collapse && e.server.down && silent(e.LedgerStatus) && !idle(e.LedgerStatus) {
			continue
		}
		if total >= first && len(rows) < sel.limit {
			rows = append(rows, e)
		}
		total++
	}
	return rows, total
}

// why says in words why the verdict is what it is.
func why(e entry) string {
	l := e.LedgerStatus
	switch verdict := standing(l); {
	case verdict == evidence.Tampered && l.Last.Verdict == evidence.Tampered:
		return kindWords(l.Last.Kind)
	case verdict == evidence.Tampered:
		return "an incident is open"
	case l.Retired:
		return "retired: an operator accepted that it is gone"
	case l.Paused:
		return "paused: it is no longer configured"
	case l.Last.Time.IsZero():
		return "not audited yet"
	case verdict == evidence.Undetermined:
		return reasonWords(l.Last.Reason)
	case l.NotGrowing:
		return "but no new transaction for longer than expected"
	case l.ClockSkew:
		return "but its newest transactions are dated oddly"
	}
	return ""
}

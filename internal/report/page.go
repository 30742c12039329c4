package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"plain": plain, "stamp": stamp, "why": why, "grouped": grouped, "count": count, "upper": upper,
	"lasting": func(s float64) string { return lasting(seconds(s)) },
	"kind":    func(k evidence.Kind) string { return worded(kinds, k) },
	"origin":  func(o evidence.Origin) string { return worded(origins, o) },
	"moment": func(t *time.Time) string {
		if t == nil {
			return "—"
		}
		return stamp(*t)
	},
	"first": func(most int, list []evidence.Finding) []evidence.Finding { return list[:min(most, len(list))] },
	"more":  func(most int, list []evidence.Finding) int { return len(list) - min(most, len(list)) },
	"style": func() template.CSS { return template.CSS(pageStyle) },
}).Parse(pageText))

// view is what the page shows of a document.
type view struct {
	*Document
	Rows     []Ledger
	MoreRows int
	Details  []detail
	Silent   int // ledgers without a detail
	// RecentRuns are the newest runs of the auditor, MoreRuns how many there are beside.
	RecentRuns []Run
	MoreRuns   int
}

type detail struct {
	*Ledger
	Bars []bar
}

// bar is a piece of the drawn time, in thousandths of the span.
type bar struct {
	Class string
	X, W  float64
	Title string
}

// HTML gives a report as a signed page.
func (d *Document) HTML(signer evidence.Signer) ([]byte, error) {
	v := view{Document: d, Rows: d.Ledgers, MoreRuns: max(0, len(d.Runs)-10)}
	v.RecentRuns = d.Runs[v.MoreRuns:]
	if over := len(v.Rows) - maxRows; over > 0 {
		v.Rows, v.MoreRows = v.Rows[:maxRows], over
	}
	for _, l := range d.worthTelling() {
		v.Details = append(v.Details, detail{l, d.bars(l)})
	}
	v.Silent = len(d.Ledgers) - len(v.Details)
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("writing the report: %w", err)
	}
	data, err := d.data()
	if err != nil {
		return nil, err
	}
	b.WriteString(dataBegin)
	b.Write(data)
	b.WriteString(dataEnd)
	return sealPage(b.Bytes(), signer)
}

// worthTelling gives the ledgers that are shown on their own: all where they are
// few, else those with the most to tell, in the order of their names.
func (d *Document) worthTelling() []*Ledger {
	var list []*Ledger
	for i := range d.Ledgers {
		if l := &d.Ledgers[i]; len(d.Ledgers) <= maxDetails || l.Incidents > 0 || l.GapCount > 0 || l.Deep.Accepted > 0 || l.Deep.Damaged > 0 {
			list = append(list, l)
		}
	}
	if len(list) > maxDetails {
		slices.SortStableFunc(list, func(a, b *Ledger) int {
			if a.Incidents != b.Incidents {
				return b.Incidents - a.Incidents
			}
			return int(b.GapSec - a.GapSec)
		})
		list = list[:maxDetails]
		slices.SortFunc(list, func(a, b *Ledger) int { return strings.Compare(a.Server+"/"+a.Database, b.Server+"/"+b.Database) })
	}
	return list
}

// bars draws the time of a ledger: consistent is the ground, all else on it.
func (d *Document) bars(l *Ledger) []bar {
	whole := d.To.Sub(d.From).Seconds()
	place := func(class string, from, to time.Time, title string) bar {
		x := max(0, from.Sub(d.From).Seconds()/whole*1000)
		w := min(1000-x, to.Sub(from).Seconds()/whole*1000)
		return bar{class, x, max(w, 1.5), title} // what is short must still be seen
	}
	var bars []bar
	if l.since.After(d.From) {
		bars = append(bars, place("none", d.From, l.since, "not audited yet"))
	}
	for _, g := range l.Gaps {
		bars = append(bars, place("gap", g.From, g.To, fmt.Sprintf("%s to %s: %s", stamp(g.From), stamp(g.To), why(g.Why))))
	}
	for i := range l.stretches {
		s := &l.stretches[i]
		if s.Verdict != evidence.Tampered {
			continue
		}
		end := s.To
		if i+1 < len(l.stretches) && !l.stretches[i+1].Torn {
			end = l.stretches[i+1].From
		}
		b := place("tampered", s.From, end, "tampered: "+worded(kinds, s.Kind))
		if n := len(bars) - 1; n >= 0 && bars[n].Class == b.Class && bars[n].X+bars[n].W >= b.X-0.5 {
			bars[n].W = max(bars[n].W, b.X+b.W-bars[n].X)
			continue
		}
		if bars = append(bars, b); len(bars) > 500 {
			break
		}
	}
	return bars
}

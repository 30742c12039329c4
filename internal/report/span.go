package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Span is a time from From up to To, To not included; in UTC.
type Span struct{ From, To time.Time }

const dateForms = "2026-11-23, 2026-11, 2026-11-23T15:04:05Z, last-month or 30d"

// ParseSpan reads --from and --to. Without to, a day, a month and last-month
// stand for the whole of it, as far as it is over; everything else lasts until now.
func ParseSpan(from, to string, now time.Time) (Span, error) {
	now = now.UTC()
	begin, end, err := parseDate(from, now)
	if err != nil {
		return Span{}, fmt.Errorf("--from: %w", err)
	}
	s := Span{From: begin, To: end}
	if to != "" {
		if s.To, _, err = parseDate(to, now); err != nil {
			return Span{}, fmt.Errorf("--to: %w", err)
		}
		if s.To.After(now) {
			return Span{}, fmt.Errorf("--to %s is in the future; a report is about what was: leave --to away to report up to now", to)
		}
	}
	if s.To.After(now) {
		s.To = now
	}
	switch {
	case !s.From.Before(now):
		return Span{}, fmt.Errorf("--from %s is in the future; a report is about what was", from)
	case s.From.Equal(s.To):
		return Span{}, fmt.Errorf("from %s to %s there is no time: the end is not included; leave --to away for the whole of a day or a month, or give the day after", from, to)
	case s.To.Before(s.From):
		return Span{}, fmt.Errorf("--to %s lies before --from %s; exchange them", to, from)
	}
	return s, nil
}

// parseDate gives the beginning of what a date stands for, and its end.
func parseDate(text string, now time.Time) (begin, end time.Time, err error) {
	if text == "last-month" {
		first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
		return first.AddDate(0, -1, 0), first, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 && n <= 3660 {
			return now.AddDate(0, 0, -int(n)), now, nil
		}
	}
	if t, err := time.Parse("2006-01-02", text); err == nil {
		return t, t.AddDate(0, 0, 1), sane(t)
	}
	if t, err := time.Parse("2006-01", text); err == nil {
		return t, t.AddDate(0, 1, 0), sane(t)
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), now, sane(t)
	}
	return begin, end, fmt.Errorf("%.40q is no date; give one like %s", text, dateForms)
}

func sane(t time.Time) error {
	if t.Year() < 2000 || t.Year() > 9000 {
		return fmt.Errorf("the year %d is none there can be a report about", t.Year())
	}
	return nil
}

// FileName is what a report of the span is called by default.
func (s Span) FileName(ext string) string {
	name := func(t time.Time) string {
		if t.Equal(t.Truncate(24 * time.Hour)) {
			return t.Format("2006-01-02")
		}
		return t.Format("2006-01-02T1504")
	}
	return "immuaudit-report-" + name(s.From) + "-" + name(s.To) + ext
}

package page

import (
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// shown makes a text that somebody else chose fit to be read: valid UTF-8 on
// one line, at most most bytes, and nothing in it that turns the direction of
// writing or cannot be seen. html/template escapes it besides.
func shown(text string, most int) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(text, "\uFFFD") {
		piece := string(r)
		if !strconv.IsPrint(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			piece = quoted[1 : len(quoted)-1]
		}
		if b.Len()+len(piece) > most {
			b.WriteString("…")
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

func label(text string) string { return shown(text, maxLabel) }

// prose is a longer text of a server or of an operator, on one line.
func prose(text string) string {
	return shown(strings.Join(strings.Fields(text), " "), maxProse)
}

// segments gives the path of a ledger's page below kind. A browser takes the
// name ".." for a way up, however it is written, so such names go into the
// query.
func segments(kind, server, database string) string {
	for _, name := range []string{server, database} {
		if name == "" || name == "." || name == ".." || !utf8.ValidString(name) {
			return kind + "?" + url.Values{"server": {server}, "database": {database}}.Encode()
		}
	}
	return kind + "/" + url.PathEscape(server) + "/" + url.PathEscape(database)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// machine is a time for the datetime attribute and for JSON.
func machine(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// ago says in words how long something is past or lasted: two units at most.
func ago(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h " + strconv.Itoa(int(d%time.Hour/time.Minute)) + " min"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " days"
}

// count writes a number with thin spaces between thousands.
func count(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteRune('\u202F')
		}
		b.WriteRune(d)
	}
	return b.String()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(uint64(n)) + " " + many
}

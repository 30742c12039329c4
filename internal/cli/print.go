package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"immuaudit/evidence"
)

// printer writes verdicts to stdout, one at a time: a line each, as JSON or
// for people.
type printer struct {
	mu   sync.Mutex
	w    io.Writer
	json bool
	err  error // the first that writing met
}

func newPrinter(env *Env, asJSON bool) *printer { return &printer{w: env.Stdout, json: asJSON} }

func (p *printer) print(r evidence.Report) {
	if p.json {
		p.line(r)
	} else {
		p.text(sentence(r))
	}
}

func (p *printer) line(v any) {
	line, _ := json.Marshal(v) // plain data: it cannot fail
	p.text(string(line))
}

func (p *printer) text(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := io.WriteString(p.w, line+"\n"); err != nil && p.err == nil {
		p.err = err
	}
}

// failed says why verdicts did not reach whoever reads them.
func (p *printer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// sentence is a verdict for people.
func sentence(r evidence.Report) string {
	var b strings.Builder
	name := r.Server
	if r.Database != "" {
		name += "/" + shown(r.Database)
	}
	fmt.Fprintf(&b, "%-12s %s", strings.ToUpper(r.Verdict.String()), name)
	switch r.Verdict {
	case evidence.Consistent:
		if r.Trusted != nil {
			fmt.Fprintf(&b, "  transaction %d", r.Trusted.Tx)
		}
		if r.Assurance != nil {
			fmt.Fprintf(&b, ", walked to %d", r.Assurance.Walked)
		}
	case evidence.Undetermined:
		fmt.Fprintf(&b, "  %s: %s", r.Reason, r.Detail)
	case evidence.Tampered:
		fmt.Fprintf(&b, "  %s", r.Kind)
		if r.Incident != "" {
			fmt.Fprintf(&b, ", incident %s", r.Incident)
		}
		for _, f := range r.Findings {
			fmt.Fprintf(&b, "\n             %s", finding(f))
		}
		if r.Divergence != nil {
			fmt.Fprintf(&b, "\n             where: %s", r.Divergence)
		}
		if r.Detail != "" {
			fmt.Fprintf(&b, "\n             %s", r.Detail)
		}
		if r.Trusted != nil {
			fmt.Fprintf(&b, "\n             trusted   transaction %d  %s", r.Trusted.Tx, r.Trusted.Alh)
		}
		if r.Observed != nil {
			fmt.Fprintf(&b, "\n             observed  transaction %d  %s", r.Observed.Tx, r.Observed.Alh)
		}
	}
	return b.String()
}

func finding(f evidence.Finding) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", f.Kind, f.Check)
	if f.Tx > 0 {
		fmt.Fprintf(&b, " at transaction %d", f.Tx)
	}
	if f.Detail != "" {
		b.WriteString(": " + f.Detail)
	}
	return b.String()
}

// shown makes a name safe for a terminal.
func shown(s string) string {
	if utf8.ValidString(s) && strconv.Quote(s) == `"`+s+`"` {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// exitCode sums up verdicts: tampering beats not knowing beats consistent.
func exitCode(reports []evidence.Report) int {
	code := exitConsistent
	for _, r := range reports {
		switch r.Verdict {
		case evidence.Tampered:
			return exitTampered
		case evidence.Consistent:
		default:
			code = exitUnknown
		}
	}
	return code
}

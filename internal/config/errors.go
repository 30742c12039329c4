package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is a mistake in how the program was called or configured: the caller's exit code 2.
type Error struct {
	Source  string // where it was written: "flag --immudb-port", "immuclient.toml:3:1"
	Setting string // the setting or unknown name, "" where Source says it
	Given   string // what was written there; "" where it is a secret or not one value
	Problem string // what is wrong with it, and what is allowed
	Fix     string // what to type instead
	Err     error  // the cause, if it is another error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Source)
	if e.Setting != "" {
		b.WriteString(": " + e.Setting)
	}
	b.WriteString(": ")
	if e.Given != "" {
		b.WriteString(quote(e.Given) + " ")
	}
	b.WriteString(e.Problem)
	if e.Fix != "" {
		b.WriteString("; " + e.Fix)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

const longestQuote = 80

// quote shows hostile or merely long text in one printable, bounded piece.
func quote(s string) string {
	if len(s) > longestQuote {
		cut := longestQuote
		for cut > longestQuote-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "…"
	}
	return strconv.Quote(s)
}

// strength orders the sources: a stronger one beats a weaker one.
type strength int

const (
	fromDefault  strength = iota
	fromLeftover          // the variable audit-agent-interval, which any --audit-interval beats
	fromFile
	fromEnviron
	fromFlag
)

// origin is the place where a value was written.
type origin struct {
	strength strength
	name     string // flag: its name; environment: the variable; file: path:line:column
	key      string // what it is called there, in a table [[server]] or [[sink]]; "" = as everywhere
}

func (o origin) String() string {
	switch o.strength {
	case fromFlag:
		return "flag --" + o.name
	case fromEnviron, fromLeftover:
		return "environment variable " + o.name
	case fromFile:
		return o.name
	default:
		return "default"
	}
}

// given is a value as it was written, before it is understood.
type given struct {
	text string
	origin
}

// label names the setting where the origin alone does not.
func (o origin) label(name string) string {
	switch {
	case o.strength != fromFile:
		return ""
	case o.key != "":
		return o.key
	}
	return name
}

// show writes the setting as it would be typed where o is.
func (o origin) show(s *setting, value string) string {
	switch o.strength {
	case fromFlag:
		if s.kind == boolean && value == "true" {
			return "--" + s.name
		}
		return "--" + s.name + "=" + shellWord(value)
	case fromEnviron, fromLeftover:
		return o.name + "=" + shellWord(value)
	default:
		return o.label(s.name) + " = " + tomlValue(s.kind, value)
	}
}

// mistake is an Error about the value of s as written at g; instead is a better value, "" for an example.
func (g given) mistake(s *setting, problem, instead string) *Error {
	e := &Error{Source: g.String(), Setting: g.label(s.name), Given: g.text, Problem: problem}
	switch {
	case s.secret || mayHoldSecret(g.text):
		e.Given, e.Problem = "", "the value (not shown) "+problem
	case g.text == "":
		e.Problem = "an empty value " + problem
	}
	if instead == "" {
		instead = s.proposal()
		e.Fix = "for example " + g.show(s, instead)
	} else {
		e.Fix = "write " + g.show(s, instead)
	}
	return e
}

// mayHoldSecret recognises user:password@host and URLs with a token in the query, wherever they were typed.
func mayHoldSecret(written string) bool {
	return strings.Contains(written, "@") && strings.Contains(written, ":") || strings.Contains(written, "?")
}

// proposal is a value that would be right.
func (s *setting) proposal() string {
	if s.value != "" && s.kind != boolean {
		return s.value
	}
	if s.kind == boolean {
		return "true"
	}
	return s.example
}

// shellWord quotes a value so that a shell hands it on unchanged.
func shellWord(value string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,@%+=", r)
	}
	if value != "" && strings.IndexFunc(value, func(r rune) bool { return !plain(r) }) < 0 {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// meant maps what people type to the name that they mean, where the spelling does not tell.
// The first three are leftovers of the original's configuration file and its literal variable.
func meant(name string) string {
	switch name {
	case "address", "host", "immudb-host":
		return "immudb-address"
	case "port":
		return "immudb-port"
	case "audit-agent-interval":
		return "audit-interval"
	case "user", "immudb-username":
		return "username"
	case "immudb-password":
		return "password"
	case "audit-database":
		return "audit-databases"
	case "ca", "cacert", "ca-file":
		return "clientcas"
	case "cert":
		return "certificate"
	case "key":
		return "pkey"
	case "web-config":
		return "web.config.file"
	}
	return ""
}

// nearest is the known name that somebody most likely meant, or "".
func nearest(name string, known []string) string {
	const longest = 64 // nothing longer is a misspelling of a setting, and the cost is quadratic
	plain := func(s string) string { return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(s)) }
	name = plain(name)
	if len(name) > longest || len(name) < 2 {
		return ""
	}
	if m := meant(name); m != "" {
		for _, k := range known {
			if k == m {
				return k
			}
		}
	}
	best, bestDistance, ends, begins := "", 2+len(name)/6, "", ""
	beginnings := 0
	for _, k := range known {
		if d := distance(name, plain(k)); d < bestDistance {
			best, bestDistance = k, d
		}
		if ends == "" && strings.HasSuffix(plain(k), "-"+name) {
			ends = k
		}
		if strings.HasPrefix(plain(k), name+"-") {
			begins = k
			beginnings++
		}
	}
	switch {
	case best != "":
		return best
	case ends != "":
		return ends
	case beginnings == 1:
		return begins
	}
	return ""
}

// distance counts the letters to insert, delete, replace or swap with their neighbour.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

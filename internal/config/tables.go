package config

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// writtenTable is one table [[server]] or [[sink]] as it was written.
type writtenTable struct {
	list  string // serverTable or sinkTable
	at    origin
	given map[string]given // by key
}

// text is what a key says, "" where it is not there.
func (t *writtenTable) text(key string) string { return t.given[key].text }

// rows are what the tables of a list can say.
func rowsOf(list string) []setting {
	if list == sinkTable {
		return sinkRows()
	}
	return serverRows()
}

// tablesOf takes the tables of a list.
func (d *document) tablesOf(list string, value any) {
	if value == nil {
		return
	}
	elements, ok := value.([]any)
	if !ok {
		at := d.lines[list]
		d.fail(&Error{Source: d.place(entry{line: at[0], column: at[1]}).String(), Setting: list, Problem: "is not a list of tables", Fix: "write [[" + list + "]] above each"})
		return
	}
	rows := rowsOf(list)
	for i, element := range elements {
		name := fmt.Sprintf("%s#%d", list, i)
		at, ok := d.lines[name]
		if !ok {
			at = d.lines[list]
		}
		t := writtenTable{list: list, at: d.place(entry{line: at[0], column: at[1]}), given: map[string]given{}}
		table, ok := element.(map[string]any)
		if !ok {
			d.fail(&Error{Source: t.at.String(), Setting: list, Problem: "is not a list of tables", Fix: "write [[" + list + "]] above each"})
			return
		}
		d.takeTable(&t, rows, name, table)
		d.loader.tables = append(d.loader.tables, t)
	}
}

func (d *document) takeTable(t *writtenTable, rows []setting, name string, table map[string]any) {
	var entries []entry
	for key, value := range table {
		e := entry{name: key, value: value, line: d.lines[name][0], column: d.lines[name][1]}
		if at, ok := d.lines[name+"."+key]; ok {
			e.line, e.column = at[0], at[1]
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, byPlace)
	for _, e := range entries {
		if d.full() {
			return
		}
		at := d.place(e)
		at.key = e.name
		s := find(rows, e.name)
		if s == nil {
			d.fail(unknownTableKey(t.list, rows, at))
			continue
		}
		written, ok := scalar(s.kind, e.value)
		if !ok {
			d.fail(wrongType(s, at, e.value))
			continue
		}
		g := given{written, at}
		scratch := Config{Sinks: make([]Sink, 1)}
		d.understand(&scratch, s, g)
		// Also where it is wrong: that it is there is not to be missed below.
		t.given[s.name] = g
	}
}

func unknownTableKey(list string, rows []setting, at origin) *Error {
	e := &Error{Source: at.name, Setting: printable(at.key), Problem: "unknown key of [[" + list + "]]", Fix: "remove the line; the keys are: " + strings.Join(settingNames(rows), ", ")}
	plain := strings.TrimPrefix(strings.TrimPrefix(at.key, "audit-"), "immudb-")
	switch n := nearest(plain, settingNames(rows)); {
	case n != "":
		e.Fix = "did you mean " + n + "?"
	case find(table(), at.key) != nil:
		e.Problem, e.Fix = "is of the whole auditor and no key of [["+list+"]]", "write it above the first table"
	}
	return e
}

// missing says that a table lacks a key.
func (l *loader) missing(t *writtenTable, key, why string) {
	s := find(rowsOf(t.list), key)
	l.fail(&Error{Source: t.at.String(), Setting: t.title(), Problem: "has no " + key + why, Fix: "for example " + origin{strength: fromFile, key: key}.show(s, s.example)})
}

// title names a table in messages.
func (t *writtenTable) title() string {
	if name := t.text("name"); name != "" {
		return t.list + " " + quote(name)
	}
	return "[[" + t.list + "]]"
}

// unique refuses a second table of the same name.
func (l *loader) unique(tables []*writtenTable) {
	seen := map[string]origin{}
	for _, t := range tables {
		g, ok := t.given["name"]
		if !ok {
			continue
		}
		if before, ok := seen[g.text]; ok {
			l.fail(&Error{Source: g.String(), Setting: "name", Given: g.text, Problem: fmt.Sprintf("is the name of another %s, at %s", t.list, before), Fix: "give each its own"})
			continue
		}
		seen[g.text] = g.origin
	}
}

func (l *loader) tablesNamed(list string) []*writtenTable {
	var found []*writtenTable
	for i := range l.tables {
		if l.tables[i].list == list {
			found = append(found, &l.tables[i])
		}
	}
	return found
}

// secretOf is the secret that a table gives under key, or in the file that key-file names; the key-file is
// the one that was read, "" if none was.
func (l *loader) secretOf(t *writtenTable, key string) (g given, file string) {
	g, plain := t.given[key]
	named, inFile := t.given[key+"-file"]
	switch {
	case !inFile:
		return g, ""
	case plain:
		l.fail(&Error{Source: named.String(), Setting: key + "-file", Problem: "is set beside " + key, Fix: "remove one of the two"})
		return g, ""
	}
	value, problem, err := l.secretIn(named.text)
	if problem == "" {
		s := find(rowsOf(t.list), key)
		scratch := Config{Sinks: make([]Sink, 1)}
		if problem, _ = s.assign(&scratch, value, &l.host); problem != "" {
			problem = "holds a value (not shown) that " + problem
		}
	}
	path, _ := l.host.expand(named.text) // which secretIn did, too
	switch {
	case problem == "":
	case err != nil && l.in.Offline:
		l.note("%s: %s-file: %s %s", named, key, quote(named.text), problem)
		return g, ""
	default:
		l.fail(&Error{Source: named.String(), Setting: key + "-file", Given: named.text, Problem: problem, Fix: "name a file that this user can read and that holds the value and nothing else", Err: err})
	}
	return given{value, named.origin}, l.host.absolute(path)
}

// writeTables writes the tables as they were, with absolute file names.
func (c *Config) writeTables(b *bytes.Buffer) {
	for i := range c.tables {
		t := &c.tables[i]
		b.WriteString("\n[[" + t.list + "]]\n")
		for _, s := range rowsOf(t.list) {
			g, ok := t.given[s.name]
			if !ok {
				continue
			}
			value := g.text
			switch {
			case s.kind == path && value != "":
				expanded, _ := c.host.expand(value) // it was possible when it was read
				if at, ok := c.paths[g.origin.name]; ok {
					expanded = at
				}
				value = strings.ReplaceAll(c.host.absolute(expanded), "$", "$$")
			case s.kind == number:
				if n, err := strconv.ParseInt(value, 10, 64); err == nil {
					value = strconv.FormatInt(n, 10)
				}
			}
			b.WriteString(s.name + " = " + tomlValue(s.kind, value) + "\n")
		}
	}
}

// Tables is [[server]] and [[sink]] as they were written, but with absolute file names; it holds secrets.
func (c *Config) Tables() []byte {
	var b bytes.Buffer
	c.writeTables(&b)
	return b.Bytes()
}

// splitArray reads the names of an array.
func (s *setting) splitArray(written string) (names []string, problem, instead string) {
	if strings.Count(written, ",") >= int(s.max) {
		return nil, fmt.Sprintf("holds more than %d names", s.max), ""
	}
	for name := range strings.SplitSeq(written, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if problem, instead := s.check(name); problem != "" {
			return nil, "holds " + quote(name) + ", which " + problem, instead
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, "", ""
}

// expandTables keeps what file names of tables mean, because the environment is not kept.
func (l *loader) expandTables() {
	paths, rows := map[string]string{}, map[string][]setting{serverTable: serverRows(), sinkTable: sinkRows()}
	for i := range l.tables {
		for key, g := range l.tables[i].given {
			if s := find(rows[l.tables[i].list], key); s.kind == path {
				paths[g.name], _ = l.host.expand(g.text)
			}
		}
	}
	l.config.paths, l.config.tables = paths, l.tables
}

// tableSecrets names the secrets that stand in tables of the file.
func (l *loader) tableSecrets() []string {
	var names []string
	for i := range l.tables {
		t := &l.tables[i]
		for _, key := range []string{"password", "secret", "url"} {
			if v := t.text(key); v != "" && (key != "url" || mayHoldSecret(v)) {
				names = append(names, key+" of "+t.title())
			}
		}
	}
	return names
}

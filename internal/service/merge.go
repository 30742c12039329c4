package service

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Setting is one key of the configuration file and its value as TOML writes
// it: {"audit-interval", `"5s"`}.
type Setting struct{ Name, Value string }

// Merge sets keys in a TOML document and leaves every other byte of it as it
// was: comments, order and keys of others. A new key goes below the comment
// that shows its default (#audit-interval = "1s"), else to the end of what
// stands outside of tables.
func Merge(doc []byte, settings []Setting) ([]byte, error) {
	d, err := scan(doc)
	if err != nil {
		return nil, err
	}
	var edits []edit
	for _, s := range settings {
		e, err := d.set(s)
		if err != nil {
			return nil, err
		}
		edits = append(edits, e)
	}
	return d.apply(edits), nil
}

// Unset makes comments of keys that are not to count any more, with the reason
// above each.
func Unset(doc []byte, why string, names ...string) ([]byte, error) {
	d, err := scan(doc)
	if err != nil {
		return nil, err
	}
	var edits []edit
	for _, p := range d.parts {
		if p.kind != partKey || !slices.Contains(names, p.name()) {
			continue
		}
		text := string(doc[p.line:p.end])
		edits = append(edits, edit{p.line, p.end, "# " + why + d.newline + "# " + strings.ReplaceAll(text, "\n", "\n# ")})
	}
	return d.apply(edits), nil
}

// HasTables reports whether the document has lists of tables: [[name]], or the
// same as an array.
func HasTables(doc []byte, names ...string) (bool, error) {
	d, err := scan(doc)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(d.parts, func(p part) bool {
		return (p.kind == partHeader || p.kind == partKey && len(p.table) == 0) && slices.Contains(names, p.key[0])
	}), nil
}

// Redact gives the document as it may be shown: the values of the named keys
// are replaced, in comments too. A key of [[table]] is named table.key; where
// the table is written as a value, all of that value is replaced.
func Redact(doc []byte, names ...string) ([]byte, error) {
	d, err := scan(doc)
	if err != nil {
		return nil, err
	}
	const hidden = `"(hidden)"`
	var edits []edit
	for _, p := range d.parts {
		switch {
		case p.kind == partKey && hides(p.name(), names):
			if v := string(doc[p.value:p.end]); v != `""` && v != `''` {
				edits = append(edits, edit{p.value, p.end, hidden})
			}
		case p.kind == partComment:
			text := string(doc[p.line:p.end])
			for _, name := range names {
				if _, value, ok := strings.Cut(text, name); ok && strings.ContainsAny(value, "=:") && !emptyValue(value) {
					edits = append(edits, edit{p.line, p.end, "# " + name + " = " + hidden})
					break
				}
			}
		}
	}
	return d.apply(edits), nil
}

// hides reports whether a key is one of names, or a table written as a value
// with one of them inside.
func hides(key string, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return name == key || strings.HasPrefix(name, key+".") })
}

func emptyValue(s string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), "=")
	return ok && strings.Trim(rest, " \t\"'") == ""
}

type edit struct {
	from, to int
	text     string
}

type partKind int

const (
	partKey partKind = iota
	partHeader
	partComment
)

// part is one statement of a document: [line, end) without the comment behind
// it and without its line break. Of a key, value is where its value begins.
type part struct {
	kind             partKind
	table, key       []string
	line, value, end int
	array            bool // a header of an array of tables
}

// name is the full name of a key: "web.config.file" however it is written.
func (p *part) name() string { return strings.Join(append(slices.Clip(p.table), p.key...), ".") }

type tomlDoc struct {
	text    []byte
	parts   []part
	newline string
}

func (d *tomlDoc) apply(edits []edit) []byte {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(append(out, d.text[at:e.from]...), e.text...)
		at = e.to
	}
	return append(out, d.text[at:]...)
}

// set finds where one setting belongs.
func (d *tomlDoc) set(s Setting) (edit, error) {
	found := -1
	for i := range d.parts {
		p := &d.parts[i]
		if p.kind != partKey || p.name() != s.Name {
			continue
		}
		if found >= 0 {
			return edit{}, fmt.Errorf("line %d: %s is set twice; remove one of the two", lineOf(d.text, p.line), s.Name)
		}
		found = i
	}
	if found >= 0 {
		p := &d.parts[found]
		return edit{p.value, p.end, s.Value}, nil
	}
	// A key of a table that has a header goes into that table: outside it would
	// define the table a second time.
	parts := strings.Split(s.Name, ".")
	var header *part
	top := len(d.text) // where the first table begins
	for i := range d.parts {
		p := &d.parts[i]
		if p.kind != partHeader {
			continue
		}
		top = min(top, p.line)
		if n := len(p.key); !p.array && n < len(parts) && slices.Equal(p.key, parts[:n]) && (header == nil || n > len(header.key)) {
			header = p
		}
	}
	if header != nil {
		at := d.lineEnd(header.end)
		return edit{at, at, d.newline + strings.Join(parts[len(header.key):], ".") + " = " + s.Value}, nil
	}
	last := -1 // the end of the last part outside of tables
	for i := range d.parts {
		p := &d.parts[i]
		if p.line >= top {
			break
		}
		if p.kind == partComment && showsDefault(string(d.text[p.line:p.end]), s.Name) {
			return edit{p.end, p.end, d.newline + s.Name + " = " + s.Value}, nil
		}
		// Comments right above a table speak of the table.
		if p.kind == partKey {
			last = d.lineEnd(p.end)
		}
	}
	line := s.Name + " = " + s.Value
	switch {
	case last >= 0:
		return edit{last, last, d.newline + line}, nil
	case top < len(d.text):
		start := 0
		if bytes.HasPrefix(d.text, bom) {
			start = len(bom)
		}
		return edit{start, start, line + d.newline}, nil
	}
	if n := len(d.text); n > 0 && d.text[n-1] != '\n' && !bytes.Equal(d.text, bom) {
		line = d.newline + line
	}
	return edit{len(d.text), len(d.text), line + d.newline}, nil
}

// showsDefault reports whether a comment is of the form "#name = …".
func showsDefault(comment, name string) bool {
	rest, ok := strings.CutPrefix(strings.TrimLeft(comment, "# \t"), name)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), "=")
}

// lineEnd is where the line of a position ends, its line break excluded.
func (d *tomlDoc) lineEnd(at int) int {
	n := bytes.IndexByte(d.text[at:], '\n')
	if n < 0 {
		return len(d.text)
	}
	at += n
	if at > 0 && d.text[at-1] == '\r' {
		at--
	}
	return at
}

func lineOf(text []byte, at int) int { return bytes.Count(text[:min(at, len(text))], []byte("\n")) + 1 }

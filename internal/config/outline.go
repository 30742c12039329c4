package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

const (
	serverTable = "server"
	sinkTable   = "sink"

	mostKeys      = 256 // outside of [[server]] and [[sink]]
	mostTableKeys = 64  // in one of them
	mostServers   = 1000
	mostSinks     = 64
)

// mostTables is how many tables of a name there may be, 0 for all that are no list of tables.
func mostTables(name string) int {
	switch name {
	case serverTable:
		return mostServers
	case sinkTable:
		return mostSinks
	}
	return 0
}

// outline is where each key of a document stands. It is made before the document is decoded, in one pass,
// because the decoder compares each key with all before it: a file with too many is refused here.
type outline struct {
	at      map[string][2]int // line and column, from 1; of the second [[server]] "server#1" and "server#1.name"
	problem string            // why this is no configuration; "" for nothing

	parser unstable.Parser
	breaks []int          // offsets of line breaks
	tables map[string]int // how many there were of each
	left   int            // how many keys may still come
}

func outlineOf(data []byte) *outline {
	o := &outline{at: map[string][2]int{}, tables: map[string]int{}}
	for i, b := range data {
		if b == '\n' {
			o.breaks = append(o.breaks, i)
		}
	}
	var prefix []string
	base, inTable := mostKeys, false
	// Keys of the top and of the tables that are none of ours share one budget.
	enter := func(element bool) {
		if !inTable {
			base = o.left
		}
		if inTable = element; element {
			o.left = mostTableKeys
		} else {
			o.left = base
		}
	}
	o.left = base
	o.parser.Reset(data)
	for o.problem == "" && o.parser.NextExpression() {
		e := o.parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			parts, at := o.key(e.Key())
			if most := mostTables(parts[0]); most > 0 && (e.Kind == unstable.ArrayTable || o.tables[parts[0]] > 0) {
				if len(parts) == 1 && e.Kind == unstable.ArrayTable {
					enter(true)
					parts[0] = o.element(parts[0])
				} else {
					parts[0] = fmt.Sprintf("%s#%d", parts[0], o.tables[parts[0]]-1)
				}
			} else {
				enter(false)
			}
			o.spend(len(parts))
			prefix = parts
			o.note(prefix, at)
		case unstable.KeyValue:
			o.keyValue(prefix, e, enter)
		}
	}
	return o
}

// element counts one more table of a list.
func (o *outline) element(name string) string {
	o.tables[name]++
	if n := mostTables(name); o.tables[name] > n {
		o.problem = fmt.Sprintf("more than %d tables [[%s]]", n, name)
	}
	return fmt.Sprintf("%s#%d", name, o.tables[name]-1)
}

func (o *outline) spend(keys int) {
	if o.left -= keys; o.left >= 0 || o.problem != "" {
		return
	}
	o.problem = fmt.Sprintf("more than %d keys and tables: this is no configuration of immuclient", mostKeys)
	if o.tables[serverTable]+o.tables[sinkTable] > 0 {
		o.problem = fmt.Sprintf("more than %d keys in a table [[%s]] or [[%s]], or %d outside of them", mostTableKeys, serverTable, sinkTable, mostKeys)
	}
}

// key gives the parts of a key and where it begins.
func (o *outline) key(parts unstable.Iterator) (names []string, offset int) {
	offset = -1
	for parts.Next() {
		n := parts.Node()
		if offset < 0 {
			offset = int(n.Raw.Offset)
		}
		if len(names) <= deepestKey { // nothing deeper is looked for
			names = append(names, string(n.Data))
		} else {
			o.spend(1)
		}
	}
	return names, offset
}

func (o *outline) note(parts []string, offset int) {
	name := strings.Join(parts, ".")
	if _, ok := o.at[name]; ok {
		return
	}
	line := sort.SearchInts(o.breaks, offset)
	column := offset + 1
	if line > 0 {
		column = offset - o.breaks[line-1]
	}
	o.at[name] = [2]int{line + 1, column}
}

func (o *outline) keyValue(prefix []string, e *unstable.Node, enter func(bool)) {
	names, at := o.key(e.Key())
	parts := append(slices.Clip(prefix), names...)
	o.spend(len(names))
	for n := len(prefix) + 1; n <= len(parts); n++ { // a.b = 1 makes the table a, too
		o.note(parts[:n], at)
	}
	value := e.Value()
	if value.Kind == unstable.Array && len(parts) == 1 && mostTables(parts[0]) > 0 {
		for elements := value.Children(); elements.Next() && o.problem == ""; {
			n := elements.Node()
			if n.Kind != unstable.InlineTable {
				continue
			}
			enter(true)
			inner := []string{o.element(parts[0])}
			o.note(inner, int(n.Raw.Offset))
			o.inside(inner, n)
		}
		enter(false)
		return
	}
	o.inside(parts, value)
}

// inside notes the keys of an inline table, and counts those within arrays.
func (o *outline) inside(prefix []string, value *unstable.Node) {
	switch value.Kind {
	case unstable.InlineTable:
		for inner := value.Children(); inner.Next() && o.problem == ""; {
			if n := inner.Node(); n.Kind == unstable.KeyValue {
				if len(prefix) >= deepestKey {
					o.spend(1)
					o.inside(prefix, n.Value())
					continue
				}
				o.keyValue(prefix, n, func(bool) {})
			}
		}
	case unstable.Array:
		for inner := value.Children(); inner.Next() && o.problem == ""; {
			n := inner.Node()
			if n.Kind == unstable.InlineTable {
				o.spend(1)
			}
			if n.Kind == unstable.InlineTable || n.Kind == unstable.Array {
				o.inside(append(slices.Clip(prefix), "[]"), n)
			}
		}
	}
}

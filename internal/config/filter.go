package config

import (
	"slices"
	"strings"
)

// systemDatabase holds users and permissions. No listing names it and no prefix can have meant it.
const systemDatabase = "systemdb"

// Filter says which databases are to be audited. The zero Filter takes all but systemdb.
type Filter struct {
	prefixes []string
	exact    map[string]bool
	named    []string // all of them, in the order given
}

// LedgerFilter is the filter that --audit-databases asks for, or --database where that stands alone.
func (c *Config) LedgerFilter() Filter {
	f := Filter{exact: make(map[string]bool)}
	seen := map[string]bool{}
	for _, written := range c.Audit.Databases {
		name, exact := strings.CutSuffix(written, "$")
		if name == "" {
			continue
		}
		if !seen[name] {
			seen[name] = true
			f.named = append(f.named, name)
		}
		if exact || name == systemDatabase {
			f.exact[name] = true
		} else {
			f.prefixes = append(f.prefixes, name)
		}
	}
	if len(f.named) == 0 && c.Database != "" {
		f.named, f.exact[c.Database] = []string{c.Database}, true
	}
	return f
}

// All reports whether no choice was made: every database but systemdb.
func (f Filter) All() bool { return len(f.named) == 0 }

// Match reports whether the database of this name is to be audited.
func (f Filter) Match(name string) bool {
	if f.exact[name] {
		return true
	}
	if name == "" || name == systemDatabase {
		return false
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return f.All()
}

// Exact are all names of the configuration taken as exact, prefixes included: what can be audited where the
// server refuses to list its databases.
func (f Filter) Exact() []string { return slices.Clone(f.named) }

// Named are the names that were given as exact: they are audited whether or not the server lists them.
func (f Filter) Named() []string {
	return slices.DeleteFunc(f.Exact(), func(name string) bool { return !f.exact[name] })
}

package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	mostTags   = 32
	longestTag = 64
)

// Servers is one complete Config for each server that is audited: c itself, if it describes a single one.
func (c *Config) Servers() []*Config {
	if len(c.servers) == 0 {
		return []*Config{c}
	}
	return slices.Clone(c.servers)
}

// Fleet reports whether the file names its servers in tables [[server]]. Address, port, name and credentials
// of the Config itself are then of no server: see Servers.
func (c *Config) Fleet() bool { return len(c.servers) > 0 }

// serverRows are the keys of [[server]]: those settings that are of one server, called by their name without
// audit- and immudb-, and what only a table needs.
func serverRows() []setting {
	var rows []setting
	for _, s := range table() {
		if !s.perServer {
			continue
		}
		s.setting, s.name = s.name, strings.TrimPrefix(strings.TrimPrefix(s.name, "audit-"), "immudb-")
		if s.setting == "audit-server" {
			s.name, s.check = "name", checkRequired(checkServer)
			rows = slices.Insert(rows, 0, s)
			continue
		}
		if s.setting == "immudb-address" {
			s.example = "db.example.org:3322"
		}
		rows = append(rows, s)
		if s.name == "password" {
			rows = append(rows, setting{name: "password-file", kind: path, example: "/etc/immuclient/audit.password",
				usage: "`file` that holds the password and nothing else",
				field: func(c *Config) any { return &c.passwordFile }})
		}
	}
	return append(rows, setting{name: "tags", kind: array, max: mostTags, example: "production", check: checkTag,
		usage: "what else this server is called; sinks choose by it",
		field: func(c *Config) any { return &c.Audit.Tags }})
}

func checkTag(text string) (problem, instead string) {
	if text == "" || len(text) > longestTag {
		return fmt.Sprintf("is not a tag of 1 to %d bytes", longestTag), ""
	}
	return "", ""
}

// checkRequired refuses an empty value, which elsewhere means the default.
func checkRequired(check func(string) (string, string)) func(string) (string, string) {
	return func(text string) (problem, instead string) {
		if text == "" {
			return "is no name", ""
		}
		return check(text)
	}
}

// checkServers looks at what the tables [[server]] say as a whole.
func (l *loader) checkServers() {
	tables := l.tablesNamed(serverTable)
	if len(tables) == 0 {
		return
	}
	for _, t := range tables {
		for _, key := range []string{"name", "address"} {
			if _, ok := t.given[key]; !ok {
				l.missing(t, key, "")
			}
		}
		user, hasUser := t.given["username"]
		password, hasPassword := t.given["password"]
		if inFile, ok := t.given["password-file"]; ok {
			password, hasPassword = inFile, true
		}
		// A password belongs to the name that it was given with.
		switch {
		case hasUser && user.text == "":
			l.fail(&Error{Source: user.String(), Setting: "username", Problem: "is empty", Fix: "write a user name, or remove username and password to use those above the tables"})
		case hasUser && !hasPassword:
			l.fail(&Error{Source: user.String(), Setting: "username", Given: user.text, Problem: "is given without a password in the same table",
				Fix: "write password-file = \"FILE\" or password = \"PASSWORD\" beside it, or remove it to use user and password that stand above the tables"})
		case hasPassword && !hasUser:
			l.fail(&Error{Source: password.String(), Setting: password.key, Problem: "is given without a username in the same table",
				Fix: "write username = \"auditor\" beside it, or remove it to use user and password that stand above the tables"})
		}
	}
	l.unique(tables)
	for _, name := range []string{"immudb-address", "immudb-port", "audit-server", "audit-databases"} {
		g, ok := l.config.origins[name]
		if !ok || g.text == "" || l.in.Offline && g.strength > fromFile {
			continue
		}
		if g.strength == fromFile && (name == "immudb-port" || name == "audit-databases") {
			continue // what most of the tables have in common
		}
		e := &Error{Source: g.String(), Setting: g.label(name), Problem: fmt.Sprintf("is of a single server, but the servers are named in tables [[server]], the first at %s", tables[0].at)}
		if e.Fix = "remove it; write it into the table of the server that it is of"; g.strength > fromFile {
			e.Fix = "leave it out, or name another file with --config"
		}
		l.fail(e)
	}
}

// finishServers makes a Config of each table [[server]].
func (l *loader) finishServers() {
	told := map[string][]string{} // whom a warning is about
	var warnings []Warning
	var failed []error
	for _, t := range l.tablesNamed(serverTable) {
		sub := l.server(t)
		l.config.servers = append(l.config.servers, sub.config)
		for _, w := range sub.warnings {
			if _, ok := told[w.Text]; !ok {
				warnings = append(warnings, w)
			}
			told[w.Text] = append(told[w.Text], t.text("name"))
		}
		for _, e := range sub.mistakes {
			// What is wrong above the tables is wrong for each of them.
			if !slices.ContainsFunc(failed, func(f error) bool { return f.Error() == e.Error() }) && len(failed) <= mostErrors {
				failed = append(failed, e)
				l.fail(e.(*Error))
			}
		}
	}
	for _, w := range warnings {
		w.Text += " (server " + shortList(told[w.Text]) + ")"
		l.warnings = append(l.warnings, w)
	}
	l.sameAddress()
}

// server settles one table.
func (l *loader) server(t *writtenTable) *loader {
	c := new(Config)
	*c = *l.config
	c.origins, c.servers, c.tables = maps.Clone(l.config.origins), nil, nil
	sub := &loader{in: l.in, host: l.host, settings: l.settings, config: c}
	_, hasPort := t.given["port"]
	for key, g := range t.given {
		s := find(l.serverRows, key)
		if problem, _ := s.assign(c, g.text, &l.host); problem == "" && s.setting != "" {
			c.origins[s.setting] = g
		}
	}
	if _, port, _, _ := splitAddress(c.Address); port > 0 && !hasPort { // it beats the port that stands above the tables
		c.Port = port
		c.origins["immudb-port"] = given{fmt.Sprint(port), c.origins["immudb-address"].origin}
	}
	sub.address()
	if _, own := t.given["username"]; own {
		g, file := sub.secretOf(t, "password")
		if file != "" {
			c.secrets = append(slices.Clip(c.secrets), file)
		}
		c.origins["audit-password"] = g
		c.Audit.Username, c.Audit.Password = sub.decoded("audit-username"), sub.decoded("audit-password")
		c.Password, c.Audit.NotificationPassword = sub.decoded("password"), sub.decoded("audit-notification-password")
	} else {
		sub.login()
	}
	sub.transport()
	sub.patience()
	return sub
}

// sameAddress warns of databases that two servers of the configuration share: each finding comes twice.
func (l *loader) sameAddress() {
	const mostPairs = 1 << 20
	first := map[string]*Config{}
	told := 0
	for _, c := range l.config.servers {
		at := defaultServer(c.Address, c.Port)
		before, ok := first[at]
		if !ok {
			first[at] = c
			continue
		}
		a, b := before.LedgerFilter(), c.LedgerFilter()
		if told < mostNames && len(a.named)*len(b.named) < mostPairs && a.overlaps(b) {
			told++
			l.warn("servers %s and %s have the same address %s and databases in common, which are audited twice; give each its databases, or remove one", quote(before.Audit.Server), quote(c.Audit.Server), printable(at))
		}
	}
}

func (f Filter) overlaps(g Filter) bool {
	return f.All() && g.All() || slices.ContainsFunc(f.named, g.Match) || slices.ContainsFunc(g.named, f.Match)
}

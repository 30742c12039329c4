package config

import (
	"encoding/base64"
	"fmt"
	"net/mail"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	mostFilters   = 1000
	mostReceivers = 64
	secretPrefix  = "whsec_" // Standard Webhooks §signature scheme: 24 to 64 bytes in base64 behind it
	typeWebhook   = "webhook"
)

func sinkTypes() []string {
	return []string{typeWebhook, "standard-webhook", "smtp", "script", "alertmanager", "heartbeat"}
}

// Events are the names of what a sink can choose by events. Package config knows nothing of the others; a
// test of package cli compares this list with that of package evidence.
func Events() []string {
	return []string{"comparison", "tampered", "still-tampered", "damage", "first-contact", "identity-changed", "signing-began", "stale",
		"recovered", "state-created", "not-growing", "clock-skew", "state-problem", "acknowledged", "decision"}
}

// allowed are the keys of each type beside those that all have; + marks one that it needs.
func allowed(kind string) []string {
	return map[string][]string{
		typeWebhook:        {"+url", "username", "password", "password-file", "ca-file"},
		"standard-webhook": {"+url", "+secret", "secret-file", "ca-file"},
		"smtp":             {"+url", "+from", "+to", "username", "password", "password-file", "tls", "ca-file"},
		"script":           {"command", "directory"},
		"alertmanager":     {"+url", "username", "password", "password-file", "ca-file"},
		"heartbeat":        {"+url", "username", "password", "password-file", "ca-file"},
	}[kind]
}

// sinkRows are the keys of [[sink]]. Their fields are those of the first sink of a Config.
func sinkRows() []setting {
	of := func(field func(*Sink) any) func(*Config) any {
		return func(c *Config) any { return field(&c.Sinks[0]) }
	}
	return []setting{
		{name: "name", kind: text, example: "pager", check: checkRequired(limit(longestTag)), usage: "name of the sink in logs, metrics and messages",
			field: of(func(s *Sink) any { return &s.Name })},
		{name: "type", kind: text, example: "alertmanager", check: choice(sinkTypes()...), usage: strings.Join(sinkTypes(), ", "),
			field: of(func(s *Sink) any { return &s.Type })},
		{name: "events", kind: array, max: mostFilters, example: "tampered,still-tampered,damage", check: choice(Events()...), usage: "only these events: " + strings.Join(Events(), ", "),
			field: of(func(s *Sink) any { return &s.Events })},
		{name: "servers", kind: array, max: mostFilters, example: "production", check: checkRequired(checkServer), usage: "only what concerns the servers of these names",
			field: of(func(s *Sink) any { return &s.Servers })},
		{name: "databases", kind: array, max: mostFilters, example: "customers$", check: func(text string) (string, string) { return checkDatabase(strings.TrimSuffix(text, "$")) },
			usage: "only what concerns these databases, each a prefix, or exact if followed by $",
			field: of(func(s *Sink) any { return &s.Databases })},
		{name: "tags", kind: array, max: mostFilters, example: "production", check: checkTag, usage: "only what concerns servers with one of these tags",
			field: of(func(s *Sink) any { return &s.Tags })},
		{name: "url", kind: text, example: "https://alerts.example.org/immudb", check: checkSinkURL, usage: "http or https; of smtp: smtp://host:port or smtps://host:port",
			field: of(func(s *Sink) any { return &s.URL })},
		{name: "username", kind: text, example: "auditor", check: checkCredential, usage: "user name at the receiver",
			field: of(func(s *Sink) any { return &s.Username })},
		{name: "password", kind: text, secret: true, example: "PASSWORD", check: checkEncodable, usage: "password at the receiver, plain or enc: and base64",
			field: of(func(s *Sink) any { return &s.Password })},
		{name: "password-file", kind: path, example: "/etc/immuclient/receiver.password", usage: "file that holds the password and nothing else",
			field: func(c *Config) any { return &c.passwordFile }},
		{name: "secret", kind: text, secret: true, example: "whsec_BASE64", check: checkWebhookSecret, usage: "whsec_ and base64 of 24 to 64 bytes: signs the messages of a standard-webhook",
			field: of(func(s *Sink) any { return &s.Secret })},
		{name: "secret-file", kind: path, example: "/etc/immuclient/webhook.secret", usage: "file that holds the secret and nothing else",
			field: func(c *Config) any { return &c.passwordFile }},
		{name: "from", kind: text, example: "auditor@example.org", check: checkMailbox, usage: "sender of mail",
			field: of(func(s *Sink) any { return &s.From })},
		{name: "to", kind: array, max: mostReceivers, example: "oncall@example.org", check: checkMailbox, usage: "receivers of mail",
			field: of(func(s *Sink) any { return &s.To })},
		{name: "tls", kind: text, example: "starttls", check: choice("starttls", "implicit", "none"), usage: "of smtp: starttls, implicit (smtps) or none",
			field: of(func(s *Sink) any { return &s.TLS })},
		{name: "ca-file", kind: path, example: "/etc/ssl/alerts-ca.pem", usage: "PEM file of the authorities that may have issued the receiver's certificate; default: those of the system",
			field: of(func(s *Sink) any { return &s.CAFile })},
		{name: "command", kind: path, example: "/usr/local/bin/page", usage: "of script: the program to run",
			field: of(func(s *Sink) any { return &s.Command })},
		{name: "directory", kind: path, example: "/etc/immuclient/alert.d", usage: "of script: the directory whose programs are all run",
			field: of(func(s *Sink) any { return &s.Directory })},
	}
}

// checkSinkURL takes the URLs of all types; checkSink knows which one it is.
func checkSinkURL(text string) (problem, instead string) {
	if text == "" {
		return "is no URL", ""
	}
	if !isMailURL(text) {
		return checkURL(text)
	}
	u, err := url.Parse(text)
	switch {
	case len(text) > longestURL:
		return fmt.Sprintf("is longer than %d bytes", longestURL), ""
	case err != nil || u.Opaque != "" || !isHost(u.Hostname()):
		return "is not smtp://host:port or smtps://host:port", ""
	case u.User != nil:
		return "holds a user: username and password are keys of their own", ""
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "is more than smtp://host:port or smtps://host:port", u.Scheme + "://" + u.Host
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "has a port that is not a whole number from 1 to 65535", ""
		}
	}
	return "", ""
}

func isMailURL(text string) bool {
	return strings.HasPrefix(text, "smtp://") || strings.HasPrefix(text, "smtps://")
}

func checkWebhookSecret(text string) (problem, instead string) {
	plain, err := DecodePassword(text)
	if err != nil {
		return err.Error(), ""
	}
	rest, ok := strings.CutPrefix(plain, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(rest)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return "is not " + secretPrefix + " and base64 of 24 to 64 bytes (echo " + secretPrefix + "$(openssl rand -base64 32))", ""
	}
	return "", ""
}

func checkMailbox(text string) (problem, instead string) {
	a, err := mail.ParseAddress(text)
	if err != nil || len(text) > 320 {
		return "is not a mail address", ""
	}
	if a.Name != "" || a.Address != text {
		return "is more than a mail address", a.Address
	}
	return "", ""
}

// checkSinks looks at what each table [[sink]] says as a whole, and whether its filters can ever let pass.
func (l *loader) checkSinks() {
	tables := l.tablesNamed(sinkTable)
	if len(tables) == 0 {
		return
	}
	rows := sinkRows()
	for _, t := range tables {
		if _, ok := t.given["name"]; !ok {
			l.missing(t, "name", "")
		}
		kind, ok := t.given["type"]
		if !ok {
			l.missing(t, "type", "")
			continue
		}
		if slices.Contains(sinkTypes(), kind.text) {
			l.checkSink(t, rows, kind.text)
		}
		if g := t.given["name"]; g.text == typeWebhook && (kind.text != typeWebhook || l.config.origins["audit-notification-url"].text != "") {
			l.fail(&Error{Source: g.String(), Setting: "name", Given: g.text, Problem: "is the name of what --audit-notification-url describes", Fix: "give the sink another name"})
		}
	}
	l.unique(tables)
	l.checkFilters(tables)
}

func (l *loader) checkSink(t *writtenTable, rows []setting, kind string) {
	keys := allowed(kind)
	for _, s := range rows {
		g, ok := t.given[s.name]
		needed := slices.Contains(keys, "+"+s.name)
		switch common := slices.Contains([]string{"name", "type", "events", "servers", "databases", "tags"}, s.name); {
		case common:
		case ok && !needed && !slices.Contains(keys, s.name):
			l.fail(&Error{Source: g.String(), Setting: s.name, Problem: "means nothing to a sink of type " + kind, Fix: "remove the line; this type has " + strings.ReplaceAll(strings.Join(keys, ", "), "+", "")})
		case needed && g.text == "" && t.text(s.name+"-file") == "":
			l.missing(t, s.name, ", and a sink of type "+kind+" needs it")
		}
	}
	if g, ok := t.given["url"]; ok && (kind == "smtp") != isMailURL(g.text) && slices.Contains(keys, "+url") {
		problem, fix := "is not smtp:// or smtps://", `for example url = "smtp://mail.example.org:587"`
		if kind != "smtp" {
			problem, fix = "is the URL of a mail server, and the sink is of type "+kind, `write type = "smtp", or an http or https URL`
		}
		l.fail(&Error{Source: g.String(), Setting: "url", Problem: "the value (not shown) " + problem, Fix: fix})
	}
	switch kind {
	case "smtp":
		if g := t.given["tls"]; strings.HasPrefix(t.text("url"), "smtps://") && (g.text == "starttls" || g.text == "none") {
			l.fail(&Error{Source: g.String(), Setting: "tls", Given: g.text, Problem: "contradicts smtps://, which is TLS from the first byte", Fix: `write tls = "implicit", or url = "smtp://…"`})
		}
		if t.text("tls") == "none" && (t.text("password") != "" || t.text("password-file") != "") {
			l.warn("%s: the password of %s goes over the network in the clear; set tls", t.at, t.title())
		}
	case "script":
		command, directory := t.given["command"], t.given["directory"]
		switch {
		case command.text == "" && directory.text == "":
			l.missing(t, "command", " and no directory")
		case command.text != "" && directory.text != "":
			l.fail(&Error{Source: directory.String(), Setting: "directory", Problem: "is set beside command", Fix: "remove one of the two"})
		}
		for _, g := range []given{command, directory} {
			if path, problem := l.host.expand(g.text); problem == "" && path != "" && !filepath.IsAbs(path) {
				l.fail(&Error{Source: g.String(), Setting: g.key, Given: g.text, Problem: "is relative, and a service has no working directory of its own", Fix: "write it in full"})
			}
		}
	}
}

// checkFilters refuses names that no server has: such a sink is silent for ever.
func (l *loader) checkFilters(sinks []*writtenTable) {
	var names, tags []string
	servers := l.tablesNamed(serverTable)
	for _, t := range servers {
		names = append(names, t.text("name"))
		if g := t.text("tags"); g != "" {
			tags = append(tags, strings.Split(g, ",")...)
		}
	}
	if len(servers) == 0 {
		name := l.config.Audit.Server
		if host, port, problem, _ := splitAddress(l.config.Address); name == "" && problem == "" {
			if port == 0 {
				port = l.config.Port
			}
			name = defaultServer(host, port)
		}
		names = append(names, name)
	}
	knownNames, knownTags := set(names), set(tags)
	for _, t := range sinks {
		for _, filter := range []struct {
			key   string
			known map[string]bool
			all   []string
			what  string
		}{{"servers", knownNames, names, "server has this name"}, {"tags", knownTags, tags, "server has this tag"}} {
			g := t.given[filter.key]
			for name := range strings.SplitSeq(g.text, ",") {
				name = strings.TrimSpace(name)
				if name == "" || filter.known[name] || l.full() {
					continue
				}
				e := &Error{Source: g.String(), Setting: filter.key, Given: name, Problem: "lets nothing pass: no " + filter.what, Fix: "write one of the " + filter.key + " of this configuration"}
				if n := nearest(name, filter.all); n != "" {
					e.Fix = "did you mean " + quote(n) + "?"
				}
				l.fail(e)
			}
		}
	}
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[strings.TrimSpace(n)] = true
	}
	return m
}

// finishSinks makes the sinks.
func (l *loader) finishSinks() {
	rows := sinkRows()
	for _, t := range l.tablesNamed(sinkTable) {
		scratch := Config{Sinks: make([]Sink, 1)}
		for i := range rows {
			if g, ok := t.given[rows[i].name]; ok {
				rows[i].assign(&scratch, g.text, &l.host) // it was right when it was read
			}
		}
		s := scratch.Sinks[0]
		for key, field := range map[string]*string{"password": &s.Password, "secret": &s.Secret} {
			g, file := l.secretOf(t, key)
			if file != "" {
				l.config.secrets = append(l.config.secrets, file)
			}
			*field, _ = DecodePassword(g.text)
		}
		l.config.Sinks = append(l.config.Sinks, s)
	}
	for _, c := range l.config.servers {
		c.Sinks = l.config.Sinks
	}
}

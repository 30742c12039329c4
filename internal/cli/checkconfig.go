package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"

	toolkit "github.com/prometheus/exporter-toolkit/web"

	"immuaudit/internal/config"
)

// scope is what --check-config tells: everything that would be audited.
type scope struct {
	Configuration string        `json:"configuration"` // "" = no file
	State         string        `json:"state"`
	Guard         string        `json:"guard"`
	Monitoring    string        `json:"monitoring"`
	Servers       []scopeServer `json:"servers"`
	Sinks         []scopeSink   `json:"sinks"`
	Warnings      []string      `json:"warnings"`
}

// sourced is a value and where it was written.
type sourced struct {
	Value string `json:"value"`
	From  string `json:"from"`
}

type scopeServer struct {
	Name      sourced  `json:"name"`
	Address   sourced  `json:"address"`
	Transport sourced  `json:"transport"` // plaintext, TLS, mutual TLS
	User      sourced  `json:"user"`
	Databases sourced  `json:"databases"` // all, or names as in --audit-databases
	Interval  sourced  `json:"interval"`
	Signed    sourced  `json:"signing_key"` // the file of the key that must have signed; "" = none
	Tags      []string `json:"tags"`
}

type scopeSink struct {
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	From      string   `json:"from"`
	To        string   `json:"to"`
	Events    []string `json:"events"` // empty: all
	Servers   []string `json:"servers"`
	Databases []string `json:"databases"`
	Tags      []string `json:"tags"`
}

// checkConfig reads what the configuration names and prints what would be
// audited. It connects to nothing and makes nothing.
func checkConfig(env *Env, c *config.Config, warnings []config.Warning) error {
	if err := checkNamed(c); err != nil {
		return usage(err)
	}
	all := describe(c, warnings)
	out := newPrinter(env, c.Audit.JSON)
	if c.Audit.JSON {
		out.line(all)
	} else {
		out.text(all.text())
	}
	if err := out.failed(); err != nil {
		return unknown(fmt.Errorf("printing the configuration: %w", err))
	}
	return nil
}

// checkNamed finds everything that is wrong with the files that are named.
func checkNamed(c *config.Config) error {
	var wrong []error
	told := map[string]bool{}
	add := func(where string, err error) {
		if err == nil || told[err.Error()] { // servers share keys and certificates
			return
		}
		told[err.Error()] = true
		wrong = append(wrong, fmt.Errorf("%s: %w", where, err))
	}
	for _, s := range c.Servers() {
		where := "server " + s.Audit.Server
		client, err := connect(s, slog.New(slog.DiscardHandler))
		add(where, err)
		if err == nil {
			add(where, client.Close())
		}
		_, _, err = signingKey(s)
		add(where, err)
	}
	if file := c.Audit.WebConfigFile; file != "" {
		if err := toolkit.Validate(file); err != nil {
			add(c.Provenance("web.config.file"), fmt.Errorf("reading the web configuration file %s: %w; correct it or leave --web.config.file out", file, err))
		}
	}
	for i := range c.Sinks {
		s := &c.Sinks[i]
		_, _, err := sinkOf(c, s)
		add(c.SinkProvenance(s.Name)+": sink "+s.Name, err)
	}
	_, err := rulesOf(c)
	add("sinks", err)
	return errors.Join(wrong...)
}

func describe(c *config.Config, warnings []config.Warning) scope {
	all := scope{Configuration: c.ConfigFile, Servers: []scopeServer{}, Sinks: []scopeSink{}, Warnings: []string{}}
	var temporary bool
	all.State, temporary = c.StateDir()
	all.Guard, _ = c.StateGuard()
	all.Monitoring = net.JoinHostPort(c.Audit.MonitoringHost, strconv.Itoa(c.Audit.MonitoringPort))
	for _, w := range warnings {
		all.Warnings = append(all.Warnings, w.Text)
	}
	if temporary {
		all.Warnings = append(all.Warnings, "the state directory "+all.State+" is temporary: what was proven is forgotten when it is cleaned up; choose another with --dir")
	}
	for _, s := range c.Servers() {
		all.Servers = append(all.Servers, describeServer(s))
	}
	if a := &c.Audit; a.NotificationURL != "" {
		hook := config.Sink{URL: a.NotificationURL}
		all.Sinks = append(all.Sinks, scopeSink{Name: webhookSink, Type: "webhook", From: c.Provenance("audit-notification-url"), To: hook.ShownURL(),
			Events: []string{}, Servers: []string{}, Databases: []string{}, Tags: []string{}})
	}
	for _, s := range c.Sinks {
		to := s.ShownURL() + s.Command + s.Directory // a sink has one of them
		if len(s.To) > 0 {
			to = strings.Join(s.To, ", ") + " by " + to
		}
		all.Sinks = append(all.Sinks, scopeSink{Name: s.Name, Type: s.Type, From: c.SinkProvenance(s.Name), To: to,
			Events: notNil(s.Events), Servers: notNil(s.Servers), Databases: notNil(s.Databases), Tags: notNil(s.Tags)})
	}
	return all
}

// notNil makes an empty list an empty array in JSON.
func notNil(names []string) []string { return append([]string{}, names...) }

func describeServer(c *config.Config) scopeServer {
	from := func(value, setting string) sourced { return sourced{value, c.Provenance(setting)} }
	s := scopeServer{
		Name: from(c.Audit.Server, "audit-server"), Address: from(c.Target(), "immudb-address"), Transport: from("plaintext", "tls"),
		User: from(c.Audit.Username, "audit-username"), Databases: from("all", "audit-databases"), Interval: from(c.Audit.Interval.String(), "audit-interval"),
		Signed: from(c.SigningKeyFile, "server-signing-pub-key"), Tags: notNil(c.Audit.Tags),
	}
	switch {
	case c.MTLS:
		s.Transport = from("mutual TLS", "mtls")
	case c.TLS:
		s.Transport = from("TLS", "tls")
	}
	switch filter := c.LedgerFilter(); {
	case len(c.Audit.Databases) > 0:
		s.Databases.Value = strings.Join(c.Audit.Databases, ", ")
	case !filter.All():
		s.Databases = from(c.Database+"$", "database")
	}
	return s
}

// text is the same for people.
func (all *scope) text() string {
	var b strings.Builder
	row := func(indent, name, value, from string) {
		if from != "" {
			from = "  (" + from + ")"
		}
		fmt.Fprintf(&b, "%s%-13s %s%s\n", indent, name, value, from)
	}
	file := all.Configuration
	if file == "" {
		file = "no file"
	}
	row("", "configuration", file, "")
	row("", "state", all.State, "")
	row("", "its guard", all.Guard, "")
	row("", "monitoring", all.Monitoring, "")
	for i := range all.Servers {
		s := &all.Servers[i]
		row("\n", "server", s.Name.Value, s.Name.From)
		row("  ", "address", s.Address.Value, s.Address.From)
		row("  ", "transport", s.Transport.Value, s.Transport.From)
		row("  ", "user", s.User.Value, s.User.From)
		row("  ", "databases", s.Databases.Value, s.Databases.From)
		row("  ", "interval", s.Interval.Value, s.Interval.From)
		if s.Signed.Value != "" {
			row("  ", "signing key", s.Signed.Value, s.Signed.From)
		}
		if len(s.Tags) > 0 {
			row("  ", "tags", strings.Join(s.Tags, ", "), "")
		}
	}
	for i := range all.Sinks {
		s := &all.Sinks[i]
		row("\n", "sink", s.Name, s.From)
		row("  ", "type", s.Type, "")
		row("  ", "to", s.To, "")
		for _, filter := range []struct {
			name  string
			names []string
		}{{"events", s.Events}, {"servers", s.Servers}, {"databases", s.Databases}, {"tags", s.Tags}} {
			if len(filter.names) > 0 {
				row("  ", filter.name, strings.Join(filter.names, ", "), "")
			}
		}
	}
	if len(all.Warnings) > 0 {
		b.WriteByte('\n')
	}
	for _, w := range all.Warnings {
		b.WriteString("warning: " + w + "\n")
	}
	fmt.Fprintf(&b, "\nNothing is wrong: %s, %s.", counted(len(all.Servers), "server"), counted(len(all.Sinks), "sink"))
	return b.String()
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

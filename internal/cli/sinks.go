package cli

import (
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"immuaudit/evidence"
	"immuaudit/internal/alert"
	"immuaudit/internal/config"
)

// maxAuthorities bounds a PEM file of authorities; the system's own has about
// 250 kB.
const maxAuthorities = 4 << 20

// heartbeatSink is the type of a sink that is told of rounds, not of events.
const heartbeatSink = "heartbeat"

// sinkEntry is a configured sink with what it is to be told. The sink itself is
// nil where only its rule matters.
type sinkEntry struct {
	alert.Sink
	name string
	Type string
	// Rule says what the sink wants of a server with these tags.
	Rule func(tags []string) func(evidence.Event) (want, coalesce bool)
}

// Name is there without the sink too.
func (s sinkEntry) Name() string { return s.name }

// rulesOf gives every sink of a configuration but heartbeats, the original's
// webhook first, and makes none: what is queued for a sink does not depend on
// whether it works here and now, for this user.
func rulesOf(c *config.Config) ([]sinkEntry, error) {
	var sinks []sinkEntry
	names := map[string]bool{}
	if c.Audit.NotificationURL != "" {
		names[webhookSink] = true
		sinks = append(sinks, sinkEntry{name: webhookSink, Type: "webhook", Rule: func([]string) func(evidence.Event) (bool, bool) {
			return alert.Rules(c.Audit.NotificationOn, webhookSink)
		}})
	}
	for _, s := range c.Sinks {
		if names[s.Name] {
			return nil, usagef("two sinks are named %q; give each its own name", s.Name)
		}
		names[s.Name] = true
		if s.Type == heartbeatSink {
			continue
		}
		filter, err := filterOf(&s, c.Audit.NotificationOn)
		if err != nil {
			return nil, usagef("sink %q: %w", s.Name, err)
		}
		sinks = append(sinks, sinkEntry{name: s.Name, Type: s.Type, Rule: func(tags []string) func(evidence.Event) (bool, bool) {
			return alert.Rule(s.Name, filter, tags)
		}})
	}
	return sinks, nil
}

// sinksOf makes every sink of a configuration, the original's webhook first.
// It connects to nothing.
func sinksOf(c *config.Config) ([]sinkEntry, []*alert.Heartbeat, error) {
	sinks, err := rulesOf(c)
	if err != nil {
		return nil, nil, err
	}
	unmade := sinks // in the order of the configuration
	if a := &c.Audit; a.NotificationURL != "" {
		unmade[0].Sink, err = alert.NewWebhook(alert.WebhookOptions{
			Name: webhookSink, URL: a.NotificationURL, Username: a.NotificationUsername, Password: a.NotificationPassword, Version: version().Version,
		})
		if err != nil {
			return nil, nil, usage(err)
		}
		unmade = unmade[1:]
	}
	var hearts []*alert.Heartbeat
	for i := range c.Sinks {
		s := &c.Sinks[i]
		sink, heart, err := sinkOf(c, s)
		switch {
		case err != nil:
			return nil, nil, usagef("sink %q: %w", s.Name, err)
		case heart != nil:
			hearts = append(hearts, heart)
		default:
			unmade[0].Sink, unmade = sink, unmade[1:]
		}
	}
	return sinks, hearts, nil
}

// sinkOf makes one of the two: what is told of events, or a heartbeat.
func sinkOf(c *config.Config, s *config.Sink) (alert.Sink, *alert.Heartbeat, error) {
	roots, err := authorities(s.CAFile)
	if err != nil {
		return nil, nil, err
	}
	v := version().Version
	if s.Type == heartbeatSink {
		h, err := alert.NewHeartbeat(alert.HeartbeatOptions{
			Name: s.Name, URL: s.URL, Username: s.Username, Password: s.Password, Servers: beating(c, s), Roots: roots, Version: v,
		})
		return nil, h, err
	}
	sink, err := told(s, roots, v)
	return sink, nil, err
}

func told(s *config.Sink, roots *x509.CertPool, v string) (alert.Sink, error) {
	switch s.Type {
	case "webhook":
		return alert.NewWebhook(alert.WebhookOptions{Name: s.Name, URL: s.URL, Username: s.Username, Password: s.Password, Roots: roots, Version: v})
	case "standard-webhook":
		return alert.NewStandardWebhook(alert.StandardWebhookOptions{
			Name: s.Name, URL: s.URL, Username: s.Username, Password: s.Password, Secret: s.Secret, Roots: roots, Version: v,
		})
	case "smtp":
		return alert.NewSMTP(alert.SMTPOptions{
			Name: s.Name, URL: s.URL, Username: s.Username, Password: s.Password, From: s.From, To: s.To, TLS: s.TLS, Roots: roots,
		})
	case "script":
		return alert.NewScript(alert.ScriptOptions{Name: s.Name, Command: s.Command, Directory: s.Directory, Environ: os.Environ()})
	case "alertmanager":
		return alert.NewAlertmanager(alert.AlertmanagerOptions{Name: s.Name, URL: s.URL, Username: s.Username, Password: s.Password, Roots: roots, Version: v})
	default:
		return nil, fmt.Errorf("%q is no type of sink; it is webhook, standard-webhook, smtp, script, alertmanager or heartbeat", s.Type)
	}
}

func filterOf(s *config.Sink, notificationOn string) (alert.Filter, error) {
	types, err := alert.Events(s.Events)
	f := alert.Filter{Events: types, Servers: s.Servers, Tags: s.Tags}
	if s.Type == "webhook" && len(types) == 0 {
		// A receiver of the original's takes all that is not about tampering
		// for a comparison.
		f.Events = []evidence.EventType{evidence.EventTampered}
		if notificationOn == alert.OnAlways {
			f.Events = append(f.Events, evidence.EventComparison)
		}
	}
	if len(s.Databases) > 0 {
		var patterns config.Config
		patterns.Audit.Databases = s.Databases
		f.Databases = patterns.LedgerFilter().Match
	}
	return f, err
}

// beating are the servers whose rounds a heartbeat stands for.
func beating(c *config.Config, s *config.Sink) []string {
	var names []string
	for _, server := range c.Servers() {
		a := &server.Audit
		if (len(s.Servers) == 0 || slices.Contains(s.Servers, a.Server)) &&
			(len(s.Tags) == 0 || slices.ContainsFunc(s.Tags, func(tag string) bool { return slices.Contains(a.Tags, tag) })) {
			names = append(names, a.Server)
		}
	}
	return names
}

// authorities reads the certificates that a receiver is trusted by; nil for the
// system's. A pipe of that name must not hold the program up.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the receiver's authorities: %w; correct ca-file", err)
	}
	defer f.Close() // read-only: nothing is lost
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", file)
	}
	var pem []byte
	if err == nil {
		pem, err = io.ReadAll(io.LimitReader(f, maxAuthorities))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the receiver's authorities: %w; correct ca-file", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM; correct ca-file", file)
	}
	return roots, nil
}

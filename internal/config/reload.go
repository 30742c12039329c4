package config

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
)

// longestNamed bounds what is read of a key or certificate to see whether it changed.
const longestNamed = 1 << 20

// Files are all files that a start reads, absolute and in order: the configuration, files of secrets, keys,
// certificates, the web configuration. What is not given by a Config is not in it.
func (c *Config) Files() []string {
	var all []string
	if c.ConfigFile != os.DevNull {
		all = append(all, c.ConfigFile)
	}
	all = append(all, c.Audit.WebConfigFile)
	for _, s := range c.Servers() {
		all = append(append(all, s.secrets...), s.named()...)
	}
	all = append(all, c.secrets...)
	for i := range c.Sinks {
		all = append(all, c.Sinks[i].CAFile)
	}
	for i, name := range all {
		all[i] = c.host.absolute(name)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(name string) bool { return name == "" })
}

// named are the files that the client of this server reads.
func (c *Config) named() []string {
	certificate, key := c.ClientCertificate()
	return []string{certificate, key, c.CAFile(), c.SigningKeyFile}
}

// SameServer reports whether nothing that matters for the client and the audit of this server differs, so
// that it can go on as it is: settings, secrets, and what is in the files of its keys and certificates.
func (c *Config) SameServer(o *Config) bool {
	for _, s := range table() {
		if s.group != General && s.group != Audit || s.name == "config" || isFixed(s.name) || isOfSinks(s.name) {
			continue
		}
		// Of the general client's only what was taken for auditing counts.
		if s.name == "username" || s.name == "password" || s.name == "tokenfile" || s.name == "value-only" || s.name == "revision-separator" {
			continue
		}
		if s.current(c) != s.current(o) {
			return false
		}
	}
	mine, others := c.named(), o.named()
	for i := range mine {
		a, b := c.host.absolute(mine[i]), o.host.absolute(others[i])
		if a != b || c.contents[a] != o.contents[b] {
			return false
		}
	}
	return slices.Equal(c.Audit.Tags, o.Audit.Tags)
}

// Fixed names the settings that differ and that a running process cannot change.
func (c *Config) Fixed(o *Config) []string {
	var names []string
	for _, s := range table() {
		if isFixed(s.name) && c.host.absoluteOf(&s, c) != o.host.absoluteOf(&s, o) {
			names = append(names, s.name)
		}
	}
	return names
}

func (h *host) absoluteOf(s *setting, c *Config) string {
	value := s.current(c)
	if s.kind == path && value != StandardOutput {
		return h.absolute(value)
	}
	return value
}

// isFixed knows the settings of what is opened once: the state, the monitoring ports, the log.
func isFixed(name string) bool {
	return slices.Contains([]string{"dir", "roots-filepath", "state-guard", "audit-mirror", "audit-monitoring-host", "audit-monitoring-port",
		"audit-probe-address", "web.config.file", "logfile", "log-format", "pidfile"}, name)
}

// isOfSinks knows the settings of the webhook; whether comparisons are told is of the audit itself.
func isOfSinks(name string) bool {
	return strings.HasPrefix(name, "audit-notification-") && name != "audit-notification-on"
}

// remember notes what is in the files that are named, for SameServer. What cannot be read is told where it
// is used.
func (l *loader) remember() {
	if l.in.Offline {
		return
	}
	contents := map[string]string{}
	for _, s := range l.config.Servers() {
		for _, name := range s.named() {
			name = l.host.absolute(name)
			if _, ok := contents[name]; name != "" && !ok {
				contents[name] = hashOf(name)
			}
		}
		s.contents = contents
	}
	for i := range l.config.Sinks {
		if name := l.host.absolute(l.config.Sinks[i].CAFile); name != "" {
			contents[name] = hashOf(name)
		}
	}
	l.config.contents = contents
}

func hashOf(name string) string {
	f, err := os.OpenFile(filepath.Clean(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close() // read-only: nothing is lost
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, longestNamed)); err != nil {
		return ""
	}
	return string(h.Sum(nil))
}

// SameSinks reports whether notifications go to the same places, with the same
// secrets, about the same things.
func (c *Config) SameSinks(o *Config) bool {
	same := func(a, b Sink) bool { return reflect.DeepEqual(a, b) }
	if !slices.EqualFunc(c.Sinks, o.Sinks, same) {
		return false
	}
	for i := range c.Sinks {
		if file := c.host.absolute(c.Sinks[i].CAFile); c.contents[file] != o.contents[file] {
			return false
		}
	}
	for _, s := range table() {
		if (isOfSinks(s.name) || s.name == "audit-notification-on") && s.current(c) != s.current(o) {
			return false
		}
	}
	return true
}

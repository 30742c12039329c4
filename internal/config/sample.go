package config

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Sample is a configuration file with every key, its meaning and its default. Every line is a comment, so
// that a file made from it keeps following the defaults where nothing was decided.
func Sample() []byte {
	return append(sample(func(*setting) string { return "" }), sampleTables()...)
}

// Sample is the same file with what was given by flag, environment or file, so that a service that is
// started with it does what this command line does. File names are made absolute, because a service has
// another working directory. It holds the secrets that were given: mode 0600.
func (c *Config) Sample() []byte {
	top := sample(func(s *setting) string {
		g, ok := c.origins[s.name]
		if !ok {
			return ""
		}
		value := g.text
		switch {
		case s.name == "immudb-address":
			value = c.Address
		case s.name == "logfile" && s.current(c) == StandardOutput:
		case s.kind == path:
			value = strings.ReplaceAll(c.host.absolute(s.current(c)), "$", "$$")
		case s.secret && value != "":
			if !strings.HasPrefix(value, encoded) {
				value = EncodePassword(value)
			}
		case s.kind == boolean || s.kind == number:
			// As understood: T, 007 and +7 are no TOML.
			value = s.current(c)
		}
		return s.name + " = " + tomlValue(s.kind, value)
	})
	return append(top, c.Tables()...)
}

// sampleTables shows the tables as comments: one server with every key, and one sink of each type.
func sampleTables() []byte {
	var b bytes.Buffer
	b.WriteString("\n# Many servers: one table [[server]] for each, below everything else. What a table leaves out is as it\n" +
		"# stands above; user name and password are left out only together. docs/configuration.md tells more.\n#\n# [[server]]\n")
	for _, s := range serverRows() {
		switch {
		case s.name == "password":
			continue // in a file of its own
		case s.setting == "":
			b.WriteString("# # " + strings.ReplaceAll(s.usage, "`", "") + "\n")
		}
		value := s.example
		switch {
		case s.setting == "certificate" || s.setting == "pkey" || s.setting == "clientcas":
			value = "/etc/immuclient/" + s.name + ".pem"
		case value == "":
			value = s.proposal()
		}
		b.WriteString("# " + s.name + " = " + tomlValue(s.kind, value) + "\n")
	}
	b.WriteString("\n# Where alerts go: one table [[sink]] for each receiver. All have name, type, and as filters events, servers,\n" +
		"# databases and tags: what passes every filter that is set is sent.\n" +
		"# Events: " + strings.Join(Events(), ", ") + ".\n")
	rows := sinkRows()
	for _, kind := range sinkTypes() {
		b.WriteString("#\n# [[sink]]\n# name = " + tomlText("my-"+kind) + "\n# type = " + tomlText(kind) + "\n")
		filters := []string{"events"}
		if kind == typeWebhook {
			filters = append(filters, "servers", "databases", "tags")
		}
		for _, key := range filters {
			s := find(rows, key)
			b.WriteString("# " + key + " = " + tomlValue(s.kind, s.example) + "\n")
		}
		for _, key := range allowed(kind) {
			key = strings.TrimPrefix(key, "+")
			if key == "password" || key == "secret" || key == "directory" {
				continue // in a file of its own, or in place of command
			}
			s := find(rows, key)
			value := s.example
			if key == "url" && kind == "smtp" {
				value = "smtp://mail.example.org:587"
			}
			b.WriteString("# " + key + " = " + tomlValue(s.kind, value) + "\n")
		}
	}
	return b.Bytes()
}

func sample(chosen func(*setting) string) []byte {
	var b bytes.Buffer
	b.WriteString("# Configuration of immuclient audit-mode.\n#\n" +
		"# A line that begins with # is a comment; the values shown in them are the defaults. Each setting is also\n" +
		"# a flag (--audit-interval) and an environment variable (IMMUCLIENT_AUDIT_INTERVAL), which beat this file.\n" +
		"# ~ and $VARIABLE are expanded in file names; $$ is a plain $.\n")
	for _, s := range table() {
		if s.here {
			continue
		}
		b.WriteString("\n# " + strings.ReplaceAll(s.usage, "`", "") + bounds(&s) + "\n")
		if line := chosen(&s); line != "" {
			b.WriteString(line + "\n")
		} else {
			b.WriteString("#" + s.name + " = " + tomlValue(s.kind, s.value) + "\n")
		}
	}
	return b.Bytes()
}

func bounds(s *setting) string {
	switch s.kind {
	case number:
		return fmt.Sprintf(" (%d to %d)", s.min, s.max)
	case duration:
		return fmt.Sprintf(" (%s to %s)", brief(s.shortest), brief(s.longest))
	}
	return ""
}

// tomlValue writes a value in TOML. Go's quoting differs from TOML's only for what is not printable, which
// no setting holds.
func tomlValue(k kind, value string) string {
	switch k {
	case number, boolean:
		return value
	case list, array:
		if value == "" {
			return "[]"
		}
		var quoted []string
		for name := range strings.SplitSeq(value, ",") {
			quoted = append(quoted, tomlText(strings.TrimSpace(name)))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return tomlText(value)
}

func tomlText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
)

// Sink is one more place where alerts go: a table [[sink]] of the file.
//
// An alert goes to a sink if it passes every filter that is set: a list that is empty lets everything pass.
type Sink struct {
	Name string
	Type string // webhook | standard-webhook | smtp | script | alertmanager | heartbeat

	Events    []string // names of events
	Servers   []string // names of servers
	Databases []string // prefixes, or exact names followed by $, as in --audit-databases
	Tags      []string // a server that has one of them passes

	URL                string
	Username, Password string
	Secret             string   // signs the messages of a standard-webhook: whsec_ and base64
	From               string   // of mail
	To                 []string // of mail
	TLS                string   // of mail: starttls | implicit | none; "" = what the URL says
	CAFile             string   // PEM authorities of the receiver; "" = those of the system
	Command            string   // of a script: one program, or
	Directory          string   // every program in it
}

// SinkProvenance says where the table of a sink stands: "/etc/immudb/immuclient.toml:3:1".
func (c *Config) SinkProvenance(name string) string {
	for i := range c.tables {
		if t := &c.tables[i]; t.list == sinkTable && t.text("name") == name {
			return t.at.String()
		}
	}
	return "default"
}

// shown is a sink without its secrets.
func (s Sink) shown() map[string]string {
	m := map[string]string{"name": s.Name, "type": s.Type}
	add := func(key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	add("events", strings.Join(s.Events, ","))
	add("servers", strings.Join(s.Servers, ","))
	add("databases", strings.Join(s.Databases, ","))
	add("tags", strings.Join(s.Tags, ","))
	add("url", s.ShownURL())
	add("username", s.Username)
	add("from", s.From)
	add("to", strings.Join(s.To, ","))
	add("tls", s.TLS)
	add("ca-file", s.CAFile)
	add("command", s.Command)
	add("directory", s.Directory)
	if s.Password != "" {
		m["password"] = hidden
	}
	if s.Secret != "" {
		m["secret"] = hidden
	}
	return m
}

// ShownURL is the URL without what may be a token in it.
func (s Sink) ShownURL() string {
	if s.URL == "" {
		return ""
	}
	return redactedURL(s.URL)
}

func (s Sink) String() string {
	var words []string
	m := s.shown()
	for _, row := range sinkRows() {
		if v, ok := m[row.name]; ok {
			words = append(words, row.name+"="+printable(v))
		}
	}
	return strings.Join(words, " ")
}

func (s Sink) Format(f fmt.State, _ rune)   { fmt.Fprint(f, s.String()) }
func (s Sink) MarshalJSON() ([]byte, error) { return json.Marshal(s.shown()) }
func (s Sink) LogValue() slog.Value         { return slog.StringValue(s.String()) }

package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const hidden = "(hidden)"

// The methods below are on the values, so that neither a Config nor a pointer to one, nor the part about
// auditing alone, shows a secret under any verb of fmt, in slog or in JSON.

// Redacted is the configuration as it may be shown: setting=value, one after the other, without secrets.
func (c Config) Redacted() string { return redacted(&c, func(*setting) bool { return true }) }

func (c Config) String() string               { return c.Redacted() }
func (c Config) Format(f fmt.State, _ rune)   { fmt.Fprint(f, c.Redacted()) }
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(shown(&c, all)) }
func (c Config) LogValue() slog.Value         { return logValue(&c, all) }
func (a Auditor) String() string              { return redacted(&Config{Audit: a}, ofAudit) }
func (a Auditor) Format(f fmt.State, _ rune)  { fmt.Fprint(f, a.String()) }
func (a Auditor) MarshalJSON() ([]byte, error) {
	return json.Marshal(shown(&Config{Audit: a}, ofAudit))
}
func (a Auditor) LogValue() slog.Value { return logValue(&Config{Audit: a}, ofAudit) }

func all(*setting) bool       { return true }
func ofAudit(s *setting) bool { return s.group != General }

func redacted(c *Config, choose func(*setting) bool) string {
	var b strings.Builder
	for _, s := range table() {
		if !choose(&s) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.name + "=" + printable(s.show(c)))
	}
	return b.String()
}

func shown(c *Config, choose func(*setting) bool) map[string]string {
	m := map[string]string{}
	for _, s := range table() {
		if choose(&s) {
			m[s.name] = s.show(c)
		}
	}
	return m
}

func logValue(c *Config, choose func(*setting) bool) slog.Value {
	var attrs []slog.Attr
	for _, s := range table() {
		if choose(&s) {
			attrs = append(attrs, slog.String(s.name, s.show(c)))
		}
	}
	return slog.GroupValue(attrs...)
}

// show is the value of s in c as it may be shown.
func (s *setting) show(c *Config) string {
	v := s.current(c)
	switch {
	case v == "":
		return ""
	case s.secret:
		return hidden
	case s.name == "audit-notification-url":
		return redactedURL(v)
	}
	return v
}

// redactedURL hides user-info and query, where tokens are passed.
func redactedURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return hidden
	}
	if u.User != nil {
		u.User = url.User("xxxxx")
	}
	if u.RawQuery != "" {
		u.RawQuery = "xxxxx"
	}
	if u.Fragment != "" {
		u.Fragment, u.RawFragment = "xxxxx", ""
	}
	return u.String()
}

// current is the value of s in c as it would be typed.
func (s *setting) current(c *Config) string {
	switch f := s.field(c).(type) {
	case *string:
		return *f
	case *int:
		return strconv.Itoa(*f)
	case *uint64:
		return strconv.FormatUint(*f, 10)
	case *bool:
		return strconv.FormatBool(*f)
	case *time.Duration:
		return brief(*f)
	case *[]string:
		return strings.Join(*f, ",")
	}
	return ""
}

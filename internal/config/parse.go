package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	longestValue    = 4096
	longestList     = 1 << 20
	longestDatabase = 128 // what the auditor accepts from a server, too
	mostDatabases   = 20_000
	longestServer   = 128
	longestURL      = 2048
)

// assign understands text as a value of s and stores it in c. It returns what is wrong with it, "" for
// nothing, and a better value where there is one.
func (s *setting) assign(c *Config, written string, h *host) (problem, instead string) {
	if problem := unprintable(written); problem != "" {
		return problem, ""
	}
	longest := longestValue
	if s.kind == list {
		longest = longestList
	}
	if len(written) > longest {
		return fmt.Sprintf("is longer than %d bytes", longest), ""
	}
	switch s.kind {
	case number:
		n, err := strconv.ParseInt(written, 10, 64)
		if err != nil || n < s.min || n > s.max {
			return fmt.Sprintf("is not a whole number from %d to %d", s.min, s.max), ""
		}
		switch f := s.field(c).(type) {
		case *int:
			if n > math.MaxInt {
				return "is too large for this machine", ""
			}
			*f = int(n)
		case *uint64:
			*f = uint64(n) // s.min is not negative
		}
	case boolean:
		b, err := strconv.ParseBool(written)
		if err != nil {
			return "is neither true nor false", ""
		}
		*s.field(c).(*bool) = b
	case duration:
		d, err := time.ParseDuration(written)
		if err != nil {
			if n, err := strconv.ParseUint(written, 10, 32); err == nil && n > 0 {
				return "has no unit", written + "s"
			}
			return "is not a duration such as 500ms, 1s or 5m", ""
		}
		if d < s.shortest || d > s.longest {
			return fmt.Sprintf("is not between %s and %s", brief(s.shortest), brief(s.longest)), ""
		}
		*s.field(c).(*time.Duration) = d
	case list:
		names, problem := splitNames(written)
		if problem != "" {
			return problem, ""
		}
		*s.field(c).(*[]string) = names
	case array:
		names, problem, instead := s.splitArray(written)
		if problem != "" {
			return problem, instead
		}
		*s.field(c).(*[]string) = names
	case path:
		expanded, problem := h.expand(written)
		if problem != "" {
			return problem, ""
		}
		*s.field(c).(*string) = expanded
	default:
		if s.check != nil {
			if problem, instead := s.check(written); problem != "" {
				return problem, instead
			}
		}
		*s.field(c).(*string) = written
	}
	return "", ""
}

// unprintable refuses what no name, path or password holds on purpose, and what could forge a log line.
func unprintable(s string) string {
	if !utf8.ValidString(s) {
		return "is not UTF-8 text"
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return fmt.Sprintf("has a control character (%#02x) at byte %d", s[i], i+1)
	}
	return ""
}

// brief writes 5m0s as 5m, as people type it.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// splitNames reads the value of --audit-databases.
func splitNames(written string) (names []string, problem string) {
	if strings.Count(written, ",") >= mostDatabases {
		return nil, fmt.Sprintf("holds more than %d names", mostDatabases)
	}
	seen := map[string]bool{}
	for name := range strings.SplitSeq(written, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if problem, _ := checkDatabase(strings.TrimSuffix(name, "$")); problem != "" || name == "$" {
			return nil, fmt.Sprintf("holds %s, which is not the name of a database (1 to %d bytes, no spaces, $ only at the end for an exact name)", quote(name), longestDatabase)
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, ""
}

// expand replaces ~ and $VARIABLE in a file name. An unset variable is a mistake, not an empty string:
// "$STATE/auditor" must not become /auditor.
func (h *host) expand(written string) (expanded, problem string) {
	home := ""
	if written == "~" || strings.HasPrefix(written, "~/") {
		if home = h.home; home == "" {
			return "", "begins with ~ but no home directory is known"
		}
		written = written[1:]
	}
	expanded = home + os.Expand(written, func(name string) string {
		if name == "$" {
			return "$"
		}
		if v := h.environ[name]; v != "" {
			return v
		}
		if name == "HOME" && h.home != "" {
			return h.home
		}
		if problem == "" {
			problem = fmt.Sprintf("names the environment variable %s, which is not set ($$ stands for a plain $)", quote(name))
		}
		return ""
	})
	if problem == "" {
		problem = unprintable(expanded)
	}
	if problem == "" && len(expanded) > longestValue {
		problem = fmt.Sprintf("is longer than %d bytes once expanded", longestValue)
	}
	return expanded, problem
}

// absolute is where a relative file name leads from the working directory.
func (h *host) absolute(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(h.workDir, name)
}

func limit(longest int) func(string) (string, string) {
	return func(text string) (problem, instead string) {
		if len(text) > longest {
			return fmt.Sprintf("is longer than %d bytes", longest), ""
		}
		return "", ""
	}
}

func choice(allowed ...string) func(string) (string, string) {
	return func(text string) (problem, instead string) {
		if slices.Contains(allowed, text) {
			return "", ""
		}
		return "is not one of: " + strings.Join(allowed, ", "), nearest(text, allowed)
	}
}

func checkDatabase(text string) (problem, instead string) {
	if len(text) > longestDatabase || strings.ContainsAny(text, " ,$") {
		return fmt.Sprintf("is not the name of a database (1 to %d bytes, no spaces)", longestDatabase), ""
	}
	return "", ""
}

func checkCredential(text string) (problem, instead string) { return limit(1024)(text) }

func checkEncodable(text string) (problem, instead string) {
	plain, err := DecodePassword(text)
	if err != nil {
		return err.Error(), ""
	}
	return checkCredential(plain)
}

func checkServer(text string) (problem, instead string) {
	if len(text) > longestServer || strings.ContainsAny(text, `/\`) || strings.TrimSpace(text) != text {
		return fmt.Sprintf("is not a name of 1 to %d bytes without slashes and without spaces around it", longestServer), ""
	}
	return "", ""
}

func checkServerName(text string) (problem, instead string) {
	if text == "" || isHost(text) {
		return "", ""
	}
	if host, _, err := net.SplitHostPort(text); err == nil && isHost(host) {
		return "is not a host name: a certificate names no port", host
	}
	return "is not a host name", ""
}

func checkAddress(text string) (problem, instead string) {
	_, _, problem, instead = splitAddress(text)
	return problem, instead
}

// splitAddress reads host, [IPv6], host:port, which many type by habit, or [IPv6]:port; port is 0 where there is none.
func splitAddress(text string) (host string, port int, problem, instead string) {
	if strings.Contains(text, "://") {
		problem = "is a URL, not a host name or IP address"
		if u, err := url.Parse(text); err == nil && isHost(u.Hostname()) {
			instead = u.Hostname()
		}
		return "", 0, problem, instead
	}
	host = text
	if h, p, err := net.SplitHostPort(text); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, "has a port that is not a whole number from 1 to 65535", ""
		}
		host, port = h, int(n)
	} else if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		host = text[1 : len(text)-1]
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return "", 0, "is not an IPv6 address in brackets", ""
		}
	}
	if !isHost(host) {
		return "", 0, "is not a host name or IP address", ""
	}
	return host, port, "", ""
}

func checkListenHost(text string) (problem, instead string) {
	if text == "" || isHost(text) {
		return "", ""
	}
	if host, _, err := net.SplitHostPort(text); err == nil && isHost(host) {
		return "is not a host name or IP address alone (the port is --audit-monitoring-port)", host
	}
	if bare := strings.Trim(text, "[]"); isHost(bare) {
		return "needs no brackets", bare
	}
	return "is not a host name or IP address", ""
}

func checkListenAddress(text string) (problem, instead string) {
	if text == "" {
		return "", ""
	}
	host, port, err := net.SplitHostPort(text)
	if err == nil && (host == "" || isHost(host)) {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			return "", ""
		}
	}
	return "is not host:port", ""
}

// isHost accepts IP addresses and what a resolver could look up; underscores are not in RFC 1123 but
// common in container networks.
func isHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return !strings.ContainsAny(ip.Zone(), " /?#%")
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

func checkURL(text string) (problem, instead string) {
	if text == "" {
		return "", ""
	}
	if len(text) > longestURL {
		return fmt.Sprintf("is longer than %d bytes", longestURL), ""
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Opaque != "" || !isHost(u.Hostname()) {
		if err == nil && !strings.ContainsAny(text, "@?") && !strings.Contains(text, "://") {
			if v, err := url.Parse("https://" + text); err == nil && isHost(v.Hostname()) && strings.Contains(v.Hostname(), ".") {
				return "is not a complete URL", "https://" + text
			}
		}
		return "is not an absolute http or https URL", ""
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "has a port that is not a whole number from 1 to 65535", ""
		}
	}
	return "", ""
}

package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// intervalVariable is the one variable of the original that follows no rule.
const intervalVariable = "audit-agent-interval"

// mostNames bounds how many unknown variables are named in warnings.
const mostNames = 16

// For each Service, Kubernetes sets variables of these forms in every container of the namespace. A Service
// named immuclient thus sets IMMUCLIENT_PORT=tcp://10.0.0.1:9477, and one named immuclient-immudb even
// IMMUCLIENT_IMMUDB_PORT.
var (
	serviceVariable = regexp.MustCompile(`^IMMUCLIENT_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	serviceURL      = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// environment splits what os.Environ gives; the last of several equal names counts.
func environment(environ []string) map[string]string {
	values := make(map[string]string, len(environ))
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok && name != "" {
			values[name] = value
		}
	}
	return values
}

func (l *loader) readEnviron() {
	known := map[string]bool{}
	for i := range l.settings {
		s := &l.settings[i]
		name := s.variable()
		known[name] = true
		value := l.host.environ[name]
		if file := s.fileVariable(); file != "" {
			known[file] = true
			l.readSecret(s)
		}
		if s.kind == number && serviceURL.MatchString(value) {
			l.warn("environment variable %s is ignored: its value %s comes from a Kubernetes Service and is not a number; set enableServiceLinks: false in the pod, or give --%s", name, quote(value), s.name)
			continue
		}
		// An empty variable is how container tools pass "not set".
		if value != "" {
			l.add(s, given{value, origin{strength: fromEnviron, name: name}})
		}
	}
	if value := l.host.environ[intervalVariable]; value != "" {
		l.add(find(l.settings, "audit-interval"), given{value, origin{strength: fromLeftover, name: intervalVariable}})
	}
	l.warnUnknown(known)
}

// warnUnknown only warns: whoever runs the container does not always choose its environment.
func (l *loader) warnUnknown(known map[string]bool) {
	var services, unknown []string
	for name, value := range l.host.environ {
		switch {
		case !strings.HasPrefix(name, variablePrefix) || known[name]:
		case serviceVariable.MatchString(name) || serviceURL.MatchString(value):
			services = append(services, name)
		default:
			unknown = append(unknown, name)
		}
	}
	slices.Sort(services)
	slices.Sort(unknown)
	if len(services) > 0 {
		l.note("ignored environment variables that Kubernetes sets for a Service and that are no settings: %s", shortList(services))
	}
	for i, name := range unknown {
		if i == mostNames {
			l.warn("%d more unknown environment variables are ignored", len(unknown)-i)
			break
		}
		hint := "`immuclient audit-mode --help` lists the settings"
		if s := nearest(strings.TrimPrefix(name, variablePrefix), settingNames(l.settings)); s != "" {
			hint = "did you mean " + find(l.settings, s).variable() + "?"
		}
		l.warn("environment variable %s is unknown and ignored; %s", printable(name), hint)
	}
}

func settingNames(settings []setting) []string {
	names := make([]string, 0, len(settings))
	for _, s := range settings {
		names = append(names, s.name)
	}
	return names
}

func shortList(names []string) string {
	var shown []string
	for i, name := range names {
		if i == mostNames {
			return strings.Join(shown, ", ") + fmt.Sprintf(" and %d more", len(names)-i)
		}
		shown = append(shown, printable(name))
	}
	return strings.Join(shown, ", ")
}

package config

import (
	"errors"
	"fmt"
	"strings"
)

// host is what values can refer to outside of themselves.
type host struct {
	environ map[string]string
	workDir string
	home    string
	root    bool
}

// loader gathers what was given, what is wrong with it and what is worth a warning.
type loader struct {
	in       Input
	host     host
	settings []setting
	config   *Config
	readable bool // every user of the machine can read the file
	warnings []Warning
	mistakes []error
	tables   []writtenTable
	// serverRows are those of [[server]], made once.
	serverRows []setting
}

// Load reads flags, environment and file and returns a validated Config, or every mistake that it found:
// each an *Error, joined. The warnings are for the log in either case.
func Load(in Input) (*Config, []Warning, error) {
	l := &loader{in: in, settings: table()}
	if l.in.owner == nil {
		l.in.owner = ownerOf
	}
	l.host = host{environ: environment(in.Environ), workDir: in.WorkDir, home: in.Home, root: in.Root}
	l.config = &Config{origins: map[string]given{}, host: l.host}
	l.config.host.environ = map[string]string{} // not the whole environment, which holds secrets
	for _, name := range append(temporaryPlaces(), stateHome) {
		l.config.host.environ[name] = l.host.environ[name]
	}
	for i := range l.settings {
		s := &l.settings[i]
		if s.value == "" {
			continue
		}
		if problem, _ := s.assign(l.config, s.value, &l.host); problem != "" {
			return nil, nil, fmt.Errorf("default of %s %s", s.name, problem)
		}
	}
	l.readFlags()
	l.readEnviron()
	l.readFile()
	l.checkServers()
	l.checkSinks()
	if len(l.mistakes) == 0 {
		l.finish()
	}
	if len(l.mistakes) > 0 {
		return nil, l.warnings, errors.Join(l.mistakes...)
	}
	return l.config, l.warnings, nil
}

func (l *loader) readFlags() {
	if l.in.Flags == nil {
		return
	}
	for i := range l.settings {
		s := &l.settings[i]
		if f := l.in.Flags.Lookup(s.name); f != nil && f.Changed {
			l.add(s, given{f.Value.String(), origin{strength: fromFlag, name: s.name}})
		}
	}
}

// add takes a value unless a stronger source gave one; it must be right in either case.
func (l *loader) add(s *setting, g given) {
	if before, ok := l.config.origins[s.name]; ok && before.strength > g.strength {
		l.try(s, g)
		return
	}
	if l.understand(l.config, s, g) {
		l.config.origins[s.name] = g
	}
}

// try only looks whether a value is right.
func (l *loader) try(s *setting, g given) {
	var scratch Config
	l.understand(&scratch, s, g)
}

func (l *loader) understand(c *Config, s *setting, g given) bool {
	problem, instead := s.assign(c, g.text, &l.host)
	if problem != "" {
		l.fail(g.mistake(s, problem, instead))
	}
	return problem == ""
}

func (l *loader) fail(e *Error) {
	switch {
	case len(l.mistakes) < mostErrors:
		l.mistakes = append(l.mistakes, e)
	case len(l.mistakes) == mostErrors:
		l.mistakes = append(l.mistakes, &Error{Source: "configuration", Problem: "has more mistakes than are listed here", Fix: "correct these first"})
	}
}

// full reports whether further mistakes would not be told: finding what was meant costs time.
func (l *loader) full() bool { return len(l.mistakes) > mostErrors }

func (l *loader) warn(format string, args ...any) {
	l.warnings = append(l.warnings, Warning{Text: fmt.Sprintf(format, args...)})
}

func (l *loader) note(format string, args ...any) {
	l.warnings = append(l.warnings, Warning{Text: fmt.Sprintf(format, args...), Quiet: true})
}

// finish settles what depends on more than one setting.
func (l *loader) finish() {
	l.expandTables()
	if len(l.tablesNamed(serverTable)) > 0 {
		l.serverRows = serverRows()
		l.finishServers()
		l.decodeCredentials()
	} else {
		l.address()
		l.login()
		l.transport()
		l.patience()
	}
	l.finishSinks()
	l.exposure()
	l.remember()

	c := l.config
	if c.Database != "" && len(c.Audit.Databases) > 0 {
		l.note("--database %s is not looked at: --audit-databases says what is audited", printable(c.Database))
	}
	if c.Audit.NotificationURL == "" && (c.Audit.NotificationUsername != "" || c.Audit.NotificationPassword != "") {
		l.warn("credentials for notifications are given but no notification is sent: --audit-notification-url is missing")
	}
}

// login settles who logs in, if anybody does.
func (l *loader) login() {
	if l.in.Offline {
		l.decodeCredentials()
		return
	}
	l.credentials()
}

// decodeCredentials is for a Config that no server is asked with.
func (l *loader) decodeCredentials() {
	c := l.config
	if !l.in.Offline {
		c.Password, c.Audit.NotificationPassword = l.decoded("password"), l.decoded("audit-notification-password")
	}
	c.Audit.Username, c.Audit.Password = l.decoded("audit-username"), l.decoded("audit-password")
}

// patience warns where one failed round is an alert.
func (l *loader) patience() {
	c := l.config
	if c.Audit.StaleAfter < 2*c.Audit.Interval {
		l.warn("one failed round will raise an alert: --audit-stale-after (%s) is shorter than two times --audit-interval (%s)", brief(c.Audit.StaleAfter), brief(c.Audit.Interval))
	}
}

// address splits host:port and settles which port holds where two are given.
func (l *loader) address() {
	c := l.config
	host, port, _, _ := splitAddress(c.Address)
	address, separate := l.config.origins["immudb-address"], l.config.origins["immudb-port"]
	switch {
	case port == 0 || port == c.Port:
	case separate.strength > address.strength:
		l.warn("port %d in the address %s is not used: %s says %d", port, printable(address.text), separate.origin, c.Port)
	case separate.strength == address.strength:
		s := find(l.settings, "immudb-address")
		l.fail(address.mistake(s, fmt.Sprintf("names port %d, but %s says %d", port, separate.origin, c.Port), host))
	default:
		c.Port = port
		l.config.origins["immudb-port"] = given{fmt.Sprint(port), address.origin}
	}
	c.Address = host
	if c.Audit.Server == "" {
		c.Audit.Server = defaultServer(c.Address, c.Port)
	}
}

const (
	defaultUsername = "immudb"
	defaultPassword = "immudb"
)

// credentials settles who logs in. A password belongs to the name that it was given with, so the general one
// is not tried for another auditing user.
func (l *loader) credentials() {
	c := l.config
	c.Password, c.Audit.NotificationPassword = l.decoded("password"), l.decoded("audit-notification-password")
	user, password := l.decoded("audit-username"), l.decoded("audit-password")
	_, hasPassword := c.origins["audit-password"]
	from := "audit-username"
	if !hasPassword || password == "" && c.Password != "" {
		if user == "" || c.Username == "" || user == c.Username {
			_, general := c.origins["password"]
			password, hasPassword = c.Password, hasPassword || general
		}
	}
	if user == "" {
		user, from = c.Username, "username"
	}
	switch {
	case user == "" && password == "":
		user, password = defaultUsername, defaultPassword
		l.warn("no user name is given for auditing: logging in as %s with its well-known default password; give --audit-username and IMMUCLIENT_AUDIT_PASSWORD of a user with read permission", defaultUsername)
	case user == "":
		user = defaultUsername
		l.warn("a password but no user name is given for auditing: logging in as %s; give --audit-username", defaultUsername)
	case !hasPassword:
		l.fail(&Error{Source: c.origins[from].String(), Setting: c.origins[from].label(from), Given: user, Problem: "is given without a password, and an auditor cannot ask for one",
			Fix: "set IMMUCLIENT_AUDIT_PASSWORD or IMMUCLIENT_AUDIT_PASSWORD_FILE, or write audit-password = \"PASSWORD\" in " + fileName})
	}
	c.Audit.Username, c.Audit.Password = user, password
}

// decoded is a value that may have been written as enc:; whether it is right was checked when it was added.
func (l *loader) decoded(name string) string {
	plain, err := DecodePassword(l.config.origins[name].text)
	if err != nil {
		return ""
	}
	return plain
}

// transport looks for settings that promise more protection than the connection will have.
func (l *loader) transport() {
	c := l.config
	if c.MTLS {
		for _, name := range []string{"certificate", "pkey", "clientcas"} {
			if *find(l.settings, name).field(c).(*string) == "" {
				l.fail(&Error{Source: c.origins[name].String(), Setting: c.origins[name].label(name), Problem: "is empty, and --mtls needs it", Fix: "give --" + name + "=FILE, or use --tls instead of --mtls"})
			}
		}
		return
	}
	// The file that the original installs names all of them whether or not they are used.
	for _, name := range []string{"certificate", "pkey", "clientcas"} {
		g, ok := c.origins[name]
		if !ok || g.strength <= fromFile || g.text == "" || name == "clientcas" && c.TLS {
			continue
		}
		if c.TLS {
			l.warn("%s is not used: a client certificate needs --mtls", g.origin)
		} else {
			l.warn("%s is not used and the connection is not encrypted: give --tls or --mtls", g.origin)
		}
	}
}

// exposure tells where secrets can be read by others.
func (l *loader) exposure() {
	var onCommandLine, inFile []string
	for i := range l.settings {
		s := &l.settings[i]
		g, ok := l.config.origins[s.name]
		if !ok || g.text == "" || !s.secret && (s.name != "audit-notification-url" || !mayHoldSecret(g.text)) {
			continue
		}
		switch g.strength {
		case fromFlag:
			onCommandLine = append(onCommandLine, "--"+s.name+" (use "+s.variable()+" or the file)")
		case fromFile:
			inFile = append(inFile, s.name)
		}
	}
	if len(onCommandLine) > 0 {
		l.warn("secrets on the command line are visible to every user of this machine in the list of processes: %s", strings.Join(onCommandLine, ", "))
	}
	inFile = append(inFile, l.tableSecrets()...)
	if len(inFile) > 0 && l.readable {
		l.warn("%s holds secrets (%s) and every user of this machine can read it; chmod o-r it", printable(l.config.ConfigFile), shortList(inFile))
	}
}

// Package service makes the auditor a service of the operating system.
//
// What is to be done is planned first and done afterwards. Look gathers what
// there is (Facts); Install, Uninstall and Control make a Plan of it without
// touching anything; an Applier shows the plan or carries it out. So the plan
// of every verb can be read with --dry-run and compared in a test, and every
// step finds out by itself whether there is anything left to do: each verb can
// be given twice.
//
// On Linux the service is a unit of systemd:
//
//	/etc/systemd/system/immuclient.service   the unit (unit.go says what each line is for)
//	/etc/immudb/immuclient.toml              the configuration, root:immuaudit 0640
//	/usr/local/sbin/immuclient               the program
//	/var/lib/immuclient                      the state, immuaudit:immuaudit 0700
//
// Elsewhere github.com/kardianos/service talks to the service manager
// (other.go). Package service knows neither the configuration nor the state
// directory from inside: it is given bytes and paths.
package service

import (
	"fmt"
	"path/filepath"
	"strings"
)

const (
	// Name is that of the service and its unit, as in the original.
	Name = "immuclient"
	// Account is the user and the group of the service. It is never the
	// database server's (immu): whoever takes over the server must not own
	// what convicts it.
	Account = "immuaudit"

	unitName = Name + ".service"

	// guardName is the directory for the guard: a service can write into
	// directories of its own alone, and not beside them.
	guardName = Name + "-guard"
	unixGuard = "/var/lib/" + guardName + "/state.guard"
)

// Paths are the places of an installation.
type Paths struct {
	Config string // what install writes
	// Original is where the original's installation keeps its configuration;
	// empty where it is the same place.
	Original string
	Binary   string
	Unit     string // the systemd unit, or what serves as one
	State    string
	Guard    string // the file that witnesses the state, in a directory of its own
	Log      string // the log file, where there is no journal
}

// PathsOf gives the places for an operating system, as in runtime.GOOS.
func PathsOf(goos string) Paths {
	switch goos {
	case "windows":
		const home = `C:\ProgramData\ImmuClient`
		return Paths{
			Config: home + `\config\immuclient.toml`, Binary: `C:\Program Files\ImmuClient\immuclient.exe`,
			State: home + `\state`, Guard: home + `\guard\state.guard`, Log: home + `\log\immuclient.log`,
		}
	case "darwin":
		return Paths{
			Config: "/etc/immudb/immuclient.toml", Original: "/etc/immuclient/immuclient.toml", Binary: "/usr/local/sbin/immuclient",
			Unit: "/Library/LaunchDaemons/immuclient.plist", State: "/var/lib/immuclient", Guard: unixGuard, Log: "/var/log/immuclient/immuclient.log",
		}
	case "freebsd":
		return Paths{
			Config: "/etc/immudb/immuclient.toml", Original: "/etc/immuclient/immuclient.toml", Binary: "/usr/local/sbin/immuclient",
			Unit: "/usr/local/etc/rc.d/immuclient", State: "/var/lib/immuclient", Guard: unixGuard, Log: "/var/log/immuclient/immuclient.log",
		}
	}
	return Paths{
		Config: "/etc/immudb/immuclient.toml", Original: "/etc/immuclient/immuclient.toml", Binary: "/usr/local/sbin/immuclient",
		Unit: "/etc/systemd/system/" + unitName, State: "/var/lib/immuclient", Guard: unixGuard,
	}
}

// Options is what the caller wants installed.
type Options struct {
	Executable string // the program to copy
	Config     []byte // the whole new configuration file
	Shown      []byte // the same without secrets, for --dry-run
	State      string // absolute, as the configuration says
	Guard      string // the file that witnesses it; "" = none is known
	LogFile    string // "" = standard error
	PidFile    string // "" = none
	// Reads are further files that the service has to read: certificates, keys.
	Reads []string
	// Imports are done once the state directory is there and before the
	// service is started.
	Imports []Call
	// NoStart leaves the service enabled and as it is, running or not.
	NoStart bool
}

func (o *Options) check() error {
	for _, p := range append([]string{o.Executable, o.State, o.Guard, o.LogFile, o.PidFile}, o.Reads...) {
		if err := checkPath(p); err != nil {
			return err
		}
	}
	for _, p := range append([]string{o.Guard, o.LogFile, o.PidFile}, o.Reads...) {
		if within(p, "/tmp") || within(p, "/var/tmp") {
			return fmt.Errorf("%s is in a temporary directory, and the service sees only one of its own; choose another place", p)
		}
	}
	return nil
}

// checkPath refuses names that cannot be written into a unit.
func checkPath(p string) error {
	switch {
	case p == "":
		return nil
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("the name %q has control characters in it; choose another", p)
	case !filepath.IsAbs(p) && !strings.HasPrefix(p, `C:\`):
		return fmt.Errorf("the name %q is relative, and a service has no working directory of its own; write it in full", p)
	}
	return nil
}

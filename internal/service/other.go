package service

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
)

// Definition is the service as another service manager than systemd gets to
// know it, through github.com/kardianos/service.
type Definition struct {
	Name, DisplayName, Description string
	Executable                     string
	Arguments                      []string
	// Option are kardianos's own; among them, for launchd and rc.d, the whole
	// text of what is written.
	Option map[string]any
}

// Define gives the definition for an operating system.
func Define(goos string, paths Paths, o Options) Definition {
	d := Definition{
		Name: Name, DisplayName: "immudb auditor", Description: "Audits immudb servers from outside",
		Executable: paths.Binary, Arguments: []string{"audit-mode", "--config", paths.Config},
	}
	switch goos {
	case "windows":
		d.Option = map[string]any{
			"StartType": "automatic", "DelayedAutoStart": true,
			"OnFailure": "restart", "OnFailureDelayDuration": "5s", "OnFailureResetPeriod": 60,
		}
	case "darwin":
		d.Option = map[string]any{"LaunchdConfig": propertyList(d, o), "KeepAlive": true, "RunAtLoad": true}
	case "freebsd":
		d.Option = map[string]any{"SysvScript": rcScript(d)}
	}
	return d
}

// propertyList is the property list for launchd (launchd.plist(5)).
func propertyList(d Definition, o Options) string {
	var b strings.Builder
	text := func(s string) string {
		var e strings.Builder
		_ = xml.EscapeText(&e, []byte(s)) // a Builder takes everything
		return "<string>" + e.String() + "</string>\n"
	}
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	` + text(d.Name) + `	<key>ProgramArguments</key>
	<array>
`)
	for _, arg := range append([]string{d.Executable}, d.Arguments...) {
		b.WriteString("\t\t" + text(arg))
	}
	b.WriteString(`	</array>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<true/>
	<key>ThrottleInterval</key>
	<integer>5</integer>
	<key>ExitTimeOut</key>
	<integer>10</integer>
	<key>Umask</key>
	<integer>63</integer>
`)
	if o.LogFile == "" {
		b.WriteString("\t<key>StandardErrorPath</key>\n\t" + text("/var/log/"+d.Name+".err.log"))
	}
	b.WriteString("</dict>\n</plist>\n")
	return b.String()
}

// rcScript is the script for rc.d (rc.subr(8)). daemon(8) restarts the auditor
// when it ends by itself.
func rcScript(d Definition) string {
	quoted := make([]string, len(d.Arguments))
	for i, arg := range d.Arguments {
		quoted[i] = words([]string{arg})
	}
	return `#!/bin/sh

# PROVIDE: ` + d.Name + `
# REQUIRE: LOGIN NETWORKING
# KEYWORD: shutdown

. /etc/rc.subr

name="` + d.Name + `"
desc="` + d.Description + `"
rcvar="` + d.Name + `_enable"

load_rc_config $name
: ${` + d.Name + `_enable:="YES"}

pidfile="/var/run/${name}.pid"
command="/usr/sbin/daemon"
command_args="-f -S -T ${name} -R 5 -P ${pidfile} -u ` + Account + ` ` + d.Executable + ` ` + strings.Join(quoted, " ") + `"

run_rc_command "$1"
`
}

// installOther plans the installation where systemd is not.
func installOther(f Facts, o Options) (Plan, error) {
	var p Plan
	if f.Root != "" {
		return p, errors.New("--root is for the images of Linux systems")
	}
	service := accountOwner
	shared := readers
	switch f.GOOS {
	case "windows":
		service, shared = rootOwner, rootOwner
	case "darwin":
		// No single command makes an account there.
		service, shared = rootOwner, rootOwner
		p.note("on macOS the auditor runs as root")
	case "freebsd":
		p.add(MakeAccount{Home: o.State, Commands: f.AccountCommands})
	default:
		return p, fmt.Errorf("there is no service for %s here; start %s audit-mode --config %s from its own service manager", f.GOOS, f.Paths.Binary, f.Paths.Config)
	}
	p.add(MakeDir{Path: parent(f.Paths.Config), Mode: 0o755, Owner: rootOwner})
	if f.GOOS == "windows" {
		// Every user may make files below ProgramData: only SYSTEM (S-1-5-18)
		// and administrators (S-1-5-32-544) may here.
		p.add(Run{
			Argv: []string{"icacls", parent(parent(f.Paths.Config)), "/inheritance:r", "/grant:r", "*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F", "/T", "/Q"},
			Done: "let nobody but SYSTEM and administrators into " + parent(parent(f.Paths.Config)),
		})
	}
	p.add(
		WriteFile{Path: f.Paths.Config, Mode: 0o640, Owner: shared, Content: o.Config, Shown: o.Shown},
		MakeDir{Path: parent(f.Paths.Binary), Mode: 0o755, Owner: rootOwner},
		CopyBinary{From: o.Executable, Path: f.Paths.Binary, Owner: rootOwner},
		MakeDir{Path: o.State, Mode: 0o700, Owner: service, Own: true},
	)
	if o.Guard != "" {
		dir := parent(o.Guard)
		p.add(MakeDir{Path: dir, Mode: 0o700, Owner: service, Own: dir == parent(f.Paths.Guard)})
	}
	if o.LogFile != "" {
		p.add(MakeDir{Path: parent(o.LogFile), Mode: 0o750, Owner: service})
	}
	for _, c := range o.Imports {
		p.add(c)
	}
	d := Define(f.GOOS, f.Paths, o)
	what := fmt.Sprintf("define the service %s: %s", d.Name, words(append([]string{d.Executable}, d.Arguments...)))
	for _, key := range []string{"LaunchdConfig", "SysvScript"} {
		if text, ok := d.Option[key].(string); ok {
			what = fmt.Sprintf("write %s:\n%s", f.Paths.Unit, indent(text))
		}
	}
	p.add(Call{What: what, Do: func(context.Context) ([]string, bool, error) { return d.install() }})
	if !o.NoStart {
		p.add(Call{What: "start the service " + d.Name, Do: func(context.Context) ([]string, bool, error) { return d.control("restart") }})
	}
	return p, nil
}

func uninstallOther(f Facts, p *Plan) error {
	if f.Root != "" {
		return errors.New("--root is for the images of Linux systems")
	}
	d := Define(f.GOOS, f.Paths, Options{})
	p.add(Call{What: "stop and remove the service " + d.Name, Do: func(context.Context) ([]string, bool, error) { return d.uninstall() }})
	return nil
}

func controlOther(f Facts, verb string) (Plan, error) {
	d := Define(f.GOOS, f.Paths, Options{})
	return Plan{Steps: []Step{Call{What: verb + " the service " + d.Name, Do: func(context.Context) ([]string, bool, error) { return d.control(verb) }}}}, nil
}

// parent is the directory of a path of any operating system.
func parent(path string) string {
	if i := strings.LastIndexAny(path, `/\`); i > 0 {
		return path[:i]
	}
	return path
}

package service

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// ErrNotInstalled: there is no such service.
var ErrNotInstalled = errors.New("the service is not installed; type immuclient audit-mode install")

func systemctl(verb ...string) []string { return append([]string{"systemctl"}, verb...) }

// Install plans the installation, the first one and every later one.
func Install(f Facts, o Options) (Plan, error) {
	if err := o.check(); err != nil {
		return Plan{}, err
	}
	if f.GOOS != "linux" {
		return installOther(f, o)
	}
	if !f.Systemd {
		return Plan{}, fmt.Errorf("this system is not run by systemd, and no other service manager of Linux is known here; start it from yours: %s audit-mode --config %s (--root DIR writes the files for a system with systemd)", f.Paths.Binary, f.Paths.Config)
	}
	var p Plan
	live := f.Root == ""
	if f.Unit.Exists && !f.Unit.Ours {
		if live {
			p.add(Run{Argv: systemctl("stop", unitName), Done: "stopped the immuclient that was installed before"})
		}
		if f.Unit.Path == f.Paths.Unit {
			p.add(SetAside{f.Paths.Unit})
		}
		p.note("the unit %s was not written by this program: it is an original's, or somebody's own, and the new one takes its place", f.Unit.Path)
	}
	p.add(
		MakeAccount{Home: o.State, Commands: f.AccountCommands},
		MakeDir{Path: filepath.Dir(f.Paths.Config), Mode: 0o755, Owner: rootOwner},
		WriteFile{Path: f.Paths.Config, Mode: 0o640, Owner: readers, Content: o.Config, Shown: o.Shown},
		MakeDir{Path: filepath.Dir(f.Paths.Binary), Mode: 0o755, Owner: rootOwner},
		CopyBinary{From: o.Executable, Path: f.Paths.Binary, Owner: rootOwner},
	)
	if f.ConfigDir.Foreign != "" || f.ConfigDir.Mode&0o022 != 0 {
		p.note("%s can be changed by others (%s, mode %04o): they can put another configuration in place of the auditor's and turn its alarms away; chown root:root and chmod go-w it", filepath.Dir(f.Paths.Config), orRoot(f.ConfigDir.Foreign), f.ConfigDir.Mode.Perm())
	} else if f.ConfigDir.Exists && f.ConfigDir.Mode&0o001 == 0 {
		p.note("%s cannot be entered by the account %s, which has to read its configuration there; chmod o+x it", filepath.Dir(f.Paths.Config), Account)
	}
	if err := p.directories(&f, &o); err != nil {
		return Plan{}, err
	}
	for _, c := range o.Imports {
		p.add(c)
	}
	p.add(MakeDir{Path: filepath.Dir(f.Paths.Unit), Mode: 0o755, Owner: rootOwner}, WriteFile{Path: f.Paths.Unit, Mode: 0o644, Owner: rootOwner, Content: []byte(unit(&f, &o))})
	if !live {
		wants := filepath.Join(filepath.Dir(f.Paths.Unit), "multi-user.target.wants")
		p.add(MakeDir{Path: wants, Mode: 0o755, Owner: rootOwner}, Link{Path: filepath.Join(wants, unitName), Target: "../" + unitName})
		return p, nil
	}
	journal := []string{"journalctl", "--unit", unitName, "--lines=15", "--no-pager", "--output=cat"}
	p.add(
		Run{Argv: systemctl("daemon-reload")},
		Run{Argv: systemctl("--quiet", "enable", unitName), Done: "enabled " + unitName},
	)
	if o.NoStart {
		return p, nil
	}
	p.add(
		Run{Argv: systemctl("try-restart", unitName), OnlyChanged: true, After: journal},
		Run{Argv: systemctl("start", unitName), Done: unitName + " is running", After: journal},
	)
	return p, nil
}

func orRoot(user string) string {
	if user == "" {
		return "root's"
	}
	return user + "'s"
}

// directories plans the places that the service writes to.
func (p *Plan) directories(f *Facts, o *Options) error {
	own := MakeDir{Path: o.State, Mode: 0o700, Owner: accountOwner, Own: true}
	switch {
	// The state decides what is trusted. Who owned the directory may have
	// written it.
	case f.State.Foreign != "" && f.State.HoldsState:
		return fmt.Errorf("%s holds an auditor's state and belongs to %s: whoever has that account may have changed what is trusted. If you know that nobody did: chown -R %s %s; else move it away; then try again", o.State, f.State.Foreign, accountOwner, o.State)
	case isSystemDir(o.State),
		(f.State.Root || f.State.Foreign != "") && !f.State.Empty && !f.State.HoldsState && filepath.Base(o.State) != Name:
		return fmt.Errorf("%s is used by others, and the state needs a directory of its own; name one with --dir", o.State)
	case f.State.Foreign != "":
		p.note("%s belonged to %s and belongs to %s now; what was in it is as it was", o.State, f.State.Foreign, Account)
		p.add(own)
	case f.State.Root && f.State.HoldsState:
		p.add(TakeOver{o.State}, own)
	default:
		p.add(own)
	}
	if err := p.guard(f, o); err != nil {
		return err
	}
	if o.LogFile != "" && !within(o.LogFile, o.State) {
		dir := filepath.Dir(o.LogFile)
		if ownDir(dir, f.LogDir) {
			p.add(MakeDir{Path: dir, Mode: 0o750, Owner: accountOwner, Own: true})
		}
		if f.LogFile.Others {
			p.add(SetAside{o.LogFile})
		}
		p.add(Touch{Path: o.LogFile, Mode: 0o640, Owner: accountOwner})
	} else if f.LogFile.Others {
		p.add(SetAside{o.LogFile})
	}
	if o.PidFile != "" {
		dir := filepath.Dir(o.PidFile)
		switch {
		case within(o.PidFile, o.State):
		case dir == "/run/"+Name || dir == "/var/run/"+Name: // made by systemd at each start
		case ownDir(dir, f.PidDir):
			p.add(MakeDir{Path: dir, Mode: 0o755, Owner: accountOwner, Own: true})
		default:
			return fmt.Errorf("the pid file %s is in a directory that is not the service's, which cannot write there; set pidfile to /run/%s/%s.pid", o.PidFile, Name, Name)
		}
		if f.PidFile.Others {
			p.add(SetAside{o.PidFile})
		}
	}
	return nil
}

// guard plans the place of the state's guard.
func (p *Plan) guard(f *Facts, o *Options) error {
	if o.Guard == "" {
		return nil
	}
	dir := filepath.Dir(o.Guard)
	own := filepath.Base(dir) == guardName
	switch {
	case within(o.Guard, o.State):
		return fmt.Errorf("the guard %s is in the state directory, and would be rolled back and deleted together with it; set state-guard to a file elsewhere", o.Guard)
	case isSystemDir(dir), !own && (f.GuardDir.Root || f.GuardDir.Foreign != ""):
		return fmt.Errorf("the guard %s is in a directory that is not the service's, which cannot write there; set state-guard to %s", o.Guard, filepath.Join(dir, guardName, filepath.Base(o.Guard)))
	case f.GuardDir.Foreign != "":
		return fmt.Errorf("%s belongs to %s: whoever has that account may have changed the guard in it. If you know that nobody did: chown -R %s %s; else move it away; then try again", dir, f.GuardDir.Foreign, accountOwner, dir)
	case f.GuardDir.Root && f.Guard.Others:
		p.add(TakeOver{dir})
	}
	p.add(MakeDir{Path: dir, Mode: 0o700, Owner: accountOwner, Own: own || !f.GuardDir.Exists})
	return nil
}

// isSystemDir knows directories that must not be given to a service.
func isSystemDir(dir string) bool {
	switch filepath.Clean(dir) {
	case "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/local", "/var", "/var/lib", "/var/log", "/var/run", "/var/tmp", "/etc/immudb", "/etc/immuclient", "/var/lib/immudb":
		return true
	}
	return false
}

// Uninstall plans the removal of the service. With purge configuration, state
// and account go too, but only what an auditor makes: a directory with more in
// it stays.
func Uninstall(f Facts, o Options, purge bool) (Plan, error) {
	var p Plan
	live := f.Root == ""
	switch {
	case f.GOOS != "linux":
		if err := uninstallOther(f, &p); err != nil {
			return Plan{}, err
		}
		p.add(Remove{Path: f.Paths.Binary})
	case f.Unit.Exists && !f.Unit.Ours:
		return Plan{}, fmt.Errorf("the unit %s was not written by this program; remove it by hand: systemctl disable --now %s", f.Unit.Path, unitName)
	default:
		if f.Unit.Exists && live && f.Systemd {
			p.add(Run{Argv: systemctl("--quiet", "disable", "--now", unitName), Done: "stopped and disabled " + unitName})
		}
		if !live {
			p.add(Remove{Path: filepath.Join(filepath.Dir(f.Paths.Unit), "multi-user.target.wants", unitName)})
		}
		// Without a unit of ours the program may be somebody's who runs it by hand.
		if f.Unit.Ours {
			p.add(Remove{Path: f.Paths.Binary})
		}
		p.add(Remove{Path: f.Paths.Unit})
		if f.Unit.Exists && live && f.Systemd {
			p.add(Run{Argv: systemctl("daemon-reload")})
		}
	}
	if !purge {
		p.note("configuration (%s), state and evidence (%s) are kept; --purge removes them too", f.Paths.Config, o.State)
		return p, nil
	}
	p.add(Remove{Path: f.Paths.Config})
	for _, name := range stateFiles {
		p.add(Remove{Path: filepath.Join(o.State, name), All: name == "evidence" || name == "mirror"})
	}
	for _, path := range []string{o.LogFile, o.PidFile} {
		if path != "" {
			p.add(Remove{Path: path})
			if dir := filepath.Dir(path); filepath.Base(dir) == Name && dir != filepath.Clean(o.State) {
				p.add(Remove{Path: dir})
			}
		}
	}
	p.add(Remove{Path: o.State})
	// The usual place may have been in use before another one was named.
	for _, guard := range slices.Compact([]string{o.Guard, f.Paths.Guard}) {
		if guard == "" {
			continue
		}
		p.add(Remove{Path: guard}, Remove{Path: guard + ".new"})
		if dir := parent(guard); guard == f.Paths.Guard || filepath.Base(dir) == guardName {
			p.add(Remove{Path: dir})
		}
	}
	if live && len(f.AccountCommands) > 0 {
		switch f.AccountCommands[0][0] {
		case "groupadd":
			p.add(Run{Argv: []string{"sh", "-c", "! getent passwd " + Account + " >/dev/null || userdel " + Account}, Done: "removed the account " + Account})
		case "pw":
			p.add(Run{Argv: []string{"sh", "-c", "! pw usershow " + Account + " >/dev/null 2>&1 || pw userdel " + Account}, Done: "removed the account " + Account})
		default:
			p.note("the account %s is left; remove it with this system's own program", Account)
		}
	}
	return p, nil
}

// stateFiles are what an auditor keeps in its state directory.
var stateFiles = [...]string{"state.db", "state.db-wal", "state.db-shm", "state.id", "state.id.new", "state.new", "auditor.lock", "auditor.key", "probe.sock", "evidence", "mirror", "history.db", "history.db-wal", "history.db-shm"}

// Control plans start, stop and restart.
func Control(f Facts, verb string) (Plan, error) {
	if f.GOOS != "linux" {
		return controlOther(f, verb)
	}
	if f.Root != "" || !f.Systemd {
		return Plan{}, fmt.Errorf("this system is not run by systemd, so there is no service to %s", verb)
	}
	if !f.Unit.Exists {
		if verb == "stop" {
			return Plan{Notes: []string{"the service is not installed, so it does not run"}}, nil
		}
		return Plan{}, ErrNotInstalled
	}
	done := map[string]string{"start": "is running", "stop": "is stopped", "restart": "was restarted"}[verb]
	return Plan{Steps: []Step{Run{
		Argv: systemctl(verb, unitName), Done: unitName + " " + done,
		After: []string{"journalctl", "--unit", unitName, "--lines=15", "--no-pager", "--output=cat"},
	}}}, nil
}

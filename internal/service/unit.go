package service

import (
	"path/filepath"
	"slices"
	"strings"
)

// marker is how install knows its own unit again.
const marker = "# Written by immuclient audit-mode install."

// unit renders the unit of systemd. Every line of the sandbox takes something
// away that the auditor does not need: it reads its configuration, keeps its
// state, listens on one port and connects to immudb and to where its alarms go.
func unit(f *Facts, o *Options) string {
	var b strings.Builder
	line := func(words ...string) { b.WriteString(strings.Join(words, "") + "\n") }
	line(marker)
	line("# It is written anew by the next install: put changes into ", f.Paths.Unit, ".d/*.conf (systemctl edit ", Name, ").")
	line("[Unit]")
	line("Description=Auditor for immudb")
	line("Documentation=man:immuclient(1)")
	line("Wants=network-online.target")
	line("After=network-online.target")
	// An auditor that gave up is one that was silenced: it tries for ever.
	line("StartLimitIntervalSec=0")
	line()
	line("[Service]")
	line("Type=notify")
	line("NotifyAccess=main")
	line("ExecStart=", execWord(f.Paths.Binary), " audit-mode --config ", execWord(f.Paths.Config))
	// The shell's own kill: there is not always a program of that name.
	line("ExecReload=/bin/sh -c 'kill -HUP ${MAINPID}'")
	line("User=", Account)
	line("Group=", Account)
	line("UMask=0077")
	line("WorkingDirectory=/")
	line("Restart=always")
	line("RestartSec=5")
	// Fed while the scheduler turns and no round is past its deadline.
	line("WatchdogSec=30")
	line("TimeoutStartSec=90")
	line("TimeoutStopSec=10")
	line("OOMScoreAdjust=-100")
	line("MemoryMax=2G")
	line("TasksMax=512")
	line("LimitNOFILE=16384")
	line("LimitCORE=0")
	line()
	for _, l := range writable(f, o) {
		line(l)
	}
	if private := underHome(o); len(private) > 0 {
		// Nothing of the homes is seen but what the configuration names.
		line("ProtectHome=tmpfs")
		for _, l := range private {
			line(l)
		}
	} else {
		line("ProtectHome=yes")
	}
	for _, l := range sandbox {
		line(l)
	}
	line()
	line("[Install]")
	line("WantedBy=multi-user.target")
	return b.String()
}

// sandbox is what does not depend on the configuration.
var sandbox = [...]string{
	"ProtectSystem=strict",
	"PrivateTmp=yes",
	"PrivateMounts=yes",
	"PrivateDevices=yes",
	"DevicePolicy=closed",
	"PrivateUsers=yes",
	"PrivateIPC=yes",
	"ProtectProc=invisible",
	"ProcSubset=pid",
	"ProtectClock=yes",
	"ProtectControlGroups=yes",
	"ProtectHostname=yes",
	"ProtectKernelLogs=yes",
	"ProtectKernelModules=yes",
	"ProtectKernelTunables=yes",
	"NoNewPrivileges=yes",
	"CapabilityBoundingSet=",
	"AmbientCapabilities=",
	"KeyringMode=private",
	"LockPersonality=yes",
	"MemoryDenyWriteExecute=yes",
	"RemoveIPC=yes",
	"RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
	"RestrictNamespaces=yes",
	"RestrictRealtime=yes",
	"RestrictSUIDSGID=yes",
	"SystemCallArchitectures=native",
	"SystemCallFilter=@system-service",
	"SystemCallFilter=~@privileged @resources",
	"SystemCallErrorNumber=EPERM",
}

// writable are the places that the configuration names, and no others.
func writable(f *Facts, o *Options) []string {
	var lines []string
	path := func(p string) {
		l := "ReadWritePaths=" + unitWord(p)
		if !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	var owned []string
	for _, dir := range o.directories() {
		if base := filepath.Base(dir); dir == "/var/lib/"+base && (base == Name || base == guardName) {
			owned = append(owned, base)
		} else {
			path(dir)
		}
	}
	if len(owned) > 0 {
		lines = append([]string{"StateDirectory=" + strings.Join(owned, " "), "StateDirectoryMode=0700"}, lines...)
	}
	switch dir := filepath.Dir(o.LogFile); {
	case o.LogFile == "" || within(o.LogFile, o.State):
	case dir == "/var/log/"+Name:
		lines = append(lines, "LogsDirectory="+Name, "LogsDirectoryMode=0750")
	case ownDir(dir, f.LogDir):
		path(dir)
	default:
		path(o.LogFile)
	}
	switch dir := filepath.Dir(o.PidFile); {
	case o.PidFile == "" || within(o.PidFile, o.State):
	case dir == "/run/"+Name || dir == "/var/run/"+Name:
		lines = append(lines, "RuntimeDirectory="+Name, "RuntimeDirectoryMode=0755")
	default:
		path(dir)
	}
	return lines
}

// directories are where the state and its guard are kept.
func (o *Options) directories() []string {
	if o.Guard == "" {
		return []string{o.State}
	}
	return []string{o.State, filepath.Dir(o.Guard)}
}

// ownDir reports whether a directory can be given to the service: one of its
// name, or one that there is not yet.
func ownDir(dir string, fact DirFact) bool { return filepath.Base(dir) == Name || !fact.Exists }

// homes are what ProtectHome hides.
var homes = [...]string{"/home", "/root", "/run/user"}

func inHome(p string) bool {
	return slices.ContainsFunc(homes[:], func(h string) bool { return within(p, h) })
}

func underHome(o *Options) []string {
	var lines []string
	for _, dir := range o.directories() {
		if inHome(dir) {
			lines = append(lines, "BindPaths="+unitWord(dir))
		}
	}
	if o.LogFile != "" && inHome(o.LogFile) && !within(o.LogFile, o.State) {
		lines = append(lines, "BindPaths="+unitWord(filepath.Dir(o.LogFile)))
	}
	for _, p := range o.Reads {
		if inHome(p) {
			lines = append(lines, "BindReadOnlyPaths="+unitWord(p))
		}
	}
	return lines
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// unitWord writes one word of a list, as systemd.syntax(7) wants it.
func unitWord(s string) string {
	s = strings.ReplaceAll(s, "%", "%%")
	if strings.ContainsAny(s, " \\\"':") {
		s = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, ":", `\:`).Replace(s) + `"`
	}
	return s
}

// execWord writes one word of a command line, where $ means something too.
func execWord(s string) string { return strings.ReplaceAll(unitWord(s), "$", "$$") }

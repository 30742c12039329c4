package service

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fresh is a system with systemd and nothing of ours.
func fresh() Facts {
	return Facts{
		GOOS: "linux", Paths: PathsOf("linux"), Systemd: true,
		AccountCommands: accountCommands("/var/lib/immuclient")[0].argv,
	}
}

func usual() Options {
	return Options{
		Executable: "/home/admin/immuclient", State: "/var/lib/immuclient", Guard: "/var/lib/immuclient-guard/state.guard",
		Config: []byte("audit-password = \"enc:czNjcmV0\"\n"), Shown: []byte("audit-password = \"(hidden)\"\n"),
	}
}

// TestPlans compares what each verb is going to do with testdata/NAME.plan. To
// write them anew: UPDATE_PLANS=1 go test ./internal/service
func TestPlans(t *testing.T) {
	t.Parallel()
	installed := fresh()
	installed.Unit = UnitFact{Exists: true, Ours: true, Path: installed.Paths.Unit}
	original := fresh()
	original.Unit = UnitFact{Exists: true, Path: original.Paths.Unit}
	original.State = DirFact{Exists: true, Foreign: "immu", Mode: 0o755}
	original.LogFile, original.LogDir = FileFact{Others: true}, DirFact{Exists: true, Foreign: "immu"}
	original.PidFile, original.PidDir = FileFact{Others: true}, original.State
	originals := usual()
	originals.LogFile, originals.PidFile = "/var/log/immuclient/immuclient.log", "/var/lib/immuclient/immuclient.pid"
	originals.Imports = []Call{{What: "take over the trusted states of the original in /var/lib/kept"}}
	image := fresh()
	image.Root, image.AccountCommands = "/srv/image", nil
	elsewhere := usual()
	elsewhere.State, elsewhere.LogFile, elsewhere.PidFile = "/data/50% off/state", "/var/log/audit.log", "/run/immuclient/pid"
	elsewhere.Guard = "/mnt/50% disk/guard"
	elsewhere.Reads = []string{"/etc/ssl/ca.pem", "/home/admin/it's mine/key.pem"}
	byRoot := fresh()
	byRoot.State = DirFact{Exists: true, Root: true, HoldsState: true, Mode: 0o700}
	byRoot.GuardDir, byRoot.Guard = DirFact{Exists: true, Root: true}, FileFact{Others: true}
	byRoot.ConfigDir = DirFact{Exists: true, Foreign: "immu", Mode: 0o755}
	logs := fresh()
	logs.LogDir = DirFact{Exists: true, Root: true}
	other := func(goos string, logged bool) (Facts, Options) {
		f, o := fresh(), usual()
		f.GOOS, f.Paths, f.Systemd = goos, PathsOf(goos), false
		o.State, o.Guard = f.Paths.State, f.Paths.Guard
		if logged {
			o.LogFile = f.Paths.Log
		}
		if goos == "freebsd" {
			f.AccountCommands = accountCommands(o.State)[3].argv
		}
		return f, o
	}
	windows, onWindows := other("windows", true)
	darwin, onDarwin := other("darwin", false)
	freebsd, onFreeBSD := other("freebsd", true)

	for name, plan := range map[string]func() (Plan, error){
		"install":           func() (Plan, error) { return Install(fresh(), usual()) },
		"install-only":      func() (Plan, error) { o := usual(); o.NoStart = true; return Install(fresh(), o) },
		"install-image":     func() (Plan, error) { return Install(image, usual()) },
		"install-original":  func() (Plan, error) { return Install(original, originals) },
		"install-elsewhere": func() (Plan, error) { return Install(logs, elsewhere) },
		"install-roots":     func() (Plan, error) { return Install(byRoot, usual()) },
		"install-windows":   func() (Plan, error) { return Install(windows, onWindows) },
		"install-darwin":    func() (Plan, error) { return Install(darwin, onDarwin) },
		"install-freebsd":   func() (Plan, error) { return Install(freebsd, onFreeBSD) },
		"uninstall":         func() (Plan, error) { return Uninstall(installed, usual(), false) },
		"uninstall-purge":   func() (Plan, error) { return Uninstall(installed, originals, true) },
		"uninstall-nothing": func() (Plan, error) { return Uninstall(fresh(), usual(), false) },
		"uninstall-elsewhere": func() (Plan, error) {
			o := usual()
			o.Guard = "/mnt/witness/guard"
			return Uninstall(installed, o, true)
		},
		"uninstall-image":   func() (Plan, error) { return Uninstall(image, usual(), true) },
		"uninstall-freebsd": func() (Plan, error) { return Uninstall(freebsd, onFreeBSD, true) },
		"start":             func() (Plan, error) { return Control(installed, "start") },
		"stop-nothing":      func() (Plan, error) { return Control(fresh(), "stop") },
		"restart-windows":   func() (Plan, error) { return Control(windows, "restart") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := plan()
			if err != nil {
				t.Fatal(err)
			}
			got := p.String()
			if strings.Contains(got, "czNjcmV0") {
				t.Error("the plan shows a secret")
			}
			golden(t, filepath.Join("testdata", name+".plan"), got)
		})
	}
}

// TestUnit keeps the unit that is handed out equal to the one that install
// writes where nothing else is asked for.
func TestUnit(t *testing.T) {
	t.Parallel()
	f, o := fresh(), usual()
	golden(t, "../../deploy/systemd/immuclient.service", unit(&f, &o))
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE_PLANS") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(got)) {
		t.Errorf("not as in %s (UPDATE_PLANS=1 writes it anew):\n%s", file, got)
	}
}

func TestPlansRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*Facts, *Options)
		want   string
	}{
		"no systemd":                   {func(f *Facts, _ *Options) { f.Systemd = false }, "not run by systemd"},
		"another system":               {func(f *Facts, _ *Options) { f.GOOS = "plan9" }, "no service for plan9"},
		"state of the database's user": {func(f *Facts, _ *Options) { f.State = DirFact{Exists: true, Foreign: "immu", HoldsState: true} }, "belongs to immu: whoever has that account"},
		"state in a home":              {func(f *Facts, o *Options) { o.State = "/home/bob"; f.State = DirFact{Exists: true, Foreign: "bob"} }, "used by others"},
		"state in root's things":       {func(f *Facts, o *Options) { o.State = "/data"; f.State = DirFact{Exists: true, Root: true} }, "used by others"},
		"state in a system directory":  {func(f *Facts, o *Options) { o.State = "/srv"; f.State = DirFact{Exists: true, Root: true, Empty: true} }, "a directory of its own"},
		"state at the top":             {func(_ *Facts, o *Options) { o.State = "/" }, "a directory of its own"},
		"guard in the state":           {func(_ *Facts, o *Options) { o.Guard = "/var/lib/immuclient/guard" }, "rolled back and deleted together with it"},
		"guard beside the state":       {func(_ *Facts, o *Options) { o.Guard = "/var/lib/immuclient.guard" }, "which cannot write there; set state-guard to /var/lib/immuclient-guard/immuclient.guard"},
		"guard in root's things":       {func(f *Facts, o *Options) { o.Guard = "/mnt/x/guard"; f.GuardDir = DirFact{Exists: true, Root: true} }, "set state-guard to /mnt/x/immuclient-guard/guard"},
		"guard in a home": {func(f *Facts, o *Options) {
			o.Guard = "/home/bob/guard"
			f.GuardDir = DirFact{Exists: true, Foreign: "bob"}
		}, "which cannot write there"},
		"guard of the database's user": {func(f *Facts, _ *Options) { f.GuardDir = DirFact{Exists: true, Foreign: "immu"} }, "belongs to immu: whoever has that account may have changed the guard"},
		"guard in /tmp":                {func(_ *Facts, o *Options) { o.Guard = "/tmp/guard" }, "temporary directory"},
		"a relative name":              {func(_ *Facts, o *Options) { o.Reads = []string{"./tools/key.pem"} }, "./tools/key.pem\" is relative"},
		"a line break in a name":       {func(_ *Facts, o *Options) { o.State = "/data\nUser=root" }, "control characters"},
		"a pid file among others":      {func(f *Facts, o *Options) { o.PidFile = "/run/x.pid"; f.PidDir = DirFact{Exists: true, Root: true} }, "set pidfile to /run/immuclient/immuclient.pid"},
		"a key in /tmp":                {func(_ *Facts, o *Options) { o.Reads = []string{"/tmp/key.pem"} }, "temporary directory"},
	} {
		f, o := fresh(), usual()
		tt.change(&f, &o)
		if _, err := Install(f, o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
	foreign := fresh()
	foreign.Unit = UnitFact{Exists: true, Path: "/lib/systemd/system/immuclient.service"}
	if _, err := Uninstall(foreign, usual(), false); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("uninstalling somebody else's unit: %v", err)
	}
	if _, err := Control(fresh(), "start"); err == nil || !strings.Contains(err.Error(), "audit-mode install") {
		t.Errorf("starting what is not there: %v", err)
	}
}

// TestUnitIsRead: what the unit's words are written as is what they are read as.
func TestUnitIsRead(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"/plain", "/with space", `/quote"s'`, `/back\slash`, "/50%", "/a:b"} {
		if got := unitWords("x " + unitWord(word)); len(got) != 2 || got[1] != word {
			t.Errorf("%q is read as %q", word, got)
		}
	}
	old := parseUnit(`[Service]
Environment="IMMUCLIENT_AUDIT_USERNAME=a b" PATH=/bin IMMUCLIENT_IMMUDB_PORT=1
Environment=TMPDIR=/var/lib/kept
EnvironmentFile=-/etc/default/immuclient
ExecStart=/usr/sbin/immuclient audit-mode \
  --config "/etc/with space.toml" --audit-databases x -p 3
`)
	want := OldUnit{
		Config: "/etc/with space.toml", Environ: []string{"IMMUCLIENT_AUDIT_USERNAME=a b", "IMMUCLIENT_IMMUDB_PORT=1"}, TempDir: "/var/lib/kept",
		Flags: []string{"--audit-databases", "-p"}, EnvironmentFiles: []string{"/etc/default/immuclient"},
	}
	if got, want := strings.Join(append(append(old.Environ, old.Flags...), old.Config, old.TempDir, old.EnvironmentFiles[0]), "|"),
		strings.Join(append(append(want.Environ, want.Flags...), want.Config, want.TempDir, want.EnvironmentFiles[0]), "|"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestStatusIsRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "not installed",
		"LoadState=not-found\nActiveState=inactive\n": "not installed",
		"LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=12\nNRestarts=0\nResult=success\n":                             "immuclient is running (active/running, process 12)\n",
		"LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=disabled\nMainPID=12\nNRestarts=2\nResult=watchdog\nExecMainStatus=6\n":         "not enabled",
		"LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\nNRestarts=3\nResult=exit-code\nExecMainStatus=2\nMainPID=0\n": "NOT running (activating/auto-restart)\nit was restarted 3 times because it had ended by itself\nit last ended with: exit-code, exit code 2\n",
	} {
		if got := parseShow(text).String(); !strings.Contains(got, want) {
			t.Errorf("%q is said as %q, want %q", text, got, want)
		}
	}
}

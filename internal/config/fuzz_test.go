package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// checkLoaded holds for whatever Load is given: errors are for the operator and fit on a line each, and what
// is accepted lies within its bounds and survives being written to a file.
func checkLoaded(t *testing.T, in Input) {
	t.Helper()
	c, warnings, err := Load(in)
	for _, w := range warnings {
		if strings.ContainsAny(w.Text, "\n\r\x00\x1b") {
			t.Fatalf("warning of several lines: %q", w.Text)
		}
	}
	if err != nil {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok || c != nil {
			t.Fatalf("not joined: %v", err)
		}
		for _, e := range joined.Unwrap() {
			var mistake *Error
			if !errors.As(e, &mistake) || strings.ContainsAny(e.Error(), "\n\r\x00\x1b") || len(e.Error()) > 4096 || mistake.Fix == "" {
				t.Fatalf("not fit to be shown: %q", e)
			}
		}
		return
	}
	for _, c := range c.Servers() {
		if c.Port < 1 || c.Port > 65535 || c.Audit.MonitoringPort < 0 || c.Audit.MonitoringPort > 65535 || c.Audit.Interval < 10*time.Millisecond ||
			c.Audit.StaleAfter < time.Second || c.MaxRecvMsgSize < 64<<10 || c.MaxRecvMsgSize > 1<<30 || c.Audit.WalkRate < 1 || c.Address == "" || c.Audit.Server == "" || c.Audit.Username == "" ||
			len(c.Audit.Tags) > mostTags {
			t.Fatalf("out of bounds: %v", c)
		}
		c.LedgerFilter().Match("defaultdb")
		if !c.SameServer(c) || len(c.Fixed(c)) > 0 {
			t.Fatalf("not the same as itself: %v", c)
		}
	}
	if len(c.Servers()) > mostServers || len(c.Sinks) > mostSinks {
		t.Fatalf("%d servers, %d sinks", len(c.Servers()), len(c.Sinks))
	}
	c.Files()
	if dir, _ := c.StateDir(); dir == "" {
		t.Fatal("no state directory")
	}
	again := Input{WorkDir: t.TempDir(), EtcPaths: []string{}}
	if err := os.WriteFile(filepath.Join(again.WorkDir, "immuclient.toml"), c.Sample(), 0o600); err != nil {
		t.Fatal(err)
	}
	c2, _, err := Load(again)
	if err != nil {
		t.Fatalf("what was accepted is refused from a file: %v\n%s", err, c.Sample())
	}
	if len(c2.Servers()) != len(c.Servers()) || len(c2.Sinks) != len(c.Sinks) {
		t.Fatalf("%d servers and %d sinks after %d and %d", len(c2.Servers()), len(c2.Sinks), len(c.Servers()), len(c.Sinks))
	}
	for i := range c.Sinks {
		if !reflect.DeepEqual(c2.Sinks[i], c.Sinks[i]) && c.Sinks[i].CAFile == "" { // made absolute
			t.Fatalf("%v was %v", c2.Sinks[i], c.Sinks[i])
		}
	}
	for i, before := range append([]*Config{c}, c.Servers()...) {
		after := append([]*Config{c2}, c2.Servers()...)[i]
		for _, s := range table() {
			if s.kind == path || s.here {
				continue // made absolute
			}
			if got, want := s.current(after), s.current(before); got != want {
				t.Fatalf("%s was %q and is %q after being written to a file", s.name, want, got)
			}
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, pattern := range []string{"testdata/*.toml", "testdata/bad/*.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(manyServers(2)))
	f.Add([]byte("username='u'\npassword='p'\nserver=[{name='a',address='b:1',tags=['x']},{name='c',address='d',mtls=true,pkey='k'}]\n[[sink]]\nname='s'\ntype='smtp'\nurl='smtp://h'\nfrom='a@b'\nto=['c@d']\ntags=['x']\nservers=['c']\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "immuclient.toml"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		checkLoaded(t, Input{WorkDir: dir, Home: "/home/me", EtcPaths: []string{}})
	})
}

func FuzzEnvironment(f *testing.F) {
	f.Add("IMMUCLIENT_IMMUDB_PORT=3322\x00IMMUCLIENT_AUDIT_DATABASES=a,b$")
	f.Add("IMMUCLIENT_PORT=tcp://10.0.0.1:3322\x00audit-agent-interval=5s\x00IMMUCLIENT_MTLS=T")
	f.Add("IMMUCLIENT_AUDIT_PASSWORD=enc:cA==\x00IMMUCLIENT_AUDIT_USERNAME=\"\\\x00IMMUCLIENT_DIR=$HOME/~")
	f.Add("IMMUCLIENT_AUDIT_NOTIFICATION_URL=https://a:b@c/?d#e\x00IMMUCLIENT_IMMUDB_ADDRESS=[::1%1]:5\x00==\x00IMMUCLIENT_")
	f.Fuzz(func(t *testing.T, environ string) {
		dir := t.TempDir()
		in := Input{WorkDir: dir, Home: "/home/me", EtcPaths: []string{}}
		for line := range strings.SplitSeq(environ, "\x00") {
			if !strings.HasPrefix(line, "IMMUCLIENT_CONFIG=") { // it would read files of this machine
				in.Environ = append(in.Environ, line)
			}
		}
		checkLoaded(t, in)
	})
}

// Go visits maps in random order; an operator who repeats a command must see the same text again.
func TestLoadIsDeterministic(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	for _, name := range []string{"A", "B", "C", "SERVICE_HOST", "SERVICE_PORT", "PORT_1_TCP"} {
		in.Environ = append(in.Environ, "IMMUCLIENT_"+name+"=1")
	}
	write(t, filepath.Join(in.WorkDir, "immuclient.toml"), "b = 1\na = 2\n[z]\nd = 3\nc = 4\n[y]\n")
	_, warnings, err := Load(in)
	for range 20 {
		_, w, e := Load(in)
		if !reflect.DeepEqual(w, warnings) || e.Error() != err.Error() {
			t.Fatalf("%v\n%v", e, err)
		}
	}
}

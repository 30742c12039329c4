//go:build unix

package alert

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func program(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	// A file that a child of another goroutine has open for writing cannot be run.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func script(t *testing.T, o ScriptOptions) *Script {
	t.Helper()
	s, err := NewScript(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a script is promised, and nothing more of the auditor's environment.
func TestScriptIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := program(t, dir, "notify", "env > "+dir+"/env\ncat > "+dir+"/stdin\n")
	s := script(t, ScriptOptions{Name: "s", Command: path, Environ: append(os.Environ(), "IMMUCLIENT_PASSWORD=hunter2", "TZ=UTC")})
	e := rich()
	e.Name.Database = "$(touch " + dir + "/broken);`id`\n\x00IMMUAUDIT_X=1"
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dir + "/env")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"IMMUAUDIT_EVENT=tampered\n", "IMMUAUDIT_ID=0f8f\n", "IMMUAUDIT_SERVER=prod/eu 1\n", "IMMUAUDIT_VERDICT=tampered\n", "IMMUAUDIT_KIND=rollback\n",
		"IMMUAUDIT_INCIDENT=20261123-k7qd\n", "IMMUAUDIT_TRUSTED_TX=9\n", "IMMUAUDIT_OBSERVED_TX=7\n", "IMMUAUDIT_TAGS=eu,gold\n",
		"IMMUAUDIT_TIME=2026-11-23T12:00:00.000000005Z\n", "TZ=UTC\n", "PATH=", "IMMUAUDIT_DATABASE=$(touch " + dir + "/broken);`id`??IMMUAUDIT_X=1\n",
	} {
		if !strings.Contains("\n"+string(got), "\n"+want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if strings.Contains(string(got), "hunter2") || strings.Contains(string(got), "\nIMMUAUDIT_X") {
		t.Errorf("too much: %s", got)
	}
	if _, err := os.Stat(dir + "/broken"); err == nil {
		t.Error("a name was run")
	}
	var told cloudEvent
	body, _ := os.ReadFile(dir + "/stdin")
	if err := json.Unmarshal(body, &told); err != nil || told.ID != "0f8f" {
		t.Errorf("stdin %s: %v", body, err)
	}
}

func TestScriptFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := script(t, ScriptOptions{Command: program(t, dir, "fail", "echo the pager is away >&2\nexit 3\n")})
	if err := s.Send(t.Context(), rich()); err == nil || !strings.Contains(err.Error(), "the pager is away") || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("%v", err)
	}
	s = script(t, ScriptOptions{Command: program(t, dir, "chatter", "head -c 10000000 /dev/zero\nexit 1\n")})
	if err := s.Send(t.Context(), rich()); err == nil || len(err.Error()) > 2000 {
		t.Errorf("%d bytes", len(err.Error()))
	}
	// One that does not read what it is told is as good.
	s = script(t, ScriptOptions{Command: program(t, dir, "deaf", "exec <&-\nexit 0\n")})
	if err := s.Send(t.Context(), rich()); err != nil {
		t.Errorf("one that does not read: %v", err)
	}
}

// What hangs is killed with all that it started.
func TestScriptIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := script(t, ScriptOptions{Command: program(t, dir, "hang", "sleep 300 &\necho $! > "+dir+"/child\nwait\n")})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Send(ctx, rich()) }()
	var child string
	eventually(t, "the script is running", func() bool {
		b, _ := os.ReadFile(dir + "/child")
		child = strings.TrimSpace(string(b))
		return child != ""
	})
	cancel()
	begun := time.Now()
	if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
	eventually(t, "its child is gone", func() bool {
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ") // nobody reaps it in a container
	})
}

func TestScriptDirectory(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	for _, name := range []string{"20-second", "10-first", "30-third", ".hidden", "backup~"} {
		end := ""
		if name == "20-second" {
			end = "exit 1\n"
		}
		program(t, dir, name, "echo "+name+" >> "+out+"\n"+end)
	}
	if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := script(t, ScriptOptions{Directory: dir}).Send(t.Context(), rich())
	got, _ := os.ReadFile(out)
	if err == nil || !strings.Contains(err.Error(), "20-second") || string(got) != "10-first\n20-second\n30-third\n" {
		t.Errorf("ran %q: %v", got, err)
	}
}

func TestNewScriptRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plainFile := filepath.Join(dir, "plain")
	if err := os.WriteFile(plainFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for says, o := range map[string]ScriptOptions{
		"absolute":      {Command: "notify"},
		"correct":       {},
		"cannot be run": {Command: plainFile},
		"no directory":  {Directory: plainFile},
		"no program":    {Directory: dir},
		"its path":      {Command: dir + "/none"},
	} {
		if says == "correct" {
			says = "set one of them"
		}
		if _, err := NewScript(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	if os.Geteuid() == 0 {
		path := program(t, dir, "open", "")
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := NewScript(ScriptOptions{Command: path}); err == nil || !strings.Contains(err.Error(), "others than root") {
			t.Errorf("%v", err)
		}
	}
}

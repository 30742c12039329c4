package service

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// image is another root with accounts in it.
func image(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nimmu:x:999:999::/:/bin/false") // no line break
	put(t, filepath.Join(root, "etc/group"), "root:x:0:\nimmu:x:999:\n")
	put(t, filepath.Join(root, "etc/shadow"), "root:*:::::::\n")
	return root
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func install(t *testing.T, root string, o Options) string {
	t.Helper()
	f, err := Look(root, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Install(f, o)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := Applier{Root: root, Out: &out, Command: func(_ context.Context, argv []string) ([]byte, error) {
		t.Errorf("another root, and a command was run: %q", argv)
		return nil, nil
	}}
	if err := a.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestInstallIntoAnotherRoot(t *testing.T) {
	t.Parallel()
	root := image(t)
	o := usual()
	o.Executable = filepath.Join(t.TempDir(), "immuclient")
	put(t, o.Executable, strings.Repeat("program", 100_000))
	install(t, root, o)

	at := func(path string) string { return filepath.Join(root, path) }
	paths := PathsOf("linux")
	for path, want := range map[string]fs.FileMode{paths.Config: 0o640, paths.Binary: 0o755, paths.Unit: 0o644, paths.State: 0o700, filepath.Dir(paths.Guard): 0o700} {
		if got := mode(t, at(path)); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	if got := text(t, at(paths.Config)); got != string(o.Config) {
		t.Errorf("the configuration is %q", got)
	}
	if got := text(t, at(paths.Binary)); got != text(t, o.Executable) {
		t.Error("the program is not the one that was copied")
	}
	if got := text(t, at("/etc/systemd/system/multi-user.target.wants/immuclient.service")); !strings.Contains(got, marker) {
		t.Error("the unit is not enabled")
	}
	if got := text(t, at("/etc/passwd")); !strings.HasSuffix(got, "/bin/false\nimmuaudit:x:998:998:auditor of immudb:/var/lib/immuclient:/usr/sbin/nologin\n") {
		t.Errorf("etc/passwd is %q", got)
	}
	if got := text(t, at("/etc/group")); !strings.HasSuffix(got, "immuaudit:x:998:\n") {
		t.Errorf("etc/group is %q", got)
	}
	if got := text(t, at("/etc/shadow")); !strings.HasSuffix(got, "immuaudit:!*:::::::\n") {
		t.Errorf("etc/shadow is %q", got)
	}
	if privileged() {
		for path, want := range map[string]owner{paths.Config: {0, 998, 1}, paths.State: {998, 998, 2}, filepath.Dir(paths.Guard): {998, 998, 2}, paths.Binary: {0, 0, 1}} {
			info, err := os.Lstat(at(path))
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := ownerOf(info); got != want {
				t.Errorf("%s belongs to %v, want %v", path, got, want)
			}
		}
	}

	// Again: nothing is different, and it is said.
	for line := range strings.SplitSeq(strings.TrimSpace(install(t, root, o)), "\n") {
		if !strings.HasSuffix(line, "is as it should be") {
			t.Errorf("installing again: %s", line)
		}
	}
	// What was changed is put right.
	if err := os.Chmod(at(paths.Config), 0o666); err != nil {
		t.Fatal(err)
	}
	put(t, at(paths.Binary), strings.Repeat("program", 100_000)+"!")
	if out := install(t, root, o); !strings.Contains(out, "wrote "+paths.Config) || !strings.Contains(out, "copied the program") {
		t.Errorf("what was changed was left: %s", out)
	}
	if got := mode(t, at(paths.Config)); got != 0o640 {
		t.Errorf("the configuration has mode %o", got)
	}

	// What an auditor keeps goes with --purge only, and nothing else does.
	put(t, at(paths.State+"/state.db"), "state")
	put(t, at(paths.State+"/evidence/1.json"), "evidence")
	put(t, at(paths.State+"/mine"), "mine")
	put(t, at(paths.Guard), "guard")
	uninstall(t, root, o, false)
	for _, path := range []string{paths.Config, paths.Guard, paths.State + "/state.db", paths.State + "/evidence/1.json"} {
		text(t, at(path))
	}
	gone := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			if _, err := os.Lstat(at(path)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left: %v", path, err)
			}
		}
	}
	gone(paths.Binary, paths.Unit, "/etc/systemd/system/multi-user.target.wants/immuclient.service")
	uninstall(t, root, o, true)
	gone(paths.Config, paths.State+"/state.db", paths.State+"/evidence", filepath.Dir(paths.Guard))
	text(t, at(paths.State+"/mine"))
	if err := os.Remove(at(paths.State + "/mine")); err != nil {
		t.Fatal(err)
	}
	uninstall(t, root, o, true)
	gone(paths.State)
	uninstall(t, root, o, true)
}

func uninstall(t *testing.T, root string, o Options, purge bool) {
	t.Helper()
	f, err := Look(root, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Uninstall(f, o, purge)
	if err != nil {
		t.Fatal(err)
	}
	a := Applier{Root: root, Out: &bytes.Buffer{}}
	if err := a.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// TestPartOfASystem: without accounts files are root's, and it is said.
func TestPartOfASystem(t *testing.T) {
	t.Parallel()
	root, o := t.TempDir(), usual()
	o.Executable = filepath.Join(t.TempDir(), "immuclient")
	put(t, o.Executable, "program")
	if out := install(t, root, o); !strings.Contains(out, "make the account immuaudit") {
		t.Errorf("it is not said that there is no account: %s", out)
	}
	text(t, filepath.Join(root, PathsOf("linux").Unit))
}

// TestNoWayOut: a link in another root leads nowhere outside of it.
func TestNoWayOut(t *testing.T) {
	t.Parallel()
	for _, link := range []string{"etc/immudb", "etc/systemd", "var/lib/immuclient", "usr/local/sbin"} {
		root, outside, o := image(t), t.TempDir(), usual()
		o.Executable = filepath.Join(t.TempDir(), "immuclient")
		put(t, o.Executable, "program")
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
		f, err := Look(root, o)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Install(f, o)
		if err != nil {
			t.Fatal(err)
		}
		before := mode(t, outside)
		a := Applier{Root: root, Out: &bytes.Buffer{}}
		if err := a.Apply(t.Context(), p); err == nil {
			t.Errorf("%s: a link out of the root was followed", link)
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 || mode(t, outside) != before {
			t.Errorf("%s: something was done outside: %v, %v", link, entries, err)
		}
	}
}

// TestApplyCommands: on a running system commands are run in order, and one
// that fails ends the plan with what it said.
func TestApplyCommands(t *testing.T) {
	t.Parallel()
	var ran []string
	failing := ""
	var out bytes.Buffer
	a := Applier{Out: &out, Command: func(_ context.Context, argv []string) ([]byte, error) {
		ran = append(ran, words(argv))
		if argv[0] == failing {
			return []byte("it broke\n"), errors.New("exit status 1")
		}
		return []byte("journal of " + argv[0]), nil
	}}
	p := Plan{
		Steps: []Step{
			Run{Argv: []string{"one"}, Done: "one is done"},
			Run{Argv: []string{"never"}, OnlyChanged: true},
			Call{What: "x", Do: func(context.Context) ([]string, bool, error) { return []string{"called"}, true, nil }},
			Run{Argv: []string{"two", "a b"}, OnlyChanged: true, After: []string{"log"}},
			Run{Argv: []string{"three"}},
		},
		Notes: []string{"noted"},
	}
	if err := a.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(ran, ";"), "one;two 'a b';three"; got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
	if got, want := out.String(), "one is done\ncalled\nnote: noted\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	failing, ran = "two", nil
	err := a.Apply(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "running two 'a b': exit status 1") || !strings.Contains(err.Error(), "it broke\n    journal of log") {
		t.Errorf("error %v", err)
	}
	if got, want := strings.Join(ran, ";"), "one;two 'a b';log"; got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
}

// TestDryRun does nothing at all.
func TestDryRun(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var out bytes.Buffer
	a := Applier{Root: root, DryRun: true, Out: &out, Command: func(context.Context, []string) ([]byte, error) {
		t.Error("a command was run")
		return nil, nil
	}}
	p, err := Install(fresh(), usual())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if out.String() != p.String() {
		t.Errorf("shown is %s", &out)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("something was done: %v, %v", entries, err)
	}
}

// TestTakeOver: a directory of root's becomes the account's only if nobody else
// could have put anything into it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"all of root":     {func(string) error { return nil }, ""},
		"a link":          {func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "link")) }, "neither a file nor a directory"},
		"a second name":   {func(dir string) error { return os.Link(filepath.Join(dir, "state.db"), filepath.Join(dir, "other")) }, "has 2 names"},
		"somebody else's": {func(dir string) error { return os.Lchown(filepath.Join(dir, "state.db"), 999, 999) }, "belongs to user 999"},
	} {
		root := image(t)
		dir := filepath.Join(root, "var/lib/immuclient")
		put(t, filepath.Join(dir, "state.db"), "state")
		put(t, filepath.Join(dir, "evidence/1.json"), "evidence")
		put(t, filepath.Join(root, "etc/passwd"), "immuaudit:x:998:998::/:/bin/false\n")
		put(t, filepath.Join(root, "etc/group"), "immuaudit:x:998:\n")
		spoiled := tt.spoil(dir)
		err := (&Applier{Root: root, Out: &bytes.Buffer{}}).Apply(t.Context(), Plan{Steps: []Step{TakeOver{"/var/lib/immuclient"}}})
		if !privileged() { // files are whoever makes them
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if spoiled != nil {
			t.Fatal(spoiled)
		}
		if tt.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
		info, statErr := os.Lstat(filepath.Join(dir, "evidence/1.json"))
		if statErr != nil {
			t.Fatal(statErr)
		}
		if got, _ := ownerOf(info); (got.uid == 998) != (tt.want == "") {
			t.Errorf("%s: a file belongs to user %d", name, got.uid)
		}
	}
}

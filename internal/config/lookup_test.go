package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	work, home, etc := t.TempDir(), t.TempDir(), t.TempDir()
	in := Input{WorkDir: work, Home: home, Offline: true, EtcPaths: []string{filepath.Join(etc, "1.toml"), filepath.Join(etc, "2.toml")}}
	named, byVariable := filepath.Join(work, "named.toml"), filepath.Join(work, "variable.toml")
	inOrder := []string{filepath.Join(work, "immuclient.toml"), filepath.Join(work, "configs", "immuclient.toml"),
		filepath.Join(home, "immuclient.toml"), in.EtcPaths[0], in.EtcPaths[1]}
	for _, path := range append(inOrder, named, byVariable) {
		write(t, path, `audit-server = "`+filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path)+`"`)
	}
	check := func(want string) {
		t.Helper()
		c, warnings := load(t, in)
		if c.Provenance("audit-server") != want+":1:1" || !strings.HasPrefix(want, c.ConfigFile) || len(warnings) > 0 {
			t.Errorf("read %s, want %s; %s", c.Provenance("audit-server"), want, texts(warnings))
		}
	}
	in.Environ = []string{"IMMUCLIENT_CONFIG=" + byVariable}
	in.Flags = flags(t, "--config", named)
	check(named)
	in.Flags = nil
	check(byVariable)
	in.Environ = nil
	for _, path := range inOrder {
		check(path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if c, _ := load(t, in); c.ConfigFile != "" {
		t.Errorf("read %s", c.ConfigFile)
	}

	in.Flags = flags(t, "--config=named.toml")
	if c, _ := load(t, in); c.Provenance("audit-server") != "named.toml:1:1" {
		t.Errorf("from the working directory: %s", c.Provenance("audit-server"))
	}
	in.Flags = flags(t, "--config", os.DevNull)
	if c, _ := load(t, in); c.ConfigFile != os.DevNull {
		t.Errorf("no file: %s", c.ConfigFile)
	}
}

func TestFilesThatAreNotRead(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Offline = true
	path := filepath.Join(in.WorkDir, "immuclient.toml")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	c, warnings := load(t, in)
	if c.ConfigFile != "" || texts(warnings) != path+" is not read as the configuration: it is not a regular file" {
		t.Errorf("directory: %s; %s", c.ConfigFile, texts(warnings))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, strings.Repeat("#", longestFile+1))
	if _, _, err := Load(in); err == nil || !strings.HasPrefix(err.Error(), path+": the configuration cannot be read: it is larger than 2097152 bytes; ") {
		t.Errorf("large: %v", err)
	}
	write(t, path, "\xef\xbb\xbfimmudb-port = 7\r\n")
	if c, _ := load(t, in); c.Port != 7 {
		t.Errorf("from a Windows editor: %v", c)
	}
}

// Files that are no configuration are refused before they cost anything.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	const tooMany = "F: more than 256 keys and tables: this is no configuration of immuclient; name the right file with --config"
	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, "key%d = 1\n", i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"deep":       {strings.Repeat("a.", 300) + "a = 1", tooMany},
		"deep table": {"[" + strings.Repeat("a.", 300) + "a]", tooMany},
		"tables":     {strings.Repeat("[[a]]\n", 300), tooMany},
		"keys":       {many.String(), tooMany},
		"inline":     {"a = [" + strings.Repeat("{},", 300) + "]", tooMany},
		"not so deep": {strings.Repeat("a.", 20) + "a = 1",
			"F:1:1: a.a.a.a.a.a.a.a: unknown key; settings stand at the top of the file, outside of any table; `immuclient audit-mode --help` lists them"},
		"brackets": {strings.Repeat("[", 10000), "F:1:3: invalid character at start of key: U+005B '['"},
	} {
		in := quiet(t)
		path := filepath.Join(in.WorkDir, "immuclient.toml")
		write(t, path, c.text)
		_, _, err := Load(in)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if got := strings.ReplaceAll(err.Error(), path, "F"); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// As root, only files that nobody else could have planted are obeyed.
func TestRootReadsOnlyItsOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		mode     fs.FileMode
		uid      uint32
		warnings string
		read     string
	}{
		{"its own", 0o644, 0, "", "W/immuclient.toml"},
		{"a user's", 0o600, 1000, "W/immuclient.toml is not read as the configuration: the program runs as root and the file belongs to user id 1000; chown root and chmod go-w it, or name it with --config\n" +
			"H/immuclient.toml is not read as the configuration: the program runs as root and the file belongs to user id 1000; chown root and chmod go-w it, or name it with --config", "E/immuclient.toml"},
		{"the group's", 0o660, 0, "W/immuclient.toml is not read as the configuration: the program runs as root and the file can be written by others; chown root and chmod go-w it, or name it with --config\n" +
			"H/immuclient.toml is not read as the configuration: the program runs as root and the file can be written by others; chown root and chmod go-w it, or name it with --config", "E/immuclient.toml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			work, home, etc := t.TempDir(), t.TempDir(), t.TempDir()
			in := Input{WorkDir: work, Home: home, Offline: true, Root: true, EtcPaths: []string{filepath.Join(etc, "immuclient.toml")}}
			in.owner = func(fs.FileInfo) (uint32, bool) { return c.uid, true }
			for _, dir := range []string{work, home, etc} {
				write(t, filepath.Join(dir, "immuclient.toml"), "immudb-port = 7")
				if err := os.Chmod(filepath.Join(dir, "immuclient.toml"), c.mode); err != nil {
					t.Fatal(err)
				}
			}
			short := strings.NewReplacer(work, "W", home, "H", etc, "E").Replace
			got, warnings := load(t, in)
			if short(texts(warnings)) != c.warnings || short(got.ConfigFile) != c.read {
				t.Errorf("read %s; %s", short(got.ConfigFile), short(texts(warnings)))
			}
			in.Flags = flags(t, "--config", filepath.Join(work, "immuclient.toml"))
			if got, warnings := load(t, in); got.Port != 7 || len(warnings) > 0 {
				t.Errorf("named: %v %s", got, texts(warnings))
			}
		})
	}
}

// A link of another user to a file of root is a choice of that user.
func TestRootFollowsOnlyItsOwnLinks(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Root, in.Offline = true, true
	target := filepath.Join(t.TempDir(), "of-root.toml")
	write(t, target, "immudb-port = 7")
	if err := os.Symlink(target, filepath.Join(in.WorkDir, "immuclient.toml")); err != nil {
		t.Fatal(err)
	}
	in.owner = func(info fs.FileInfo) (uint32, bool) {
		if info.Mode()&fs.ModeSymlink != 0 {
			return 1000, true
		}
		return 0, true
	}
	if c, warnings := load(t, in); c.Port != 3322 || !strings.Contains(texts(warnings), "belongs to user id 1000") {
		t.Errorf("%d; %s", c.Port, texts(warnings))
	}
	in.owner = func(fs.FileInfo) (uint32, bool) { return 0, true }
	if c, warnings := load(t, in); c.Port != 7 || len(warnings) > 0 {
		t.Errorf("%d; %s", c.Port, texts(warnings))
	}
}

func TestOwnerOf(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if uid, known := ownerOf(info); known && int(uid) != os.Geteuid() {
		t.Errorf("%d, want %d", uid, os.Geteuid())
	}
}

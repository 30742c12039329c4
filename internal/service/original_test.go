package service

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOldStates: trusted states of the original are taken from nowhere that
// somebody else than root and the account could write to.
func TestOldStates(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(root string) error
		want   string
	}{
		"only the account's":   {func(string) error { return nil }, ""},
		"a directory for all":  {func(root string) error { return os.Chmod(filepath.Join(root, "kept"), 0o1777) }, "others can write to /kept (mode 0777)"},
		"of a group":           {func(root string) error { return os.Chmod(filepath.Join(root, "kept/auditor"), 0o775) }, "others can write to /kept/auditor (mode 0775)"},
		"one server's for all": {func(root string) error { return os.Chmod(filepath.Join(root, "kept/auditor/uuid"), 0o777) }, "others can write to /kept/auditor/uuid"},
		"the file":             {func(root string) error { return os.Chmod(filepath.Join(root, "kept/auditor/uuid/.state"), 0o666) }, "others can write to /kept/auditor/uuid/.state"},
		"a link to the file":   {func(root string) error { return relink(root, filepath.Join(root, "kept/auditor/uuid/.state")) }, "/kept/auditor/uuid/.state is a symbolic link"},
		"a link to the folder": {func(root string) error { return relink(root, filepath.Join(root, "kept/auditor/uuid")) }, "/kept/auditor/uuid is a symbolic link"},
		"a link on the way":    {func(root string) error { return relink(root, filepath.Join(root, "kept")) }, "/kept is a symbolic link"},
		"a second name": {func(root string) error {
			return os.Link(filepath.Join(root, "kept/auditor/uuid/.state"), filepath.Join(root, "second"))
		}, "has 2 names"},
		"another account's file": {func(root string) error {
			return os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("immuaudit:x:4711:4711::/:/\n"), 0o644)
		}, "belongs to"},
	} {
		root := t.TempDir()
		put(t, filepath.Join(root, "etc/passwd"), fmt.Sprintf("immuaudit:x:%d:%d::/:/bin/false\n", os.Getuid(), os.Getgid()))
		put(t, filepath.Join(root, "kept/auditor/uuid/.state"), "defaultdb:AA==\n")
		put(t, filepath.Join(root, "kept/auditor/empty/x"), "")
		if err := tt.change(root); err != nil {
			t.Fatal(err)
		}
		if name == "another account's file" && privileged() {
			for _, p := range []string{"kept", "kept/auditor", "kept/auditor/uuid", "kept/auditor/uuid/.state"} {
				if err := os.Lchown(filepath.Join(root, p), 999, 999); err != nil {
					t.Fatal(err)
				}
			}
		}
		found := FindOldStates(root, []string{"/nothing", "/kept"})
		if len(found) != 1 || found[0].Dir != "/kept" || !slices.Equal(found[0].UUIDs, []string{"uuid"}) {
			t.Errorf("%s: found %+v", name, found)
			continue
		}
		if got := found[0].Distrust; tt.want == "" != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: distrusted because %q, want %q", name, got, tt.want)
		}
	}
}

// relink puts a link in the place of what it leads to.
func relink(root, path string) error {
	real := filepath.Join(root, "real")
	if err := os.Rename(path, real); err != nil {
		return err
	}
	return os.Symlink(real, path)
}

func TestOldStatePlaces(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	private := "/tmp/systemd-private-0123-immuclient.service-abc/tmp"
	put(t, filepath.Join(root, private, "auditor/uuid/.state"), "x")
	places := OldStatePlaces(root, "/var/lib/kept/", "", "relative", "/tmp")
	for _, want := range []string{"/tmp", "/var/tmp", private, "/var/lib/kept"} {
		if n := len(slices.DeleteFunc(slices.Clone(places), func(p string) bool { return p != want })); n != 1 {
			t.Errorf("%s is named %d times in %q", want, n, places)
		}
	}
	if slices.Contains(places, "relative") || slices.Contains(places, "") {
		t.Errorf("places without a root: %q", places)
	}
}

func TestFindOldUnit(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, found := FindOldUnit(root); found {
		t.Error("a unit was found where there is none")
	}
	put(t, filepath.Join(root, "lib/systemd/system/immuclient.service"), "[Service]\nExecStart=/usr/sbin/immuclient audit-mode --config=/etc/x.toml\n")
	if old, found := FindOldUnit(root); !found || old.Config != "/etc/x.toml" || old.Path != "/lib/systemd/system/immuclient.service" {
		t.Errorf("found %v %+v", found, old)
	}
	put(t, filepath.Join(root, "etc/systemd/system/immuclient.service"), marker+"\n")
	if _, found := FindOldUnit(root); found {
		t.Error("our own unit was taken for the original's")
	}
}

package cli_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"immuaudit/internal/cli"
	"immuaudit/internal/wire/schema"
)

// TestInstallImportsStates: trusted states of the original from a directory
// that nobody else could write to become baselines; install says which.
func TestInstallImportsStates(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := proto.Marshal(&schema.ImmutableState{Db: "defaultdb", TxId: 5, TxHash: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	line := "defaultdb:" + base64.StdEncoding.EncodeToString(raw) + "\n"
	// Whoever runs this test is the account, where it is not root.
	uid, gid := 998, 998
	if os.Getuid() != 0 {
		uid, gid = os.Getuid(), os.Getgid()
	}
	write("etc/passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\nimmuaudit:x:%d:%d::/:/bin/false\n", uid, gid))
	write("etc/group", fmt.Sprintf("root:x:0:\nimmuaudit:x:%d:\n", gid))
	write("var/lib/kept/auditor/c1ak2ln5mbcg00aq2v5g/.state", line)
	write("tmp/auditor/planted/.state", line)
	write("etc/systemd/system/immuclient.service", "[Service]\nEnvironment=TMPDIR=/var/lib/kept\nExecStart=/usr/sbin/immuclient audit-mode\n")
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		env := cli.Env{Stdout: &out, Stderr: &out, WorkDir: root, Environ: []string{"IMMUCLIENT_AUDIT_PASSWORD=immudb"}}
		if code := cli.Run(t.Context(), args, env); code != 0 {
			t.Fatalf("%q: exit code %d\n%s", args, code, &out)
		}
		return out.String()
	}
	out := run("audit-mode", "install", "--root", root, "-a", "db.example.org", "--audit-username", "auditor")
	for _, want := range []string{
		"imported db.example.org:3322/defaultdb at transaction 5\n",
		"found in /tmp and NOT taken over, because others can write to /tmp (mode 0777)",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("install does not say %q:\n%s", want, out)
		}
	}
	if out := run("trust", "list", "--dir", filepath.Join(root, "var/lib/immuclient")); !strings.Contains(out, "imported at 5") {
		t.Errorf("what was imported is not trusted:\n%s", out)
	}
	if text, err := os.ReadFile(filepath.Join(root, "var/lib/immuclient-guard/state.guard")); err != nil || !strings.Contains(string(text), "\nledgers 1\n") {
		t.Errorf("what was imported has no guard: %s, %v", text, err)
	}
	// Again: what is trusted stays, and that is said.
	write("etc/systemd/system/immuclient.service", "[Service]\nEnvironment=TMPDIR=/var/lib/kept\nExecStart=/usr/sbin/immuclient audit-mode\n")
	if out := run("audit-mode", "install", "--root", root); !strings.Contains(out, "has a baseline already") {
		t.Errorf("install again:\n%s", out)
	}
	// Neither a guard nor a state is left behind in silence.
	if out := run("audit-mode", "install", "--root", root, "--state-guard", "/mnt/witness/guard"); !strings.Contains(out, "the guard /var/lib/immuclient-guard/state.guard is not moved to /mnt/witness/guard") {
		t.Errorf("install with another guard:\n%s", out)
	}
	if out := run("audit-mode", "install", "--root", root, "--state-guard", "/var/lib/immuclient-guard/state.guard"); strings.Contains(out, "is not moved") {
		t.Errorf("install with the guard as before:\n%s", out)
	}
	if out := run("audit-mode", "install", "--root", root, "--dir", "/var/lib/elsewhere"); !strings.Contains(out, "the state in /var/lib/immuclient is not moved to /var/lib/elsewhere. To keep what was proven") || !strings.Contains(out, "To begin anew instead, move /var/lib/immuclient-guard/state.guard away") {
		t.Errorf("install with another state directory:\n%s", out)
	}
}

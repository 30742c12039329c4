package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"immuaudit/internal/cli"
)

// The tables of a configuration come along, from the file that install writes
// and from any other; their secrets are not shown, and files that the service
// would not see are refused.
func TestInstallKeepsTables(t *testing.T) {
	t.Parallel()
	const tables = "[[server]]\nname = \"orders\"\naddress = \"orders.example.org\"\nusername = \"u\"\npassword = \"hush-1\"\n\n" +
		"[[sink]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"https://a.example/?hush-2\"\npassword = \"hush-3\"\n"
	for _, place := range []string{"etc/immudb/immuclient.toml", "work/immuclient.toml"} {
		t.Run(filepath.Dir(place), func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			put := func(name, text string) {
				t.Helper()
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			run := func() (int, string) {
				var out bytes.Buffer
				env := cli.Env{Stdout: &out, Stderr: &out, WorkDir: filepath.Join(root, "work")}
				code := cli.Run(t.Context(), []string{"audit-mode", "install", "--root", root, "--dry-run", "--audit-stale-after", "9m"}, env)
				return code, out.String()
			}
			put(place, "audit-interval = \"3s\"\n\n# the tables\n"+tables)
			code, out := run()
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, out)
			}
			var lines []string // the plan indents the file that it shows
			for line := range strings.Lines(out) {
				lines = append(lines, strings.TrimSpace(line))
			}
			shown := strings.Join(lines, "\n")
			for _, want := range []string{
				"\naudit-interval = \"3s\"\n", "\naudit-stale-after = \"9m\"\n",
				"[[server]]\nname = \"orders\"\naddress = \"orders.example.org\"\nusername = \"u\"\npassword = \"(hidden)\"\n",
				"[[sink]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"(hidden)\"\n",
			} {
				if !strings.Contains(shown, want) {
					t.Errorf("the plan lacks\n%s\nin\n%s", want, shown)
				}
			}
			if strings.Contains(out, "hush") {
				t.Errorf("secrets are shown:\n%s", out)
			}
			hidden, err := os.MkdirTemp("/tmp", "immuclient-") // t.TempDir may be elsewhere
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(hidden)
			password := filepath.Join(hidden, "password")
			if err := os.WriteFile(password, []byte("p"), 0o600); err != nil {
				t.Fatal(err)
			}
			put(place, strings.Replace(tables, `password = "hush-1"`, `password-file = "`+password+`"`, 1))
			if code, out := run(); code == 0 || !strings.Contains(out, password+" is in a temporary directory") {
				t.Errorf("exit code %d\n%s", code, out)
			}
		})
	}
}

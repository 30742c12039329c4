package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the messages and the help that the code gives now into testdata")

// quiet is an Input with nothing in it that depends on the machine.
func quiet(t *testing.T) Input {
	t.Helper()
	return Input{WorkDir: t.TempDir(), EtcPaths: []string{}}
}

// Each file of testdata/bad holds one mistake; its messages stand beside it in a file with the ending .err.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := quiet(t)
			if err := os.WriteFile(filepath.Join(in.WorkDir, "immuclient.toml"), data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err = Load(in)
			if err == nil {
				t.Fatal("accepted")
			}
			got := strings.ReplaceAll(err.Error(), in.WorkDir+"/", "") + "\n"
			golden(t, strings.TrimSuffix(file, ".toml")+".err", got)
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

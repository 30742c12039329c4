package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var commit = source{version: "v1.2.3", commit: strings.Repeat("ab", 20), time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}

// Both ways to the image must give the same one.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var c v1.Config
	words := func(s string) (list []string) {
		if err := json.Unmarshal([]byte(s), &list); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		return list
	}
	for line := range strings.Lines(string(text)) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "", "#", "ARG", "COPY":
		case "FROM":
			if rest != "scratch" {
				t.Errorf("from %s", rest)
			}
		case "ENV":
			c.Env = append(c.Env, rest)
		case "USER":
			c.User = rest
		case "WORKDIR":
			c.WorkingDir = rest
		case "EXPOSE":
			c.ExposedPorts = map[string]struct{}{rest: {}}
		case "VOLUME":
			c.Volumes = map[string]struct{}{words(rest)[0]: {}}
		case "STOPSIGNAL":
			c.StopSignal = rest
		case "ENTRYPOINT":
			c.Entrypoint = words(rest)
		case "CMD":
			c.Cmd = words(rest)
		case "HEALTHCHECK":
			options, command, _ := strings.Cut(rest, " CMD ")
			h := imageConfig(commit).Healthcheck
			if want := fmt.Sprintf("--interval=%s --timeout=%s --start-period=1m --retries=%d", h.Interval, h.Timeout, h.Retries); options != want || h.StartPeriod != time.Minute {
				t.Errorf("health check %s, want %s", options, want)
			}
			c.Healthcheck = &v1.HealthConfig{Test: append([]string{"CMD"}, words(command)...), Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
		default:
			t.Errorf("unexpected instruction %s", verb)
		}
	}
	want := imageConfig(commit)
	want.Labels = nil // of a commit
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the Dockerfile says\n%+v\nthe tool\n%+v", c, want)
	}
}

// An archive depends on what is in it, not on the order or the day.
func TestArchivesAreReproducible(t *testing.T) {
	t.Parallel()
	one := []entry{{name: "b/c/d", mode: 0o755, body: []byte("x")}, {name: "a", mode: 0o644, body: []byte("y")}, {name: "b/e/", mode: 0o700, owner: userID}}
	two := slices.Clone(one)
	slices.Reverse(two)
	for name, pack := range map[string]func([]entry, time.Time) ([]byte, error){"tar": tarOf, "zip": zipOf} {
		first, err := pack(one, commit.time)
		if err != nil {
			t.Fatal(err)
		}
		second, err := pack(two, commit.time)
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s: %d and %d bytes differ: %v", name, len(first), len(second), err)
		}
	}
	packed, err := tarOf(one, commit.time)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(packed)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s %o %d", h.Name, h.Mode, h.Uid))
	}
	if want := []string{"a 644 0", "b/ 755 0", "b/c/ 755 0", "b/c/d 755 0", "b/e/ 700 65532"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

func TestPapers(t *testing.T) {
	t.Parallel()
	src := commit
	src.root = "../.."
	papers, err := src.papers()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, e := range papers {
		byName[e.name] = string(e.body)
	}
	for name, part := range map[string]string{
		"man/man1/immuclient.1":            "immuclient-audit-mode(1)",
		"man/man1/immuclient-audit-mode.1": "audit-interval",
		"man/man1/immuclient-health.1":     "unix socket",
		"completions/immuclient.bash":      "__start_immuclient",
		"completions/_immuclient":          "#compdef immuclient",
		"completions/immuclient.fish":      "complete -c immuclient",
		"completions/immuclient.ps1":       "Register-ArgumentCompleter",
		"immuclient.toml":                  "#audit-interval = \"1s\"",
		"immuclient.service":               "Type=notify",
		"LICENSE":                          "Apache License",
		"immuaudit.rules.yml":              "LedgerTampered",
	} {
		if !strings.Contains(byName[name], part) {
			t.Errorf("%s does not say %q", name, part)
		}
	}
	if page := byName["man/man1/immuclient-health.1"]; strings.Contains(page, "revision-separator") || strings.Contains(page, "Auto generated") || !strings.Contains(page, "Nov 2026") {
		t.Errorf("the page of health holds what is not of it:\n%s", page)
	}
}

// What the linker recorded is what the list says.
func TestSBOM(t *testing.T) {
	t.Parallel()
	text, err := commit.sbom(platform{"linux", "amd64"}, os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	var doc spdxDocument
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{"SPDXRef-DOCUMENT": true}
	names := map[string]bool{}
	for _, p := range doc.Packages {
		if ids[p.ID] {
			t.Errorf("%s twice", p.ID)
		}
		ids[p.ID], names[p.Name] = true, true
		if p.Version == "" || len(p.Refs) != 1 || p.Refs[0].Locator != "pkg:golang/"+p.Name+"@"+p.Version {
			t.Errorf("%+v", p)
		}
	}
	for _, r := range doc.Relationships {
		if !ids[r.Element] || !ids[r.Related] {
			t.Errorf("%+v", r)
		}
	}
	if doc.Version != "SPDX-2.3" || doc.Creation.Created != "2026-11-23T12:00:00Z" || !names["github.com/spf13/cobra"] || !names["stdlib"] {
		t.Errorf("%s", text)
	}
}

func TestSourceIsChecked(t *testing.T) {
	for _, c := range []struct{ version, epoch, wrong string }{
		{"v1", "0", ""}, {"v1 -X main.x=y", "0", "version"}, {"../x", "0", "version"}, {"v1", "soon", "SOURCE_DATE_EPOCH"}, {"v1", "-1", "SOURCE_DATE_EPOCH"},
	} {
		t.Setenv("VERSION", c.version)
		t.Setenv("COMMIT", commit.commit)
		t.Setenv("SOURCE_DATE_EPOCH", c.epoch)
		_, err := sourceAt(t.TempDir())
		if (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// An archive from elsewhere cannot write where it likes.
func TestPlaceStaysInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"../x", "/x", "a/../../x"} {
		if err := place(dir, &file{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}}); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if err := place(dir, &file{Header: tar.Header{Name: "a/b", Typeflag: tar.TypeReg, Mode: 0o644}, body: []byte("x")}); err != nil {
		t.Error(err)
	}
	if body, err := os.ReadFile(filepath.Join(dir, "a", "b")); err != nil || string(body) != "x" {
		t.Errorf("%q %v", body, err)
	}
}

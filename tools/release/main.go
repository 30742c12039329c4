// Command release builds what is handed out, the same bytes from the same
// commit wherever it runs:
//
//	release image [-out DIR]              the container image, for two platforms
//	release dist [-out DIR]               archives of the program for every platform, and SHA256SUMS
//	release check IMAGE.tar               look whether an image is what was promised
//	release unpack IMAGE.tar PLATFORM DIR the root file system of one platform
//
// It needs git, or VERSION, COMMIT and SOURCE_DATE_EPOCH in the environment.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

const usage = "say what to do: image, dist, check IMAGE.tar, or unpack IMAGE.tar PLATFORM DIR"

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	root := flags.String("root", "../..", "top of the source tree")
	out := flags.String("out", "../../dist", "directory for what is built")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch verb, rest := args[0], flags.Args(); {
	case (verb == "image" || verb == "dist") && len(rest) == 0:
		src, err := sourceAt(*root)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(*out, 0o755); err != nil {
			return err
		}
		if verb == "image" {
			return buildImages(src, *out)
		}
		return buildArchives(src, *out)
	case verb == "check" && len(rest) == 1:
		return checkImage(rest[0])
	case verb == "unpack" && len(rest) == 3:
		return unpackImage(rest[0], rest[1], rest[2])
	}
	return errors.New(usage)
}

// source is what is built: a commit. Its time is the time of every file made
// from it.
type source struct {
	root    string
	version string
	commit  string
	time    time.Time
}

var versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$`)

func sourceAt(root string) (src source, err error) {
	if src.root, err = filepath.Abs(root); err != nil {
		return src, err
	}
	src.version, src.commit = os.Getenv("VERSION"), os.Getenv("COMMIT")
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if src.commit == "" {
		if src.commit, err = src.git("rev-parse", "HEAD"); err != nil {
			return src, err
		}
	}
	if seconds == "" {
		if seconds, err = src.git("show", "-s", "--format=%ct", "HEAD"); err != nil {
			return src, err
		}
	}
	epoch, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || epoch < 0 {
		return src, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds", seconds)
	}
	src.time = time.Unix(epoch, 0).UTC()
	if src.version == "" {
		if src.version, err = src.describe(); err != nil {
			return src, err
		}
	}
	if !versionForm.MatchString(src.version) {
		return src, fmt.Errorf("version %q: letters, digits, dots, dashes; set VERSION", src.version)
	}
	return src, nil
}

// describe is the tag of the commit, or the commit; how far it is from other
// tags depends on how much of the history was fetched.
func (src source) describe() (string, error) {
	version, err := src.git("describe", "--exact-match", "--tags", "--match", "v[0-9]*", "HEAD")
	if err != nil {
		version = "devel-" + src.commit[:min(12, len(src.commit))]
	}
	changed, err := src.git("status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return "", err
	}
	if changed != "" {
		version += "-dirty"
	}
	return version, nil
}

func (src source) git(args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", src.root}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w; outside of a clone set VERSION, COMMIT and SOURCE_DATE_EPOCH", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// program is the file name of the program there.
func (p platform) program() string {
	if p.os == "windows" {
		return "immuclient.exe"
	}
	return "immuclient"
}

// build compiles the program into a file. Nothing of the machine goes in: no
// paths, no flags or experiments of its environment.
func (src source) build(p platform, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	const cli = "immuaudit/internal/cli."
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file,
		"-ldflags", "-s -w -buildid= -X "+cli+"buildVersion="+src.version+" -X "+cli+"buildTime="+src.time.Format(time.RFC3339),
		"./cmd/immuclient")
	cmd.Dir = src.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building for %s: %w\n%s", p, err, out)
	}
	return nil
}

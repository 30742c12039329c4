package alert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// ScriptOptions describe programs of the operator.
type ScriptOptions struct {
	Name string
	// Command is one program, or Directory one that holds programs; absolute.
	Command, Directory string
	// Environ is the auditor's own; of it PATH, HOME, LANG and TZ are passed on.
	Environ []string
}

// Script runs programs, without a shell: what happened is in their environment
// and, as a CloudEvent, on their standard input.
type Script struct {
	name, command, directory string
	environ                  []string
}

var _ Sink = (*Script)(nil)

// NewScript checks the options; it runs nothing.
func NewScript(o ScriptOptions) (*Script, error) {
	s := &Script{name: o.Name, command: o.Command, directory: o.Directory}
	for _, variable := range o.Environ {
		switch name, _, _ := strings.Cut(variable, "="); name {
		case "PATH", "HOME", "LANG", "TZ", "SYSTEMROOT": // the last for Windows, where nothing runs without
			s.environ = append(s.environ, variable)
		}
	}
	if (s.command == "") == (s.directory == "") {
		return nil, errors.New("a script is a command or a directory; set one of them")
	}
	_, err := s.programs()
	return s, err
}

// Name is the sink's name in the outbox.
func (s *Script) Name() string { return s.name }

// programs are what is to be run, in order. They are looked for each time: a
// program that was made writable for others meanwhile is not run.
func (s *Script) programs() ([]string, error) {
	if s.command != "" {
		info, err := inspect(s.command)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() || !executable(info) {
			return nil, fmt.Errorf("%s cannot be run; make it a file and chmod 0755 it", s.command)
		}
		return []string{s.command}, nil
	}
	info, err := inspect(s.directory)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory; name it as command", s.directory)
	}
	entries, err := os.ReadDir(s.directory) // sorted
	if err != nil {
		return nil, fmt.Errorf("reading the directory of scripts: %w; let the auditor's user read it", err)
	}
	var programs []string
	for _, entry := range entries {
		path := filepath.Join(s.directory, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") || strings.HasSuffix(entry.Name(), "~") {
			continue
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || !executable(info) {
			continue
		}
		if _, err := inspect(path); err != nil {
			return nil, err
		}
		programs = append(programs, path)
	}
	if len(programs) == 0 {
		return nil, fmt.Errorf("%s holds no program; put one there and chmod 0755 it", s.directory)
	}
	return programs, nil
}

func inspect(path string) (os.FileInfo, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is no absolute path; write it from the root", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("looking at the script: %w; check its path", err)
	}
	if others := writableByOthers(info); others {
		return nil, fmt.Errorf("%s can be written by others than root, and would be run as root; chown root and chmod go-w it", path)
	}
	return info, nil
}

// Send runs the programs, one after the other; the event is accepted if all of
// them end with 0.
func (s *Script) Send(ctx context.Context, e evidence.Event) error {
	programs, err := s.programs()
	if err != nil {
		return err
	}
	body, err := encodeCloudEvent(e)
	if err != nil {
		return fmt.Errorf("encoding the event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	environ := append(variables(e), s.environ...)
	var failures []error
	for _, program := range programs {
		failures = append(failures, run(ctx, program, environ, body))
	}
	return errors.Join(failures...)
}

func run(ctx context.Context, program string, environ []string, body []byte) error {
	var said beginning
	cmd := exec.CommandContext(ctx, program)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(body), &said, &said
	cmd.Dir, cmd.WaitDelay = filepath.Dir(program), scriptPause
	byItself(cmd)
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return nil // a child that it left behind does not make it fail
	}
	if ended := ctx.Err(); ended != nil {
		err = fmt.Errorf("it was killed: %w", ended)
	}
	if len(said.text) == 0 {
		return fmt.Errorf("running %s: %w", program, err)
	}
	return fmt.Errorf("running %s: %w: %q", program, err, cut(string(said.text), maxQuote))
}

// beginning keeps what was written first, and takes the rest.
type beginning struct{ text []byte }

func (b *beginning) Write(p []byte) (int, error) {
	if room := maxAnswerBytes - len(b.text); room > 0 {
		b.text = append(b.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// variables are what docs/alerts.md promises to scripts.
func variables(e evidence.Event) []string {
	var list []string
	set := func(name, value string) { list = append(list, "IMMUAUDIT_"+name+"="+cut(plain(value), maxVariable)) }
	set("EVENT", string(e.Type))
	set("ID", e.ID)
	set("TIME", e.At.UTC().Format(time.RFC3339Nano))
	set("SERVER", e.Name.Server)
	set("DATABASE", e.Name.Database)
	verdict := ""
	if e.HasVerdict() {
		verdict = e.Verdict.String()
	}
	set("VERDICT", verdict)
	set("KIND", string(e.Kind))
	set("INCIDENT", e.Incident)
	set("SUMMARY", headline(e))
	set("MESSAGE", e.Message)
	set("TAGS", strings.Join(e.Tags, ","))
	number := func(name string, n uint64) {
		if n > 0 {
			set(name, strconv.FormatUint(n, 10))
		}
	}
	number("LEDGERS", uint64(max(0, e.Ledgers)))
	number("SEQUENCE", e.Sequence)
	for name, state := range map[string]*proof.SignedState{"TRUSTED": e.Previous, "OBSERVED": e.Current} {
		if m := markOf(state); m != nil {
			number(name+"_TX", m.Tx)
			set(name+"_ALH", m.Alh)
		}
	}
	return list
}

package cli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

const (
	// patience bounds every wait for something that must happen; a machine
	// under load is slow, not wrong.
	patience = 30 * time.Second
	glance   = 10 * time.Millisecond // between two looks
)

// poll looks until done says so or patience ends.
func poll(done func() (bool, error)) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(glance)
	defer ticker.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			if err == nil {
				err = errors.New("it did not happen")
			}
			return fmt.Errorf("after %s: %w", patience, err)
		}
	}
}

func eventually(t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	if err := poll(done); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// process is a program in the background whose output goes to files.
type process struct {
	cmd      *exec.Cmd
	out, err string // files
	ended    chan struct{}
}

// startProcess starts a program; its output goes to DIR/NAME.out and DIR/NAME.err.
func startProcess(dir, name string, environ []string, program string, args ...string) (*process, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	p := &process{
		cmd: exec.Command(path, args...), ended: make(chan struct{}),
		out: filepath.Join(dir, name+".out"), err: filepath.Join(dir, name+".err"),
	}
	p.cmd.Dir, p.cmd.Env = dir, environ
	stdout, err := os.OpenFile(p.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	stderr, err := os.OpenFile(p.err, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the exit code is looked at where it matters
	}()
	return p, nil
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// exit waits for the end and gives the exit code, -1 after a signal.
func (p *process) exit() (int, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-timer.C:
		return 0, fmt.Errorf("process %d is still running after %s", p.cmd.Process.Pid, patience)
	}
}

// isOver reports whether the process has ended.
func (p *process) isOver() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// matchIn waits until a file holds a match and gives its groups.
func matchIn(file, pattern string) ([]string, error) {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return nil, err
	}
	var found []string
	var text []byte
	err = poll(func() (bool, error) {
		var err error
		if text, err = os.ReadFile(file); err != nil {
			return false, err
		}
		found = re.FindStringSubmatch(string(text))
		return found != nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("no match for %q in %s %w; it holds:\n%s", pattern, file, err, text)
	}
	return found, nil
}

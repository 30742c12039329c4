//go:build unix

package evidence_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"immuaudit/evidence"
)

// childEnv says what this test program is to do as a process of its own.
const childEnv = "IMMUAUDIT_EVIDENCE_CHILD"

// children are what it can do; each prints a line for each file it wrote.
var children = map[string]func(incident string) error{
	"loop":     writeUntilKilled,
	"limited":  writeLimited,
	"readonly": writeReadOnly,
}

func TestMain(m *testing.M) {
	if role, incident, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		if err := children[role](incident); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs in dir, where the key and the evidence are found by short names.
func child(t *testing.T, dir, role, incident string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	errs := new(bytes.Buffer)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Dir, cmd.Stderr = dir, errs
	cmd.Env = append(os.Environ(), childEnv+"="+role+" "+incident)
	return cmd, errs
}

// large is evidence that takes the disk a while.
func large(id string) (*evidence.File, error) {
	m := incident(evidence.Rollback)
	m.Incident = id
	for i := range uint64(100) {
		m.Probes = append(m.Probes, evidence.Probe{Tx: i, Note: strings.Repeat("x", 1000)})
	}
	return evidence.Build(m)
}

// writeUntilKilled ends by itself once nobody holds its standard input.
func writeUntilKilled(incident string) error {
	var ended atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		ended.Store(true)
	}()
	signer, err := evidence.LoadOrCreateKey(".")
	if err != nil {
		return err
	}
	for i := 0; !ended.Load(); i++ {
		f, err := large(fmt.Sprintf("%s-%d", incident, i))
		if err != nil {
			return err
		}
		path, err := evidence.Write("evidence", f, signer)
		if err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}

// unfinished reports whether somebody is writing at this moment.
func unfinished(t *testing.T, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) > 0 && strings.HasPrefix(entries[0].Name(), ".") // they are sorted
}

// Processes that write without end are killed at random moments, while another
// one goes on. Whatever has the final name is whole, and so is all that was
// acknowledged; the leftovers go away, and the other's work does not.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := room(t)
	begin := func(incident string) (cmd *exec.Cmd, errs *bytes.Buffer, in io.Closer, out *bufio.Scanner) {
		cmd, errs = child(t, dir, "loop", incident)
		stdin, err1 := cmd.StdinPipe()
		stdout, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		return cmd, errs, stdin, bufio.NewScanner(stdout)
	}
	acknowledged := func(out *bufio.Scanner) {
		for out.Scan() {
			if _, err := os.Stat(filepath.Join(dir, out.Text())); err != nil {
				t.Errorf("acknowledged, and not there: %v", err)
			}
		}
	}
	other, errs, in, lines := begin("survivor")
	lines.Scan()
	for i := range 20 {
		victim, _, _, out := begin(fmt.Sprintf("victim-%d", i))
		// It dies somewhere between two files, or in the middle of one.
		for range i % 4 {
			out.Scan()
		}
		for looks := rand.IntN(1000); i%4 > 0 && looks > 0 && !unfinished(t, filepath.Join(dir, "evidence")); looks-- {
		}
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		acknowledged(out)
		if err := victim.Wait(); err == nil {
			t.Fatal("it was not killed")
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	acknowledged(lines)
	if err := other.Wait(); err != nil {
		t.Errorf("beside those that were killed: %v, %s", err, errs)
	}
	_, left := standing(t, filepath.Join(dir, "evidence"))
	signer, err := evidence.LoadOrCreateKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Write(filepath.Join(dir, "evidence"), built(t, "20261123-last"), signer); err != nil {
		t.Fatal(err)
	}
	finished, after := standing(t, filepath.Join(dir, "evidence"))
	t.Logf("%d files, %d leftovers", len(finished), len(left))
	if len(after) != 0 {
		t.Errorf("left over: %q", after)
	}
}

// writeLimited writes where the system cuts files short: the real thing of
// which a full disk is another case.
func writeLimited(incident string) error {
	signal.Ignore(syscall.SIGXFSZ) // or the runtime ends the process
	signer, err := evidence.LoadOrCreateKey(".")
	if err != nil {
		return err
	}
	f, err := large(incident)
	if err != nil {
		return err
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	limited := old
	limited.Cur = 50_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		return err
	}
	if path, err := evidence.Write("evidence", f, signer); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%q, %w", path, err)
	}
	if entries, err := os.ReadDir("evidence"); err != nil || len(entries) != 0 {
		return fmt.Errorf("%v, %w", entries, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	_, err = evidence.Write("evidence", f, signer)
	return err
}

// writeReadOnly writes where it may not. To root no directory is read-only, so
// it becomes somebody else.
func writeReadOnly(incident string) error {
	signer, err := evidence.LoadOrCreateKey(".")
	if err != nil {
		return err
	}
	f, err := large(incident)
	if err != nil {
		return err
	}
	if err := os.Mkdir("evidence", 0o700); err != nil {
		return err
	}
	if syscall.Getuid() == 0 {
		const nobody = 65534
		if err := errors.Join(os.Chown("evidence", nobody, nobody), syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return err
		}
	}
	if err := os.Chmod("evidence", 0o500); err != nil {
		return err
	}
	if path, err := evidence.Write("evidence", f, signer); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "can write there") {
		return fmt.Errorf("%q, %w", path, err)
	}
	if entries, err := os.ReadDir("evidence"); err != nil || len(entries) != 0 {
		return fmt.Errorf("%v, %w", entries, err)
	}
	if err := os.Chmod("evidence", 0o700); err != nil {
		return err
	}
	_, err = evidence.Write("evidence", f, signer)
	return err
}

// What a real disk refuses leaves nothing behind, and works again once it no
// longer does.
func TestWriteRefused(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"limited", "readonly"} {
		dir := t.TempDir()
		cmd, errs := child(t, dir, role, "20261123-aaaa")
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v, %s", role, err, errs)
		}
		if finished, left := standing(t, filepath.Join(dir, "evidence")); len(finished) != 1 || len(left) != 0 {
			t.Errorf("%s: %q, %q", role, finished, left)
		}
	}
}

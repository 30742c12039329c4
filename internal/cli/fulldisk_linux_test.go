package cli_test

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// limitFiles bounds how far the process may write into a file, which is how a
// full disk looks to it; ^uint64(0) takes the bound away.
func limitFiles(t *testing.T, p *process, bytes uint64) {
	t.Helper()
	limit := unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

// With the disk full, nothing new is trusted, and an attack is told all the
// same: the alarm must not wait for room. With room again everything is made up for.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	if err := s.write("defaultdb", 5); err != nil {
		t.Fatal(err)
	}
	hook := receiving(t, dir)
	a := audit(t, dir, s.Addr(), "--audit-interval", "50ms", "--audit-notification-url", hook.url())
	a.logged(`verdict=consistent`)
	log, err := os.Stat(filepath.Join(dir, "auditor.err"))
	if err != nil {
		t.Fatal(err)
	}
	limitFiles(t, a.process, uint64(log.Size())+8<<10) // room for the log, none for the state's log
	if err := s.write("defaultdb", 1); err != nil {
		t.Fatal(err)
	}
	a.shows("/metrics", `immuaudit_ledger_verdict{database="defaultdb",server="tested",verdict="undetermined"} 1`)
	if err := s.do(nil, "empty", "defaultdb"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the alarm arrives although nothing can be stored", func() (bool, error) { return accepted(hook, http.StatusOK) > 0, nil })
	a.shows("/metrics", `immuaudit_ledger_verdict{database="defaultdb",server="tested",verdict="tampered"} 1`)
	limitFiles(t, a.process, unix.RLIM_INFINITY)
	a.logged(`an incident kept in memory is stored now`)
	a.shows("/metrics", `immuaudit_notification_queue_length{sink="webhook"} 0`)
	a.stop(syscall.SIGTERM)
	run(t, dir, 3, "incident", "list")
	if got := remembered(t, dir)["defaultdb"]; got.Trusted.Tx != 5 || got.Open != 1 {
		t.Errorf("remembered %+v, want transaction 5 and one open incident", got)
	}
}

package cli_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"immuaudit/evidence"
)

// auditing is an auditor as a process of its own.
type auditing struct {
	*process
	t          *testing.T
	dir        string
	monitoring string // host:port
}

// newServer serves a ledger for the length of a test.
func newServer(t *testing.T, options ...string) *testServer {
	t.Helper()
	s, err := newTestServer(t.TempDir(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// audit starts a daemon over a server; its state is DIR/state.
func audit(t *testing.T, dir, address string, args ...string) *auditing {
	t.Helper()
	args = append([]string{"audit-mode", "-a", address, "--audit-server", "tested"}, args...)
	log := filepath.Join(dir, "auditor.err")
	if err := os.Remove(log); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	p, err := startProcess(dir, "auditor", isolated(dir), "immuclient", args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	found, err := matchIn(log, `msg=auditing .*monitoring=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	return &auditing{process: p, t: t, dir: dir, monitoring: found[1]}
}

// run is one command to its end.
func run(t *testing.T, dir string, want int, args ...string) string {
	t.Helper()
	p, err := startProcess(t.TempDir(), "command", isolated(dir), "immuclient", args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	code, err := p.exit()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(p.out)
	if err != nil {
		t.Fatal(err)
	}
	if code != want {
		said, _ := os.ReadFile(p.err)
		t.Fatalf("immuclient %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, said)
	}
	return string(out)
}

// stop ends a daemon in good order.
func (a *auditing) stop(signal os.Signal) {
	a.t.Helper()
	asked := time.Now()
	if err := a.cmd.Process.Signal(signal); err != nil {
		a.t.Fatal(err)
	}
	code, err := a.exit()
	if err != nil {
		a.t.Fatal(err)
	}
	if code != 0 {
		said, _ := os.ReadFile(a.err)
		a.t.Fatalf("exit code %d after %v, want 0\n%s", code, signal, said)
	}
	if took := time.Since(asked); took > 5*time.Second {
		a.t.Errorf("took %s to stop after %v, want at most 5s", took, signal)
	}
}

// logged waits for a line of the log.
func (a *auditing) logged(pattern string) []string {
	a.t.Helper()
	found, err := matchIn(a.err, pattern)
	if err != nil {
		a.t.Fatal(err)
	}
	return found
}

// get requests a path of the monitoring port.
func (a *auditing) get(path string) (int, http.Header, string) {
	a.t.Helper()
	resp, body, err := fetch(http.MethodGet, "http://"+a.monitoring+path, "", nil, "", "", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// shows waits until a path of the monitoring port holds a text.
func (a *auditing) shows(path, text string) {
	a.t.Helper()
	var body string
	err := poll(func() (bool, error) {
		_, _, body = a.get(path)
		return strings.Contains(body, text), nil
	})
	if err != nil {
		a.t.Fatalf("%s never showed %q: %v\n%s", path, text, err, body)
	}
}

// trusted is what the state directory holds about one ledger.
type trusted struct {
	Server, Database string
	Origin           string
	Baseline         evidence.Mark
	Trusted          evidence.Mark
	Assurance        evidence.Assurance
	Open             int `json:"open_incidents"`
}

// remembered reads the state directory through the command line.
func remembered(t *testing.T, dir string) map[string]trusted {
	t.Helper()
	all := map[string]trusted{}
	dec := json.NewDecoder(bytes.NewReader([]byte(run(t, dir, 0, "trust", "list", "--json"))))
	for dec.More() {
		var one trusted
		if err := dec.Decode(&one); err != nil {
			t.Fatal(err)
		}
		all[one.Database] = one
	}
	return all
}

func TestDaemonEndsOnSignals(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if err := s.write("defaultdb", 5); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		dir := t.TempDir()
		a := audit(t, dir, s.Addr())
		a.logged(`verdict=consistent`)
		a.stop(signal)
		a.logged(`stopped; what was proven is on disk`)
		if left, err := filepath.Glob(filepath.Join(dir, "state", "*.sock")); err != nil || len(left) > 0 {
			t.Errorf("the probe socket was left behind: %v %v", left, err)
		}
		if got := remembered(t, dir)["defaultdb"]; got.Trusted.Tx != 5 {
			t.Errorf("after %v transaction %d is trusted, want 5", signal, got.Trusted.Tx)
		}
	}
}

// A receiver that never answers holds the daemon up for the grace that a try
// under way has; a second signal does not wait for it.
func TestSecondSignalForces(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	hook, err := newReceiver(dir, "hook")
	if err != nil {
		t.Fatal(err)
	}
	hook.answer(http.StatusOK, true)
	if err := hook.up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hook.down() })
	a := audit(t, dir, s.Addr(), "--audit-notification-url", hook.url(), "--audit-notification-on", "always", "--audit-interval", "50ms")
	eventually(t, "a notification is under way", func() (bool, error) { return len(hook.all()) > 0, nil })
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// Until the first signal was taken, a second of the same kind may be lost.
	eventually(t, "the daemon is forced", func() (bool, error) {
		_ = a.cmd.Process.Signal(os.Interrupt) // it may be gone by now
		return a.isOver(), nil
	})
	if code := a.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d after being forced, want 1", code)
	}
	a.logged(`immuclient: forced to stop`)
	run(t, dir, 0, "trust", "list")
}

func TestServerThatIsDownAtStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if err := s.write("defaultdb", 3); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	a := audit(t, t.TempDir(), s.Addr(), "--audit-interval", "50ms")
	a.logged(`reason=unreachable|listing the databases|unreachable`)
	if err := s.Start(s.Addr()); err != nil {
		t.Fatal(err)
	}
	a.logged(`first contact`)
	a.shows("/metrics", `immuclient_audit_curr_root_per_server{server_address="`+s.Addr()+`",server_id="`+s.UUID()+`"} 3`)
	// And a restart in the middle, which voids all tokens, costs no verdict for long.
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := s.write("defaultdb", 4); err != nil {
		t.Fatal(err)
	}
	a.shows("/metrics", `immuclient_audit_curr_root_per_server{server_address="`+s.Addr()+`",server_id="`+s.UUID()+`"} 7`)
	a.stop(syscall.SIGTERM)
}

func TestRunningAuditorNoticesDecisions(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	if err := s.write("defaultdb", 5); err != nil {
		t.Fatal(err)
	}
	a := audit(t, dir, s.Addr(), "--audit-interval", "50ms")
	a.logged(`verdict=consistent`)
	if err := s.do(nil, "empty", "defaultdb"); err != nil {
		t.Fatal(err)
	}
	incident := a.logged(`msg=TAMPERED .*incident=(\S+)`)[1]
	run(t, dir, 0, "trust", "accept", incident, "--reason", "the test database was reset")
	a.logged(`(?s:verdict=tampered.*)verdict=consistent trusted_tx=0`)
	if err := s.write("defaultdb", 2); err != nil {
		t.Fatal(err)
	}
	a.shows("/metrics", `immuclient_audit_curr_root_per_server{server_address="`+s.Addr()+`",server_id="`+s.UUID()+`"} 2`)
	a.shows("/metrics", `immuclient_audit_result_per_server{server_address="`+s.Addr()+`",server_id="`+s.UUID()+`"} 1`)
	got := remembered(t, dir)["defaultdb"]
	if got.Origin != "accepted" || got.Trusted.Tx != 2 || got.Open != 0 {
		t.Errorf("remembered %+v, want accepted, transaction 2, no open incident", got)
	}
	a.stop(os.Interrupt)
}

// 200 databases, all audited within one interval, every interval.
func TestTwoHundredDatabasesInOneInterval(t *testing.T) {
	t.Parallel()
	const databases = 200
	s, dir := newServer(t), t.TempDir()
	for i := range databases - 1 {
		name := "db" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		if err := s.CreateDatabase(name); err != nil {
			t.Fatal(err)
		}
		if err := s.write(name, 2); err != nil {
			t.Fatal(err)
		}
	}
	a := audit(t, dir, s.Addr(), "--json")
	rounds := func() map[string][]evidence.Report {
		text, err := os.ReadFile(a.out)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string][]evidence.Report{}
		for _, line := range bytes.Split(text, []byte("\n")) {
			var r evidence.Report
			if len(line) > 0 && line[len(line)-1] == '}' && json.Unmarshal(line, &r) == nil {
				all[r.Database] = append(all[r.Database], r)
			}
		}
		return all
	}
	eventually(t, "every database had three agreeing rounds", func() (bool, error) {
		all := rounds()
		for _, reports := range all {
			if len(reports) < 4 {
				return false, nil
			}
		}
		return len(all) == databases, nil
	})
	a.stop(syscall.SIGTERM)
	for name, reports := range rounds() {
		for i, r := range reports[1:] {
			if r.Verdict != evidence.Consistent {
				t.Errorf("%s: %s %s %s", name, r.Verdict, r.Reason, r.Detail)
			}
			// A machine under load stretches an interval, but not to the 200
			// of them that one database in each would take.
			if gap := r.Time.Sub(reports[i].Time); gap > 20*time.Second {
				t.Errorf("%s: %s between two rounds", name, gap)
			}
		}
	}
	all := remembered(t, dir)
	if len(all) != databases {
		t.Errorf("%d ledgers are remembered, want %d", len(all), databases)
	}
}

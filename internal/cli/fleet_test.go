package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"immuaudit/evidence"
)

// newHanging is an address where connections are taken and nothing is answered.
func newHanging(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		var taken []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			taken = append(taken, conn)
		}
		for _, conn := range taken {
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		accepting.Wait()
	})
	return l.Addr().String()
}

// between does something to a server while it is away for a moment.
func (s *testServer) between(t *testing.T, steps ...[]string) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		if err := s.do(nil, step[0], step[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Start(s.Addr()); err != nil {
		t.Fatal(err)
	}
}

// told is what a receiver of CloudEvents made of what it accepted.
func told(t *testing.T, r *receiver) (ids map[string]int, events map[string]int) {
	t.Helper()
	ids, events = map[string]int{}, map[string]int{}
	for _, one := range r.all() {
		var e struct {
			ID, Type string
			Data     struct{ Server, Kind string }
		}
		if err := json.Unmarshal(one.Body, &e); err != nil {
			t.Fatalf("%v: %s", err, one.Body)
		}
		ids[e.ID]++
		events[strings.TrimSpace(e.Type+" "+e.Data.Server+" "+e.Data.Kind)]++
	}
	return ids, events
}

// reportsOf are the rounds in an output of --json, by server.
func reportsOf(t *testing.T, text []byte) map[string][]evidence.Report {
	t.Helper()
	all := map[string][]evidence.Report{}
	for line := range bytes.Lines(text) {
		var r evidence.Report
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all[r.Server] = append(all[r.Server], r)
	}
	return all
}

// strikes are the attacks on servers of a fleet, by the kind of incident.
var strikes = map[evidence.Kind][][]string{
	evidence.Rollback:   {{"restore", "defaultdb", "early"}},
	evidence.Fork:       {{"restore", "defaultdb", "early"}, {"write", "defaultdb", "20"}},
	evidence.Emptied:    {{"empty", "defaultdb"}},
	evidence.Value:      {{"write", "defaultdb", "1"}, {"value", "defaultdb", "11", "edited"}},
	evidence.KeyChanged: {{"sign", "second"}},
}

// Fifty servers, of which ten are down, ten hang and five are attacked: nobody
// waits for anybody else, and everything is told once.
func TestFiftyServers(t *testing.T) {
	t.Parallel()
	const honest, interval = 25, 400 * time.Millisecond
	dir := t.TempDir()
	receiver, err := newReceiver(dir, "hook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = receiver.down() })
	parts := []string{
		fmt.Sprintf("audit-interval = %q", interval), `audit-stale-after = "2s"`, `audit-monitoring-host = "127.0.0.1"`, "audit-monitoring-port = 0",
		hook("pager", receiver, "tampered", "stale"),
	}
	var agreeing []string
	want := map[string]int{} // what is told, and how often
	for i := range 10 {
		down, hanging := fmt.Sprintf("down-%d", i), fmt.Sprintf("hanging-%d", i)
		parts = append(parts, table(down, fmt.Sprintf("127.0.0.1:%d", i+1)), table(hanging, newHanging(t)))
		want["immuaudit.stale "+down], want["immuaudit.stale "+hanging] = 1, 1
	}
	for i := range honest {
		s, name := newServer(t), fmt.Sprintf("honest-%d", i)
		if err := s.write("defaultdb", 4); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, table(name, s.Addr()))
		agreeing = append(agreeing, name+"/defaultdb")
	}
	victims := map[evidence.Kind]*testServer{}
	for kind := range strikes {
		s, name := newServer(t, "key=first"), string(kind)
		for _, step := range [][]string{{"write", "defaultdb", "5"}, {"snapshot", "defaultdb", "early"}, {"write", "defaultdb", "5"}} {
			if err := s.do(nil, step[0], step[1:]...); err != nil {
				t.Fatal(err)
			}
		}
		victims[kind] = s
		parts = append(parts, table(name, s.Addr(), "verify-values = true"))
		agreeing = append(agreeing, name+"/defaultdb")
		want["immuaudit.tampered "+name+" "+name] = 1
	}
	file := configure(t, dir, parts...)
	a := auditAll(t, dir, file, "--json")
	a.consistent(agreeing...)
	for kind, s := range victims {
		s.between(t, strikes[kind]...)
	}
	eventually(t, "every attack is found", func() (bool, error) {
		all, missing := a.standings(), []string(nil)
		for kind := range strikes {
			if l := all[string(kind)+"/defaultdb"]; l.Verdict != evidence.Tampered || l.Kind != kind {
				missing = append(missing, fmt.Sprintf("%s: %s %s %s", kind, l.Verdict, l.Kind, l.Reason))
			}
		}
		return len(missing) == 0, fmt.Errorf("%q", missing)
	})
	for name, l := range a.standings() {
		if strings.HasPrefix(name, "honest-") && l.Verdict != evidence.Consistent {
			t.Errorf("%s: %s %s", name, l.Verdict, l.Reason)
		}
	}
	if err := receiver.up(); err != nil { // until now nobody took anything
		t.Fatal(err)
	}
	eventually(t, "everything was told", func() (bool, error) {
		_, events := told(t, receiver)
		return len(events) >= len(want), fmt.Errorf("%d of %d: %v", len(events), len(want), events)
	})
	seeFifty(t, a)
	a.stop(syscall.SIGTERM)

	text, err := os.ReadFile(a.out)
	if err != nil {
		t.Fatal(err)
	}
	rounds := reportsOf(t, text)
	for i := range honest {
		all := rounds[fmt.Sprintf("honest-%d", i)]
		for j, r := range all[1:] {
			// Shorter than any wait for a server that does not answer.
			if gap := r.Time.Sub(all[j].Time); gap > 4*time.Second || r.Verdict != evidence.Consistent {
				t.Errorf("%s: %s between two rounds at an interval of %s, %s %s", r.Server, gap, interval, r.Verdict, r.Reason)
			}
		}
		if len(all) < 5 {
			t.Errorf("honest-%d had %d rounds", i, len(all))
		}
	}

	once := reportsOf(t, []byte(run(t, dir, 3, "audit-mode", "--once", "--json", "--config", file)))
	for _, name := range agreeing {
		server := strings.TrimSuffix(name, "/defaultdb")
		verdict := evidence.Consistent
		if victims[evidence.Kind(server)] != nil {
			verdict = evidence.Tampered
		}
		if all := once[server]; len(all) != 1 || all[0].Verdict != verdict || all[0].Database != "defaultdb" {
			t.Errorf("%s with --once: %+v, want one %s", server, all, verdict)
		}
	}
	for i := range 10 {
		for _, server := range []string{fmt.Sprintf("down-%d", i), fmt.Sprintf("hanging-%d", i)} {
			if all := once[server]; len(all) != 1 || all[0].Verdict != evidence.Undetermined || all[0].Reason == "" {
				t.Errorf("%s with --once: %+v, want one undetermined with its reason", server, all)
			}
		}
	}
	ids, events := told(t, receiver)
	for event, n := range events {
		if want[event] != n {
			t.Errorf("%q was told %d times, want %d", event, n, want[event])
		}
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("event %s came %d times", id, n)
		}
	}
}

// seeFifty looks at what the pages, the API and the metrics show of the fleet.
func seeFifty(t *testing.T, a *auditing) {
	t.Helper()
	_, _, metrics := a.get("/metrics")
	_, _, servers := a.get("/api/v1/servers")
	resp, page, err := fetch(http.MethodGet, "http://"+a.monitoring+"/", "", http.Header{"Accept": {"text/html"}}, "", "", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the page: %v %v", resp, err)
	}
	var answer struct {
		Servers []struct {
			Server  string
			Answers bool
			Verdict evidence.Verdict
		}
	}
	if err := json.Unmarshal([]byte(servers), &answer); err != nil || len(answer.Servers) != 50 {
		t.Fatalf("%d servers, want 50 (%v)", len(answer.Servers), err)
	}
	for _, s := range answer.Servers {
		up, verdict := 1, evidence.Consistent
		switch {
		case strings.HasPrefix(s.Server, "down-"), strings.HasPrefix(s.Server, "hanging-"):
			up, verdict = 0, evidence.Undetermined
		case strikes[evidence.Kind(s.Server)] != nil:
			verdict = evidence.Tampered
		}
		if s.Answers != (up == 1) || s.Verdict != verdict {
			t.Errorf("%s: answers %t, %s; want %s", s.Server, s.Answers, s.Verdict, verdict)
		}
		lines := []string{fmt.Sprintf("immuaudit_server_up{server=%q} %d\n", s.Server, up)}
		if up == 1 {
			lines = append(lines, fmt.Sprintf("immuaudit_ledger_verdict{database=\"defaultdb\",server=%q,verdict=%q} 1\n", s.Server, verdict))
		}
		for _, line := range lines {
			if !strings.Contains(metrics, line) {
				t.Errorf("the metrics lack %q", line)
			}
		}
		if !strings.Contains(string(page), s.Server) {
			t.Errorf("the page lacks %s", s.Server)
		}
	}
}

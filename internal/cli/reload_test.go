package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"immuaudit/evidence"
	"immuaudit/internal/ledger"
)

// visitors counts who is and who was connected to a server.
type visitors struct{ open, ever, logins atomic.Int64 }

func (v *visitors) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (v *visitors) HandleRPC(context.Context, stats.RPCStats)                         {}

func (v *visitors) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		v.open.Add(1)
		v.ever.Add(1)
	case *stats.ConnEnd:
		v.open.Add(-1)
	}
}

func (v *visitors) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if strings.HasSuffix(info.FullMethodName, "/Login") || strings.HasSuffix(info.FullMethodName, "/OpenSession") {
		v.logins.Add(1)
	}
	return ctx
}

// newVisited serves a ledger of two databases, and counts its visitors.
func newVisited(t *testing.T) (*testServer, *visitors) {
	t.Helper()
	v := &visitors{}
	l, err := ledger.Open(ledger.Config{HeaderVersion: 1, ServerOptions: []grpc.ServerOption{grpc.StatsHandler(v)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &testServer{Ledger: l}
	if err := s.CreateDatabase("extra"); err != nil {
		t.Fatal(err)
	}
	for _, db := range []string{"defaultdb", "extra"} {
		if err := s.write(db, 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return s, v
}

// table is a [[server]] of a configuration.
func table(name, address string, more ...string) string {
	return fmt.Sprintf("[[server]]\nname = %q\naddress = %q\n%s\n\n", name, address, strings.Join(more, "\n"))
}

// hook is a [[sink]] that posts CloudEvents to a receiver.
func hook(name string, r *receiver, events ...string) string {
	for i := range events {
		events[i] = fmt.Sprintf("%q", events[i])
	}
	return fmt.Sprintf("[[sink]]\nname = %q\ntype = \"standard-webhook\"\nurl = %q\nsecret = \"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\"\nevents = [%s]\n\n",
		name, r.url(), strings.Join(events, ", "))
}

// configure puts a configuration in the place of another, whole.
func configure(t *testing.T, dir string, parts ...string) string {
	t.Helper()
	file := filepath.Join(dir, "immuclient.toml")
	if err := os.WriteFile(file+".new", []byte(strings.Join(parts, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// auditAll starts a daemon over all servers of a configuration.
func auditAll(t *testing.T, dir, file string, args ...string) *auditing {
	t.Helper()
	var environ []string
	for _, pair := range isolated(dir) {
		if !strings.HasPrefix(pair, "IMMUCLIENT_AUDIT_MONITORING_") { // which would win over the file
			environ = append(environ, pair)
		}
	}
	p, err := startProcess(dir, "auditor", environ, "immuclient", append([]string{"audit-mode", "--config", file}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	a := &auditing{process: p, t: t, dir: dir}
	a.monitoring = a.logged(`msg=auditing .*monitoring=(\S+)`)[1]
	return a
}

// standing is a ledger as the API tells of it.
type standing struct {
	Server, Database string
	Verdict          evidence.Verdict
	Kind             evidence.Kind
	Reason           evidence.Reason
	Incident         string
	LastAttempt      time.Time `json:"last_attempt"`
	Stale, Paused    bool
}

// standings are the ledgers that are audited, as "server/database", as the API
// tells of them. What was taken out of the configuration rests.
func (a *auditing) standings() map[string]standing {
	a.t.Helper()
	code, _, body := a.get("/api/v1/ledgers?limit=1000")
	var answer struct{ Ledgers []standing }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
		a.t.Fatalf("the list of ledgers: %d %v\n%s", code, err, body)
	}
	all := map[string]standing{}
	for _, l := range answer.Ledgers {
		if !l.Paused {
			all[l.Server+"/"+l.Database] = l
		}
	}
	return all
}

// consistent waits until exactly these ledgers are there, all agreeing.
func (a *auditing) consistent(names ...string) {
	a.t.Helper()
	var all map[string]standing
	err := poll(func() (bool, error) {
		all = a.standings()
		for _, name := range names {
			if all[name].Verdict != evidence.Consistent {
				return false, nil
			}
		}
		return len(all) == len(names), nil
	})
	if err != nil {
		a.t.Fatalf("want %q and nothing else, consistent: %v\n%+v", names, err, all)
	}
}

// goesOn waits for two more rounds of a ledger.
func (a *auditing) goesOn(name string) {
	a.t.Helper()
	for range 2 {
		last := a.standings()[name].LastAttempt
		eventually(a.t, name+" is audited again", func() (bool, error) { return a.standings()[name].LastAttempt.After(last), nil })
	}
}

// reads waits until the log says so once more than it did when asked was done.
func (a *auditing) reads(pattern string, asked func()) {
	a.t.Helper()
	re := regexp.MustCompile(pattern)
	said := func() int {
		text, err := os.ReadFile(a.err)
		if err != nil {
			a.t.Fatal(err)
		}
		return len(re.FindAll(text, -1))
	}
	before := said()
	asked()
	eventually(a.t, "the log says "+pattern, func() (bool, error) { return said() > before, nil })
}

func (a *auditing) hangUp() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		a.t.Fatal(err)
	}
}

// A running auditor takes a changed configuration over, and disturbs nothing
// that did not change.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stays, atStays := newVisited(t)
	changes, _ := newVisited(t)
	goes, atGoes := newVisited(t)
	comes, atComes := newVisited(t)
	const general = "audit-interval = \"100ms\"\naudit-monitoring-host = \"127.0.0.1\"\naudit-monitoring-port = 0\n"
	file := configure(t, dir, general, table("stays", stays.Addr()), table("changes", changes.Addr(), `databases = "defaultdb"`), table("goes", goes.Addr()))
	a := auditAll(t, dir, file)
	a.consistent("stays/defaultdb", "stays/extra", "changes/defaultdb", "goes/defaultdb", "goes/extra")
	const successful = "immuaudit_config_last_reload_successful"
	a.shows("/metrics", successful+" 1\n")
	a.reads(`nothing in it changed`, a.hangUp)
	ever, logins := atStays.ever.Load(), atStays.logins.Load()

	second := []string{general, table("stays", stays.Addr()), table("changes", changes.Addr(), `databases = "extra"`), table("comes", comes.Addr())}
	configure(t, dir, second...)
	a.reads(`the configuration was taken over" servers=3 started=2 stopped=2`, a.hangUp)
	a.consistent("stays/defaultdb", "stays/extra", "changes/extra", "comes/defaultdb", "comes/extra")
	eventually(t, "the connection to the server that went is closed", func() (bool, error) { return atGoes.open.Load() == 0, nil })
	if _, _, metrics := a.get("/metrics"); strings.Contains(metrics, `server="goes"`) || !strings.Contains(metrics, `immuaudit_ledger_paused{database="defaultdb",server="changes"} 1`) {
		t.Errorf("the metrics tell of a server that went, or do not tell that a database rests:\n%s", metrics)
	}
	a.goesOn("stays/defaultdb")

	// A bad file is refused with all its mistakes, without anybody's asking.
	a.reads(`(?s)the configuration is refused.*the configuration is refused`, func() {
		configure(t, dir, general, "audit-intervall = \"1s\"\n", table("stays", stays.Addr(), `interval = "soon"`))
	})
	for _, mistake := range []string{"audit-intervall", "soon"} {
		a.logged(`the configuration is refused; the one before stays in force" mistake=.*` + mistake)
	}
	a.shows("/metrics", successful+" 0\n")
	a.goesOn("comes/extra")
	a.consistent("stays/defaultdb", "stays/extra", "changes/extra", "comes/defaultdb", "comes/extra")
	configure(t, dir, second...)
	a.hangUp()
	a.shows("/metrics", successful+" 1\n")
	if e, l, open := atStays.ever.Load(), atStays.logins.Load(), atComes.open.Load(); e != ever || l != logins || open != 1 {
		t.Errorf("the server that stayed had %d connections and %d logins before, %d and %d after; the one that came has %d connections open, want 1", ever, logins, e, l, open)
	}

	// What only a restart can change is said; a new sink gets the next alert.
	receiver := receiving(t, dir)
	second[0] = strings.Replace(general, "port = 0", "port = 9", 1)
	configure(t, dir, append(second, hook("later", receiver, "tampered"))...)
	a.reads(`the configuration was taken over" servers=3 .*sinks=1`, a.hangUp)
	a.logged(`only a restart can change.*setting=audit-monitoring-port`)
	if err := comes.do(nil, "empty", "extra"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new sink is told", func() (bool, error) { return len(receiver.all()) > 0, nil })
	if got := string(receiver.all()[0].Body); !strings.Contains(got, `"immuaudit.tampered"`) || !strings.Contains(got, `"server":"comes"`) {
		t.Errorf("the new sink was told %s", got)
	}
	a.stop(syscall.SIGTERM)
}

// Who asks again and again, while the last is still being done, ends nothing and
// loses no change.
func TestReloadAskedForOften(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := newVisited(t)
	const general = "audit-interval = \"50ms\"\naudit-monitoring-host = \"127.0.0.1\"\naudit-monitoring-port = 0\n"
	file := configure(t, dir, general, table("tested", s.Addr()))
	a := auditAll(t, dir, file)
	a.consistent("tested/defaultdb", "tested/extra")
	a.reads("nothing in it changed", a.hangUp)
	for i := range 40 {
		configure(t, dir, general, table("tested", s.Addr(), fmt.Sprintf("databases = %q", []string{"defaultdb", "extra"}[i%2])))
		for range 5 {
			a.hangUp()
		}
	}
	a.consistent("tested/extra")
	a.stop(syscall.SIGTERM)
}

package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"immuaudit/internal/config"
)

// TestStories runs testdata/script: the command line as its users see it. A
// story has, beside testscript's own commands:
//
//	exits CODE PROGRAM ARG…         run to its end and compare the exit code
//	start NAME PROGRAM ARG…         run in the background; output in NAME.out and NAME.err
//	signal NAME INT|TERM|KILL       send a signal to it
//	ended NAME CODE                 wait for its end; -1 after a signal
//	ledger NAME new OPTION…         serve a ledger; its address is $NAME
//	ledger NAME VERB ARG…           do something to it (ledger_test.go)
//	receiver NAME new|up|down|slow|CODE   take notifications at $NAME, into NAME.log
//	certificates DIR                make an authority, a server, a client and a stranger
//	original DIR UUID LEDGER DATABASE…  write the state that the original auditor keeps
//	waitfor FILE PATTERN [VAR]      wait for a match; VAR becomes its first group
//	get CODE URL [HEADER VALUE]     request, status compared, body as stdout, headers as stderr
//	fields FILE NAME…               every line is a JSON object with exactly these members
//	openpath                        let other users reach $WORK
func TestStories(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", Setup: setUp, RequireExplicitExec: true, RequireUniqueNames: true,
		WorkdirRoot:   t.TempDir(),                       // testscript's own is left behind where -run chose some stories
		UpdateScripts: os.Getenv("UPDATE_STORIES") != "", // rewrites what cmp compares with
		Deadline:      time.Now().Add(5 * time.Minute),   // an auditor that should have refused to start runs for ever
		Condition: func(cond string) (bool, error) {
			if file, ok := strings.CutPrefix(cond, "exists:"); ok {
				_, err := os.Stat(file)
				return err == nil, nil
			}
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "start": cmdStart, "signal": cmdSignal, "ended": cmdEnded, "ledger": cmdLedger, "receiver": cmdReceiver,
			"certificates": cmdCertificates, "original": cmdOriginal, "waitfor": cmdWaitFor, "get": cmdGet, "fields": cmdFields, "openpath": cmdOpenPath,
		},
	})
}

// story is what one script has running.
type story struct {
	processes map[string]*process
	ledgers   map[string]*testServer
	receivers map[string]*receiver
}

type storyKey struct{}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

func setUp(env *testscript.Env) error {
	s := &story{processes: map[string]*process{}, ledgers: map[string]*testServer{}, receivers: map[string]*receiver{}}
	env.Values[storyKey{}] = s
	env.Defer(s.end)
	for _, line := range isolated(env.WorkDir) {
		name, value, _ := strings.Cut(line, "=")
		env.Setenv(name, value)
	}
	return nil
}

// isolated is an environment in which nothing outside of dir is read or written.
func isolated(dir string) []string {
	return []string{
		"HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + filepath.Join(dir, ".tmp"), "PATH=" + os.Getenv("PATH"),
		"IMMUCLIENT_CONFIG=" + os.DevNull, "IMMUCLIENT_DIR=" + filepath.Join(dir, "state"),
		"IMMUCLIENT_AUDIT_MONITORING_HOST=127.0.0.1", "IMMUCLIENT_AUDIT_MONITORING_PORT=0",
		"IMMUCLIENT_AUDIT_USERNAME=immudb", "IMMUCLIENT_AUDIT_PASSWORD=immudb",
		"GORACE=atexit_sleep_ms=10", // a program built with -race otherwise sleeps for a second at its end
	}
}

func (s *story) end() {
	for _, p := range s.processes {
		p.kill()
	}
	for _, r := range s.receivers {
		_ = r.down() // the story is over
	}
	for _, l := range s.ledgers {
		_ = l.Close()
	}
}

// need checks the form of a command of a story.
func need(ts *testscript.TestScript, neg, ok bool, form string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", form)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "exits CODE PROGRAM ARG…")
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "start NAME PROGRAM ARG…")
	s := storyOf(ts)
	if old := s.processes[args[0]]; old != nil && !old.isOver() {
		ts.Fatalf("%s is still running", args[0])
	}
	var environ []string
	for _, name := range environNames(ts) {
		environ = append(environ, name+"="+ts.Getenv(name))
	}
	p, err := startProcess(ts.Getenv("WORK"), args[0], environ, args[1], args[2:]...)
	ts.Check(err)
	s.processes[args[0]] = p
}

// environNames are the variables that a process of a story may see.
func environNames(ts *testscript.TestScript) []string {
	names := []string{"HOME", "PATH", "TMPDIR", "GOCOVERDIR", "GORACE", "XDG_STATE_HOME", "audit-agent-interval"}
	for _, s := range config.Settings() {
		names = append(names, s.Variable)
	}
	return slices.DeleteFunc(names, func(name string) bool { return ts.Getenv(name) == "" })
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "signal NAME INT|TERM|KILL")
	p := storyOf(ts).processes[args[0]]
	signal, known := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}[args[1]]
	if p == nil || !known {
		ts.Fatalf("no process %s, or no signal %s", args[0], args[1])
	}
	ts.Check(p.cmd.Process.Signal(signal))
}

func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "ended NAME CODE")
	p := storyOf(ts).processes[args[0]]
	if p == nil {
		ts.Fatalf("no process %s", args[0])
	}
	code, err := p.exit()
	ts.Check(err)
	if strconv.Itoa(code) != args[1] {
		text, _ := os.ReadFile(p.err)
		ts.Fatalf("exit code %d, want %s; it said:\n%s", code, args[1], text)
	}
}

func cmdLedger(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "ledger NAME VERB ARG…")
	name, verb, s := args[0], args[1], storyOf(ts)
	if verb == "new" {
		l, err := newTestServer(ts.Getenv("WORK"), args[2:]...)
		ts.Check(err)
		s.ledgers[name] = l
		ts.Setenv(name, l.Addr())
		return
	}
	l := s.ledgers[name]
	if l == nil {
		ts.Fatalf("no ledger %s; begin with: ledger %s new", name, name)
	}
	ts.Check(l.do(ts.Stdout(), verb, args[2:]...))
}

func cmdReceiver(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "receiver NAME VERB")
	name, s := args[0], storyOf(ts)
	if args[1] == "new" {
		r, err := newReceiver(ts.Getenv("WORK"), name)
		ts.Check(err)
		s.receivers[name] = r
		ts.Setenv(name, r.url())
		return
	}
	if s.receivers[name] == nil {
		ts.Fatalf("no receiver %s; begin with: receiver %s new", name, name)
	}
	ts.Check(s.receivers[name].do(args[1]))
}

func cmdCertificates(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 1, "certificates DIR")
	ts.Check(writeCertificates(ts.MkAbs(args[0])))
}

func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2 || len(args) == 3, "waitfor FILE PATTERN [VAR]")
	var found []string
	if args[0] == "stdout" || args[0] == "stderr" {
		re, err := regexp.Compile("(?m)" + args[1])
		ts.Check(err)
		if found = re.FindStringSubmatch(ts.ReadFile(args[0])); found == nil {
			ts.Fatalf("no match for %q in %s", args[1], args[0])
		}
	} else {
		var err error
		found, err = matchIn(ts.MkAbs(args[0]), args[1])
		ts.Check(err)
	}
	if len(args) == 3 {
		ts.Setenv(args[2], found[1])
	}
}

func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2 || len(args) == 4, "get CODE URL [HEADER VALUE]")
	header := http.Header{}
	if len(args) == 4 {
		header.Set(args[2], args[3])
	}
	resp, body, err := fetch(http.MethodGet, args[1], "", header, "", "", nil)
	ts.Check(err)
	if err := resp.Header.Write(ts.Stderr()); err != nil {
		ts.Fatalf("%v", err)
	}
	fmt.Fprintf(ts.Stdout(), "%s\n", body)
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("status %d, want %s: %s", resp.StatusCode, args[0], body)
	}
}

func cmdFields(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "fields FILE NAME…")
	want := slices.Sorted(slices.Values(args[1:]))
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	for _, line := range lines {
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			ts.Fatalf("%s: %v", line, err)
		}
		if have := slices.Sorted(maps.Keys(members)); !slices.Equal(have, want) {
			ts.Fatalf("members %v, want %v in %s", have, want, line)
		}
	}
}

func cmdOpenPath(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 0, "openpath")
	for dir := ts.Getenv("WORK"); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		ts.Check(os.Chmod(dir, 0o755))
	}
}

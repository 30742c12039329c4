package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/cli"
)

// watch is a run of the command line, as its users see it.
type watch struct {
	t        *testing.T
	dir      string
	out, log *journal
	stop     func()     // SIGTERM, or what stands for it
	ended    <-chan int // the exit code
	metrics  string     // URL, of a daemon
}

// program starts a run of the command line.
type program func(t *testing.T, dir string, args ...string) *watch

func newWatch(t *testing.T, dir string, args []string) (*watch, chan int) {
	ended := make(chan int, 1)
	reports := (args[0] == "audit-mode" || args[0] == "verify") && slices.Contains(args, "--json")
	return &watch{t: t, dir: dir, out: newJournal(reports), log: newJournal(false), ended: ended}, ended
}

// inProcess runs what main calls, in this process.
func inProcess(t *testing.T, dir string, args ...string) *watch {
	t.Helper()
	w, ended := newWatch(t, dir, args)
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		ended <- cli.Run(ctx, args, cli.Env{Stdout: w.out, Stderr: w.log, Environ: isolated(dir), WorkDir: dir})
	}()
	w.stop = cancel
	t.Cleanup(func() { cancel(); <-finished })
	return w
}

// binary runs a program that was built, as a process of its own.
func binary(file string) program {
	return func(t *testing.T, dir string, args ...string) *watch {
		t.Helper()
		w, ended := newWatch(t, dir, args)
		cmd := exec.Command(file, args...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, isolated(dir), w.out, w.log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			_ = cmd.Wait() // the exit code is looked at where it matters
			ended <- cmd.ProcessState.ExitCode()
		}()
		w.stop = func() { _ = cmd.Process.Signal(syscall.SIGTERM) } // it may have ended
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // unless it has ended
			<-finished
		})
		return w
	}
}

// watching starts a daemon.
func watching(t *testing.T, run program, dir string, args ...string) *watch {
	t.Helper()
	w := run(t, dir, args...)
	w.metrics = "http://" + w.logged(`msg=auditing .*monitoring=(\S+)`) + "/metrics"
	return w
}

// code waits for the end and gives the exit code.
func (w *watch) code() int {
	w.t.Helper()
	timeout := time.NewTimer(attackPatience)
	defer timeout.Stop()
	var code int
	select {
	case code = <-w.ended:
	case <-timeout.C:
		w.t.Fatalf("still running after %s:\n%s", attackPatience, w.log)
	}
	if w.out.wrong != nil {
		w.t.Errorf("printed what is no report: %v", w.out.wrong)
	}
	return code
}

// end waits for the end and compares the exit code.
func (w *watch) end(want int) {
	w.t.Helper()
	if code := w.code(); code != want {
		w.t.Errorf("exit code %d, want %d:\n%s%s", code, want, w.out, w.log)
	}
}

// logged waits for a match in the log and gives its first group.
func (w *watch) logged(pattern string) string {
	w.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.NewTimer(attackPatience)
	defer timeout.Stop()
	for {
		_, news := w.log.all()
		if found := re.FindStringSubmatch(w.log.String()); found != nil {
			return found[1]
		}
		select {
		case <-news:
		case code := <-w.ended:
			w.t.Fatalf("ended with exit code %d:\n%s", code, w.log)
		case <-timeout.C:
			w.t.Fatalf("no match for %q in:\n%s", pattern, w.log)
		}
	}
}

// await gives the first report that is as wanted, not looking at the first so many.
func (w *watch) await(what string, skip int, want func(evidence.Report) bool) evidence.Report {
	w.t.Helper()
	timeout := time.NewTimer(attackPatience)
	defer timeout.Stop()
	for {
		reports, news := w.out.all()
		for ; skip < len(reports); skip++ {
			if want(reports[skip]) {
				return reports[skip]
			}
		}
		select {
		case <-news:
		case code := <-w.ended:
			w.t.Fatalf("%s: ended with exit code %d:\n%s", what, code, w.log)
		case <-timeout.C:
			w.t.Fatalf("%s: not among %d reports; the newest are %+v\n%s", what, len(reports), reports[max(0, len(reports)-3):], w.log)
		}
	}
}

func (w *watch) reports() []evidence.Report {
	all, _ := w.out.all()
	return all
}

// gauges are all series, by name and labels as they are written.
func (w *watch) gauges() (map[string]float64, error) {
	_, body, err := fetch(http.MethodGet, w.metrics, "", nil, "", "", nil)
	out := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		at := strings.LastIndexByte(line, ' ')
		if f, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64); err == nil && at > 0 {
			out[line[:at]] = f
		}
	}
	return out, err
}

// journal is what was printed: a text, and the reports in it if those are what
// is printed. Whoever waits for a line need not poll.
type journal struct {
	mu      sync.Mutex
	text    []byte
	news    chan struct{} // closed at the next write
	parse   bool
	parsed  int // bytes of text that are in reports
	reports []evidence.Report
	wrong   error
}

func newJournal(parse bool) *journal { return &journal{parse: parse, news: make(chan struct{})} }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, b...)
	for j.parse {
		line, _, whole := bytes.Cut(j.text[j.parsed:], []byte("\n"))
		if !whole {
			break
		}
		j.parsed += len(line) + 1
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		var r struct {
			evidence.Report
			Verification json.RawMessage // of verify
		}
		if err := dec.Decode(&r); err != nil {
			j.wrong = fmt.Errorf("%w: %s", err, line)
		}
		j.reports = append(j.reports, r.Report)
	}
	close(j.news)
	j.news = make(chan struct{})
	return len(b), nil
}

func (j *journal) all() ([]evidence.Report, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reports, j.news
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text)
}

// decode reads lines of JSON.
func decode[T any](t *testing.T, text string) []T {
	t.Helper()
	var out []T
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var one T
		if err := dec.Decode(&one); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		out = append(out, one)
	}
	return out
}

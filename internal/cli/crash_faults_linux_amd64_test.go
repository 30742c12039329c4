package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"immuaudit/evidence"
)

// everyPoint tries every fault at every call; otherwise some of them are tried.
var everyPoint = os.Getenv("IMMUAUDIT_CRASH") == "all"

// pointsPerCall is how many calls of one name are tried otherwise.
const pointsPerCall = 2

// fault is something that befalls a process at one of its calls.
type fault struct {
	name string
	fits func(*call) bool
	act  act
	then act  // befalls every later call that it fits
	cut  bool // of the power: what was not synced is gone
	some bool // … or some of it
}

func every(*call) bool     { return true }
func grows(c *call) bool   { return c.grows }
func changes(c *call) bool { return c.changes }
func writes(c *call) bool  { return c.name == "write" || c.name == "pwrite64" }
func counts(c *call) bool {
	return c.changes || c.file == printed || c.name == "fsync" || c.name == "fdatasync"
}

var faults = [...]fault{
	{name: "killed before", fits: counts, act: act{killBefore: true}},
	{name: "killed after", fits: counts, act: act{killAfter: true}},
	{name: "killed within", fits: writes, act: act{half: true, killAfter: true}},
	{name: "full", fits: grows, act: act{errno: unix.ENOSPC}, then: act{errno: unix.ENOSPC}},
	{name: "full within", fits: writes, act: act{half: true}, then: act{errno: unix.ENOSPC}},
	{name: "broken", fits: every, act: act{errno: unix.EIO}},
	{name: "read-only", fits: changes, act: act{errno: unix.EROFS}, then: act{errno: unix.EROFS}},
	{name: "power cut", fits: counts, act: act{killAfter: true}, cut: true},
	{name: "power cut and some writes", fits: counts, act: act{killAfter: true}, cut: true, some: true},
}

// episode is a command over a state directory, and what must hold after a fault
// befell it.
type episode struct {
	before string // a directory to begin with a copy of, "" for an empty one
	code   int    // its exit code where nothing befalls it
	args   func(*aftermath) []string
	beside func(*aftermath) // what goes on while it runs; may be nil
	check  func(*testing.T, *aftermath)
}

// aftermath is what a trial left.
type aftermath struct {
	t     *testing.T
	dir   string
	at    *call  // of the fault; nil for none
	what  *fault // likewise
	hook  *receiver
	world *world // where each trial has its own

	tracer *tracer
	out    string        // the file of its standard output
	ended  chan struct{} // the process did
	fell   atomic.Bool   // the fault did
	over   atomic.Bool   // the fault befalls no later call
	said   said
}

// said is what came of a command.
type said struct {
	code     int // -1 if it was killed
	out, log string
	reports  []evidence.Report // the whole lines of --json
}

// explained reports whether it was said why all is not well.
func (s *said) explained() bool {
	for _, r := range s.reports {
		if r.Verdict != evidence.Consistent {
			return true
		}
	}
	return strings.Contains(s.log, "immuclient: ") || strings.Contains(s.log, "level=ERROR")
}

// try tells the episode once undisturbed, and then with a fault at its calls.
func (e *episode) try(t *testing.T) {
	t.Helper()
	calls := e.trial(t, nil, nil).tracer.calls
	names := map[string][]call{}
	for _, c := range calls {
		names[c.name] = append(names[c.name], c)
	}
	tried, fell := 0, atomic.Int32{}
	run := func(c *call, f *fault) {
		tried++
		t.Run(fmt.Sprintf("%s %d, %s", c.name, c.nth, f.name), func(t *testing.T) {
			t.Parallel()
			if a := e.trial(t, c, f); a.fell.Load() {
				fell.Add(1)
			}
		})
	}
	t.Cleanup(func() {
		// Not every run makes the same calls, least of all on a busy machine.
		if n := int(fell.Load()); n < tried/2 {
			t.Errorf("in %d of %d trials the fault befell nothing", tried-n, tried)
		}
	})
	for name, calls := range names {
		step := 1.0
		if !everyPoint {
			step = max(1, float64(len(calls))/pointsPerCall)
		}
		turn := fnv.New32a()
		turn.Write([]byte(t.Name() + name))
		for next, at := int(turn.Sum32()%uint32(len(faults))), step/2; int(at) < len(calls); at += step {
			c := &calls[int(at)]
			for range faults {
				f := &faults[next%len(faults)]
				next++
				if f.fits(c) {
					run(c, f)
					if !everyPoint {
						break
					}
				}
			}
		}
	}
	t.Logf("%d trials at %d calls", tried, len(calls))
}

// trial tells the episode with one fault, or none.
func (e *episode) trial(t *testing.T, at *call, f *fault) *aftermath {
	t.Helper()
	room, logs := t.TempDir(), t.TempDir()
	a := &aftermath{
		t: t, at: at, what: f, dir: filepath.Join(room, "watched"), hook: hooked(t, logs),
		out: filepath.Join(logs, "out"), ended: make(chan struct{}),
	}
	copyTree(t, e.before, a.dir)
	d, err := newDisk(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	a.tracer = &tracer{dir: a.dir, before: d.before, deal: a.deal}
	args := e.args(a)
	var beside sync.WaitGroup
	if e.beside != nil {
		beside.Go(func() { e.beside(a) })
	}
	program, err := exec.LookPath("immuclient")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(logs, "err")
	code, err := a.tracer.run(isolated(a.dir), append([]string{program, "immuclient"}, args...), a.out, log)
	close(a.ended)
	beside.Wait()
	a.said = heard(t, code, a.out, log)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, a.said.out, a.said.log)
	}
	if f != nil && f.cut {
		a.cutPower(d)
	}
	if at == nil && code != e.code {
		t.Fatalf("undisturbed: exit code %d, want %d\n%s%s", code, e.code, a.said.out, a.said.log)
	}
	if code > 0 && !a.said.explained() {
		t.Errorf("exit code %d without a word why", code)
	}
	e.check(t, a)
	if t.Failed() && at != nil {
		t.Logf("%v, %s: exit code %d\n%s%s", at, f.name, code, a.said.out, a.said.log)
	}
	return a
}

// hooked is a receiver that answers until the test ends.
func hooked(t *testing.T, dir string) *receiver {
	t.Helper()
	r := &receiver{file: filepath.Join(dir, "hook.log"), status: http.StatusOK}
	if err := os.WriteFile(r.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.addr = server.Listener.Addr().String()
	return r
}

// deal is the tracer's: the fault at its call, and what follows from it.
func (a *aftermath) deal(c *call) act {
	switch {
	case a.at == nil:
	case c.name == a.at.name && c.nth == a.at.nth:
		a.fell.Store(true)
		return a.what.act
	case a.fell.Load() && !a.over.Load() && c.file != printed && a.what.fits(c):
		return a.what.then
	}
	return act{}
}

// cutPower leaves what a power cut leaves.
func (a *aftermath) cutPower(d *disk) {
	a.t.Helper()
	var chance *rand.Rand
	if a.what.some {
		chance = rand.New(rand.NewPCG(uint64(a.at.nth), uint64(len(a.at.name))))
	}
	after := a.dir + ".after"
	err := errors.Join(os.Mkdir(after, 0o700), d.cut(after, chance), os.RemoveAll(a.dir), os.Rename(after, a.dir))
	if err != nil {
		a.t.Fatal(err)
	}
}

// until waits for something to happen while the process runs.
func (a *aftermath) until(what string, happened func() bool) bool {
	over := false
	err := poll(func() (bool, error) {
		select {
		case <-a.ended:
			over = true
		default:
		}
		return over || happened(), nil
	})
	if err != nil {
		a.t.Errorf("waiting until %s: %v", what, err)
		a.tracer.signal(syscall.SIGKILL)
	}
	return err == nil && !over
}

// plain runs a command undisturbed.
func plain(t *testing.T, dir string, args ...string) said {
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
	return heard(t, code, p.out, p.err)
}

func heard(t *testing.T, code int, out, log string) said {
	t.Helper()
	s := said{code: code}
	for file, text := range map[string]*string{out: &s.out, log: &s.log} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		*text = string(b)
	}
	s.reports = reportsIn(t, out)
	for _, sign := range []string{"panic:", "fatal error:", "goroutine "} {
		if strings.Contains(s.log, sign) {
			t.Errorf("it crashed:\n%s", s.log)
		}
	}
	return s
}

// reportsIn reads the whole lines of --json.
func reportsIn(t *testing.T, file string) (reports []evidence.Report) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		var r evidence.Report
		if strings.HasSuffix(line, "}\n") && json.Unmarshal([]byte(line), &r) == nil {
			reports = append(reports, r)
		}
	}
	return reports
}

// copyTree copies a directory with its modes; of "" it makes an empty one.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if from == "" {
		return
	}
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == from || entry.Type()&fs.ModeSocket != 0 {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if entry.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

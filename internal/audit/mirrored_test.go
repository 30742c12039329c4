package audit_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/proof"
)

// The mirror follows the walk, by rounds made alone and by a running auditor.
func TestMirrorFollows(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	m := r.mirrored()
	r.write(1300)
	r.settle()
	r.holds(m, 1300)
	run := r.start()
	run.await("a consistent round", is(evidence.Consistent))
	r.write(30)
	run.await("the new ones", func(rep evidence.Report) bool { return rep.Trusted.Tx == 1330 })
	run.stop() // what waits is written
	r.holds(m, 1330)
}

// What a crash took, or what was begun late, is fetched again and bound to what
// was walked.
func TestMirrorRefills(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(2500)
	r.settle() // without a mirror
	m := r.mirrored()
	r.write(10)
	r.expect(evidence.Consistent)
	r.holds(m, 2510)

	// A gap: some were walked by an auditor that was killed before it wrote.
	withMirror := r.opts.Mirror
	r.opts.Mirror = nil
	r.write(300)
	r.expect(evidence.Consistent)
	r.opts.Mirror = withMirror
	r.expect(evidence.Consistent)
	r.holds(m, 2810)
	if events := r.events(evidence.EventStateProblem); len(events) != 0 {
		t.Errorf("nothing was wrong: %+v", events)
	}
}

// Filling the mirror looks at old headers again: one that was changed after it
// was walked is found.
func TestMirrorRefillFinds(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(500)
	r.settle()
	r.mirrored()
	r.tamper(func(h *ledger.History) { h.Header(123).Ts++ })
	rep := r.tampered(evidence.Header)
	if d := rep.Divergence; d == nil || d.LastGoodTx != 122 || d.FirstBadTx != 123 {
		t.Errorf("the place: %+v", d)
	}
}

// A mirror that somebody edited is said, set aside and filled again.
func TestMirrorEdited(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(path string, text []byte) []byte{
		"tile": func(path string, text []byte) []byte {
			if strings.Contains(path, "tile/0/000") {
				text[40] ^= 1
			}
			return text
		},
		"head": func(path string, text []byte) []byte {
			if filepath.Base(path) == "head" {
				text[len(text)/2] ^= 1
			}
			return text
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			m := r.mirrored()
			r.write(700)
			r.settle()
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			err := filepath.WalkDir(filepath.Join(r.dir, "mirror"), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				return os.WriteFile(path, edit(path, text), 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			m = r.mirrored()
			r.write(600)
			for range 3 {
				r.expect(evidence.Consistent)
			}
			if told := len(r.events(evidence.EventStateProblem)); name == "head" && told != 1 {
				t.Errorf("%d alerts", told)
			}
			if name == "head" { // damage in old tiles is found when they are needed
				r.holds(m, 1300)
			}
			r.rewrite(650)
			r.tampered(evidence.Fork)
		})
	}
}

// A state that knows less than the mirror is an older copy.
func TestStateBehindMirror(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	m := r.mirrored()
	r.write(20)
	r.settle()
	l, err := m.Ledger(evidence.Name{Server: "srv", Database: defaultDB})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(21, make([]proof.Hash, 5)); err != nil {
		t.Fatal(err)
	}
	_, err = audit.New(t.Context(), r.opts)
	var state *audit.StateError
	if !errors.As(err, &state) || !strings.Contains(err.Error(), "older copy") {
		t.Errorf("got %v", err)
	}
}

// After an accepted fork the mirror is that of the accepted history.
func TestMirrorAfterAccept(t *testing.T) {
	t.Parallel()
	for name, live := range map[string]bool{"running": true, "stopped": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			m := r.mirrored()
			r.write(400)
			r.settle()
			var run *running
			if live {
				run = r.start()
				run.await("a consistent round", is(evidence.Consistent))
			}
			r.rewrite(300)
			if live {
				run.await("the fork", is(evidence.Tampered))
			} else {
				r.tampered(evidence.Fork)
			}
			inc := r.incidents()[0]
			trust := r.trust(defaultDB)
			if err := (&audit.Decider{Memory: r.store}).Accept(t.Context(), inc, &trust, audit.KeyChoice{}, "a drill"); err != nil {
				t.Fatal(err)
			}
			if live {
				run.stop()
			}
			r.write(50)
			for range 3 { // the walk catches up in the background, a stretch a round
				r.expect(evidence.Consistent)
			}
			r.holds(m, 450)
			r.rewrite(420)
			r.located(evidence.Fork, 419, 420)
			if events := r.events(evidence.EventStateProblem); len(events) != 0 {
				t.Errorf("an accepted fork is no trouble with the state: %+v", events)
			}
		})
	}
}

// Trees that lag beyond the walk's window are walked with roots of the mirror.
func TestMirrorGivesOldRoots(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	m := r.mirrored()
	r.write(300)
	r.settle()
	r.db(defaultDB).SetBlTxID(func(_ string, id uint64) uint64 { return 10 + id%100 })
	r.write(120)
	for range 4 {
		if r.round().Trusted.Tx == 420 {
			break
		}
	}
	if rep := r.expect(evidence.Consistent); rep.Trusted.Tx != 420 || rep.Assurance.Walked != 420 {
		t.Errorf("%+v", rep.Assurance)
	}
	r.holds(m, 420)
}

// Timestamps prove nothing, but somebody should know.
func TestClocks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ts   func(now int64) int64
		told bool
	}{
		"ahead":          {func(now int64) int64 { return now + 3600 }, true},
		"backwards":      {func(now int64) int64 { return now - 3600 }, true},
		"absurd":         {func(int64) int64 { return 1<<62 - 1 }, true},
		"negative":       {func(int64) int64 { return -1 << 62 }, true},
		"a little ahead": {func(now int64) int64 { return now + 60 }, false},
		"a little back":  {func(now int64) int64 { return now - 60 }, false},
	} {
		for _, limit := range []uint64{10_000, 0} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, ledger.Config{HeaderVersion: 1})
				r.opts.WalkLimit, r.opts.ClockSkew = limit, 10*time.Minute
				r.write(5)
				run := r.start()
				run.await("a consistent round", is(evidence.Consistent))
				r.write(3)
				run.await("growth", func(rep evidence.Report) bool { return rep.Trusted.Tx == 8 })
				now := time.Now().Unix()
				r.tamper(func(h *ledger.History) {
					last := *h.Tx(8)
					last.Header.Ts = tt.ts(now)
					last.Entries = nil
					h.Append(last)
					h.Header(9).ID = 9
					h.Rehash(9)
				})
				rep := run.await("growth", func(rep evidence.Report) bool { return rep.Trusted.Tx == 9 })
				if rep.Verdict != evidence.Consistent {
					t.Errorf("a timestamp is no verdict: %+v", rep)
				}
				run.await("another round", is(evidence.Consistent))
				want := 0
				if tt.told {
					want = 1
				}
				if events := r.events(evidence.EventClockSkew); len(events) != want {
					t.Errorf("%d alerts, want %d: %+v", len(events), want, events)
				}
			})
		}
	}
}

// A server that shows the same old state for ever looks like one that nobody
// writes to: only the operator knows which.
func TestExpectGrowth(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.ExpectGrowth = 200 * time.Millisecond
	r.write(5)
	run := r.start()
	run.await("a consistent round", is(evidence.Consistent))
	poll(t, "an alert", func() bool { return len(r.events(evidence.EventNotGrowing)) == 1 })
	r.write(1)
	poll(t, "the all-clear", func() bool { return len(r.events(evidence.EventRecovered)) >= 1 })
	poll(t, "an alert", func() bool { return len(r.events(evidence.EventNotGrowing)) == 2 })
	run.stop()
	if got := len(r.incidents()); got != 0 {
		t.Errorf("%d incidents", got)
	}
}

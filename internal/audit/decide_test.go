package audit_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/proof"
)

// TestAccept begins trust anew at what the incident recorded, never at what
// the server shows at that moment.
func TestAccept(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(10)
	r.settle()
	r.fork(20)
	rep := r.tampered(evidence.Fork)
	r.write(5) // the server goes on meanwhile
	r.tampered(evidence.Fork)

	inc := r.incidents()[0]
	trust := r.trust(defaultDB)
	d := audit.Decider{Memory: r.store}
	if err := d.Accept(t.Context(), inc, &trust, audit.KeyChoice{}, " "); !errors.Is(err, audit.ErrDecision) {
		t.Errorf("without a reason: %v", err)
	}
	if err := d.Accept(t.Context(), inc, &trust, audit.KeyChoice{None: true}, "x"); !errors.Is(err, audit.ErrDecision) {
		t.Errorf("with a key: %v", err)
	}
	r.must(d.Accept(t.Context(), inc, &trust, audit.KeyChoice{}, "restored from backup, ticket 42"))
	got := r.trust(defaultDB)
	if got.Baseline.Origin != evidence.OriginAccepted || got.Proven.State != inc.Observed.State || got.Proven.TxID != rep.Observed.Tx {
		t.Errorf("baseline %+v, want the recorded %+v", got.Baseline, inc.Observed.State)
	}
	if err := d.Accept(t.Context(), r.incident(inc.ID), &got, audit.KeyChoice{}, "again"); !errors.Is(err, audit.ErrDecision) {
		t.Errorf("twice: %v", err)
	}
	if rep := r.expect(evidence.Consistent); rep.Trusted.Tx != 35 || rep.Assurance.Walked != 35 {
		t.Errorf("%+v", rep)
	}
}

func (r *rig) incident(id string) evidence.Incident {
	r.t.Helper()
	inc, err := r.store.Incident(r.t.Context(), id)
	r.must(err)
	return inc
}

// TestAcceptedBranchIsHeldOn: what was accepted is a baseline like any other.
func TestAcceptedBranchIsHeldOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(10)
	r.settle()
	r.fork(20)
	r.tampered(evidence.Fork)
	inc, trust := r.incidents()[0], r.trust(defaultDB)
	r.fork2(40) // rewritten once more before the decision
	d := audit.Decider{Memory: r.store}
	r.must(d.Accept(t.Context(), inc, &trust, audit.KeyChoice{}, "restored from backup"))
	rep := r.tampered(evidence.Fork)
	if rep.Incident == inc.ID {
		t.Error("a closed incident was used again")
	}
}

func (r *rig) fork2(n int) {
	r.must(r.db(defaultDB).Restore(new(ledger.Snapshot)))
	r.writeTo(defaultDB, n, "forged again")
}

// TestKeep closes an incident only after the server agreed again.
func TestKeep(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(10)
	r.settle()
	good := r.db(defaultDB).Snapshot()
	r.fork(20)
	r.tampered(evidence.Fork)
	d := audit.Decider{Memory: r.store}
	keep := func() error {
		inc, trust := r.incidents()[0], r.trust(defaultDB)
		return d.Keep(t.Context(), inc, &trust, "the right data directory was put back")
	}
	if err := keep(); !errors.Is(err, audit.ErrDecision) || !strings.Contains(err.Error(), "--once") {
		t.Errorf("kept although the server disagrees: %v", err)
	}
	r.must(r.db(defaultDB).Restore(good))
	r.write(0)
	// The five transactions that were proven after the copy are still missing.
	r.expect(evidence.Tampered)
	if err := keep(); !errors.Is(err, audit.ErrDecision) {
		t.Errorf("kept although transactions are missing: %v", err)
	}
}

func TestKeepAfterRepair(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(10)
	r.settle()
	good := r.db(defaultDB).Snapshot()
	r.must(r.db(defaultDB).Restore(new(ledger.Snapshot)))
	r.tampered(evidence.Emptied)
	r.must(r.db(defaultDB).Restore(good))
	r.write(2)
	rep := r.tampered(evidence.Emptied) // sticky
	if rep.Observed.Tx != 12 || rep.Trusted.Tx != 10 {
		t.Errorf("trust moved while the incident is open: %+v %+v", rep.Trusted, rep.Observed)
	}
	inc, trust := r.incidents()[0], r.trust(defaultDB)
	told := audit.SinkRule{Name: "mail", Wants: func(ev evidence.Event) (bool, bool) { return ev.Type == evidence.EventAcknowledged, false }}
	d := audit.Decider{Memory: r.store, By: "ada@desk", Sinks: func(string) []audit.SinkRule { return []audit.SinkRule{told} }}
	r.must(d.Acknowledge(t.Context(), inc, "on it"))
	inc = r.incident(inc.ID)
	r.must(d.Keep(t.Context(), inc, &trust, "repaired"))
	if rep := r.expect(evidence.Consistent); rep.Trusted.Tx != 12 {
		t.Errorf("%+v", rep.Trusted)
	}
	acked, decided := r.events(evidence.EventAcknowledged), r.events(evidence.EventDecision)
	if len(acked) != 1 || len(decided) != 1 || acked[0].Message != "acknowledged (ada@desk): on it" || acked[0].Kind != evidence.Emptied || acked[0].Verdict != evidence.Tampered {
		t.Errorf("on record: %+v, %+v", acked, decided)
	}
	if due, err := r.store.Due(t.Context(), time.Now().Add(time.Hour), 10); err != nil || len(due) != 1 || due[0].Event.ID != acked[0].ID {
		t.Errorf("told: %+v, %v", due, err)
	}
}

// TestRunningAuditorNotices: a decision of another process takes effect
// without a restart.
func TestRunningAuditorNotices(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(10)
	r.settle()
	run := r.start()
	run.await("consistent", is(evidence.Consistent))
	r.must(r.db(defaultDB).Restore(new(ledger.Snapshot)))
	r.writeTo(defaultDB, 15, "other")
	run.await("tampered", is(evidence.Tampered))

	other := r.reopen()
	d := audit.Decider{Memory: other}
	poll(t, "the decision is stored", func() bool {
		incidents, err := other.Incidents(t.Context(), false)
		r.must(err)
		for _, inc := range incidents {
			trust, err := other.Trust(t.Context(), inc.Name)
			r.must(err)
			if err := d.Accept(t.Context(), inc, &trust, audit.KeyChoice{}, "restored on purpose"); err != nil {
				return false
			}
		}
		return len(incidents) > 0
	})
	run.await("consistent again", is(evidence.Consistent))
}

// TestAcceptNewKey: an incident about signatures also needs the new key.
func TestAcceptNewKey(t *testing.T) {
	t.Parallel()
	for name, choose := range map[string]func(r *rig) audit.KeyChoice{
		"observed": func(*rig) audit.KeyChoice { return audit.KeyChoice{Observed: true} },
		"file":     func(r *rig) audit.KeyChoice { return audit.KeyChoice{Point: point(r.t, r.key)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
			r.write(4)
			r.settle()
			r.key = newKey(t)
			r.must(r.ledger.SetSigningKey(r.key))
			r.tampered(evidence.KeyChanged)
			inc, trust := r.incidents()[0], r.trust(defaultDB)
			d := audit.Decider{Memory: r.store}
			if err := d.Accept(t.Context(), inc, &trust, audit.KeyChoice{}, "rotated"); !errors.Is(err, audit.ErrDecision) || !strings.Contains(err.Error(), "--key") {
				t.Errorf("without a key: %v", err)
			}
			r.must(d.Accept(t.Context(), inc, &trust, choose(r), "rotated"))
			r.write(1)
			r.expect(evidence.Consistent)
		})
	}
}

func TestAcceptVanished(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.other()
	r.write(1)
	r.settle()
	r.must(r.ledger.DeleteDatabase("other"))
	if rep := r.once()["other"]; rep.Kind != evidence.Vanished {
		t.Fatalf("%+v", rep)
	}
	inc, trust := r.incidents()[0], r.trust("other")
	d := audit.Decider{Memory: r.store}
	r.must(d.Accept(t.Context(), inc, &trust, audit.KeyChoice{}, "deleted on purpose"))
	if _, audited := r.once()["other"]; audited {
		t.Error("a retired ledger is still audited")
	}
}

func TestPin(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(10)
	_, alh := r.db(defaultDB).State()
	r.write(10)
	name := evidence.Name{Server: "srv", Database: defaultDB}
	d := audit.Decider{Memory: r.store}
	r.must(d.Pin(t.Context(), name, proof.State{TxID: 10, Alh: alh}, nil, "from the vendor's letter"))
	if err := d.Pin(t.Context(), name, proof.State{TxID: 10, Alh: alh}, nil, "twice"); !errors.Is(err, audit.ErrDecision) {
		t.Errorf("pinned over a baseline: %v", err)
	}
	if rep := r.expect(evidence.Consistent); rep.Trusted.Tx != 20 { // no first contact: it was pinned
		t.Errorf("%+v", rep)
	}

	wrong := newRig(t, ledger.Config{HeaderVersion: 1})
	wrong.write(20)
	d = audit.Decider{Memory: wrong.store}
	wrong.must(d.Pin(t.Context(), name, proof.State{TxID: 10, Alh: proof.Hash{1}}, nil, "a guess"))
	wrong.tampered(evidence.Fork)
}

// TestVanishedTakesItsTime: a running auditor says vanished only after three
// rounds over ten seconds.
func TestVanishedTakesItsTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.Interval = 500 * time.Millisecond
	r.other()
	r.settle()
	run := r.start()
	run.await("consistent", func(rep evidence.Report) bool { return rep.Database == "other" && rep.Verdict == evidence.Consistent })
	r.must(r.ledger.DeleteDatabase("other"))
	began := time.Now()
	first := run.await("first told", func(rep evidence.Report) bool { return rep.Database == "other" && rep.Verdict != evidence.Consistent })
	if first.Verdict != evidence.Undetermined || first.Reason != evidence.NotFound {
		t.Fatalf("%+v", first)
	}
	rep := run.await("vanished", func(rep evidence.Report) bool { return rep.Database == "other" && rep.Verdict == evidence.Tampered })
	if took := time.Since(began); rep.Kind != evidence.Vanished || took < 9*time.Second {
		t.Errorf("%s after %s", rep.Kind, took)
	}
}

// TestStale: not auditable for long is told once, and so is the recovery.
func TestStale(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.StaleAfter = 100 * time.Millisecond
	r.write(3)
	r.settle()
	run := r.start()
	run.await("consistent", is(evidence.Consistent))
	r.must(r.ledger.UnloadDatabase(defaultDB))
	poll(t, "stale", func() bool { return len(r.events(evidence.EventStale)) > 0 })
	run.await("not loaded", func(rep evidence.Report) bool { return rep.Reason == evidence.NotLoaded })
	r.must(r.ledger.LoadDatabase(defaultDB))
	poll(t, "recovered", func() bool { return len(r.events(evidence.EventRecovered)) > 0 })
	run.stop()
	stale, recovered := r.events(evidence.EventStale), r.events(evidence.EventRecovered)
	if len(stale) != 1 || len(recovered) != 1 {
		t.Fatalf("%d stale and %d recovered events, want one each", len(stale), len(recovered))
	}
	if s, c := stale[0].Verdict, recovered[0].Verdict; s != evidence.Undetermined || c != evidence.Consistent {
		t.Errorf("the verdict was %v when it was stale and %v when it recovered", s, c)
	}
}

// TestAlarmWithoutDisk: an incident that cannot be stored is told at once,
// held in memory, and stored when that is possible again.
func TestAlarmWithoutDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(5)
	r.settle()
	broken := &brokenMemory{Memory: r.store}
	r.opts.Memory = broken
	var alarms atomic.Int64
	r.opts.Alarm = func(ev evidence.Event, err error) {
		if ev.Type == evidence.EventTampered && ev.Kind == evidence.Emptied && err != nil {
			alarms.Add(1)
		}
	}
	run := r.start()
	run.await("consistent", is(evidence.Consistent))
	broken.fail.Store(true)
	r.must(r.db(defaultDB).Restore(new(ledger.Snapshot)))
	for range 3 {
		rep := run.await("tampered", is(evidence.Tampered))
		if rep.Kind != evidence.Emptied || rep.Incident == "" {
			t.Fatalf("%+v", rep)
		}
	}
	if n := alarms.Load(); n != 1 {
		t.Errorf("%d alarms, want 1", n)
	}
	if n := len(r.incidents()); n != 0 {
		t.Fatalf("%d incidents stored while the disk was full", n)
	}
	broken.fail.Store(false)
	poll(t, "the incident is stored", func() bool { return len(r.incidents()) == 1 })
	run.stop()
	if n := len(r.events(evidence.EventTampered)); n != 1 {
		t.Errorf("%d tampered events", n)
	}
}

// TestLongInterval: what was just found, and what could not be told, is not
// left until the next tick, which may be a week away.
func TestLongInterval(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.Interval = 24 * time.Hour
	r.write(3)
	run := r.start()
	run.await("first contact", func(rep evidence.Report) bool { return rep.Reason == evidence.FirstContact })
}

package audit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// plain is a state in memory, which may hang or fail.
type plain struct {
	mu        sync.Mutex
	trust     map[evidence.Name]evidence.Trust
	incidents map[string]evidence.Incident
	events    []evidence.Event
	applies   int
	hang      chan struct{} // if set, storing waits until it is closed
}

func newPlain() *plain {
	return &plain{trust: map[evidence.Name]evidence.Trust{}, incidents: map[string]evidence.Incident{}}
}

type conflict struct{}

func (conflict) Error() string  { return "changed meanwhile" }
func (conflict) Conflict() bool { return true }

func (p *plain) Load(context.Context) (*evidence.Remembered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &evidence.Remembered{}
	for _, t := range p.trust {
		r.Trust = append(r.Trust, t)
	}
	for _, inc := range p.incidents {
		r.Open = append(r.Open, inc)
	}
	return r, nil
}

func (p *plain) Generation(context.Context) (uint64, error) { return 1, nil }

func (p *plain) Apply(_ context.Context, c evidence.Change) error {
	p.mu.Lock()
	hang := p.hang
	p.mu.Unlock()
	if hang != nil {
		<-hang // as a write to a disk that does not answer: no context ends it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applies++
	if c.Trust != nil && p.trust[c.Trust.Name].Version != c.Trust.Version {
		return conflict{}
	}
	for _, inc := range c.Incidents {
		if p.incidents[inc.ID].Version != inc.Version {
			return conflict{}
		}
	}
	if c.Trust != nil {
		t := *c.Trust
		t.Version++
		p.trust[t.Name] = t
	}
	for _, inc := range c.Incidents {
		inc.Version++
		p.incidents[inc.ID] = inc
	}
	p.events = append(p.events, c.Events...)
	return nil
}

func (p *plain) told(kind evidence.EventType) (ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ev := range p.events {
		if ev.Type == kind {
			ids = append(ids, ev.ID)
		}
	}
	return ids
}

func plainOptions(s *scripted, m Memory) Options {
	return Options{Server: s, Memory: m, Name: "srv", List: true, Matches: func(string) bool { return true },
		Interval: time.Second, WalkLimit: 10_000, WalkRate: 20_000, StaleAfter: 5 * time.Minute}
}

// TestAlarmWhenTheDiskHangs: a write that neither ends nor fails holds up the
// alarm for ten seconds at most, and the incident is stored once.
func TestAlarmWhenTheDiskHangs(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	synctest.Test(t, func(t *testing.T) {
		mem := newPlain()
		server := &scripted{headers: h.page, state: h.shows(20)}
		o := plainOptions(server, mem)
		alarm := make(chan evidence.Event, 10)
		o.Alarm = func(ev evidence.Event, err error) { alarm <- ev }
		e, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		e.Round(t.Context(), "db")
		disk := make(chan struct{})
		mem.mu.Lock()
		mem.hang = disk
		mem.mu.Unlock()
		server.set(func(s *scripted) { s.state = h.shows(0) })
		began := time.Now()
		r := e.Round(t.Context(), "db")
		if took := time.Since(began); took > alarmWithin+2*time.Second || r.Verdict != evidence.Tampered || r.Kind != evidence.Emptied {
			t.Errorf("after %s: %+v", took, r)
		}
		told := <-alarm
		if r := e.Round(t.Context(), "db"); r.Verdict != evidence.Tampered || len(alarm) != 0 {
			t.Errorf("%+v, %d more alarms", r, len(alarm))
		}
		close(disk)
		synctest.Wait()
		e.Round(t.Context(), "db")
		e.work.Wait()
		if ids := mem.told(evidence.EventTampered); len(ids) != 1 || ids[0] != told.ID || len(mem.incidents) != 1 {
			t.Errorf("events %v, %d incidents; the alarm had %s", ids, len(mem.incidents), told.ID)
		}
		if l := e.ledger("db"); l.isUnsaved() || l.open[0].Version == 0 {
			t.Errorf("%+v is not known to be stored", l.open)
		}
	})
}

// failing refuses to store so many changes.
type failing struct {
	Memory
	left atomic.Int64
}

func (f *failing) Apply(ctx context.Context, c evidence.Change) error {
	if f.left.Add(-1) >= 0 {
		return errors.New("no space left on device")
	}
	return f.Memory.Apply(ctx, c)
}

// TestUnsavedIncidentAtTheEnd: an auditor that is stopped stores what it could
// not store before, under the same name as it was told.
func TestUnsavedIncidentAtTheEnd(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	mem := newPlain()
	full := &failing{Memory: mem}
	server := &scripted{headers: h.page, state: h.shows(20)}
	o := plainOptions(server, full)
	var told evidence.Event
	o.Alarm = func(ev evidence.Event, err error) { told = ev }
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	e.Round(t.Context(), "db")
	server.set(func(s *scripted) { s.state = h.shows(0) })
	full.left.Store(1)
	e.Round(t.Context(), "db")
	e.farewell(t.Context())
	if ids := mem.told(evidence.EventTampered); len(ids) != 1 || ids[0] != told.ID || len(mem.incidents) != 1 {
		t.Errorf("events %v, incidents %v; the alarm had %q", ids, mem.incidents, told.ID)
	}
}

// TestOnceEnds: a server that hands out headers one by one, each just in time,
// cannot keep a single round from ending.
func TestOnceEnds(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 9000, 0, 1)
	synctest.Test(t, func(t *testing.T) {
		server := &scripted{state: h.shows(9000), list: []string{"db"}}
		server.headers = func(db string, from uint64, limit int) ([]proof.Header, error) {
			<-time.After(9 * time.Second) // of the bubble's clock
			return h.page(db, from, 1)
		}
		o := plainOptions(server, newPlain())
		o.WalkLimit = 0
		e, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		reports := e.Once(t.Context())
		if took := time.Since(began); took > 2*roundTimeout+30*time.Second {
			t.Errorf("%s for one round: %+v", took, reports)
		}
	})
}

// TestSlowTamperedLedger: ledgers that never answer in time share
// slots of their own also while an incident of theirs is open.
func TestSlowTamperedLedger(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, 20, 0, 1)
	server := &scripted{headers: h.page, state: h.shows(20)}
	e, err := New(t.Context(), plainOptions(server, newPlain()))
	if err != nil {
		t.Fatal(err)
	}
	e.Round(t.Context(), "db")
	server.set(func(s *scripted) { s.state = h.shows(3) })
	e.Round(t.Context(), "db")
	server.set(func(s *scripted) {
		s.state = func(string) (proof.SignedState, error) { return proof.SignedState{}, fault(evidence.Timeout) }
	})
	r := e.Round(t.Context(), "db")
	e.work.Wait()
	if l := e.ledger("db"); r.Verdict != evidence.Tampered || !l.slow {
		t.Errorf("slow %v: %+v", l.slow, r)
	}
}

// TestManyNames: a server that lists as many databases as it may, and others
// every time, costs bounded memory, and does not crowd out what was configured.
// It measures the heap, so that it runs beside no other test.
func TestManyNames(t *testing.T) {
	server := &scripted{state: func(string) (proof.SignedState, error) { return proof.SignedState{}, fault(evidence.NotLoaded) }}
	o := plainOptions(server, newPlain())
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 3 {
		names := make([]string, maxLedgers)
		for k := range names {
			names[k] = fmt.Sprintf("%d-%0100d", i, k)
		}
		server.set(func(s *scripted) { s.list = names })
		if err := e.list(t.Context()); err != nil {
			t.Fatal(err)
		}
		names = nil
		server.set(func(s *scripted) { s.list = nil })
		if n := len(e.all()); n > maxLedgers {
			t.Fatalf("%d ledgers", n)
		}
		if i > 0 { // those of the list before made place
			continue
		}
		for _, l := range e.all()[:1000] {
			e.round(t.Context(), l)
		}
	}
	if e.known("configured") == nil {
		t.Error("a configured database found no place")
	}
	if used := heap(); used > before+100<<20 {
		t.Errorf("%d MiB for the names of a hostile server", (used-before)>>20)
	}
	runtime.KeepAlive(e)
}

// Old headers that differ because the history is another one are no incident
// beside that; anything else is.
func TestOneAttackIsOneIncident(t *testing.T) {
	t.Parallel()
	fork := evidence.Incident{Kind: evidence.Fork, Divergence: &evidence.Divergence{LastGoodTx: 40, FirstBadTx: 41}}
	unknown, damage := fork, fork
	unknown.Divergence, damage.Kind = nil, evidence.Value
	header := func(tx uint64) evidence.Finding { return evidence.Finding{Kind: evidence.Header, Tx: tx} }
	for _, c := range []struct {
		inc  *evidence.Incident
		f    []evidence.Finding
		want bool
	}{
		{&fork, []evidence.Finding{header(41), header(90)}, true},
		{&fork, []evidence.Finding{header(41), header(40)}, false},
		{&fork, []evidence.Finding{header(0)}, false},
		{&fork, []evidence.Finding{header(41), {Kind: evidence.Value, Tx: 42}}, false},
		{&unknown, []evidence.Finding{header(41)}, false},
		{&damage, []evidence.Finding{header(41)}, false},
	} {
		if got := explains(c.inc, c.f); got != c.want {
			t.Errorf("%s explains %+v: %t", c.inc.Kind, c.f, got)
		}
	}
}

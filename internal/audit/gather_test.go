package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// notebook is a memory that keeps what was to be told, and nothing else.
type notebook struct {
	mu         sync.Mutex
	remembered evidence.Remembered
	recorded   []evidence.Event
	told       []evidence.Event
	incidents  []evidence.Incident
	isFull     bool
	trust      map[evidence.Name]evidence.Trust
}

func (n *notebook) full(yes bool) {
	n.mu.Lock()
	n.isFull = yes
	n.mu.Unlock()
}

func (n *notebook) Load(context.Context) (*evidence.Remembered, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.remembered
	r.Marks = map[evidence.Name][]proof.State{}
	r.Trust = slices.AppendSeq(slices.Clone(r.Trust), maps.Values(n.trust))
	newest := map[evidence.Name]evidence.Event{}
	for _, ev := range n.recorded {
		if ev.Type == evidence.EventStale || ev.Type == evidence.EventRecovered {
			newest[ev.Name] = ev
		}
	}
	for _, ev := range n.recorded {
		if ev.Type == evidence.EventStale && newest[ev.Name].ID == ev.ID {
			r.Out = append(r.Out, ev)
		}
	}
	return &r, nil
}

func (n *notebook) Generation(context.Context) (uint64, error) { return 1, nil }

func (n *notebook) Apply(_ context.Context, c evidence.Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isFull {
		return errors.New("no space left on device")
	}
	if c.Trust != nil {
		if n.trust == nil {
			n.trust = map[evidence.Name]evidence.Trust{}
		}
		t := *c.Trust
		t.Version++
		n.trust[t.Name] = t
	}
	n.recorded = append(n.recorded, c.Events...)
	n.incidents = append(n.incidents, c.Incidents...)
	for _, d := range c.Deliveries {
		n.told = append(n.told, d.Event)
	}
	return nil
}

// take gives what was told since it was last asked.
func (n *notebook) take() (told []evidence.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	told, n.told = n.told, nil
	return told
}

// fleet is an engine with so many ledgers on one server, that answers with
// their state until it is told otherwise.
type fleet struct {
	t      *testing.T
	server *scripted
	book   *notebook
	stop   func()
}

func newFleet(t *testing.T, ledgers int, remembered evidence.Remembered) *fleet {
	h := makeHistory(t, 3, 3, 0)
	f := &fleet{t: t, server: &scripted{uuid: "u", headers: h.page}, book: &notebook{remembered: remembered}}
	for i := range ledgers {
		f.server.list = append(f.server.list, fmt.Sprintf("db%04d", i))
	}
	f.server.state = func(db string) (proof.SignedState, error) {
		s, err := h.shows(3)(db)
		s.DB = db
		return s, err
	}
	f.begin()
	return f
}

// begin has an auditor run, the first one or the next.
func (f *fleet) begin() {
	t := f.t
	t.Helper()
	e, err := New(t.Context(), Options{
		Server: f.server, Memory: f.book, Name: "production", List: true, Matches: func(string) bool { return true },
		Interval: 20 * time.Second, WalkLimit: 10, StaleAfter: 5 * time.Minute, Tags: []string{"gold"},
		Sinks: []SinkRule{{Name: "all", Wants: func(evidence.Event) (bool, bool) { return true, false }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// fail has calls fail that are about a database of whose name this is true.
func (f *fleet) fail(reason evidence.Reason, after time.Duration, about func(db string) bool) (repair func()) {
	var well func(string) (proof.SignedState, error)
	f.server.set(func(s *scripted) {
		well = s.state
		s.state = func(db string) (proof.SignedState, error) {
			if about(db) {
				if after > 0 { // two due timers received from at once in a bubble confuse the race detector of Go 1.26 (golang/go#78156)
					<-time.After(after)
				}
				return proof.SignedState{}, fault(reason)
			}
			return well(db)
		}
	})
	return func() { f.server.set(func(s *scripted) { s.state = well }) }
}

// told waits and compares what was told meanwhile: type, database and number of ledgers.
func (f *fleet) told(wait time.Duration, want ...string) {
	f.t.Helper()
	<-time.After(wait)
	synctest.Wait()
	var got []string
	for _, ev := range f.book.take() {
		got = append(got, fmt.Sprintf("%s %s %d", ev.Type, ev.Name, ev.Ledgers))
		if len(ev.Tags) != 1 || ev.ID == "" || ev.Message == "" {
			f.t.Errorf("%+v", ev)
		}
	}
	slices.Sort(got) // ledgers come in no order
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		f.t.Errorf("told %q, want %q", got, want)
	}
}

func everyOne(string) bool { return true }

// What befalls all ledgers of a server at once is one alert; each ledger is in
// the record by itself.
func TestOneAlertForAServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 200, evidence.Remembered{})
		f.told(time.Minute, "first-contact production/ 200")
		repair := f.fail(evidence.Unreachable, 0, everyOne)
		f.told(6*time.Minute, "stale production/ 200")
		f.told(time.Hour) // nothing more
		repair()
		f.told(time.Minute, "recovered production/ 0")
		f.stop()
		stale := map[string]int{}
		for _, ev := range f.book.recorded {
			if ev.Type == evidence.EventStale {
				stale[ev.Name.Database]++
			}
		}
		if len(stale) != 201 || stale[""] != 1 || stale["db0007"] != 1 {
			t.Errorf("recorded: %v", stale)
		}
	})
}

// A server that hangs fails its ledgers one after the other, over minutes.
func TestAHangingServerIsNoStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 200, evidence.Remembered{})
		f.told(time.Minute, "first-contact production/ 200")
		repair := f.fail(evidence.Timeout, 10*time.Second, everyOne)
		<-time.After(2 * time.Hour)
		synctest.Wait()
		told := f.book.take()
		if len(told) < 1 || len(told) > 2 || told[0].Name.Database != "" || told[len(told)-1].Ledgers < 100 {
			t.Errorf("%d told: %+v", len(told), told)
		}
		repair()
		f.told(20*time.Minute, "recovered production/ 0")
		f.stop()
	})
}

// One ledger among others is told of by itself, and so is a server's only one.
func TestALedgerByItself(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, n, evidence.Remembered{})
			<-time.After(time.Minute)
			f.book.take()
			repair := f.fail(evidence.NotLoaded, 0, func(db string) bool { return db == "db0000" })
			f.told(6*time.Minute, "stale production/db0000 0")
			f.told(time.Hour)
			repair()
			f.told(time.Minute, "recovered production/db0000 0")
			f.stop()
		})
	}
}

// What is gathered when the auditor stops is told.
func TestGatheredIsToldAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, evidence.Remembered{})
		<-time.After(time.Second)
		f.stop()
		f.told(0, "first-contact production/db0000 0", "first-contact production/db0001 0")
	})
}

// Somebody is reminded once a day of an incident, until it is acknowledged.
func TestReminders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		incident := func(id, db string) evidence.Incident {
			return evidence.Incident{
				ID: id, Version: 1, Name: evidence.Name{Server: "production", Database: db}, Kind: evidence.Rollback, Status: evidence.Open,
				OpenedAt: time.Now(), Findings: []evidence.Finding{{Kind: evidence.Rollback, Detail: "it went back"}},
			}
		}
		acked := incident("20261123-aaaa", "db0000")
		acked.AckedAt = time.Now()
		f := newFleet(t, 2, evidence.Remembered{Open: []evidence.Incident{acked, incident("20261123-bbbb", "db0001")}})
		f.told(23 * time.Hour)
		f.told(2*time.Hour, "still-tampered production/db0001 0")
		f.told(22 * time.Hour)
		f.told(2*time.Hour, "still-tampered production/db0001 0")
		f.stop()
		last := f.book.incidents[len(f.book.incidents)-1]
		if last.ID != "20261123-bbbb" || time.Since(last.RemindedAt) > 3*time.Hour {
			t.Errorf("stored: %+v", last)
		}
	})
}

// A ledger that goes out while others are out already is told of too.
func TestOutagesAreNotSwallowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 20, evidence.Remembered{})
		<-time.After(time.Minute)
		f.book.take()
		f.fail(evidence.NotLoaded, 0, func(db string) bool { return db < "db0003" })
		f.told(6*time.Minute, "stale production/ 3")
		repair := f.fail(evidence.NotLoaded, 0, func(db string) bool { return db == "db0010" })
		f.told(20*time.Minute, "stale production/ 4")
		repair()
		f.told(time.Hour)
		f.told(24*time.Hour, "stale production/ 3") // once a day
		f.server.set(func(s *scripted) { s.list = s.list[3:] })
		f.stop()
	})
}

// What could not be stored is told later.
func TestGatheredSurvivesAFullDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 5, evidence.Remembered{})
		<-time.After(time.Minute)
		f.book.take()
		f.fail(evidence.NotLoaded, 0, func(string) bool { return true })
		<-time.After(4 * time.Minute)
		f.book.full(true)
		f.told(10 * time.Minute)
		f.book.full(false)
		f.told(time.Minute, "stale production/ 5")
		f.stop()
	})
}

// Another auditor that goes on with the same state knows what is out, and of
// what somebody was told.
func TestOutagesSurviveARestart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ledgers      int
		stale, again string
	}{
		{1, "stale production/db0000 0", "recovered production/db0000 0"},
		{20, "stale production/ 20", "recovered production/ 0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, c.ledgers, evidence.Remembered{})
			<-time.After(time.Minute)
			f.book.take()
			repair := f.fail(evidence.NotLoaded, 0, everyOne)
			f.told(6*time.Minute, c.stale)
			f.stop()
			f.told(0)
			f.begin()
			f.told(20 * time.Minute) // nothing twice
			f.told(24*time.Hour, c.stale)
			f.stop()
			repair()
			f.begin()
			f.told(20*time.Minute, c.again)
			f.stop()
			f.begin()
			f.told(time.Hour)
			f.stop()
		})
	}
}

// What was recorded, but not told of, when the auditor was killed.
func TestOutagesAreToldAfterAKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, evidence.Remembered{})
		<-time.After(time.Minute)
		f.fail(evidence.NotLoaded, 0, everyOne)
		f.stop()
		f.book.take()
		f.book.recorded = append(f.book.recorded, evidence.Event{
			ID: "x", Type: evidence.EventStale, At: time.Now(), Name: evidence.Name{Server: "production", Database: "db0000"}, Message: "m", Tags: []string{"gold"},
		})
		<-time.After(time.Second)
		f.begin()
		f.told(time.Minute, "stale production/db0000 0")
		f.stop()
	})
}

// A server that could not be listed when the auditor was stopped is listed again.
func TestListedAgainAfterARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 0, evidence.Remembered{})
		f.stop()
		f.book.recorded = append(f.book.recorded, evidence.Event{ID: "x", Type: evidence.EventStale, At: time.Now(), Name: evidence.Name{Server: "production"}})
		f.begin()
		f.told(time.Minute, "recovered production/ 0")
		f.stop()
	})
}

// Damage that was found and not told of when the auditor was killed is told of
// by the next one.
func TestGrowthIsToldAfterAKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, evidence.Remembered{Open: []evidence.Incident{{
			ID: "20261123-aaaa", Version: 1, Name: evidence.Name{Server: "production", Database: "db0000"}, Kind: evidence.Value, Status: evidence.Open,
			OpenedAt: time.Now(), AckedAt: time.Now(), Told: 1,
			Findings: []evidence.Finding{{Kind: evidence.Value, Tx: 1, Detail: "one"}, {Kind: evidence.Value, Tx: 2, Detail: "another"}},
		}}})
		f.told(time.Minute, "damage production/db0000 0", "first-contact production/db0000 0")
		f.told(3 * time.Hour)
		f.stop()
		if last := f.book.incidents[len(f.book.incidents)-1]; last.Told != 2 {
			t.Errorf("stored: %+v", last)
		}
	})
}

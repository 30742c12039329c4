package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

func TestWhatIsStoredComesBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	if !s.Created() {
		t.Error("a new state does not say that it is new")
	}
	a, b := ledger("prod", "a"), ledger("prod", "b%?#\x00é")
	ta, tb := trustAt(a, 0, 10), trustAt(b, 0, 20)
	tb.Walk, tb.Key, tb.Retired = nil, nil, true
	incident := incidentOf(a, "20261123-abcd", 0)
	apply(t, s, evidence.Change{
		Trust: &ta, Remember: []proof.State{stateAt(6), stateAt(8)},
		Incidents:  []evidence.Incident{incident},
		Events:     []evidence.Event{eventOf(a, evidence.EventTampered, "e1")},
		Deliveries: []evidence.Delivery{{Sink: "webhook", Event: eventOf(a, evidence.EventTampered, "e1")}},
	})
	apply(t, s, evidence.Change{Trust: &tb})

	ta.Version, tb.Version, incident.Version = 1, 1, 1
	want := &evidence.Remembered{
		Trust: []evidence.Trust{ta, tb}, Open: []evidence.Incident{incident},
		Marks: map[evidence.Name][]proof.State{a: {stateAt(6), stateAt(8)}},
	}
	check := func(s *Store) {
		t.Helper()
		got, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		happened := eventOf(a, evidence.EventTampered, "e1")
		happened.Sequence = 2 // the making was commit 1
		events, err := s.Events(t.Context(), noon, 10)
		if err != nil || len(events) != 1 || !reflect.DeepEqual(events[0], happened) {
			t.Errorf("events: %+v, %v", events, err)
		}
		due, err := s.Due(t.Context(), noon, 10)
		if err != nil || len(due) != 1 || !reflect.DeepEqual(due[0].Event, events[0]) || due[0].Sink != "webhook" {
			t.Errorf("due: %+v, %v", due, err)
		}
	}
	check(s)
	finish(t, s)

	s = open(t, dir)
	if s.Created() {
		t.Error("a state that was written to says that it is new")
	}
	check(s)

	r, err := Open(t.Context(), Options{Dir: dir, ReadOnly: true, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	check(r)
	refused(t, r.Apply(t.Context(), evidence.Change{Trust: &ta}), ErrReadOnly)
	finish(t, r)
}

func TestApplyIsCompareAndSwap(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	name := ledger("prod", "a")
	first := trustAt(name, 0, 10)
	incident := incidentOf(name, "20261123-abcd", 0)
	apply(t, s, evidence.Change{Trust: &first, Incidents: []evidence.Incident{incident}})

	conflict := func(c evidence.Change) {
		t.Helper()
		err := s.Apply(t.Context(), c)
		refused(t, err, ErrConflict)
		var is interface{ Conflict() bool }
		if !errors.As(err, &is) || !is.Conflict() {
			t.Errorf("%v does not say that it is a conflict", err)
		}
	}
	conflict(evidence.Change{Trust: &first})
	later := trustAt(name, 2, 11)
	conflict(evidence.Change{Trust: &later})
	other := trustAt(ledger("prod", "unknown"), 1, 11)
	conflict(evidence.Change{Trust: &other})
	conflict(evidence.Change{Incidents: []evidence.Incident{incident}})

	// A conflict in one part undoes the others.
	good := trustAt(name, 1, 11)
	conflict(evidence.Change{
		Trust: &good, Remember: []proof.State{stateAt(4)}, Incidents: []evidence.Incident{incident},
		Events: []evidence.Event{eventOf(name, evidence.EventStale, "e")}, Deliveries: []evidence.Delivery{{Sink: "x", Event: eventOf(name, evidence.EventStale, "e")}},
	})
	got, err := s.Trust(t.Context(), name)
	if err != nil || got.Version != 1 || got.Proven.TxID != 10 {
		t.Errorf("trust after the conflict: %+v, %v", got, err)
	}
	if _, waiting, err := s.NextDue(t.Context()); waiting || err != nil {
		t.Errorf("a delivery of a refused change waits: %v", err)
	}
	apply(t, s, evidence.Change{Trust: &good})
}

func TestTrustMovesForwardOnly(t *testing.T) {
	t.Parallel()
	name := ledger("prod", "a")
	tests := []struct {
		name   string
		change func(*evidence.Trust, *evidence.Change)
		fits   bool
	}{
		{"the same state again", func(*evidence.Trust, *evidence.Change) {}, true},
		{"forward", func(n *evidence.Trust, _ *evidence.Change) { n.Proven.State = stateAt(11) }, true},
		{"back", func(n *evidence.Trust, _ *evidence.Change) {
			n.Proven.State = stateAt(9)
			n.Walked, n.Verified = 0, 0
		}, false},
		{"another state of the same transaction", func(n *evidence.Trust, _ *evidence.Change) { n.Proven.Alh[0]++ }, false},
		{"walked beyond proven", func(n *evidence.Trust, _ *evidence.Change) { n.Walked = 11 }, false},
		{"verified beyond walked", func(n *evidence.Trust, _ *evidence.Change) { n.Verified = n.Walked + 1 }, false},
		{"a new first contact", func(n *evidence.Trust, _ *evidence.Change) {
			n.Baseline.State, n.Proven.State = stateAt(10), stateAt(12)
		}, false},
		{"the baseline's note", func(n *evidence.Trust, _ *evidence.Change) { n.Baseline.Note = "other" }, false},
		{"pinned over a baseline", func(n *evidence.Trust, _ *evidence.Change) { n.Baseline.Origin = evidence.OriginPinned }, false},
		{"imported over a baseline", func(n *evidence.Trust, _ *evidence.Change) { n.Baseline.Origin = evidence.OriginImported }, false},
		{"no origin", func(n *evidence.Trust, _ *evidence.Change) { n.Baseline.Origin = "" }, false},
		{"no trust any more", func(n *evidence.Trust, c *evidence.Change) {
			*n = evidence.Trust{Name: n.Name, Version: 1}
			c.ForgetAll = true
		}, false},
		{"an odd origin", func(n *evidence.Trust, _ *evidence.Change) { n.Baseline.Origin = "odd" }, false},
		{"accepted, back", func(n *evidence.Trust, c *evidence.Change) {
			n.Baseline = evidence.Baseline{State: stateAt(4), Origin: evidence.OriginAccepted, At: noon}
			n.Proven.State, n.Walked, n.Verified = stateAt(4), 0, 0
			c.ForgetAll = true
		}, true},
		{"accepted, back, with states after it remembered", func(n *evidence.Trust, _ *evidence.Change) {
			n.Baseline = evidence.Baseline{State: stateAt(4), Origin: evidence.OriginAccepted, At: noon}
			n.Proven.State, n.Walked, n.Verified = stateAt(4), 0, 0
		}, false},
		{"proven before its baseline", func(n *evidence.Trust, c *evidence.Change) {
			n.Baseline = evidence.Baseline{State: stateAt(40), Origin: evidence.OriginAccepted}
			c.ForgetAll = true
		}, false},
		{"another state than its baseline", func(n *evidence.Trust, c *evidence.Change) {
			n.Baseline = evidence.Baseline{State: proof.State{TxID: 10}, Origin: evidence.OriginAccepted}
			c.ForgetAll = true
		}, false},
		{"remember beyond proven", func(_ *evidence.Trust, c *evidence.Change) { c.Remember = []proof.State{stateAt(11)} }, false},
		{"remember another state of a remembered transaction", func(_ *evidence.Trust, c *evidence.Change) { c.Remember = []proof.State{{TxID: 8}} }, false},
		{"remember a state again", func(_ *evidence.Trust, c *evidence.Change) { c.Remember = []proof.State{stateAt(8)} }, true},
		{"remember without a ledger", func(_ *evidence.Trust, c *evidence.Change) {
			c.Trust, c.Remember = nil, []proof.State{stateAt(8)}
		}, false},
		{"a transaction of 2^63", func(n *evidence.Trust, _ *evidence.Change) { n.Proven.TxID = 1 << 63 }, false},
		{"a walk of 2 MiB", func(n *evidence.Trust, _ *evidence.Change) { n.Walk = make([]byte, 2<<20) }, false},
		{"a year that cannot be written", func(n *evidence.Trust, _ *evidence.Change) {
			n.LastAgreed = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
		}, false},
		{"a name of invalid UTF-8", func(n *evidence.Trust, _ *evidence.Change) { n.Name.Database, n.Version = "\xff", 0 }, false},
		{"a name that is too long", func(n *evidence.Trust, _ *evidence.Change) { n.Name.Database, n.Version = string(make([]byte, 200)), 0 }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, t.TempDir())
			first := trustAt(name, 0, 10)
			apply(t, s, evidence.Change{Trust: &first, Remember: []proof.State{stateAt(8)}})
			next := trustAt(name, 1, 10)
			c := evidence.Change{Trust: &next}
			test.change(&next, &c)
			if test.fits {
				apply(t, s, c)
				return
			}
			before, err := s.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			refused(t, s.Apply(t.Context(), c), ErrInvalid)
			after, err := s.Load(t.Context())
			if err != nil || !reflect.DeepEqual(before, after) {
				t.Errorf("a refused change left something: %+v, %v", after, err)
			}
		})
	}
}

// TestMetButNotTrusted: a ledger that was found out of order at first contact
// has a record before it has a baseline.
func TestMetButNotTrusted(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	name := ledger("prod", "a")
	apply(t, s, evidence.Change{Trust: &evidence.Trust{Name: name, UUID: "c0ffee"}})
	if text := exported(t, s); strings.Contains(text, "prod") {
		t.Errorf("exported: %s", text)
	}
	trust := trustAt(name, 1, 10)
	apply(t, s, evidence.Change{Trust: &trust})
	text := exported(t, s)

	other := open(t, t.TempDir())
	apply(t, other, evidence.Change{Trust: &evidence.Trust{Name: name, UUID: "c0ffee"}})
	if _, err := other.Import(t.Context(), strings.NewReader(text), "", noon); err != nil {
		t.Error(err)
	}
	if got, err := other.Trust(t.Context(), name); err != nil || got.Version != 2 || got.Baseline.Origin != evidence.OriginImported {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRetiredLedgerMayBeginAnew(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	name := ledger("prod", "a")
	first := trustAt(name, 0, 10)
	first.Retired = true
	apply(t, s, evidence.Change{Trust: &first})
	again := trustAt(name, 1, 2)
	again.Baseline.State = stateAt(2)
	apply(t, s, evidence.Change{Trust: &again})
}

func TestMarksAreForgottenAndThinned(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	name := ledger("prod", "a")
	trust := trustAt(name, 0, 100_000)
	trust.Walked, trust.Verified = 0, 0
	marks := func() []proof.State {
		t.Helper()
		all, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all.Marks[name]
	}
	c := evidence.Change{Trust: &trust}
	for tx := uint64(1); tx <= maxMarks+500; tx++ {
		c.Remember = append(c.Remember, stateAt(tx))
	}
	apply(t, s, c)
	got := marks()
	if n := len(got); n > maxMarks || n < maxMarks/3 {
		t.Errorf("%d states are remembered", n)
	}
	if got[0] != stateAt(1) || got[len(got)-1] != stateAt(maxMarks+500) {
		t.Errorf("the first and the last are %v and %v", got[0].TxID, got[len(got)-1].TxID)
	}
	trust.Version = 1
	apply(t, s, evidence.Change{Trust: &trust, Forget: 9_000, Remember: []proof.State{stateAt(90_000)}})
	if got = marks(); got[0].TxID <= 9_000 || got[len(got)-1].TxID != 90_000 {
		t.Errorf("after forgetting: %d … %d", got[0].TxID, got[len(got)-1].TxID)
	}
	trust.Version = 2
	apply(t, s, evidence.Change{Trust: &trust, ForgetAll: true, Remember: []proof.State{stateAt(5)}})
	trust.Version = 3
	apply(t, s, evidence.Change{Trust: &trust, Remember: []proof.State{stateAt(3)}, Forget: 3})
	if got = marks(); !reflect.DeepEqual(got, []proof.State{stateAt(5)}) {
		t.Errorf("after forgetting all: %v", got)
	}
}

func TestIncidentsStayAsRecorded(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	name := ledger("prod", "a")
	apply(t, s, evidence.Change{Incidents: []evidence.Incident{incidentOf(name, "20261123-abcd", 0), incidentOf(name, "20261123-abxy", 0), incidentOf(name, "20261124-abcd", 0)}})

	seen := incidentOf(name, "20261123-abcd", 1)
	seen.Seen, seen.Status, seen.ClosedAt, seen.CloseNote = 9, evidence.Kept, noon, "restored"
	apply(t, s, evidence.Change{Incidents: []evidence.Incident{seen}})
	for what, change := range map[string]func(*evidence.Incident){
		"reopened":              func(i *evidence.Incident) { i.Status = evidence.Open },
		"decided again":         func(i *evidence.Incident) { i.Status = evidence.Accepted },
		"other observed state":  func(i *evidence.Incident) { i.Observed.State = stateAt(99) },
		"other trusted state":   func(i *evidence.Incident) { i.Trusted.Signature = nil },
		"other ledger":          func(i *evidence.Incident) { i.Name.Database = "b" },
		"unknown kind":          func(i *evidence.Incident) { i.Kind = "odd" },
		"unknown status":        func(i *evidence.Incident) { i.Status = "odd" },
		"identity out of shape": func(i *evidence.Incident) { i.ID = "../x" },
		"too many findings":     func(i *evidence.Incident) { i.Findings = make([]evidence.Finding, 101) },
	} {
		i := seen
		i.Version = 2
		change(&i)
		if err := s.Apply(t.Context(), evidence.Change{Incidents: []evidence.Incident{i}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", what, err)
		}
	}

	open, err := s.Incidents(t.Context(), false)
	if err != nil || len(open) != 2 {
		t.Errorf("open: %+v, %v", open, err)
	}
	seen.Version = 2
	for _, id := range []string{"20261123-abcd", "20261123-abc"} {
		if got, err := s.Incident(t.Context(), id); err != nil || !reflect.DeepEqual(got, seen) {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	_, err = s.Incident(t.Context(), "20261123")
	refused(t, err, ErrAmbiguous, "20261123-abcd, 20261123-abxy")
	for _, id := range []string{"2027", "", "%", "20261123-abcd'", "~"} {
		_, err = s.Incident(t.Context(), id)
		refused(t, err, ErrNotFound, "incident list")
	}
}

func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	name := ledger("prod", "a")
	var c evidence.Change
	for i := range maxEvents + 10 {
		e := evidence.Event{ID: fmt.Sprint(i), Type: evidence.EventStale, At: noon.Add(time.Duration(i) * time.Second), Name: name}
		c.Events = append(c.Events, e)
	}
	apply(t, s, c)
	events, err := s.Events(t.Context(), noon, 1<<30)
	if err != nil || len(events) != maxEvents || events[0].ID != "10" {
		t.Fatalf("%d events, %v", len(events), err)
	}
	events, err = s.Events(t.Context(), noon.Add(time.Duration(maxEvents+4)*time.Second), 3)
	if err != nil || len(events) != 3 || events[0].ID != fmt.Sprint(maxEvents+7) || events[2].ID != fmt.Sprint(maxEvents+9) {
		t.Errorf("the newest three: %+v, %v", events, err)
	}
}

func TestApplyTogether(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const ledgers, rounds = 40, 10
	var group sync.WaitGroup
	for n := range ledgers {
		group.Go(func() {
			name := ledger("prod", fmt.Sprint(n))
			for round := range uint64(rounds) {
				trust := trustAt(name, round, 10+round)
				if err := s.Apply(t.Context(), evidence.Change{Trust: &trust, Remember: []proof.State{stateAt(round + 1)}}); err != nil {
					t.Error(err)
				}
				// The same change again, at the same time as the changes of
				// others, fails alone.
				if err := s.Apply(t.Context(), evidence.Change{Trust: &trust}); !errors.Is(err, ErrConflict) {
					t.Errorf("got %v", err)
				}
				if got, err := s.Trust(t.Context(), name); err != nil || got.Version != round+1 {
					t.Errorf("%s: version %d, %v", name, got.Version, err)
				}
			}
		})
	}
	group.Wait()
	list, err := s.Ledgers(t.Context())
	if err != nil || len(list) != ledgers {
		t.Fatalf("%d ledgers, %v", len(list), err)
	}
	for _, trust := range list {
		if trust.Version != rounds {
			t.Errorf("%s: version %d", trust.Name, trust.Version)
		}
	}
	s.ownMu.RLock()
	defer s.ownMu.RUnlock()
	if s.own >= ledgers*rounds {
		t.Errorf("%d changes took %d transactions: nothing was written together", ledgers*rounds, s.own)
	}
}

func TestApplyWithACancelledContext(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	trust := trustAt(ledger("prod", "a"), 0, 10)
	if err := s.Apply(ctx, evidence.Change{Trust: &trust}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	_, err := s.Trust(t.Context(), trust.Name)
	refused(t, err, ErrNotFound, "trust list")
}

func TestCloseWhileChangesAreMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	var group sync.WaitGroup
	acknowledged := make([]uint64, 8)
	for n := range acknowledged {
		group.Go(func() {
			name := ledger("prod", fmt.Sprint(n))
			for version := uint64(0); ; version++ {
				trust := trustAt(name, version, 10+version)
				if err := s.Apply(context.Background(), evidence.Change{Trust: &trust}); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("got %v", err)
					}
					return
				}
				acknowledged[n] = version + 1
				if version == 3 && n == 0 {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	_, err := s.Load(t.Context())
	refused(t, err, ErrClosed)
	s = open(t, dir)
	for n, want := range acknowledged {
		if want == 0 {
			continue
		}
		if got, err := s.Trust(t.Context(), ledger("prod", fmt.Sprint(n))); err != nil || got.Version != want {
			t.Errorf("ledger %d: version %d, acknowledged %d, %v", n, got.Version, want, err)
		}
	}
}

func TestGenerationIsAboutOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	daemon, operator := open(t, dir), open(t, dir)
	generation := func(s *Store) uint64 {
		t.Helper()
		g, err := s.Generation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	ours, theirs := generation(daemon), generation(operator)
	trust := trustAt(ledger("prod", "a"), 0, 10)
	apply(t, daemon, evidence.Change{Trust: &trust})
	if generation(daemon) != ours {
		t.Error("one's own change shows")
	}
	if generation(operator) == theirs {
		t.Error("the change of another does not show")
	}
	// The operator decides on what it reads; the daemon meets a conflict.
	decided, err := operator.Trust(t.Context(), trust.Name)
	if err != nil {
		t.Fatal(err)
	}
	decided.Retired = true
	apply(t, operator, evidence.Change{Trust: &decided})
	if generation(daemon) == ours {
		t.Error("the operator's decision does not show")
	}
	trust.Version = 1
	refused(t, daemon.Apply(t.Context(), evidence.Change{Trust: &trust}), ErrConflict)
}

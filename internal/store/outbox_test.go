package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"immuaudit/evidence"
)

func queue(t testing.TB, s *Store, deliveries ...evidence.Delivery) {
	t.Helper()
	apply(t, s, evidence.Change{Deliveries: deliveries})
}

func due(t testing.TB, s *Store, now time.Time, limit int) []evidence.Pending {
	t.Helper()
	list, err := s.Due(t.Context(), now, limit)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func ids(list []evidence.Pending) []string {
	var events []string
	for _, p := range list {
		events = append(events, p.Event.ID)
	}
	return events
}

func woken(s *Store) bool {
	select {
	case <-s.Wake():
		return true
	default:
		return false
	}
}

func TestDeliveryIsRetriedUnderItsID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if !woken(s) {
		t.Error("what waited before is not announced")
	}
	if _, waiting, err := s.NextDue(t.Context()); waiting || err != nil {
		t.Errorf("something waits in a new state: %v", err)
	}
	name := ledger("prod", "a")
	queue(t, s, evidence.Delivery{Sink: "webhook", Event: eventOf(name, evidence.EventTampered, "e1")})
	if !woken(s) || woken(s) {
		t.Error("a delivery wakes not exactly once")
	}
	first := due(t, s, noon, 10)
	if len(first) != 1 || first[0].Attempts != 0 || !first[0].NextTry.IsZero() {
		t.Fatalf("due: %+v", first)
	}
	if next, waiting, err := s.NextDue(t.Context()); !waiting || !next.IsZero() || err != nil {
		t.Errorf("next due %v, %v, %v", next, waiting, err)
	}
	failure := strings.Repeat("x", maxErrText-1) + "é and more"
	if err := s.Retry(t.Context(), noon.Add(time.Minute), failure, first[0].ID); err != nil {
		t.Fatal(err)
	}
	if list := due(t, s, noon, 10); len(list) != 0 {
		t.Errorf("due before its time: %+v", list)
	}
	finish(t, s)

	s = open(t, dir)
	if next, waiting, err := s.NextDue(t.Context()); !waiting || !next.Equal(noon.Add(time.Minute)) || err != nil {
		t.Errorf("next due %v, %v, %v", next, waiting, err)
	}
	again := due(t, s, noon.Add(time.Minute), 10)
	if len(again) != 1 || again[0].ID != first[0].ID || again[0].Event.ID != "e1" || again[0].Attempts != 1 ||
		len(again[0].LastErr) > maxErrText || !utf8.ValidString(again[0].LastErr) {
		t.Fatalf("again: %+v", again)
	}
	if q, err := s.Queues(t.Context()); err != nil || len(q) != 1 || q[0].Waiting != 1 || q[0].LastErr != again[0].LastErr || !q[0].Oldest.Equal(first[0].Queued) {
		t.Errorf("queues: %+v, %v", q, err)
	}
	for range 2 {
		if err := s.Delivered(t.Context(), again[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	q, err := s.Queues(t.Context())
	if err != nil || len(q) != 1 || q[0].Waiting != 0 || q[0].Sent != 1 || q[0].LastOK.IsZero() || q[0].LastErr != "" {
		t.Errorf("queues: %+v, %v", q, err)
	}
	// A row number is never given out twice.
	queue(t, s, evidence.Delivery{Sink: "webhook", Event: eventOf(name, evidence.EventTampered, "e2")})
	if list := due(t, s, noon, 10); len(list) != 1 || list[0].ID <= first[0].ID {
		t.Errorf("due: %+v", list)
	}
}

func TestNewerReplacesOlder(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	a, b := ledger("prod", "a"), ledger("prod", "b")
	comparison := func(name evidence.Name, sink, id string) evidence.Delivery {
		return evidence.Delivery{Sink: sink, Event: eventOf(name, evidence.EventComparison, id), Coalesce: true}
	}
	queue(t, s, comparison(a, "x", "1"), comparison(b, "x", "2"), comparison(a, "y", "3"))
	queue(t, s, evidence.Delivery{Sink: "x", Event: eventOf(a, evidence.EventStale, "4")}, evidence.Delivery{Sink: "x", Event: eventOf(a, evidence.EventStale, "5")})
	queue(t, s, comparison(a, "x", "6"))
	got := ids(due(t, s, noon, 10))
	slices.Sort(got)
	if !slices.Equal(got, []string{"2", "3", "4", "5", "6"}) {
		t.Fatalf("waiting: %v", got)
	}

	// Replaced on its way: neither answer touches the wrong delivery.
	find := func(id string) evidence.Pending {
		t.Helper()
		for _, p := range due(t, s, noon.Add(time.Hour), 100) {
			if p.Event.ID == id {
				return p
			}
		}
		t.Fatalf("delivery %s is not waiting", id)
		return evidence.Pending{}
	}
	sent := find("6")
	queue(t, s, comparison(a, "x", "7"))
	if err := s.Delivered(t.Context(), sent.ID); err != nil {
		t.Fatal(err)
	}
	sent = find("7")
	queue(t, s, comparison(a, "x", "8"))
	if err := s.Retry(t.Context(), noon.Add(time.Minute), "down", sent.ID); err != nil {
		t.Fatal(err)
	}
	// The newer one waits for the receiver too, and so does the next.
	queue(t, s, comparison(a, "x", "9"))
	if got := ids(due(t, s, noon, 10)); slices.Contains(got, "9") || slices.Contains(got, "8") {
		t.Errorf("due at once: %v", got)
	}
	if p := find("9"); p.Attempts != 1 || p.LastErr != "down" || !p.NextTry.Equal(noon.Add(time.Minute)) {
		t.Errorf("9: %+v", p)
	}
	q, err := s.Queues(t.Context())
	if err != nil || len(q) != 2 || q[0].Sink != "x" || q[0].Sent != 1 || q[0].Failed != 1 || q[0].LastErr != "down" {
		t.Errorf("queues: %+v, %v", q, err)
	}
	// Of one change only the newest stays as well.
	queue(t, s, comparison(b, "x", "10"), comparison(b, "x", "11"))
	if p := find("11"); p.Event.Name != b {
		t.Errorf("11: %+v", p)
	}
	if got := ids(due(t, s, noon.Add(time.Hour), 100)); slices.Contains(got, "10") || slices.Contains(got, "2") {
		t.Errorf("waiting: %v", got)
	}
}

func TestSinksTakeTurns(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var c evidence.Change
	for i := range 50 {
		c.Deliveries = append(c.Deliveries, evidence.Delivery{Sink: "a", Event: eventOf(ledger("prod", fmt.Sprint(i)), evidence.EventFirstContact, fmt.Sprint("a", i))})
	}
	c.Deliveries = append(c.Deliveries,
		evidence.Delivery{Sink: "a", Event: eventOf(ledger("prod", "z"), evidence.EventTampered, "urgent")},
		evidence.Delivery{Sink: "b", Event: eventOf(ledger("prod", "z"), evidence.EventStale, "b0")})
	apply(t, s, c)
	if got := ids(due(t, s, noon, 3)); !slices.Equal(got, []string{"urgent", "b0", "a0"}) {
		t.Errorf("due: %v", got)
	}
	if got := due(t, s, noon, 1000); len(got) != 52 {
		t.Errorf("%d are due", len(got))
	}
	if got := due(t, s, noon, -1); len(got) != 0 {
		t.Errorf("%d are due", len(got))
	}
}

func TestOutboxIsBounded(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var c evidence.Change
	add := func(typ evidence.EventType, n int) {
		for i := range n {
			e := evidence.Event{ID: fmt.Sprint(typ, i), Type: typ, At: noon, Name: ledger("prod", fmt.Sprint(i))}
			c.Deliveries = append(c.Deliveries, evidence.Delivery{Sink: "a", Event: e, Coalesce: typ != evidence.EventTampered})
		}
	}
	add(evidence.EventTampered, 300)
	add(evidence.EventIdentityChanged, maxWaiting+200)
	apply(t, s, c)
	var tampered, other int
	row := s.reader.QueryRowContext(t.Context(), "SELECT count(*) FILTER (WHERE urgent = 1), count(*) FILTER (WHERE urgent = 0) FROM outbox")
	if err := row.Scan(&tampered, &other); err != nil || tampered != 300 || other != maxWaiting {
		t.Errorf("%d about tampering and %d others wait, %v", tampered, other, err)
	}
	for _, p := range due(t, s, noon, maxWaiting) {
		if p.Event.ID == "identity-changed0" {
			t.Error("the oldest was not dropped")
		}
	}
}

// TestSequence: an event and its deliveries carry the number of the commit
// that stored them, so that a receiver can tell a state that was rolled back.
func TestSequence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	name := ledger("prod", "a")
	tell := func(id string) {
		t.Helper()
		event := eventOf(name, evidence.EventComparison, id)
		event.Sequence = 4711 // not for the caller to say
		apply(t, s, evidence.Change{Events: []evidence.Event{event}, Deliveries: []evidence.Delivery{{Sink: "x", Event: event, Coalesce: true}}})
	}
	check := func(waiting uint64, kept ...uint64) {
		t.Helper()
		list := due(t, s, noon, 9)
		if len(list) != 1 || list[0].Event.Sequence != waiting {
			t.Errorf("waiting: %+v, want sequence %d", list, waiting)
		}
		events, err := s.Events(t.Context(), noon, 9)
		var got []uint64
		for _, e := range events {
			got = append(got, e.Sequence)
		}
		if err != nil || !slices.Equal(got, kept) {
			t.Errorf("kept: %v, want %v, %v", got, kept, err)
		}
	}
	tell("e1")
	check(2, 2)
	tell("e2")
	check(3, 2, 3)
	stale := trustAt(name, 7, 10)
	refused(t, s.Apply(t.Context(), evidence.Change{Trust: &stale, Events: []evidence.Event{eventOf(name, evidence.EventStale, "e3")}}), ErrConflict)
	if err := s.Retry(t.Context(), noon, "down", due(t, s, noon, 9)[0].ID); err != nil {
		t.Fatal(err)
	}
	check(3, 2, 3)
	finish(t, s)
	s = open(t, dir)
	tell("e4")
	check(5, 2, 3, 5)
}

// What became of deliveries is known after a restart, and to other processes.
func TestSinksAreRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	queue(t, s, evidence.Delivery{Sink: "mail", Event: eventOf(ledger("prod", "a"), evidence.EventTampered, "e1")},
		evidence.Delivery{Sink: "mail", Event: eventOf(ledger("prod", "b"), evidence.EventTampered, "e2")},
		evidence.Delivery{Sink: "gone", Event: eventOf(ledger("prod", "b"), evidence.EventStale, "e3")})
	both := due(t, s, noon, 10)
	both = slices.DeleteFunc(both, func(p evidence.Pending) bool { return p.Sink == "gone" })
	if err := s.Retry(t.Context(), noon, "no route", both[0].ID, both[1].ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Delivered(t.Context(), both[0].ID, both[1].ID); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.NoteSink(t.Context(), "beat", ""), s.NoteSink(t.Context(), "beat", "404")); err != nil {
		t.Fatal(err)
	}
	before, err := s.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	finish(t, s)
	s = open(t, dir)
	q, err := s.Queues(t.Context())
	if err != nil || !slices.Equal(q, before) || len(q) != 3 {
		t.Fatalf("after a restart %+v, before %+v, %v", q, before, err)
	}
	if b := q[0]; b.Sink != "beat" || b.Sent != 1 || b.Failed != 1 || b.LastErr != "404" || b.LastOK.IsZero() || b.LastErrAt.IsZero() {
		t.Errorf("beat: %+v", b)
	}
	if m := q[2]; m.Sink != "mail" || m.Waiting != 0 || m.Sent != 2 || m.Failed != 2 || m.LastErr != "" || m.LastErrAt.IsZero() {
		t.Errorf("mail: %+v", m)
	}
	if n, err := s.DropSink(t.Context(), "gone"); n != 1 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	if n, err := s.DropSink(t.Context(), "beat"); n != 0 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	if q, err = s.Queues(t.Context()); err != nil || len(q) != 1 || q[0].Sink != "mail" {
		t.Errorf("left: %+v, %v", q, err)
	}
}

func TestTestsAreWithdrawn(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	queue(t, s, evidence.Delivery{Sink: "mail", Event: eventOf(evidence.Name{Server: "prod"}, evidence.EventTest, "t1")},
		evidence.Delivery{Sink: "mail", Event: eventOf(ledger("prod", "a"), evidence.EventTampered, "e1")})
	tests, err := s.Tests(t.Context())
	if err != nil || !slices.Equal(ids(tests), []string{"t1"}) {
		t.Fatalf("tests: %v, %v", tests, err)
	}
	if err := s.Withdraw(t.Context(), tests[0].ID); err != nil {
		t.Fatal(err)
	}
	if left := ids(due(t, s, noon, 9)); !slices.Equal(left, []string{"e1"}) {
		t.Errorf("left: %v", left)
	}
	if q, err := s.Queues(t.Context()); err != nil || len(q) != 1 || q[0].Sent != 0 {
		t.Errorf("queues: %+v, %v", q, err)
	}
}

// What was found and decided is not washed away by what happens all day.
func TestLastingEventsOutliveAFlood(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	add := func(typ evidence.EventType, n int) {
		t.Helper()
		var c evidence.Change
		for i := range n {
			c.Events = append(c.Events, evidence.Event{ID: fmt.Sprint(typ, i), Type: typ, At: noon, Name: ledger("prod", "a")})
		}
		apply(t, s, c)
	}
	add(evidence.EventDecision, 3)
	add(evidence.EventTampered, maxLasting+1)
	add(evidence.EventClockSkew, maxEvents)
	add(evidence.EventTampered, 2)
	events, err := s.Events(t.Context(), noon, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	count := map[evidence.EventType]int{}
	for _, e := range events {
		count[e.Type]++
	}
	if count[evidence.EventDecision] != 3 || count[evidence.EventTampered] != maxLasting || count[evidence.EventClockSkew] != maxEvents-2 {
		t.Errorf("kept: %v", count)
	}
}

package page

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net/http"
	"sync"
	"time"

	"immuaudit/internal/audit"
)

// feed compares the fleet with what it was a second ago, once for all streams
// and only while there are any.
type feed struct {
	mu      sync.Mutex
	running bool
	ended   chan struct{}
	streams map[chan change]struct{}
	last    change
	seed    maphash.Seed
	verdict uint64 // digest of what is urgent
	numbers uint64 // digest of the rest
}

// change is what a stream tells. Urgent: a verdict, a reason or an incident is
// another, not just numbers.
type change struct {
	Time     time.Time `json:"time"`
	Sequence uint64    `json:"sequence"`
	Urgent   bool      `json:"urgent"`
	Verdict  string    `json:"verdict"`
	Headline string    `json:"headline"`
	Ledgers  tally     `json:"ledgers"`
}

func (f *feed) init() {
	f.streams, f.seed, f.ended = map[chan change]struct{}{}, maphash.MakeSeed(), make(chan struct{})
}

func (f *feed) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = true
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running {
		f.running = false
		close(f.ended)
	}
}

// join gives a channel that holds the newest change that was not read yet.
func (f *feed) join() (chan change, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.running || len(f.streams) >= maxStreams {
		return nil, false
	}
	c := make(chan change, 1)
	f.streams[c] = struct{}{}
	return c, true
}

func (f *feed) leave(c chan change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.streams, c)
}

func (f *feed) look(statuses func() []audit.Status) {
	f.mu.Lock()
	idle := len(f.streams) == 0
	f.mu.Unlock()
	if idle {
		return
	}
	now := statuses()
	all := newFleet(now)
	verdict, numbers := f.digest(all)
	f.mu.Lock()
	defer f.mu.Unlock()
	if verdict == f.verdict && numbers == f.numbers {
		return
	}
	f.last = change{time.Now().UTC(), f.last.Sequence + 1, verdict != f.verdict, all.tally.verdict().String(), all.headline(), all.tally}
	f.verdict, f.numbers = verdict, numbers
	for c := range f.streams {
		told := f.last
		select {
		case before := <-c: // not read yet: one change stands for both
			told.Urgent = told.Urgent || before.Urgent
		default:
		}
		c <- told
	}
}

func (f *feed) digest(all *fleet) (verdict, numbers uint64) {
	var v, n maphash.Hash
	v.SetSeed(f.seed)
	n.SetSeed(f.seed)
	for _, s := range all.sites {
		fmt.Fprintf(&v, "%q %t %q %q\n", s.Server, s.down, s.ServerError, s.UUID)
	}
	for _, e := range all.entries {
		maphash.WriteComparable(&v, struct {
			server, database string
			urgency, open    int
			damages          int
			kind, reason     string
		}{e.Name.Server, e.Name.Database, urgency(e.LedgerStatus), e.OpenIncidents, e.Damages, string(e.Last.Kind), string(e.Last.Reason)})
		maphash.WriteComparable(&n, [5]uint64{e.ProvenTx, e.WalkedTx, e.VerifiedTx, e.LookedAt, e.Scrub.Pass})
	}
	return v.Sum64(), n.Sum64()
}

// stream tells changes as server-sent events until the visitor goes away, is
// too slow, or the auditor stops.
func (s *Site) stream(w http.ResponseWriter, r *http.Request) {
	told, ok := s.feed.join()
	if !ok {
		w.Header().Set("Retry-After", "30")
		problem(w, http.StatusServiceUnavailable, "too many streams are open, or the auditor is stopping; try again later")
		return
	}
	defer s.feed.leave(told)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy that collects answers would make them late
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	say := func(event string, data any) bool {
		text, err := json.Marshal(data)
		if err != nil || control.SetWriteDeadline(time.Now().Add(streamPatience)) != nil {
			return false
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, text); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	all := newFleet(s.opts.Statuses())
	if !say("hello", change{Time: time.Now().UTC(), Verdict: all.tally.verdict().String(), Headline: all.headline(), Ledgers: all.tally}) {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.feed.ended:
			return
		case c := <-told:
			if !say("change", c) {
				return
			}
		case now := <-beat.C:
			// An event, not a comment: a script cannot see comments, and would
			// take a dead connection for a quiet one.
			if !say("alive", map[string]time.Time{"time": now.UTC()}) {
				return
			}
		}
	}
}

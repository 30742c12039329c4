// Package page is what people see of the auditor: the page of all servers and
// ledgers, one page for each ledger and each incident, and the same as JSON
// under /api/v1/ (openapi.yaml), with a stream of changes.
//
//	/                              all ledgers, worst first
//	/ledger/{server}/{database}    one ledger, and how it went
//	/incidents, /incident/{id}     what happened, in words, and what to do now
//	/incident/{id}/evidence        the evidence file
//	/api/v1/…                      the same for programs
//
// Only GET and HEAD are answered; nothing here changes anything. A page loads
// nothing beside itself: style and script stand in it, and a policy allows
// those two by their digests and nothing else. Without the script a page is
// complete, but does not renew itself.
//
// Servers choose names, identities and error texts, so every text is escaped,
// bounded and freed of what cannot be seen. Keys and values of entries, and
// evidence files, are shown only to visitors that Options.Private lets see them.
package page

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/history"
	"immuaudit/proof"
)

// Book is what is remembered on disk. It is read for the page of one ledger or
// incident, never once for each row. An error means that it could not be read,
// or that there is no such thing.
type Book interface {
	// Incidents gives the open incidents, oldest first, or all of them.
	Incidents(ctx context.Context, all bool) ([]evidence.Incident, error)
	// Incident finds one by its identity or an unambiguous beginning of it.
	Incident(ctx context.Context, idOrPrefix string) (evidence.Incident, error)
	Trust(ctx context.Context, name evidence.Name) (evidence.Trust, error)
	// Events gives what happened since, oldest first, at most limit of the newest.
	Events(ctx context.Context, since time.Time, limit int) ([]evidence.Event, error)
}

// History gives what rounds came to over time, oldest first. Where it keeps
// none of a ledger it gives none, without an error.
type History interface {
	Of(ctx context.Context, name evidence.Name, from, to time.Time, limit int) ([]history.Stretch, error)
}

// Checkpoint is a state that was trusted at a time.
type Checkpoint struct {
	At     time.Time // zero where it is not known
	State  proof.State
	Signed bool
}

// Options is what a Site shows and to whom.
type Options struct {
	// Statuses gives one status for each server. It is called for every
	// request and must not block.
	Statuses func() []audit.Status
	Book     Book
	// History may be nil: then no plots are drawn.
	History History
	// Checkpoints gives the states of a ledger that were kept, oldest first;
	// it may be nil.
	Checkpoints func(ctx context.Context, name evidence.Name) ([]Checkpoint, error)
	// EvidenceDir is where evidence files lie; nothing outside of it is read.
	EvidenceDir string
	// Private reports whether this visitor may see keys, values and evidence;
	// nil: nobody may.
	Private func(*http.Request) bool
	Version string
	Logger  *slog.Logger // nil: no log
}

// Site serves the pages and the API.
type Site struct {
	opts   Options
	mux    *http.ServeMux
	looks  looks
	feed   feed
	growth growth

	mu       sync.Mutex // over the two below
	openAt   time.Time
	open     []evidence.Incident
	openErr  error
	evidence inspections
}

// New checks the options. Run must be called for live pages and for growth.
func New(o Options) (*Site, error) {
	if o.Statuses == nil || o.Book == nil {
		return nil, errors.New("the status page needs a status to show and a record to read")
	}
	if o.Private == nil {
		o.Private = func(*http.Request) bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Site{opts: o, looks: newLooks()}
	s.feed.init()
	s.growth.samples = map[evidence.Name]sample{}
	s.evidence.init()
	s.routes()
	return s, nil
}

// Run measures growth and tells streams what changed, until ctx ends; then it
// ends the streams, so that a server that stops need not wait for them.
func (s *Site) Run(ctx context.Context) error {
	defer s.feed.close()
	s.growth.take(s.opts.Statuses(), time.Now())
	tick, slow := time.NewTicker(feedInterval), time.NewTicker(sampleEvery)
	defer tick.Stop()
	defer slow.Stop()
	s.feed.open()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.feed.look(s.opts.Statuses)
		case now := <-slow.C:
			s.growth.take(s.opts.Statuses(), now)
		}
	}
}

func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// openIncidents reads the open incidents at most once in bookFresh, however
// many visitors there are: in the worst case each ledger has one.
func (s *Site) openIncidents(ctx context.Context) ([]evidence.Incident, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.openAt.IsZero() || time.Since(s.openAt) > bookFresh {
		s.open, s.openErr = s.opts.Book.Incidents(context.WithoutCancel(ctx), false)
		s.openAt = time.Now()
	}
	return s.open, s.openErr
}

package alert

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// HeartbeatOptions describe somebody who raises the alarm when beats stay away.
type HeartbeatOptions struct {
	Name, URL          string
	Username, Password string // a password alone is a bearer token
	// Servers must all have finished a round between two beats: one that hangs
	// is not to be covered by the others. Empty: any server will do.
	Servers []string
	Roots   *x509.CertPool
	Version string
}

// Heartbeat asks for a URL whenever rounds were finished. It is no Sink: a beat
// that was missed is missed, which is what it is for.
type Heartbeat struct {
	name    string
	servers []string
	*endpoint

	mu   sync.Mutex
	seen map[string]bool // servers that finished a round since the last beat
	wake chan struct{}
}

// SinkBook keeps how it went.
type SinkBook interface {
	NoteSink(ctx context.Context, sink, lastErr string) error
}

// NewHeartbeat checks the options; it connects to nothing.
func NewHeartbeat(o HeartbeatOptions) (*Heartbeat, error) {
	e, err := authorized(o.URL, o.Version, o.Roots, o.Username, o.Password)
	if err != nil {
		return nil, fmt.Errorf("the url %w", err)
	}
	return &Heartbeat{name: o.Name, servers: o.Servers, endpoint: e, seen: map[string]bool{}, wake: make(chan struct{}, 1)}, nil
}

// Name is the name that its results are kept under.
func (h *Heartbeat) Name() string { return h.name }

// Beat says that a full round over all ledgers of a server was finished. It
// never waits.
func (h *Heartbeat) Beat(server string) {
	if len(h.servers) > 0 && !slices.Contains(h.servers, server) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[server] = true
	if len(h.seen) < len(h.servers) {
		return
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Run beats until ctx ends, at most once a minute, and notes how it went.
func (h *Heartbeat) Run(ctx context.Context, book SinkBook) error {
	defer h.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		}
		h.mu.Lock()
		clear(h.seen)
		h.mu.Unlock()
		text := ""
		if err := h.Try(ctx); err != nil {
			text = cut(err.Error(), maxErrorBytes)
		}
		if ctx.Err() != nil {
			return nil
		}
		noting, cancel := context.WithTimeout(ctx, recordTimeout)
		_ = book.NoteSink(noting, h.name, text) // a state that cannot be written is told by all who must
		cancel()
		pause := time.NewTimer(beatEvery)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

// Try makes one beat; any 2xx is an acceptance.
func (h *Heartbeat) Try(ctx context.Context) error {
	return h.send(ctx, http.MethodGet, nil, http.Header{}, success)
}

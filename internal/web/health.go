package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

var (
	errNoAnswerYet = errors.New("immudb has not answered yet")
	errStopping    = errors.New("the auditor is stopping")
)

// pulse asks the audited server whether it is there. However many visitors
// come, one question is under way at a time and its answer serves everybody for
// immudbFresh: the health endpoints must not become a way to load immudb.
type pulse struct {
	ask  func(context.Context) error
	base context.Context // ends with the server that owns the questions

	mu      sync.Mutex
	closed  bool
	asking  chan struct{} // closed when the question under way is answered; nil if none is
	at      time.Time     // of the newest answer
	err     error
	calls   sync.WaitGroup
	stopAll context.CancelFunc
}

func newPulse(ask func(context.Context) error) *pulse {
	p := &pulse{ask: ask, err: errNoAnswerYet}
	p.base, p.stopAll = context.WithCancel(context.Background())
	return p
}

// answer gives the newest answer. Where that is too old it asks again and waits
// for at most patience, then falls back on the answer before.
func (p *pulse) answer(ctx context.Context, patience time.Duration) error {
	p.mu.Lock()
	if !p.at.IsZero() && time.Since(p.at) < immudbFresh {
		defer p.mu.Unlock()
		return p.err
	}
	if p.closed {
		p.mu.Unlock()
		return errStopping
	}
	if p.asking == nil {
		p.asking = make(chan struct{})
		p.calls.Go(p.question)
	}
	asking := p.asking
	p.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-asking:
	case <-timer.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *pulse) question() {
	ctx, cancel := context.WithTimeout(p.base, immudbTimeout)
	defer cancel()
	err := p.ask(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.err = time.Now(), err
	close(p.asking)
	p.asking = nil
}

// close ends the question under way and waits for it.
func (p *pulse) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stopAll()
	p.calls.Wait()
}

// healthBody is the body of initz, readyz and livez. "immudb" is the original's
// only member: "OK" or why the audited server cannot be reached, in each of the
// three, whatever the status code. "auditor" is there only when livez or readyz
// fail, and says why: their code speaks of the auditor alone.
type healthBody struct {
	Immudb  string `json:"immudb"`
	Auditor string `json:"auditor,omitempty"`
}

// initz is about immudb: 503 while it cannot be reached.
func (s *Server) initz(w http.ResponseWriter, r *http.Request) {
	code, body := http.StatusOK, healthBody{Immudb: "OK"}
	if err := s.pulse.answer(r.Context(), immudbTimeout); err != nil {
		code, body.Immudb = http.StatusServiceUnavailable, errorText(err)
	}
	writeHealth(w, code, body)
}

// livez fails only if the auditor itself hangs: an orchestrator that restarts
// the auditor because immudb is down would make it blind when it is needed.
func (s *Server) livez(w http.ResponseWriter, r *http.Request) {
	s.probe(w, r, s.alive())
}

// readyz fails until the auditor audits; again whatever immudb does.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	s.probe(w, r, s.ready())
}

func (s *Server) probe(w http.ResponseWriter, r *http.Request, auditor error) {
	code, body := http.StatusOK, healthBody{Immudb: "OK"}
	if err := s.pulse.answer(r.Context(), probePatience); err != nil {
		body.Immudb = errorText(err)
	}
	if auditor != nil {
		code, body.Auditor = http.StatusServiceUnavailable, errorText(auditor)
	}
	writeHealth(w, code, body)
}

// alive checks that the scheduler turned within the limit. Before its first
// turn the time since the start counts.
func (s *Server) alive() error {
	for _, status := range s.opts.Statuses() {
		last := status.LoopAt
		if last.Before(status.Started) {
			last = status.Started
		}
		if last.Before(s.started) {
			last = s.started
		}
		if still := time.Since(last); still > s.opts.LoopLimit {
			return fmt.Errorf("the scheduler has not turned for %s; look at the log and restart the auditor", still.Round(time.Second))
		}
	}
	return nil
}

// ready checks that the auditor is at work: every known ledger had a round, or
// there was nothing to be had from the server, which is no reason to take the
// auditor out of service.
func (s *Server) ready() error {
	if err := s.alive(); err != nil {
		return err
	}
	for _, status := range s.opts.Statuses() {
		if !status.FirstPass && status.ServerError == "" {
			return errors.New("the first pass over the ledgers has not finished yet")
		}
	}
	return nil
}

func writeHealth(w http.ResponseWriter, code int, body healthBody) {
	allowAnyOrigin(w)
	writeJSON(w, code, body)
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "encoding the answer failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(text) // a visitor that went away needs no answer
}

// allowAnyOrigin lets a page of any origin read the answer, as the original did
// everywhere. Only metrics and health say it here: they hold nothing that a
// page of another origin may not know, and credentials are never sent along
// with a star.
func allowAnyOrigin(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/history"
	"immuaudit/internal/mirror"
	"immuaudit/internal/page"
	"immuaudit/internal/web"
)

// openHistory opens the memory of how rounds went. It only informs: where it
// cannot be had, that is said, and auditing goes on without.
func (a *auditor) openHistory(ctx context.Context) (done func() error, err error) {
	h, err := history.Open(ctx, a.store.Dir(), history.Options{Gap: a.c.Audit.StaleAfter, Version: version().Version, Logger: a.log})
	problem := err
	if err == nil {
		problem = h.Problem()
	}
	if problem != nil {
		a.log.Error("the history of rounds is not what it was; plots and reports have a gap", "error", problem)
		d := audit.Decider{Memory: a.store, Sinks: a.rules}
		if err := d.StateProblem(ctx, a.c.Audit.Server, fmt.Sprintf("the history of rounds: %v", problem)); err != nil {
			return nil, unknown(err)
		}
	}
	if h == nil {
		return func() error { return nil }, nil
	}
	a.history = h
	return h.Close, nil
}

// openPages makes the pages that people see.
func (a *auditor) openPages() error {
	webConfig := a.c.Audit.WebConfigFile
	_, err := web.AsksForPassword(webConfig)
	if err != nil {
		return usage(err)
	}
	o := page.Options{
		Statuses: a.fleet.statuses, Book: a.store, EvidenceDir: filepath.Join(a.store.Dir(), "evidence"),
		Private: func(r *http.Request) bool { return onLoopback(r) || protected(webConfig) },
		Version: version().Version, Logger: a.log,
	}
	if a.history != nil {
		o.History = a.history
	}
	if a.mirror != nil {
		o.Checkpoints = a.checkpoints
	}
	if a.pages, err = page.New(o); err != nil {
		return usage(err)
	}
	return nil
}

// protected reports whether passwords are asked for now: the server reads the
// file anew for each request. One that cannot be read protects nothing.
func protected(webConfig string) bool {
	asks, err := web.AsksForPassword(webConfig)
	return err == nil && asks
}

// onLoopback reports whether a visitor sits at this machine: the peer does, no
// proxy asks for somebody else, and the page was asked for by a name of this
// machine. Otherwise any page of the web could have a browser here fetch it
// under a name of its own (DNS rebinding).
func onLoopback(r *http.Request) bool {
	// Proxies often keep to HTTP/1.0 and tell nothing of themselves; browsers
	// have not spoken it for decades.
	if r.ProtoMajor == 1 && r.ProtoMinor == 0 {
		return false
	}
	for _, forwarded := range []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server",
		"X-Real-Ip", "X-Client-Ip", "Via",
	} {
		if len(r.Header.Values(forwarded)) > 0 {
			return false
		}
	}
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !isLoopback(peer) {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.EqualFold(host, "localhost") || isLoopback(strings.Trim(host, "[]"))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// shownCheckpoints of a ledger are given to its page.
const shownCheckpoints = 20

// checkpoints gives the newest states of a ledger that the server signed and
// the mirror keeps, oldest first.
func (a *auditor) checkpoints(_ context.Context, name evidence.Name) (out []page.Checkpoint, err error) {
	m, err := mirror.OpenReadOnly(filepath.Join(a.store.Dir(), mirrorFolder), a.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	l, err := m.Snapshot(name)
	if err != nil {
		return nil, err
	}
	states, err := l.States(0, l.Size(), shownCheckpoints)
	for i := len(states) - 1; i >= 0; i-- {
		out = append(out, page.Checkpoint{At: states[i].At, State: states[i].State.State, Signed: len(states[i].State.Signature) > 0})
	}
	return out, err
}

package cli

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/alert"
	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/web"
	"immuaudit/internal/wire"
)

// audited is one server with its client and its engine.
type audited struct {
	c      *config.Config
	client *wire.Client
	key    *ecdsa.PublicKey // configured, nil if none
	point  []byte           // key as an uncompressed point
	engine *audit.Engine

	stop    context.CancelFunc // of a running engine
	stopped chan struct{}
}

// fleet are the servers that are audited now. A reload changes it.
type fleet struct {
	mu      sync.Mutex // guards servers, which is replaced and never changed
	servers []*audited
}

func (f *fleet) all() []*audited {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers
}

func (f *fleet) set(servers []*audited) {
	f.mu.Lock()
	f.servers = servers
	f.mu.Unlock()
}

// close ends the clients.
func (f *fleet) close() (err error) {
	for _, s := range f.all() {
		err = errors.Join(err, s.client.Close())
	}
	return err
}

func (f *fleet) statuses() []audit.Status {
	var all []audit.Status
	for _, s := range f.all() {
		if s.engine != nil {
			all = append(all, s.engine.Status())
		}
	}
	return all
}

func (f *fleet) traffic() map[string]web.Traffic {
	all := map[string]web.Traffic{}
	for _, s := range f.all() {
		all[s.c.Audit.Server] = traffic(s.client)
	}
	return all
}

// immudb asks whether what is audited is there. One server is asked; of many
// it is known from their rounds, so that a probe is not fifty calls.
func (f *fleet) immudb(ctx context.Context) error {
	servers := f.all()
	if len(servers) == 1 {
		_, err := servers[0].client.ServerVersion(ctx)
		return err
	}
	var down []string
	for _, s := range f.statuses() {
		if s.ServerError != "" {
			down = append(down, s.Server)
		}
	}
	if len(down) > 0 {
		return fmt.Errorf("%d of %d servers do not answer: %s", len(down), len(servers), listed(down))
	}
	return nil
}

// listed names the first of many.
func listed(names []string) string {
	const most = 5
	text := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		text += ", …"
	}
	return text
}

// prepare makes clients for servers; nothing is talked to.
func (a *auditor) prepare(configs []*config.Config) (servers []*audited, err error) {
	defer func() {
		if err != nil {
			for _, s := range servers {
				s.client.Close()
			}
		}
	}()
	for _, c := range configs {
		s := &audited{c: c}
		if s.key, s.point, err = signingKey(c); err != nil {
			return servers, inServer(a.c, c, err)
		}
		if s.client, err = connect(c, a.log.With("server", c.Audit.Server)); err != nil {
			return servers, inServer(a.c, c, err)
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// inServer says which of several servers an error is about.
func inServer(all, c *config.Config, err error) error {
	if !all.Fleet() {
		return err
	}
	var exit *exitError
	if errors.As(err, &exit) && exit.err != nil {
		return &exitError{exit.code, fmt.Errorf("server %q: %w", c.Audit.Server, exit.err)}
	}
	return fmt.Errorf("server %q: %w", c.Audit.Server, err)
}

// arm makes the engine of a server.
func (a *auditor) arm(ctx context.Context, s *audited) error {
	c := s.c
	filter := c.LedgerFilter()
	o := audit.Options{
		Server: s.client, Memory: a.store, Name: c.Audit.Server, Address: c.Target(), Logger: a.log,
		Key: s.key, KeyPoint: s.point, Tags: c.Audit.Tags, Common: a.common,
		List: filter.All() || len(filter.Named()) < len(filter.Exact()), Matches: filter.Match,
		Exact: filter.Named(), Fallback: filter.Exact(),
		Interval: c.Audit.Interval, WalkLimit: c.Audit.WalkLimit, WalkRate: c.Audit.WalkRate, StaleAfter: c.Audit.StaleAfter,
		Sinks:  a.rules(c.Audit.Server),
		Alarm:  a.alarm,
		Mirror: a.mirror,
		Record: a.record, Version: version().Version, Channel: func() evidence.Channel { return channel(s) },
		ExpectGrowth: c.Audit.ExpectGrowth, ClockSkew: c.Audit.ClockSkew,
		Deep: deepOf(c, !a.attended),
	}
	o.Deep.Source = s.client
	for _, rule := range o.Sinks {
		want, _ := rule.Wants(evidence.Event{Type: evidence.EventComparison, Name: evidence.Name{Server: c.Audit.Server, Database: "defaultdb"}})
		o.Comparisons = o.Comparisons || want
	}
	if a.attended && o.WalkRate > 0 {
		o.WalkRate = math.MaxInt32
	}
	engine, err := audit.New(ctx, o)
	if err != nil {
		return inServer(a.c, c, unknown(err))
	}
	json := a.c.Audit.JSON
	engine.OnReport(func(r evidence.Report) {
		if a.history != nil {
			a.history.Round(r)
		}
		if a.site != nil {
			a.site.ObserveRound(r)
			if json {
				a.out.print(r)
			}
		}
	})
	s.engine = engine
	return nil
}

func deepOf(c *config.Config, background bool) audit.Deep {
	d := audit.Deep{
		NewValues: c.Audit.VerifyValues, Export: c.Audit.VerifyExport,
		BytesPerSecond: c.VerifyBytesPerSecond(background),
		MemoryBytes:    int64(c.Audit.VerifyMemory) << 20, MessageBytes: int64(c.MaxRecvMsgSize),
	}
	d.Every, d.ScrubBytes = c.Scrub()
	return d
}

// channel says how the server is reached, for the evidence.
func channel(s *audited) evidence.Channel {
	if s.c.TLS || s.c.MTLS {
		return evidence.Channel{Transport: "tls", Certificate: s.client.CertificateSHA256()}
	}
	return evidence.Channel{Transport: "plaintext"}
}

// start runs the engine of a server until ctx ends or the server is taken out.
func (a *auditor) start(ctx context.Context, s *audited) {
	ctx, s.stop = context.WithCancel(ctx)
	s.stopped = make(chan struct{})
	a.engines.Go(func() {
		defer close(s.stopped)
		if err := s.engine.Run(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("auditing a server ended", "server", s.c.Audit.Server, "error", err)
		}
	})
}

// end stops a running engine, waits for it, and closes its client.
func (s *audited) end() error {
	s.stop()
	<-s.stopped
	return s.client.Close()
}

// rules are what the sinks want to be told of a server.
func (a *auditor) rules(server string) []audit.SinkRule {
	return rulesFor(a.c, a.sinks, server)
}

func rulesFor(c *config.Config, sinks []sinkEntry, server string) (rules []audit.SinkRule) {
	var tags []string
	for _, s := range c.Servers() {
		if s.Audit.Server == server {
			tags = s.Audit.Tags
		}
	}
	for _, s := range sinks {
		rules = append(rules, audit.SinkRule{Name: s.Name(), Wants: s.Rule(tags)})
	}
	return rules
}

// beats lets heartbeats know of each full round over all ledgers of a server.
func (a *auditor) beats(ctx context.Context, hearts []*alert.Heartbeat) error {
	if len(hearts) == 0 {
		return nil
	}
	since := map[string]time.Time{}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			for _, status := range a.fleet.statuses() {
				if since[status.Server].IsZero() { // what was before this start beats for nobody
					since[status.Server] = now
				}
				if !fullRound(&status, since[status.Server]) {
					continue
				}
				since[status.Server] = now
				for _, h := range hearts {
					h.Beat(status.Server)
				}
			}
		}
	}
}

// fullRound reports whether every ledger of a server had a round since then
// that came to a verdict.
func fullRound(s *audit.Status, since time.Time) bool {
	active := slices.DeleteFunc(slices.Clone(s.Ledgers), func(l audit.LedgerStatus) bool { return l.Paused || l.Retired })
	return len(active) > 0 && !slices.ContainsFunc(active, func(l audit.LedgerStatus) bool {
		return !l.LastAttempt.After(since) || l.Last.Verdict == evidence.Undetermined
	})
}

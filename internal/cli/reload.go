package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"immuaudit/internal/alert"
	"immuaudit/internal/config"
)

// lookEvery is how often the files of the configuration are looked at; what
// changed must look the same twice, or half a file would be read.
const lookEvery = 2 * time.Second

// The state may be busy for a moment when an engine is made from it.
const (
	armTries = 5
	armPause = time.Second
)

// reloads keeps how the newest reading of the configuration went.
type reloads struct {
	mu sync.Mutex
	at time.Time
	ok bool
}

func (r *reloads) note(ok bool) {
	r.mu.Lock()
	r.at, r.ok = time.Now(), ok
	r.mu.Unlock()
}

// last is when the configuration was last read, and whether it was taken over.
func (r *reloads) last() (at time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at, r.ok
}

// follow delivers notifications, and takes over the configuration whenever it
// changes or SIGHUP asks for it, until ctx ends.
func (a *auditor) follow(ctx context.Context) error {
	a.reloaded.note(true)
	// All the while, also while a change is taken over: by default the signal
	// ends the process.
	hangup := make(chan os.Signal, 1)
	if len(reloadSignals) > 0 { // none would mean all of them
		signal.Notify(hangup, reloadSignals...)
		defer signal.Stop(hangup)
	}
	seen := filesNow(a.c.Files())
	for ctx.Err() == nil {
		inner, renew := context.WithCancel(ctx)
		var group errgroup.Group
		d, err := a.dispatcher()
		if err != nil {
			renew()
			return err
		}
		group.Go(func() error { return d.Run(inner) })
		for _, h := range a.hearts {
			group.Go(func() error { return h.Run(inner, a.store) })
		}
		group.Go(func() error { return a.beats(inner, a.hearts) })
		next := a.awaitChange(ctx, hangup, seen)
		renew()
		if err := group.Wait(); err != nil {
			return err
		}
		if next != nil {
			seen = next.files
			if err := a.takeOver(ctx, next); err != nil {
				return err
			}
		}
	}
	return nil
}

// plan is a configuration that was found good, with everything made that can be
// made without talking to anybody.
type plan struct {
	c      *config.Config
	files  string      // as they were when they were read
	sinks  []sinkEntry // nil where they stay as they are
	hearts []*alert.Heartbeat
	fresh  []*audited // new servers, and those that are audited otherwise now
	keep   []*audited
}

// awaitChange waits for a configuration that is good and differs from the one
// in force. A bad one is refused, and said once. seen is what the files were
// when the one in force was read.
func (a *auditor) awaitChange(ctx context.Context, hangup <-chan os.Signal, seen string) *plan {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	pending := seen
	for {
		asked := false
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			asked = true
		case <-ticker.C:
			now := filesNow(a.c.Files())
			if now == seen {
				pending = now
				continue
			}
			if now != pending {
				pending = now
				continue
			}
		}
		if a.again == nil {
			continue
		}
		seen = filesNow(a.c.Files())
		pending = seen
		next, err := a.planned()
		switch {
		case err != nil:
			a.reloaded.note(false)
			for _, line := range strings.Split(err.Error(), "\n") {
				a.log.Error("the configuration is refused; the one before stays in force", "mistake", line)
			}
		case next == nil:
			a.reloaded.note(true)
			if asked {
				a.log.Info("the configuration was read again; nothing in it changed")
			}
		default:
			return next
		}
	}
}

// planned reads the configuration and prepares what differs; nil if nothing does.
func (a *auditor) planned() (*plan, error) {
	c, warnings, err := a.again()
	if err != nil {
		return nil, err
	}
	p := &plan{c: c, files: filesNow(c.Files())}
	if p.sinks, p.hearts, err = sinksOf(c); err != nil {
		return nil, err
	}
	sameSinks := a.c.SameSinks(c)
	var fresh []*config.Config
	for _, server := range c.Servers() {
		i := slices.IndexFunc(a.fleet.all(), func(s *audited) bool { return s.c.Audit.Server == server.Audit.Server })
		if i >= 0 && sameSinks && a.fleet.all()[i].c.SameServer(server) {
			p.keep = append(p.keep, a.fleet.all()[i])
		} else {
			fresh = append(fresh, server)
		}
	}
	for _, name := range a.c.Fixed(c) {
		a.log.Warn("a setting changed that only a restart can change; the old value stays in force", "setting", name)
	}
	if sameSinks {
		p.sinks = nil
	}
	if len(fresh) == 0 && len(p.keep) == len(a.fleet.all()) && sameSinks {
		return nil, nil
	}
	if p.fresh, err = a.prepare(fresh); err != nil {
		return nil, err
	}
	for _, w := range warnings {
		if !w.Quiet {
			a.log.Warn(w.Text)
		}
	}
	return p, nil
}

// takeOver puts a plan into force: servers that are gone stop, new ones start,
// and those that are audited otherwise do both. Nothing else is disturbed. What
// is asked for and cannot be audited is an error that ends the process: one that
// runs on would look as if it audited everything.
func (a *auditor) takeOver(ctx context.Context, p *plan) error {
	before := a.fleet.all()
	var ended sync.WaitGroup
	removed := 0
	for _, s := range before {
		if slices.Contains(p.keep, s) {
			continue
		}
		removed++
		ended.Go(func() {
			if err := s.end(); err != nil {
				a.log.Warn("closing the connection to a server", "server", s.c.Audit.Server, "error", err)
			}
		})
	}
	ended.Wait()
	a.c, a.hearts = p.c, p.hearts
	if p.sinks != nil { // then no engine runs that could look at them
		a.sinks = p.sinks
	}
	servers := slices.Clone(p.keep)
	for _, s := range p.fresh {
		servers = append(servers, s)
		for try := 1; ; try++ {
			err := a.arm(ctx, s)
			if err == nil {
				break
			}
			if ctx.Err() == nil && try == armTries {
				a.fleet.set(servers)
				return fmt.Errorf("taking over a new configuration: %w", err)
			}
			select {
			case <-ctx.Done():
				a.fleet.set(servers)
				return nil
			case <-time.After(armPause):
			}
		}
	}
	a.fleet.set(servers)
	for _, s := range before {
		if !slices.ContainsFunc(servers, func(o *audited) bool { return o.c.Audit.Server == s.c.Audit.Server }) {
			a.site.Forget(s.c.Audit.Server)
		}
	}
	for _, s := range servers {
		if !slices.Contains(p.keep, s) {
			a.start(ctx, s)
		}
	}
	a.reloaded.note(true)
	a.log.Info("the configuration was taken over", "servers", len(servers), "started", len(servers)-len(p.keep), "stopped", removed, "sinks", len(a.sinks)+len(a.hearts))
	return nil
}

// filesNow tells whether files changed, without reading them: a file that is
// put in the place of another has another time.
func filesNow(files []string) string {
	var b strings.Builder
	for _, name := range files {
		if info, err := os.Stat(name); err != nil {
			fmt.Fprintf(&b, "%s: %v\n", name, err)
		} else {
			fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

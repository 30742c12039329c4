package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"immuaudit/evidence"
	"immuaudit/internal/alert"
	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/history"
	"immuaudit/internal/page"
	"immuaudit/internal/service"
	"immuaudit/internal/store"
	"immuaudit/internal/web"
)

const (
	auditModeName = "audit-mode"
	webhookSink   = "webhook"
)

// lastDeliveries bounds how long --once waits for what it found to be told.
const lastDeliveries = 15 * time.Second

func newAuditMode(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   auditModeName,
		Short: "Audit the databases of a server, round after round",
		Long: `audit-mode makes rounds over all databases of a server, every --audit-interval:
each must still say what it said before. What was proven is remembered in the
state directory; metrics and health are on the monitoring port.`,
		Example: `  immuclient audit-mode -a db.example.org --audit-username auditor
  immuclient audit-mode --once --json`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, warnings, err := load(cmd, env, false)
			if err != nil {
				return err
			}
			if c.Audit.CheckConfig {
				return checkConfig(env, c, warnings)
			}
			again := func() (*config.Config, []config.Warning, error) { return load(cmd, env, false) }
			return service.Supervised(cmd.Context(), func(ctx context.Context) error { return runAudit(ctx, env, c, warnings, again) })
		},
	}
	config.Register(cmd.Flags(), config.Audit, config.Output, config.Rounds)
	cmd.AddCommand(newServiceVerbs(env)...)
	return cmd
}

// auditor is everything that one audit-mode process holds.
type auditor struct {
	env     *Env
	c       *config.Config
	log     *slog.Logger
	fleet   fleet
	store   *store.Store
	mirror  func(evidence.Name, bool) (audit.Mirror, error) // nil where none is kept
	history *history.History                                // nil where none is kept
	common  *audit.Common
	record  func(evidence.Material) (string, error)
	site    *web.Server
	pages   *page.Site
	sinks   []sinkEntry
	hearts  []*alert.Heartbeat
	engines sync.WaitGroup // that run
	alarms  sync.WaitGroup // under way, past the outbox
	// again reads the configuration anew; nil where it is read once.
	again    func() (*config.Config, []config.Warning, error)
	reloaded reloads
	// attended: somebody waits for it, so that it need not be gentle.
	attended bool
	out      *printer
}

func runAudit(ctx context.Context, env *Env, c *config.Config, warnings []config.Warning, again func() (*config.Config, []config.Warning, error)) error {
	return withAuditor(ctx, env, c, warnings, func(ctx context.Context, a *auditor) error {
		a.again = again
		if c.Audit.Once {
			if err := a.begin(ctx); err != nil {
				return err
			}
			return a.once(ctx)
		}
		if err := a.openSite(); err != nil {
			return err
		}
		if err := a.begin(ctx); err != nil {
			ended, end := context.WithCancel(ctx)
			end() // which closes what listens
			return errors.Join(err, a.site.Run(ended))
		}
		return a.run(ctx)
	})
}

// withAuditor does work with an auditor that has its state and its lock.
func withAuditor(ctx context.Context, env *Env, c *config.Config, warnings []config.Warning, work func(context.Context, *auditor) error) (err error) {
	log, closeLog, err := openLog(env, c)
	if err != nil {
		return err
	}
	defer closeLog()
	for _, w := range warnings {
		if w.Quiet {
			log.Debug(w.Text)
		} else {
			log.Warn(w.Text)
		}
	}
	a := &auditor{env: env, c: c, log: log, out: newPrinter(env, c.Audit.JSON)}
	// What can be wrong with the configuration is found before anything is
	// made or remembered.
	servers, err := a.prepare(c.Servers())
	if err != nil {
		return err
	}
	a.fleet.set(servers)
	defer closing(&err, a.fleet.close)
	if a.sinks, a.hearts, err = sinksOf(c); err != nil {
		return err
	}
	if a.store, err = openState(ctx, c, log, making); err != nil {
		return err
	}
	defer closing(&err, a.store.Close)
	release, err := a.store.Lock()
	if err != nil {
		return unknown(err)
	}
	defer release()
	// Not before the lock is held: the file may name the auditor that holds it.
	removePid, err := writePid(c.PidFile)
	if err != nil {
		return err
	}
	defer removePid()
	closeMirror, err := a.openMirror(ctx)
	if err != nil {
		return err
	}
	defer closing(&err, closeMirror)
	closeHistory, err := a.openHistory(ctx)
	if err != nil {
		return err
	}
	defer closing(&err, closeHistory)
	defer a.alarms.Wait()
	return work(ctx, a)
}

// begin makes the engines.
func (a *auditor) begin(ctx context.Context) (err error) {
	if a.record, err = recorder(a.store.Dir()); err != nil {
		return err
	}
	deep := deepOf(a.c, !a.attended)
	a.common = audit.NewCommon(&deep)
	if err := tellCreated(ctx, &audit.Decider{Memory: a.store, Sinks: a.rules}, a.store, a.c, a.log); err != nil {
		return err
	}
	for _, s := range a.fleet.all() {
		if err := a.arm(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// recorder puts evidence into the state directory, signed by the auditor's own
// key, which is made at the first start.
func recorder(dir string) (func(evidence.Material) (string, error), error) {
	key, err := evidence.LoadOrCreateKey(dir)
	if err != nil {
		return nil, unknown(err)
	}
	return func(m evidence.Material) (string, error) {
		return evidence.Record(filepath.Join(dir, "evidence"), m, key)
	}, nil
}

// alarm is the last way out for an alert whose incident could not be stored.
func (a *auditor) alarm(ev evidence.Event, cause error) {
	for _, sink := range a.sinks {
		if want, _ := sink.Rule(ev.Tags)(ev); !want {
			continue
		}
		a.alarms.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), lastDeliveries)
			defer cancel()
			if err := sink.Send(ctx, ev); err != nil {
				a.log.Error("sending an alarm that could not be stored", "sink", sink.Name(), "stored", cause, "error", err)
			}
		})
	}
}

// serversAtOnce are audited at a time with --once; each has its own bound for
// its ledgers.
const serversAtOnce = 16

// once makes one round over every server and tells its outcome.
func (a *auditor) once(ctx context.Context) error {
	servers := a.fleet.all()
	rounds := make([][]evidence.Report, len(servers))
	var group errgroup.Group
	group.SetLimit(serversAtOnce)
	for i, s := range servers {
		group.Go(func() error {
			rounds[i] = s.engine.Once(ctx)
			return nil
		})
	}
	_ = group.Wait() // none gives an error
	reports := slices.Concat(rounds...)
	for _, r := range reports {
		a.out.print(r)
	}
	if len(a.sinks) > 0 {
		a.deliverNow(ctx)
	}
	if len(reports) == 0 {
		a.log.Error("no database to audit: none matches --audit-databases", "given", a.c.Audit.Databases)
		return &exitError{code: exitUnknown}
	}
	if code := exitCode(reports); code != exitConsistent {
		return &exitError{code: code}
	}
	if err := a.out.failed(); err != nil { // a verdict that nobody can read is none
		return unknown(fmt.Errorf("printing the verdicts: %w", err))
	}
	return nil
}

// deliverNow sends what waits in the outbox, for as long as is decent.
func (a *auditor) deliverNow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastDeliveries)
	defer cancel()
	d, err := a.dispatcher()
	if err != nil {
		a.log.Error("delivering notifications", "error", err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		waiting := 0
		queues, err := a.store.Queues(ctx)
		for _, q := range queues {
			if slices.ContainsFunc(a.sinks, func(s sinkEntry) bool { return s.Name() == q.Sink }) {
				waiting += q.Waiting
			}
		}
		if err == nil && waiting == 0 || ctx.Err() != nil {
			cancel()
			<-done
			if waiting > 0 {
				a.log.Error("notifications could not be delivered; they stay queued for the next run", "waiting", waiting)
			}
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (a *auditor) dispatcher() (*alert.Dispatcher, error) {
	return alert.NewDispatcher(alert.DispatcherOptions{Outbox: a.store, Sinks: plainSinks(a.sinks), Wake: a.store.Wake(), Logger: a.log})
}

func plainSinks(entries []sinkEntry) []alert.Sink {
	sinks := make([]alert.Sink, len(entries))
	for i, s := range entries {
		sinks[i] = s.Sink
	}
	return sinks
}

// openSite listens for monitoring, so that a port that is taken or a web
// configuration that is wrong is found before anything is remembered.
func (a *auditor) openSite() (err error) {
	c := a.c
	if err := a.openPages(); err != nil {
		return err
	}
	a.site, err = web.New(web.Options{
		Addr:       net.JoinHostPort(c.Audit.MonitoringHost, strconv.Itoa(c.Audit.MonitoringPort)),
		ConfigFile: c.Audit.WebConfigFile, ProbeAddress: c.Audit.ProbeAddress,
		ProbeSocket: filepath.Join(a.store.Dir(), probeSocket),
		Statuses:    a.fleet.statuses,
		Traffic:     a.fleet.traffic,
		Queues:      a.queues,
		Immudb:      a.fleet.immudb,
		Reloads:     a.reloaded.last,
		Pages:       a.pages,
		Version:     version(), Logger: a.log,
	})
	if err != nil {
		return usage(err)
	}
	return nil
}

// run audits until ctx ends.
func (a *auditor) run(ctx context.Context) error {
	notifier, err := service.NewNotifier()
	if err != nil {
		return usage(err)
	}
	servers := a.fleet.all()
	attrs := []any{"state", a.store.Dir(), "monitoring", a.site.Addr().String(), "configuration", a.c.ConfigFile}
	if first := servers[0].c; len(servers) == 1 {
		attrs = append([]any{"server", first.Audit.Server, "address", first.Target(), "interval", first.Audit.Interval.String()}, attrs...)
	} else {
		attrs = append([]any{"servers", len(servers)}, attrs...)
	}
	a.log.Info("auditing", attrs...)
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		a.start(ctx, s)
	}
	group.Go(func() error { frugal(ctx, a.env); return nil })
	group.Go(func() error { return a.site.Run(ctx) })
	group.Go(func() error { return a.pages.Run(ctx) })
	if a.history != nil {
		group.Go(func() error { return a.history.Run(ctx) })
	}
	group.Go(func() error { return notifier.Run(ctx, liveliness(a.fleet.statuses, time.Now)) })
	group.Go(func() error { return a.follow(ctx) })
	err = group.Wait()
	a.engines.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return unknown(fmt.Errorf("auditing stopped: %w", err))
	}
	a.log.Info("stopped; what was proven is on disk")
	return nil
}

func (a *auditor) queues() []evidence.Queue {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	queues, err := a.store.Queues(ctx)
	if err != nil {
		a.log.Error("reading the outbox for the metrics", "error", err)
	}
	return queues
}

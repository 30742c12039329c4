package cli

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"immuaudit/evidence"
	"immuaudit/internal/alert"
	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/service"
	"immuaudit/internal/store"
	"immuaudit/internal/web"
	"immuaudit/internal/wire"
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
			return service.Supervised(cmd.Context(), func(ctx context.Context) error { return runAudit(ctx, env, c, warnings) })
		},
	}
	config.Register(cmd.Flags(), config.Audit, config.Output, config.Rounds)
	cmd.AddCommand(newServiceVerbs(env)...)
	return cmd
}

// auditor is everything that one audit-mode process holds.
type auditor struct {
	env    *Env
	c      *config.Config
	log    *slog.Logger
	server *wire.Client
	key    *ecdsa.PublicKey // configured, nil if none
	point  []byte           // key as an uncompressed point
	store  *store.Store
	mirror func(evidence.Name, bool) (audit.Mirror, error) // nil where none is kept
	engine *audit.Engine
	site   *web.Server
	sinks  []alert.Sink
	alarms sync.WaitGroup // under way, past the outbox
	// attended: somebody waits for it, so that it need not be gentle.
	attended bool
	out      *printer
}

func runAudit(ctx context.Context, env *Env, c *config.Config, warnings []config.Warning) error {
	return withAuditor(ctx, env, c, warnings, func(ctx context.Context, a *auditor) error {
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
	if a.server, err = connect(c, log); err != nil {
		return err
	}
	defer closing(&err, a.server.Close)
	if a.key, a.point, err = signingKey(c); err != nil {
		return err
	}
	if err := a.addSinks(); err != nil {
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
	defer a.alarms.Wait()
	return work(ctx, a)
}

func (a *auditor) addSinks() error {
	c := &a.c.Audit
	if c.NotificationURL == "" {
		return nil
	}
	hook, err := alert.NewWebhook(alert.WebhookOptions{
		Name: webhookSink, URL: c.NotificationURL, Username: c.NotificationUsername, Password: c.NotificationPassword,
		Version: version().Version,
	})
	if err != nil {
		return usage(err)
	}
	a.sinks = append(a.sinks, hook)
	return nil
}

// begin makes the engine.
func (a *auditor) begin(ctx context.Context) error {
	c := a.c
	filter := c.LedgerFilter()
	record, err := recorder(a.store.Dir())
	if err != nil {
		return err
	}
	o := audit.Options{
		Server: a.server, Memory: a.store, Name: c.Audit.Server, Address: c.Target(), Logger: a.log,
		Key: a.key, KeyPoint: a.point,
		List: filter.All() || len(filter.Named()) < len(filter.Exact()), Matches: filter.Match,
		Exact: filter.Named(), Fallback: filter.Exact(),
		Interval: c.Audit.Interval, WalkLimit: c.Audit.WalkLimit, WalkRate: c.Audit.WalkRate, StaleAfter: c.Audit.StaleAfter,
		Comparisons: c.Audit.NotificationOn == "always" && len(a.sinks) > 0,
		Alarm:       a.alarm,
		Mirror:      a.mirror,
		Record:      record, Version: version().Version, Channel: func() evidence.Channel { return a.channel() },
		ExpectGrowth: c.Audit.ExpectGrowth, ClockSkew: c.Audit.ClockSkew,
		Deep: audit.Deep{
			Source: a.server, NewValues: c.Audit.VerifyValues, Export: c.Audit.VerifyExport,
			BytesPerSecond: c.VerifyBytesPerSecond(!a.attended),
			MemoryBytes:    int64(c.Audit.VerifyMemory) << 20, MessageBytes: int64(c.MaxRecvMsgSize),
		},
	}
	o.Deep.Every, o.Deep.ScrubBytes = c.Scrub()
	if a.attended && o.WalkRate > 0 {
		o.WalkRate = math.MaxInt32
	}
	for _, s := range a.sinks {
		o.Sinks = append(o.Sinks, audit.SinkRule{Name: s.Name(), Wants: alert.Rules(c.Audit.NotificationOn, s.Name())})
	}
	if err := tellCreated(ctx, a.store, c, a.log); err != nil {
		return err
	}
	if a.engine, err = audit.New(ctx, o); err != nil {
		return unknown(err)
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

// channel says how the server is reached, for the evidence.
func (a *auditor) channel() evidence.Channel {
	if a.c.TLS || a.c.MTLS {
		return evidence.Channel{Transport: "tls", Certificate: a.server.CertificateSHA256()}
	}
	return evidence.Channel{Transport: "plaintext"}
}

// alarm is the last way out for an alert whose incident could not be stored.
func (a *auditor) alarm(ev evidence.Event, cause error) {
	for _, sink := range a.sinks {
		a.alarms.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), lastDeliveries)
			defer cancel()
			if err := sink.Send(ctx, ev); err != nil {
				a.log.Error("sending an alarm that could not be stored", "sink", sink.Name(), "stored", cause, "error", err)
			}
		})
	}
}

// once makes one round and tells its outcome.
func (a *auditor) once(ctx context.Context) error {
	reports := a.engine.Once(ctx)
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
			waiting += q.Waiting
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
	return alert.NewDispatcher(alert.DispatcherOptions{Outbox: a.store, Sinks: a.sinks, Wake: a.store.Wake(), Logger: a.log})
}

// openSite listens for monitoring, so that a port that is taken or a web
// configuration that is wrong is found before anything is remembered.
func (a *auditor) openSite() (err error) {
	c := a.c
	a.site, err = web.New(web.Options{
		Addr:       net.JoinHostPort(c.Audit.MonitoringHost, strconv.Itoa(c.Audit.MonitoringPort)),
		ConfigFile: c.Audit.WebConfigFile, ProbeAddress: c.Audit.ProbeAddress,
		ProbeSocket: filepath.Join(a.store.Dir(), probeSocket),
		Status:      func() audit.Status { return a.engine.Status() },
		Traffic:     func() web.Traffic { return traffic(a.server) },
		Queues:      a.queues,
		Immudb:      func(ctx context.Context) error { _, err := a.server.ServerVersion(ctx); return err },
		Version:     version(), Logger: a.log,
	})
	if err != nil {
		return usage(err)
	}
	return nil
}

// run audits until ctx ends.
func (a *auditor) run(ctx context.Context) error {
	c, site := a.c, a.site
	dispatcher, err := a.dispatcher()
	if err != nil {
		return unknown(err)
	}
	notifier, err := service.NewNotifier()
	if err != nil {
		return usage(err)
	}
	a.engine.OnReport(func(r evidence.Report) {
		site.ObserveRound(r)
		if c.Audit.JSON {
			a.out.print(r)
		}
	})
	a.log.Info("auditing", "server", c.Audit.Server, "address", c.Target(), "interval", c.Audit.Interval.String(),
		"state", a.store.Dir(), "monitoring", site.Addr().String(), "configuration", c.ConfigFile)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { frugal(ctx, a.env); return nil })
	group.Go(func() error { return a.engine.Run(ctx) })
	group.Go(func() error { return site.Run(ctx) })
	group.Go(func() error { return dispatcher.Run(ctx) })
	group.Go(func() error { return notifier.Run(ctx, liveliness(a.engine.Status, time.Now)) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
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

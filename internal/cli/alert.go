package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/alert"
	"immuaudit/internal/config"
	"immuaudit/internal/store"
)

const (
	// testPatience bounds how long a test waits for its answer.
	testPatience = 30 * time.Second
	testPoll     = 50 * time.Millisecond
	// overdue is how long a delivery may wait before that is a failure.
	overdue = time.Hour
)

func newAlert(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "alert", Short: "Try where alerts go, and show what became of them", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	addStateGuard(cmd)
	cmd.AddCommand(newAlertTest(env), newAlertStatus(env), newAlertDrop(env))
	return cmd
}

func newAlertTest(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test [SINK]",
		Short: "Send a test to every sink, or to one, and print its answer",
		Long: `test sends an alert that says of itself that it is a test to every configured
sink, or to the one that is named, past its filters. A running auditor sends it;
where none runs, this command does. Heartbeats are asked directly. What is not
accepted within 30 seconds is withdrawn.

Exit codes: 0 all accepted, 1 not all, 2 no such sink.`,
		Example: "  immuclient alert test\n  immuclient alert test pager",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, warnings, err := load(cmd, env, true)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			for _, w := range warnings {
				if !w.Quiet {
					log.Warn(w.Text)
				}
			}
			sinks, hearts, err := sinksOf(c)
			if err != nil {
				return err
			}
			if sinks, hearts, err = chosen(sinks, hearts, args); err != nil {
				return err
			}
			return testSinks(cmd.Context(), env, c, log, sinks, hearts, asJSON)
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print one line of JSON per sink")
	return cmd
}

// chosen keeps the sink that was named.
func chosen(sinks []sinkEntry, hearts []*alert.Heartbeat, args []string) ([]sinkEntry, []*alert.Heartbeat, error) {
	if len(sinks)+len(hearts) == 0 {
		return nil, nil, usagef("no sink is configured; set --audit-notification-url, or write a table [[sink]] into the configuration file")
	}
	if len(args) == 0 {
		return sinks, hearts, nil
	}
	var names []string
	for _, s := range sinks {
		if names = append(names, s.Name()); s.Name() == args[0] {
			return []sinkEntry{s}, nil, nil
		}
	}
	for _, h := range hearts {
		if names = append(names, h.Name()); h.Name() == args[0] {
			return nil, []*alert.Heartbeat{h}, nil
		}
	}
	return nil, nil, usagef("no sink is named %q; there are %s", args[0], strings.Join(names, ", "))
}

// tested is how one sink took its test.
type tested struct {
	Sink       string `json:"sink"`
	Type       string `json:"type"`
	Accepted   bool   `json:"accepted"`
	DurationMS int64  `json:"duration_ms"`
	Error      string `json:"error,omitempty"`
}

func testSinks(ctx context.Context, env *Env, c *config.Config, log *slog.Logger, sinks []sinkEntry, hearts []*alert.Heartbeat, asJSON bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, testPatience)
	defer cancel()
	s, err := openState(ctx, c, log, existing)
	switch {
	case errors.Is(err, store.ErrAbsent):
		s = nil // nothing was ever audited here: nothing is noted, and no auditor runs
	case err != nil:
		return err
	default:
		defer closing(&err, s.Close)
	}
	running := false
	if s != nil {
		release, err := s.Lock()
		switch {
		case err == nil:
			release()
		case errors.Is(err, store.ErrLocked):
			running = true
		default:
			return unknown(err)
		}
	}
	results := make([]tested, len(sinks)+len(hearts))
	var tests sync.WaitGroup
	for i, sink := range sinks {
		tests.Go(func() {
			e := alert.NewTest(c.Audit.Server, time.Now())
			results[i] = timed(sink.Name(), sink.Type, func() error {
				if running {
					return testByAuditor(ctx, s, sink.Name(), e)
				}
				return noted(ctx, s, sink.Name(), sink.Send(ctx, e))
			})
		})
	}
	for i, h := range hearts {
		tests.Go(func() {
			results[len(sinks)+i] = timed(h.Name(), "heartbeat", func() error { return noted(ctx, s, h.Name(), h.Try(ctx)) })
		})
	}
	tests.Wait()
	return printTests(env.Stdout, results, running, asJSON)
}

func timed(name, kind string, send func() error) tested {
	begun := time.Now()
	err := send()
	r := tested{Sink: name, Type: kind, Accepted: err == nil, DurationMS: time.Since(begun).Milliseconds()}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// noted keeps how a sink took what was sent past the outbox.
func noted(ctx context.Context, s *store.Store, sink string, sent error) error {
	if s == nil {
		return sent
	}
	text := ""
	if sent != nil {
		text = sent.Error()
	}
	if err := s.NoteSink(context.WithoutCancel(ctx), sink, text); err != nil {
		return errors.Join(sent, fmt.Errorf("noting how it went: %w", err))
	}
	return sent
}

// testByAuditor has the running auditor send a test, as it would an alert.
func testByAuditor(ctx context.Context, s *store.Store, sink string, e evidence.Event) error {
	err := s.Apply(ctx, evidence.Change{Deliveries: []evidence.Delivery{{Sink: sink, Event: e}}})
	if err != nil {
		return err
	}
	ticker := time.NewTicker(testPoll)
	defer ticker.Stop()
	for {
		waiting, err := s.Tests(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(waiting, func(p evidence.Pending) bool { return p.Sink == sink && p.Event.ID == e.ID })
		switch {
		case i < 0:
			return nil
		case waiting[i].Attempts > 0:
			return withdrawn(ctx, s, waiting[i].ID, errors.New(waiting[i].LastErr))
		case ctx.Err() != nil:
			return withdrawn(ctx, s, waiting[i].ID, errors.New("the running auditor did not send it in time; if the sink was configured after its start, restart it"))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// withdrawn takes a test back: it must not arrive a day later.
func withdrawn(ctx context.Context, s *store.Store, id int64, cause error) error {
	if err := s.Withdraw(context.WithoutCancel(ctx), id); err != nil {
		return errors.Join(cause, fmt.Errorf("withdrawing it: %w", err))
	}
	return cause
}

func printTests(out io.Writer, results []tested, running, asJSON bool) error {
	failed := false
	for _, r := range results {
		failed = failed || !r.Accepted
		var err error
		switch {
		case asJSON:
			err = writeJSON(out, r)
		case r.Accepted:
			_, err = fmt.Fprintf(out, "%s (%s): ok in %d ms%s\n", shown(r.Sink), r.Type, r.DurationMS, how(r.Type, running))
		default:
			_, err = fmt.Fprintf(out, "%s (%s): FAILED%s: %q\n", shown(r.Sink), r.Type, how(r.Type, running), r.Error)
		}
		if err != nil {
			return unknown(err)
		}
	}
	if failed {
		return &exitError{code: exitUnknown}
	}
	return nil
}

func how(kind string, running bool) string {
	switch {
	case kind == "heartbeat":
		return ", asked directly"
	case running:
		return ", by the running auditor"
	default:
		return ""
	}
}

// sinkStatus is a sink in the words of --json.
type sinkStatus struct {
	Sink        string     `json:"sink"`
	Type        string     `json:"type,omitempty"`
	Configured  bool       `json:"configured"`
	Waiting     int        `json:"waiting"`
	Oldest      *time.Time `json:"oldest,omitempty"`
	Sent        uint64     `json:"sent"`
	Failed      uint64     `json:"failed"`
	LastOK      *time.Time `json:"last_ok,omitempty"`
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
}

func newAlertStatus(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show what waits for each sink and what became of the rest; exit code 1 if something waits for an hour", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, env, reading, func(ctx context.Context, c *config.Config, s *store.Store) error {
				list, err := statusOf(ctx, c, s)
				if err != nil {
					return err
				}
				if err := printStatus(env.Stdout, list, asJSON); err != nil {
					return unknown(err)
				}
				for _, q := range list {
					if q.Oldest != nil && time.Since(*q.Oldest) > overdue {
						return &exitError{code: exitUnknown}
					}
				}
				return nil
			})
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print one line of JSON per sink")
	return cmd
}

// statusOf gives the configured sinks, and then those that only the state knows.
func statusOf(ctx context.Context, c *config.Config, s *store.Store) ([]sinkStatus, error) {
	sinks, err := rulesOf(c)
	if err != nil {
		return nil, err
	}
	queues, err := s.Queues(ctx)
	if err != nil {
		return nil, unknown(err)
	}
	var list []sinkStatus
	for _, sink := range sinks {
		list = append(list, sinkStatus{Sink: sink.Name(), Type: sink.Type, Configured: true})
	}
	for _, h := range c.Sinks {
		if h.Type == heartbeatSink {
			list = append(list, sinkStatus{Sink: h.Name, Type: h.Type, Configured: true})
		}
	}
	for _, q := range queues {
		i := slices.IndexFunc(list, func(known sinkStatus) bool { return known.Sink == q.Sink })
		if i < 0 {
			i = len(list)
			list = append(list, sinkStatus{Sink: q.Sink})
		}
		to := &list[i]
		to.Waiting, to.Oldest, to.Sent, to.Failed = q.Waiting, timeOrNil(q.Oldest), q.Sent, q.Failed
		to.LastOK, to.LastError, to.LastErrorAt = timeOrNil(q.LastOK), q.LastErr, timeOrNil(q.LastErrAt)
	}
	return list, nil
}

func printStatus(out io.Writer, list []sinkStatus, asJSON bool) error {
	if asJSON {
		for _, q := range list {
			if err := writeJSON(out, q); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "no sink is configured; see docs/alerts.md")
		return err
	}
	at := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return when(*t)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SINK\tTYPE\tWAITING\tOLDEST\tSENT\tFAILED\tLAST OK\tLAST ERROR")
	var gone []string
	for _, q := range list {
		kind, oldest, failure := q.Type, "-", "-"
		if !q.Configured {
			kind = "not configured"
			gone = append(gone, q.Sink)
		}
		if q.Oldest != nil {
			oldest = when(*q.Oldest)
		}
		if q.LastError != "" {
			failure = at(q.LastErrorAt) + " " + shown(q.LastError)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\n", shown(q.Sink), kind, q.Waiting, oldest, q.Sent, q.Failed, at(q.LastOK), failure)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, name := range gone {
		if _, err := fmt.Fprintf(out, "%s is not configured any more: configure it again to have delivered what waits for it, or type immuclient alert drop %s\n", shown(name), shown(name)); err != nil {
			return err
		}
	}
	return nil
}

func newAlertDrop(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "drop SINK", Short: "Forget a sink that is not configured any more, and all that waits for it", Args: exactly("SINK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, env, existing, func(ctx context.Context, c *config.Config, s *store.Store) error {
				list, err := statusOf(ctx, c, s)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(list, func(q sinkStatus) bool { return q.Sink == args[0] })
				switch {
				case i < 0:
					return usagef("nothing is known of a sink %q; type immuclient alert status to see which there are", args[0])
				case list[i].Configured:
					return usagef("sink %q is configured; take it out of the configuration first", args[0])
				}
				dropped, err := s.DropSink(ctx, args[0])
				if err != nil {
					return unknown(err)
				}
				_, err = fmt.Fprintf(env.Stdout, "dropped %d alerts that waited for %s\n", dropped, shown(args[0]))
				return err
			})
		},
	}
}

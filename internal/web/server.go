// Package web is the monitoring port of the auditor: metrics, health and
// version, and what Options.Pages adds.
//
// The paths and bodies are those of immuclient's audit-mode, so that dashboards
// and probes go on working:
//
//	/, /metrics   Prometheus text; / gives a browser a page instead
//	/initz        200 {"immudb":"OK"}, or 503 with the error while immudb cannot be reached
//	/livez        the same body; 503 only if the auditor itself hangs
//	/readyz       the same body; 503 only until the auditor audits
//	/version      {"component":"immuclient-auditor",…}
//	/debug/vars   memory statistics and counts; no command line
//
// livez and readyz speak of the auditor, and answer 200 {"immudb":"<error>"}
// while only immudb is away; they are also served, alone, in plaintext and
// without authentication, on a probe address and on a unix socket.
//
// Only GET and HEAD are answered; nothing here changes anything.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// VersionInfo says what runs.
type VersionInfo struct {
	Version, BuildTime, BuiltBy string
	Static, FIPS                bool
}

// Usage is what the calls about one ledger cost since the start.
type Usage struct {
	Calls, BytesIn, BytesOut uint64
}

// Traffic is what the connection to the server did since the start.
type Traffic struct {
	Logins        uint64
	CallsInFlight int
	PerLedger     map[string]Usage // by the name of the database
}

// Options is what a Server serves and where.
type Options struct {
	// Addr is the host:port of the monitoring port; port 0 takes a free one.
	Addr string
	// ConfigFile is a web configuration file of the Prometheus exporter
	// toolkit (TLS, basic authentication); empty: plaintext for everybody.
	ConfigFile string
	// ProbeAddress serves livez and readyz in plaintext without
	// authentication, ProbeSocket the same on a unix socket. Empty: not at all.
	ProbeAddress string
	ProbeSocket  string

	// Statuses gives one for each server. It is called once per request and
	// must not block.
	Statuses func() []audit.Status
	// Traffic and Queues may be nil.
	Traffic func() map[string]Traffic // by the operator's name of the server
	Queues  func() []evidence.Queue
	// Reloads says when the configuration was last read, and whether it was
	// taken over; nil: it is read once.
	Reloads func() (at time.Time, ok bool)
	// Pages serves what people see, and the API: / for browsers, and what is
	// below /ledger, /incident, /incidents and /api. nil: there are none.
	Pages http.Handler
	// Immudb asks the audited server whether it is there. It returns when its
	// context ends; it is called by at most one goroutine at a time.
	Immudb func(context.Context) error

	// LoopLimit is how long the scheduler may stand still before livez fails;
	// 0 means 30 s. It must be longer than what lies between two turns.
	LoopLimit time.Duration

	Version VersionInfo
	Logger  *slog.Logger // nil: no log
}

// Server is the monitoring port.
type Server struct {
	opts      Options
	started   time.Time
	pulse     *pulse
	metrics   *metrics
	endpoints []endpoint
}

type endpoint struct {
	purpose    string
	listener   net.Listener
	server     *http.Server
	configFile string
}

// New checks the configuration and listens, so that whatever is wrong is said
// before anything starts. Run must be called on what it returns.
func New(opts Options) (_ *Server, err error) {
	if opts.Statuses == nil || opts.Immudb == nil {
		return nil, errors.New("the monitoring port needs a status to show and a server to ask")
	}
	if opts.Traffic == nil {
		opts.Traffic = func() map[string]Traffic { return nil }
	}
	if opts.Queues == nil {
		opts.Queues = func() []evidence.Queue { return nil }
	}
	if opts.Reloads == nil {
		opts.Reloads = func() (time.Time, bool) { return time.Time{}, true }
	}
	if opts.LoopLimit <= 0 {
		opts.LoopLimit = defaultLoopLimit
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if err := toolkit.Validate(opts.ConfigFile); err != nil {
		return nil, fmt.Errorf("reading the web configuration file %s: %w; correct it or leave --web.config.file out", opts.ConfigFile, err)
	}
	s := &Server{opts: opts, started: time.Now()}
	defer func() {
		if err != nil {
			for _, e := range s.endpoints {
				_ = e.listener.Close()
			}
		}
	}()
	if s.metrics, err = newMetrics(opts); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	s.pulse = newPulse(opts.Immudb)
	return s, nil
}

func (s *Server) listen() error {
	l, err := net.Listen("tcp", s.opts.Addr)
	if err != nil {
		return fmt.Errorf("listening for monitoring on %s: %w; choose another --audit-monitoring-host or --audit-monitoring-port", s.opts.Addr, err)
	}
	s.add("monitoring", newCapped(l, maxConnections), s.routes(), s.opts.ConfigFile)

	if s.opts.ProbeAddress != "" {
		l, err := net.Listen("tcp", s.opts.ProbeAddress)
		if err != nil {
			return fmt.Errorf("listening for probes on %s: %w; choose another --audit-probe-address", s.opts.ProbeAddress, err)
		}
		s.add("probes", newCapped(l, maxProbeConnections), s.probeRoutes(), "")
	}
	if s.opts.ProbeSocket != "" {
		l, err := listenSocket(s.opts.ProbeSocket)
		switch {
		case errors.Is(err, errSocketPathTooLong):
			// The path follows from the state directory, which may be deep for
			// good reasons; nobody asked for the socket by name.
			s.opts.Logger.Warn("no probe socket: its path is too long for a unix socket; use --audit-probe-address, or a state directory with a shorter path",
				"path", s.opts.ProbeSocket, "limit", maxSocketPath)
		case err != nil:
			return fmt.Errorf("listening for probes on the socket: %w", err)
		default:
			s.add("probes", newCapped(l, maxProbeConnections), s.probeRoutes(), "")
		}
	}
	return nil
}

func (s *Server) add(purpose string, l net.Listener, h http.Handler, configFile string) {
	s.endpoints = append(s.endpoints, endpoint{
		purpose:    purpose,
		listener:   l,
		configFile: configFile,
		server: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: readHeaderTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			// What it has to say is about what visitors send: not worth more.
			ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
		},
	})
}

// Addr is where the monitoring port listens.
func (s *Server) Addr() net.Addr { return s.endpoints[0].listener.Addr() }

// ProbeAddr is where the probe address listens, nil if there is none.
func (s *Server) ProbeAddr() net.Addr {
	if s.opts.ProbeAddress == "" {
		return nil
	}
	return s.endpoints[1].listener.Addr()
}

// Run serves until ctx ends, then lets the answers under way finish for at most
// three seconds. It returns nil if it was ended by ctx.
func (s *Server) Run(ctx context.Context) error {
	defer s.pulse.close()
	group, groupCtx := errgroup.WithContext(ctx)
	for _, e := range s.endpoints {
		group.Go(func() error { return e.serve(s.opts.Logger) })
	}
	group.Go(func() error {
		<-groupCtx.Done()
		s.shutdown()
		return nil
	})
	return group.Wait()
}

func (e endpoint) serve(log *slog.Logger) error {
	var err error
	if e.configFile != "" {
		err = toolkit.Serve(e.listener, e.server, &toolkit.FlagConfig{WebConfigFile: &e.configFile}, log)
	} else {
		log.Info("listening in plaintext", "for", e.purpose, "address", e.listener.Addr().String())
		err = e.server.Serve(e.listener)
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serving %s on %s: %w", e.purpose, e.listener.Addr(), err)
}

func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	var group errgroup.Group
	for _, e := range s.endpoints {
		group.Go(func() error {
			if err := e.server.Shutdown(ctx); err != nil {
				_ = e.server.Close()
			}
			// A server that was never started knows nothing of its listener.
			_ = e.listener.Close()
			return nil
		})
	}
	_ = group.Wait()
}

// ObserveRound counts a finished round in the histogram of durations.
func (s *Server) ObserveRound(r evidence.Report) { s.metrics.observe(r) }

// Forget takes an audited server that is gone out of that histogram.
func (s *Server) Forget(server string) { s.metrics.rounds.DeleteLabelValues(label(server)) }

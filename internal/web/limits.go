package web

import "time"

// Whoever reaches the port may be hostile: what one visitor can cost is
// bounded here, and nowhere else.
const (
	// maxConnections and maxProbeConnections are how many connections are
	// served at once; further ones wait in the system's queue. The probes have
	// their own so that a crowd at the monitoring port cannot make an
	// orchestrator believe that the auditor died.
	maxConnections      = 256
	maxProbeConnections = 32
	maxHeaderBytes      = 16 << 10
	readHeaderTimeout   = 5 * time.Second
	readTimeout         = 10 * time.Second
	writeTimeout        = 30 * time.Second
	idleTimeout         = 30 * time.Second
	// maxScrapes is how many scrapes are put together at once; one above it is
	// answered with 503.
	maxScrapes = 8

	// shutdownGrace is how long answers under way may take when stopping.
	shutdownGrace = 3 * time.Second

	// defaultLoopLimit is how long the scheduler may stand still before livez
	// says that the auditor hangs.
	defaultLoopLimit = 30 * time.Second

	// immudb is asked for its health at most once in immudbFresh, for at most
	// immudbTimeout. livez and readyz do not depend on the answer, so they wait
	// only probePatience for it: Kubernetes gives a probe one second.
	immudbFresh   = time.Second
	immudbTimeout = 2 * time.Second
	probePatience = 300 * time.Millisecond
	maxErrorText  = 256
	maxLabel      = 128

	// maxSeries bounds the series about ledgers. A server may name up to 20,000
	// databases; a monitoring system would not thank us for 25 series of each.
	maxSeries = 30_000
)

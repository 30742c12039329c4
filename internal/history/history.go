// Package history keeps what the rounds came to over time, for plots and
// reports, and when the auditor itself was running. It informs; nothing is
// ever trusted because of it, and auditing goes on without it.
//
// It is one SQLite file, history.db, in the state directory. It does not hold
// rounds but stretches: rounds of one ledger that followed each other and came
// to the same verdict. A stretch ends
//
//   - when verdict, kind or reason change,
//   - when no round came for longer than thrice the usual distance (and
//     Options.Gap), after which the next one is Torn,
//   - at every fifth minute (UTC).
//
// What is older is kept in less detail: neighbours of one verdict with no gap
// between them become one stretch an hour after 3 hours, one a day after 8
// days, and are dropped after 800. A change of verdict and a gap stay as exact
// as they were.
//
// A file that is damaged or of something else is set aside and begun anew, and
// Problem says so.
package history

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// Bounds.
const (
	maxLedgers = 20_000
	maxName    = 256    // bytes of one part of a name; rounds over longer ones are not kept
	maxPending = 50_000 // stretches that wait to be written
	maxPieces  = 20     // stretches of one ledger in five minutes, before they are Broken
	maxMerged  = 48     // stretches of one ledger in an hour or a day
	maxRuns    = 100_000
	maxVersion = 128 // bytes of the auditor's version
)

// How long is what.
const (
	slice       = 5 * time.Minute
	hour        = time.Hour
	day         = 24 * time.Hour
	hourlyAfter = 3 * hour
	dailyAfter  = 8 * day
	dropAfter   = 800 * day
	flushEvery  = time.Minute
	tidyEvery   = time.Hour
	lastTidy    = 2 * time.Second
	defaultGap  = time.Minute
)

// Options say how to open a history.
type Options struct {
	// ReadOnly is for other processes than the auditor, also while it runs.
	// Where there is no history the error is fs.ErrNotExist.
	ReadOnly bool
	// Gap is how long no round may have come before that is a gap, however
	// short the usual distance is; 0: a minute.
	Gap time.Duration
	// Version of the auditor, for the table of its runs.
	Version string
	Logger  *slog.Logger // nil: slog.Default
}

// Stretch is a row of rounds over one ledger that came to one verdict.
type Stretch struct {
	Name    evidence.Name
	Verdict evidence.Verdict
	Kind    evidence.Kind
	Reason  evidence.Reason
	// From and To are the times of the first and the last round (UTC, to the
	// microsecond); equal where there was one only. Where the next stretch is
	// not Torn, this one lasts until it begins.
	From, To time.Time
	// Torn: a gap lies before, or nothing is known of what was before.
	Torn bool
	// Broken: verdicts changed too often to keep each change. Verdict, Kind
	// and Reason are those of the worst of the rounds.
	Broken bool
	// Rounds counts all rounds, Sound those that were consistent.
	Rounds, Sound uint64
	// FirstTx and LastTx are the trusted transactions after the first and the
	// last round, 0 where nothing was trusted; LastAlh belongs to LastTx.
	FirstTx, LastTx uint64
	LastAlh         proof.Hash
	// Verified is how far deep verification had come at the last round.
	Verified uint64
	// Took is how long all rounds took together, Slowest the longest of them.
	Took, Slowest time.Duration
	// Longest is the longest distance between two rounds, the one from the
	// round before From included unless Torn; to the millisecond.
	Longest time.Duration
}

// Run is one process of the auditor.
type Run struct {
	Started time.Time
	Alive   time.Time // at most a minute before it ended
	Ended   bool      // in good order, at Alive
	Version string
}

// History is an open history. All methods may be called concurrently, and on
// nil, which keeps and knows nothing: where Open failed, auditing goes on.
type History struct {
	path     string
	readOnly bool
	gap      time.Duration
	version  string
	log      *slog.Logger
	problem  error

	// writing is held by whoever writes; reader and writer change only when a
	// damaged file is replaced.
	writing sync.Mutex
	dbMu    sync.RWMutex
	reader  *sql.DB
	writer  *sql.DB
	run     int64     // our row among the runs
	tidied  time.Time // last

	mu       sync.Mutex
	index    map[evidence.Name]int32 // into tracks
	tracks   []*track
	words    []string // kinds and reasons that were met, by code
	codes    map[string]uint8
	pending  []finished
	flushing []finished // on the way to the disk, still to be found by Of
	lost     uint64     // stretches and ledgers that were too many

	closing sync.Once
	failed  error
}

// Open opens the history in a state directory, and makes one where there is none.
func Open(ctx context.Context, dir string, o Options) (*History, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Gap <= 0 {
		o.Gap = defaultGap
	}
	h := &History{
		path: fileIn(dir), readOnly: o.ReadOnly, gap: o.Gap, version: clean(o.Version, maxVersion), log: o.Logger,
		index: map[evidence.Name]int32{}, words: []string{""}, codes: map[string]uint8{"": 0},
	}
	var err error
	if o.ReadOnly {
		err = h.openExisting(ctx)
	} else {
		err = h.openOrBegin(ctx, time.Now())
	}
	if err != nil {
		return nil, errors.Join(explain(h.path, err), h.closeFiles())
	}
	return h, nil
}

// Problem says that the file that was here could not be used, what was done
// with it, and nil where all is well. It changes only in Open and Run.
func (h *History) Problem() error {
	if h == nil {
		return nil
	}
	h.dbMu.RLock()
	defer h.dbMu.RUnlock()
	return h.problem
}

// Run writes once a minute what the rounds came to, until ctx ends. What
// goes wrong is logged: it must not end an audit.
func (h *History) Run(ctx context.Context) error {
	if h == nil {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil // Close writes the rest
		case <-ticker.C:
		}
		err := h.write(ctx, time.Now(), false)
		switch {
		case err == nil:
			said = ""
		case ctx.Err() != nil:
		case err.Error() != said: // the same trouble once
			said = err.Error()
			h.log.Error("writing the history; auditing goes on", "error", err)
		}
	}
}

// Close writes what is left and closes the file. Rounds that come later are
// forgotten.
func (h *History) Close() error {
	if h == nil {
		return nil
	}
	h.closing.Do(func() {
		var err error
		if !h.readOnly {
			ctx, cancel := context.WithTimeout(context.Background(), busyTimeout)
			defer cancel()
			err = h.write(ctx, time.Now(), true)
		}
		h.failed = errors.Join(err, h.closeFiles())
	})
	return h.failed
}

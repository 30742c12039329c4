package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"immuaudit/evidence"
)

// Run makes rounds over all ledgers, every interval, until ctx ends; then it
// waits for what is in flight and stores what is only informative.
func (e *Engine) Run(ctx context.Context) error {
	ticker := time.NewTicker(e.o.Interval)
	defer ticker.Stop()
	summary := time.NewTicker(summaryEvery)
	defer summary.Stop()
	// However long the interval, decisions are noticed and the loop shows that
	// it is alive.
	pulse := time.NewTicker(pulseEvery)
	defer pulse.Stop()
	defer e.farewell(context.WithoutCancel(ctx))
	e.tick(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			e.tick(ctx)
		case <-pulse.C:
			e.turn(ctx)
			e.catchUp(ctx)
			e.keepMirrors(ctx)
			e.keepVerifying(ctx)
			e.keepTelling(ctx)
		case <-summary.C:
			e.summarise()
		}
	}
}

// turn looks after everything but rounds. It never waits for a server.
func (e *Engine) turn(ctx context.Context) {
	now := time.Now()
	e.mu.Lock()
	e.loopAt = now
	look := now.Sub(e.checkedGen) >= generationEvery
	if look {
		e.checkedGen = now
	}
	generation, rests := e.generation, now.Before(e.reloadNext)
	list := e.o.List && !e.listing && !now.Before(e.listNext)
	if list {
		e.listing = true
	}
	if !e.firstPass {
		e.firstPass = e.passed()
	}
	// A server that was never reached, now or earlier, has no ledger that could grow stale.
	mute := len(e.ledgers) == 0 && e.o.List && e.listed.IsZero() && e.o.StaleAfter > 0 && now.Sub(e.started) >= e.o.StaleAfter
	stale, recovered := mute && !e.mute, e.mute && (len(e.ledgers) > 0 || !e.listed.IsZero())
	e.mute = (e.mute || mute) && !recovered
	if mute && e.serverErr == "" { // the first call is still waited for
		e.serverErr = "no answer yet"
	}
	detail := e.serverErr
	e.mu.Unlock()
	if stale {
		e.note(ctx, evidence.Name{Server: e.o.Name}, evidence.Undetermined, evidence.EventStale, "", "the server's databases could not be listed since the auditor was started: "+detail)
	} else if recovered {
		e.note(ctx, evidence.Name{Server: e.o.Name}, evidence.Undetermined, evidence.EventRecovered, "", "the server's databases are listed again")
	}

	if look {
		if gen, err := e.o.Memory.Generation(ctx); err != nil {
			e.log.Error("looking for decisions of other processes", "error", err)
		} else if !rests && (gen != generation || e.outdated.Swap(false)) {
			if err := e.reload(ctx); err != nil && ctx.Err() == nil {
				e.log.Error("reading the state again after a decision", "error", err)
				e.outdated.Store(true)
				e.mu.Lock()
				e.reloadNext = now.Add(reloadRetry)
				e.mu.Unlock()
			}
		}
	}
	if list {
		e.work.Add(1)
		go func() {
			defer e.work.Done()
			if e.list(ctx) == nil { // an error is kept for Status, and logged
				e.catchUp(ctx)
			}
		}()
	}
}

// tick starts a round of every ledger; one whose round is still in flight
// misses its turn.
func (e *Engine) tick(ctx context.Context) {
	e.turn(ctx)
	for _, l := range e.all() {
		if !l.idle() && !e.begin(ctx, l) {
			e.dropped.Add(1)
		}
	}
}

// catchUp starts rounds that should not wait for the next tick, which may be a
// week away: of ledgers that were just found, and of those about which the
// last round could not tell.
func (e *Engine) catchUp(ctx context.Context) {
	for _, l := range e.all() {
		if !l.idle() && l.urgent() {
			e.begin(ctx, l)
		}
	}
}

func (l *ledger) urgent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.Time.IsZero() || l.last.Verdict == evidence.Undetermined && time.Since(l.last.Time) >= retryEvery
}

// begin starts a round unless one is in flight.
func (e *Engine) begin(ctx context.Context, l *ledger) bool {
	if !l.busy.CompareAndSwap(false, true) {
		return false
	}
	e.work.Add(1)
	e.laneOf(l).do(func() {
		defer e.work.Done()
		defer l.busy.Store(false)
		e.audit(ctx, l)
	})
	return true
}

// laneOf gives the lane for a round: ledgers whose last round timed out have
// one of their own, so that they delay no other.
func (e *Engine) laneOf(l *ledger) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slow {
		return e.slow
	}
	return e.brisk
}

// passed reports whether every ledger had its first round. e.mu is held.
func (e *Engine) passed() bool {
	for _, l := range e.ledgers {
		l.mu.Lock()
		waiting := !l.paused && !l.trust.Retired && l.last.Time.IsZero()
		l.mu.Unlock()
		if waiting {
			return false
		}
	}
	return !e.o.List || !e.listed.IsZero() || e.serverErr != ""
}

// audit makes one round.
func (e *Engine) audit(ctx context.Context, l *ledger) (evidence.Report, bool) {
	if ctx.Err() != nil {
		return evidence.Report{}, false
	}
	e.inFlight.Add(1)
	defer e.inFlight.Add(-1)
	l.roundSince(time.Now())
	defer l.roundSince(time.Time{})
	r := e.round(ctx, l)
	if r.Reason == evidence.Interrupted && ctx.Err() != nil && !e.once {
		return r, false
	}
	e.rounds.Add(1)
	if e.tellAll != nil {
		e.tellAll(r)
	}
	return r, true
}

func (l *ledger) roundSince(at time.Time) {
	l.mu.Lock()
	l.roundAt = at
	l.mu.Unlock()
}

// list asks the server for its databases. The list only ever adds.
func (e *Engine) list(ctx context.Context) error {
	names, err := e.o.Server.Databases(ctx)
	refused := false
	if err != nil {
		if d := doubtOf(err); !isLogin(err) && (d.reason == evidence.Unauthorised || d.reason == evidence.Refused) {
			refused = true
			names, err = e.fallback(ctx, d)
		}
	}
	now := time.Now()
	next := now.Add(listEvery)
	if err != nil {
		next = now.Add(listRetry)
	}
	for _, name := range names {
		if (refused || e.o.Matches(name)) && e.ledger(name) == nil {
			e.log.Error("too many databases on this server", "limit", maxLedgers, "left_out", name)
			break
		}
	}
	if err == nil && !refused {
		e.unlist(names)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listing, e.listNext = false, next
	before := e.serverErr
	e.serverErr = ""
	if err != nil {
		e.serverErr = err.Error()
		if before == "" && ctx.Err() == nil {
			e.log.Warn("listing the databases", "error", err)
		}
		return err
	}
	e.listed = now
	return nil
}

// unlist drops what was listed once, never trusted, and is listed no more.
// What was ever trusted stays, listed or not.
func (e *Engine) unlist(names []string) {
	listed := make(map[string]bool, len(names))
	for _, name := range names {
		listed[name] = true
	}
	for _, l := range e.all() {
		if listed[l.name.Database] || slices.Contains(e.o.Exact, l.name.Database) || !l.writing.TryLock() {
			continue // where something is being stored there will be a record
		}
		l.mu.Lock()
		unknown := l.trust.Version == 0 && len(l.open) == 0
		l.mu.Unlock()
		if unknown {
			e.drop(l)
		}
		l.writing.Unlock()
	}
}

// fallback names what is audited where the list is refused: the names given,
// taken as exact, else the login's default database.
func (e *Engine) fallback(ctx context.Context, refusal *doubt) ([]string, error) {
	if len(e.o.Fallback) > 0 {
		return e.o.Fallback, nil
	}
	name, err := e.o.Server.DefaultDatabase(ctx)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	warned := e.warnedList
	e.warnedList = true
	e.mu.Unlock()
	if !warned {
		e.log.Warn("the server refuses to list its databases; auditing the login's default database only. Name the others with --audit-databases", "database", name, "refusal", refusal.detail)
	}
	return []string{name}, nil
}

// Round makes one round over one ledger, known or new.
func (e *Engine) Round(ctx context.Context, database string) evidence.Report {
	l := e.ledger(database)
	if l == nil {
		return evidence.Report{Time: time.Now(), Server: e.o.Name, Database: database, Reason: evidence.StateProblem, Detail: errTooMany.Error()}
	}
	r, _ := e.audit(ctx, l)
	return r
}

// Once makes one round over every ledger and gives the reports by name.
func (e *Engine) Once(ctx context.Context) []evidence.Report {
	e.once = true
	var reports []evidence.Report
	if e.o.List {
		if err := e.list(ctx); err != nil && ctx.Err() == nil {
			d := doubtOf(err)
			reports = append(reports, evidence.Report{
				Time: time.Now(), Server: e.o.Name, ServerUUID: e.o.Server.UUID(), Verdict: evidence.Undetermined,
				Reason: d.reason, Detail: "listing the databases: " + d.detail,
			})
		}
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, l := range e.all() {
		if l.idle() {
			continue
		}
		wait.Add(1)
		e.brisk.do(func() {
			defer wait.Done()
			if r, ok := e.audit(ctx, l); ok {
				mu.Lock()
				reports = append(reports, r)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	e.remind(ctx, time.Now())
	e.farewell(context.WithoutCancel(ctx))
	slices.SortFunc(reports, func(a, b evidence.Report) int { return cmp.Compare(a.Database, b.Database) })
	return reports
}

// farewell waits for what is in flight and stores when each ledger last
// agreed, which is written seldom otherwise.
func (e *Engine) farewell(ctx context.Context) {
	e.work.Wait()
	ctx, cancel := context.WithTimeout(ctx, alarmWithin)
	defer cancel()
	e.tellGathered(ctx, time.Now(), true)
	for _, l := range e.all() { // what has grown is told now or never
		l.mu.Lock()
		l.grownTold = time.Time{}
		l.mu.Unlock()
	}
	e.remind(ctx, time.Now())
	mirroring, enough := context.WithTimeout(ctx, lastMirrors)
	defer enough()
	var wait sync.WaitGroup
	for _, l := range e.all() {
		if l.past.waits() {
			wait.Add(1)
			e.mirrors.do(func() {
				defer wait.Done()
				if mirroring.Err() == nil { // what is lost is fetched again
					e.mirror(ctx, l)
				}
			})
		}
		l.writing.Lock()
		e.retell(ctx, l, time.Now())
		l.writing.Unlock()
		l.mu.Lock()
		t := l.trust
		news := t.Version > 0 && l.lastAttempt.After(l.savedAt)
		t.LastAttempt = l.lastAttempt
		var open []evidence.Incident
		for _, inc := range l.open {
			if inc.Version > 0 {
				open = append(open, inc)
			}
		}
		l.mu.Unlock()
		if !news {
			continue
		}
		wait.Go(func() {
			l.writing.Lock()
			defer l.writing.Unlock()
			err := e.o.Memory.Apply(ctx, evidence.Change{Trust: &t, Incidents: open})
			if err != nil && !conflicts(err) {
				e.log.Error("storing when the ledger was last audited", "database", l.name.Database, "error", err)
			}
		})
	}
	wait.Wait()
}

func (e *Engine) summarise() {
	counts := map[evidence.Verdict]int{}
	paused := 0
	s := e.Status()
	for _, l := range s.Ledgers {
		if l.Paused || l.Retired {
			paused++
			continue
		}
		counts[l.Last.Verdict]++
	}
	e.log.Info(fmt.Sprintf("auditing %d ledgers", len(s.Ledgers)-paused), "consistent", counts[evidence.Consistent],
		"tampered", counts[evidence.Tampered], "undetermined", counts[evidence.Undetermined], "paused", paused, "rounds", s.Rounds,
		"lines_left_out", e.silenced.Swap(0))
}

func sortLedgers(l []LedgerStatus) {
	slices.SortFunc(l, func(a, b LedgerStatus) int { return cmp.Compare(a.Name.Database, b.Name.Database) })
}

package cli_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/attack"
)

const (
	attacked = "orders" // the database

	// Ways to audit: --audit-walk-limit.
	byWalk  = 10_000
	byProof = 0

	// attackPatience bounds every wait. The longest is for a call of 10 s that
	// is never answered, several times over, on a machine under load.
	attackPatience = 2 * time.Minute
	// attacksAtOnce is more than there are processors: most of an attack is
	// waiting for the next round, and for the disk.
	attacksAtOnce = 12
)

// trial is one scenario of the attack kit, played to an auditor that is started
// by the command line and watched from outside as its users do.
type trial struct {
	attack.Scenario
	limit   int // --audit-walk-limit
	version int // of the headers
	run     program
	own     bool // it is a process of its own, whose memory can be measured
}

func (c *trial) String() string { return fmt.Sprintf("%s/%d/v%d", c.Name, c.limit, c.version) }

// TestAttackKit plays every scenario of the kit to the whole auditor: by walks
// and by dual proofs, each way and each version of headers once, CVE-2022-36111
// all ways.
//
// An honest second server would be an auditor of its own, with which the
// attacked one shares nothing: one process audits one server.
func TestAttackKit(t *testing.T) {
	t.Parallel()
	var all []*trial
	for _, s := range attack.All() {
		for _, limit := range []int{byWalk, byProof} {
			for version := range 2 {
				if limit == byWalk == (version == 1) || s.Row == "A15" {
					all = append(all, &trial{Scenario: s, limit: limit, version: version, run: inProcess})
				}
			}
		}
	}
	playAll(t, all)
}

// playAll plays all that wait for long, and so many of the others, at once. Not
// by t.Parallel, which counts those that only wait.
func playAll(t *testing.T, all []*trial) {
	var wait sync.WaitGroup
	next := make(chan *trial, len(all))
	for _, c := range all {
		if c.takesLong() {
			wait.Go(func() { t.Run(c.String(), c.play) })
		} else {
			next <- c
		}
	}
	close(next)
	for range attacksAtOnce {
		wait.Go(func() {
			for c := range next {
				t.Run(c.String(), c.play)
			}
		})
	}
	wait.Wait()
}

// takesLong: a call that is never answered ends after ten seconds, and for as
// long it is not believed that a database is gone.
func (c *trial) takesLong() bool {
	return c.Expect.Reason == "timeout" || c.Expect.Kind == "vanished"
}

// claim is what an auditor says of the attacked database.
type claim struct {
	verdict evidence.Verdict
	kind    evidence.Kind
	reason  evidence.Reason
	check   string
	// behind: rounds see nothing; what goes on behind them does, the walk over
	// what was proven or the verification of contents.
	behind bool
}

// right is what this auditor, looking in this way, has to say.
func (c *trial) right() claim {
	e := c.Expect
	out := claim{kind: evidence.Kind(e.Kind), reason: evidence.Reason(e.Reason), check: e.Check}
	switch e.Verdict {
	case "consistent":
		return claim{verdict: evidence.Consistent}
	case "tampered":
		out.verdict = evidence.Tampered
	}
	switch {
	case c.Name == "value-new":
		out.behind = true // what was just committed is looked into right afterwards
	case e.Deep, e.Export, e.DualOnly && c.limit == byWalk:
		// What is old is looked into again within a week, or by verify.
		return claim{verdict: evidence.Consistent}
	case e.WalkOnly && c.limit == byProof && out.verdict == evidence.Undetermined:
		// A walk that meets trouble rests, and the rounds go on without it.
		return claim{verdict: evidence.Consistent}
	case e.WalkOnly && c.limit == byProof:
		out.behind = true
	case c.limit == byProof && evidence.Kind(e.DualKind) == evidence.Rollback:
		// Whoever proves alone cannot tell a fork from a rollback where the
		// rest is shorter. The walk behind the rounds remembers.
	case c.limit == byProof && e.DualKind != "":
		out.kind, out.check = evidence.Kind(e.DualKind), e.DualCheck
	}
	return out
}

// company is what an attack on one database means for the others.
type company int

const (
	apart company = iota // nothing
	// sameConnection: one connection carries the calls about all databases, so
	// that all wait when it is cut, or carries a byte at a time.
	sameConnection
	// sameKey: a server signs the states of all its databases by one key.
	sameKey
)

func (c *trial) company() company {
	switch c.Name {
	case "dribble", "cut-state", "cut-headers":
		return sameConnection
	case "unsigned", "other-key", "other-key-disguised", "signing-stops", "key-changes":
		return sameKey
	}
	return apart
}

// alert is what an auditor tells about what is no verdict: the event, and what
// it is about. A split view of two auditors needs two that compare: no event.
func (c *trial) alert() (kind evidence.EventType, database string) {
	switch c.Row {
	case "A4":
		return evidence.EventIdentityChanged, ""
	case "A21":
		return evidence.EventNotGrowing, attacked
	case "A24":
		return evidence.EventClockSkew, attacked
	}
	return "", ""
}

func (c *trial) play(t *testing.T) {
	dir := t.TempDir()
	server := newLiar(t, dir, c)
	pager := newPager(t, dir)
	interval := "20ms"
	if c.takesLong() {
		interval = "100ms" // it would be time spent on honest rounds
	}
	args := []string{
		"audit-mode", "--json", "-a", server.Ledger.Addr(), "--audit-server", "tested", "--audit-interval", interval,
		"--audit-walk-limit", strconv.Itoa(c.limit), "--audit-notification-url", pager.URL,
	}
	if c.Pinned {
		args = append(args, "--server-signing-pub-key", server.keyFile)
	}
	if c.Row == "A21" {
		args = append(args, "--audit-expect-growth", "1s")
	}
	w := watching(t, c.run, dir, args...)
	o := &outcome{trial: c, t: t, server: server, pager: pager, watch: w, want: c.right()}
	o.settle()
	o.strike()
	o.told()
	o.shown()
	o.notified()
	o.alerted()
	o.others()
	o.goOn()
	o.bounded()
	w.stop()
	w.end(0)
	o.lookedInto(args)
	o.lasts(args)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"

	"immuaudit/evidence"
	"immuaudit/internal/mirror"
	"immuaudit/internal/store"
	"immuaudit/proof"
)

// checked is one thing that was looked at, in the words of --json.
type checked struct {
	Check    string `json:"check"`
	Server   string `json:"server,omitempty"`
	Database string `json:"database,omitempty"`
	Incident string `json:"incident,omitempty"`
	File     string `json:"file,omitempty"`
	Result   string `json:"result"` // "ok" or "problem"
	Detail   string `json:"detail"`

	// proven: what the server itself signed contradicts itself.
	proven *evidence.Finding
}

func (c *checked) bad() bool { return c.Result != "ok" }

// line is what was looked at for people, with the ledger's name or without.
func (c *checked) line(named bool) string {
	name := ""
	switch {
	case c.Incident != "":
		name = c.Incident + ": "
	case c.File != "":
		name = shown(c.File) + ": "
	case c.Server != "" && named:
		name = shown(c.Server+"/"+c.Database) + ": "
	}
	result := "ok"
	if c.bad() {
		result = "PROBLEM"
	}
	return fmt.Sprintf("%-8s %-9s %s%s", result, c.Check, name, c.Detail)
}

// look is what one look at something has found.
type look []checked

func (l *look) ok(about checked, format string, args ...any) {
	about.Result, about.Detail = "ok", fmt.Sprintf(format, args...)
	*l = append(*l, about)
}

func (l *look) problem(about checked, format string, args ...any) {
	about.Result, about.Detail = "problem", fmt.Sprintf(format, args...)
	*l = append(*l, about)
}

func (l look) fits() bool { return !slices.ContainsFunc(l, func(c checked) bool { return c.bad() }) }

// checkup compares the parts of a state directory with each other. It only
// reads.
type checkup struct {
	s *store.Store
	// live: an auditor may go on writing. What does not fit is looked at once
	// more, when what it was just writing does.
	live bool
	// needGuard: it is a problem that there is no guard.
	needGuard bool
	// show is told how far the mirror of a ledger was read; nil for nobody.
	show func(name evidence.Name, now mirror.Inspected, size uint64)

	known *evidence.Remembered
	at    map[evidence.Name]int // in known.Trust
	past  *mirror.Mirror        // nil where nothing is mirrored
	bare  error                 // why the mirrors cannot be read
}

// begin opens what is looked at; end closes it.
func (c *checkup) begin(ctx context.Context) (err error) {
	if err := c.load(ctx); err != nil {
		return err
	}
	c.past, err = mirror.OpenReadOnly(filepath.Join(c.s.Dir(), mirrorFolder), slog.New(slog.DiscardHandler))
	if !errors.Is(err, fs.ErrNotExist) {
		c.bare = err
	}
	return nil
}

func (c *checkup) end() {
	if c.past != nil {
		c.past.Close() // nothing was written
	}
}

func (c *checkup) load(ctx context.Context) (err error) {
	if c.known, err = c.s.Load(ctx); err != nil {
		return err
	}
	c.at = make(map[evidence.Name]int, len(c.known.Trust))
	for i := range c.known.Trust {
		c.at[c.known.Trust[i].Name] = i
	}
	return nil
}

// settled looks at something, and once more where it does not fit.
func (c *checkup) settled(f func(*look) error) ([]checked, error) {
	var first, second look
	if err := f(&first); err != nil || first.fits() || !c.live {
		return first, err
	}
	err := f(&second)
	return second, err
}

// state looks at the database, which was read and summed when it was opened,
// at its guard, and at the mirrors as a whole.
func (c *checkup) state(ctx context.Context) ([]checked, error) {
	var l look
	about := checked{Check: "state"}
	g, err := c.s.Guarded(ctx)
	mark, doubt := c.s.Doubts()
	if mark != nil {
		l.problem(about, "%v", mark)
	} else {
		l.ok(about, "%s is at change %d, and every checksum fits", c.s.Dir(), g.State)
	}
	about.Check = "guard"
	switch {
	case doubt != nil:
		l.problem(about, "%v", doubt)
	case err != nil:
		return nil, err
	case g.Sequence == 0 && c.needGuard:
		l.problem(about, "there is none at %s: nobody would notice it if the whole directory were rolled back; the auditor begins one when it starts, if it can write there", g.Path)
	case g.Sequence == 0:
		l.ok(about, "there is none, and no place for it was named: nobody would notice it if the whole directory were rolled back")
	case g.Sequence < g.State:
		l.ok(about, "%s witnesses change %d, %d less than the state has; a crash leaves it like that, and the next start makes up for it", g.Path, g.Sequence, g.State-g.Sequence)
	default:
		l.ok(about, "%s witnesses the same", g.Path)
	}
	about.Check = "mirror"
	switch {
	case c.bare != nil:
		l.problem(about, "%v", c.bare)
	case c.past == nil:
		l.ok(about, "there is none: where a ledger was changed can be said from what is remembered alone")
	}
	return l, nil
}

// depth is how much of a ledger was compared.
type depth struct {
	mirror.Inspected
	mirrored uint64 // transactions
	signed   uint64 // states that the server signed
	trust    *evidence.Trust
}

// ledger compares everything that is kept of one ledger.
func (c *checkup) ledger(ctx context.Context, name evidence.Name) (found []checked, d depth, err error) {
	found, err = c.settled(func(l *look) error {
		d = depth{}
		// Before what is trusted is read: a mirror lags it and never leads.
		var past *mirror.Ledger
		var pastErr error
		if c.past != nil {
			past, pastErr = c.past.Snapshot(name)
		}
		r, err := c.record(ctx, name)
		if err != nil {
			return err
		}
		d.trust = r.Trust
		r.compare(l)
		switch {
		case pastErr != nil:
			l.problem(r.about("mirror"), "%v", pastErr)
		case past != nil:
			m := mirrorCheck{record: r, past: past, depth: &d}
			if c.show != nil {
				m.show = func(now mirror.Inspected) { c.show(name, now, past.Size()) }
			}
			if err := m.compare(ctx, l); err != nil {
				return err
			}
			return m.compareSigned(ctx, l)
		}
		return nil
	})
	return found, d, err
}

// record is what is remembered of one ledger.
type record struct {
	*evidence.Trust
	marks []proof.State
	walk  *proof.Walk // nil where it cannot be read
}

// record reads a ledger as it is now. States to be met that were read before
// are true all the same, unless trust began anew meanwhile.
func (c *checkup) record(ctx context.Context, name evidence.Name) (*record, error) {
	t, err := c.s.Trust(ctx, name)
	if err != nil {
		return nil, err
	}
	if i, known := c.at[name]; !known || !sameBaseline(&c.known.Trust[i].Baseline, &t.Baseline) {
		if err := c.load(ctx); err != nil {
			return nil, err
		}
		if i, known := c.at[name]; known {
			t = c.known.Trust[i]
		}
	}
	return &record{Trust: &t, marks: c.known.Marks[name]}, nil
}

func sameBaseline(a, b *evidence.Baseline) bool {
	return a.State == b.State && a.Origin == b.Origin && a.At.Equal(b.At)
}

func (r *record) about(check string) checked {
	return checked{Check: check, Server: r.Name.Server, Database: r.Name.Database}
}

// states are those that are trusted, with what they are.
func (r *record) states() map[string]proof.State {
	states := map[string]proof.State{}
	add := func(what string, s proof.State) {
		if s.TxID > 0 { // there is no transaction 0
			states[what] = s
		}
	}
	add("its baseline", r.Baseline.State)
	add("its trusted state", r.Proven.State)
	for _, mark := range r.marks {
		add(fmt.Sprintf("remembered transaction %d", mark.TxID), mark)
	}
	return states
}

const nextTrust = "restore the newest copy of the whole directory in which everything fits"

// compare compares what is remembered within itself.
func (r *record) compare(l *look) {
	about := r.about("ledger")
	if harm := r.order(); harm != "" {
		l.problem(about, "%s; %s", harm, nextTrust)
		return
	}
	walk, err := walkOf(r.Trust)
	if err != nil {
		l.problem(about, "%v; %s", err, nextTrust)
		return
	}
	r.walk = walk
	compared := 0
	states := r.states()
	for _, what := range sorted(states) {
		alh, known := walk.Alh(states[what].TxID)
		if known {
			compared++
		}
		if known && alh != states[what].Alh {
			l.problem(about, "%s has the hash %s, the walk that went through it has %s; %s", what, states[what].Alh, alh, nextTrust)
			return
		}
	}
	if key := r.Key; len(key) > 0 && len(r.Proven.Signature) > 0 {
		if err := verifies(&r.Proven, key); err != nil {
			l.problem(about, "its trusted state is not signed by the key in force: %v; %s", err, nextTrust)
			return
		}
	}
	l.ok(about, "trusted up to transaction %d, walked to %d; the walk was compared with %d of %d remembered states", r.Proven.TxID, r.Walked, compared, len(states))
}

// order says which of the watermarks are not in order. The store writes none of
// that; whoever edits it can make the checksums fit.
func (r *record) order() string {
	proven, s := r.Proven.TxID, &r.Scrub
	switch {
	case r.Verified > r.Walked || r.Walked > proven:
		return fmt.Sprintf("verified to transaction %d, walked to %d and proven to %d: each can be no further than the next", r.Verified, r.Walked, proven)
	case r.Baseline.State.TxID > proven:
		return fmt.Sprintf("its trusted state (transaction %d) lies before its baseline (%d)", proven, r.Baseline.State.TxID)
	case s.Settled > r.Walked || s.Position > s.Settled:
		return fmt.Sprintf("deep verification stands at transaction %d of %d that it has seen, and %d were walked: each can be no further than the next", s.Position, s.Settled, r.Walked)
	case s.Retained > proven && s.Retained-1 > proven:
		return fmt.Sprintf("values before transaction %d were truncated, it says, and %d is the newest that is trusted", s.Retained, proven)
	}
	states := r.states()
	for _, what := range sorted(states) {
		switch s := states[what]; {
		case s.TxID > proven:
			return fmt.Sprintf("%s lies beyond its trusted state (transaction %d)", what, proven)
		case s.TxID == proven && s.Alh != r.Proven.Alh:
			return fmt.Sprintf("%s has the hash %s, its trusted state of the same transaction %s", what, s.Alh, r.Proven.Alh)
		}
	}
	for _, f := range r.Accepted {
		if !f.Kind.AboutData() || f.Tx > proof.MaxTxID {
			return fmt.Sprintf("among the damage that an operator accepted is %q of transaction %d, which cannot be accepted so", f.Kind, f.Tx)
		}
	}
	return ""
}

// walkOf reads the stored walk of a ledger; one that has not begun stands
// before transaction 1.
func walkOf(t *evidence.Trust) (*proof.Walk, error) {
	walk := new(proof.Walk)
	if len(t.Walk) > 0 {
		if err := walk.UnmarshalBinary(t.Walk); err != nil {
			return nil, fmt.Errorf("its walk cannot be read: %w", err)
		}
	}
	if at := walk.At().TxID; at != t.Walked {
		return nil, fmt.Errorf("its walk stands at transaction %d, the state says %d", at, t.Walked)
	}
	return walk, nil
}

func verifies(s *proof.SignedState, point []byte) error {
	key, err := proof.ParsePoint(point)
	if err != nil {
		return err
	}
	return proof.VerifySignature(key, s)
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

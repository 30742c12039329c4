package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
	"immuaudit/proof"
)

// Deep says how the contents of transactions are verified, beside their chain.
type Deep struct {
	// Source is the server, for contents; nil verifies none.
	Source verify.Source
	// NewValues verifies what was newly committed before trust advances over
	// it; without it that is done right afterwards.
	NewValues bool
	// Every is how long a pass over all transactions takes, pass after pass;
	// ScrubBytes, if set, is how fast it reads instead, in bytes per second.
	// Neither: one pass, and what is committed after it.
	Every      time.Duration
	ScrubBytes int64
	// BytesPerSecond bounds all reading of contents; 0 does not.
	BytesPerSecond int64
	// MessageBytes is the most the server may send at once, MemoryBytes what
	// may be held at a time; 0 are the defaults of package verify.
	MessageBytes, MemoryBytes int64
	// Export asks for documents with exportTx (docs/protocol.md §2).
	Export bool
}

// shares says how the memory for contents is divided: one half for a long look
// at a time, the other for short ones, which must not wait for it: most ledgers
// only ever have a few new transactions. Where that is not enough for one answer
// each, there is one look at a time, and long is 0.
func (d *Deep) shares() (long, short, shorts int64) {
	memory, least := max(0, d.MemoryBytes), verify.LeastMemory(d.MessageBytes)
	if memory == 0 {
		memory = verify.DefaultMemory
	}
	if memory < 2*least {
		return 0, max(memory, least), 1
	}
	shorts = memory / 2 / least
	return memory / 2, memory / 2 / shorts, shorts
}

// admit waits until it is the turn of a look, and gives how much it may hold.
func (e *Engine) admit(ctx context.Context, asLong bool) (memory int64, release func(), err error) {
	long, short, _ := e.o.Deep.shares()
	slots, memory := e.o.Common.short, short
	if asLong && long > 0 {
		slots, memory = e.o.Common.long, long
	}
	if err := slots.Acquire(ctx, 1); err != nil {
		return 0, nil, err
	}
	return memory, func() { slots.Release(1) }, nil
}

// glance is what a look at the contents of a range has come to.
type glance struct {
	from    uint64
	unseen  bool // none of it was looked at before
	sum     verify.Summary
	damages []verify.Damage // without those that were accepted
	doubt   *doubt
	ended   bool // its time was over; it goes on where it stopped
}

// looked is how far from the beginning of the range everything was looked at:
// also behind transactions that could not be read, so that one which a server
// refuses hides no other. Each that was settled is counted once, in order.
func (g *glance) looked() uint64 {
	if len(g.sum.Unread) == 0 {
		return g.sum.Through
	}
	return min(g.sum.To, g.sum.From-1+g.sum.Transactions)
}

// clean is how far from the beginning of the range all of it held.
func (g *glance) clean() uint64 {
	clean := g.sum.Through
	if g.sum.Tally.Damages() > 0 {
		clean = g.sum.Clean
		// What an operator accepted is no reason to stop, if it is all there is.
		if uint64(len(g.sum.Damages)) == g.sum.Tally.Damages() {
			clean = g.sum.Through
			if len(g.damages) > 0 {
				clean = g.damages[0].Tx - 1
			}
		}
	}
	if len(g.sum.Unread) > 0 {
		clean = min(clean, g.sum.Unread[0].Tx-1)
	}
	return clean
}

// lookInto verifies the contents of a range of transactions that is bound to
// what is trusted. Damage is believed only on a token that names the right
// database before and after.
func (e *Engine) lookInto(ctx context.Context, v *view, from, to uint64, long bool, trusted []proof.State, o verify.Options) glance {
	d, db := &e.o.Deep, v.trust.Name.Database
	memory, release, err := e.admit(ctx, long)
	if err != nil {
		return glance{from: from, sum: verify.Summary{From: from, To: to, Through: from - 1, Clean: from - 1}, doubt: doubtOf(err)}
	}
	defer release()
	// No longer than a slice, once it is its turn.
	slice, cancel := context.WithTimeout(ctx, deepSlice)
	defer cancel()
	if o.Source == nil {
		o.Source = &paced{d.Source, e.reading}
	}
	o.Database, o.Trusted, o.From, o.To = db, trusted, from, to
	o.Export, o.Retained = d.Export, v.trust.Scrub.Retained
	o.MessageBytes, o.MemoryBytes = d.MessageBytes, memory
	o.Confirm = func(ctx context.Context, look func(context.Context) error) error {
		return e.namedRightly(ctx, db, look)
	}
	if m := v.past.verified(); m != nil {
		o.Mirror = m
	}
	sum, err := verify.Run(slice, o)
	g := glance{from: from, sum: sum}
	g.ended = slice.Err() != nil && ctx.Err() == nil && g.looked() >= from
	for _, damage := range sum.Damages {
		if !accepted(v.trust.Accepted, &damage) {
			g.damages = append(g.damages, damage)
		}
	}
	if err != nil {
		g.doubt = doubtOf(err)
	}
	return g
}

// accepted reports whether an operator knows of a damage: the very same one.
func accepted(known []evidence.Finding, d *verify.Damage) bool {
	f := findingOfDamage(d)
	return slices.ContainsFunc(known, func(k evidence.Finding) bool {
		k.Detail = f.Detail // words are not what was accepted
		return k == f
	})
}

func findingOfDamage(d *verify.Damage) evidence.Finding {
	f := d.Finding
	f.Key = d.Where.Key
	return f
}

// namedRightly does work on a token that was bound by name a moment before, and
// that names the right database before and after. A call that fails costs the
// token, and others are made meanwhile: then it is done again. It counts after
// all where that happens every time, or a server could keep verification from
// getting beyond a transaction by refusing it: each token was bound by name
// since, and the names were right.
func (e *Engine) namedRightly(ctx context.Context, db string, work func(context.Context) error) error {
	if err := e.o.Server.Bind(ctx, db); err != nil {
		return err
	}
	for range confirmTries {
		before, err := e.o.Server.CurrentState(ctx, db)
		if err != nil {
			return err
		}
		binding := e.o.Server.Binding(db)
		if err := work(ctx); err != nil {
			return err
		}
		kept := binding != 0 && e.o.Server.Binding(db) == binding
		after, err := e.o.Server.CurrentState(ctx, db)
		switch {
		case err != nil:
			return err
		case before.DB != db || after.DB != db:
			return doubtf(evidence.Unstable, "the token did not stay bound to %q", db)
		case kept && e.o.Server.Binding(db) == binding:
			return nil
		}
	}
	return nil
}

// verified gives the mirror to compare headers with, as far as it is known to
// be what was walked; nil where there is none.
func (k *mirrored) verified() verify.Mirror {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bound == 0 {
		return nil
	}
	return &boundMirror{k, k.bound, k.life}
}

// boundMirror is a mirror as it stood when it was asked for.
type boundMirror struct {
	k    *mirrored
	size uint64
	life uint64
}

var errDecided = errors.New("trust began anew meanwhile")

func (b *boundMirror) Size() uint64 { return b.size }

func (b *boundMirror) LeafHashes(first uint64, n int) ([]proof.Hash, error) {
	b.k.files.Lock()
	defer b.k.files.Unlock()
	b.k.mu.Lock()
	life := b.k.life
	b.k.mu.Unlock()
	if life != b.life {
		return nil, errDecided
	}
	m, err := b.k.opened()
	if err != nil {
		return nil, err
	}
	return m.LeafHashes(first, n)
}

// bindings are the states that headers can be bound to, beside the mirror.
func (v *view) bindings() []proof.State {
	var out []proof.State
	seen := map[uint64]bool{0: true}
	add := func(s proof.State) {
		if !seen[s.TxID] {
			seen[s.TxID] = true
			out = append(out, s)
		}
	}
	add(v.trust.Proven.State)
	add(v.walk.At())
	for _, m := range v.marks {
		add(m)
	}
	return out
}

// damagesOf turns damages into findings, the place of the first, and what the
// evidence shows of them.
func (o *outcome) damaged(damages []verify.Damage) {
	for i := range damages {
		d := &damages[i]
		o.add(findingOfDamage(d))
		if len(o.damages) < evidence.MaxFindings {
			o.damages = append(o.damages, *d)
		}
	}
	slices.SortStableFunc(o.damages, func(a, b verify.Damage) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
}

// aboutChain reports whether any finding is about the chain of transactions
// rather than their contents.
func aboutChain(findings []evidence.Finding) bool {
	return slices.ContainsFunc(findings, func(f evidence.Finding) bool { return !f.Kind.AboutData() })
}

// damagedOf is what the evidence shows of a damage.
func damagedOf(d *verify.Damage) evidence.Damaged {
	out := evidence.Damaged{Tx: d.Tx, Header: d.Header, Received: d.Received, Size: d.Size}
	if d.Entry != nil {
		out.Key, out.Committed = d.Entry.Key, d.Entry.HValue
	}
	return out
}

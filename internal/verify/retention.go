package verify

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"immuaudit/proof"
)

// retention is what is known of values that were removed on purpose: a header
// that names transaction N in its metadata says that the values of those before
// N may be gone (docs/protocol.md §7).
type retention struct {
	mu        sync.Mutex
	searched  bool
	before    uint64      // as far as trusted headers say
	beyond    uint64      // as far as headers after the trusted ones say
	record    proof.State // the one that says so
	unsettled bool        // something was believed for it

	known  atomic.Uint64 // before or beyond, whichever is more
	streak atomic.Int64  // transactions in a row that have lost all their values
}

// covers is before which transaction values may be gone, as a header says. It
// cannot speak of those that come after it.
func covers(h *proof.Header) uint64 { return min(h.Metadata.TruncatedTxID, h.ID+1) }

// retained reports whether values of a transaction may be gone. The record of
// it stands in a later transaction, possibly in one that was committed since
// the newest trusted one: where none is known yet, it is looked for in all
// headers that come after, once.
func (r *run) retained(ctx context.Context, tx uint64) (bool, error) {
	t := &r.retain
	t.mu.Lock()
	defer t.mu.Unlock()
	if tx >= t.before && !t.searched {
		if err := r.search(ctx); err != nil {
			return false, fmt.Errorf("looking for the record of a truncation: %w", err)
		}
		t.searched = true
		t.known.Store(max(t.before, t.beyond))
	}
	if tx >= t.before && tx < t.beyond {
		t.unsettled = true
	}
	return tx < max(t.before, t.beyond), nil
}

// search goes over the headers from the first transaction of the run to the
// newest of the server. A record counts where its header is a known one, or
// chains up to one; beyond them, where it chains up from the last. Headers that
// the server cannot show part the chain, and what they record is not known.
func (r *run) search(ctx context.Context) error {
	s := trail{r: r, newest: r.known.newest()}
	for at, n := r.o.From, headerPage; at <= s.newest+maxBeyond; {
		list, err := r.headers(ctx, at, n)
		switch kind := troubleOf(err); {
		case kind.ends():
			return err
		case kind != fine && n > 1:
			n /= 2
			continue
		case kind != fine:
			s.part()
			at++
			continue
		case len(list) == 0:
			return nil
		}
		for i := range list {
			if err := s.step(&list[i]); err != nil {
				return err
			}
		}
		at, n = list[len(list)-1].ID+1, min(2*n, headerPage)
	}
	return nil
}

// trail follows the headers in search of records.
type trail struct {
	r       *run
	newest  uint64 // trusted transaction
	prev    proof.State
	claim   uint64 // newest record since the chain began
	chained bool   // down to the newest trusted one
}

// part begins a new chain.
func (s *trail) part() { s.prev, s.claim, s.chained = proof.State{}, 0, false }

func (s *trail) step(h *proof.Header) error {
	t := &s.r.retain
	if s.prev.TxID > 0 && h.PrevAlh != s.prev.Alh {
		s.part()
	}
	s.prev = proof.State{TxID: h.ID, Alh: h.Alh()}
	if h.ID > s.newest {
		if n := covers(h); s.chained && n > t.beyond {
			t.beyond, t.record = n, s.prev
		}
		return nil
	}
	if s.claim = max(s.claim, covers(h)); s.claim == 0 && h.ID < s.newest {
		return nil
	}
	leaf, ok, err := s.r.known.leaf(h.ID)
	if ok && leaf == proof.LeafHash(s.prev.Alh) {
		t.before, s.chained = max(t.before, s.claim), h.ID == s.newest
	}
	if ok {
		s.claim = 0
	}
	return err
}

// leap judges a range of transactions that have lost values by some of them, if
// that is before a recorded truncation and very many before it have lost all
// theirs. One by one they would cost several calls each, for nothing: their
// values may be gone. It tells how many it has judged.
func (l *look) leap(ctx context.Context, from uint64, n int) (int, error) {
	if n <= probes || l.r.retain.streak.Load() < sureGone {
		return 0, nil
	}
	if ok, err := l.r.retained(ctx, from+uint64(n)-1); err != nil || !ok {
		return 0, err
	}
	for i := range uint64(probes) {
		tx := from + i*uint64(n-1)/(probes-1)
		_, err := l.r.list(ctx, tx, 1, listedKinds, func(*proof.Header, []proof.ExportedEntry) error { return nil })
		switch kind := troubleOf(err); {
		case kind.ends():
			return 0, err
		case kind != gone:
			return 0, nil
		}
	}
	came := 0
	_, err := l.r.list(ctx, from, n, nil, func(h *proof.Header, entries []proof.ExportedEntry) error {
		came++
		l.forgone(h, entries)
		return nil
	})
	if kind := troubleOf(err); kind.ends() {
		return came, err
	}
	return came, nil // what is left is not judged yet
}

// forgone is a transaction whose values are all gone, and may be.
func (l *look) forgone(h *proof.Header, entries []proof.ExportedEntry) {
	p := l.link(h)
	t := copied(h, entries)
	if !t.whole(&l.tree) {
		l.doubt(h.ID, &p.alh)
		return
	}
	q := l.inquire(t)
	for i := range q.fates {
		if f := &q.fates[i]; f.what == pending && kindOf(t.entries[i].Key).listed() {
			f.what = lost
		}
	}
	q.decide(true)
	l.account(q)
}

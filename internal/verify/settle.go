package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// settler takes what workers found, in order, and settles it as soon as it is
// bound to something known.
type settler struct {
	r   *run
	sum Summary

	loose   []piece  // in order and not bound yet: each chains in itself, and none to the next
	waiting []Unread // not counted yet

	first   uint64 // transaction of which it cannot be said that it is undamaged; 0: none
	last    uint64 // newest settled transaction that is known to be as it was
	lastBad *piece // the newest settled one, where that is another than the known one
}

func newSettler(r *run) *settler {
	s := &settler{r: r}
	s.sum = Summary{From: r.o.From, To: r.o.To, Through: r.o.From - 1, Clean: r.o.From - 1, Retained: r.o.Retained}
	return s
}

// take takes the result of the next stretch.
func (s *settler) take(ctx context.Context, res *result) error {
	// They were noted as they were found, in several goes over the stretch.
	slices.SortFunc(res.unread, func(a, b Unread) int { return cmp.Compare(a.Tx, b.Tx) })
	s.waiting = append(s.waiting, res.unread...)
	for i := range res.pieces {
		if err := s.piece(ctx, &res.pieces[i]); err != nil {
			return err
		}
	}
	s.report()
	if n := len(s.sum.Unread) + len(s.waiting); n > maxUnread {
		all := append(s.sum.Unread, s.waiting...)
		return fmt.Errorf("more than %d transactions cannot be read: %w", maxUnread, all[0].Err)
	}
	return nil
}

func (s *settler) piece(ctx context.Context, p *piece) error {
	n := len(s.loose)
	linked := n > 0 && s.loose[n-1].standing == open && s.loose[n-1].leads(p)
	switch {
	case p.standing == open && linked:
		s.join(&s.loose[n-1], p)
		return nil
	case p.standing == open, p.standing == blank && n > 0:
		if n >= maxLoose {
			if err := s.giveUp(ctx, p, p.standing == open); err != nil {
				return err
			}
		}
		s.loose = append(s.loose, *p)
		return nil
	}
	known := []*piece{p}
	if p.standing == bound && linked { // it vouches for what chains up to it
		before := s.loose[n-1]
		before.standing = bound
		known = []*piece{&before, p}
		s.loose = s.loose[:n-1]
	}
	if err := s.giveUp(ctx, known[0], known[0].standing == bound); err != nil {
		return err
	}
	for _, p := range known {
		s.settle(p)
	}
	return nil
}

// leads reports whether next goes on where p ends.
func (p *piece) leads(next *piece) bool {
	return p.to+1 == next.from && next.standing != blank && p.alh == next.prev
}

// join puts a piece after one that leads to it.
func (s *settler) join(p, next *piece) {
	p.to, p.alh, p.header = next.to, next.alh, next.header
	p.tally.add(&next.tally)
	s.r.assign(p, next.damages, evidence.MaxFindings-len(p.damages))
	p.retained = max(p.retained, next.retained)
}

// forget drops the damages of a piece that is bound to nothing: they say
// nothing.
func (s *settler) forget(p *piece) {
	for i := range p.damages {
		s.r.drop(&p.damages[i])
	}
	p.damages = nil
}

// giveUp settles loose pieces that nothing will bind any more. If what comes
// next is to be believed, as it is where it is known, the last header of them is
// another than the one it names. Those before that one are bound to nothing.
func (s *settler) giveUp(ctx context.Context, next *piece, believed bool) error {
	for i := range s.loose {
		p := &s.loose[i]
		if p.standing == blank {
			s.settle(p)
			continue
		}
		n := p.to - p.from + 1
		t := Tally{Transactions: n, Empty: p.tally.Empty, Unread: p.tally.Unread, Loose: n}
		if i == len(s.loose)-1 && believed && p.to+1 == next.from {
			if err := s.look(ctx, p); err != nil {
				return err
			}
			t.Headers, t.Loose = 1, n-1
			s.found(s.r.wrongHeader(p.to, p.header, next.prev, p.alh, "accumulative linear hash, which the next transaction names"))
		}
		s.forget(p)
		s.sum.Tally.add(&t)
		s.unclean(p.from)
		s.through(p.to)
	}
	s.loose = nil
	return nil
}

// look makes sure of a header that the next one does not name.
func (s *settler) look(ctx context.Context, p *piece) error {
	return s.r.confirm(ctx, func(ctx context.Context) error {
		list, err := s.r.headers(ctx, p.to, 1)
		switch {
		case err != nil:
			return err
		case len(list) == 0 || list[0].ID != p.to || list[0].Alh() != p.alh:
			return errRestless
		}
		p.header = ownHeader(&list[0])
		return nil
	})
}

// settle counts a piece whose header is known, or known to be another, or not
// to be had.
func (s *settler) settle(p *piece) {
	switch p.standing {
	case bad:
		s.bad(p)
	case bound, blank:
		s.sum.Tally.add(&p.tally)
		for _, d := range p.damages {
			s.found(d)
		}
	}
	if p.standing == bound {
		s.sum.Retained = max(s.sum.Retained, p.retained)
		s.last, s.lastBad = p.to, nil
	}
	s.through(p.to)
}

// bad counts a transaction whose header is another than the known one. Several
// that chain are one damage: another history from the first of them on.
func (s *settler) bad(p *piece) {
	s.forget(p)
	s.sum.Tally.add(&Tally{Transactions: p.tally.Transactions, Empty: p.tally.Empty, Unread: p.tally.Unread, Headers: p.tally.Transactions})
	follows := s.lastBad != nil && s.lastBad.to+1 == p.from && s.lastBad.alh == p.prev
	if !follows {
		d := s.r.wrongHeader(p.to, p.header, p.want, proof.LeafHash(p.alh), "leaf hash")
		if s.last > 0 && s.last+1 == p.from {
			d.Where.LastGoodTx = s.last
		}
		s.found(d)
	}
	c := *p
	s.lastBad = &c
}

// found reports a damage.
func (s *settler) found(d Damage) {
	s.unclean(d.Tx)
	if len(s.sum.Damages) >= evidence.MaxFindings {
		s.r.drop(&d)
		return
	}
	s.sum.Damages = append(s.sum.Damages, d)
	if s.r.o.Found != nil {
		s.r.o.Found(d)
	}
}

// unclean notes a transaction that is damaged or bound to nothing.
func (s *settler) unclean(tx uint64) {
	if s.first == 0 || tx < s.first {
		s.first = tx
	}
}

// through says that everything up to a transaction is settled.
func (s *settler) through(tx uint64) {
	for len(s.waiting) > 0 && s.waiting[0].Tx <= tx {
		s.sum.Unread = append(s.sum.Unread, s.waiting[0])
		s.waiting = s.waiting[1:]
	}
	if len(s.sum.Unread) > 0 {
		tx = min(tx, s.sum.Unread[0].Tx-1)
	}
	s.sum.Through = max(s.sum.Through, min(tx, s.sum.To))
	s.sum.Clean = s.sum.Through
	if s.first > 0 {
		s.sum.Clean = min(s.sum.Clean, s.first-1)
	}
}

// stopped ends the run early.
func (s *settler) stopped(err error) error {
	s.report()
	return &Stopped{At: s.sum.Through + 1, Err: err}
}

func (s *settler) report() {
	s.sum.Received = s.r.pace.received.Load()
	if s.r.o.Export {
		s.sum.Exports = s.r.exports.over()
	}
	if s.r.o.Progress != nil {
		s.r.o.Progress(Progress{Through: s.sum.Through, To: s.sum.To, Tally: s.sum.Tally})
	}
}

// end settles what is left when everything was looked at. What is still loose
// ends between two known states: the headers up to the next of them say whether
// it is bound there.
func (s *settler) end(ctx context.Context) error {
	for n := len(s.loose); n > 0 && s.loose[n-1].standing == open; n = len(s.loose) {
		after := s.loose[n-1].to + 1
		count := int(min(s.r.known.boundary(after)-after+1, headerPage))
		pieces, err := s.r.chain(ctx, after, count)
		if err != nil {
			return err
		}
		for i := range pieces {
			if err := s.piece(ctx, &pieces[i]); err != nil {
				return err
			}
		}
	}
	if err := s.giveUp(ctx, nil, false); err != nil {
		return err
	}
	t := &s.r.retain
	t.mu.Lock()
	if t.unsettled {
		s.sum.Unsettled = t.record
	}
	s.sum.Retained = max(s.sum.Retained, t.before)
	t.mu.Unlock()
	s.report()
	return nil
}

// chain lists headers for nothing but what they are bound to.
func (r *run) chain(ctx context.Context, from uint64, n int) ([]piece, error) {
	var l look
	closely := false
	again := func(ctx context.Context) error {
		list, err := r.headers(ctx, from, n)
		switch {
		case err != nil:
			return err
		case len(list) == 0:
			return fmt.Errorf("the server does not show transaction %d, which is a trusted one", from)
		}
		l = look{r: r, closely: closely}
		for i := range list {
			l.link(&list[i])
		}
		return l.bind()
	}
	err := again(ctx)
	if errors.Is(err, errRestless) {
		closely = true
		err = r.confirm(ctx, again)
	}
	for i := range l.pieces {
		l.pieces[i].tally = Tally{}
	}
	return l.pieces, err
}

package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// result is what came of looking at a stretch.
type result struct {
	pieces []piece // in order; together they are the stretch
	unread []Unread
}

// standing says what a piece is bound to.
type standing uint8

const (
	open  standing = iota // nothing yet
	bound                 // something known: all of it is as it was
	bad                   // something known, and it is another
	blank                 // it has no header that could be bound
)

// piece is a run of transactions that chain.
type piece struct {
	from, to  uint64
	prev, alh proof.Hash // named by the first header; of the last one
	standing  standing
	want      proof.Hash    // the known leaf hash, where bad
	header    *proof.Header // the last, where pieces are of one transaction
	tally     Tally
	damages   []Damage // the first of them
	retained  uint64   // newest truncation that these headers record
}

// inquire begins an inquiry into a transaction.
func (l *look) inquire(t *committed) *inquiry {
	q := newInquiry(l.r, t)
	q.closely = l.closely
	return q
}

// assign puts so many damages to a piece, and drops the others.
func (r *run) assign(p *piece, list []Damage, most int) {
	most = max(0, min(most, len(list)))
	p.damages = append(p.damages, list[:most]...)
	for i := range list[most:] {
		r.drop(&list[most+i])
	}
}

// look is one look at a stretch.
type look struct {
	r *run
	stretch
	result
	// closely makes every transaction a piece of its own, to find out which
	// header is another than the remembered one. It is done under the eyes of
	// confirm, so that what it sees is believed.
	closely bool
	most    int // transactions in one listing, where larger ones did not come in time; 0: any

	parts    []part // listed in part only
	asks     []*inquiry
	parted   int // entries of both
	named    int // damages that pieces keep
	suspects []suspect
	tree     entryTree
	seen     []proof.Hash // of the transaction at hand
}

// part is a transaction whose listing had not all of its values.
type part struct {
	tx    uint64
	alh   proof.Hash
	seen  []proof.Hash // digests of the entries whose values held, in order
	bytes [kinds]uint64
}

// suspect is a transaction that is looked at once more by itself.
type suspect struct {
	tx  uint64
	alh *proof.Hash // of the header it was listed with; nil where there was none
}

func (l *look) doubt(tx uint64, alh *proof.Hash) {
	if alh != nil {
		c := *alh
		alh = &c
	}
	l.suspects = append(l.suspects, suspect{tx, alh})
}

// errRestless is a stretch whose headers do not fit each other, or what is
// known, or what was shown a moment ago.
var errRestless = errors.New("the server shows other headers than it did a moment ago")

// look looks at a stretch, and closely where its headers do not hold.
func (r *run) look(ctx context.Context, s stretch) (result, error) {
	l := &look{r: r, stretch: s}
	err := l.all(ctx)
	if errors.Is(err, errRestless) {
		err = r.confirm(ctx, func(ctx context.Context) error {
			l = &look{r: r, stretch: s, closely: true}
			return l.all(ctx)
		})
	}
	return l.result, err
}

func (l *look) all(ctx context.Context) error {
	if err := l.scan(ctx, l.from, int(l.to-l.from)+1); err != nil {
		return err
	}
	if err := l.bind(); err != nil {
		return err
	}
	if err := l.complete(ctx); err != nil {
		return err
	}
	return l.again(ctx)
}

// scan lists transactions with their values, and halves what cannot be listed.
func (l *look) scan(ctx context.Context, from uint64, n int) error {
	for n > 0 {
		size, came := n, 0
		if l.most > 0 {
			size = min(n, l.most)
		}
		received, err := l.r.list(ctx, from, size, listedKinds, func(h *proof.Header, entries []proof.ExportedEntry) error {
			l.transaction(h, entries)
			came++
			return nil
		})
		l.r.sizes.came(came, received)
		from, n, size = from+uint64(came), n-came, size-came
		if l.parted >= maxParted { // not all of the stretch in memory
			if err := l.complete(ctx); err != nil {
				return err
			}
		}
		switch kind := troubleOf(err); {
		case kind.ends() && (kind != slow || size < 2):
			return err
		case size == 0: // whatever came after it
		case kind == fine && came == 0:
			return fmt.Errorf("the server does not show transaction %d, which is a trusted one", from)
		case kind == fine || came > 0:
		case size == 1:
			if err := l.alone(ctx, from, err); err != nil {
				return err
			}
			from, n = from+1, n-1
		case kind == slow: // each of the same size would take as long
			l.most = size / 2
			l.r.sizes.tooLarge(size)
		default:
			// What is too large may be one transaction: the stretches that
			// come after this one get smaller once.
			if kind == tooLarge && size == int(l.to-l.from)+1 {
				l.r.sizes.tooLarge(size)
			}
			judged := 0
			if kind == gone {
				var err error
				if judged, err = l.leap(ctx, from, size); err != nil {
					return err
				}
			}
			if judged == 0 {
				judged = size / 2
				if err := l.scan(ctx, from, judged); err != nil {
					return err
				}
			}
			from, n = from+uint64(judged), n-judged
		}
	}
	return nil
}

// link puts a header into the chain of the stretch, and gives the piece it is
// in.
func (l *look) link(h *proof.Header) *piece {
	alh := h.Alh()
	p := l.last()
	if p == nil || l.closely || p.standing == blank || p.to+1 != h.ID || p.alh != h.PrevAlh {
		l.pieces = append(l.pieces, piece{from: h.ID, prev: h.PrevAlh})
		p = l.last()
	}
	p.to, p.alh = h.ID, alh
	p.tally.Transactions++
	if h.NEntries == 0 {
		p.tally.Empty++
	}
	p.retained = max(p.retained, covers(h))
	if l.closely {
		p.header = ownHeader(h)
	}
	return p
}

// gap is a transaction without a header.
func (l *look) gap(tx uint64) {
	l.pieces = append(l.pieces, piece{from: tx, to: tx, standing: blank, tally: Tally{Transactions: 1}})
}

func (l *look) last() *piece {
	if len(l.pieces) == 0 {
		return nil
	}
	return &l.pieces[len(l.pieces)-1]
}

// at is the piece that a transaction of the stretch is in.
func (l *look) at(tx uint64) *piece {
	for i := range l.pieces {
		if l.pieces[i].to >= tx {
			return &l.pieces[i]
		}
	}
	return l.last()
}

// bind compares what was listed with what is known.
func (l *look) bind() error {
	chains := 0
	for i := range l.pieces {
		p := &l.pieces[i]
		if p.standing == blank {
			continue
		}
		chains++
		leaf, ok, err := l.r.known.leaf(p.to)
		switch {
		case err != nil:
			return err
		case !ok:
		case leaf == proof.LeafHash(p.alh):
			p.standing = bound
		case l.closely:
			p.standing, p.want = bad, leaf
		default:
			return errRestless
		}
	}
	if chains > 1 && !l.closely && !l.bridged() {
		return errRestless
	}
	return nil
}

// bridged reports whether only transactions without a header part the chain.
func (l *look) bridged() bool {
	for i := 1; i < len(l.pieces); i++ {
		if l.pieces[i-1].standing != blank && l.pieces[i].standing != blank {
			return false
		}
	}
	return true
}

// transaction checks a transaction as it was listed with its values.
func (l *look) transaction(h *proof.Header, entries []proof.ExportedEntry) {
	p := l.link(h)
	var n, bytes [kinds]uint64
	var wrong, absent bool
	l.tree.reset()
	l.seen = l.seen[:0]
	for i := range entries {
		e := &entries[i]
		digest, err := proof.EntryDigest(h.Version, &e.Entry)
		if err != nil {
			wrong = true // not by any Source that validates what it decodes
			break
		}
		l.tree.add(digest)
		switch {
		case sha256.Sum256(e.Value) == e.HValue:
			k := kindOf(e.Key)
			n[k]++
			bytes[k] += uint64(len(e.Value))
			l.seen = append(l.seen, digest)
		case e.Value == nil:
			absent = true
		default:
			wrong = true
		}
	}
	whole := len(entries) == int(h.NEntries) && l.tree.root() == h.EH
	switch {
	case whole && !wrong && !absent:
		for k := range p.tally.Kinds {
			if c := &p.tally.Kinds[k]; n[k] > 0 {
				c.Entries += n[k]
				c.Verified += n[k]
				c.Bytes += bytes[k]
			}
		}
		if h.ID < l.r.retain.known.Load() && len(entries) > 0 {
			l.r.retain.streak.Store(0)
		}
	case absent && !wrong && whole && l.r.old.is():
		l.asks = append(l.asks, l.unvalued(h, entries, bytes))
		l.parted += len(entries)
	case !wrong && (absent || len(entries) < int(h.NEntries)):
		l.parts = append(l.parts, part{tx: h.ID, alh: p.alh, seen: append([]proof.Hash(nil), l.seen...), bytes: bytes})
		l.parted += len(l.seen)
	default:
		l.doubt(h.ID, &p.alh)
	}
}

// unvalued is a transaction as servers before 1.2.3 list it: whole, and without
// its values.
func (l *look) unvalued(h *proof.Header, entries []proof.ExportedEntry, bytes [kinds]uint64) *inquiry {
	seen := make([]bool, len(entries))
	for i := range entries {
		seen[i] = sha256.Sum256(entries[i].Value) == entries[i].HValue
	}
	q := l.inquire(copied(h, entries))
	q.had(seen, bytes)
	return q
}

// alone is a transaction that cannot be listed with its values even by itself.
func (l *look) alone(ctx context.Context, tx uint64, cause error) error {
	t, err := l.r.digests(ctx, tx)
	switch kind := troubleOf(err); {
	case kind.ends():
		return err
	case kind == fine:
		p := l.link(&t.header)
		if !t.whole(&l.tree) {
			l.doubt(tx, &p.alh)
			return nil
		}
		q := l.inquire(t)
		q.failed = cause
		return l.settle(ctx, q)
	}
	// Not even its digests. Its header may be had all the same, and chains.
	list, err := l.r.headers(ctx, tx, 1)
	switch kind := troubleOf(err); {
	case kind.ends():
		return err
	case len(list) > 0 && list[0].ID == tx:
		l.doubt(tx, &l.link(&list[0]).alh)
	default:
		l.gap(tx)
		l.doubt(tx, nil)
	}
	return nil
}

// settle asks for the values of a transaction. What speaks against the server
// is looked at once more, under the eyes of confirm.
func (l *look) settle(ctx context.Context, q *inquiry) error {
	if err := q.run(ctx); err != nil {
		return err
	}
	if len(q.damages) > 0 && !l.closely {
		alh := q.header.Alh()
		l.doubt(q.header.ID, &alh)
		q.drop()
		return nil
	}
	l.account(q)
	return nil
}

// account puts what was found out about a transaction where it belongs.
func (l *look) account(q *inquiry) {
	p := l.at(q.header.ID)
	p.tally.add(&q.tally)
	// As many as can be named, and then the first of each piece: those of
	// another may turn out to say nothing.
	most := max(evidence.MaxFindings-l.named, 1-len(p.damages))
	before := len(p.damages)
	l.r.assign(p, q.damages, most)
	l.named += len(p.damages) - before
	if q.unread != nil {
		l.leave(q.header.ID, q.unread)
	}
}

// leave notes a transaction that cannot be read.
func (l *look) leave(tx uint64, err error) {
	l.at(tx).tally.Unread++
	l.unread = append(l.unread, Unread{Tx: tx, Err: err})
}

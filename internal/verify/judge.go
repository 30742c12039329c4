package verify

import (
	"context"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// decide says what became of every entry; truncated, that retention may have
// taken values of the transaction.
func (q *inquiry) decide(truncated bool) {
	var open [kinds][]int // entries whose values nobody showed or spoke of one by one
	for i := range q.entries {
		e, f := &q.entries[i], &q.fates[i]
		k := kindOf(e.Key)
		c := &q.tally.Kinds[k]
		c.Entries++
		switch f.what {
		case verified, counted:
			c.Verified++
		case expired:
			c.Expired++
		case wrong:
			c.Damaged++
			switch {
			case f.shown == nil: // more than can be named come before it
			case q.full():
				q.r.free(len(f.shown.value))
			default:
				q.damages = append(q.damages, q.r.wrongValue(q.header, e, f.shown))
			}
		case unreadable:
			c.Damaged++
			if !q.full() {
				q.damages = append(q.damages, q.r.unreadableValue(q.header, e, f.cause))
			}
		case lost:
			if truncated {
				c.Truncated++
				continue
			}
			c.Missing++
			if !q.full() {
				q.damages = append(q.damages, q.r.missingValue(q.header, e, said(f.cause)))
			}
		default:
			open[k] = append(open[k], i)
		}
	}
	for k := range open {
		if len(open[k]) > 0 {
			q.unseen(Kind(k), open[k], truncated)
		}
	}
	for k := range q.bytes {
		q.tally.Kinds[k].Bytes += q.bytes[k]
	}
}

// truncated reports whether values of the transaction may be gone, if that
// matters.
func (q *inquiry) truncated(ctx context.Context) (bool, error) {
	matters := false
	for i := range q.fates {
		matters = matters || q.fates[i].what == lost
	}
	for _, err := range q.errs {
		matters = matters || troubleOf(err) == gone
	}
	if !matters {
		return false, nil
	}
	ok, err := q.r.retained(ctx, q.header.ID)
	if ok && err == nil {
		q.streak()
	}
	return ok, err
}

// streak notes a transaction that retention has taken all values of.
func (q *inquiry) streak() {
	for i := range q.fates {
		if w := q.fates[i].what; w == counted || w == verified && q.entries[i].HValue != proof.EmptyAlh() {
			q.r.retain.streak.Store(0)
			return
		}
	}
	q.r.retain.streak.Add(1)
}

// unseen judges entries of one kind of which all that is known is what became
// of their listing.
func (q *inquiry) unseen(k Kind, list []int, truncated bool) {
	c := &q.tally.Kinds[k]
	e := &q.entries[list[0]]
	cause := q.errs[k]
	explained := c.Damaged+c.Missing > 0 // why the listing failed
	switch trouble := troubleOf(cause); {
	case trouble == gone && truncated:
		c.Truncated += uint64(len(list))
		return
	case explained && (trouble == damaged || trouble == gone):
		c.Unseen += uint64(len(list))
		return
	case trouble == damaged:
		q.oneOf(c, &c.Damaged, list, func() Damage { return q.r.unreadableValue(q.header, e, cause) })
		return
	case trouble == gone:
		q.oneOf(c, &c.Missing, list, func() Damage { return q.r.missingValue(q.header, e, said(cause)) })
		return
	case trouble != fine:
		c.Unseen += uint64(len(list))
		q.unread = cause
		return
	}
	for _, i := range list {
		e := &q.entries[i]
		switch {
		case !q.listed[k]: // documents, and whatever servers before 1.2.3 have
			c.Unseen++
		case q.fates[i].what == empty:
			c.Damaged++
			if !q.full() {
				q.damages = append(q.damages, q.r.wrongValue(q.header, e, &shown{hash: proof.EmptyAlh()}))
			}
		default:
			c.Missing++
			if q.full() {
				continue
			}
			q.damages = append(q.damages, q.r.missingValue(q.header, e, "the server leaves the entry out of its listing although it has not expired"))
		}
	}
}

// oneOf is damage to at least one of several entries.
func (q *inquiry) oneOf(c *Count, n *uint64, list []int, damage func() Damage) {
	*n++
	c.Unseen += uint64(len(list) - 1)
	if q.full() {
		return
	}
	d := damage()
	if len(list) > 1 {
		d = q.r.someOf(d, len(list))
	}
	q.damages = append(q.damages, d)
}

// full reports whether there are as many damages as can be named. More are
// counted only.
func (q *inquiry) full() bool { return len(q.damages) >= evidence.MaxFindings }

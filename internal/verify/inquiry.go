package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// inquiry asks for the values of one transaction, whose entries are known to be
// those that its header commits to, in every way there is: as listings of one
// kind of entry, key by key, as an export.
type inquiry struct {
	r       *run
	header  *proof.Header
	entries []proof.Entry
	fates   []fate // by entry

	closely bool // what contradicts itself is believed to

	failed error        // why the listing of all kinds failed, if it did
	errs   [kinds]error // why there is no listing of this kind of entry
	listed [kinds]bool  // there is one
	bytes  [kinds]uint64
	shown  int // wrong values that were kept, as many as can be named
	cut    int // of the first entries: of those from here on none is

	// What came of it.
	tally   Tally
	damages []Damage
	unread  error // nil, or why some of it could not be read
}

// fate is what is known of one value.
type fate struct {
	what  outcome
	shown *shown // where it is wrong
	cause error
}

// shown is another value than the committed one.
type shown struct {
	value []byte // in part
	size  int
	hash  proof.Hash
}

type outcome uint8

const (
	pending    outcome = iota // not seen yet
	verified                  // it is the committed one
	counted                   // verified before, and its bytes counted
	expired                   // it may be left out
	empty                     // listed with no value although it is not empty
	wrong                     // another value came
	unreadable                // the server says it is damaged
	lost                      // the server says it is gone
)

// errNoValue is a value that should have come and did not.
var errNoValue = errors.New("the listing has the entry without its value")

func newInquiry(r *run, t *committed) *inquiry {
	q := &inquiry{r: r, header: &t.header, entries: t.entries, fates: make([]fate, len(t.entries)), cut: len(t.entries)}
	latest := time.Now().Add(expirySkew).Unix()
	for i := range q.entries {
		switch e := &q.entries[i]; {
		case e.HValue == proof.EmptyAlh():
			q.fates[i].what = verified // no value is needed: this is the digest of none
		case e.Metadata.HasExpiry && e.Metadata.ExpiresAt <= latest:
			q.fates[i].what = expired
		}
	}
	return q
}

// had is told what was verified before.
func (q *inquiry) had(seen []bool, bytes [kinds]uint64) {
	q.bytes = bytes
	for i := range seen {
		if seen[i] {
			q.fates[i].what = counted
		}
	}
}

// run asks, and judges what came.
func (q *inquiry) run(ctx context.Context) error {
	if err := q.ask(ctx); err != nil || q.tally.Headers > 0 {
		return err
	}
	truncated, err := q.truncated(ctx)
	if err == nil {
		q.decide(truncated)
	}
	return err
}

func (q *inquiry) ask(ctx context.Context) error {
	if q.left(listedOnly) {
		old, err := q.r.ignoresSpecs(ctx, q.header.ID)
		if err != nil {
			return err
		}
		switch {
		case !old:
			err = q.byKind(ctx)
		case q.r.o.Export:
			err = q.export(ctx)
		}
		if err == nil && q.tally.Headers == 0 {
			err = q.byKey(ctx)
		}
		// Before 1.2.3 there is no truncation that an export could come to
		// grief over, and no other way to values of SQL, or to know whether it
		// is a reference that cannot be read or what it refers to.
		if err == nil && old && q.left(listedOnly) {
			err = q.export(ctx)
		}
		if err != nil {
			return err
		}
	}
	if q.r.o.Export && q.left(all) && q.tally.Headers == 0 {
		return q.export(ctx)
	}
	return nil
}

// other is shown another header of the transaction than a moment ago.
func (q *inquiry) other(h *proof.Header) error {
	if !q.closely {
		return errRestless
	}
	q.tally = Tally{Headers: 1}
	q.drop()
	q.damages = []Damage{q.r.wrongHeader(h.ID, h, q.header.Alh(), h.Alh(), "accumulative linear hash: the server shows two headers of one transaction")}
	return nil
}

const (
	all        = false
	listedOnly = true
)

// left reports whether there are values to be seen still; those of expired
// entries count only where all are asked for.
func (q *inquiry) left(listed bool) bool {
	for i := range q.fates {
		switch q.fates[i].what {
		case pending, empty, unreadable:
			if !listed || kindOf(q.entries[i].Key).listed() {
				return true
			}
		case expired:
			if !listed {
				return true
			}
		}
	}
	return false
}

// pending are the entries of a kind whose values are still to be seen.
func (q *inquiry) pending(k Kind) (list []int) {
	for i := range q.fates {
		if w := q.fates[i].what; (w == pending || w == empty) && kindOf(q.entries[i].Key) == k {
			list = append(list, i)
		}
	}
	return list
}

// byKind lists the values of one kind of entry at a time.
func (q *inquiry) byKind(ctx context.Context) error {
	several := 0
	for _, prefix := range listedKinds {
		if len(q.pending(Kind(prefix))) > 0 {
			several++
		}
	}
	for _, prefix := range listedKinds {
		k := Kind(prefix)
		if len(q.pending(k)) == 0 {
			continue
		}
		if several == 1 && q.failed != nil {
			q.errs[k] = q.failed // it would be the same listing again
			continue
		}
		_, err := q.r.list(ctx, q.header.ID, 1, []byte{prefix}, func(h *proof.Header, entries []proof.ExportedEntry) error {
			if h.Alh() != q.header.Alh() {
				return q.other(h)
			}
			q.match(entries)
			q.listed[k] = true
			return nil
		})
		switch kind := troubleOf(err); {
		case q.tally.Headers > 0:
			return nil
		case kind == fine && !q.listed[k]:
			return errRestless
		case kind.ends() || errors.Is(err, errRestless):
			return err
		}
		q.errs[k] = err
	}
	return nil
}

// match takes the values that a listing has, which keeps the order of entries.
func (q *inquiry) match(listing []proof.ExportedEntry) {
	i := 0
	for n := range listing {
		e := &listing[n]
		for j := i; j < len(q.entries); j++ {
			if bytes.Equal(q.entries[j].Key, e.Key) && q.entries[j].Metadata == e.Metadata {
				q.take(j, e.Value)
				i = j + 1
				break
			}
		}
	}
}

// take is shown a value of an entry.
func (q *inquiry) take(i int, value []byte) {
	f := &q.fates[i]
	if f.what == verified || f.what == counted || f.what == wrong {
		return
	}
	hash := proof.Hash(sha256.Sum256(value))
	switch {
	case hash == q.entries[i].HValue:
		q.verified(i, len(value))
	case value == nil:
		f.what, f.cause = empty, errNoValue
	default:
		q.wrong(i, value, hash)
	}
}

// wrong notes another value than the committed one.
func (q *inquiry) wrong(i int, value []byte, hash proof.Hash) {
	q.fates[i].what = wrong
	if i >= q.cut {
		return
	}
	q.fates[i].shown = &shown{value: q.r.keep(value), size: len(value), hash: hash}
	if q.shown++; q.shown <= evidence.MaxFindings {
		return
	}
	for q.cut--; q.fates[q.cut].shown == nil; q.cut-- {
	}
	q.r.free(len(q.fates[q.cut].shown.value))
	q.fates[q.cut].shown = nil
}

// drop forgets what was found: it is looked at again.
func (q *inquiry) drop() {
	for i := range q.damages {
		q.r.drop(&q.damages[i])
	}
	q.damages = nil
}

func (q *inquiry) verified(i, size int) {
	q.fates[i].what = verified
	q.bytes[kindOf(q.entries[i].Key)] += uint64(size)
}

// byKey asks for key/value entries one by one, the last first. Values of a
// transaction lie one after the other and are truncated from the front: where
// retention may have taken one, it has taken those before it too.
func (q *inquiry) byKey(ctx context.Context) error {
	list := q.pending(KeyValue)
	for n := len(list) - 1; n >= 0; n-- {
		i := list[n]
		if len(q.entries[i].Key) < 2 {
			continue
		}
		stored, err := q.valueAt(ctx, q.entries[i].Key)
		f := &q.fates[i]
		switch troubleOf(err) {
		case fine:
			q.takeOne(i, stored)
		case damaged:
			f.what, f.cause = unreadable, err
		case gone:
			f.cause = err
			ok, err := q.r.retained(ctx, q.header.ID)
			if err != nil {
				return err
			}
			if !ok && q.r.retain.known.Load() > 0 && troubleOf(q.errs[KeyValue]) == damaged {
				// It may be there itself, and refer to a value that retention
				// has removed: what the listing stumbled over is something else.
				continue
			}
			f.what = lost
			if ok {
				for _, j := range list[:n] {
					q.fates[j] = *f
				}
				return nil
			}
		case tooLarge, garbled:
			if f.cause == nil {
				f.cause = err
			}
		default:
			return err
		}
	}
	return nil
}

func (q *inquiry) valueAt(ctx context.Context, key []byte) (stored [][]byte, err error) {
	err = q.r.ask(ctx, false, func(ctx context.Context) (int, error) {
		stored, err = q.r.o.Source.ValueAt(ctx, q.r.o.Database, key, q.header.ID)
		n := 0
		if len(stored) > 0 {
			n = len(stored[0])
		}
		return n, err
	})
	return stored, err
}

// takeOne is shown what may be the value of an entry, in several forms.
func (q *inquiry) takeOne(i int, stored [][]byte) {
	for _, value := range stored {
		if sha256.Sum256(value) == q.entries[i].HValue {
			q.verified(i, len(value))
			return
		}
	}
	if len(stored) > 0 {
		q.take(i, stored[0])
	}
}

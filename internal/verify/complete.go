package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"immuaudit/proof"
)

// committed is a transaction as its listing without values has it, copied out
// of the answer.
type committed struct {
	header  proof.Header
	entries []proof.Entry
}

func copied(h *proof.Header, entries []proof.ExportedEntry) *committed {
	t := &committed{header: *h, entries: make([]proof.Entry, len(entries))}
	t.header.Metadata.Extra = append([]byte(nil), h.Metadata.Extra...)
	for i := range entries {
		t.entries[i] = entries[i].Entry
		t.entries[i].Key = append([]byte(nil), entries[i].Key...)
	}
	return t
}

// root is the root over the entries as they are listed.
func (t *committed) root(tree *entryTree) (proof.Hash, error) {
	tree.reset()
	for i := range t.entries {
		digest, err := proof.EntryDigest(t.header.Version, &t.entries[i])
		if err != nil {
			return proof.Hash{}, err
		}
		tree.add(digest)
	}
	return tree.root(), nil
}

// whole reports whether these are the entries that the header commits to.
func (t *committed) whole(tree *entryTree) bool {
	root, err := t.root(tree)
	return err == nil && len(t.entries) == int(t.header.NEntries) && root == t.header.EH
}

// digests lists one transaction with all its entries and no values.
func (r *run) digests(ctx context.Context, tx uint64) (t *committed, err error) {
	_, err = r.list(ctx, tx, 1, nil, func(h *proof.Header, entries []proof.ExportedEntry) error {
		t = copied(h, entries)
		return nil
	})
	if err == nil && t == nil {
		err = fmt.Errorf("the server does not show transaction %d, which is a trusted one", tx)
	}
	return t, err
}

// complete lists the digests of the transactions that were listed in part:
// what listings with values leave out.
func (l *look) complete(ctx context.Context) error {
	for i, q := range l.asks {
		l.asks[i] = nil // its entries are not needed any longer than that
		if l.at(q.header.ID).standing != bad {
			if err := l.settle(ctx, q); err != nil {
				return err
			}
		}
	}
	l.asks, l.parted = nil, 0
	for rest := l.parts; len(rest) > 0; {
		n := together(rest)
		if err := l.fill(ctx, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	l.parts = nil
	return nil
}

// together is how many of the parts lie so close that one listing is less than
// one for each.
func together(parts []part) int {
	n := 1
	for n < len(parts) {
		if span := parts[n].tx - parts[0].tx + 1; span > maxPage || span > 4*uint64(n+1) {
			break
		}
		n++
	}
	return n
}

// fill lists the range that parts lie in.
func (l *look) fill(ctx context.Context, parts []part) error {
	for len(parts) > 0 {
		if l.at(parts[0].tx).standing == bad {
			parts = parts[1:] // it says nothing
			continue
		}
		var asks []*inquiry
		done, came := 0, false
		span := int(parts[len(parts)-1].tx-parts[0].tx) + 1
		_, err := l.r.list(ctx, parts[0].tx, span, nil, func(h *proof.Header, entries []proof.ExportedEntry) error {
			came = true
			if done == len(parts) || h.ID != parts[done].tx {
				return nil
			}
			p := &parts[done]
			done++
			if h.Alh() != p.alh {
				l.doubt(h.ID, &p.alh)
				return nil
			}
			if q := l.filled(h, entries, p); q != nil {
				asks = append(asks, q)
			}
			return nil
		})
		for i, q := range asks {
			asks[i] = nil
			if err := l.settle(ctx, q); err != nil {
				return err
			}
		}
		first := parts[0].tx
		parts = parts[done:]
		kind := troubleOf(err)
		switch {
		case errors.Is(err, errRestless), kind.ends() && (kind != slow || len(parts) < 2):
			return err
		case kind == fine && !came:
			return fmt.Errorf("the server does not show transaction %d, which is a trusted one", first)
		case kind == fine || done > 0:
		case len(parts) == 1:
			l.doubt(first, &parts[0].alh)
			parts = nil
		default:
			if err := l.fill(ctx, parts[:len(parts)/2]); err != nil {
				return err
			}
			parts = parts[len(parts)/2:]
		}
	}
	return nil
}

// filled checks the listing of a transaction that was listed in part. What must
// be asked for besides is an inquiry.
func (l *look) filled(h *proof.Header, entries []proof.ExportedEntry, p *part) *inquiry {
	t := committed{header: *h}
	l.tree.reset()
	seen := make([]bool, len(entries))
	found := 0
	for i := range entries {
		digest, err := proof.EntryDigest(h.Version, &entries[i].Entry)
		if err != nil {
			break // a root that does not fit
		}
		l.tree.add(digest)
		if found < len(p.seen) && digest == p.seen[found] {
			seen[i] = true
			found++
		}
	}
	if l.tree.root() != t.header.EH || len(entries) != int(h.NEntries) || found < len(p.seen) {
		l.doubt(h.ID, &p.alh)
		return nil
	}
	q := l.inquire(copied(h, entries))
	q.had(seen, p.bytes)
	return q
}

// again looks once more, one by one, at the transactions that do not hold.
func (l *look) again(ctx context.Context) error {
	slices.SortFunc(l.suspects, func(a, b suspect) int { return cmp.Compare(a.tx, b.tx) })
	for _, s := range l.suspects {
		if l.at(s.tx).standing == bad {
			continue // it says nothing
		}
		var q *inquiry
		ask := func(ctx context.Context) (err error) {
			q, err = l.resolve(ctx, s)
			return err
		}
		var err error
		if l.closely {
			err = ask(ctx)
		} else {
			err = l.r.confirm(ctx, ask)
		}
		if err != nil {
			return err
		}
		if len(q.damages) == 0 && q.unread == nil {
			q.tally.Unstable++
		}
		l.account(q)
	}
	l.suspects = nil
	return nil
}

// resolve finds out all there is to find out about one transaction.
func (l *look) resolve(ctx context.Context, s suspect) (*inquiry, error) {
	t, err := l.r.digests(ctx, s.tx)
	switch kind := troubleOf(err); {
	case kind.ends():
		return nil, err
	case kind == fine:
		if s.alh == nil {
			return nil, errRestless
		}
		if got := t.header.Alh(); got != *s.alh {
			return l.another(&t.header, *s.alh)
		}
		if root, err := t.root(&l.tree); err != nil || len(t.entries) != int(t.header.NEntries) || root != t.header.EH {
			q := l.inquire(&committed{header: t.header})
			q.tally.Unlisted++
			q.damages = append(q.damages, l.r.wrongEntries(&t.header, root, len(t.entries)))
			return q, nil
		}
		q := l.inquire(t)
		return q, q.run(ctx)
	case kind == damaged || kind == gone:
		return l.unlisted(ctx, s, err)
	}
	q := l.inquire(&committed{header: proof.Header{ID: s.tx}})
	q.unread = err
	return q, nil
}

// another is a transaction of which the server shows another header than a
// moment ago.
func (l *look) another(h *proof.Header, want proof.Hash) (*inquiry, error) {
	if !l.closely {
		return nil, errRestless
	}
	q := l.inquire(&committed{header: *h})
	q.tally.Headers++
	q.damages = append(q.damages, l.r.wrongHeader(h.ID, h, want, h.Alh(), "accumulative linear hash: the server shows two headers of one transaction"))
	return q, nil
}

// unlisted is a transaction whose entries the server says it cannot read.
func (l *look) unlisted(ctx context.Context, s suspect, cause error) (*inquiry, error) {
	q := l.inquire(&committed{header: proof.Header{ID: s.tx}})
	list, err := l.r.headers(ctx, s.tx, 1)
	switch kind := troubleOf(err); {
	case kind.ends():
		return nil, err
	case len(list) > 0 && list[0].ID == s.tx:
		if s.alh == nil {
			return nil, errRestless
		}
		if list[0].Alh() != *s.alh {
			return l.another(&list[0], *s.alh)
		}
		q.tally.Unlisted++
		q.damages = append(q.damages, l.r.noEntries(s.tx, &list[0], cause))
	case kind == damaged || kind == gone:
		q.tally.Headers++
		q.damages = append(q.damages, noHeader(s.tx, err))
	default:
		q.unread = errors.Join(cause, err)
	}
	return q, nil
}

package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"immuaudit/proof"
)

// exporting is whether exports are to be had.
type exporting struct {
	mu    sync.Mutex
	ended error // why not any more
}

func (x *exporting) over() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ended
}

func (x *exporting) end(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended == nil {
		x.ended = err
	}
}

// export asks for the transaction as a whole. It is never done where retention
// may have removed values: the export of a partly truncated transaction never
// returns, and blocks all others on the server (docs/protocol.md §2).
func (q *inquiry) export(ctx context.Context) error {
	if q.r.exports.over() != nil {
		return nil
	}
	for i := range q.fates {
		if q.fates[i].what == lost {
			return nil
		}
	}
	touched, err := q.r.retained(ctx, q.header.ID)
	if err != nil || touched {
		return err
	}
	var x *proof.Export
	err = q.r.ask(ctx, true, func(ctx context.Context) (n int, err error) {
		if x, err = q.r.o.Source.Export(ctx, q.r.o.Database, q.header.ID); err == nil {
			for i := range x.Entries {
				n += len(x.Entries[i].Key) + len(x.Entries[i].Value)
			}
		}
		return n, err
	})
	switch troubleOf(err) {
	case fine:
		if !q.exported(x) {
			q.unread = errors.New("its export is not what the server lists of it")
		}
		return nil
	case slow, final:
		if ctx.Err() != nil {
			return err
		}
		// One that hangs has blocked all others, and no permission for one is
		// none for any.
		q.r.exports.end(err)
		return nil
	case passing:
		return err
	}
	q.errs[Document], q.errs[Other] = err, err
	return nil
}

// exported takes the values of an export, if it is one of this transaction.
func (q *inquiry) exported(x *proof.Export) bool {
	if x.Header.Alh() != q.header.Alh() || len(x.Entries) != len(q.entries) {
		return false
	}
	for i := range x.Entries {
		if !bytes.Equal(x.Entries[i].Key, q.entries[i].Key) {
			return false
		}
	}
	for i := range x.Entries {
		e := &x.Entries[i]
		f := &q.fates[i]
		switch {
		case f.what == verified || f.what == counted || f.what == wrong:
		case x.Truncated:
			f.what, f.cause = lost, errors.New("its export has only the digests of its values")
		case e.HValue == q.entries[i].HValue:
			q.verified(i, len(e.Value))
		default:
			q.wrong(i, e.Value, e.HValue)
		}
	}
	return true
}

// oldServer is whether the server is older than 1.2.3, and lists all entries
// and no values whatever it is asked for.
type oldServer struct {
	mu         sync.Mutex
	asked, old bool
}

// is reports whether it is known to be.
func (o *oldServer) is() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked && o.old
}

// ignoresSpecs asks for a transaction that has entries without any of them.
func (r *run) ignoresSpecs(ctx context.Context, tx uint64) (bool, error) {
	r.old.mu.Lock()
	defer r.old.mu.Unlock()
	if r.old.asked {
		return r.old.old, nil
	}
	shown := false
	_, err := r.list(ctx, tx, 1, []byte{}, func(h *proof.Header, entries []proof.ExportedEntry) error {
		shown = true
		r.old.old = len(entries) > 0
		return nil
	})
	switch kind := troubleOf(err); {
	case kind.ends():
		return false, fmt.Errorf("finding out how the server lists entries: %w", err)
	case kind == fine && shown:
		r.old.asked = true
	default: // not by this transaction
		return false, nil
	}
	return r.old.old, nil
}

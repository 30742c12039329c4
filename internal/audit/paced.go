package audit

import (
	"context"

	"golang.org/x/time/rate"

	"immuaudit/internal/verify"
	"immuaudit/proof"
)

// paced is a source of which all that verify at a time read no more together
// than one may. What came is paid for afterwards: how much that is, is not known
// before.
type paced struct {
	verify.Source
	limit *rate.Limiter // nil: no bound
}

// payParts is how many parts of a second's worth are paid one by one.
const payParts = 16

func newPace(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(bytesPerSecond, 1<<30)))
}

func (p *paced) pay(ctx context.Context, n int) {
	for p.limit != nil && n > 0 {
		// In small parts, so that a round with little to pay waits for a part of
		// each page that is being paid, and not for the pages.
		part := min(n, max(1, p.limit.Burst()/payParts))
		if p.limit.WaitN(ctx, part) != nil {
			<-ctx.Done() // the limiter knows of a deadline before it has passed
			return
		}
		n -= part
	}
}

func (p *paced) Transactions(ctx context.Context, db string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (int, error) {
	n, err := p.Source.Transactions(ctx, db, from, limit, values, each)
	p.pay(ctx, n)
	return n, err
}

func (p *paced) ValueAt(ctx context.Context, db string, key []byte, tx uint64) ([][]byte, error) {
	stored, err := p.Source.ValueAt(ctx, db, key, tx)
	if len(stored) > 0 {
		p.pay(ctx, len(key)+len(stored[0]))
	}
	return stored, err
}

func (p *paced) Export(ctx context.Context, db string, tx uint64) (*proof.Export, error) {
	export, err := p.Source.Export(ctx, db, tx)
	if err == nil {
		for i := range export.Entries {
			p.pay(ctx, len(export.Entries[i].Value))
		}
	}
	return export, err
}

package wire

import (
	"context"
	"fmt"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// Headers gives up to limit consecutive headers of db, beginning with
// transaction from; none where that lies beyond the end. Fewer than limit do
// not mean that the history ends there: a page is 1,000 at most, and halved
// where it is too large for [Options].MaxRecvMsgSize, as with servers that send
// entries nobody asked for. Ask again from where it stopped.
func (c *Client) Headers(ctx context.Context, db string, from uint64, limit int) ([]proof.Header, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	const op = "TxScan"
	if from == 0 || limit < 1 {
		return nil, c.malformed(op, db, &proof.Malformed{What: "request", Why: fmt.Sprintf("%d headers from transaction %d", limit, from)})
	}
	k, f := c.ledger(db)
	if f != nil {
		return nil, f.asError()
	}
	for {
		c.mu.Lock()
		n := k.page.of(limit)
		c.mu.Unlock()
		reply := new(schema.TxList)
		f := c.onDatabase(ctx, db, schema.ImmuService_TxScan_FullMethodName, &schema.TxScanRequest{
			InitialTx:   from,
			Limit:       uint32(n),
			EntriesSpec: headersOnly(),
			NoWait:      true, // headers do not need the server's index
		}, reply)
		switch {
		case f == nil:
			headers, err := consecutive(reply.GetTxs(), from, n)
			if err != nil {
				return nil, c.undecodable(op, db, err)
			}
			c.mu.Lock()
			k.page.fitted(n, len(headers))
			c.mu.Unlock()
			return headers, nil
		case f.Op != op || f.Kind != TooLarge:
			return nil, f.asError()
		case n > 1:
			c.mu.Lock()
			k.page.halve(n)
			c.mu.Unlock()
		default:
			f.hint = fmt.Sprintf("transaction %d alone is more than the %d bytes of --max-recv-msg-size: raise it", from, c.maxRecv)
			return nil, f
		}
	}
}

// consecutive decodes a page and checks that it is what was asked for: at most
// n headers, whose ids follow each other from the first.
func consecutive(txs []*schema.Tx, from uint64, n int) ([]proof.Header, error) {
	if len(txs) > n {
		return nil, &proof.Malformed{What: "txs", Why: fmt.Sprintf("%d transactions where %d were asked for", len(txs), n)}
	}
	headers := make([]proof.Header, 0, len(txs))
	for i, tx := range txs {
		h, err := DecodeHeader(tx.GetHeader())
		if err != nil {
			return nil, err
		}
		if want := from + uint64(i); h.ID != want {
			return nil, &proof.Malformed{What: "txs.header.id", Why: fmt.Sprintf("%d where %d follows", h.ID, want)}
		}
		headers = append(headers, h)
	}
	return headers, nil
}

// page is how many headers of one database are asked for at a time. The zero
// value is the most.
type page struct {
	size int // 0: maxPage
	full int // pages in a row that were full and fitted
}

func (p *page) of(limit int) int {
	if p.size == 0 {
		return min(limit, maxPage)
	}
	return min(limit, p.size)
}

// halve makes do with half of the n that did not fit.
func (p *page) halve(n int) {
	p.full = 0
	if half := max(1, n/2); p.size == 0 || half < p.size {
		p.size = half
	}
}

// fitted counts pages that were as large as is tried, and tries larger ones
// after some of them.
func (p *page) fitted(asked, got int) {
	if p.size == 0 || asked < p.size || got < asked {
		return
	}
	if p.full++; p.full < pagesBeforeGrowth {
		return
	}
	p.full = 0
	if p.size *= 2; p.size >= maxPage {
		p.size = 0
	}
}

package wire

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
)

// A server that sends entries nobody asked for, as those before 1.2.3 do.
func TestHeadersHalving(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "old")
	s.set(func() { s.databases[0].length, s.databases[0].entries = 3000, 1<<10 })
	c := dial(t, s.addr, func(o *Options) { o.MaxRecvMsgSize = 100 << 10 })

	next := uint64(1)
	for next <= 3000 {
		page, err := c.Headers(t.Context(), "old", next, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 || page[0].ID != next {
			t.Fatalf("at %d: %d headers", next, len(page))
		}
		next += uint64(len(page))
	}
	// 62 fit and 125 do not: found once, tried again after 16 pages that fit.
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := []int{1000, 500, 250, 125, 62, 62}; !slices.Equal(s.scans[:6], want) {
		t.Errorf("asked for %v first, want %v", s.scans[:6], want)
	}
	if want := []int{62, 124, 62}; !slices.Equal(s.scans[4+15:4+18], want) {
		t.Errorf("asked for %v after 15 pages, want %v", s.scans[4+15:4+18], want)
	}
	if got := c.Stats().Calls["UseDatabase"]; got != 1 {
		t.Errorf("%d tokens for pages that were too large, want 1", got)
	}
}

// The growth comes back to the full page once the large transactions are past.
func TestPage(t *testing.T) {
	t.Parallel()
	var p page
	if p.of(5000) != 1000 || p.of(3) != 3 {
		t.Fatalf("the first page has %d and %d", p.of(5000), p.of(3))
	}
	for n := p.of(1000); n > 1; n = p.of(1000) {
		p.halve(n)
	}
	if p.of(1000) != 1 {
		t.Fatalf("halved down to %d", p.of(1000))
	}
	pages := 0
	for p.of(1000) < 1000 {
		p.fitted(p.of(1000), p.of(1000))
		if pages++; pages > 10*pagesBeforeGrowth {
			t.Fatalf("still %d after %d pages", p.of(1000), pages)
		}
	}
	// Pages that were not full say nothing about larger ones.
	p.halve(1000)
	for range 2 * pagesBeforeGrowth {
		p.fitted(500, 499)
		p.fitted(10, 10)
	}
	if p.of(1000) != 500 {
		t.Errorf("grew to %d on pages that were not full", p.of(1000))
	}
	// A small request that does not fit shrinks, a large one does not widen.
	p.halve(8)
	p.halve(600)
	if p.of(1000) != 4 {
		t.Errorf("%d after halving 8", p.of(1000))
	}
}

func TestHeadersTooLarge(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "old")
	s.set(func() { s.databases[0].entries = 200 << 10 })
	c := dial(t, s.addr, func(o *Options) { o.MaxRecvMsgSize = 100 << 10 })
	_, err := c.Headers(t.Context(), "old", 2, 1000)
	wantFault(t, err, TooLarge, "--max-recv-msg-size", "transaction 2", "102400")

	s.answer("TxScan", say(codes.Unknown, "result size limit exceeded: whatever"))
	_, err = c.Headers(t.Context(), "old", 2, 1000)
	wantFault(t, err, TooLarge)
	if got := c.Stats().Calls["UseDatabase"]; got != 1 {
		t.Errorf("%d tokens, want 1", got)
	}
}

// Four megabytes of empty transactions would be hundreds of megabytes here.
func TestHeadersOfNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	many := &schema.TxList{Txs: slices.Repeat([]*schema.Tx{{}}, maxElements+1)}
	s.answer("TxScan", give(many))
	c := dial(t, s.addr)
	_, err := c.Headers(t.Context(), "db0", 1, 1)
	wantFault(t, err, TooLarge)
}

func TestHeadersMalformed(t *testing.T) {
	t.Parallel()
	list := func(ids ...uint64) answerFunc {
		return func(_ context.Context, m proto.Message) (any, error, bool) {
			reply := new(schema.TxList)
			for _, id := range ids {
				reply.Txs = append(reply.Txs, transaction("db0", id, 0))
			}
			return reply, nil, true
		}
	}
	for name, tt := range map[string]struct {
		answer answerFunc
		says   string
	}{
		"another first":    {list(3, 4), "3 where 2 follows"},
		"a gap":            {list(2, 4), "4 where 3 follows"},
		"a repeat":         {list(2, 2), "2 where 3 follows"},
		"more than asked":  {list(2, 3, 4, 5), "4 transactions where 3"},
		"nothing in it":    {give(&schema.TxList{Txs: []*schema.Tx{{}}}), "header"},
		"an unknown world": {give(&schema.TxList{Txs: []*schema.Tx{{Header: &schema.TxHeader{Id: 2, Version: 7}}}}), "version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil, "db0")
			s.answer("TxScan", tt.answer)
			c := dial(t, s.addr)
			_, err := c.Headers(t.Context(), "db0", 2, 3)
			wantFault(t, err, Malformed, tt.says)
		})
	}
	s := serve(t, nil, "db0")
	c := dial(t, s.addr)
	_, err := c.Headers(t.Context(), "db0", 0, 1)
	wantFault(t, err, Malformed)
	_, err = c.Headers(t.Context(), "db0", 1, 0)
	wantFault(t, err, Malformed)
	if got := s.called("TxScan"); got != 0 {
		t.Errorf("%d calls for requests that make no sense", got)
	}
}

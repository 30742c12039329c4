package verify_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// Of more damages than can be named all are counted, and the first are named,
// in order, however they lie and whatever else is wrong beside them.
func TestManyDamages(t *testing.T) {
	t.Parallel()
	const most = evidence.MaxFindings
	spread := func(n, each int) (s *script) {
		s = &script{}
		for range n {
			s.add(t, proof.TxMetadata{}, pairs(each, 9, "committed")...)
			s.alter(uint64(len(s.txs)), "shown")
		}
		return s
	}
	bytewise := func(s *script, words string) *script { // only key by key
		s.before = func(c call) error {
			if c.op == "values" && c.limit == 1 && len(c.values) == 1 || c.op == "values" && len(c.values) > 1 {
				return refused(words)
			}
			return nil
		}
		return s
	}
	for name, tt := range map[string]struct {
		s       *script
		damages uint64
		kind    evidence.Kind
		first   []uint64 // transactions of the first ones named
	}{
		"one each":           {spread(7*most, 1), 7 * most, evidence.Value, []uint64{1, 2, 3, 4}},
		"several each":       {spread(most, 3), 3 * most, evidence.Value, []uint64{1, 1, 1, 2}},
		"all in one":         {spread(1, 3*most), 3 * most, evidence.Value, []uint64{1, 1}},
		"all in one, by key": {bytewise(spread(1, 3*most), corrupted), 3 * most, evidence.Value, []uint64{1, 1}},
	} {
		for _, o := range []verify.Options{tt.s.options(), tt.s.unmirrored()} {
			sum, err := verified(t, t.Context(), o)
			if err != nil || sum.Tally.Damages() != tt.damages || len(sum.Damages) != most || sum.Clean != 0 {
				t.Fatalf("%s: %v: %d damages of which %d are named", name, err, sum.Tally.Damages(), len(sum.Damages))
			}
			var keys []string
			for i, d := range sum.Damages {
				if i < len(tt.first) && d.Tx != tt.first[i] || d.Kind != tt.kind || string(d.Received) != "shown" || d.Size != 5 || d.Entry == nil {
					t.Errorf("%s: number %d: %+v", name, i, d)
				}
				keys = append(keys, fmt.Sprintf("%04d%s", d.Tx, d.Where.Key))
			}
			want := make([]string, 0, most)
			for i := range tt.s.txs {
				for _, e := range tt.s.txs[i].entries {
					want = append(want, fmt.Sprintf("%04d%x", i+1, e.Key))
				}
			}
			if !slices.Equal(keys, want[:most]) {
				t.Errorf("%s: named are\n%q, not\n%q", name, keys, want[:most])
			}
		}
	}

	// A header among them is found too, and what is before it is bound by the
	// mirror: every transaction is looked at for itself then.
	s := spread(90, 40)
	s.show = func(_ call, h *proof.Header, entries []proof.ExportedEntry) (*proof.Header, []proof.ExportedEntry) {
		if h.ID == 60 {
			h.Ts++
		}
		return h, entries
	}
	sum, err := verified(t, t.Context(), s.options())
	if err != nil || sum.Total().Damaged != 89*40 || sum.Headers != 1 || len(sum.Damages) != most || sum.Damages[most-1].Tx != 3 {
		t.Errorf("%v: %+v", err, sum.Tally)
	}
}

// What a server says of values is damage one by one too: said to be damaged,
// gone, left out, or empty.
func TestManySaid(t *testing.T) {
	t.Parallel()
	const n = 3 * evidence.MaxFindings
	for name, tt := range map[string]struct {
		get     string
		listing string
		leave   bool
		empty   bool
		kind    evidence.Kind
	}{
		"damaged":  {get: corrupted, listing: corrupted, kind: evidence.Value},
		"gone":     {get: endOfFile, listing: endOfFile, kind: evidence.ValueMissing},
		"left out": {get: "key not found", leave: true, kind: evidence.ValueMissing},
		"no value": {get: "key not found", empty: true, kind: evidence.Value},
	} {
		s := scriptOf(t, pairs(n, 6, "v"), []proof.ExportedEntry{put("\x00k", "v")})
		s.before = func(c call) error {
			switch {
			case !c.has(1):
			case c.op == "get" && tt.get != "":
				return refused(tt.get)
			case c.op == "values" && tt.listing != "":
				return refused(tt.listing)
			}
			return nil
		}
		s.show = func(c call, h *proof.Header, entries []proof.ExportedEntry) (*proof.Header, []proof.ExportedEntry) {
			if c.op == "values" && h.ID == 1 {
				if tt.leave {
					return h, nil
				}
				for i := range entries {
					entries[i].Value = nil
				}
			}
			return h, entries
		}
		sum, err := verified(t, t.Context(), s.options())
		c := sum.Total()
		if err != nil || c.Damaged+c.Missing != n || c.Verified != 1 || len(sum.Damages) != evidence.MaxFindings || sum.Clean != 0 {
			t.Fatalf("%s: %v: %+v", name, err, sum.Tally)
		}
		for i, d := range sum.Damages {
			if d.Kind != tt.kind || d.Where.Key != fmt.Sprintf("%x", s.txs[0].entries[i].Key) || d.Entry == nil || d.Received != nil || (c.Missing > 0) != (tt.kind == evidence.ValueMissing) {
				t.Errorf("%s: %+v", name, d)
			}
		}
	}
}

// A run ends with its context wherever it stands, with nobody left behind and
// nothing settled that was not looked at.
func TestCancelledAnywhere(t *testing.T) {
	t.Parallel()
	total := 1
	for at := 1; at <= total; at++ {
		synctest.Test(t, func(t *testing.T) {
			s := scriptOf(t)
			for i := range 120 {
				entries := pairs(1+i%3, 6, "v")
				if i%10 == 0 {
					entries = append(entries, put("\x03document", "d"))
				}
				s.add(t, proof.TxMetadata{}, entries...)
			}
			s.alter(40, "damaged")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var n atomic.Int64
			s.before = func(c call) error {
				if n.Add(1) == int64(at) {
					cancel()
					return ctx.Err()
				}
				if c.has(77) && c.op == "values" {
					return refused(corrupted)
				}
				return ctx.Err()
			}
			o := s.options()
			o.Export = true
			o.Confirm = func(ctx context.Context, look func(context.Context) error) error { return look(ctx) }
			sum, err := verified(t, ctx, o)
			total = max(total, int(n.Load()))
			if ctx.Err() == nil { // there were fewer calls this time
				return
			}
			var stopped *verify.Stopped
			if !errors.As(err, &stopped) || !errors.Is(err, context.Canceled) || sum.Through == sum.To && at < 5 {
				t.Errorf("cancelled at call %d: %v: %+v", at, err, sum)
			}
			if sum.Through >= 40 && (len(sum.Damages) != 1 || sum.Damages[0].Tx != 40) {
				t.Errorf("cancelled at call %d: settled up to %d with %+v", at, sum.Through, sum.Damages)
			}
		})
	}
	if total < 20 {
		t.Errorf("only %d calls", total)
	}
}

// Values and transactions that fit in no answer: entries are fetched apart, and
// what cannot be had at all is left out, with the setting that would help; the
// pages of what comes after it are as large as before.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	const n, limit = 9000, 4 << 20
	s := scriptOf(t)
	for i := range n {
		switch i + 1 {
		case 3000: // 6 MB, in three values
			s.add(t, proof.TxMetadata{}, pairs(3, 6, "large")...)
		case 6000: // one of 30 MB, and a small one
			s.add(t, proof.TxMetadata{}, put("\x00huge", "huge"), put("\x00small", "small"))
		default:
			s.add(t, proof.TxMetadata{}, put("\x00k", "v"))
		}
	}
	s.before = func(c call) error {
		switch {
		case c.op == "get" && c.key == "\x00huge", c.op == "values" && (c.has(3000) || c.has(6000)):
			return &wire.Fault{Kind: wire.TooLarge, Op: "TxScan"}
		}
		return nil
	}
	o := s.options()
	o.MessageBytes = limit
	sum, err := verified(t, t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "--max-recv-msg-size") || !strings.Contains(err.Error(), "first is 6000") || len(sum.Unread) != 1 ||
		sum.Total().Verified != n-2+3+1 || sum.Total().Unseen != 1 || sum.Tally.Damages() > 0 || sum.Transactions != n || sum.Through != 5999 {
		t.Errorf("%v: %+v", err, sum)
	}
	if calls := s.count(func(call) bool { return true }); calls > 250 {
		t.Errorf("%d calls", calls)
	}
	if s.count(func(c call) bool { return c.from > 8000 && c.limit >= 200 }) == 0 {
		t.Error("pages are still small long after what was too large")
	}
}

// A server that needs too long for a page is asked for smaller ones, and for
// larger ones again when it has become faster.
func TestSlowPages(t *testing.T) {
	t.Parallel()
	s := scriptOf(t)
	for range 20_000 {
		s.add(t, proof.TxMetadata{}, put("\x00k", "v"))
	}
	slow := func(c call) bool { return c.from < 6000 && c.limit > 100 }
	s.before = func(c call) error {
		if slow(c) {
			return fault(wire.Timeout)
		}
		return nil
	}
	sum, err := verified(t, t.Context(), s.options())
	if err != nil || sum.Clean != 20_000 {
		t.Fatalf("%v: %+v", err, sum)
	}
	// Each costs a whole deadline of the connection: one of a few in a row.
	if n := s.count(slow); n > 40 {
		t.Errorf("%d calls without an answer in time", n)
	}
	if s.count(func(c call) bool { return c.limit == 1000 }) == 0 {
		t.Error("pages stay small")
	}
}

// One large transaction between tiny ones makes the pages after it small, and
// not for long.
func TestUnevenPages(t *testing.T) {
	t.Parallel()
	s := scriptOf(t)
	for range 9000 {
		s.add(t, proof.TxMetadata{}, put("\x00k", "v"))
	}
	s.txs[2999].entries = []proof.ExportedEntry{put("\x00k", "v")}
	huge := strings.Repeat("x", 30<<20)
	s.txs = s.txs[:2999]
	s.mirror = s.mirror[:2999]
	s.add(t, proof.TxMetadata{}, put("\x00huge", huge))
	for range 6000 {
		s.add(t, proof.TxMetadata{}, put("\x00k", "v"))
	}
	o := s.options()
	o.MessageBytes, o.MemoryBytes = 64<<20, 1 // one page at a time
	sum, err := verified(t, t.Context(), o)
	if err != nil || sum.Clean != 9000 {
		t.Fatalf("%v: %+v", err, sum)
	}
	if calls := s.count(func(call) bool { return true }); calls > 120 {
		t.Errorf("%d calls", calls)
	}
}

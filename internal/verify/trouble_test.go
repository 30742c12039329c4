package verify_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// failing is a Source whose calls for transactions fail as they are told.
type failing struct {
	verify.Source
	fail func(from uint64, limit int) error
}

func (f *failing) Transactions(ctx context.Context, db string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (int, error) {
	if err := f.fail(from, limit); err != nil {
		return 0, err
	}
	return f.Source.Transactions(ctx, db, from, limit, values, each)
}

func fault(kind string) error { return &wire.Fault{Kind: kind, Op: "TxScan"} }

// Whatever a connection does is tried again, and is nothing found.
func TestPassingTrouble(t *testing.T) {
	t.Parallel()
	r := record(t, 600, 2, 20)
	for _, kind := range []string{wire.Unreachable, wire.Overloaded, wire.NotLoaded, wire.Timeout, wire.TooLarge, wire.Malformed, wire.Refused} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			o := verify.Options{Mirror: r.mirror, Source: &failing{r, func(_ uint64, limit int) error {
				// Single ones come at last, so that there is an end to halving.
				if calls.Add(1)%3 == 0 && (limit > 1 || kind == wire.Unreachable || kind == wire.Overloaded) {
					return fault(kind)
				}
				return nil
			}}}
			sum, err := verified(t, t.Context(), o)
			if err != nil || sum.Clean != 600 || sum.Total().Verified != 1200 || sum.Tally.Damages() > 0 {
				t.Errorf("%s: %v: %+v", kind, err, sum)
			}
		})
	}
}

// Trouble that does not pass ends the run, with everything before it settled,
// and the next one goes on from there.
func TestStopped(t *testing.T) {
	t.Parallel()
	r := record(t, 600, 1, 20)
	for kind, patience := range map[string]time.Duration{
		wire.Unreachable: time.Minute, wire.Timeout: time.Minute, wire.Overloaded: time.Minute,
		wire.Unauthorised: 0, wire.NotFound: 0, wire.TxNotFound: 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			down := true
			o := verify.Options{Mirror: r.mirror, Source: &failing{r, func(from uint64, limit int) error {
				if down && from+uint64(limit) > 250 {
					return fault(kind)
				}
				return nil
			}}}
			began := time.Now()
			sum, err := verified(t, t.Context(), o)
			var stopped *verify.Stopped
			var f *wire.Fault
			if !errors.As(err, &stopped) || !errors.As(err, &f) || f.Kind != kind || stopped.At != sum.Through+1 || sum.Through >= 250 || sum.Clean != sum.Through || !strings.Contains(err.Error(), "verify again from there") {
				t.Fatalf("%s: %v: %+v", kind, err, sum)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("%s: stopped after %s", kind, took)
			}
			down = false
			o.From = stopped.At
			rest, err := verified(t, t.Context(), o)
			if err != nil || sum.Transactions+rest.Transactions != 600 || sum.Total().Verified+rest.Total().Verified != 600 {
				t.Errorf("%s: %v: %d and %d transactions", kind, err, sum.Transactions, rest.Transactions)
			}
		})
	}
}

// A transaction that cannot be read for a reason nobody knows is left out and
// named; all the others are looked at. Too many of them end the run.
func TestUnread(t *testing.T) {
	t.Parallel()
	r := record(t, 600, 1, 20)
	odd := func(tx ...uint64) verify.Options {
		return verify.Options{Mirror: r.mirror, Source: &failing{r, func(from uint64, limit int) error {
			for _, n := range tx {
				if from <= n && n < from+uint64(limit) {
					return fault(wire.Refused)
				}
			}
			return nil
		}}}
	}
	sum, err := verified(t, t.Context(), odd(77, 300))
	if err == nil || sum.Through != 76 || len(sum.Unread) != 2 || sum.Unread[1].Tx != 300 || sum.Tally.Unread != 2 || sum.Total().Verified != 598 || sum.Tally.Damages() > 0 {
		t.Errorf("%v: %+v", err, sum)
	}
	if err != nil && (!strings.Contains(err.Error(), "first is 77") || !strings.Contains(err.Error(), "refused")) {
		t.Error(err)
	}
	var many []uint64
	for tx := uint64(100); tx < 300; tx++ {
		many = append(many, tx)
	}
	sum, err = verified(t, t.Context(), odd(many...))
	var stopped *verify.Stopped
	if !errors.As(err, &stopped) || sum.Through != 99 {
		t.Errorf("%v: %+v", err, sum)
	}
}

// Answers that are cut, reset or never come, over the whole connection, and a
// server that restarts, cost time and nothing else.
func TestConnections(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"cut-headers", "reset-headers", "slow-headers", "restart"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, ledger.Config{HeaderVersion: 1}, func(o *wire.Options) { o.CallTimeout = time.Second })
			g.fill(2000)
			g.remember()
			ctx, cancel := context.WithCancel(t.Context())
			var once sync.Once
			var group sync.WaitGroup
			defer group.Wait()
			defer cancel()
			strike := func() {
				s, known := attack.Find(name)
				if !known {
					if err := g.ledger.Restart(); err != nil {
						t.Error(err)
					}
					return
				}
				stage := attack.NewStage(g.ledger, g.layer, ledger.DefaultDB)
				stage.Write = func(int) error { return nil }
				if err := s.Strike(stage); err != nil {
					t.Error(err)
				}
				before := g.client.Stats().Calls["TxScan"]
				group.Go(func() { // until it was felt
					for g.client.Stats().Calls["TxScan"] < before+5 && ctx.Err() == nil {
						<-time.After(5 * time.Millisecond)
					}
					g.layer.Clear()
				})
			}
			o := g.options()
			o.MessageBytes = 16 << 10 // many small pages
			o.Progress = func(verify.Progress) { once.Do(strike) }
			sum, err := verify.Run(ctx, o)
			if err != nil || sum.Clean != 2000 || sum.Tally.Damages() > 0 {
				t.Errorf("%v: %+v", err, sum)
			}
		})
	}
}

// Answers fit the limit of the client: pages are halved, and a transaction that
// is too large is asked for in parts.
func TestMessageLimit(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	g := newRig(t, ledger.Config{HeaderVersion: 1}, func(o *wire.Options) { o.MaxRecvMsgSize = limit })
	g.fill(100)
	part := func(n int, prefix string) ledger.Tx {
		var tx ledger.Tx
		for i := range n {
			tx.Entries = append(tx.Entries, ledger.Entry{Key: fmt.Append([]byte(prefix), "large", i), Value: make([]byte, 30<<10), Raw: prefix != ""})
		}
		return tx
	}
	g.commit(part(1, ""), part(1, ""), part(1, ""), part(5, ""), part(1, "\x02"))
	g.fill(100)
	g.remember()
	o := g.options()
	o.MessageBytes = limit
	g.clean(o)

	// One value alone is too much, and a transaction of SQL can be had only as
	// a whole: neither can be seen, and the operator is told what to do.
	g.commit(ledger.Tx{Entries: []ledger.Entry{{Key: []byte("huge"), Value: make([]byte, limit)}, {Key: []byte("small"), Value: []byte("x")}}}, part(3, "\x02"))
	g.remember()
	o.Mirror, o.Trusted = g.mirror, g.trusted
	sum, err := g.verify(o)
	if err == nil || !strings.Contains(err.Error(), "--max-recv-msg-size") || len(sum.Unread) != 2 || sum.Through != 205 || sum.Tally.Damages() > 0 {
		t.Errorf("%v: %+v", err, sum)
	}
	if kv, sql := sum.Kinds[verify.KeyValue], sum.Kinds[verify.SQL]; kv.Unseen != 1 || sql.Unseen != 3 {
		t.Errorf("%+v, %+v", kv, sql)
	}
}

// No more is read in a second than is allowed.
func TestRate(t *testing.T) {
	t.Parallel()
	r := record(t, 600, 1, 100)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		sum, err := verified(t, t.Context(), verify.Options{Mirror: r.mirror, Source: r, BytesPerSecond: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		// The first second's worth is free.
		want := time.Duration(sum.Received) * time.Second / 10_000
		if took := time.Since(began); took < want-2*time.Second || took > want+time.Second || sum.Received < 600*100 {
			t.Errorf("%d bytes in %s", sum.Received, took)
		}
	})
}

// However large a ledger is, no more than so much of it is in memory: so many
// answers are under way at a time, each of so many bytes.
func TestFlight(t *testing.T) {
	t.Parallel()
	r := record(t, 2000, 1, 20)
	for memory, most := range map[int64]int64{1: 1, 100 << 20: 3, 1 << 40: 16} {
		var now, peak atomic.Int64
		s := &failing{r, func(uint64, int) error {
			n := now.Add(1)
			defer now.Add(-1)
			for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
			}
			return nil
		}}
		sum, err := verified(t, t.Context(), verify.Options{Mirror: r.mirror, Source: s, MemoryBytes: memory})
		if err != nil || sum.Clean != 2000 || peak.Load() > most {
			t.Errorf("%d bytes: %v, %d at a time", memory, err, peak.Load())
		}
	}
}

// A server that shows other headers each time it is asked ends in no verdict,
// and one that lies once and then does not has not done any harm.
func TestRestless(t *testing.T) {
	t.Parallel()
	for times, restless := range map[int64]bool{1: false, 1 << 40: true} {
		g := newRig(t, ledger.Config{HeaderVersion: 1})
		g.fill(50)
		g.remember()
		var calls atomic.Int64
		g.layer.Add(attack.Rule{Change: func(_ context.Context, c *attack.Call) error {
			var txs []*schema.Tx
			switch m := c.Response.(type) {
			case *schema.TxList:
				txs = m.GetTxs()
			case *schema.Tx:
				txs = []*schema.Tx{m}
			}
			for _, tx := range txs {
				if tx.GetHeader().GetId() == 20 {
					if n := calls.Add(1); n <= times {
						tx.Header.Ts += n
						tx.Entries = nil
					}
				}
			}
			return nil
		}})
		sum, err := g.verify(g.unmirrored())
		if restless {
			var stopped *verify.Stopped
			if !errors.As(err, &stopped) && sum.Tally.Damages() == 0 {
				t.Errorf("%v: %+v", err, sum)
			}
		} else if err != nil || sum.Clean != 50 {
			t.Errorf("%v: %+v", err, sum)
		}
	}
}

// What is to be believed is looked at under the eyes of Confirm, and not
// believed without it.
func TestConfirm(t *testing.T) {
	t.Parallel()
	g := newRig(t, ledger.Config{HeaderVersion: 1})
	g.fill(60)
	g.remember()
	// Answers are about another database, as with a stale token, until it is
	// bound anew.
	var bound atomic.Bool
	g.layer.Add(attack.Rule{Change: func(_ context.Context, c *attack.Call) error {
		if m, ok := c.Response.(*schema.TxList); ok && !bound.Load() {
			for _, tx := range m.GetTxs() {
				tx.Header.Ts++
			}
		}
		return nil
	}})
	var times int
	o := g.options()
	o.Confirm = func(ctx context.Context, look func(context.Context) error) error {
		times++
		bound.Store(true)
		return look(ctx)
	}
	g.clean(o)
	if times == 0 {
		t.Error("not asked to confirm")
	}

	g.tamper(func(h *ledger.History) { h.SetValue(7, 0, []byte("\x00x")); h.SetValue(9, 0, []byte("\x00x")) })
	times = 0
	if sum, err := g.verify(o); err != nil || len(sum.Damages) != 2 || times != 2 {
		t.Errorf("%v: confirmed %d times: %+v", err, times, sum)
	}
	unsure := errors.New("it cannot be told which database this is")
	o.Confirm = func(context.Context, func(context.Context) error) error { return unsure }
	sum, err := g.verify(o)
	if !errors.Is(err, unsure) || sum.Tally.Damages() > 0 || sum.Through >= 7 {
		t.Errorf("%v: %+v", err, sum)
	}
	o.Confirm = func(context.Context, func(context.Context) error) error { return nil }
	if sum, err = g.verify(o); err == nil || sum.Tally.Damages() > 0 {
		t.Errorf("not looked at again, and yet %v: %+v", err, sum)
	}
}

// An export that hangs blocks no more than itself, once; where retention may
// have taken values there is none.
func TestExportHangs(t *testing.T) {
	t.Parallel()
	g := newRig(t, ledger.Config{HeaderVersion: 1}, func(o *wire.Options) { o.CallTimeout = 2 * time.Second })
	document := func(key string) ledger.Entry {
		return ledger.Entry{Key: []byte("\x03" + key), Value: []byte("document"), Raw: true}
	}
	for range 5 {
		g.commit(ledger.Tx{Entries: []ledger.Entry{document("a"), document("b")}})
	}
	g.remember()
	g.tamper(func(h *ledger.History) { h.RemoveValue(2, 0) })
	o := g.options()
	o.Export = true
	sum, err := g.verify(o)
	if c := sum.Kinds[verify.Document]; err != nil || sum.Exports == nil || c.Unseen == 0 || c.Unseen+c.Verified != 10 {
		t.Errorf("%v: %+v", err, sum)
	}

	g = newRig(t, ledger.Config{HeaderVersion: 1})
	for range 10 {
		g.commit(ledger.Tx{Entries: []ledger.Entry{document("a"), {Key: []byte("k"), Value: []byte("v")}}})
	}
	g.truncate(6)
	g.remember()
	g.tamper(func(h *ledger.History) { h.SetValue(5, 1, []byte("\x00v")) }) // is still there: the export would hang
	s := &counting{Source: g.client}
	o = g.options()
	o.Export, o.Source = true, s
	sum = g.clean(o)
	if c := sum.Kinds[verify.Document]; sum.Exports != nil || s.exports.Load() != 5 || c.Verified != 5 || c.Unseen != 5 {
		t.Errorf("%d exports: %+v", s.exports.Load(), sum)
	}
}

// Nothing a server says in an error gets it out of being found out, and
// nothing that it does not say is damage.
func TestWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"data is corrupted: value length or digest mismatch": {"value"},
		"corrupted data": {"value"},
		"EOF":            {"value-missing"},
		"something else": nil,
		"tx data is corrupted: binary linking mismatch at tx 5": nil,
	} {
		g := newRig(t, ledger.Config{HeaderVersion: 1})
		g.fill(30)
		g.remember()
		g.layer.Add(attack.Rule{Around: func(_ context.Context, c *attack.Call, next func() (any, error)) (any, error) {
			concerns := false
			switch r := c.Request.(type) {
			case *schema.TxScanRequest:
				concerns = r.EntriesSpec != nil && r.InitialTx <= 10 && 10 < r.InitialTx+uint64(r.Limit)
			case *schema.TxRequest:
				concerns = r.EntriesSpec != nil && r.Tx == 10
			case *schema.KeyRequest:
				concerns = r.AtTx == 10
			}
			if concerns {
				return nil, status.Error(codes.Unknown, text)
			}
			return next()
		}})
		sum, err := g.verify(g.options())
		var got []string
		for _, d := range sum.Damages {
			got = append(got, string(d.Kind))
		}
		if !slices.Equal(got, want) || (want == nil) != (err != nil) {
			t.Errorf("%q: %v: %q", text, err, got)
		}
		if want == nil && (len(sum.Unread) != 1 || sum.Unread[0].Tx != 10) {
			t.Errorf("%q: %+v", text, sum)
		}
	}
}

// What was read is good although the rate would not have allowed it in the time
// there was: a run ends with its time, and the next one goes on after it.
func TestRateDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		for range 1000 {
			s.add(t, proof.TxMetadata{}, put("\x00k", "v"))
		}
		s.bytes = 1 << 20 // of each transaction, at 10 kB a second
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		began := time.Now()
		o := s.options()
		o.BytesPerSecond = 10_000
		sum, err := verified(t, ctx, o)
		if !errors.Is(err, context.DeadlineExceeded) || sum.Through == 0 || sum.Through == 1000 || time.Since(began) != 30*time.Second {
			t.Errorf("%v after %s: %+v", err, time.Since(began), sum)
		}
	})
}

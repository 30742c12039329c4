package verify_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"immuaudit/evidence"
	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a ledger behind a layer that may lie, and what was remembered of it
// while it was honest.
type rig struct {
	t      testing.TB
	layer  *attack.Layer
	ledger *ledger.Ledger
	db     *ledger.Database
	client *wire.Client

	mirror  memory
	trusted []proof.State
}

func newRig(t testing.TB, config ledger.Config, change ...func(*wire.Options)) *rig {
	t.Helper()
	g := &rig{t: t, layer: attack.NewLayer()}
	var err error
	if g.ledger, err = ledger.Open(g.layer.Config(config)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.ledger.Close() })
	if err := g.ledger.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if g.db, err = g.ledger.Database(ledger.DefaultDB); err != nil {
		t.Fatal(err)
	}
	g.client = g.dial(change...)
	return g
}

func (g *rig) dial(change ...func(*wire.Options)) *wire.Client {
	g.t.Helper()
	o := wire.Options{Address: g.ledger.Addr(), Username: ledger.AdminUser, Password: ledger.DefaultAdminPassword}
	for _, f := range change {
		f(&o)
	}
	c, err := wire.New(o)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

// commit commits transactions.
func (g *rig) commit(txs ...ledger.Tx) uint64 {
	g.t.Helper()
	ids, err := g.db.CommitAll(txs)
	if err != nil {
		g.t.Fatal(err)
	}
	return ids[len(ids)-1]
}

// fill commits n transactions of one to three key/value entries.
func (g *rig) fill(n int) {
	g.t.Helper()
	txs := make([]ledger.Tx, n)
	for i := range txs {
		for j := range 1 + i%3 {
			txs[i].Entries = append(txs[i].Entries, ledger.Entry{Key: fmt.Append(nil, "k", i, "/", j), Value: fmt.Append(nil, "value ", i, j)})
		}
	}
	g.commit(txs...)
}

// remember takes the history as it is for the one that is trusted.
func (g *rig) remember() {
	g.t.Helper()
	s := g.db.Snapshot()
	last, alh := g.db.State()
	g.mirror = nil
	for id := uint64(1); id <= last; id++ {
		tx, err := s.Tx(id)
		if err != nil {
			g.t.Fatal(err)
		}
		g.mirror = append(g.mirror, proof.LeafHash(tx.Alh))
	}
	g.trusted = []proof.State{{TxID: last, Alh: alh}}
}

// follow trusts what was committed since.
func (g *rig) follow() {
	g.t.Helper()
	before := g.mirror
	g.remember()
	copy(g.mirror, before)
}

func (g *rig) tamper(edit func(h *ledger.History)) {
	g.t.Helper()
	if err := g.db.Tamper(edit); err != nil {
		g.t.Fatal(err)
	}
}

// options verify the whole ledger against the mirror.
func (g *rig) options() verify.Options {
	return verify.Options{Source: g.client, Database: ledger.DefaultDB, Mirror: g.mirror, Trusted: g.trusted}
}

// unmirrored are those without a mirror.
func (g *rig) unmirrored() verify.Options {
	o := g.options()
	o.Mirror = nil
	return o
}

// verify runs, and checks what holds for every run.
func (g *rig) verify(o verify.Options) (verify.Summary, error) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	return verified(g.t, ctx, o)
}

func verified(t testing.TB, ctx context.Context, o verify.Options) (verify.Summary, error) {
	t.Helper()
	var found []verify.Damage
	var through uint64
	o.Found = func(d verify.Damage) { found = append(found, d) }
	o.Progress = func(p verify.Progress) {
		if p.Through < through || p.Through > p.To {
			t.Errorf("settled up to %d, then up to %d of %d", through, p.Through, p.To)
		}
		through = p.Through
	}
	sum, err := verify.Run(ctx, o)
	if len(found) != len(sum.Damages) || len(found) > evidence.MaxFindings || uint64(len(found)) > sum.Tally.Damages() {
		t.Errorf("%d damages reported, %d in the summary, %d counted", len(found), len(sum.Damages), sum.Tally.Damages())
	}
	for i, d := range found {
		if d.Kind == "" || d.Check == "" || d.Detail == "" || d.Tx == 0 || d.Where.FirstBadTx != d.Tx || d.Tx < sum.From {
			t.Errorf("a damage without its particulars: %+v", d)
		}
		if i > 0 && d.Tx < found[i-1].Tx {
			t.Errorf("damage at %d after %d", d.Tx, found[i-1].Tx)
		}
	}
	for k, c := range sum.Kinds {
		if c.Entries != c.Verified+c.Expired+c.Truncated+c.Unseen+c.Damaged+c.Missing {
			t.Errorf("%v: %+v does not add up", verify.Kind(k), c)
		}
	}
	var stopped *verify.Stopped
	switch {
	case err == nil && sum.Through != sum.To:
		t.Errorf("settled up to %d of %d without an error", sum.Through, sum.To)
	case errors.As(err, &stopped) && stopped.At != sum.Through+1:
		t.Errorf("stopped at %d, settled up to %d", stopped.At, sum.Through)
	}
	if sum.Clean > sum.Through || sum.Through > through {
		t.Errorf("clean up to %d, settled up to %d, of which %d was told", sum.Clean, sum.Through, through)
	}
	return sum, err
}

// clean runs and wants everything to hold.
func (g *rig) clean(o verify.Options) verify.Summary {
	g.t.Helper()
	sum, err := g.verify(o)
	if err != nil || sum.Tally.Damages() > 0 || sum.Clean != sum.To || sum.Loose > 0 {
		g.t.Errorf("an honest ledger: %v\n%+v", err, sum)
	}
	return sum
}

// memory is a mirror.
type memory []proof.Hash

func (m memory) Size() uint64 { return uint64(len(m)) }

func (m memory) LeafHashes(first uint64, n int) ([]proof.Hash, error) {
	if first == 0 || first-1+uint64(n) > m.Size() {
		return nil, fmt.Errorf("transaction %d is not mirrored", first)
	}
	return m[first-1 : first-1+uint64(n)], nil
}

// counting counts the calls that are made.
type counting struct {
	verify.Source
	headers, transactions, values, exports atomic.Int64
}

func (c *counting) all() int64 {
	return c.headers.Load() + c.transactions.Load() + c.values.Load() + c.exports.Load()
}

func (c *counting) Headers(ctx context.Context, db string, from uint64, limit int) ([]proof.Header, error) {
	c.headers.Add(1)
	return c.Source.Headers(ctx, db, from, limit)
}

func (c *counting) Transactions(ctx context.Context, db string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (int, error) {
	c.transactions.Add(1)
	return c.Source.Transactions(ctx, db, from, limit, values, each)
}

func (c *counting) ValueAt(ctx context.Context, db string, key []byte, tx uint64) ([][]byte, error) {
	c.values.Add(1)
	return c.Source.ValueAt(ctx, db, key, tx)
}

func (c *counting) Export(ctx context.Context, db string, tx uint64) (*proof.Export, error) {
	c.exports.Add(1)
	return c.Source.Export(ctx, db, tx)
}

package verify_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
)

// Servers before 1.2.3 list no values: the same damage ends in the same
// findings there, reported or hidden, and what there is no way to ask for is
// never called verified.
func TestOldServers(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0.5", "1.1.0", "1.2.1", "1.2.4", "1.11.1"} {
		for _, reader := range []bool{false, true} {
			t.Run(version+map[bool]string{true: "/reader"}[reader], func(t *testing.T) {
				t.Parallel()
				// Readers may export before 1.2.0; nobody has to from 1.2.3 on.
				blind := version == "1.2.1" && reader
				for name, tt := range map[string]struct {
					harm func(g *rig)
					lie  bool // serve "served" for the key k of transaction 3
					want []string
					sees bool // even where nothing but Get is to be had
				}{
					"nothing":         {harm: func(*rig) {}, sees: true},
					"a value":         {harm: func(g *rig) { g.set(3, 0, "\x00x") }, want: []string{"value 3 k"}, sees: true},
					"two values":      {harm: func(g *rig) { g.set(3, 0, "\x00x"); g.set(3, 1, "\x00y") }, want: []string{"value 3 k", "value 3 l"}, sees: true},
					"a hidden value":  {harm: func(*rig) {}, lie: true, want: []string{"value 3 k"}, sees: true},
					"a missing value": {harm: func(g *rig) { g.tamper(func(h *ledger.History) { h.RemoveValue(3, 0) }) }, want: []string{"value-missing 3 k"}, sees: true},
					"a row":           {harm: func(g *rig) { g.set(4, 0, "x") }, want: []string{"value 4 row"}},
					"an entry": {harm: func(g *rig) {
						g.tamper(func(h *ledger.History) { h.Tx(3).Entries = h.Tx(3).Entries[:1] })
					}, want: []string{"entries 3 "}, sees: true},
					"a digest": {harm: func(g *rig) {
						g.tamper(func(h *ledger.History) {
							h.SetValue(3, 0, []byte("\x00x"))
							h.Tx(3).Entries[0].HValue = ledger.HashValue([]byte("\x00x"))
						})
					}, want: []string{"entries 3 "}, sees: true},
					"a header": {harm: func(g *rig) { g.tamper(func(h *ledger.History) { h.Header(3).Ts++ }) }, want: []string{"header 3 "}, sees: true},
				} {
					g := newRig(t, ledger.Config{Version: version})
					g.fill(2)
					g.commit(
						ledger.Tx{Entries: []ledger.Entry{{Key: []byte("k"), Value: []byte("v")}, {Key: []byte("l"), Value: []byte("w")}}},
						ledger.Tx{Entries: []ledger.Entry{{Key: []byte("\x02row"), Value: []byte("row"), Raw: true}}},
						ledger.Tx{Entries: []ledger.Entry{ledger.ReferenceEntry([]byte("ref"), []byte("l"), 0), ledger.ReferenceEntry([]byte("bound"), []byte("l"), 3)}},
					)
					g.fill(5)
					g.remember()
					if reader {
						if err := errors.Join(g.ledger.CreateUser("reader", "Reader-1"), g.ledger.Grant("reader", ledger.DefaultDB, ledger.Read)); err != nil {
							t.Fatal(err)
						}
						g.client = g.dial(func(o *wire.Options) { o.Username, o.Password = "reader", "Reader-1" })
					}
					tt.harm(g)
					if tt.lie {
						g.layer.Add(attack.Rule{Change: serving})
					}
					sum, err := g.verify(g.options())
					got, want := found(&sum), tt.want
					if blind && !tt.sees {
						want = nil
					}
					// A reference to a value that cannot be read cannot either.
					got = slices.DeleteFunc(got, func(s string) bool { return name == "two values" && (s == "value 5 ref" || s == "value 5 bound") })
					if err != nil || !slices.Equal(got, want) {
						t.Errorf("%s: %v: %q instead of %q: %+v", name, err, got, want, sum.Tally)
					}
					c := sum.Kinds[verify.SQL]
					if blind && (c.Unseen != 1 || c.Verified != 0) || !blind && c.Unseen != 0 {
						t.Errorf("%s: rows: %+v", name, c)
					}
				}
			})
		}
	}
}

func (g *rig) set(tx uint64, i int, value string) {
	g.t.Helper()
	g.tamper(func(h *ledger.History) { h.SetValue(tx, i, []byte(value)) })
}

// serving serves another value of the key k.
func serving(_ context.Context, c *attack.Call) error {
	var txs []*schema.Tx
	switch r := c.Response.(type) {
	case *schema.Tx:
		txs = []*schema.Tx{r}
	case *schema.TxList:
		txs = r.GetTxs()
	case *schema.Entry:
		if r.Tx == 3 && string(r.Key) == "k" {
			r.Value = []byte("served")
		}
	}
	for _, tx := range txs {
		for _, e := range tx.Entries {
			if tx.GetHeader().GetId() == 3 && string(e.Key) == "\x00k" && len(e.Value) > 0 {
				e.Value = []byte("\x00served")
			}
		}
	}
	return nil
}

package verify_test

import (
	"context"
	"fmt"
	"testing"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// remove removes the values of transactions, as retention does, and records
// nothing.
func (g *rig) remove(from, to uint64) {
	g.t.Helper()
	g.tamper(func(h *ledger.History) {
		for tx := from; tx <= to; tx++ {
			for i := range h.Tx(tx).Entries {
				h.RemoveValue(tx, i)
			}
		}
	})
}

// truncate does it with a record.
func (g *rig) truncate(before uint64) uint64 {
	g.t.Helper()
	id, err := g.db.Truncate(before)
	if err != nil {
		g.t.Fatal(err)
	}
	return id
}

// values counts the values of transactions that fill committed, from one to
// the one before another.
func values(from, before uint64) (n uint64) {
	for tx := from; tx < before; tx++ {
		n += 1 + (tx-1)%3
	}
	return n
}

func TestRetention(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		set  func(g *rig)
		// What is to come of it.
		truncated, missing, damaged uint64
		retained                    uint64
		unsettled                   bool
	}{
		{"recorded", func(g *rig) { g.truncate(101); g.remember() }, values(1, 101), 0, 0, 101, false},
		{"recorded since", func(g *rig) { g.remember(); g.truncate(101); g.fill(5) }, values(1, 101), 0, 0, 0, true},
		{"recorded twice", func(g *rig) { g.truncate(50); g.fill(2); g.truncate(101); g.fill(2); g.remember() }, values(1, 101), 0, 0, 101, false},
		{"in part", func(g *rig) {
			g.truncate(101)
			g.remember()
			g.tamper(func(h *ledger.History) {
				for tx := uint64(60); tx <= 100; tx++ { // were never removed
					for i := range h.Tx(tx).Entries {
						if tx > 60 || i > 0 { // the rest of one that has three
							h.SetValue(tx, i, g.committed(tx, i))
						}
					}
				}
			})
		}, values(1, 60) + 1, 0, 0, 101, false},
		{"and damaged", func(g *rig) {
			g.truncate(101)
			g.remember()
			g.tamper(func(h *ledger.History) { h.SetValue(30, 2, []byte("\x00damage")) })
		}, values(1, 101) - 1, 0, 1, 101, false},
		{"and more missing", func(g *rig) { g.truncate(101); g.remember(); g.remove(101, 104) }, values(1, 101), values(101, 105), 0, 101, false},
		{"never recorded", func(g *rig) { g.remember(); g.remove(1, 10) }, 0, values(1, 11), 0, 0, false},
		{"recorded before it was", func(g *rig) {
			g.commit(ledger.Tx{Metadata: ledger.TxMetadata{TruncatedTxID: 1000}})
			g.fill(20)
			g.remember()
			g.remove(202, 203)
		}, 0, 3, 0, 202, false},
		{"recorded for one auditor", func(g *rig) {
			g.remember()
			g.remove(5, 6)
			g.layer.Add(attack.Rule{Change: func(_ context.Context, c *attack.Call) error {
				r, ok := c.Request.(*schema.TxScanRequest)
				m, is := c.Response.(*schema.TxList)
				if ok && is && r.GetEntriesSpec().GetKvEntriesSpec() != nil && r.GetEntriesSpec().GetKvEntriesSpec().GetAction() == schema.EntryTypeAction_EXCLUDE {
					for _, tx := range m.GetTxs() {
						if tx.GetHeader().GetId() == 150 {
							tx.Header.Metadata = &schema.TxMetadata{TruncatedTxID: 140}
						}
					}
				}
				return nil
			}})
		}, 0, values(5, 7), 0, 0, false},
	} {
		for _, mirrored := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/mirror %v", tt.name, mirrored), func(t *testing.T) {
				t.Parallel()
				g := newRig(t, ledger.Config{HeaderVersion: 1})
				g.fill(200)
				tt.set(g)
				o := g.options()
				if !mirrored {
					o = g.unmirrored()
				}
				sum, err := g.verify(o)
				if err != nil {
					t.Fatal(err)
				}
				if c := sum.Total(); c.Truncated != tt.truncated || c.Missing != tt.missing || c.Damaged != tt.damaged {
					t.Errorf("truncated %d, missing %d, damaged %d, want %d, %d, %d: %+v", c.Truncated, c.Missing, c.Damaged, tt.truncated, tt.missing, tt.damaged, sum)
				}
				for _, d := range sum.Damages {
					if (d.Kind == "value-missing") != (tt.missing > 0) || d.Where.Key == "" {
						t.Errorf("%+v", d)
					}
				}
				if sum.Retained != tt.retained {
					t.Errorf("retained before %d, want %d", sum.Retained, tt.retained)
				}
				want := verify.Summary{}.Unsettled
				if tt.unsettled {
					tx, err := g.db.Snapshot().Tx(201)
					if err != nil {
						t.Fatal(err)
					}
					want.TxID, want.Alh = 201, tx.Alh
				}
				if sum.Unsettled != want {
					t.Errorf("unsettled %+v, want %+v", sum.Unsettled, want)
				}
			})
		}
	}
}

// committed is the value of an entry that fill committed.
func (g *rig) committed(tx uint64, i int) []byte {
	return fmt.Append([]byte{0}, "value ", tx-1, i)
}

// What earlier runs have found recorded is not looked for again.
func TestRetainedBefore(t *testing.T) {
	t.Parallel()
	g := newRig(t, ledger.Config{HeaderVersion: 1})
	g.fill(50)
	g.truncate(31)
	g.remember()
	s := &counting{Source: g.client}
	o := g.options()
	o.Source = s
	o.To = 40
	o.Retained = 31
	sum := g.clean(o)
	if sum.Total().Truncated != values(1, 31) || s.headers.Load() != 0 {
		t.Errorf("%d truncated, %d calls for headers", sum.Total().Truncated, s.headers.Load())
	}
}

// A long history that has lost its values does not cost several calls for each
// of its transactions, and where it ends nothing is overlooked.
func TestLeap(t *testing.T) {
	t.Parallel()
	const n, before, left = 2500, 2302, 2255
	g := newRig(t, ledger.Config{HeaderVersion: 1})
	g.fill(n)
	g.truncate(before)
	g.remember()
	g.tamper(func(h *ledger.History) {
		for tx := uint64(left); tx < before; tx++ {
			for i := range h.Tx(tx).Entries {
				h.SetValue(tx, i, g.committed(tx, i))
			}
		}
		h.SetValue(left+1, 0, []byte("\x00damage"))
		h.Tx(1500).Entries = h.Tx(1500).Entries[:1]
	})
	s := &counting{Source: g.client}
	o := g.options()
	o.Source = s
	sum, err := g.verify(o)
	if err != nil || len(sum.Damages) != 2 || sum.Damages[0].Tx != 1500 || sum.Damages[0].Kind != "entries" || sum.Damages[1].Tx != left+1 || sum.Damages[1].Kind != "value" {
		t.Fatalf("%v: %+v", err, sum.Damages)
	}
	if got, want := sum.Total().Truncated, values(1, left)-values(1500, 1501); got != want {
		t.Errorf("%d truncated, want %d", got, want)
	}
	if calls := s.all(); calls > 6*512+1000 {
		t.Errorf("%d calls", calls)
	} else {
		t.Logf("%d calls for %d transactions", calls, n)
	}
}

// A reference outlives what it refers to: beside a value that is damaged, or
// gone, it is not taken for another one because Get cannot follow it.
func TestReferenceToTruncated(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(g *rig, tx uint64){
		"value":         func(g *rig, tx uint64) { g.tamper(func(h *ledger.History) { h.SetValue(tx, 1, []byte("\x00x")) }) },
		"value-missing": func(g *rig, tx uint64) { g.remove(tx, tx) },
		"":              func(*rig, uint64) {},
	} {
		g := newRig(t, ledger.Config{HeaderVersion: 1})
		g.fill(20)
		g.truncate(11)
		tx := g.commit(ledger.Tx{Entries: []ledger.Entry{
			ledger.ReferenceEntry([]byte("ref"), []byte("k3/0"), 4), {Key: []byte("beside"), Value: []byte("v")},
		}})
		g.fill(5)
		g.remember()
		harm(g, tx)
		sum, err := g.verify(g.options())
		if err != nil {
			t.Fatal(err)
		}
		switch d := sum.Damages; {
		case name == "" && (len(d) > 0 || sum.Clean != sum.To):
			t.Errorf("nothing was done, and yet %+v", d)
		case name == "value" && (len(d) != 1 || d[0].Tx != tx || d[0].Where.KeyText != "beside"):
			t.Errorf("%s: %+v", name, d)
		case name == "value-missing" && (len(d) != 2 || d[0].Tx != tx || string(d[0].Kind) != name || string(d[1].Kind) != name):
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// A record that nothing needs is neither looked for nor believed.
func TestRecordNotNeeded(t *testing.T) {
	t.Parallel()
	s := ordinary(t, 30) // with documents, which are asked for one by one
	s.add(t, proof.TxMetadata{TruncatedTxID: 25})
	o := s.options()
	o.Mirror = s.mirror[:30]
	sum, err := verified(t, t.Context(), o)
	if n := s.count(func(c call) bool { return c.op == "headers" }); err != nil || sum.Unsettled.TxID != 0 || n > 0 || sum.Clean != 30 {
		t.Errorf("%v, %d calls for headers: %+v", err, n, sum)
	}
}

// Where whole pages are judged by some of their transactions, what was never to
// be seen is counted for what it is.
func TestLeapKinds(t *testing.T) {
	t.Parallel()
	const n = 1500
	s := &script{}
	for range n {
		past := put("\x00past", "v")
		past.Metadata = proof.EntryMetadata{HasExpiry: true, ExpiresAt: 1}
		s.add(t, proof.TxMetadata{}, put("\x00k", "v"), put("\x03document", "d"), past, put("\x01set", ""))
	}
	s.add(t, proof.TxMetadata{TruncatedTxID: n + 1})
	s.before = func(c call) error {
		if c.from <= n && (c.op == "values" && c.values != "\x01" || c.op == "get") {
			return refused(endOfFile)
		}
		return nil
	}
	sum, err := verified(t, t.Context(), s.options())
	kv := sum.Kinds[verify.KeyValue]
	if err != nil || kv.Truncated != n || kv.Expired != n || sum.Kinds[verify.Document].Unseen != n || sum.Kinds[verify.SortedSet].Verified != n || sum.Tally.Damages() > 0 {
		t.Errorf("%v: %+v", err, sum.Tally)
	}
	if calls := s.count(func(call) bool { return true }); calls > 6*n {
		t.Errorf("%d calls", calls)
	}
}

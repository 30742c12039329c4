package verify_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// TestModel damages ledgers of all kinds of entries at random, in the stored
// files and in what is served, and wants exactly the damage found that a plain
// reading of the stored history says is there.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, seed)
			for range m.random.IntN(6) {
				m.harm()
			}
			o := m.options()
			if !m.mirrored {
				o = m.unmirrored()
			}
			o.Export = m.export
			sum, err := m.verify(o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range sum.Damages {
				got = append(got, fmt.Sprintf("%s %d %s", d.Kind, d.Tx, d.Where.Key))
			}
			want := m.expected()
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("mirror %v, exports %v, header version %d:\n got %q\nwant %q", m.mirrored, m.export, m.version, got, want)
			}
			if total := sum.Total(); sum.Loose == 0 && total.Entries+m.unlisted() != m.entries() {
				t.Errorf("%d entries, %d in transactions that are not listed right, of %d", total.Entries, m.unlisted(), m.entries())
			}
		})
	}
}

// model is a rig whose damage is known.
type model struct {
	*rig
	random           *rand.Rand
	version          int
	mirrored, export bool
	honest           *ledger.Snapshot
	served           map[string]bool // entries whose values are served wrong: "tx key"
}

func newModel(t *testing.T, seed uint64) *model {
	r := rand.New(rand.NewPCG(seed, 5))
	m := &model{random: r, version: r.IntN(2), mirrored: r.IntN(3) > 0, export: r.IntN(2) > 0, served: map[string]bool{}}
	m.rig = newRig(t, ledger.Config{HeaderVersion: m.version})
	var txs []ledger.Tx
	for i := range 5 + r.IntN(80) {
		txs = append(txs, m.transaction(i))
	}
	m.commit(txs...)
	m.remember()
	m.honest = m.db.Snapshot()
	return m
}

// transaction makes one of a few entries, at times of none, or of references.
func (m *model) transaction(i int) (tx ledger.Tx) {
	if v := m.version; m.random.IntN(4) == 0 { // mixed
		v = 1 - v
		tx.HeaderVersion = &v
	}
	version := m.version
	if tx.HeaderVersion != nil {
		version = *tx.HeaderVersion
	}
	if i > 0 && m.random.IntN(8) == 0 {
		tx.Entries = []ledger.Entry{ledger.ReferenceEntry(fmt.Append(nil, "ref", i), []byte("always"), uint64(m.random.IntN(2)))}
		return tx
	}
	if i == 0 {
		tx.Entries = []ledger.Entry{{Key: []byte("always"), Value: []byte("there")}}
		return tx
	}
	for j := range m.random.IntN(5) {
		key, value := fmt.Appendf(nil, "%d/%d", i, j), make([]byte, m.random.IntN(3)*m.random.IntN(40))
		for n := range value {
			value[n] = byte('a' + m.random.IntN(26))
		}
		e := ledger.Entry{Key: key, Value: value}
		switch m.random.IntN(8) {
		case 0:
			e = ledger.Entry{Key: append([]byte{2}, key...), Value: value, Raw: true}
		case 1:
			e = ledger.Entry{Key: append([]byte{3}, key...), Value: value, Raw: true}
		case 2:
			e = ledger.ZSetEntry(key, []byte("always"), 1, 0)
		case 3:
			if version == 1 {
				e.Metadata.ExpiresAt = 1 + int64(m.random.IntN(2))*1<<33
			}
		case 4:
			e.Metadata.NonIndexable = version == 1 && m.random.IntN(2) == 0
		}
		tx.Entries = append(tx.Entries, e)
	}
	return tx
}

func (m *model) stored(tx uint64) *ledger.StoredTx {
	m.t.Helper()
	s, err := m.db.Snapshot().Tx(tx)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *model) last() uint64 { last, _ := m.db.State(); return last }

// harm does one thing to one transaction, which is not the one that references
// lead to.
func (m *model) harm() {
	tx := 2 + m.random.Uint64N(m.last()-1)
	entries := m.stored(tx).Entries
	i := 0
	if len(entries) > 0 {
		i = m.random.IntN(len(entries))
	}
	switch what := m.random.IntN(10); {
	case len(entries) > 0 && entries[i].Metadata.NonIndexable && !m.export: // cannot be told apart from others by its key
	case what == 0:
		m.tamper(func(h *ledger.History) { h.Header(tx).Ts++ })
	case len(entries) == 0:
	case what == 1:
		m.tamper(func(h *ledger.History) { h.Tx(tx).Entries = slices.Delete(h.Tx(tx).Entries, i, i+1) })
	case what == 2:
		m.tamper(func(h *ledger.History) {
			h.SetValue(tx, i, []byte("\x00fitted"))
			h.Tx(tx).Entries[i].HValue = ledger.HashValue([]byte("\x00fitted"))
		})
	case what <= 4 && !m.export: // an export of what is partly gone hangs
		m.tamper(func(h *ledger.History) { h.RemoveValue(tx, i) })
	case what <= 6:
		m.serve(tx, entries[i].Key)
	case entries[i].HValue == ledger.HashValue(nil): // nothing is stored for it
	default:
		m.tamper(func(h *ledger.History) { h.SetValue(tx, i, append(entries[i].Value, 'x')) })
	}
}

// serve has another value served for a key/value entry than the stored one.
func (m *model) serve(tx uint64, key []byte) {
	if key[0] != ledger.PrefixKV {
		return
	}
	m.served[fmt.Sprintf("%d %x", tx, key)] = true
	m.layer.Add(attack.Rule{Change: func(_ context.Context, c *attack.Call) error {
		var txs []*schema.Tx
		switch r := c.Response.(type) {
		case *schema.Tx:
			txs = []*schema.Tx{r}
		case *schema.TxList:
			txs = r.GetTxs()
		case *schema.Entry:
			if r.Tx == tx && bytes.Equal(r.Key, key[1:]) {
				r.Value = []byte("served")
			}
		}
		for _, t := range txs {
			for _, e := range t.GetEntries() {
				if t.GetHeader().GetId() == tx && bytes.Equal(e.Key, key) && len(e.Value) > 0 {
					e.Value = []byte("\x00served")
				}
			}
		}
		return nil
	}})
}

// expected reads the stored history and says what there is to be found.
func (m *model) expected() (want []string) {
	from := uint64(1)
	for tx := uint64(1); tx <= m.last(); tx++ {
		if !m.sameHeader(tx) {
			if !m.mirrored { // nothing vouches for what is before the last one
				want, from = nil, tx
			}
			want = append(want, fmt.Sprintf("header %d ", tx))
		}
	}
	for tx := from; tx <= m.last(); tx++ {
		switch {
		case !m.sameHeader(tx):
		case !m.sameEntries(tx):
			want = append(want, fmt.Sprintf("entries %d ", tx))
		default:
			want = append(want, m.values(tx)...)
		}
	}
	return want
}

func (m *model) sameHeader(tx uint64) bool {
	honest, err := m.honest.Tx(tx)
	if err != nil {
		m.t.Fatal(err)
	}
	h := m.stored(tx).Header
	return h.Alh() == honest.Alh
}

func (m *model) sameEntries(tx uint64) bool {
	s := m.stored(tx)
	return len(s.Entries) == int(s.Header.NEntries) && ledger.EntriesRoot(s.Entries, s.Header.Version) == s.Header.EH
}

// values says which values of a transaction do not hold.
func (m *model) values(tx uint64) (want []string) {
	s := m.stored(tx)
	var rows []*ledger.StoredEntry // SQL: only told apart by exports
	bad := ""
	for i := range s.Entries {
		e := &s.Entries[i]
		if e.HValue == ledger.HashValue(nil) {
			continue // nothing is asked for
		}
		kind := ""
		switch {
		case e.Gone:
			kind = "value-missing"
		case ledger.HashValue(e.Value) != e.HValue:
			kind = "value"
		}
		lies := m.served[fmt.Sprintf("%d %x", tx, e.Key)]
		outdated := e.Metadata.ExpiresAt == 1
		switch {
		case outdated && lies:
			lies = false // it is in no listing
		case lies && kind == "": // where it is damaged too, nothing is served
			kind = "value"
		}
		switch {
		case (outdated || e.Key[0] == ledger.PrefixDocument) && !m.export:
		case e.Key[0] == ledger.PrefixSQL && !m.export:
			rows = append(rows, e)
			if bad == "" {
				bad = kind
			}
		case kind != "":
			want = append(want, fmt.Sprintf("%s %d %s", kind, tx, hex.EncodeToString(e.Key)))
		}
	}
	if bad != "" {
		key := ""
		if len(rows) == 1 {
			key = hex.EncodeToString(rows[0].Key)
		}
		want = append(want, fmt.Sprintf("%s %d %s", bad, tx, key))
	}
	return want
}

// entries is how many there are in transactions whose header is as it was.
func (m *model) entries() (n uint64) {
	for tx := uint64(1); tx <= m.last(); tx++ {
		if m.sameHeader(tx) {
			n += uint64(m.stored(tx).Header.NEntries)
		}
	}
	return n
}

// unlisted is how many of them are in transactions whose listing is not right.
func (m *model) unlisted() (n uint64) {
	for tx := uint64(1); tx <= m.last(); tx++ {
		if m.sameHeader(tx) && !m.sameEntries(tx) {
			n += uint64(m.stored(tx).Header.NEntries)
		}
	}
	return n
}

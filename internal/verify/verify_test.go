package verify_test

import (
	"testing"

	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
)

// everything commits one transaction of every kind.
func (g *rig) everything(version int) {
	md := func(m ledger.EntryMetadata) ledger.EntryMetadata {
		if version == 0 {
			return ledger.EntryMetadata{}
		}
		return m
	}
	kv := func(key, value string) ledger.Entry { return ledger.Entry{Key: []byte(key), Value: []byte(value)} }
	txs := []ledger.Tx{
		{Entries: []ledger.Entry{kv("k", "v"), kv("empty", "")}},
		{Entries: []ledger.Entry{{Key: []byte("n"), Value: []byte("w"), Metadata: md(ledger.EntryMetadata{NonIndexable: true})}}},
		{Entries: []ledger.Entry{ledger.ReferenceEntry([]byte("ref"), []byte("k"), 0), ledger.ReferenceEntry([]byte("bound"), []byte("k"), 1), ledger.ZSetEntry([]byte("set"), []byte("k"), 2, 0)}},
		{Entries: []ledger.Entry{{Key: []byte("\x02R.row"), Value: []byte("sql"), Raw: true}, {Key: []byte("\x02M.index"), Raw: true}}},
		{Entries: []ledger.Entry{{Key: []byte("\x03doc"), Value: []byte("document"), Raw: true}, kv("beside", "a document")}},
		{Entries: []ledger.Entry{{Key: []byte("past"), Value: []byte("x"), Metadata: md(ledger.EntryMetadata{ExpiresAt: 1})}, kv("later", "y")}},
		{Entries: []ledger.Entry{{Key: []byte("future"), Value: []byte("x"), Metadata: md(ledger.EntryMetadata{ExpiresAt: 4102444800})}}},
		{},
		{Entries: []ledger.Entry{{Key: []byte("\x04what"), Value: []byte("nobody knows"), Raw: true}}},
	}
	if version == 1 {
		txs = append(txs, ledger.Tx{Metadata: ledger.TxMetadata{Extra: []byte("extra")}, Entries: []ledger.Entry{{Key: []byte("k"), Metadata: ledger.EntryMetadata{Deleted: true}}}})
	}
	g.commit(txs...)
}

func TestHonest(t *testing.T) {
	t.Parallel()
	g := newRig(t, ledger.Config{HeaderVersion: 1})
	g.fill(30)
	g.everything(1)
	g.fill(3000)
	g.remember()
	sum := g.clean(g.options())
	t.Logf("%+v", sum)
	g.clean(g.unmirrored())
	o := g.options()
	o.Export = true
	sum = g.clean(o)
	t.Logf("%+v", sum)
	_ = verify.KeyValue
}

package verify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/proof"
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
	raw := func(key, value string) ledger.Entry {
		return ledger.Entry{Key: []byte(key), Value: []byte(value), Raw: true}
	}
	last, _ := g.db.State()
	txs := []ledger.Tx{
		{Entries: []ledger.Entry{kv("k", "v"), kv("empty", "")}},
		{Entries: []ledger.Entry{{Key: []byte("n"), Value: []byte("w"), Metadata: md(ledger.EntryMetadata{NonIndexable: true})}}},
		{Entries: []ledger.Entry{ledger.ReferenceEntry([]byte("ref"), []byte("k"), 0), ledger.ReferenceEntry([]byte("bound"), []byte("k"), last+1), ledger.ZSetEntry([]byte("set"), []byte("k"), 2, 0)}},
		{Entries: []ledger.Entry{raw("\x02R.row", "sql"), raw("\x02M.index", "")}},
		{Entries: []ledger.Entry{raw("\x03doc", "document"), kv("beside", "a document")}},
		{Entries: []ledger.Entry{{Key: []byte("past"), Value: []byte("x"), Metadata: md(ledger.EntryMetadata{ExpiresAt: 1})}, kv("later", "y")}},
		{Entries: []ledger.Entry{{Key: []byte("future"), Value: []byte("x"), Metadata: md(ledger.EntryMetadata{ExpiresAt: 4102444800})}}},
		{},
		{Entries: []ledger.Entry{raw("\x04what", "nobody knows")}},
	}
	if version == 1 {
		txs = append(txs, ledger.Tx{Metadata: ledger.TxMetadata{Extra: []byte("extra")}, Entries: []ledger.Entry{{Key: []byte("k"), Metadata: ledger.EntryMetadata{Deleted: true}}}})
	}
	g.commit(txs...)
}

// An honest ledger of everything there is holds, and what cannot be seen is
// counted: whatever server, header version, memory and way to ask.
func TestHonest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		server  string
		version int
		export  bool
		reader  bool
		// Of kinds of entries, what was not seen.
		expired, documents, others uint64
		unseen                     uint64 // of all other kinds
	}{
		{server: "1.11.1", version: 1, expired: 1, documents: 1, others: 1},
		{server: "1.11.1", version: 1, export: true},
		{server: "1.11.1", version: 1, export: true, reader: true, expired: 1, documents: 1, others: 1},
		{server: "1.11.1", version: 0, documents: 1, others: 1},
		{server: "1.2.4", version: 1, reader: true, expired: 1, documents: 1, others: 1},
		// Before 1.2.3: key by key, and the rest by exports, which readers may
		// make before 1.2.0.
		{server: "1.0.5", version: 0, documents: 1, others: 1},
		{server: "1.0.5", version: 0, reader: true, documents: 1, others: 1},
		{server: "1.0.5", version: 0, export: true, reader: true},
		{server: "1.2.1", version: 1, expired: 1, documents: 1, others: 1},
		// Not seen are one that is not indexed, a row of SQL, and a reference to
		// what was deleted since.
		{server: "1.2.1", version: 1, reader: true, expired: 1, documents: 1, others: 1, unseen: 3},
	} {
		t.Run(fmt.Sprintf("%s/%d/export %v/reader %v", tt.server, tt.version, tt.export, tt.reader), func(t *testing.T) {
			t.Parallel()
			g := newRig(t, ledger.Config{Version: tt.server, HeaderVersion: tt.version, BlTxID: func(_ string, id uint64) uint64 { return (id - 1) / 3 * 3 }})
			g.fill(40)
			g.everything(tt.version)
			other := 1 - tt.version
			if err := g.db.SetHeaderVersion(other); err != nil && other == 1 {
				t.Fatal(err)
			}
			g.fill(200)
			g.remember()
			if tt.reader {
				if err := errors.Join(g.ledger.CreateUser("reader", "Reader-1"), g.ledger.Grant("reader", ledger.DefaultDB, ledger.Read)); err != nil {
					t.Fatal(err)
				}
				g.client = g.dial(func(o *wire.Options) { o.Username, o.Password = "reader", "Reader-1" })
			}
			for name, o := range map[string]verify.Options{"mirror": g.options(), "trusted states": g.unmirrored()} {
				o.Export = tt.export
				sum := g.clean(o)
				all := sum.Total()
				if sum.Transactions != sum.To || sum.Empty != 1 || all.Entries == 0 || all.Bytes == 0 {
					t.Errorf("%s: %+v", name, sum)
				}
				want := map[string][2]uint64{
					"expired": {all.Expired, tt.expired}, "documents": {sum.Kinds[verify.Document].Unseen, tt.documents},
					"others": {sum.Kinds[verify.Other].Unseen, tt.others},
					"unseen": {all.Unseen - sum.Kinds[verify.Document].Unseen - sum.Kinds[verify.Other].Unseen, tt.unseen},
				}
				for what, n := range want {
					if n[0] != n[1] {
						t.Errorf("%s: %d %s, want %d: %+v", name, n[0], what, n[1], sum.Kinds)
					}
				}
				if (sum.Exports != nil) != (tt.export && tt.reader && tt.server == "1.11.1") {
					t.Errorf("%s: exports ended with %v", name, sum.Exports)
				}
			}
		})
	}
}

// Any part of a ledger can be verified, and what one run leaves off the next
// goes on with.
func TestParts(t *testing.T) {
	t.Parallel()
	g := newRig(t, ledger.Config{HeaderVersion: 1})
	g.fill(500)
	g.remember()
	state := func(tx uint64) proof.State {
		s, err := g.db.Snapshot().Tx(tx)
		if err != nil {
			t.Fatal(err)
		}
		return proof.State{TxID: tx, Alh: s.Alh}
	}
	for name, o := range map[string]verify.Options{
		"all":             g.options(),
		"a part":          {Mirror: g.mirror, From: 100, To: 300},
		"one transaction": {Mirror: g.mirror, From: 77, To: 77},
		"the last":        {Mirror: g.mirror, From: 500},
		"to the middle":   {Mirror: g.mirror[:250], Trusted: g.trusted},
		"beyond a mirror": {Mirror: g.mirror[:250], Trusted: g.trusted, From: 251, To: 400},
		"by states":       {Trusted: []proof.State{state(3), state(70), state(499), state(500)}},
		"between states":  {Trusted: []proof.State{state(70), state(499)}, From: 20, To: 100},
		"after the end":   {Mirror: g.mirror, From: 501},
	} {
		o.Source, o.Database = g.client, ledger.DefaultDB
		sum := g.clean(o)
		if sum.Transactions != sum.To+1-sum.From || sum.From != max(o.From, 1) {
			t.Errorf("%s: %d transactions from %d to %d", name, sum.Transactions, sum.From, sum.To)
		}
	}
	ctx := t.Context()
	for name, tt := range map[string]struct {
		o    verify.Options
		says string
	}{
		"no source":          {verify.Options{Mirror: g.mirror}, "server"},
		"nothing known":      {verify.Options{Source: g.client}, "first contact"},
		"beyond":             {verify.Options{Source: g.client, Mirror: g.mirror, To: 501}, "beyond the newest trusted one, 500"},
		"contradicting":      {verify.Options{Source: g.client, Mirror: g.mirror, Trusted: []proof.State{{TxID: 9}}}, "trust check"},
		"contradicting last": {verify.Options{Source: g.client, Mirror: g.mirror, Trusted: []proof.State{{TxID: 500}}}, "trust check"},
		"contradicting each": {verify.Options{Source: g.client, Trusted: []proof.State{{TxID: 9}, {TxID: 9, Alh: proof.Hash{1}}}}, "two trusted states"},
		"broken memory":      {verify.Options{Source: g.client, Mirror: broken{}, Trusted: g.trusted}, "reading the mirror: out of order"},
	} {
		if _, err := verify.Run(ctx, tt.o); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	sum, err := verify.Run(cancelled, g.options())
	var stopped *verify.Stopped
	if !errors.As(err, &stopped) || !errors.Is(err, context.Canceled) || stopped.At != 1 || sum.Through != 0 {
		t.Errorf("cancelled: %v, %+v", err, sum)
	}
}

type broken struct{}

func (broken) Size() uint64 { return 1 << 40 }

func (broken) LeafHashes(uint64, int) ([]proof.Hash, error) { return nil, errors.New("out of order") }

// The remembered history is another from some transaction on: one damage that
// names it, and everything before it is verified.
func TestFork(t *testing.T) {
	t.Parallel()
	g := newRig(t, ledger.Config{HeaderVersion: 1})
	g.fill(300)
	g.remember()
	g.tamper(func(h *ledger.History) {
		h.SetValue(120, 0, []byte("\x00another"))
		h.Rehash(120)
	})
	sum, err := g.verify(g.options())
	if err != nil || len(sum.Damages) != 1 || sum.Headers != 181 || sum.Clean != 119 || sum.Kinds[verify.KeyValue].Verified == 0 {
		t.Fatalf("%v: %+v", err, sum)
	}
	if d := sum.Damages[0]; d.Kind != "header" || d.Where.FirstBadTx != 120 || d.Where.LastGoodTx != 119 {
		t.Errorf("%+v", d)
	}
	// Without a mirror all that is known is that it does not lead to the
	// trusted state.
	sum, err = g.verify(g.unmirrored())
	if err != nil || len(sum.Damages) != 1 || sum.Damages[0].Kind != "header" || sum.Damages[0].Tx != 300 || sum.Clean != 0 || sum.Loose != 299 {
		t.Errorf("%v: %+v", err, sum)
	}
}

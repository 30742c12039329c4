package wire

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// listed is a transaction as it was given, copied.
type listed struct {
	header  proof.Header
	entries []proof.ExportedEntry
}

func collect(into *[]listed) func(*proof.Header, []proof.ExportedEntry) error {
	return func(h *proof.Header, entries []proof.ExportedEntry) error {
		l := listed{header: *h}
		l.header.Metadata.Extra = bytes.Clone(h.Metadata.Extra)
		for _, e := range entries {
			e.Key, e.Value = bytes.Clone(e.Key), bytes.Clone(e.Value)
			l.entries = append(l.entries, e)
		}
		*into = append(*into, l)
		return nil
	}
}

// contentTx is a transaction with entries of every shape.
func contentTx(id uint64) *schema.Tx {
	tx := transaction("db0", id, 0)
	tx.Header.Metadata = &schema.TxMetadata{TruncatedTxID: 1, Extra: []byte("x")}
	tx.Entries = []*schema.TxEntry{
		{Key: []byte("\x00k"), HValue: digest("v"), VLen: 2, Value: []byte("\x00v")},
		{Key: []byte("\x00e"), HValue: digest("e"), Metadata: &schema.KVMetadata{Deleted: true, NonIndexable: true, Expiration: &schema.Expiration{ExpiresAt: -5}}},
		{Key: []byte("\x01z"), HValue: digest(), Metadata: &schema.KVMetadata{Expiration: &schema.Expiration{}}},
		{Key: []byte("\x02r"), HValue: digest("r"), Metadata: &schema.KVMetadata{}, Value: bytes.Repeat([]byte("r"), 300)},
	}
	// As servers before 1.2 put the length of the value.
	tx.Entries[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), 7))
	return tx
}

// agree checks that what is read without messages is what the messages say.
// Only what no honest server sends may be refused besides.
func agree(t *testing.T, text []byte) {
	t.Helper()
	var got []listed
	err := ReadTransactions(text, 1, 3, collect(&got))
	var list schema.TxList
	if proto.Unmarshal(text, &list) != nil {
		return // in a field that is not looked at, if it was read
	}
	if err == nil && len(got) != len(list.Txs) {
		t.Fatalf("read %d transactions of %d", len(got), len(list.Txs))
	}
	honest := len(list.Txs) <= 3
	for i, tx := range list.Txs {
		h, _, _, err := DecodeTx(tx)
		honest = honest && err == nil && h.ID == uint64(i+1)
	}
	if honest && err != nil && !strings.Contains(err.Error(), "twice") {
		t.Fatalf("did not read what decodes: %v", err)
	}
	for i := range got {
		h, entries, values, err := DecodeTx(list.Txs[i])
		if err != nil {
			t.Fatalf("read transaction %d, which does not decode: %v", i, err)
		}
		g := &got[i]
		if h.Alh() != g.header.Alh() || h.ID != g.header.ID || len(entries) != len(g.entries) {
			t.Fatalf("transaction %d: %+v, decoded %+v", i, g.header, h)
		}
		for j := range entries {
			e := &g.entries[j]
			if !bytes.Equal(entries[j].Key, e.Key) || entries[j].Metadata != e.Metadata || entries[j].HValue != e.HValue || !bytes.Equal(values[j], e.Value) || len(e.Value) == 0 && len(values[j]) > 0 {
				t.Fatalf("entry %d/%d: %+v, decoded %+v", i, j, e, entries[j])
			}
		}
	}
}

func contentList() *schema.TxList {
	return &schema.TxList{Txs: []*schema.Tx{contentTx(1), contentTx(2), transaction("db0", 3, 0)}}
}

// Every byte of an honest answer, cut off and flipped.
func TestReadTransactions(t *testing.T) {
	t.Parallel()
	text := encodeContent(t, contentList())
	var got []listed
	if err := ReadTransactions(text, 1, 3, collect(&got)); err != nil || len(got) != 3 || len(got[1].entries) != 4 {
		t.Fatalf("%d transactions, %v", len(got), err)
	}
	if e := got[0].entries; e[0].Value == nil || e[1].Value != nil || !e[1].Metadata.HasExpiry || e[1].Metadata.ExpiresAt != -5 || e[3].Metadata != (proof.EntryMetadata{}) {
		t.Errorf("entries %+v", e)
	}
	agree(t, text)
	for i := range text {
		agree(t, text[:i])
		for bit := range 8 {
			flipped := bytes.Clone(text)
			flipped[i] ^= 1 << bit
			agree(t, flipped)
		}
	}
	for name, tt := range map[string]struct {
		change func(m *schema.TxList)
		says   string
	}{
		"one too many":       {func(m *schema.TxList) { m.Txs = append(m.Txs, transaction("db0", 4, 0)) }, "more than the 3"},
		"another number":     {func(m *schema.TxList) { m.Txs[1].Header.Id = 7 }, "7 where 2"},
		"no header":          {func(m *schema.TxList) { m.Txs[1].Header = nil }, "is missing"},
		"an empty header":    {func(m *schema.TxList) { m.Txs[1].Header = &schema.TxHeader{} }, "is missing"},
		"a version":          {func(m *schema.TxList) { m.Txs[1].Header.Version = 7 }, "version"},
		"a count below zero": {func(m *schema.TxList) { m.Txs[1].Header.Nentries = -1 }, "negative"},
		"a short digest":     {func(m *schema.TxList) { m.Txs[1].Entries[0].HValue = make([]byte, 31) }, "hValue: 31 bytes"},
		"no digest":          {func(m *schema.TxList) { m.Txs[1].Entries[0].HValue = nil }, "hValue"},
		"an empty key":       {func(m *schema.TxList) { m.Txs[1].Entries[0].Key = nil }, "key"},
		"a long key":         {func(m *schema.TxList) { m.Txs[1].Entries[0].Key = make([]byte, 1<<16) }, "key"},
		"metadata in version 0": {func(m *schema.TxList) {
			m.Txs[1].Header.Version, m.Txs[1].Header.Metadata = 0, nil
		}, "metadata"},
	} {
		m := contentList()
		tt.change(m)
		err := ReadTransactions(encodeContent(t, m), 1, 3, func(*proof.Header, []proof.ExportedEntry) error { return nil })
		if !isMalformed(err) || !bytes.Contains([]byte(err.Error()), []byte(tt.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Messages that come twice would be merged, and nothing honest has them.
	one := encodeContent(t, contentTx(1))
	twice := protowire.AppendBytes([]byte{0x0a}, append(slices.Clone(one), one...))
	if err := ReadTransactions(twice, 1, 3, collect(&got)); !isMalformed(err) {
		t.Errorf("a header twice: %v", err)
	}
	// As many entries as no transaction has, of two bytes each.
	many := protowire.AppendBytes([]byte{0x0a}, bytes.Repeat([]byte{0x12, 0}, maxElements+1))
	if err := ReadTransactions(many, 1, 3, collect(&got)); err == nil {
		t.Error("read half a megabyte of empty entries")
	}
}

func isMalformed(err error) bool {
	var m *proof.Malformed
	return errors.As(err, &m)
}

func encodeContent(t testing.TB, m proto.Message) []byte {
	t.Helper()
	text, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func FuzzReadTransactions(f *testing.F) {
	f.Add(encodeContent(f, contentList()))
	f.Add(encodeContent(f, &schema.TxList{Txs: []*schema.Tx{transaction("db0", 1, 0)}}))
	f.Fuzz(func(t *testing.T, text []byte) { agree(t, text) })
}

// What a caller does with a transaction is no fault of the server, and its
// error ends the reading.
func TestTransactionsCaller(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	c := dial(t, s.addr)
	enough := errors.New("enough")
	seen := 0
	n, err := c.Transactions(t.Context(), "db0", 1, 3, nil, func(*proof.Header, []proof.ExportedEntry) error {
		seen++
		return enough
	})
	if err != enough || seen != 1 || n == 0 {
		t.Errorf("%v after %d transactions in %d bytes", err, seen, n)
	}
	for _, bad := range []func() (int, error){
		func() (int, error) { return c.Transactions(t.Context(), "db0", 0, 1, nil, nil) },
		func() (int, error) { return c.Transactions(t.Context(), "db0", 1, 0, nil, nil) },
		func() (int, error) { return c.Transactions(t.Context(), "db0", 1, 1, []byte{3}, nil) },
	} {
		_, err := bad()
		wantFault(t, err, Malformed)
	}
	if got := s.called("TxScan") + s.called("TxById"); got != 1 {
		t.Errorf("%d calls", got)
	}
	// More than a page is never asked for.
	s.set(func() { s.databases[0].length = 1500 })
	seen = 0
	_, err = c.Transactions(t.Context(), "db0", 1, 5000, nil, func(*proof.Header, []proof.ExportedEntry) error { seen++; return nil })
	if err != nil || seen != 1000 {
		t.Errorf("%d transactions, %v", seen, err)
	}
}

// Answers to calls for content that no server means.
func TestContentHostile(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	c := dial(t, s.addr, func(o *Options) { o.MaxRecvMsgSize = 64 << 10 })
	none := func(*proof.Header, []proof.ExportedEntry) error { return nil }
	s.answer("TxScan", give(&schema.TxList{Txs: []*schema.Tx{contentTx(2)}}))
	_, err := c.Transactions(t.Context(), "db0", 1, 2, nil, none)
	wantFault(t, err, Malformed, "2 where 1")
	s.answer("TxById", give(contentTx(2)))
	_, err = c.Transactions(t.Context(), "db0", 1, 1, nil, none)
	wantFault(t, err, Malformed, "2 where 1")
	s.answer("TxById", give(&schema.Tx{}))
	_, err = c.Transactions(t.Context(), "db0", 1, 1, nil, none)
	wantFault(t, err, Malformed, "header")
	large := contentTx(1)
	large.Entries[0].Value = make([]byte, 64<<10)
	s.answer("TxById", give(large))
	_, err = c.Transactions(t.Context(), "db0", 1, 1, nil, none)
	wantFault(t, err, TooLarge)
	s.answer("TxById", say(codes.Unknown, "tx not found"))
	_, err = c.Transactions(t.Context(), "db0", 9, 1, nil, none)
	wantFault(t, err, TxNotFound)
}

// A server says in its own words that something is damaged or gone; nothing
// that a connection does is that.
func TestDamagedGone(t *testing.T) {
	t.Parallel()
	c := &Client{address: "localhost:3322"}
	for _, tt := range []struct {
		code          codes.Code
		text          string
		damaged, gone bool
	}{
		{codes.Unknown, "data is corrupted: value length or digest mismatch", true, false},
		{codes.Unknown, "tx data is corrupted", true, false},
		{codes.Unknown, "corrupted data", true, false},
		{codes.Unknown, "EOF", false, true},
		{codes.Unknown, "tx data is corrupted: binary linking mismatch at tx 5", false, false},
		{codes.Unknown, "tx not found", false, false},
		{codes.Unknown, "key not found", false, false},
		{codes.Internal, "EOF", false, false},
		{codes.Unavailable, "EOF", false, false},
		{codes.Unavailable, "data is corrupted", false, false},
		{codes.Unavailable, "error reading from server: EOF", false, false},
		{codes.Internal, "unexpected EOF", false, false},
		{codes.Unknown, "server closed the stream without sending trailers", false, false},
		{codes.DeadlineExceeded, "data is corrupted", false, false},
	} {
		f := c.explain(context.Background(), "TxScan", "db0", "", statusError(tt.code, tt.text))
		if f.Damaged() != tt.damaged || f.Gone() != tt.gone {
			t.Errorf("%s %q: damaged %v, gone %v", tt.code, tt.text, f.Damaged(), f.Gone())
		}
	}
}

func statusError(code codes.Code, text string) error { return status.Error(code, text) }

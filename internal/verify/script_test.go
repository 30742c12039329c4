package verify_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// script is a server in this process, which answers at once and as it is told
// to: no ledger can be made to do all that a hostile one may.
type script struct {
	txs    []scripted
	mirror memory

	// before is asked before each call; what it returns is the call's.
	before func(c call) error
	// show changes what a listing is about to give.
	show func(c call, h *proof.Header, entries []proof.ExportedEntry) (*proof.Header, []proof.ExportedEntry)
	// old lists everything without values whatever it is asked for.
	old bool
	// bytes are said to have been received for each transaction, at least.
	bytes int

	mu    sync.Mutex
	calls []call
}

type scripted struct {
	header  proof.Header
	entries []proof.ExportedEntry
}

// call is a call that a run makes.
type call struct {
	op     string // "headers", "values", "digests", "none" (a listing of neither), "get" or "export"
	from   uint64
	limit  int
	values string // prefixes
	key    string
}

func (c call) has(tx uint64) bool { return c.from <= tx && tx < c.from+uint64(c.limit) }

// put is an entry of a script.
func put(key, value string) proof.ExportedEntry {
	return proof.ExportedEntry{Entry: proof.Entry{Key: []byte(key), HValue: sha256.Sum256([]byte(value))}, Value: append([]byte{}, value...)}
}

// scriptOf makes a history of transactions with these entries.
func scriptOf(t testing.TB, txs ...[]proof.ExportedEntry) *script {
	t.Helper()
	s := &script{}
	for _, entries := range txs {
		s.add(t, proof.TxMetadata{}, entries...)
	}
	return s
}

func (s *script) add(t testing.TB, md proof.TxMetadata, entries ...proof.ExportedEntry) {
	t.Helper()
	h := proof.Header{ID: uint64(len(s.txs) + 1), PrevAlh: proof.EmptyAlh(), Ts: 1, Version: 1, NEntries: uint32(len(entries)), Metadata: md}
	if len(s.txs) > 0 {
		h.PrevAlh = s.txs[len(s.txs)-1].header.Alh()
	}
	var tree proof.EntryTree
	for i := range entries {
		digest, err := proof.EntryDigest(1, &entries[i].Entry)
		if err == nil {
			err = tree.Add(digest)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if h.EH, err = tree.Root(); err != nil {
		t.Fatal(err)
	}
	s.txs = append(s.txs, scripted{h, entries})
	s.mirror = append(s.mirror, proof.LeafHash(h.Alh()))
}

func (s *script) options() verify.Options { return verify.Options{Source: s, Mirror: s.mirror} }

// unmirrored are options with the newest state for all that is known.
func (s *script) unmirrored() verify.Options {
	last := &s.txs[len(s.txs)-1].header
	return verify.Options{Source: s, Trusted: []proof.State{{TxID: last.ID, Alh: last.Alh()}}}
}

func (s *script) begin(c call) error {
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	if s.before == nil {
		return nil
	}
	return s.before(c)
}

// count is how many calls there were.
func (s *script) count(which func(call) bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if which(c) {
			n++
		}
	}
	return n
}

func (s *script) Headers(ctx context.Context, _ string, from uint64, limit int) (list []proof.Header, err error) {
	c := call{op: "headers", from: from, limit: limit}
	if err := s.begin(c); err != nil {
		return nil, err
	}
	for tx := from; c.has(tx) && tx <= uint64(len(s.txs)); tx++ {
		h := s.txs[tx-1].header
		if s.show != nil {
			if shown, _ := s.show(c, &h, nil); shown != nil {
				h = *shown
			}
		}
		list = append(list, h)
	}
	return list, ctx.Err()
}

func (s *script) Transactions(ctx context.Context, _ string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (received int, err error) {
	c := call{op: "values", from: from, limit: limit, values: string(values)}
	switch {
	case values == nil:
		c.op = "digests"
	case len(values) == 0:
		c.op = "none"
	}
	if err := s.begin(c); err != nil {
		return 0, err
	}
	for tx := from; c.has(tx) && tx <= uint64(len(s.txs)); tx++ {
		h := s.txs[tx-1].header
		var entries []proof.ExportedEntry
		for _, e := range s.txs[tx-1].entries {
			switch {
			case s.old || values == nil:
				e.Value = nil
			case bytes.IndexByte(values, e.Key[0]) < 0, e.Metadata.HasExpiry && e.Metadata.ExpiresAt == 1:
				continue
			}
			entries = append(entries, e)
			received += len(e.Key) + len(e.Value) + 40
		}
		shown := &h
		if s.show != nil {
			if shown, entries = s.show(c, &h, entries); shown == nil {
				break // no more than that
			}
		}
		received += max(s.bytes, 150)
		if err := each(shown, entries); err != nil {
			return received, err
		}
	}
	return received, ctx.Err()
}

func (s *script) ValueAt(ctx context.Context, _ string, key []byte, tx uint64) ([][]byte, error) {
	if err := s.begin(call{op: "get", from: tx, limit: 1, key: string(key)}); err != nil {
		return nil, err
	}
	for _, e := range s.txs[tx-1].entries {
		if string(e.Key) == string(key) {
			return [][]byte{append([]byte{}, e.Value...)}, ctx.Err()
		}
	}
	return nil, refused("key not found")
}

func (s *script) Export(ctx context.Context, _ string, tx uint64) (*proof.Export, error) {
	if err := s.begin(call{op: "export", from: tx, limit: 1}); err != nil {
		return nil, err
	}
	x := &proof.Export{Header: s.txs[tx-1].header}
	for _, e := range s.txs[tx-1].entries {
		e.HValue = sha256.Sum256(e.Value)
		x.Entries = append(x.Entries, e)
	}
	return x, ctx.Err()
}

// refused is what a server says when it says something.
func refused(text string) error {
	return &wire.Fault{Kind: wire.Refused, Op: "TxScan", Code: codes.Unknown, Message: text}
}

const (
	corrupted = "data is corrupted: value length or digest mismatch"
	endOfFile = "EOF"
)

// pairs are n key/value entries, with keys of so many bytes.
func pairs(n, size int, value string) (list []proof.ExportedEntry) {
	for i := range n {
		key := make([]byte, size)
		for j := range min(8, size-1) {
			key[size-1-j] = byte('a' + i>>(4*j)&15)
		}
		list = append(list, put(string(key), value))
	}
	return list
}

// alter makes all values of a transaction others than were committed.
func (s *script) alter(tx uint64, value string) {
	entries := append([]proof.ExportedEntry(nil), s.txs[tx-1].entries...)
	for i := range entries {
		entries[i].Value = []byte(value)
	}
	s.txs[tx-1].entries = entries
}

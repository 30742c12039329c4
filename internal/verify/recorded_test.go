package verify_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// recorded are answers of a server: all transactions, one after the other, as
// they follow each other in a TxList.
type recorded struct {
	text    []byte
	ends    []int // of each transaction
	values  [][]byte
	bytes   int
	mirror  memory
	buffers sync.Pool
}

// record has a ledger answer, and keeps what it said.
func record(tb testing.TB, txs, values, size int) *recorded {
	tb.Helper()
	g := newRig(tb, ledger.Config{HeaderVersion: 1})
	random := rand.NewChaCha8([32]byte{})
	batch := make([]ledger.Tx, txs)
	for i := range batch {
		for j := range values {
			value := make([]byte, size)
			random.Read(value)
			batch[i].Entries = append(batch[i].Entries, ledger.Entry{Key: fmt.Appendf(nil, "key-%08d-%04d", i, j), Value: value})
		}
	}
	g.commit(batch...)
	g.remember()
	r := &recorded{mirror: g.mirror, buffers: sync.Pool{New: func() any { return new([]byte) }}}
	s := g.db.Snapshot()
	for id := uint64(1); id <= uint64(txs); id++ {
		tx, err := s.Tx(id)
		if err != nil {
			tb.Fatal(err)
		}
		h := &tx.Header
		m := &schema.Tx{Header: &schema.TxHeader{
			Id: h.ID, PrevAlh: h.PrevAlh[:], Ts: h.Ts, Nentries: int32(h.NEntries), EH: h.EH[:], BlTxId: h.BlTxID, BlRoot: h.BlRoot[:], Version: 1,
			Metadata: &schema.TxMetadata{},
		}}
		for i := range tx.Entries {
			e := &tx.Entries[i]
			m.Entries = append(m.Entries, &schema.TxEntry{Key: e.Key, HValue: e.HValue[:], VLen: int32(len(e.Value)), Value: e.Value})
			r.values = append(r.values, e.Value)
			r.bytes += len(e.Value)
		}
		encoded, err := proto.Marshal(m)
		if err != nil {
			tb.Fatal(err)
		}
		r.text = protowire.AppendBytes(protowire.AppendTag(r.text, 1, protowire.BytesType), encoded)
		r.ends = append(r.ends, len(r.text))
	}
	return r
}

// Transactions answers as the wire does when the pieces of an answer have come.
func (r *recorded) Transactions(_ context.Context, _ string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (int, error) {
	if from > uint64(len(r.ends)) {
		return 0, nil
	}
	begin := 0
	if from > 1 {
		begin = r.ends[from-2]
	}
	end := r.ends[min(int(from)-1+limit, len(r.ends))-1]
	buffer := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buffer)
	*buffer = append((*buffer)[:0], r.text[begin:end]...)
	if len(values) == 3 {
		return end - begin, wire.ReadTransactions(*buffer, from, limit, each)
	}
	return end - begin, wire.ReadTransactions(*buffer, from, limit, func(h *proof.Header, entries []proof.ExportedEntry) error {
		for i := range entries {
			entries[i].Value = nil
		}
		if values != nil {
			entries = nil
		}
		return each(h, entries)
	})
}

func (r *recorded) Headers(ctx context.Context, db string, from uint64, limit int) (list []proof.Header, err error) {
	_, err = r.Transactions(ctx, db, from, limit, []byte{}, func(h *proof.Header, _ []proof.ExportedEntry) error {
		list = append(list, *h)
		return nil
	})
	return list, err
}

func (r *recorded) ValueAt(context.Context, string, []byte, uint64) ([][]byte, error) {
	return nil, fault(wire.Refused)
}

func (r *recorded) Export(context.Context, string, uint64) (*proof.Export, error) {
	return nil, fault(wire.Unauthorised)
}

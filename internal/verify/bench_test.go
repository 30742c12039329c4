//go:build unix

package verify_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// The auditor's own cost of deep verification: recorded answers, put together
// from the transport's pieces, decoded and verified on all cores, beside bare
// SHA-256 over the same values on as many. What counts is %bare, the share of
// bare SHA-256's speed, by the processor time both took in the same run:
// nothing else that runs on the machine is in it.
func BenchmarkVerify(b *testing.B) {
	for _, c := range []struct {
		name             string
		txs, values, len int
	}{
		{"10x1KiB", 4_000, 10, 1024},
		{"1x256B", 100_000, 1, 256},
		{"1x32B", 100_000, 1, 32},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := record(b, c.txs, c.values, c.len)
			o := verify.Options{Source: r, Database: ledger.DefaultDB, Mirror: r.mirror}
			if sum, err := verified(b, b.Context(), o); err != nil || sum.Tally.Damages() > 0 || sum.Total().Verified != uint64(c.txs*c.values) {
				b.Fatal(sum, err)
			}
			var bare, ours, bareWall, oursWall time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began, used := time.Now(), processor()
				r.hash()
				bare, bareWall = bare+processor()-used, bareWall+time.Since(began)
				began, used = time.Now(), processor()
				if _, err := verify.Run(b.Context(), o); err != nil {
					b.Fatal(err)
				}
				ours, oursWall = ours+processor()-used, oursWall+time.Since(began)
			}
			n := float64(b.N)
			b.ReportMetric(100*float64(bare)/float64(ours), "%bare")
			b.ReportMetric(100*float64(bareWall)/float64(oursWall), "%bare-wall")
			b.ReportMetric(n*float64(r.bytes)/1e6/oursWall.Seconds(), "MB/s")
			b.ReportMetric(n*float64(c.txs)/oursWall.Seconds(), "tx/s")
			b.ReportMetric(float64(ours.Nanoseconds())/n/float64(c.txs), "cpu-ns/tx")
		})
	}
}

// processor is the processor time of this process.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

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

// hash is bare SHA-256 over the values, on all cores.
func (r *recorded) hash() {
	var group sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	for w := range n {
		group.Go(func() {
			for _, value := range r.values[len(r.values)*w/n : len(r.values)*(w+1)/n] {
				sha256.Sum256(value)
			}
		})
	}
	group.Wait()
}

// Transactions answers as the wire does when the pieces of an answer have come.
func (r *recorded) Transactions(_ context.Context, _ string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (int, error) {
	if values == nil || from == 0 {
		return 0, errors.New("not recorded")
	}
	begin := 0
	if from > 1 {
		begin = r.ends[from-2]
	}
	end := r.ends[min(int(from)-1+limit, len(r.ends))-1]
	buffer := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buffer)
	*buffer = append((*buffer)[:0], r.text[begin:end]...)
	return end - begin, wire.ReadTransactions(*buffer, from, limit, each)
}

func (r *recorded) Headers(context.Context, string, uint64, int) ([]proof.Header, error) {
	return nil, errors.New("not recorded")
}

func (r *recorded) ValueAt(context.Context, string, []byte, uint64) ([][]byte, error) {
	return nil, errors.New("not recorded")
}

func (r *recorded) Export(context.Context, string, uint64) (*proof.Export, error) {
	return nil, errors.New("not recorded")
}

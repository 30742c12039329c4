package verify_test

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// However much a server sends, in whatever shape, no more is held than was
// allowed. It is measured in a process of its own, where nothing else is held.
func TestMemory(t *testing.T) {
	t.Parallel()
	const name = "IMMUAUDIT_TEST_FLOOD"
	if shape := os.Getenv(name); shape != "" {
		measure(t, shape)
		return
	}
	for shape := range floods {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$", "-test.v")
		cmd.Env = append(os.Environ(), name+"="+shape)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "PASS") {
			t.Errorf("%s: %v: %s", shape, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, " held ") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

// floods are ways to make an auditor hold as much as can be.
var floods = map[string]struct {
	old, hide, damage bool
	limit             int // of transactions in a listing
}{
	"entries left out": {hide: true, limit: 1},
	"before 1.2.3":     {old: true, limit: 1},
	"all damaged":      {damage: true, limit: 1},
	"many at a time":   {hide: true, limit: 1000},
}

// flood always sends the largest answer that is allowed.
type flood struct {
	shape   string
	message int
	digests [][]byte // encodings of the transactions
	heads   []proof.Header
	known   []proof.State // every sixth
	each    int           // entries of a transaction

	mu    sync.Mutex
	calls int
	peak  uint64
}

func measure(t *testing.T, shape string) {
	const message = 256 << 10
	f := newFlood(t, shape, message)
	base := f.live()
	f.peak = 0
	// Two runs at once: together they hold what both may.
	const runs = 2
	each := 2 * verify.LeastMemory(message)
	var group sync.WaitGroup
	for range runs {
		group.Go(func() {
			sum, err := verify.Run(t.Context(), verify.Options{Source: f, Trusted: f.known, MessageBytes: message, MemoryBytes: each})
			if fl := floods[shape]; (fl.damage || fl.hide) != (sum.Tally.Damages() > 0) || sum.Transactions == 0 || sum.Loose > 0 {
				t.Errorf("%v: %+v", err, sum.Tally)
			}
		})
	}
	group.Wait()
	held := int64(f.peak) - int64(base)
	t.Logf("%s: held %d KiB of %d KiB", shape, held>>10, runs*each>>10)
	if held > runs*each || held < message {
		t.Errorf("%s: held %d bytes, allowed are %d", shape, held, runs*each)
	}
}

func newFlood(t *testing.T, shape string, message int) *flood {
	f := &flood{shape: shape, message: message}
	limit := floods[shape].limit
	f.each = message / 45 / min(limit, 64)
	var entries []byte
	var tree proof.EntryTree
	for i := range f.each {
		key := []byte{0, byte(i), byte(i >> 8), byte(i >> 16)}
		e := proof.Entry{Key: key, HValue: proof.LeafHash(proof.Hash{1})}
		digest, err := proof.EntryDigest(1, &e)
		if err == nil {
			err = tree.Add(digest)
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := proto.Marshal(&schema.TxEntry{Key: key, HValue: e.HValue[:]})
		if err != nil {
			t.Fatal(err)
		}
		entries = protowire.AppendBytes(protowire.AppendTag(entries, 2, protowire.BytesType), text)
	}
	root, err := tree.Root()
	if err != nil {
		t.Fatal(err)
	}
	prev := proof.EmptyAlh()
	for id := range uint64(30 * min(limit, 8)) {
		h := proof.Header{ID: id + 1, PrevAlh: prev, Version: 1, NEntries: uint32(f.each), EH: root}
		prev = h.Alh()
		f.heads = append(f.heads, h)
		if h.ID%6 == 0 { // a stretch, so that there are several at a time
			f.known = append(f.known, proof.State{TxID: h.ID, Alh: prev})
		}
	}
	f.digests = [][]byte{entries}
	return f
}

// live is what is held at the moment, and remembers the most of it.
func (f *flood) live() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	runtime.GC()
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	f.peak = max(f.peak, s[0].Value.Uint64())
	return s[0].Value.Uint64()
}

func (f *flood) seldom(n int) {
	f.mu.Lock()
	f.calls++
	now := f.calls%n == 0
	f.mu.Unlock()
	if now {
		f.live()
	}
}

func (f *flood) Transactions(ctx context.Context, _ string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (int, error) {
	shape := floods[f.shape]
	switch {
	case limit > shape.limit, shape.limit > 1 && limit > f.message/45/f.each:
		return 0, &wire.Fault{Kind: wire.TooLarge, Op: "TxScan"}
	case shape.damage && len(values) > 0:
		return 0, refused(corrupted)
	}
	var pieces []byte // as it comes, and put together
	last := min(from+uint64(limit), uint64(len(f.heads))+1)
	for id := from; id < last; id++ {
		h := &f.heads[id-1]
		tx, err := proto.Marshal(&schema.Tx{Header: &schema.TxHeader{Id: h.ID, PrevAlh: h.PrevAlh[:], Nentries: int32(h.NEntries), EH: h.EH[:], BlRoot: h.BlRoot[:], Version: 1}})
		if err != nil {
			return 0, err
		}
		if !shape.hide || values == nil {
			tx = append(tx, f.digests[0]...)
		}
		pieces = protowire.AppendBytes(protowire.AppendTag(pieces, 1, protowire.BytesType), tx)
	}
	text := append([]byte(nil), pieces...)
	err := wire.ReadTransactions(text, from, limit, func(h *proof.Header, entries []proof.ExportedEntry) error {
		if values != nil && len(values) == 0 && !shape.old {
			entries = nil
		}
		err := each(h, entries)
		f.seldom(8)
		return err
	})
	runtime.KeepAlive(pieces)
	return len(text), err
}

func (f *flood) Headers(context.Context, string, uint64, int) ([]proof.Header, error) {
	return nil, refused("no")
}

func (f *flood) ValueAt(context.Context, string, []byte, uint64) ([][]byte, error) {
	f.seldom(20_000)
	if floods[f.shape].damage {
		return nil, refused(corrupted)
	}
	return nil, refused("no")
}

func (f *flood) Export(context.Context, string, uint64) (*proof.Export, error) {
	return nil, refused("no")
}

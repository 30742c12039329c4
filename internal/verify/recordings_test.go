package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// tape is one database of a recording, docs/protocol.md §8: what a running
// server answered about some of its transactions.
type tape struct {
	name      string
	old       bool // the server is older than 1.2.3
	truncated bool
	txs       map[uint64]*recordedTx
	last      uint64
}

type recordedTx struct {
	Tx       uint64 `json:"tx"`
	Digests  []byte `json:"tx_digests_b64"`
	Raw      []byte `json:"tx_raw_values_b64"`
	RawError string `json:"tx_raw_values_error"`
	Export   []byte `json:"export_tx_b64"`
}

// tapes loads the recordings that are kept, and those in the directory of
// IMMUAUDIT_VECTORS.
func tapes(t testing.TB) (list []*tape) {
	t.Helper()
	dirs := []string{filepath.Join("..", "..", "proof", "testdata", "vectors")}
	if dir := os.Getenv("IMMUAUDIT_VECTORS"); dir != "" {
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no recordings in %s (error %v)", dir, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r struct {
				Version   string `json:"server_version"`
				Databases []struct {
					Name string        `json:"name"`
					Txs  []*recordedTx `json:"txs"`
				} `json:"databases"`
			}
			if err := json.Unmarshal(data, &r); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, db := range r.Databases {
				p := &tape{
					name: filepath.Base(file) + "/" + db.Name, txs: map[uint64]*recordedTx{},
					old: strings.HasPrefix(r.Version, "v1.0."), truncated: strings.Contains(r.Version, "truncated"),
				}
				for _, tx := range db.Txs {
					p.txs[tx.Tx] = tx
					p.last = max(p.last, tx.Tx)
				}
				list = append(list, p)
			}
		}
	}
	return list
}

// Transactions plays back one transaction at a time.
func (p *tape) Transactions(_ context.Context, _ string, from uint64, _ int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (int, error) {
	tx := p.txs[from]
	if tx == nil {
		return 0, nil
	}
	text := tx.Digests
	if values != nil {
		if tx.RawError != "" {
			return 0, &wire.Fault{Kind: wire.Refused, Op: "TxScan", Code: codes.Unknown, Message: "EOF"}
		}
		text = tx.Raw
	}
	var m schema.Tx
	if err := proto.Unmarshal(text, &m); err != nil {
		return 0, err
	}
	if len(values) == 0 && values != nil && !p.old {
		m.Entries = nil
	}
	list, err := proto.Marshal(&schema.TxList{Txs: []*schema.Tx{&m}})
	if err != nil {
		return 0, err
	}
	return len(list), wire.ReadTransactions(list, from, 1, each)
}

func (p *tape) Headers(ctx context.Context, db string, from uint64, _ int) (list []proof.Header, err error) {
	_, err = p.Transactions(ctx, db, from, 1, nil, func(h *proof.Header, _ []proof.ExportedEntry) error {
		list = append(list, *h)
		return nil
	})
	return list, err
}

func (p *tape) ValueAt(context.Context, string, []byte, uint64) ([][]byte, error) {
	if p.truncated {
		return nil, &wire.Fault{Kind: wire.Refused, Op: "Get", Code: codes.Unknown, Message: "EOF"}
	}
	return nil, fault(wire.Refused) // none was recorded
}

func (p *tape) Export(_ context.Context, _ string, tx uint64) (*proof.Export, error) {
	if x := p.txs[tx]; x != nil && len(x.Export) > 0 {
		return proof.ParseExport(x.Export)
	}
	return nil, fault(wire.Refused)
}

// alh is that of a transaction, by its own recorded header: what is checked
// here is what comes after it.
func (p *tape) alh(t testing.TB, tx uint64) proof.State {
	t.Helper()
	list, err := p.Headers(t.Context(), "", tx, 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("transaction %d: %v", tx, err)
	}
	return proof.State{TxID: tx, Alh: list[0].Alh()}
}

// stretches are the recorded transactions that follow each other.
func (p *tape) stretches() (list [][2]uint64) {
	for tx := uint64(1); tx <= p.last; tx++ {
		switch {
		case p.txs[tx] == nil:
		case p.txs[tx-1] == nil:
			list = append(list, [2]uint64{tx, tx})
		default:
			list[len(list)-1][1] = tx
		}
	}
	return list
}

// What real servers answered holds, with nothing left unseen but what cannot
// be seen.
func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, p := range tapes(t) {
		for _, export := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/export %v", p.name, export), func(t *testing.T) {
				t.Parallel()
				var all verify.Count
				for _, s := range p.stretches() {
					o := verify.Options{Source: p, Trusted: []proof.State{p.alh(t, s[1])}, From: s[0], Export: export}
					if p.truncated {
						o.Retained = 54 // as transaction 54 records
					}
					sum, err := verified(t, t.Context(), o)
					if err != nil || sum.Tally.Damages() > 0 || sum.Loose > 0 || sum.Unstable > 0 || sum.Clean != s[1] {
						t.Errorf("%d to %d: %v: %+v", s[0], s[1], err, sum)
					}
					c := sum.Total()
					all.Entries += c.Entries
					all.Verified += c.Verified
					all.Expired += c.Expired
					all.Truncated += c.Truncated
					all.Unseen += c.Unseen
				}
				t.Logf("%+v", all)
				if all.Entries < 50 || all.Unseen > 0 || (all.Truncated > 0) != p.truncated {
					t.Errorf("%+v", all)
				}
				// One has expired; where it was exported it was seen.
				if want := uint64(1); !export && !p.old && all.Expired != want || export && !p.truncated && all.Expired != 0 {
					t.Errorf("%d have expired", all.Expired)
				}
			})
		}
	}
}

// Every bit of what they answered counts: one that is flipped in a key, a
// digest, a value or a header is found, or belongs to what no hash covers.
func TestRecordingsFlipped(t *testing.T) {
	t.Parallel()
	for _, p := range tapes(t) {
		if p.truncated {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			flips, found := 0, 0
			for _, tx := range []uint64{2, 3, 7, 11} {
				known := p.alh(t, tx)
				clean := *p.txs[tx]
				for _, field := range []func(*recordedTx) *[]byte{
					func(r *recordedTx) *[]byte { return &r.Raw },
					func(r *recordedTx) *[]byte { return &r.Digests },
				} {
					for i := range *field(&clean) {
						q := &tape{old: p.old, last: p.last, txs: map[uint64]*recordedTx{}}
						c := clean
						b := append([]byte(nil), *field(&clean)...)
						b[i] ^= 1 << (i % 8)
						*field(&c) = b
						q.txs[tx] = &c
						sum, err := verify.Run(t.Context(), verify.Options{Source: q, Trusted: []proof.State{known}, From: tx, Export: true})
						flips++
						if err != nil || sum.Tally.Damages() > 0 || sum.Unstable > 0 {
							found++
							continue
						}
						// Not found: then what was verified is what was there.
						if sum.Loose > 0 || sum.Total().Verified != uint64(len(entriesOf(t, clean.Digests))) {
							t.Errorf("transaction %d, byte %d: %+v", tx, i, sum)
						}
					}
				}
			}
			t.Logf("%d of %d flips found", found, flips)
			if found < flips/4 {
				t.Errorf("only %d of %d flips found", found, flips)
			}
		})
	}
}

func entriesOf(t testing.TB, text []byte) []*schema.TxEntry {
	t.Helper()
	var m schema.Tx
	if err := proto.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m.Entries
}

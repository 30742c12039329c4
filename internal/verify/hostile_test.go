package verify_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
)

// liar changes answers at random.
type liar struct {
	mu     sync.Mutex
	random *rand.Rand
	often  int // one in so many answers
}

func (l *liar) roll(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n)
}

// words are errors that servers know, and some that they do not.
var words = []string{
	"data is corrupted: value length or digest mismatch", "EOF", "tx not found", "key not found", "tx data is corrupted",
	"max concurrency limit exceeded", "result size limit exceeded: 3", "illegal arguments", "something else", "",
}

// rule lies about what transactions contain.
func (l *liar) rule() attack.Rule {
	return attack.Rule{Change: func(_ context.Context, c *attack.Call) error {
		switch c.Response.(type) {
		case *schema.Tx, *schema.TxList, *schema.Entry:
		default:
			return nil
		}
		if l.roll(l.often) > 0 {
			return nil
		}
		if l.roll(6) == 0 {
			return status.Error(codes.Unknown, words[l.roll(len(words))])
		}
		if list, ok := c.Response.(*schema.TxList); ok && len(list.Txs) > 0 {
			i := l.roll(len(list.Txs))
			switch l.roll(6) {
			case 0:
				list.Txs = list.Txs[:i]
				return nil
			case 1:
				list.Txs = slices.Insert(list.Txs, i, list.Txs[l.roll(len(list.Txs))])
				return nil
			default:
				l.transaction(list.Txs[i])
				return nil
			}
		}
		if tx, ok := c.Response.(*schema.Tx); ok {
			l.transaction(tx)
			return nil
		}
		c.Response = l.bytes(c.Response)
		return nil
	}}
}

func (l *liar) transaction(tx *schema.Tx) {
	n := len(tx.Entries)
	switch what := l.roll(5); {
	case what == 0 && n > 0:
		i := l.roll(n)
		tx.Entries = slices.Delete(tx.Entries, i, i+1)
	case what == 1 && n > 0:
		tx.Entries = append(tx.Entries, tx.Entries[l.roll(n)])
	case what == 2 && n > 0:
		e := tx.Entries[l.roll(n)]
		e.Value = append([]byte("\x00lie"), e.Value...)
		if l.roll(2) == 0 {
			h := ledger.HashValue(e.Value)
			e.HValue = h[:]
		}
	case what == 3:
		h := l.bytes(tx.Header).(*schema.TxHeader)
		tx.Header = h
	default:
		changed := l.bytes(tx).(*schema.Tx)
		tx.Header, tx.Entries = changed.Header, changed.Entries
	}
}

// bytes flips a bit of a message, if it is one afterwards.
func (l *liar) bytes(m proto.Message) proto.Message {
	text, err := proto.Marshal(m)
	if err != nil || len(text) == 0 {
		return m
	}
	out := m.ProtoReflect().New().Interface()
	text[l.roll(len(text))] ^= 1 << l.roll(8)
	if proto.Unmarshal(text, out) != nil {
		return m
	}
	return out
}

// Whatever a server answers, no run goes on for ever, none calls anything
// verified that is not there, and none that has nothing to report has
// overlooked a damaged value.
func lied(t *testing.T, seed uint64) {
	l := &liar{random: rand.New(rand.NewPCG(seed, 7))}
	l.often = 1 + l.roll(4)
	version := l.roll(2)
	g := newRig(t, ledger.Config{HeaderVersion: version}, func(o *wire.Options) { o.CallTimeout = 2 * time.Second })
	g.fill(20 + l.roll(60))
	g.everything(version)
	g.remember()
	o := g.options()
	if l.roll(3) == 0 {
		o = g.unmirrored()
	}
	o.Export = l.roll(4) == 0
	honest := g.clean(o)

	var damaged uint64
	if l.roll(2) == 0 {
		damaged = 1
		g.tamper(func(h *ledger.History) { h.SetValue(1+uint64(l.roll(20)), 0, []byte("\x00damaged")) })
	}
	g.layer.Add(l.rule())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sum, err := verified(t, ctx, o)
	if ctx.Err() != nil {
		t.Fatalf("no end: %v", err)
	}
	for k := range sum.Kinds {
		got, most := sum.Kinds[k], honest.Kinds[k]
		if verify.Kind(k) == verify.KeyValue {
			most.Verified -= damaged
		}
		if got.Entries > most.Entries || got.Verified > most.Verified {
			t.Errorf("%v: %+v, where there are %+v", verify.Kind(k), got, most)
		}
	}
	if err == nil && sum.Tally.Damages() == 0 && sum.Unsettled.TxID == 0 {
		if damaged > 0 && sum.Total().Unseen+sum.Total().Truncated+sum.Total().Expired == honest.Total().Unseen+honest.Total().Truncated+honest.Total().Expired {
			t.Errorf("a damaged value was overlooked: %+v", sum)
		}
		if sum.Total().Entries != honest.Total().Entries || sum.Transactions != honest.Transactions || sum.Loose > 0 {
			t.Errorf("everything is well with %+v, where there is %+v", sum, honest)
		}
	}
}

func TestHostile(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		lied(t, seed)
	}
}

func FuzzHostile(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(lied)
}

package attack

import (
	"bytes"
	"compress/gzip"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

const (
	// slowest is how long an answer is held back at most, should the client
	// have no deadline.
	slowest = 10 * time.Minute
	// bulk is the size of large answers: nearly the 32 MiB that servers send at
	// most, and more than clients take by default (docs/protocol.md §1).
	bulk = 30 << 20
	// endless is how many pieces of 64 KiB a stream has that does not end: a
	// client that reads 4 GiB has lost already.
	endless = 1 << 16
)

// transportScenarios spend a client's time and memory, or are mere trouble.
func transportScenarios() []Scenario {
	return slices.Concat(slowScenarios(), largeScenarios(), troubleScenarios())
}

// rule is a scenario of one rule for one call, after which six transactions
// are committed.
func rule(name, row, summary string, expect Expectation, r Rule) Scenario {
	return Scenario{
		Name: name, Row: row, Known: general, Expect: expect, Summary: summary,
		Steps: []Step{
			{"change the answers", func(st *Stage) error {
				r.Database = st.Database
				st.Layer.Add(r)
				return nil
			}},
			{"commit six transactions", func(st *Stage) error { return st.Write(6) }},
		},
	}
}

func slowScenarios() []Scenario {
	wait := func(ctx context.Context, _ *Call) error {
		timer := time.NewTimer(slowest)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	}
	state := func(t trick) func(context.Context, *Call) error {
		return func(_ context.Context, c *Call) error {
			c.Response = marked(new(schema.ImmutableState), t, bytes.Repeat([]byte{0}, 4096))
			return nil
		}
	}
	list := func(t trick) func(context.Context, *Call) error {
		return func(_ context.Context, c *Call) error {
			c.Response = marked(new(schema.TxList), t, bytes.Repeat([]byte{0}, 8192))
			return nil
		}
	}
	return []Scenario{
		rule("slow-state", "A26", "never answers what the state is", doubtful("timeout"), Rule{Method: "CurrentState", Change: wait}),
		rule("slow-headers", "A26", "never answers with transactions", doubtfulWalk("timeout"), Rule{Method: "TxScan", Change: wait}),
		rule("dribble", "A26", "sends a byte every 100 ms over the whole connection, from the first state on", doubtful("timeout"), Rule{Method: "CurrentState", Change: state(trickDribble)}),
		rule("reset-state", "A26", "resets the stream in the middle of a state", doubtful("unreachable"), Rule{Method: "CurrentState", Change: state(trickReset)}),
		rule("reset-headers", "A26", "resets the stream in the middle of a list of transactions", doubtfulWalk("unreachable"), Rule{Method: "TxScan", Change: list(trickReset)}),
		rule("cut-state", "A26", "cuts the connection in the middle of a state", doubtful("unreachable"), Rule{Method: "CurrentState", Change: state(trickCut)}),
		rule("cut-headers", "A26", "cuts the connection in the middle of a list of transactions", doubtfulWalk("unreachable"), Rule{Method: "TxScan", Change: list(trickCut)}),
	}
}

func largeScenarios() []Scenario {
	large := func(_ context.Context, c *Call) error {
		if c.Response != nil {
			c.Response.ProtoReflect().SetUnknown(filler())
		}
		return nil
	}
	return []Scenario{
		rule("large-state", "A26", "pads a state to 30 MiB", doubtful("too-large"), Rule{Method: "CurrentState", Change: large}),
		rule("large-headers", "A26", "pads every list of transactions to 30 MiB, however few are asked for", doubtfulWalk("too-large"), Rule{Method: "TxScan", Change: large}),
		rule("huge-state", "A26", "announces a state of 1 GiB", doubtful("too-large"), Rule{Method: "CurrentState", Change: func(_ context.Context, c *Call) error {
			c.Response = marked(new(schema.ImmutableState), trickHuge, make([]byte, 4096))
			return nil
		}}),
		rule("bomb", "A26", "answers with 1 GiB of zeros, compressed to 1 MiB, which nobody asked to be compressed", doubtful("malformed"), Rule{Method: "CurrentState", Change: func(ctx context.Context, c *Call) error {
			// What the server announces is not what gRPC's own functions would
			// let it: they ask the client first.
			if s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ SetSendCompress(string) error }); ok {
				if err := s.SetSendCompress("gzip"); err != nil {
					return err
				}
			}
			b, err := bomb()
			c.Response = marked(new(schema.ImmutableState), trickBomb, b)
			return err
		}}),
		{
			Name: "endless-export", Row: "A26", Known: general, Expect: Expectation{Verdict: undetermined, Reason: "too-large", Export: true},
			Summary: "exports a transaction that does not end, where only an export shows all there is",
			// A document, which readers are not shown (docs/protocol.md §2).
			prepare: func(st *Stage) error {
				if err := st.fill(historyLength); err != nil {
					return err
				}
				db, err := st.Ledger.Database(st.Database)
				if err == nil {
					_, err = db.Commit(ledger.Tx{Entries: []ledger.Entry{{Key: []byte("\x03document"), Value: []byte("{}"), Raw: true}}})
				}
				return err
			},
			Steps: once("export without end", func(st *Stage) error {
				flood := func(ctx context.Context, send func(proto.Message) error) error {
					chunk := &schema.Chunk{Content: bytes.Repeat([]byte{0xff}, 64<<10)}
					for range endless {
						if err := send(chunk); err != nil {
							return err
						}
					}
					return nil
				}
				for _, method := range [...]string{"exportTx", "streamExportTx"} {
					st.Layer.Add(Rule{Method: method, Database: st.Database, Stream: flood})
				}
				return nil
			}),
		},
	}
}

// doubtfulWalk is trouble for those who walk over the headers.
func doubtfulWalk(reason string) Expectation {
	e := doubtful(reason)
	e.WalkOnly = true
	return e
}

// filler is an unknown field of bulk bytes, which decoders must skip.
func filler() []byte {
	// Field 127, length-delimited.
	b := append([]byte{0xfa, 0x07}, 0x80, 0x80, 0x80, 0x0f) // 15·2²¹ = 30 MiB
	return append(b, make([]byte, bulk)...)
}

// bomb is 1 GiB of zeros under gzip: the same megabyte over and over, which is
// what a gzip file of several members is.
func bomb() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return bytes.Repeat(b.Bytes(), 1<<10), nil
}

// troubleScenarios are no attacks: an auditor must get over them by itself.
func troubleScenarios() []Scenario {
	fails := func(code codes.Code, text string) func(context.Context, *Call) error {
		return func(context.Context, *Call) error { return status.Error(code, text) }
	}
	return []Scenario{
		{
			Name: "token-expired", Row: "A27", Known: general, Expect: honest(),
			Summary: "no attack: the token has expired, and a new one is to be had",
			Steps: once("refuse one token", func(st *Stage) error {
				var once sync.Once
				expired := fails(codes.Unauthenticated, "token has expired")
				st.Layer.Add(Rule{Method: "CurrentState", Database: st.Database, Change: func(ctx context.Context, c *Call) (err error) {
					once.Do(func() { err = expired(ctx, c) })
					return err
				}})
				return nil
			}),
		},
		rule("logged-out", "A27", "no token is accepted for the database any more", doubtful("unauthorised"), Rule{Method: "CurrentState", Change: fails(codes.Unknown, "not logged in")}),
		rule("overloaded", "A27", "turns requests away: too many", doubtful("overloaded"), Rule{Method: "CurrentState", Change: fails(codes.Unknown, "max concurrency limit exceeded")}),
		rule("proofs-refused", "A27", "refuses every proof, as servers refuse some honest ones; the walk is to be had", honest(), Rule{Method: "VerifiableTxById", Change: fails(codes.Unknown, "tx data is corrupted: binary linking mismatch at tx 5")}),
		{
			Name: "unloaded", Row: "A27", Known: general, Expect: doubtful("not-loaded"),
			Summary: "closes the database, which is still listed",
			Steps:   once("unload the database", func(st *Stage) error { return st.Ledger.UnloadDatabase(st.Database) }),
		},
	}
}

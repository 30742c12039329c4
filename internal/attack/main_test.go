package attack_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const database = "orders"

// newStage serves a ledger whose every answer is the same at every run, for a
// scenario that was prepared.
func newStage(t *testing.T, s attack.Scenario) *attack.Stage {
	t.Helper()
	layer := attack.NewLayer()
	config := layer.Config(s.Config(ledger.Config{
		HeaderVersion: 1, UUID: "immuaudit", Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
	}))
	l, err := ledger.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := l.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	st := attack.NewStage(l, layer, database)
	st.Key = config.SigningKey
	if err := s.Prepare(st); err != nil {
		t.Fatal(err)
	}
	return st
}

// client is a plain client: it calls, and believes what it gets.
type client struct {
	schema.ImmuServiceClient
	t     *testing.T
	token string
}

func dial(t *testing.T, st *attack.Stage, user, password string) *client {
	t.Helper()
	conn, err := grpc.NewClient(st.Ledger.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &client{ImmuServiceClient: schema.NewImmuServiceClient(conn), t: t}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	login, err := c.Login(ctx, &schema.LoginRequest{User: []byte(user), Password: []byte(password)})
	if err != nil {
		t.Fatal(err)
	}
	c.token = login.GetToken()
	if use, err := c.UseDatabase(c.with(ctx), &schema.Database{DatabaseName: st.Database}); err == nil {
		c.token = use.GetToken() // otherwise it is gone, which calls will tell
	}
	return c
}

func admin(t *testing.T, st *attack.Stage) *client {
	t.Helper()
	return dial(t, st, ledger.AdminUser, ledger.DefaultAdminPassword)
}

func (c *client) with(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", c.token)
}

// patience is how long a call may take that is not expected to.
const patience = 10 * time.Second

// probe asks everything there is to ask, and puts the answers into one text.
func (c *client) probe(wait time.Duration) string {
	var b strings.Builder
	tell := func(what string, call func(ctx context.Context) (proto.Message, error)) {
		ctx, cancel := context.WithTimeout(c.with(c.t.Context()), wait)
		defer cancel()
		m, err := call(ctx)
		if err != nil {
			fmt.Fprintf(&b, "%s: %s\n", what, status.Code(err))
			return
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			c.t.Error(err)
		}
		fmt.Fprintf(&b, "%s: %x\n", what, raw)
	}
	tell("state", func(ctx context.Context) (proto.Message, error) {
		var header metadata.MD
		s, err := c.CurrentState(ctx, &emptypb.Empty{}, grpc.Header(&header))
		fmt.Fprintf(&b, "uuid: %v\n", header.Get("immudb-uuid"))
		if sig := s.GetSignature(); sig != nil { // made with randomness
			sig.Signature = fmt.Append(nil, verifies(s))
		}
		return s, err
	})
	tell("list", func(ctx context.Context) (proto.Message, error) {
		list, err := c.TxScan(ctx, &schema.TxScanRequest{InitialTx: 1, Limit: 1000})
		for _, tx := range list.GetTxs() {
			id := tx.GetHeader().GetId()
			fmt.Fprintf(&b, "tx %d: %x\n", id, tx.GetHeader().GetBlRoot())
		}
		return list, err
	})
	const last = 24 // that every scenario has
	for tx := uint64(1); tx <= last+2; tx++ {
		tell("values", func(ctx context.Context) (proto.Message, error) {
			return c.TxById(ctx, &schema.TxRequest{Tx: tx, EntriesSpec: rawValues()})
		})
	}
	for _, pair := range [...][2]uint64{{last, last}, {last + 1, last}, {last + 6, last}, {last + 15, last}, {last, last + 1}} {
		tell("proof", func(ctx context.Context) (proto.Message, error) {
			m, err := c.VerifiableTxById(ctx, &schema.VerifiableTxRequest{Tx: pair[0], ProveSinceTx: pair[1]})
			if m != nil {
				m.Signature = nil // made with randomness
			}
			return m, err
		})
	}
	tell("export", func(ctx context.Context) (proto.Message, error) { return c.export(ctx, 1) })
	return b.String()
}

// verifies checks a state's signature under the key that it carries.
func verifies(s *schema.ImmutableState) bool {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), s.GetSignature().GetPublicKey())
	if err != nil {
		return false
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s.GetDb())))
	b = append(b, s.GetDb()...)
	b = binary.BigEndian.AppendUint64(b, s.GetTxId())
	digest := sha256.Sum256(append(b, s.GetTxHash()...))
	return ecdsa.VerifyASN1(key, digest[:], s.GetSignature().GetSignature())
}

// export reads a transaction, of reasonable size.
func (c *client) export(ctx context.Context, tx uint64) (*schema.Chunk, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.ExportTx(ctx, &schema.ExportTxRequest{Tx: tx})
	if err != nil {
		return nil, err
	}
	all := &schema.Chunk{}
	for len(all.Content) < 1<<20 {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all.Content = append(all.Content, chunk.GetContent()...)
	}
	return nil, errors.New("no end in sight")
}

func rawValues() *schema.EntriesSpec {
	raw := &schema.EntryTypeSpec{Action: schema.EntryTypeAction_RAW_VALUE}
	return &schema.EntriesSpec{KvEntriesSpec: raw, ZEntriesSpec: raw, SqlEntriesSpec: raw}
}

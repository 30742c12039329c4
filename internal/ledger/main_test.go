package ledger

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/wire/schema"
)

func TestMain(m *testing.M) {
	// TestKill runs this binary again as the process to be killed.
	if dir := os.Getenv(childDirVariable); dir != "" {
		os.Exit(writeUntilKilled(dir))
	}
	goleak.VerifyTestMain(m)
}

var empty = &emptypb.Empty{}

// serve opens and starts a ledger that ends with the test.
func serve(t testing.TB, cfg Config) *Ledger {
	t.Helper()
	l, err := Open(cfg)
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
	return l
}

// client is a connection to a ledger.
type client struct {
	schema.ImmuServiceClient
	t testing.TB
}

func dial(t testing.TB, l *Ledger, opts ...grpc.DialOption) client {
	t.Helper()
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}, opts...)
	conn, err := grpc.NewClient(l.Addr(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return client{schema.NewImmuServiceClient(conn), t}
}

func (c client) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

func (c client) with(token string) context.Context {
	return metadata.AppendToOutgoingContext(c.ctx(), "authorization", token)
}

func (c client) withSession(id string) context.Context {
	return metadata.AppendToOutgoingContext(c.ctx(), "sessionid", id)
}

// restart restarts the ledger and waits until the connection has noticed.
func (c client) restart(l *Ledger) {
	c.t.Helper()
	try(c.t, l.Restart())
	waitFor(c.t, func() bool {
		_, err := c.Health(c.ctx(), empty)
		return err == nil
	})
}

// login returns an unbound token (bound where only the default database exists).
func (c client) login(user, password string) string {
	c.t.Helper()
	r, err := c.Login(c.ctx(), &schema.LoginRequest{User: []byte(user), Password: []byte(password)})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.GetToken()
}

// use returns a context bound to a database, as a user.
func (c client) use(user, password, db string) context.Context {
	c.t.Helper()
	r, err := c.UseDatabase(c.with(c.login(user, password)), &schema.Database{DatabaseName: db})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.with(r.GetToken())
}

func (c client) admin(db string) context.Context {
	c.t.Helper()
	return c.use(AdminUser, DefaultAdminPassword, db)
}

func database(t testing.TB, l *Ledger, name string) *Database {
	t.Helper()
	d, err := l.Database(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func try(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
}

func kv(key, value string) *schema.KeyValue {
	return &schema.KeyValue{Key: []byte(key), Value: []byte(value)}
}

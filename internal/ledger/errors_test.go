package ledger

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"immuaudit/internal/wire/schema"
)

func wantError(t testing.TB, err error, code, message string) {
	t.Helper()
	s, ok := status.FromError(err)
	if err == nil || !ok || s.Code().String() != code || !strings.HasPrefix(s.Message(), message) {
		t.Errorf("got %v, want %s %q", err, code, message)
	}
}

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for 10 s")
		}
	}
}

// clock is a settable one.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// TestErrors is the table of docs/protocol.md §1.
func TestErrors(t *testing.T) {
	t.Parallel()
	const denied = "Logged in user does not have permission on this database"
	type world struct {
		*testing.T
		l     *Ledger
		c     client
		clock *clock
		admin context.Context // bound to one
	}
	state := func(w world, ctx context.Context) error { return second(w.c.CurrentState(ctx, empty)) }
	use := func(w world, ctx context.Context, name string) error {
		return second(w.c.UseDatabase(ctx, &schema.Database{DatabaseName: name}))
	}
	for _, tc := range []struct {
		name, code, message string
		do                  func(w world) error
	}{
		{"no login", "Unknown", "not logged in", func(w world) error { return state(w, w.c.ctx()) }},
		{"no login, list", "Unknown", "not logged in", func(w world) error { return second(w.c.DatabaseList(w.c.ctx(), empty)) }},
		{"no login, Logout", "Unknown", "not logged in", func(w world) error { return second(w.c.Logout(w.c.ctx(), empty)) }},
		{"no login, UseDatabase", "Unknown", "not logged in", func(w world) error { return use(w, w.c.ctx(), "one") }},
		{"no login, Set", "Unknown", "not logged in", func(w world) error { return second(w.c.Set(w.c.ctx(), &schema.SetRequest{})) }},
		{"wrong password", "Unknown", "invalid user name or password", func(w world) error {
			return second(w.c.Login(w.c.ctx(), &schema.LoginRequest{User: []byte("immudb"), Password: []byte("x")}))
		}},
		{"wrong user", "Unknown", "invalid user name or password", func(w world) error {
			return second(w.c.OpenSession(w.c.ctx(), &schema.OpenSessionRequest{Username: []byte("x"), Password: []byte("immudb")}))
		}},
		{"no database chosen", "Unknown", "please select a database first", func(w world) error {
			return state(w, w.c.with(w.c.login("immudb", "immudb")))
		}},
		{"garbage token", "Internal", "invalid token", func(w world) error { return state(w, w.c.with("garbage")) }},
		{"token of an earlier run", "PermissionDenied", "please login", func(w world) error {
			w.c.restart(w.l)
			return state(w, w.admin)
		}},
		{"expired token", "Unauthenticated", "token has expired", func(w world) error {
			w.clock.advance(25 * time.Hour)
			return state(w, w.admin)
		}},
		{"after Logout, another token of the user", "Unknown", "not logged in", func(w world) error {
			must(w.c.Logout(w.c.with(w.c.login("immudb", "immudb")), empty))(w)
			return state(w, w.admin)
		}},
		{"unknown session", "PermissionDenied", "session not found", func(w world) error { return state(w, w.c.withSession("x")) }},
		{"idle session", "PermissionDenied", "session not found", func(w world) error {
			s := must(w.c.OpenSession(w.c.ctx(), &schema.OpenSessionRequest{Username: []byte("immudb"), Password: []byte("immudb"), DatabaseName: "one"}))(w)
			ctx := w.c.withSession(s.GetSessionID())
			for range 3 {
				w.clock.advance(119 * time.Second)
				must(w.c.KeepAlive(ctx, empty))(w)
			}
			w.clock.advance(121 * time.Second)
			return state(w, ctx)
		}},
		{"session after a restart", "PermissionDenied", "session not found", func(w world) error {
			s := must(w.c.OpenSession(w.c.ctx(), &schema.OpenSessionRequest{Username: []byte("immudb"), Password: []byte("immudb"), DatabaseName: "one"}))(w)
			w.c.restart(w.l)
			return second(w.c.KeepAlive(w.c.withSession(s.GetSessionID()), empty))
		}},
		{"closed session", "PermissionDenied", "session not found", func(w world) error {
			s := must(w.c.OpenSession(w.c.ctx(), &schema.OpenSessionRequest{Username: []byte("immudb"), Password: []byte("immudb"), DatabaseName: "one"}))(w)
			must(w.c.CloseSession(w.c.withSession(s.GetSessionID()), empty))(w)
			return second(w.c.CloseSession(w.c.withSession(s.GetSessionID()), empty))
		}},
		{"unknown database", "NotFound", "'x' does not exist", func(w world) error { return use(w, w.admin, "x") }},
		{"renamed away", "NotFound", "'one' does not exist", func(w world) error {
			try(w, w.l.RenameDatabase("one", "other"))
			if s := must(w.c.CurrentState(w.admin, empty))(w); s.GetDb() != "other" {
				w.Errorf("state %v", s)
			}
			return use(w, w.admin, "one")
		}},
		{"deleted database", "Unknown", "database does not exist", func(w world) error {
			try(w, w.l.DeleteDatabase("one"))
			return use(w, w.admin, "one")
		}},
		{"deleted database, bound token", "Unknown", "database does not exist", func(w world) error {
			try(w, w.l.DeleteDatabase("one"))
			return state(w, w.admin)
		}},
		{"deleted database, after a restart", "NotFound", "'one' does not exist", func(w world) error {
			try(w, w.l.DeleteDatabase("one"))
			w.c.restart(w.l)
			return use(w, w.c.with(w.c.login("immudb", "immudb")), "one")
		}},
		{"created where deleted", "Unknown", "database already exists", func(w world) error {
			try(w, w.l.DeleteDatabase("one"))
			return second(w.c.CreateDatabase(w.admin, &schema.Database{DatabaseName: "one"}))
		}},
		{"created twice", "Unknown", "database already exists", func(w world) error {
			return second(w.c.CreateDatabase(w.admin, &schema.Database{DatabaseName: "one"}))
		}},
		{"unloaded database", "Unknown", "already closed", func(w world) error {
			try(w, w.l.UnloadDatabase("one"))
			return use(w, w.admin, "one")
		}},
		{"unloaded database, bound token", "Unknown", "already closed", func(w world) error {
			try(w, w.l.UnloadDatabase("one"))
			return state(w, w.admin)
		}},
		{"no permission", "PermissionDenied", denied, func(w world) error {
			return use(w, w.c.with(w.c.login("ada", "secret")), "two")
		}},
		{"systemdb as a user", "PermissionDenied", denied, func(w world) error {
			return use(w, w.c.with(w.c.login("ada", "secret")), SystemDB)
		}},
		{"permission revoked", "Unknown", "not logged in", func(w world) error {
			ctx := w.c.use("ada", "secret", "one")
			try(w, state(w, ctx))
			try(w, w.l.Revoke("ada", "one"))
			if list := must(w.c.DatabaseList(w.c.with(w.c.login("ada", "secret")), empty))(w); len(list.GetDatabases()) != 0 {
				w.Errorf("databases of a user without any: %v", list)
			}
			return state(w, ctx)
		}},
		{"export as reader", "Internal", "permission denied", func(w world) error {
			return second(export(w.c, w.c.use("ada", "secret", "one"), 1, false))
		}},
		{"export as reader, stream", "Internal", "permission denied", func(w world) error {
			return second(export(w.c, w.c.use("ada", "secret", "one"), 1, true))
		}},
		{"write as reader", "PermissionDenied", "permission denied", func(w world) error {
			return second(w.c.Set(w.c.use("ada", "secret", "one"), &schema.SetRequest{KVs: []*schema.KeyValue{kv("k", "v")}}))
		}},
		{"create as reader", "PermissionDenied", "permission denied", func(w world) error {
			return second(w.c.CreateDatabase(w.c.use("ada", "secret", "one"), &schema.Database{DatabaseName: "three"}))
		}},
		{"VerifiableTxById 0", "InvalidArgument", "illegal arguments", func(w world) error {
			return second(w.c.VerifiableTxById(w.admin, &schema.VerifiableTxRequest{}))
		}},
		{"VerifiableTxById beyond last", "Unknown", "tx not found", func(w world) error {
			return second(w.c.VerifiableTxById(w.admin, &schema.VerifiableTxRequest{Tx: 99}))
		}},
		{"TxById beyond last", "Unknown", "tx not found", func(w world) error {
			return second(w.c.TxById(w.admin, &schema.TxRequest{Tx: 1 << 63}))
		}},
		{"proveSinceTx beyond last", "Unknown", "illegal state: latest txID=9 is lower than specified as initial tx=12", func(w world) error {
			return second(w.c.VerifiableTxById(w.admin, &schema.VerifiableTxRequest{Tx: 1, ProveSinceTx: 12}))
		}},
		{"proveSinceTx beyond last, VerifiableSet", "Unknown", "illegal state: latest txID=9 is lower", func(w world) error {
			return second(w.c.VerifiableSet(w.admin, &schema.VerifiableSetRequest{SetRequest: &schema.SetRequest{KVs: []*schema.KeyValue{kv("k", "v")}}, ProveSinceTx: 10}))
		}},
		{"tree that shrinks", "Unknown", "tx data is corrupted: binary linking mismatch at tx 8", func(w world) error {
			return second(w.c.VerifiableTxById(w.admin, &schema.VerifiableTxRequest{Tx: 9, ProveSinceTx: 8}))
		}},
		{"page limit", "Unknown", "result size limit exceeded: ", func(w world) error {
			return second(w.c.TxScan(w.admin, &schema.TxScanRequest{InitialTx: 1, Limit: 2501}))
		}},
		{"page limit, Scan", "Unknown", "result size limit exceeded: ", func(w world) error {
			return second(w.c.Scan(w.admin, &schema.ScanRequest{Limit: 1 << 60}))
		}},
		{"damaged value", "Unknown", "data is corrupted: value length or digest mismatch", func(w world) error {
			try(w, database(w, w.l, "one").Tamper(func(h *History) { h.SetValue(2, 0, []byte("\x00other")) }))
			return second(w.c.TxScan(w.admin, &schema.TxScanRequest{InitialTx: 1, Limit: 5, EntriesSpec: rawSpec}))
		}},
		{"damaged value, Get", "Unknown", "data is corrupted: value length or digest mismatch", func(w world) error {
			try(w, database(w, w.l, "one").Tamper(func(h *History) { h.SetValue(9, 0, []byte("\x00other")) }))
			return second(w.c.Get(w.admin, &schema.KeyRequest{Key: []byte("k")}))
		}},
		{"removed by retention", "Unknown", "EOF", func(w world) error {
			id := must(database(w, w.l, "one").Truncate(3))(w)
			h := must(w.c.TxById(w.admin, &schema.TxRequest{Tx: id}))(w).GetHeader()
			if h.GetMetadata().GetTruncatedTxID() != 3 || h.GetVersion() != 1 {
				w.Errorf("record %v", h)
			}
			must(w.c.TxScan(w.admin, &schema.TxScanRequest{InitialTx: 3, EntriesSpec: rawSpec}))(w)
			return second(w.c.TxScan(w.admin, &schema.TxScanRequest{InitialTx: 2, EntriesSpec: rawSpec}))
		}},
		{"key not found", "Unknown", "key not found", func(w world) error {
			return second(w.c.Get(w.admin, &schema.KeyRequest{Key: []byte("x")}))
		}},
		{"empty Set", "InvalidArgument", "illegal arguments", func(w world) error {
			return second(w.c.Set(w.admin, &schema.SetRequest{}))
		}},
		{"same key twice", "InvalidArgument", "illegal arguments", func(w world) error {
			return second(w.c.Set(w.admin, &schema.SetRequest{KVs: []*schema.KeyValue{kv("k", "v"), kv("k", "v")}}))
		}},
		{"bad name", "InvalidArgument", "illegal arguments", func(w world) error {
			return second(w.c.CreateDatabase(w.admin, &schema.Database{DatabaseName: "a/b"}))
		}},
		{"too large", "ResourceExhausted", "", func(w world) error {
			return second(w.c.Set(w.admin, &schema.SetRequest{KVs: []*schema.KeyValue{{Key: []byte("k"), Value: make([]byte, maxMessage+1)}}}))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := world{T: t, clock: &clock{t: time.Unix(1_700_000_000, 0)}}
			w.l = serve(t, Config{
				Now: w.clock.now,
				BlTxID: func(_ string, id uint64) uint64 {
					if id == 9 {
						return 3
					}
					return id - 1
				},
			})
			try(t, w.l.CreateDatabase("one"))
			try(t, w.l.CreateDatabase("two"))
			try(t, w.l.CreateUser("ada", "secret"))
			try(t, w.l.Grant("ada", "one", Read))
			one := database(t, w.l, "one")
			for range 9 {
				must(one.Set([]byte("k"), []byte("v")))(t)
			}
			w.c = dial(t, w.l)
			w.admin = w.c.admin("one")
			wantError(t, tc.do(w), tc.code, tc.message)
		})
	}
}

// TestStaleToken: a bound token holds a slot, so that after databases were
// deleted and created it points at another one.
func TestStaleToken(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{})
	try(t, l.CreateDatabase("one"))
	c := dial(t, l)
	ctx := c.admin("one")
	try(t, l.DeleteDatabase("one"))
	wantError(t, second(c.CurrentState(ctx, empty)), "Unknown", "database does not exist")
	try(t, l.CreateDatabase("another"))
	if s := must(c.CurrentState(ctx, empty))(t); s.GetDb() != "another" {
		t.Errorf("state %v", s)
	}
	if err := l.CreateDatabase("one"); err == nil {
		t.Error("a deleted name was free before the restart")
	}
	try(t, l.Restart())
	try(t, l.CreateDatabase("one"))
}

// TestNoAuth: docs/protocol.md §1, servers started with authentication off.
func TestNoAuth(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{NoAuth: true})
	try(t, l.CreateDatabase("one"))
	c := dial(t, l)
	wantError(t, second(c.Login(c.ctx(), &schema.LoginRequest{User: []byte("immudb"), Password: []byte("immudb")})), "Unknown", "authentication is disabled")
	wantError(t, second(c.DatabaseList(c.ctx(), empty)), "Unknown", "")
	must(c.Set(c.ctx(), &schema.SetRequest{KVs: []*schema.KeyValue{kv("k", "v")}}))(t)
	if s := must(c.CurrentState(c.ctx(), empty))(t); s.GetDb() != DefaultDB || s.GetTxId() != 1 {
		t.Errorf("state %v", s)
	}
	must(export(c, c.ctx(), 1, false))(t)
}

// TestConfig: what cannot work is refused before anything starts.
func TestConfig(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{Version: "1.2"}, "want MAJOR.MINOR.PATCH"},
		{Config{Version: "1.x.3"}, "want MAJOR.MINOR.PATCH"},
		{Config{HeaderVersion: 2}, "only 0 and 1 exist"},
		{Config{UUID: strings.Repeat("x", 65)}, "at most 64"},
		{Config{AdminPassword: strings.Repeat("x", 100)}, "password"},
	} {
		if l, err := Open(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, %v", tc.cfg, l, err)
		}
	}
	for _, v := range []struct {
		text string
		want bool
	}{{"1.2.3", true}, {"v1.2.3-rc1", true}, {"2.0.0", true}, {"1.3.0", true}, {"1.2.2", false}, {"0.9.9", false}} {
		if r := must(parseRelease(v.text))(t); r.atLeast(1, 2, 3) != v.want {
			t.Errorf("%s at least 1.2.3: %v", v.text, !v.want)
		}
	}
	l := must(Open(Config{AdminPassword: "other"}))(t)
	if len(l.UUID()) != 20 {
		t.Errorf("UUID %q", l.UUID())
	}
	try(t, l.Start("127.0.0.1:0"))
	if err := l.Start("127.0.0.1:0"); err == nil {
		t.Error("started twice")
	}
	c := dial(t, l, grpc.WithUserAgent("test"))
	wantError(t, second(c.Login(c.ctx(), &schema.LoginRequest{User: []byte("immudb"), Password: []byte("immudb")})), "Unknown", "invalid user name or password")
	if c.login("immudb", "other") == "" {
		t.Error("no token")
	}
	try(t, l.Close())
	try(t, l.Close())
	if err := l.Restart(); err == nil {
		t.Error("restarted after Close")
	}
}

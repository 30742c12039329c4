package wire

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
)

func TestAsk(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "defaultdb", "ledger")
	c := dial(t, s.addr)
	ctx := t.Context()

	if c.UUID() != "" {
		t.Errorf("there is a UUID before the first answer: %q", c.UUID())
	}
	version, err := c.ServerVersion(ctx)
	if err != nil || version != "1.11.1" {
		t.Errorf("ServerVersion: %q, %v", version, err)
	}
	if c.Stats().Logins != 0 {
		t.Error("asking for the version must not log in")
	}
	if c.UUID() != "c0ffee" {
		t.Errorf("UUID %q", c.UUID())
	}
	list, err := c.Databases(ctx)
	if err != nil || !slices.Equal(list, []string{"defaultdb", "ledger"}) {
		t.Errorf("Databases: %q, %v", list, err)
	}
	name, err := c.DefaultDatabase(ctx)
	if err != nil || name != "defaultdb" {
		t.Errorf("DefaultDatabase: %q, %v", name, err)
	}
	state, err := c.CurrentState(ctx, "ledger")
	if err != nil || state.DB != "ledger" || state.TxID != 3 {
		t.Errorf("CurrentState: %+v, %v", state, err)
	}
	headers, err := c.Headers(ctx, "ledger", 2, 1000)
	if err != nil || len(headers) != 2 || headers[0].ID != 2 || headers[1].ID != 3 {
		t.Errorf("Headers: %+v, %v", headers, err)
	}
	headers, err = c.Headers(ctx, "ledger", 4, 1000)
	if err != nil || len(headers) != 0 {
		t.Errorf("Headers beyond the end: %+v, %v", headers, err)
	}
	tx, err := c.VerifiableTx(ctx, "ledger", 2, 3)
	if err != nil || tx.Proof.Source.ID != 2 || tx.Proof.Target.ID != 3 || tx.Header.ID != 3 {
		t.Errorf("DualProof: %+v, %v", tx, err)
	}

	if got := c.Stats(); got.Logins != 1 || got.InFlight != 0 || got.Calls["CurrentState"] != 3 || got.Calls["UseDatabase"] != 2 || got.BytesIn == 0 || got.BytesOut == 0 {
		t.Errorf("Stats: %+v", got)
	}
	if got := c.Usages()["ledger"]; got.Calls != 5 || got.BytesIn == 0 || got.BytesOut == 0 {
		t.Errorf("Usage: %+v", got)
	}
	if got := c.Usages()["never asked for"]; got != (Usage{}) {
		t.Errorf("Usage: %+v", got)
	}
}

// What a server says must fit its bounds whoever else vouches for it.
func TestAskBounds(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 129)
	list := func(names ...string) *schema.DatabaseListResponse {
		r := new(schema.DatabaseListResponse)
		for _, name := range names {
			r.Databases = append(r.Databases, &schema.Database{DatabaseName: name})
		}
		return r
	}
	databases := func(ctx context.Context, c *Client) error { _, err := c.Databases(ctx); return err }
	state := func(ctx context.Context, c *Client) error { _, err := c.CurrentState(ctx, "db0"); return err }
	for name, tt := range map[string]struct {
		method string
		answer answerFunc
		call   func(context.Context, *Client) error
		kind   string
		says   string
	}{
		"too many databases":        {"DatabaseList", give(list(names(maxDatabases + 1)...)), databases, Malformed, "20001"},
		"a name without end":        {"DatabaseList", give(list(long)), databases, Malformed, "129 bytes"},
		"a name of nothing":         {"DatabaseList", give(list("")), databases, Malformed, "empty"},
		"a name that moves cursors": {"DatabaseList", give(list("\x1b[2J")), databases, Malformed, `\x1b`},
		"a name that turns text":    {"DatabaseList", give(list("a\u202eb")), databases, Malformed, `\u202e`},
		"no token":                  {"UseDatabase", give(&schema.UseDatabaseReply{}), state, Malformed, "token"},
		"a token with a newline":    {"UseDatabase", give(&schema.UseDatabaseReply{Token: "a\nb"}), state, Malformed, "token"},
		"a token of 9 KiB":          {"Login", give(&schema.LoginResponse{Token: strings.Repeat("x", 9<<10)}), state, Malformed, "token"},
		"a hash of 31 bytes":        {"CurrentState", give(&schema.ImmutableState{Db: "db0", TxId: 1, TxHash: make([]byte, 31)}), state, Malformed, "31"},
		"a version of 65 bytes": {"Health", give(&schema.HealthResponse{Version: long[:65]}), func(ctx context.Context, c *Client) error {
			_, err := c.ServerVersion(ctx)
			return err
		}, Malformed, "version"},
		"no default database": {"CurrentState", give(&schema.ImmutableState{}), func(ctx context.Context, c *Client) error {
			_, err := c.DefaultDatabase(ctx)
			return err
		}, Malformed, "empty"},
		"a proof without headers": {"VerifiableTxById", give(&schema.VerifiableTx{DualProof: &schema.DualProof{}}), func(ctx context.Context, c *Client) error {
			_, err := c.VerifiableTx(ctx, "db0", 1, 2)
			return err
		}, Malformed, "sourceTxHeader"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil, "db0", "defaultdb")
			s.answer(tt.method, tt.answer)
			c := dial(t, s.addr)
			wantFault(t, tt.call(t.Context(), c), tt.kind, tt.says)
			s.answer(tt.method, nil)
			if err := tt.call(t.Context(), c); err != nil {
				t.Errorf("once the server answers well: %v", err)
			}
		})
	}
}

func TestNamesOfCallers(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	c := dial(t, s.addr)
	for _, name := range []string{"", strings.Repeat("x", 129), "a\x00b", "\xff"} {
		_, err := c.CurrentState(t.Context(), name)
		wantFault(t, err, Malformed, "database name")
		wantFault(t, c.Bind(t.Context(), name), Malformed)
	}
	if got := s.called("Login"); got != 0 {
		t.Errorf("%d logins for names that cannot be", got)
	}
}

func TestUUID(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	c := dial(t, s.addr)
	for _, tt := range []struct{ sent, want string }{
		{"first", "first"},
		{strings.Repeat("x", 65), "first"},
		{"", "first"},
		{"second", "second"},
		{strings.Repeat("y", 64), strings.Repeat("y", 64)},
	} {
		s.set(func() { s.uuid = tt.sent })
		if _, err := c.ServerVersion(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.UUID(); got != tt.want {
			t.Errorf("sent %q, UUID is %q, want %q", tt.sent, got, tt.want)
		}
	}
	// An error is an answer too.
	s.set(func() { s.uuid = "third" })
	s.answer("Health", say(codes.Unknown, "no"))
	_, err := c.ServerVersion(t.Context())
	wantFault(t, err, Refused)
	if got := c.UUID(); got != "third" {
		t.Errorf("UUID %q after an error, want third", got)
	}
	// Two are none.
	s.answer("Health", func(ctx context.Context, _ proto.Message) (any, error, bool) {
		return nil, grpc.SetHeader(ctx, metadata.Pairs("immudb-uuid", "fourth")), false
	})
	if _, err := c.ServerVersion(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.UUID(); got != "third" {
		t.Errorf("UUID %q after two at once, want third", got)
	}
}

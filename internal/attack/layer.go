package attack

import (
	"context"
	"path"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// maxLogins bounds the tokens a layer remembers the database and user of.
const maxLogins = 10_000

// Layer stands between a ledger and its clients and may change every answer,
// as a server can whose program is not immudb's. It is honest until rules are
// added. All methods are safe for concurrent use.
type Layer struct {
	mu     sync.Mutex
	rules  []Rule
	logins map[string]login // by token or session

	armed arming
}

// login is what a token or session was given for.
type login struct{ user, database string }

// Rule is one lie. The fields that are nil do nothing.
type Rule struct {
	Method   string // as in the service, "TxScan"; empty: every call
	Database string // empty: whatever the call is about
	User     string // empty: everybody

	// Change gets every answer that is no error, and may change or replace it.
	// An error it returns is the answer instead.
	Change func(ctx context.Context, c *Call) error
	// Around answers in the ledger's place; next asks the ledger.
	Around func(ctx context.Context, c *Call, next func() (any, error)) (any, error)
	// Stream answers a streaming call in the ledger's place.
	Stream func(ctx context.Context, send func(proto.Message) error) error
}

// Call is one call and its answer. The answer is a copy nobody else has.
type Call struct {
	Method, Database, User string
	Request, Response      proto.Message
}

// NewLayer gives an honest layer.
func NewLayer() *Layer { return &Layer{logins: map[string]login{}} }

// Config puts the layer in front of the ledger that is opened with what it
// returns. The layer takes over TLS, as it also changes what is below gRPC.
func (l *Layer) Config(base ledger.Config) ledger.Config {
	creds := insecure.NewCredentials()
	if base.TLS != nil {
		creds = credentials.NewTLS(base.TLS.Clone())
		base.TLS = nil
	}
	base.ServerOptions = append(slices.Clone(base.ServerOptions),
		grpc.Creds(&channel{creds}),
		grpc.ChainUnaryInterceptor(l.unary),
		grpc.ChainStreamInterceptor(l.stream),
	)
	return base
}

// Add puts a rule after those that there are.
func (l *Layer) Add(r Rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = append(l.rules, r)
}

// Clear makes the layer honest again.
func (l *Layer) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = nil
}

// matching are the rules for a call.
func (l *Layer) matching(c *Call) []Rule {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Rule
	for _, r := range l.rules {
		if (r.Method == "" || r.Method == c.Method) && (r.Database == "" || r.Database == c.Database) && (r.User == "" || r.User == c.User) {
			out = append(out, r)
		}
	}
	return out
}

// caller fills in who calls about what. Calls carry no name: it is the one the
// token was given for (docs/protocol.md §1).
func (l *Layer) caller(ctx context.Context, c *Call) {
	c.Database = ledger.DefaultDB
	md, _ := metadata.FromIncomingContext(ctx)
	for _, name := range [...]string{"sessionid", "authorization"} {
		if values := md.Get(name); len(values) > 0 {
			l.mu.Lock()
			known, ok := l.logins[values[0]]
			l.mu.Unlock()
			if ok {
				c.Database, c.User = known.database, known.user
			}
			return
		}
	}
}

// remember notes what a token was given for.
func (l *Layer) remember(c *Call) {
	token, who := "", login{user: c.User, database: ledger.DefaultDB}
	switch m := c.Response.(type) {
	case *schema.LoginResponse:
		token = m.GetToken()
		if req, ok := c.Request.(*schema.LoginRequest); ok {
			who.user = string(req.GetUser())
		}
	case *schema.UseDatabaseReply:
		token = m.GetToken()
		if req, ok := c.Request.(*schema.Database); ok {
			who.database = req.GetDatabaseName()
		}
	case *schema.OpenSessionResponse:
		token = m.GetSessionID()
		if req, ok := c.Request.(*schema.OpenSessionRequest); ok {
			who.user, who.database = string(req.GetUsername()), req.GetDatabaseName()
		}
	}
	if token == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.logins) >= maxLogins {
		clear(l.logins)
	}
	l.logins[token] = who
}

func (l *Layer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := &Call{Method: path.Base(info.FullMethod)}
	c.Request, _ = req.(proto.Message)
	l.caller(ctx, c)
	if c.Method == "CurrentState" {
		l.armed.strike()
	}
	rules := l.matching(c)
	next := func() (any, error) { return handler(ctx, req) }
	for _, r := range slices.Backward(rules) {
		if r.Around != nil {
			inner := next
			next = func() (any, error) { return r.Around(ctx, c, inner) }
		}
	}
	resp, err := next()
	if err != nil {
		return nil, err
	}
	c.Response, _ = resp.(proto.Message)
	l.remember(c)
	for _, r := range rules {
		if r.Change == nil {
			continue
		}
		if err := r.Change(ctx, c); err != nil {
			return nil, err
		}
	}
	if c.Method == "CurrentState" {
		l.armed.answered(c.Database)
	}
	return c.Response, nil
}

func (l *Layer) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := &Call{Method: path.Base(info.FullMethod)}
	l.caller(ss.Context(), c)
	for _, r := range l.matching(c) {
		if r.Stream != nil {
			return r.Stream(ss.Context(), func(m proto.Message) error { return ss.SendMsg(m) })
		}
	}
	return handler(srv, ss)
}

// Arm does the first step when the state of the database was asked for n times
// and is asked for, of whatever database, again; and each other step an answer
// later. Counting answers rather than seconds or transactions makes it the same
// at every run, and needs nobody who writes.
func (l *Layer) Arm(database string, n int, steps ...func()) {
	l.armed.mu.Lock()
	defer l.armed.mu.Unlock()
	l.armed.database, l.armed.left, l.armed.steps = database, n, steps
}

// arming is an attack that waits for its moment.
type arming struct {
	mu       sync.Mutex
	database string
	left     int
	steps    []func()
}

func (a *arming) strike() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.steps) > 0 && a.left <= 0 {
		a.steps[0]()
		a.steps, a.left = a.steps[1:], 1
	}
}

func (a *arming) answered(database string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if database == a.database && a.left > 0 {
		a.left--
	}
}

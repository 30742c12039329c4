package audit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// adversary controls the server: it holds several histories of each database,
// may answer every call from any of them, and may change, replay or withhold
// any answer.
type adversary struct {
	*rig
	dbs    []string
	worlds []*world // the first is the ledger that the auditor talks to
	truth  *truth

	// A change of a history holds it for writing, an answer for reading: what
	// was ever shown is known to the truth.
	history sync.RWMutex
	gentle  bool // never says that a database does not exist

	mu     sync.Mutex // guards what follows
	rnd    *rand.Rand
	plan   plan
	tokens map[string]string // of the auditor: the database each is bound to
	past   map[string][]proto.Message
	copies []copied
}

// world is one set of histories.
type world struct {
	ledger *ledger.Ledger
	conn   *grpc.ClientConn
	tokens map[string]string // by database
}

type copied struct {
	db string
	*ledger.Snapshot
}

// plan is what an adversary does for a while: the share of answers that each
// thing happens to.
type plan struct {
	states, rest                 int // the worlds that states and everything else are answered from; -1: any, at each call
	change, replay, refuse, hang float64
	elsewhere, short, identities float64
}

func newAdversary(t *testing.T, seed uint64, config ledger.Config) *adversary {
	rnd := rand.New(rand.NewPCG(seed, 10))
	a := &adversary{
		dbs: []string{defaultDB, "one", "two"}, rnd: rnd, truth: newTruth(),
		tokens: map[string]string{}, past: map[string][]proto.Message{},
	}
	config.ServerOptions = []grpc.ServerOption{grpc.ChainUnaryInterceptor(a.answer)}
	a.rig = newRig(t, config)
	a.addWorld(a.ledger)
	config.ServerOptions = nil
	for range 2 {
		l, err := ledger.Open(config)
		a.must(err)
		t.Cleanup(func() { l.Close() })
		a.must(l.Start("127.0.0.1:0"))
		a.addWorld(l)
	}
	for _, db := range a.dbs { // one history at first, in all worlds
		a.write(0, db, 1+rnd.IntN(40))
		for w := range a.worlds[1:] {
			a.restore(w+1, copied{db, a.in(0, db).Snapshot()})
		}
	}
	return a
}

func (a *adversary) addWorld(l *ledger.Ledger) {
	a.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	a.must(err)
	a.t.Cleanup(func() { conn.Close() })
	w := &world{ledger: l, conn: conn, tokens: map[string]string{}}
	client := schema.NewImmuServiceClient(conn)
	login, err := client.Login(a.t.Context(), &schema.LoginRequest{User: []byte("immudb"), Password: []byte("immudb")})
	a.must(err)
	ctx := metadata.AppendToOutgoingContext(a.t.Context(), "authorization", login.Token)
	for _, db := range a.dbs {
		if db != defaultDB {
			a.must(l.CreateDatabase(db))
		}
		bound, err := client.UseDatabase(ctx, &schema.Database{DatabaseName: db})
		a.must(err)
		w.tokens[db] = bound.Token
	}
	a.worlds = append(a.worlds, w)
}

func (a *adversary) in(w int, db string) *ledger.Database {
	a.t.Helper()
	d, err := a.worlds[w].ledger.Database(db)
	a.must(err)
	return d
}

// alter changes a history and lets the truth know what may be shown from now on.
func (a *adversary) alter(w int, db string, f func(d *ledger.Database)) {
	a.t.Helper()
	a.history.Lock()
	defer a.history.Unlock()
	d := a.in(w, db)
	f(d)
	a.must(a.truth.learn(d.Snapshot()))
}

func (a *adversary) write(w int, db string, n int) {
	a.alter(w, db, func(d *ledger.Database) {
		for range n {
			_, err := d.Set([]byte("k"), fmt.Appendf(nil, "%d", a.roll(1<<30)))
			a.must(err)
		}
	})
}

func (a *adversary) restore(w int, c copied) {
	a.alter(w, c.db, func(d *ledger.Database) { a.must(d.Restore(c.Snapshot)) })
}

func (a *adversary) roll(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rnd.IntN(n)
}

func (a *adversary) chance(share float64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rnd.Float64() < share
}

// scheme chooses what to do for a while.
func (a *adversary) scheme() plan {
	some := func(shares ...float64) float64 { return shares[a.roll(len(shares))] }
	p := plan{
		states: a.roll(len(a.worlds)+1) - 1, change: some(0, 0, 0.02, 0.3), replay: some(0, 0, 0.02, 0.3),
		refuse: some(0, 0, 0.02, 0.2), hang: some(0, 0, 0, 0.01), elsewhere: some(0, 0, 0, 0.02, 0.3),
		short: some(0, 0, 0.3, 1), identities: some(0, 0, 0, 0.5),
	}
	p.rest = p.states
	if a.roll(3) == 0 {
		p.rest = a.roll(len(a.worlds)+1) - 1
	}
	if a.roll(3) == 0 { // an honest while, from whatever history
		p = plan{states: p.rest, rest: p.rest}
	}
	a.mu.Lock()
	a.plan = p
	a.mu.Unlock()
	return p
}

// scene changes the histories themselves.
func (a *adversary) scene() {
	w, db := a.roll(len(a.worlds)), a.dbs[a.roll(len(a.dbs))]
	last, _ := a.in(w, db).State()
	switch a.roll(10) {
	case 0: // an older copy
		a.mu.Lock()
		n := len(a.copies)
		a.mu.Unlock()
		if n > 0 {
			a.restore(w, a.copies[a.roll(n)])
		}
	case 1: // one history in two worlds again, from where they may part
		a.restore(w, copied{db, a.in(a.roll(len(a.worlds)), db).Snapshot()})
	case 2: // an old transaction rewritten, and all after it made to fit
		if last > 0 {
			tx := 1 + uint64(a.roll(int(last)))
			a.alter(w, db, func(d *ledger.Database) {
				a.must(d.Tamper(func(h *ledger.History) { h.Header(tx).Ts++; h.Rehash(tx) }))
			})
		}
	case 3: // … or not made to fit
		if last > 0 {
			tx := 1 + uint64(a.roll(int(last)))
			a.alter(w, db, func(d *ledger.Database) {
				a.must(d.Tamper(func(h *ledger.History) { h.Header(tx).Ts++ }))
			})
		}
	case 4: // another leaf, the chain untouched
		if last > 0 {
			tx := last - uint64(a.roll(int(min(last, 5))))
			a.alter(w, db, func(d *ledger.Database) {
				a.must(d.Tamper(func(h *ledger.History) { h.SetLeaf(tx, [32]byte{byte(a.roll(256))}) }))
			})
		}
	case 5:
		most := uint64(1 + a.roll(20))
		salt := uint64(a.roll(1 << 30))
		a.worlds[w].ledger.SetBlTxID(func(_ string, id uint64) uint64 {
			return id - 1 - min(id-1, rand.New(rand.NewPCG(salt, id)).Uint64N(most))
		})
	default:
		if last > 600 { // it has grown enough
			a.restore(w, copied{db, new(ledger.Snapshot)})
		}
		a.write(w, db, 1+a.roll(30))
	}
	if a.roll(3) == 0 {
		c := copied{db, a.in(w, db).Snapshot()}
		a.mu.Lock()
		if len(a.copies) < 50 {
			a.copies = append(a.copies, c)
		} else {
			a.copies[a.rnd.IntN(50)] = c
		}
		a.mu.Unlock()
	}
}

// answer is the adversary at the other end of the line.
func (a *adversary) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	a.history.RLock()
	defer a.history.RUnlock()
	a.mu.Lock()
	p := a.plan
	token, worldOf := "", p.rest
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get("authorization")) > 0 {
		token = md.Get("authorization")[0]
	}
	db, bound := a.tokens[token]
	if info.FullMethod == schema.ImmuService_CurrentState_FullMethodName {
		worldOf = p.states
	}
	if worldOf < 0 {
		worldOf = a.rnd.IntN(len(a.worlds))
	}
	if bound && a.rnd.Float64() < p.elsewhere {
		db = a.dbs[a.rnd.IntN(len(a.dbs))]
	}
	a.mu.Unlock()

	if a.chance(p.identities) {
		if err := a.ledger.SetUUID(fmt.Sprintf("uuid%d", a.roll(1000))); err != nil {
			return nil, err
		}
	}
	if info.FullMethod == schema.ImmuService_Login_FullMethodName {
		return handler(ctx, req)
	}
	if a.chance(p.refuse) {
		return nil, a.refusal()
	}
	if a.chance(p.hang) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	resp, err := a.from(ctx, worldOf, db, bound, info.FullMethod, req, handler)
	if err != nil {
		return nil, err
	}
	m := resp.(proto.Message)
	if u, ok := req.(*schema.Database); ok {
		if r, ok := resp.(*schema.UseDatabaseReply); ok {
			a.mu.Lock()
			a.tokens[r.Token] = u.DatabaseName
			a.mu.Unlock()
		}
		return resp, nil
	}
	return a.twist(p, info.FullMethod, m), nil
}

// from answers from one of the worlds.
func (a *adversary) from(ctx context.Context, w int, db string, bound bool, method string, req any, handler grpc.UnaryHandler) (any, error) {
	if !bound || method == schema.ImmuService_UseDatabase_FullMethodName || method == schema.ImmuService_DatabaseList_FullMethodName {
		return handler(ctx, req)
	}
	var reply proto.Message
	switch method {
	case schema.ImmuService_CurrentState_FullMethodName:
		req, reply = new(emptypb.Empty), new(schema.ImmutableState)
	case schema.ImmuService_TxScan_FullMethodName:
		reply = new(schema.TxList)
	case schema.ImmuService_VerifiableTxById_FullMethodName:
		reply = new(schema.VerifiableTx)
	default:
		return handler(ctx, req)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", a.worlds[w].tokens[db])
	return reply, a.worlds[w].conn.Invoke(ctx, method, req, reply)
}

func (a *adversary) refusal() error {
	texts := []string{
		"tx not found", "already closed", "max concurrency limit exceeded", "not logged in", "session not found", "please login",
		"database does not exist", "result size limit exceeded", "tx data is corrupted: binary linking mismatch at tx 3",
		"data is corrupted", "illegal arguments", "EOF", "", "invalid user name or password", "authentication is disabled", "please select a database first",
	}
	kinds := []codes.Code{codes.Unknown, codes.Unknown, codes.Internal, codes.NotFound, codes.Unavailable, codes.PermissionDenied, codes.ResourceExhausted, codes.OutOfRange, codes.Canceled, codes.DeadlineExceeded}
	text := texts[a.roll(len(texts))]
	kind := kinds[a.roll(len(kinds))]
	if a.gentle && (text == "database does not exist" || kind == codes.NotFound) {
		return status.Error(codes.Unknown, "EOF")
	}
	return status.Error(kind, text)
}

// twist shortens, replays or changes an answer.
func (a *adversary) twist(p plan, method string, m proto.Message) proto.Message {
	if l, ok := m.(*schema.TxList); ok && len(l.Txs) > 1 && a.chance(p.short) {
		l.Txs = l.Txs[:1+a.roll(len(l.Txs))]
		if a.roll(2) == 0 {
			l.Txs = l.Txs[:1]
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	past := a.past[method]
	if len(past) > 0 && a.rnd.Float64() < p.replay {
		return past[a.rnd.IntN(len(past))]
	}
	if len(past) < 200 {
		a.past[method] = append(past, proto.Clone(m))
	} else {
		past[a.rnd.IntN(len(past))] = proto.Clone(m)
	}
	if a.rnd.Float64() < p.change {
		for range 1 + a.rnd.IntN(3) {
			mutate(a.rnd, m.ProtoReflect())
		}
	}
	return m
}

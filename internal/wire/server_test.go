package wire

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/wire/schema"
)

// scripted is a server that behaves as docs/protocol.md §1 tells of immudb's,
// until told to behave otherwise. Tokens hold a database's index, as there.
type scripted struct {
	schema.UnimplementedImmuServiceServer
	addr string
	opts []grpc.ServerOption

	mu        sync.Mutex
	server    *grpc.Server
	uuid      string
	databases []database
	tokens    map[string]int // index of the database, -1: none chosen
	issued    int
	password  string
	authOff   bool
	answers   map[string]answerFunc // by method name
	calls     map[string]int
	scans     []int // limits asked for by TxScan
}

type database struct {
	name    string
	deleted bool
	state   error // nil, or what every call answers
	length  uint64
	entries int // bytes that each transaction of a page carries in vain
}

// answerFunc stands in for a method; ok false lets the method answer.
type answerFunc func(ctx context.Context, request proto.Message) (reply any, err error, ok bool)

func say(code codes.Code, text string) answerFunc {
	return func(context.Context, proto.Message) (any, error, bool) { return nil, status.Error(code, text), true }
}

func give(reply any) answerFunc {
	return func(context.Context, proto.Message) (any, error, bool) { return reply, nil, true }
}

// hang answers when nobody listens any more.
func hang(ctx context.Context, _ proto.Message) (any, error, bool) {
	<-ctx.Done()
	return nil, ctx.Err(), true
}

// serve starts a server with the databases named, three transactions each.
func serve(t *testing.T, opts []grpc.ServerOption, names ...string) *scripted {
	t.Helper()
	s := &scripted{opts: opts, uuid: "c0ffee", password: "immudb", tokens: map[string]int{}, answers: map[string]answerFunc{}, calls: map[string]int{}}
	for _, name := range names {
		s.databases = append(s.databases, database{name: name, length: 3})
	}
	s.start(t, "127.0.0.1:0")
	t.Cleanup(s.stop)
	return s
}

func (s *scripted) start(t *testing.T, addr string) {
	t.Helper()
	var listener net.Listener
	// The port of a server that was just stopped may take a moment to be free.
	eventually(t, func() (err error) {
		listener, err = net.Listen("tcp", addr)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = listener.Addr().String()
	s.server = grpc.NewServer(append(slices.Clone(s.opts), grpc.UnaryInterceptor(s.intercept))...)
	schema.RegisterImmuServiceServer(s.server, s)
	go s.server.Serve(listener) // ends with stop, which the cleanup calls
}

func (s *scripted) stop() {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	server.Stop()
}

// restart forgets all tokens, as immudb does.
func (s *scripted) restart(t *testing.T) {
	t.Helper()
	s.stop()
	s.set(func() { clear(s.tokens) })
	s.start(t, s.addr)
}

func (s *scripted) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *scripted) answer(method string, f answerFunc) { s.set(func() { s.answers[method] = f }) }

func (s *scripted) called(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *scripted) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := methodName(info.FullMethod)
	s.mu.Lock()
	s.calls[method]++
	f, uuid := s.answers[method], s.uuid
	s.mu.Unlock()
	if err := grpc.SetHeader(ctx, metadata.Pairs("immudb-uuid", uuid)); err != nil {
		return nil, err
	}
	if f != nil {
		if reply, err, ok := f(ctx, request.(proto.Message)); ok {
			return reply, err
		}
	}
	return next(ctx, request)
}

func (s *scripted) issue(index int) string {
	s.issued++
	token := fmt.Sprintf("token-%d", s.issued)
	s.tokens[token] = index
	return token
}

// chosen is the database behind the token of a call. The caller holds mu.
func (s *scripted) chosen(ctx context.Context) (*database, error) {
	if s.authOff {
		return &s.databases[0], nil
	}
	index, err := s.known(ctx)
	if err != nil {
		return nil, err
	}
	if index < 0 {
		return nil, errors.New("please select a database first")
	}
	d := &s.databases[index]
	if d.deleted {
		return nil, errors.New("database does not exist")
	}
	return d, d.state
}

func (s *scripted) known(ctx context.Context) (int, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	tokens := md.Get("authorization")
	if len(tokens) != 1 {
		return 0, errors.New("not logged in")
	}
	index, ok := s.tokens[tokens[0]]
	if !ok {
		return 0, status.Error(codes.Unauthenticated, "invalid token")
	}
	return index, nil
}

func (s *scripted) Health(context.Context, *emptypb.Empty) (*schema.HealthResponse, error) {
	return &schema.HealthResponse{Status: true, Version: "1.11.1"}, nil
}

func (s *scripted) Login(_ context.Context, r *schema.LoginRequest) (*schema.LoginResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.authOff {
		return nil, errors.New("authentication is disabled on server")
	}
	if string(r.GetUser()) != "immudb" || string(r.GetPassword()) != s.password {
		return nil, errors.New("invalid user name or password")
	}
	index := -1
	if len(s.databases) == 1 {
		index = 0
	}
	return &schema.LoginResponse{Token: s.issue(index)}, nil
}

func (s *scripted) UseDatabase(ctx context.Context, r *schema.Database) (*schema.UseDatabaseReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.known(ctx); err != nil {
		return nil, err
	}
	var gone bool
	for i, d := range s.databases {
		switch {
		case d.name != r.GetDatabaseName():
		case d.deleted:
			gone = true
		case d.state != nil:
			return nil, d.state
		default:
			return &schema.UseDatabaseReply{Token: s.issue(i)}, nil
		}
	}
	if gone {
		return nil, errors.New("database does not exist")
	}
	return nil, status.Errorf(codes.NotFound, "'%s' does not exist", r.GetDatabaseName())
}

func (s *scripted) DatabaseList(ctx context.Context, _ *emptypb.Empty) (*schema.DatabaseListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.authOff {
		return nil, errors.New("not logged in")
	}
	if _, err := s.known(ctx); err != nil {
		return nil, err
	}
	list := new(schema.DatabaseListResponse)
	for _, d := range s.databases {
		list.Databases = append(list.Databases, &schema.Database{DatabaseName: d.name})
	}
	return list, nil
}

func (s *scripted) CurrentState(ctx context.Context, _ *emptypb.Empty) (*schema.ImmutableState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.chosen(ctx)
	if err != nil {
		return nil, err
	}
	return &schema.ImmutableState{Db: d.name, TxId: d.length, TxHash: digest(d.name, d.length)}, nil
}

func (s *scripted) TxScan(ctx context.Context, r *schema.TxScanRequest) (*schema.TxList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.chosen(ctx)
	if err != nil {
		return nil, err
	}
	s.scans = append(s.scans, int(r.GetLimit()))
	if r.GetLimit() > 1000 {
		return nil, errors.New("result size limit exceeded: the specified limit (1001) is larger than the maximum allowed one (1000)")
	}
	list := new(schema.TxList)
	for id := r.GetInitialTx(); id <= d.length && len(list.Txs) < int(r.GetLimit()); id++ {
		list.Txs = append(list.Txs, transaction(d.name, id, d.entries))
	}
	return list, nil
}

func (s *scripted) VerifiableTxById(ctx context.Context, r *schema.VerifiableTxRequest) (*schema.VerifiableTx, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.chosen(ctx)
	if err != nil {
		return nil, err
	}
	if r.GetTx() > d.length {
		return nil, errors.New("tx not found")
	}
	if r.GetProveSinceTx() > d.length {
		return nil, fmt.Errorf("illegal state: latest txID=%d is lower than specified as initial tx=%d", d.length, r.GetProveSinceTx())
	}
	if !r.GetKeepReferencesUnresolved() || r.GetEntriesSpec().GetKvEntriesSpec() == nil {
		return nil, errors.New("asked for more than a proof")
	}
	return &schema.VerifiableTx{
		Tx: transaction(d.name, r.GetTx(), 0),
		DualProof: &schema.DualProof{
			SourceTxHeader: header(d.name, r.GetProveSinceTx()),
			TargetTxHeader: header(d.name, r.GetTx()),
			TargetBlTxAlh:  make([]byte, 32),
			LinearProof:    &schema.LinearProof{SourceTxId: r.GetProveSinceTx(), TargetTxId: r.GetTx()},
		},
	}, nil
}

func transaction(db string, id uint64, waste int) *schema.Tx {
	tx := &schema.Tx{Header: header(db, id)}
	if waste > 0 {
		tx.Entries = []*schema.TxEntry{{Key: make([]byte, waste), HValue: make([]byte, 32)}}
	}
	return tx
}

func header(db string, id uint64) *schema.TxHeader {
	return &schema.TxHeader{Id: id, PrevAlh: digest(db, id-1), Ts: 1700000000, Nentries: 1, EH: digest("entries", id), BlRoot: make([]byte, 32), Version: 1}
}

func digest(parts ...any) []byte {
	h := sha256.Sum256(fmt.Append(nil, parts...))
	return h[:]
}

// dial makes a client that is closed with the test and does not pace logins.
func dial(t *testing.T, addr string, change ...func(*Options)) *Client {
	t.Helper()
	o := Options{Address: addr, Username: "immudb", Password: "immudb"}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	c.logInPace = rate.NewLimiter(rate.Inf, 1)
	return c
}

// wantFault checks the reason of an error and that its text names what matters.
func wantFault(t *testing.T, err error, reason string, mentions ...string) *Fault {
	t.Helper()
	var f *Fault
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want a fault", err)
	}
	if f.Reason() != reason {
		t.Fatalf("got reason %s (%v), want %s", f.Reason(), err, reason)
	}
	for _, word := range mentions {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not mention %q", err, word)
		}
	}
	return f
}

// eventually repeats what may fail at first.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-pause.C:
		case <-deadline.C:
			t.Fatalf("still failing: %v", err)
		}
	}
}

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = "db" + strconv.Itoa(i)
	}
	return list
}

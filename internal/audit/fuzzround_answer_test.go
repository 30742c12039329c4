package audit_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// liar is the server of FuzzRound: a ledger that answers from any branch, over
// real gRPC, with everything done to its answers that a script says.
type liar struct {
	ledger     *ledger.Ledger
	db         *ledger.Database
	key, other *ecdsa.PrivateKey // the server's, and one that is not

	mu       sync.Mutex // guards what follows, and is held during a call
	standing *ledger.Snapshot
	tokens   [calls]proto.Message // answers to Login and UseDatabase: a login costs a bcrypt
	show
}

// show is what the liar does for one input.
type show struct {
	script
	m       *model
	height  int // of the honest history
	armed   []record
	past    [calls][]proto.Message // honest answers, oldest first
	logins  int
	hangs   int
	goneIn  int // the round in which it first said that there is no such database
	round   int
	nth     [calls]int               // of the round
	made    int                      // calls of the round
	shown   []*schema.ImmutableState // in the round
	touched int                      // answers that are not the honest ones
	guilty  bool                     // one of them may prove tampering
}

// hanging reports whether an answer is to be withheld.
func (s *show) hanging() bool {
	return s.hangs == 0 && slices.ContainsFunc(s.armed, func(r record) bool { return r.op == opHang })
}

func newLiar(tb testing.TB) *liar {
	tb.Helper()
	l := &liar{key: fixedKey(tb, 1), other: fixedKey(tb, 2)}
	var err error
	if l.ledger, err = ledger.Open(ledger.Config{ServerOptions: []grpc.ServerOption{grpc.ChainUnaryInterceptor(l.answer)}}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.ledger.Close() })
	if l.db, err = l.ledger.Database(defaultDB); err != nil {
		tb.Fatal(err)
	}
	if err := l.ledger.Start("127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	return l
}

// fixedKey is the same in every process, so that an input is.
func fixedKey(tb testing.TB, n byte) *ecdsa.PrivateKey {
	tb.Helper()
	scalar := make([]byte, 32)
	scalar[31] = n
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// stage prepares for an input.
func (l *liar) stage(s script, m *model) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.show = show{script: s, m: m, height: s.first(), goneIn: -1}
	key := l.key
	if !s.is(signing) {
		key = nil
	}
	if err := l.ledger.SetUUID("one"); err != nil {
		return err
	}
	return l.ledger.SetSigningKey(key)
}

// with changes what the liar does, between rounds.
func (l *liar) with(f func(s *show)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.show)
}

func (l *liar) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	call := slices.Index(callNames[:calls], info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:])
	if call < 0 || l.m == nil {
		return handler(ctx, req)
	}
	l.made++
	l.nth[call]++
	if call == login {
		l.logins++
	}
	q := question{ctx, call, req.(proto.Message), handler}
	right, refusal := l.ask(q, honest, l.height)
	said, err := right, refusal
	if right != nil {
		said = proto.Clone(right)
		if len(l.past[call]) < 16 {
			l.past[call] = append(l.past[call], right)
		}
	}
	struck := false
	for _, r := range l.armed {
		if r.applies(call, l.nth[call]) {
			said, err = l.change(r, q, said, err)
			struck = true
		}
	}
	if s, ok := said.(*schema.ImmutableState); ok && err == nil {
		l.shown = append(l.shown, s)
	}
	if struck {
		l.account(call, said, right, err, refusal)
	}
	if err != nil {
		return nil, err
	}
	return said, nil
}

// account notes what was said, and whether it can be called tampering: nothing
// that only keeps an answer back can, but to say that there is no database.
func (l *liar) account(call int, said, right proto.Message, err, refusal error) {
	switch {
	case err != nil && err != refusal:
		l.touched++
	case err == nil && !proto.Equal(said, right):
		l.touched++
		page, ok := said.(*schema.TxList)
		l.guilty = l.guilty || call <= verifiableTx && !(ok && begins(page, right))
	}
}

// begins reports whether a page is the honest one or the beginning of it.
func begins(page *schema.TxList, right proto.Message) bool {
	full, ok := right.(*schema.TxList)
	return ok && len(page.Txs) <= len(full.Txs) && proto.Equal(page, &schema.TxList{Txs: full.Txs[:len(page.Txs)]})
}

// question is a call as it came in.
type question struct {
	ctx     context.Context
	call    int
	req     proto.Message
	handler grpc.UnaryHandler
}

// ask gives the ledger's own answer, from a branch at a height.
func (l *liar) ask(q question, branch, height int) (proto.Message, error) {
	named, byName := q.req.(*schema.Database)
	kept := q.call == login || byName && named.DatabaseName == defaultDB
	if kept && l.tokens[q.call] != nil {
		return l.tokens[q.call], nil
	}
	if s := l.m.at[branch][height]; q.call <= verifiableTx && s != l.standing {
		if err := l.db.Restore(s); err != nil {
			return nil, err
		}
		l.standing = s
	}
	resp, err := q.handler(q.ctx, q.req)
	if err != nil {
		return nil, err
	}
	m := resp.(proto.Message)
	if kept {
		l.tokens[q.call] = m
	}
	return m, nil
}

// change does one step of the script to an answer, or to the error in its place.
func (l *liar) change(r record, q question, said proto.Message, err error) (proto.Message, error) {
	switch r.op {
	case opStand:
		height := int(r.more)
		if height >= 128 {
			height = l.height
		}
		return l.askAnew(q, int(r.arg)%branches, min(height, tallest))
	case opOther:
		q.req = l.otherwise(q.req, r.arg, r.more)
		return l.askAnew(q, honest, l.height)
	case opReplay:
		if past := l.past[q.call]; len(past) > 0 {
			return proto.Clone(past[int(r.arg)%len(past)]), nil
		}
		return said, err
	case opRefuse:
		return said, l.refuse(q.call, r.arg, err)
	case opHang:
		if l.hangs++; l.hangs > 1 { // each takes the deadline of the call
			return said, err
		}
		<-q.ctx.Done()
		return said, q.ctx.Err()
	case opIdentity:
		l.touched++
		if r.arg < 128 {
			return said, cmp.Or(err, l.ledger.SetUUID(fmt.Sprintf("server %d", r.arg)))
		}
		return said, cmp.Or(err, grpc.SetHeader(q.ctx, map[string][]string{"immudb-uuid": {strings.Repeat("x", int(r.arg))}}))
	}
	if err != nil {
		return said, err
	}
	switch r.op {
	case opSign:
		if s, ok := said.(*schema.ImmutableState); ok {
			return said, l.sign(s, r.arg)
		}
	case opScramble:
		rnd := mathrand.New(mathrand.NewPCG(uint64(r.arg), uint64(r.more)))
		for range 1 + r.path[0]%3 {
			mutate(rnd, said.ProtoReflect())
		}
	case opSplice:
		if from, err := l.elsewhere(r, q); err == nil {
			splice(said.ProtoReflect(), from.ProtoReflect(), r.path)
		}
	default:
		if m, f := field(said.ProtoReflect(), r.path); f != nil {
			r.rewrite(m, f)
		}
	}
	return said, nil
}

func (l *liar) askAnew(q question, branch, height int) (proto.Message, error) {
	m, err := l.ask(q, branch, height)
	if err != nil {
		return nil, err
	}
	return proto.Clone(m), nil
}

// otherwise asks for other transactions.
func (l *liar) otherwise(req proto.Message, arg, more byte) proto.Message {
	req = proto.Clone(req)
	tx := 1 + uint64(more)%uint64(max(l.height, 1))
	switch m := req.(type) {
	case *schema.TxScanRequest:
		m.InitialTx = tx
	case *schema.VerifiableTxRequest:
		if arg%3 > 0 {
			m.Tx = tx
		}
		if arg%3 < 2 {
			m.ProveSinceTx = tx
		}
	}
	return req
}

// elsewhere is the answer that a field is taken from.
func (l *liar) elsewhere(r record, q question) (proto.Message, error) {
	switch past := l.past[q.call]; {
	case r.arg%3 == 0 && len(past) > 0:
		return proto.Clone(past[int(r.more)%len(past)]), nil
	case r.arg%3 == 1:
		return l.askAnew(q, int(r.more)%branches, l.height)
	}
	q.req = l.otherwise(q.req, r.arg, r.more)
	return l.askAnew(q, honest, l.height)
}

func (l *liar) refuse(call int, arg byte, err error) error {
	if speaksOfGone(arg) {
		// Asked by name, an auditor run by cron tries again after a pause:
		// one such round is enough.
		if l.goneIn < 0 {
			l.goneIn = l.round
		}
		if l.goneIn != l.round && !l.is(watching) {
			return err
		}
		l.guilty = l.guilty || call == useDatabase
	}
	r := refusals[int(arg)%len(refusals)]
	return status.Error(r.code, r.text)
}

// sign signs what a state says, as the server would or as somebody else.
func (l *liar) sign(s *schema.ImmutableState, arg byte) error {
	key := l.key
	if arg%2 == 1 {
		key = l.other
	}
	digest := stateDigest(s)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return err
	}
	point, err := key.PublicKey.Bytes()
	s.Signature = &schema.Signature{PublicKey: point, Signature: signature}
	return err
}

// signedBy reports whether a state is signed by the key of a point.
func signedBy(s *schema.ImmutableState, point []byte) bool {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	digest := stateDigest(s)
	return err == nil && ecdsa.VerifyASN1(key, digest[:], s.GetSignature().GetSignature())
}

// stateDigest is what is signed: docs/protocol.md §5.
func stateDigest(s *schema.ImmutableState) [32]byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s.Db)))
	b = append(b, s.Db...)
	b = binary.BigEndian.AppendUint64(b, s.TxId)
	return sha256.Sum256(append(b, s.TxHash...))
}

// splice takes the field that a path leads to from another message.
func splice(into, from protoreflect.Message, path [5]byte) {
	m, f := field(into, path)
	other, same := field(from, path)
	switch {
	case f == nil || f != same:
	case other.Has(f):
		m.Set(f, other.Get(f))
	default:
		m.Clear(f)
	}
}

var extremes = [...]uint64{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<32 - 1, 9_999, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1}

// names are what opNumber makes of text.
var names = [...]string{"", "one", "DEFAULTDB", defaultDB + " ", "\u202e", "systemdb", "../x", strings.Repeat("n", 129)}

// rewrite changes a field of a message.
func (r record) rewrite(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	switch {
	case r.op == opClear:
		m.Clear(f)
	case f.IsList():
		r.rewriteList(m.Mutable(f).List(), f)
	case f.Message() != nil:
		if r.op == opFill {
			m.Set(f, m.NewField(f))
		}
	default:
		m.Set(f, r.rewriteValue(f, m.Get(f)))
	}
}

func (r record) rewriteList(l protoreflect.List, f protoreflect.FieldDescriptor) {
	n := l.Len()
	if r.op == opFill || n == 0 {
		l.Append(l.NewElement())
		return
	}
	i, j := int(r.more)%n, int(r.arg)%n
	switch r.op {
	case opExtend, opRepeat:
		most := byte(18)
		if f.Message() != nil {
			most = 15 // they are larger
		}
		for range 1 << (r.arg % most) {
			l.Append(l.Get(i))
		}
	case opShorten:
		l.Truncate(j)
	case opSwap:
		x, y := l.Get(i), l.Get(j)
		l.Set(i, y)
		l.Set(j, x)
	case opOmit:
		for k := i; k+1 < n; k++ {
			l.Set(k, l.Get(k+1))
		}
		l.Truncate(n - 1)
	default:
		if f.Message() == nil {
			l.Set(i, r.rewriteValue(f, l.Get(i)))
		}
	}
}

func (r record) rewriteValue(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(r.rewriteBytes(slices.Clone(v.Bytes())))
	case protoreflect.StringKind:
		if r.op == opNumber {
			return protoreflect.ValueOfString(names[int(r.arg)%len(names)])
		}
		return protoreflect.ValueOfString(strings.ToValidUTF8(string(r.rewriteBytes([]byte(v.String()))), "?"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(r.rewriteNumber(v.Uint()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(r.rewriteNumber(uint64(v.Int()))))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(uint32(r.rewriteNumber(uint64(v.Int())))))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	}
	panic(fmt.Sprintf("the schema has a field of kind %s now: say what is to be done to it", f.Kind()))
}

func (r record) rewriteNumber(n uint64) uint64 {
	switch r.op {
	case opNumber:
		return extremes[int(r.arg)%len(extremes)]
	case opNear:
		return n + uint64(int64(int8(r.more)))
	case opFlip:
		return n ^ 1<<(r.arg%64)
	}
	return n + 1
}

func (r record) rewriteBytes(b []byte) []byte {
	switch n := len(b); {
	case r.op == opFill:
		return make([]byte, 32)
	case r.op == opExtend && r.arg == 255: // more than an answer may have
		return append(b, make([]byte, 5<<20)...)
	case r.op == opExtend:
		return append(b, make([]byte, 1<<(r.arg%18))...)
	case n == 0:
		return []byte{r.arg}
	case r.op == opShorten:
		return b[:int(r.arg)%n]
	default:
		b[int(r.more)%n] ^= 1 << (r.arg % 8)
		return b
	}
}

package audit_test

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A script is what FuzzRound makes of its input: two bytes that say how the
// ledger is and how it is audited, then records of ten bytes, each a step: an
// event, or something to be done to answers of the rounds that follow.
const (
	headLen    = 2
	recordLen  = 10
	maxRecords = 24
	maxRounds  = 6
)

// How the ledger is and how it is audited: the bits of a script's first byte,
// and one of the second, whose lowest five are the height at first contact.
const (
	newHeaders  = 1 << iota // headers of version 1
	lagging                 // trees that lag, and not monotonously
	signing                 // states are signed
	pinning                 // and the auditor was given the key
	watching                // one engine makes all rounds; otherwise each has a fresh one, as with --once
	unannounced             // no honest first contact
	byProof                 // by dual proofs rather than by the walk
	loosely                 // by dual proofs: no background walk; by the walk: only over gaps of up to 5

	mirrored = 1 << 5
)

type op byte

const (
	opRound    op = iota // a round; what is to be done to answers is done with, unless arg is odd
	opGrow               // the honest history grows by 1 + arg%16
	opRestart            // the auditor starts anew
	opClear              // a field is left out
	opFill               // a field is there, and empty
	opFlip               // a bit is flipped
	opNumber             // a number becomes a special one, a name a special one
	opNear               // a number becomes one near it
	opExtend             // bytes, a list or a name get longer, by up to 128 Ki
	opShorten            // … get shorter
	opRepeat             // an element of a list is there several times
	opSwap               // two elements change places
	opOmit               // an element is left out
	opSplice             // a field is that of another answer
	opScramble           // anything, anywhere (mutate)
	opReplay             // an answer is one that was given before
	opOther              // an answer is about other transactions
	opStand              // answered from another branch, or from another height
	opSign               // signed again: by the server's key, or by another one
	opRefuse             // an error
	opHang               // no answer
	opIdentity           // the server calls itself something else
	ops
)

var opNames = [ops]string{
	"round", "grow", "restart", "clear", "fill", "flip", "number", "near", "extend", "shorten", "repeat", "swap", "omit",
	"splice", "scramble", "replay", "other", "stand", "sign", "refuse", "hang", "identity",
}

// The calls that an auditor makes, and sets of them.
const (
	currentState = iota
	txScan
	verifiableTx
	useDatabase
	login
	databaseList
	calls
	anyCall    = calls     // every one
	aboutChain = calls + 1 // the first three
	targets    = calls + 2
)

var callNames = [targets]string{"CurrentState", "TxScan", "VerifiableTxById", "UseDatabase", "Login", "DatabaseList", "any call", "any of the chain"}

// record is one step of a script.
type record struct {
	op     op
	target byte    // which calls
	when   byte    // which of them in a round: 0 every one, n the nth, 128+n from the nth on
	path   [5]byte // which field: its index at each level; 128+n ends there. An element takes a level.
	arg    byte
	more   byte
}

type script struct {
	flags   byte
	start   byte
	records []record
}

func parseScript(b []byte) script {
	var s script
	if len(b) < headLen {
		return s
	}
	s.flags, s.start = b[0], b[1]%64
	for b = b[headLen:]; len(b) >= recordLen && len(s.records) < maxRecords; b = b[recordLen:] {
		s.records = append(s.records, record{
			op: op(b[0]) % ops, target: b[1] % targets, when: b[2], path: [5]byte(b[3:8]), arg: b[8], more: b[9],
		})
	}
	return s
}

func (s script) bytes() []byte {
	b := []byte{s.flags, s.start}
	for _, r := range s.records {
		b = append(append(b, byte(r.op), r.target, r.when), r.path[:]...)
		b = append(b, r.arg, r.more)
	}
	return b
}

func (s script) is(flag byte) bool { return s.flags&flag != 0 }

// first is the height of the honest history at first contact.
func (s script) first() int { return int(s.start % 32) }

// walks reports whether every round goes by the walk, from transaction 1 on.
func (s script) walks() bool { return !s.is(byProof) && !s.is(loosely) }

// pinned: a key can only be where there is one.
func (s script) pinned() bool { return s.is(signing) && s.is(pinning) }

func (s script) String() string {
	var b strings.Builder
	names := [8]string{"version 1", "lagging", "signed", "pinned", "watched", "unannounced", "by proof", "loosely"}
	for i, name := range names {
		if s.is(1 << i) {
			b.WriteString(name + ", ")
		}
	}
	if s.start&mirrored != 0 {
		b.WriteString("mirrored, ")
	}
	fmt.Fprintf(&b, "from transaction %d:", s.first())
	for _, r := range s.records {
		b.WriteString("\n\t" + r.String())
	}
	return b.String()
}

func (r record) String() string {
	switch r.op {
	case opRound, opRestart, opIdentity:
		return fmt.Sprintf("%s (%d)", opNames[r.op], r.arg)
	case opGrow:
		return fmt.Sprintf("grow by %d", 1+r.arg%16)
	}
	when := "every"
	if r.when >= 128 {
		when = fmt.Sprintf("from %d on", r.when-128)
	} else if r.when > 0 {
		when = fmt.Sprintf("number %d", r.when)
	}
	return fmt.Sprintf("%s of %s, %s, at %v, with %d and %d", opNames[r.op], callNames[r.target], when, r.path, r.arg, r.more)
}

// applies reports whether a step is about the nth such call of a round.
func (r record) applies(call, nth int) bool {
	about := r.target == anyCall || r.target == aboutChain && call <= verifiableTx || int(r.target) == call
	return r.op >= opClear && about && (r.when == 0 || int(r.when) == nth || r.when >= 128 && nth >= int(r.when)-128)
}

// field finds what a path leads to: a field of a message that is there. Nil
// where the message has no fields.
func field(m protoreflect.Message, path [5]byte) (protoreflect.Message, protoreflect.FieldDescriptor) {
	for i := 0; ; i++ {
		fields := m.Descriptor().Fields()
		if fields.Len() == 0 {
			return nil, nil
		}
		f := fields.Get(int(path[i]&0x7f) % fields.Len())
		switch {
		case path[i]&0x80 != 0 || i == len(path)-1 || f.Message() == nil || f.IsMap() || !m.Has(f):
			return m, f
		case f.IsList():
			if i++; i == len(path)-1 {
				return m, f
			}
			l := m.Get(f).List()
			m = l.Get(int(path[i]) % l.Len()).Message()
		default:
			m = m.Mutable(f).Message()
		}
	}
}

// refusals are the errors that opRefuse chooses from by arg: those of
// docs/protocol.md §1, and some that no server should give.
var refusals = [...]struct {
	code codes.Code
	text string
}{
	{codes.Unknown, "EOF"},
	{codes.Unknown, "tx not found"},
	{codes.Unknown, "not logged in"},
	{codes.Unknown, "already closed"},
	{codes.Unknown, "max concurrency limit exceeded"},
	{codes.Unknown, "please select a database first"},
	{codes.Unknown, "result size limit exceeded"},
	{codes.Unknown, "tx data is corrupted: binary linking mismatch at tx 3"},
	{codes.Unknown, "authentication is disabled"},
	{codes.Unknown, "database does not exist"},
	{codes.NotFound, "'defaultdb' does not exist"},
	{codes.Unauthenticated, "invalid token"},
	{codes.PermissionDenied, "Logged in user does not have permission on this database"},
	{codes.Internal, "\x1b[2J\u202e"},
	{codes.Unavailable, ""},
	{codes.ResourceExhausted, "grpc: received message larger than max"},
	{codes.InvalidArgument, "illegal arguments"},
	{codes.DeadlineExceeded, ""},
	{codes.Canceled, ""},
	{codes.Unimplemented, "unknown method"},
	{codes.Unknown, "invalid user name or password"},
	{codes.Code(99), "code out of range"},
}

// speaksOfGone are the refusals that say that there is no such database: the
// only ones that can come to be tampering.
func speaksOfGone(arg byte) bool {
	i := int(arg) % len(refusals)
	return refusals[i].code == codes.NotFound || strings.Contains(refusals[i].text, "database does not exist")
}

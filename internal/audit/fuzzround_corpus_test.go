package audit_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"immuaudit/internal/wire/schema"
)

var updateCorpus = flag.Bool("update-corpus", false, "write the seeds of FuzzRound into testdata")

// seed is a script of the corpus, mirrored if its name has an even length, and
// the verdicts that its rounds must come to
// after the first contact, each with or without its kind or reason.
type seed struct {
	name    string
	flags   byte
	records []record
	want    string
}

func (s seed) script() script {
	start := byte(seedStart)
	if len(s.name)%2 == 0 {
		start |= mirrored
	}
	return script{flags: s.flags, start: start, records: s.records}
}

const (
	seedStart = 12
	walk      = newHeaders
	prove     = newHeaders | byProof
)

var answers = [calls]proto.Message{
	new(schema.ImmutableState), new(schema.TxList), new(schema.VerifiableTx), new(schema.UseDatabaseReply),
	new(schema.LoginResponse), new(schema.DatabaseListResponse),
}

// do is a step on the field of an answer that a path names, as in
// txs.0.header.ts; the empty path is for steps on whole answers.
func do(o op, target int, path string, arg, more byte) record {
	r := record{op: o, target: byte(target), arg: arg, more: more}
	if path == "" {
		return r
	}
	fields := answers[target].ProtoReflect().Descriptor().Fields()
	last := 0
	for i, name := range strings.Split(path, ".") {
		last = i
		if n, err := strconv.Atoi(name); err == nil {
			r.path[i] = byte(n)
			continue
		}
		f := fields.ByName(protoreflect.Name(name))
		if f == nil {
			panic(path)
		}
		r.path[i] = byte(f.Index())
		if f.Message() != nil {
			fields = f.Message().Fields()
		}
	}
	r.path[last] |= 0x80
	return r
}

// nth makes a step that of the nth call of a round alone.
func nth(n byte, r record) record {
	r.when = n
	return r
}

func grow(n byte) record     { return record{op: opGrow, arg: n - 1} }
func keepOn() record         { return record{op: opRound, arg: 1} }
func roundThen() record      { return record{op: opRound} }
func startAnew() record      { return record{op: opRestart} }
func stand(b int) record     { return do(opStand, aboutChain, "", byte(b), 255) }
func signAnew(k byte) record { return do(opSign, currentState, "", k, 0) }

// seeds cover every step, every call, and every branch of the histories.
func seeds() []seed {
	after := func(steps ...record) []record { return append([]record{grow(8)}, steps...) }
	// The header that a proof begins with, as it is on the honest branch.
	honestSource := do(opSplice, verifiableTx, "dualProof.sourceTxHeader", 1, honest)
	list := []seed{
		{"honest walk", walk, []record{grow(8), roundThen(), grow(16), keepOn(), startAnew(), roundThen()}, "consistent,consistent,consistent"},
		{"honest proofs", prove | lagging | signing, []record{grow(8), roundThen(), grow(16), roundThen()}, "consistent,consistent"},
		{"honest watch", walk | watching | loosely | lagging, []record{grow(4), roundThen(), grow(16), roundThen(), startAnew(), roundThen()}, "consistent,consistent,consistent"},
		{"honest pinned", signing | pinning | byProof | loosely, []record{grow(16), roundThen(), grow(16), roundThen()}, "consistent,consistent"},

		{"early fork", walk, after(stand(earlyFork)), "tampered fork"},
		{"early fork by proof", prove, after(stand(earlyFork)), "tampered fork"},
		{"late fork", walk, append([]record{grow(16), roundThen()}, after(stand(lateFork))...), "consistent,tampered fork"},
		{"late fork before it parts", prove, []record{grow(8), roundThen(), grow(16), stand(lateFork)}, "consistent,consistent"},
		{"swapped leaf", walk, after(grow(8), stand(swappedLeaf)), "tampered tree"},
		{"swapped leaf by proof", prove | loosely, after(roundThen(), do(opStand, aboutChain, "", swappedLeaf, swapAt+1)), "consistent,tampered tree"},
		{"swapped leaf jumped over", prove | loosely, append([]record{grow(8), roundThen()}, after(stand(swappedLeaf))...), "consistent,tampered proof"},
		{"swapped leaf under lag", prove | lagging, append([]record{grow(8), roundThen()}, after(stand(swappedLeaf))...), "consistent,tampered proof"},
		{"lower leaf swapped", prove | loosely, after(roundThen(), grow(8), stand(swappedLow)), "consistent,tampered proof"},
		{"lower leaf swapped under lag", prove | loosely | lagging, after(roundThen(), grow(8), stand(swappedLow)), "consistent,tampered proof"},
		{"junk leaves", walk, after(grow(16), stand(junkLeaves)), "tampered tree"},
		{"junk leaves by proof alone", prove | loosely, after(grow(16), stand(junkLeaves)), "consistent"},
		{"junk leaves walked over", prove, after(grow(16), stand(junkLeaves)), "tampered tree"},
		{"two faces", walk, after(grow(16), stand(twoFaces)), "tampered fork"},
		{"two faces by proof alone", prove | loosely, after(grow(16), stand(twoFaces), honestSource), "consistent"},
		{"two faces walked over", prove, after(grow(16), stand(twoFaces), honestSource), "tampered fork"},
		{"two faces with one header", prove | loosely, after(grow(16), stand(twoFaces)), "tampered fork"},
		{"two faces from where they part", walk, after(roundThen(), grow(16), stand(twoFaces)), "consistent,tampered fork"},
		{"one leaf", prove | loosely, after(roundThen(), grow(8), stand(oneLeaf), honestSource), "consistent,tampered fork"},
		{"honest tree", prove | loosely, after(roundThen(), grow(16), stand(honestTree), honestSource), "consistent,tampered fork"},
		{"honest tree and chain of its own", prove | loosely, after(roundThen(), grow(16), stand(honestTree), honestSource, do(opSplice, verifiableTx, "dualProof.targetBlTxAlh", 1, earlyFork)), "consistent,tampered fork"},
		{"patched", walk | unannounced, []record{grow(8), stand(patched)}, "tampered header"},
		{"made up at first contact", prove | unannounced, []record{do(opFlip, currentState, "txHash", 0, 0)}, "tampered header"},
		{"stranger", walk, after(stand(stranger)), "tampered fork"},
		{"stranger at first contact", walk | unannounced, []record{stand(stranger), roundThen(), roundThen()}, "undetermined first-contact,tampered fork"},
		{"two branches at once", walk, after(do(opStand, currentState, "", earlyFork, 255)), "tampered header"},
		{"another state than headers", prove, after(do(opStand, txScan, "", earlyFork, 255), do(opStand, currentState, "", earlyFork, 255)), "tampered fork"},
		{"rolled back", walk | signing, after(do(opStand, aboutChain, "", honest, 9)), "tampered rollback"},
		{"emptied", walk, after(do(opStand, aboutChain, "", honest, 0)), "tampered emptied"},
		{"emptied once", walk, after(nth(1, do(opStand, currentState, "", honest, 0))), "consistent"},
		{"empty first contact", walk | unannounced, []record{do(opStand, aboutChain, "", honest, 0), roundThen(), roundThen()}, "undetermined first-contact,consistent"},
		{"found behind a round", watching | loosely | unannounced, []record{grow(16), stand(twoFaces), roundThen(), roundThen()}, "undetermined first-contact,tampered"},
		{"sticks", walk | watching, after(stand(earlyFork), roundThen(), roundThen()), "tampered fork,tampered fork"},

		{"unsigned", walk | signing, after(do(opClear, currentState, "signature", 0, 0)), "tampered signature-missing"},
		{"signed by another", walk | signing | pinning, after(signAnew(1)), "tampered key-changed"},
		{"begins to sign", walk, after(signAnew(0)), "consistent"},
		{"another database", walk | signing, after(stand(stranger), do(opNumber, currentState, "db", 1, 0), signAnew(0)), "tampered wrong-database"},
		{"another database's name", walk | signing, after(do(opNumber, currentState, "db", 1, 0), signAnew(0)), "tampered wrong-database"},
		{"another database's headers", walk, after(do(opStand, txScan, "", stranger, 255)), "tampered fork"},
		{"signature replayed", walk | signing, after(do(opSplice, currentState, "signature", 0, 0)), "tampered signature-invalid"},
		{"state replayed", walk | signing, after(roundThen(), do(opReplay, currentState, "", 0, 0)), "consistent,tampered rollback"},
		{"state far ahead", walk, after(do(opNumber, currentState, "txId", 7, 0)), "undetermined refused"},
		{"state just ahead", walk, after(do(opNear, currentState, "txId", 0, 3)), "undetermined unproven"},

		{"gone", walk | watching, after(do(opRefuse, currentState, "", 9, 0), do(opRefuse, useDatabase, "", 10, 0)), "undetermined not-found"},
		{"vanished", walk, after(do(opRefuse, currentState, "", 9, 0), do(opRefuse, useDatabase, "", 10, 0)), "tampered vanished"},
		{"hangs", walk, after(do(opHang, txScan, "", 0, 0)), "undetermined timeout"},
		{"renamed server", walk, after(do(opIdentity, anyCall, "", 7, 0), do(opIdentity, txScan, "", 200, 0)), "consistent"},
		{"short pages", walk, after(nth(1, do(opShorten, txScan, "txs", 1, 0))), "consistent"},
		{"too large", walk, after(do(opExtend, txScan, "txs.0.header.metadata.extra", 255, 0)), "undetermined too-large"},
		{"too many bytes of terms", prove, after(do(opRepeat, verifiableTx, "dualProof.linearProof.terms", 17, 0)), "undetermined too-large"},
		{"too many terms", prove, after(do(opRepeat, verifiableTx, "dualProof.linearProof.terms", 16, 0)), "undetermined malformed"},
		{"no advance proof", prove | lagging, after(grow(16), do(opClear, verifiableTx, "dualProof.LinearAdvanceProof", 0, 0)), "consistent"},
		{"other advance proof", prove | lagging, after(grow(16), do(opFlip, verifiableTx, "dualProof.LinearAdvanceProof.linearProofTerms", 1, 1)), "tampered proof"},
		{"other proof", prove, after(do(opOther, verifiableTx, "", 1, 4)), "undetermined malformed"},
	}
	for call := range calls {
		steps := []op{opRefuse, opScramble}
		if call <= verifiableTx {
			steps = []op{opRefuse, opScramble, opReplay, opOther}
		}
		for _, o := range steps {
			if call == currentState && o == opOther {
				continue // it asks about nothing
			}
			name := fmt.Sprint("each ", callNames[call], " ", opNames[o])
			list = append(list, seed{name, prove | signing, after(roundThen(), grow(8), startAnew(), do(o, call, "", byte(call), 5)), ""})
		}
	}
	number := []op{opClear, opFill, opFlip, opNumber, opNear, opSplice}
	text := []op{opClear, opFill, opFlip, opExtend, opShorten, opSplice}
	whole := []op{opClear, opFill, opSplice}
	several := []op{opClear, opFill, opExtend, opShorten, opRepeat, opSwap, opOmit, opSplice}
	for _, field := range [...]struct {
		call  int
		path  string
		flags byte
		ops   []op
	}{
		{currentState, "txHash", walk, text}, {currentState, "txId", prove | watching, number}, {currentState, "signature.signature", walk | signing, text},
		{txScan, "txs.0.header", walk, whole}, {verifiableTx, "dualProof", prove, whole}, {verifiableTx, "dualProof.sourceTxHeader", prove, whole},
		{verifiableTx, "dualProof.linearProof", prove, whole}, {txScan, "txs", walk, several}, {txScan, "txs.0.header.blTxId", walk | lagging, number}, {txScan, "txs.1.header.nentries", 0, number[:5]}, {txScan, "txs.1.header.ts", walk, number},
		{txScan, "txs.2.header.prevAlh", watching, text}, {txScan, "txs.0.header.metadata.extra", walk, text[1:5]},
		{verifiableTx, "dualProof.targetTxHeader.blRoot", prove, text}, {verifiableTx, "dualProof.consistencyProof", byProof, several},
		{verifiableTx, "dualProof.linearProof.TargetTxId", prove | lagging, number}, {verifiableTx, "dualProof.linearProof.terms", prove | lagging, several},
		{verifiableTx, "dualProof.LinearAdvanceProof.inclusionProofs", prove | lagging, several},
		{useDatabase, "token", walk, text[:5]}, {login, "token", walk, text[:5]}, {databaseList, "databases", walk, several[:5]},
		{databaseList, "databases.0.databaseName", walk, append(text[:5:5], opNumber)},
	} {
		for _, o := range field.ops {
			arg, more := byte(4), byte(1)
			switch {
			case o == opSplice && field.call == currentState:
				arg, more = 0, 0 // from the first answer
			case o == opSplice:
				arg, more = 2, 4 // from the answer about others
			}
			name := fmt.Sprint("each ", callNames[field.call], " ", field.path, " ", opNames[o])
			list = append(list, seed{name, field.flags, after(grow(8), startAnew(), do(o, field.call, field.path, arg, more)), ""})
		}
	}
	return list
}

func (s seed) file() (name string, content []byte) {
	name = strings.NewReplacer(" ", "-", "'", "").Replace(s.name)
	return name, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", s.script().bytes())
}

// TestRoundSeeds: the corpus is what the table makes of it, beside inputs that
// were found by fuzzing. With -update-corpus it is written anew.
func TestRoundSeeds(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "fuzz", "FuzzRound")
	known := map[string]bool{}
	for _, s := range seeds() {
		name, content := s.file()
		if known[name] {
			t.Errorf("two seeds called %s", name)
		}
		known[name] = true
		if back := parseScript(s.script().bytes()); back.String() != s.script().String() {
			t.Errorf("%s: parsed as %s, made of %s", name, back, s.script())
		}
		path := filepath.Join(dir, name)
		if *updateCorpus {
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s is not what the table makes (%v): run go test ./internal/audit -run TestRoundSeeds -update-corpus", path, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		found := len(e.Name()) == 16 && strings.Trim(e.Name(), "0123456789abcdef") == ""
		if !known[e.Name()] && !found {
			t.Errorf("%s is no seed any more: remove it", e.Name())
		}
	}
}

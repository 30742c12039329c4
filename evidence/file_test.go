package evidence_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// TestExamples keeps docs/evidence-format.md true: its worked example is the
// first of these files.
func TestExamples(t *testing.T) {
	t.Parallel()
	fork, key := forked(t)
	rollback := incident(evidence.Rollback)
	rollback.ServerKey, rollback.Trusted = key.point, fork.Trusted
	rollback.Observed = key.state(t, "defaultdb", new(book).commit(2, "as it was"), 2)
	rollback.Findings = []evidence.Finding{{Kind: evidence.Rollback, Check: "growth", Tx: 2, Want: "transaction 4 or later", Got: "transaction 2", Detail: "2 proven transactions are missing from the end"}}
	// The other two kinds of step, for checkers of other make to be tried on.
	chain := new(book).commit(2, "as it was").commit(5, "as it is now")
	headers, linear := fork, fork
	headers.Observed = key.state(t, "defaultdb", chain, 7)
	headers.Headers, headers.Proofs = chain.headers[4:7], nil
	linear.Observed = headers.Observed
	linear.Headers, linear.Proofs = nil, []*proof.DualProof{linearOnly(chain, 4, 7)}
	for name, m := range map[string]evidence.Material{"example.json": fork, "testimony.json": rollback, "headers.json": headers, "linear.json": linear} {
		got := encoded(t, m, newAuditor(t, 9))
		name = filepath.Join("testdata", name)
		if os.Getenv("UPDATE_EXAMPLE") != "" {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("the format changed, or what is written is not the same every time:\n%s", got)
		}
	}
}

// Nothing that goes in is lost or changed on the way out and in.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	signer := newAuditor(t, 9)
	m, key := forked(t)
	m.States = []proof.SignedState{key.state(t, "other\x00db\xff", new(book), 0)}
	m.Proofs[0].Advance = &proof.AdvanceProof{Terms: []proof.Hash{{1}, {2}}, Inclusions: [][]proof.Hash{{{3}}}}
	m.Divergence.Key, m.Divergence.KeyText = "006b", "k"
	m.Damaged = []evidence.Damaged{{Tx: 3}, {Tx: 4, Header: &m.Headers[1], Key: []byte("\x00k"), Committed: proof.Hash{1}, Received: []byte("v"), Size: 2}}
	f, err := evidence.Build(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Encode(signer)
	if err != nil {
		t.Fatal(err)
	}
	again, err := evidence.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	f.AuditorKey = signer.VerifierKey()
	if !reflect.DeepEqual(f, again) {
		t.Errorf("\n%+v\n%+v", f, again)
	}
	if second, err := again.Encode(signer); err != nil || !bytes.Equal(b, second) {
		t.Errorf("%v: other bytes the second time", err)
	}
	if !reflect.DeepEqual(again.Headers, m.Headers) || !reflect.DeepEqual(again.Proofs, m.Proofs) || !reflect.DeepEqual(again.Observed, m.Observed) {
		t.Error("raw material was changed")
	}
}

// Whatever a server did, there is evidence: what exceeds a bound is left out,
// what would harm a terminal is replaced, and both can be read again.
func TestBuildBoundsEverything(t *testing.T) {
	t.Parallel()
	m := incident(evidence.Header)
	m.Name.Server, m.UUID = "a\x1b[2Jb\u202e", strings.Repeat("ü", 2000)
	long := strings.Repeat("x\"\\", 10_000)
	for range 2 * evidence.MaxFindings {
		m.Findings = append(m.Findings, evidence.Finding{Kind: "unheard-of", Check: long, Want: long, Got: long, Detail: long})
	}
	for range 5000 {
		m.Checks = append(m.Checks, evidence.CheckResult{Check: long, Result: "perhaps", Detail: long})
		m.Probes = append(m.Probes, evidence.Probe{Note: long})
		m.States = append(m.States, proof.SignedState{DB: "db", State: proof.State{TxID: 1}, Signature: []byte{1}})
	}
	h := proof.Header{ID: 9, Version: 1, Metadata: proof.TxMetadata{Extra: make([]byte, proof.MaxExtra)}}
	for range 20_000 {
		m.Headers = append(m.Headers, h)
	}
	m.Headers = append([]proof.Header{{ID: 3, Version: 7}}, m.Headers...)
	big := &proof.DualProof{Source: h, Target: h, Linear: proof.LinearProof{Terms: make([]proof.Hash, 70_000)}}
	for range 120 {
		m.Proofs = append(m.Proofs, big)
	}
	m.Proofs = append(m.Proofs, nil, &proof.DualProof{})
	for range 200 {
		m.Damaged = append(m.Damaged, evidence.Damaged{Tx: 1, Header: &h, Key: make([]byte, 2048), Committed: proof.Hash{1}, Received: make([]byte, 1<<20)})
	}
	m.ServerKey = make([]byte, 10_000)
	m.Observed = proof.SignedState{DB: "db", State: proof.State{TxID: 4}, Signature: make([]byte, 1<<20)}
	m.Divergence = &evidence.Divergence{Key: strings.Repeat("00", 1<<20), KeyText: long}
	b := encoded(t, m, newAuditor(t, 9))
	if len(b) > evidence.MaxFile {
		t.Errorf("%d bytes", len(b))
	}
	f, err := evidence.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Findings) != evidence.MaxFindings || f.Findings[1].Kind != evidence.Header || !strings.Contains(strings.Join(f.Omitted, "\n"), "dual proof") {
		t.Errorf("%d findings, the second %s, left out %q", len(f.Findings), f.Findings[1].Kind, f.Omitted)
	}
	if f.Name.Server != "a\ufffd[2Jb\ufffd" {
		t.Errorf("server %q", f.Name.Server)
	}
	if len(m.Findings) != 2*evidence.MaxFindings+1 || m.Findings[1].Check != long {
		t.Error("the caller's material was changed")
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*evidence.Material){
		"no incident":       func(m *evidence.Material) { m.Incident = "" },
		"incident is path":  func(m *evidence.Material) { m.Incident = "../../etc/passwd" },
		"incident too long": func(m *evidence.Material) { m.Incident = strings.Repeat("a", 65) },
		"unknown kind":      func(m *evidence.Material) { m.Kind = "fork/../x" },
		"no kind":           func(m *evidence.Material) { m.Kind = "" },
	} {
		m := incident(evidence.Fork)
		change(&m)
		if f, err := evidence.Build(m); err == nil {
			t.Errorf("%s: built %+v", name, f)
		}
	}
}

// Any change of any byte is noticed, also where no key is given to compare
// with, and so is anything added, left out or doubled.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	m, _ := forked(t)
	good := encoded(t, m, newAuditor(t, 9))
	refused := func(what string, b []byte) {
		f, err := evidence.Parse(b)
		var not *evidence.NotEvidence
		if err == nil || f != nil || !errors.As(err, &not) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		refused(string(good[max(0, i-20):i])+"…", b)
	}
	for i := 0; i < len(good); i += 97 {
		refused("cut", good[:i])
		refused("space", append(append(bytes.Clone(good[:i]), ' '), good[i:]...))
	}
	refused("doubled", append(bytes.Clone(good), good...))
	refused("newline", append(bytes.Clone(good), '\n'))
	refused("without newline", bytes.TrimSpace(good))
	refused("too large", append(bytes.Clone(good), make([]byte, evidence.MaxFile)...))
	refused("many values", []byte(`{"body":{"testimony":{"probes":[`+strings.Repeat("{},", 1<<20)+`{}]}}}`))
}

// The same content in another form is refused even when its signature is
// right: one evidence, one file.
func TestOneForm(t *testing.T) {
	t.Parallel()
	signer := newAuditor(t, 9)
	m := incident(evidence.Rollback)
	good := string(encoded(t, m, signer))
	for name, change := range map[string][2]string{
		"unknown field":   {`"version":1,`, `"version":1,"more":1,`},
		"field twice":     {`"version":1,`, `"version":1,"version":1,`},
		"other version":   {`"version":1,`, `"version":2,`},
		"case of a name":  {`"incident":`, `"Incident":`},
		"space":           {`"version":1,`, `"version": 1,`},
		"escaped":         {`production`, `productio\u006e`},
		"null list":       {`"findings":[`, `"headers":null,"findings":[`},
		"other time zone": {`12:00:00Z`, `12:00:00+00:00`},
		"unknown kind":    {`"kind":"rollback"`, `"kind":"rollforward"`},
		"control":         {`as found`, `as\u0007found`},
		"direction":       {`as found`, "as\u202efound"},
		"another key":     {signer.VerifierKey(), newAuditor(t, 8).VerifierKey()},
	} {
		if !strings.Contains(good, change[0]) {
			t.Fatalf("%s: %q is not in the file", name, change[0])
		}
		if _, err := evidence.Parse(resign(t, strings.Replace(good, change[0], change[1], -1), 9)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := evidence.Parse(resign(t, good, 9)); err != nil {
		t.Errorf("signing anew does not work: %v", err)
	}
}

// FuzzParse puts something else into the body of a good file, and signs it, so
// that it gets past the signature: what is still read has one form, and can be
// re-checked and built anew.
func FuzzParse(f *testing.F) {
	signer := newAuditor(f, 9)
	m, _ := forked(f)
	m.Proofs[0].Advance = &proof.AdvanceProof{Terms: []proof.Hash{{1}, {2}}, Inclusions: [][]proof.Hash{{{3}}}}
	m.Damaged = []evidence.Damaged{{Tx: 3, Header: &m.Headers[0], Key: []byte("\x00k"), Committed: proof.Hash{1}, Received: []byte("v"), Size: 2}}
	bodies := [][]byte{body(encoded(f, m, signer)), body(encoded(f, incident(evidence.Vanished), signer))}
	for i, b := range bodies {
		f.Add(i == 0, uint16(0), uint16(0), []byte(nil))
		for _, word := range []string{`"tx":`, `"alh":`, `"headers":`, `"path":`, `"incident":`, `"time":`, `"detail":`, `"signed_bytes":`, `"inclusions":`, `"version":`, `"header":`, `"size":`, `"committed":`, `"received":`, `"first_bad_tx":`, `"last_good_tx":`} {
			if at := bytes.LastIndex(b, []byte(word)); at >= 0 {
				for _, with := range []string{"", "1", "-1", "9223372036854775808", `""`, "null", "[]", "{}", `"\u0000"`} {
					f.Add(i == 0, uint16(at+len(word)), uint16(1), []byte(with))
				}
			}
		}
	}
	key := newServerKey(f, 7)
	f.Fuzz(func(t *testing.T, first bool, at, length uint16, with []byte) {
		content := bodies[1]
		if first {
			content = bodies[0]
		}
		from := min(int(at), len(content))
		to := min(from+int(length), len(content))
		b := resignBody(t, slices.Concat(content[:from], with, content[to:]), signer)
		x, err := evidence.Parse(b)
		if err != nil {
			if o, err := evidence.Recheck(b, evidence.RecheckOptions{}); err == nil || o.ExitCode() != 2 {
				t.Fatalf("%v, %v", o, err)
			}
			return
		}
		if again, err := x.Encode(signer); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("malleable: %v\n%s\n%s", err, b, again)
		}
		again, err := evidence.Build(x.Material)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Encode(signer); err != nil {
			t.Fatal(err)
		}
		o, err := evidence.Recheck(b, evidence.RecheckOptions{ServerKey: &key.private.PublicKey, AuditorKey: signer.VerifierKey()})
		if err != nil || o.ExitCode() != 3 {
			t.Fatalf("%+v, %v", o, err)
		}
		if x.Proof != nil && x.Proof.Verify() != nil {
			t.Fatal("a proof that does not hold was read")
		}
	})
}

// FuzzHeader: one header, one form, and the hash that package proof gives it.
func FuzzHeader(f *testing.F) {
	signer := newAuditor(f, 9)
	for _, h := range new(book).commit(6, "x").headers {
		f.Add(h.ID, h.Ts, h.Version, h.NEntries, h.BlTxID, h.Metadata.TruncatedTxID, h.Metadata.Extra)
	}
	f.Fuzz(func(t *testing.T, id uint64, ts int64, version uint16, n uint32, bl, truncated uint64, extra []byte) {
		h := proof.Header{ID: id, Ts: ts, Version: version, NEntries: n, BlTxID: bl, Metadata: proof.TxMetadata{TruncatedTxID: truncated}}
		if len(extra) > 0 {
			h.Metadata.Extra = extra
		}
		m := incident(evidence.Header)
		m.Headers = []proof.Header{h}
		x, err := evidence.Parse(encoded(t, m, signer))
		if err != nil {
			t.Fatal(err)
		}
		if h.Validate() != nil {
			if len(x.Headers) != 0 || len(x.Omitted) != 1 {
				t.Fatalf("%+v, %q", x.Headers, x.Omitted)
			}
			return
		}
		if len(x.Headers) != 1 || !reflect.DeepEqual(x.Headers[0], h) || x.Headers[0].Alh() != h.Alh() {
			t.Fatalf("%+v, want %+v", x.Headers, h)
		}
	})
}

package evidence_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// book is a history as its owner can write it, and can be copied and continued
// differently. Trees are the recursive definition of RFC 6962 §2.1.
type book struct {
	headers []proof.Header
	leaves  []proof.Hash
}

func (b *book) fork() *book { return &book{slices.Clone(b.headers), slices.Clone(b.leaves)} }

// commit appends transactions whose trees hold all before them.
func (b *book) commit(n int, content string) *book {
	for range n {
		id := uint64(len(b.headers) + 1)
		h := proof.Header{ID: id, PrevAlh: proof.EmptyAlh(), Ts: 1_700_000_000 + int64(id), Version: uint16(id % 2), NEntries: 1, EH: sha256.Sum256([]byte(content)), BlTxID: id - 1}
		if id%5 == 1 && h.Version == 1 {
			h.Metadata = proof.TxMetadata{TruncatedTxID: id, Extra: []byte("extra")}
		}
		if id > 1 {
			h.PrevAlh, h.BlRoot = b.headers[id-2].Alh(), subtree(b.leaves)
		}
		b.headers = append(b.headers, h)
		b.leaves = append(b.leaves, h.Alh())
	}
	return b
}

func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func subtree(leaves []proof.Hash) proof.Hash {
	if len(leaves) == 1 {
		return sha256.Sum256(append([]byte{0}, leaves[0][:]...))
	}
	k := split(len(leaves))
	l, r := subtree(leaves[:k]), subtree(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
}

func auditPath(m int, leaves []proof.Hash) []proof.Hash {
	if len(leaves) == 1 {
		return nil
	}
	if k := split(len(leaves)); m < k {
		return append(auditPath(m, leaves[:k]), subtree(leaves[k:]))
	} else {
		return append(auditPath(m-k, leaves[k:]), subtree(leaves[:k]))
	}
}

func inner(h proof.Header) proof.Hash { return h.Inner() }

// dual is an answer without consistency proof: what matters here is what it
// commits to.
func (b *book) dual(source, target uint64) *proof.DualProof {
	p := &proof.DualProof{Source: b.headers[source-1], Target: b.headers[target-1]}
	t := &p.Target
	start := source
	if source < t.BlTxID {
		p.Inclusion, start = auditPath(int(source-1), b.leaves[:t.BlTxID]), t.BlTxID
	}
	if t.BlTxID > 0 {
		p.TargetBlTxAlh, p.LastInclusion = b.leaves[t.BlTxID-1], auditPath(int(t.BlTxID-1), b.leaves[:t.BlTxID])
	}
	p.Linear = proof.LinearProof{SourceTxID: start, TargetTxID: target, Terms: []proof.Hash{b.headers[start-1].Alh()}}
	for _, h := range b.headers[start:target] {
		p.Linear.Terms = append(p.Linear.Terms, inner(h))
	}
	return p
}

type serverKey struct {
	private *ecdsa.PrivateKey
	point   []byte
}

// newServerKey is the same for the same digit every time.
func newServerKey(t testing.TB, digit byte) serverKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{digit}, 32))
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return serverKey{key, public.Bytes()}
}

// state is the newest state of a book up to tx, signed.
func (k serverKey) state(t testing.TB, db string, b *book, tx uint64) proof.SignedState {
	t.Helper()
	s := proof.SignedState{DB: db, State: proof.State{Alh: proof.EmptyAlh()}}
	if tx > 0 {
		s.State = proof.State{TxID: tx, Alh: b.headers[tx-1].Alh()}
	}
	return k.sign(t, s)
}

func (k serverKey) sign(t testing.TB, s proof.SignedState) proof.SignedState {
	t.Helper()
	text := append(binary.BigEndian.AppendUint32(nil, uint32(len(s.DB))), s.DB...)
	text = binary.BigEndian.AppendUint64(text, s.TxID)
	text = append(text, s.Alh[:]...)
	digest := sha256.Sum256(text)
	signature, err := k.private.Sign(nil, digest[:], crypto.SHA256) // RFC 6979: no chance in it
	if err != nil {
		t.Fatal(err)
	}
	s.PublicKey, s.Signature = k.point, signature
	return s
}

// newAuditor is the same for the same digit every time.
func newAuditor(t testing.TB, digit byte) *evidence.Key {
	t.Helper()
	seed := bytes.Repeat([]byte{digit}, ed25519.SeedSize)
	public, err := note.NewEd25519VerifierKey("example-auditor", ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	private := "PRIVATE+KEY+" + public[:len("example-auditor+00000000+")] + base64.StdEncoding.EncodeToString(append([]byte{1}, seed...)) + "\n"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "auditor.key"), []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := evidence.LoadOrCreateKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var opened = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func incident(kind evidence.Kind) evidence.Material {
	return evidence.Material{
		Version: "v1.0.0", Incident: "20261123-k7qd", Kind: kind, At: opened, Name: evidence.Name{Server: "production", Database: "defaultdb"},
		UUID: "cdrq0aa1s1kc73a3hgb0", Channel: evidence.Channel{Transport: "plaintext"},
		Findings: []evidence.Finding{{Kind: kind, Check: "alh", Tx: 3, Want: "aa", Got: "bb", Detail: "as found"}},
	}
}

// forked is the incident of the worked example: transactions 3 … were written
// anew after the state of transaction 4 had been signed.
func forked(t testing.TB) (evidence.Material, serverKey) {
	key := newServerKey(t, 7)
	honest := new(book).commit(2, "as it was")
	other := honest.fork().commit(4, "as it is now")
	honest.commit(2, "as it was")
	m := incident(evidence.Fork)
	m.ServerKey = key.point
	m.Trusted, m.Observed = key.state(t, "defaultdb", honest, 4), key.state(t, "defaultdb", other, 6)
	m.Proofs = []*proof.DualProof{other.dual(4, 6)}
	m.Headers = other.headers[2:4]
	want, got := m.Trusted.Alh, other.headers[3].Alh()
	m.Findings = []evidence.Finding{{Kind: evidence.Fork, Check: "alh", Tx: 4, Want: want.String(), Got: got.String(), Detail: "transaction 4 is not the one that was proven before"}}
	m.Checks = []evidence.CheckResult{
		{Check: "database", Result: evidence.Held}, {Check: "signature", Tx: 6, Result: evidence.Held},
		{Check: "alh-source", Tx: 4, Result: evidence.Failed, Want: want.String(), Got: got.String()},
	}
	m.Divergence = &evidence.Divergence{LastGoodTx: 2, FirstBadTx: 3}
	h2, h3 := honest.headers[1].Alh(), honest.headers[2].Alh()
	o3 := other.headers[2].Alh()
	m.Probes = []evidence.Probe{{Tx: 2, Leaf: proof.LeafHash(h2), Shown: &h2}, {Tx: 3, Leaf: proof.LeafHash(h3), Shown: &o3}}
	return m, key
}

// encoded builds and signs.
func encoded(t testing.TB, m evidence.Material, by evidence.Signer) []byte {
	t.Helper()
	f, err := evidence.Build(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Encode(by)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// body gives the body of a file as it stands in it.
func body(file []byte) []byte {
	b := bytes.TrimPrefix(file, []byte(`{"body":`))
	return b[:bytes.LastIndex(b, []byte(`,"note":`))]
}

// resign signs a changed file anew.
func resign(t testing.TB, file string, digit byte) []byte {
	return resignBody(t, body([]byte(file)), newAuditor(t, digit))
}

func resignBody(t testing.TB, body []byte, signer note.Signer) []byte {
	t.Helper()
	sum := sha256.Sum256(body)
	signed, err := note.Sign(&note.Note{Text: "immuaudit-evidence-v1\n" + hex.EncodeToString(sum[:]) + "\n"}, signer)
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(string(signed))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat([]byte(`{"body":`), body, []byte(`,"note":`), quoted, []byte("}\n"))
}

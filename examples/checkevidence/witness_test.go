package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// history is what a server may have written. Its trees are the definition of
// RFC 6962 §2.1.
type history struct {
	headers []proof.Header
	leaves  []proof.Hash
}

func (h *history) commit(n int, content byte) {
	for range n {
		id := uint64(len(h.headers) + 1)
		next := proof.Header{ID: id, PrevAlh: proof.EmptyAlh(), Ts: int64(id), Version: uint16(id % 2), NEntries: uint32(content), BlTxID: id - 1}
		if next.Version == 1 && id%3 == 0 {
			next.Metadata.Extra = bytes.Repeat([]byte{content}, int(id)%100)
		}
		if id > 1 {
			next.PrevAlh, next.BlRoot = h.leaves[id-2], tree(h.leaves)
		}
		h.headers, h.leaves = append(h.headers, next), append(h.leaves, next.Alh())
	}
}

func half(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func tree(leaves []proof.Hash) proof.Hash {
	if len(leaves) == 1 {
		return proof.LeafHash(leaves[0])
	}
	l, r := tree(leaves[:half(len(leaves))]), tree(leaves[half(len(leaves)):])
	return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
}

func auditPath(m int, leaves []proof.Hash) []proof.Hash {
	if len(leaves) == 1 {
		return nil
	}
	k := half(len(leaves))
	if m < k {
		return append(auditPath(m, leaves[:k]), tree(leaves[k:]))
	}
	return append(auditPath(m-k, leaves[k:]), tree(leaves[:k]))
}

// answer is of a dual proof what a contradiction can be made of: by the tree,
// or by the chain.
func (h *history) answer(from, to uint64, byTree bool) *proof.DualProof {
	p := &proof.DualProof{Source: h.headers[from-1], Target: h.headers[to-1]}
	if byTree {
		p.Inclusion = auditPath(int(from-1), h.leaves[:to-1])
		return p
	}
	p.Linear = proof.LinearProof{SourceTxID: from, TargetTxID: to, Terms: []proof.Hash{h.leaves[from-1]}}
	for _, next := range h.headers[from:to] {
		p.Linear.Terms = append(p.Linear.Terms, next.Inner())
	}
	return p
}

// signer is an auditor's key, without a file to keep it in.
type signer struct {
	note.Signer
	verifier string
}

func (s signer) VerifierKey() string { return s.verifier }

func newSigner(t testing.TB, name string, digit byte) signer {
	t.Helper()
	seed := bytes.Repeat([]byte{digit}, ed25519.SeedSize)
	verifier, err := note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	private := "PRIVATE+KEY+" + verifier[:len(name)+10] + base64.StdEncoding.EncodeToString(append([]byte{1}, seed...))
	s, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, verifier}
}

func newKey(t testing.TB, digit byte) (key *ecdsa.PrivateKey, point, text []byte) {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{digit}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if point, err = key.PublicKey.Bytes(); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, point, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// witness is a file of evidence as chance makes it.
type witness struct {
	chance *rand.Rand
	signer signer
	file   []byte
	quick  bool // asks without keys only
}

func newWitness(t testing.TB, seed uint64) *witness {
	t.Helper()
	chance := rand.New(rand.NewPCG(seed, 1))
	some := func(n int) uint64 { return 1 + chance.Uint64N(uint64(n)) }
	word := func() string {
		return []string{"", "word", `<&>"\`, "\u2028\x00\xff", "ünlauter\ufffd"}[chance.IntN(5)]
	}
	var old history
	old.commit(int(some(10)), 'c')
	now := history{slices.Clone(old.headers), slices.Clone(old.leaves)}
	old.commit(int(some(8)), 'o')
	now.commit(int(some(20)), 'n')
	db := "db" + word()
	state := func(h *history) proof.SignedState {
		tx := some(len(h.headers))
		s := proof.SignedState{DB: db, State: proof.State{TxID: tx, Alh: h.leaves[tx-1]}}
		key, point, _ := newKey(t, 7+byte(chance.IntN(8)/7))
		text := append(binary.BigEndian.AppendUint32(nil, uint32(len(db))), db...)
		text = append(binary.BigEndian.AppendUint64(text, tx), s.Alh[:]...)
		digest := sha256.Sum256(text)
		signature, err := key.Sign(nil, digest[:], crypto.SHA256) // the same every time
		if err != nil {
			t.Fatal(err)
		}
		if chance.IntN(10) > 0 {
			s.Signature, s.PublicKey = signature, point
		}
		return s
	}
	kinds := evidence.Kinds()
	m := evidence.Material{
		Version: "v1", Incident: "20261123-abcd", Kind: kinds[chance.IntN(len(kinds))], At: time.Unix(int64(some(1<<31)), 0),
		Name: evidence.Name{Server: word(), Database: db}, UUID: word(), Trusted: state(&old), Observed: state(&now),
		Findings: []evidence.Finding{{Kind: kinds[0], Check: word(), Tx: some(1 << 40), Detail: word()}},
		Checks:   []evidence.CheckResult{{Check: word(), Result: evidence.Failed, Want: word()}},
		Probes:   []evidence.Probe{{Tx: some(9), Shown: &now.leaves[0], Note: word()}},
	}
	for range chance.IntN(3) {
		m.States = append(m.States, state(&old))
	}
	if from, to := m.Trusted.TxID, m.Observed.TxID; from < to {
		switch chance.IntN(4) {
		case 0:
			m.Headers = now.headers[from-1 : to]
		case 1:
			m.Proofs = []*proof.DualProof{now.answer(from, to, true)}
		case 2:
			m.Proofs = []*proof.DualProof{now.answer(from, to, false)}
		}
	}
	w := &witness{chance: chance, signer: newSigner(t, "auditor", byte(chance.IntN(3)))}
	f, err := evidence.Build(m)
	if err != nil {
		t.Fatal(err)
	}
	if w.file, err = f.Encode(w.signer); err != nil {
		t.Fatal(err)
	}
	return w
}

// agree asks both, with all combinations of keys, and gives the answers.
func (w *witness) agree(t testing.TB, file []byte) (codes []int) {
	t.Helper()
	w.compare(t, file, func(what string, got, want int, words string) {
		codes = append(codes, got)
		if got != want {
			t.Errorf("%s: %d, %s; the auditor's re-check says %d:\n%s", what, got, words, want, file)
		}
	})
	return codes
}

func (w *witness) compare(t testing.TB, file []byte, with func(what string, got, want int, words string)) {
	t.Helper()
	keys, auditors := []byte{0, 7, 8, 9}, []string{"", w.signer.verifier, newSigner(t, "auditor", 9).verifier}
	if w.quick {
		keys, auditors = keys[:1], auditors[:1]
	}
	for _, digit := range keys {
		var opts evidence.RecheckOptions
		var text []byte
		if digit > 0 {
			key, _, pem := newKey(t, digit)
			opts.ServerKey, text = &key.PublicKey, pem
		}
		for _, opts.AuditorKey = range auditors {
			words, got := check(file, text, opts.AuditorKey)
			o, _ := evidence.Recheck(file, opts)
			with(fmt.Sprintf("server key %d, auditor key %q", digit, opts.AuditorKey), got, o.ExitCode(), words)
		}
	}
}

// changed changes one byte, of the file or of what the auditor signs.
func (w *witness) changed(t testing.TB, at int, with byte, resign bool) {
	t.Helper()
	file := bytes.Clone(w.file)
	file[at] ^= with
	if !resign {
		for _, code := range w.agree(t, file) {
			if code != 2 {
				t.Errorf("a change of byte %d goes unnoticed", at)
			}
		}
		return
	}
	body := bytes.TrimPrefix(w.file, []byte(`{"body":`))
	body = bytes.Clone(body[:bytes.LastIndex(body, []byte(`,"note":`))])
	at %= len(body)
	body[at] ^= with
	text := fmt.Sprintf("immuaudit-evidence-v1\n%x\n", sha256.Sum256(body))
	signed, err := note.Sign(&note.Note{Text: text}, w.signer)
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(string(signed))
	if err != nil {
		t.Fatal(err)
	}
	file = slices.Concat([]byte(`{"body":`), body, []byte(`,"note":`), quoted, []byte("}\n"))
	// Whether the testimony makes sense this program does not judge.
	if at < bytes.Index(body, []byte(`"testimony":`)) && !bytes.Contains(body, []byte{0x7f}) {
		w.agree(t, file)
		return
	}
	w.compare(t, file, func(what string, got, want int, words string) {
		if got != want && want != 2 {
			t.Errorf("%s: %d, %s; the auditor's re-check says %d:\n%s", what, got, words, want, file)
		}
	})
}

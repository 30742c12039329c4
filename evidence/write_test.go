package evidence_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

func TestRecord(t *testing.T) {
	t.Parallel()
	signer := newAuditor(t, 9)
	dir := filepath.Join(t.TempDir(), "evidence")
	m, _ := forked(t)
	path, err := evidence.Record(dir, m, signer)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(b)); path != filepath.Join(dir, "20261123-k7qd-fork-"+sum[:16]+".json") {
		t.Errorf("%s is not named by its content, %s", path, sum)
	}
	if _, err := evidence.Parse(b); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	// One file per incident and kind: the first one stands.
	m.UUID = "found out later"
	if again, err := evidence.Record(dir, m, signer); err != nil || again != path {
		t.Errorf("%s, %v", again, err)
	}
	// Unless more was found since; what was found twice is there once.
	m.Further = true
	further, err := evidence.Record(dir, m, signer)
	if err != nil || further == path {
		t.Errorf("%s, %v", further, err)
	}
	if again, err := evidence.Record(dir, m, signer); err != nil || again != further {
		t.Errorf("%s, %v", again, err)
	}
	m.Further = false
	// Another kind, another incident: other files. value is no value-missing.
	m.Kind = evidence.ValueMissing
	missing, err := evidence.Record(dir, m, signer)
	if err != nil || missing == path {
		t.Errorf("%s, %v", missing, err)
	}
	m.Kind = evidence.Value
	if value, err := evidence.Record(dir, m, signer); err != nil || value == missing {
		t.Errorf("%s, %v", value, err)
	}
	m.Incident = "20261123-k7qe"
	if _, err := evidence.Record(dir, m, signer); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestRecordFails(t *testing.T) {
	t.Parallel()
	signer := newAuditor(t, 9)
	m, _ := forked(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"a file": file, "no parent": filepath.Join(t.TempDir(), "a", "b")} {
		if path, err := evidence.Record(dir, m, signer); err == nil || !strings.Contains(err.Error(), "a sound disk with room") {
			t.Errorf("%s: %s, %v", name, path, err)
		}
	}
	m.Incident = "../up"
	if path, err := evidence.Record(t.TempDir(), m, signer); err == nil {
		t.Error(path)
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// Any number of processes that begin at once get one key.
	keys := make([]*evidence.Key, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = evidence.LoadOrCreateKey(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	made := 0
	for _, k := range keys {
		if k == nil || k.VerifierKey() != keys[0].VerifierKey() {
			t.Fatalf("%+v", k)
		}
		if k.Created {
			made++
		}
	}
	if _, err := evidence.ParseAuditorKey(keys[0].VerifierKey()); err != nil || made != 1 {
		t.Errorf("made %d times, %v", made, err)
	}
	path := filepath.Join(dir, "auditor.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// Whoever died in between leaves a copy, until the next one comes.
	if err := os.Link(path, filepath.Join(dir, ".new-7")); err != nil {
		t.Fatal(err)
	}
	if k, err := evidence.LoadOrCreateKey(dir); err != nil || k.Created {
		t.Errorf("%+v, %v", k, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	m, _ := forked(t)
	if _, err := evidence.Parse(encoded(t, m, keys[0])); err != nil {
		t.Error(err)
	}

	// Damaged, exposed or replaced: refused, never a new key, and never quoted.
	secret, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "auditor.key")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.LoadOrCreateKey(filepath.Dir(link)); err == nil {
		t.Error("a link was followed")
	}
	for name, content := range map[string]string{
		"empty": "", "cut": string(secret[:len(secret)-1]), "shorter": string(secret[:40]) + "\n", "long": string(secret) + strings.Repeat("x", 2000),
		"public": keys[0].VerifierKey() + "\n", "two": string(secret) + string(secret),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := evidence.LoadOrCreateKey(dir); err == nil || strings.Contains(err.Error(), string(secret[60:80])) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.LoadOrCreateKey(dir); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("exposed: %v", err)
	}
}

// The worst that a server can send costs seconds and bounded memory, and does
// not crowd out what convicts it.
func TestRecordOfMuch(t *testing.T) {
	t.Parallel()
	key := newServerKey(t, 7)
	b, other := new(book).commit(3, "x"), new(book).commit(3, "y")
	m := incident(evidence.Fork)
	m.Trusted, m.Observed = key.state(t, "db", b, 2), key.state(t, "db", other, 3)
	for i := range byte(30) {
		m.States = append(m.States, key.state(t, string([]byte{'a' + i}), b, 3))
	}
	// A chain from nowhere, made to end in the observed state's own header.
	h := proof.Header{ID: 70_000, Version: 1}
	long := proof.LinearProof{SourceTxID: 1, TargetTxID: h.ID, Terms: make([]proof.Hash, h.ID)}
	at := proof.State{TxID: 1}
	for i := range long.Terms[1 : len(long.Terms)-1] {
		at = proof.State{TxID: at.TxID + 1, Alh: link(at.TxID+1, at.Alh, long.Terms[i+1])}
	}
	h.PrevAlh = at.Alh
	long.Terms[len(long.Terms)-1] = h.Inner()
	for range 4 {
		m.Proofs = append(m.Proofs, &proof.DualProof{Source: b.headers[0], Target: h, Linear: long})
	}
	m.Proofs = append(m.Proofs, other.dual(1, 3))
	m.Headers = other.headers
	path, err := evidence.Record(t.TempDir(), m, newAuditor(t, 9))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := evidence.Parse(file)
	if err != nil || f.Proof == nil || f.Proof.Tx != 2 {
		t.Fatalf("%+v, %v", f, err)
	}
}

func link(id uint64, prev, inner proof.Hash) proof.Hash {
	return sha256.Sum256(slices.Concat(binary.BigEndian.AppendUint64(nil, id), prev[:], inner[:]))
}

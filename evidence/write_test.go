package evidence_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"immuaudit/evidence"
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
	if err != nil || len(entries) != 4 {
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
		if path, err := evidence.Record(dir, m, signer); err == nil || !strings.Contains(err.Error(), "make room in") {
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

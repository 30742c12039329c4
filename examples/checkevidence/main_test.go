package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// TestAgrees: whoever wrote this program from the format's description comes
// to the same answer as the auditor's own re-check.
func TestAgrees(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile(filepath.Join("..", "..", "evidence", "testdata", "example.json"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := evidence.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := proof.ParsePoint(f.Proof.Key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	serverKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	otherKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der[:len(der)-1]})
	for name, test := range map[string]struct {
		file, server []byte
		auditor      string
		code         int
		says         string
	}{
		"no keys":         {file, nil, "", 3, evidence.Fingerprint(key)},
		"both keys":       {file, serverKey, f.AuditorKey, 3, "PROVEN"},
		"other server":    {file, otherKey, "", 1, "another key"},
		"other auditor":   {file, nil, "someone+00000000+AAAA", 2, "another auditor"},
		"no file at all":  {nil, nil, "", 2, "not the file"},
		"another version": {bytes.Replace(file, []byte(`"version":1`), []byte(`"version":2`), 1), nil, "", 2, "another version"},
	} {
		words, code := check(test.file, test.server, test.auditor)
		if code != test.code || !strings.Contains(words, test.says) {
			t.Errorf("%s: %d, %s", name, code, words)
		}
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "evidence", "testdata", "*.json"))
	if err != nil || len(files) < 4 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		o, err := evidence.Recheck(b, evidence.RecheckOptions{ServerKey: key})
		if words, code := check(b, serverKey, ""); err != nil || code != o.ExitCode() {
			t.Errorf("%s: %d, %s; the auditor's re-check says %d, %v", name, code, words, o.ExitCode(), err)
		}
	}
	for i := bytes.Index(file, []byte(`{"version"`)); i < len(file)-3; i += 3 {
		b := bytes.Clone(file)
		b[i] ^= 1
		if words, code := check(b, nil, ""); code == 3 {
			t.Fatalf("a change of byte %d goes unnoticed: %s", i, words)
		}
	}
}

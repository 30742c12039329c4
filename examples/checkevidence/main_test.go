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

// TestExamples: whoever wrote this program from the format's description comes
// to the same answer as the auditor's own re-check.
func TestExamples(t *testing.T) {
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
		"no server key":   {file, []byte("x"), "", 1, "another key"},
		"other, vouched":  {file, otherKey, f.AuditorKey, 3, "another key"},
		"other auditor":   {file, nil, "someone+00000000+AAAA", 3, "PROVEN"},
		"no file at all":  {nil, nil, "", 2, "not a file"},
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
	// Whatever is done to the file as a whole, too.
	for name, b := range map[string][]byte{
		"a name's case": bytes.Replace(file, []byte(`{"body"`), []byte(`{"Body"`), 1), "space": append([]byte(" "), file...), "cut": file[:len(file)-1],
		"twice": append(bytes.Clone(file), file...), "a member more": bytes.Replace(file, []byte(`,"note"`), []byte(`,"more":1,"note"`), 1),
	} {
		o, err := evidence.Recheck(b, evidence.RecheckOptions{})
		if words, code := check(b, nil, ""); code != 2 || o.ExitCode() != 2 {
			t.Errorf("%s: %d, %s; the auditor's re-check says %d, %v", name, code, words, o.ExitCode(), err)
		}
	}
}

// TestAgrees: on random evidence, whole and with a byte changed, the answers
// are the same, whichever keys are given.
func TestAgrees(t *testing.T) {
	t.Parallel()
	seen := map[int]int{}
	for seed := range uint64(40) {
		w := newWitness(t, seed)
		for _, code := range w.agree(t, w.file) {
			seen[code]++
		}
		for range 4 {
			at, with := w.chance.IntN(len(w.file)), byte(1+w.chance.IntN(255))
			w.changed(t, at, with, false)
			w.changed(t, at, with, true)
		}
	}
	if seen[1] < 50 || seen[3] < 50 {
		t.Errorf("only %v", seen)
	}
}

// TestEveryByte: whichever byte is changed in what the auditor signs, the
// testimony left out, or in its signature, the answers are the same.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	for name, pace := range map[string]int{"example.json": 1, "headers.json": 9, "linear.json": 9} {
		file, err := os.ReadFile(filepath.Join("..", "..", "evidence", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		w := &witness{signer: newSigner(t, "example-auditor", 9), file: file, quick: true}
		for at := 0; at < bytes.Index(file, []byte(`"testimony":`)); at += pace {
			w.changed(t, at, 1<<(at%8), true)
		}
		for at := bytes.LastIndex(file, []byte(`,"note":`)); at < len(file); at++ {
			w.changed(t, at, 1<<(at%8), false)
		}
	}
}

// TestInclusion: every leaf of every small tree is where it is and nowhere else.
func TestInclusion(t *testing.T) {
	t.Parallel()
	var h history
	h.commit(20, 'x')
	for size := range len(h.leaves) {
		for leaf := range size {
			var path []octets
			for _, p := range auditPath(leaf, h.leaves[:size]) {
				path = append(path, octets(p[:]))
			}
			root := tree(h.leaves[:size])
			at := proof.LeafHash(h.leaves[leaf])
			for index := range uint64(len(h.leaves)) {
				if got := included(index+1, []byte(u64(uint64(size))+octets(root[:])), octets(at[:]), path); got != (index == uint64(leaf)) {
					t.Errorf("leaf %d of %d as number %d: %v", leaf, size, index, got)
				}
			}
			if included(0, []byte(u64(0)+octets(root[:])), octets(at[:]), path) || included(uint64(leaf+1), []byte(u64(uint64(size))+octets(root[:])), octets(at[:]), append(path, octets(at[:]))) {
				t.Errorf("leaf %d of %d is found by a path that is none", leaf, size)
			}
		}
	}
}

// FuzzAgrees is TestAgrees, driven.
func FuzzAgrees(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint32(seed*997), byte(0x20), seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, at uint32, with byte, resign bool) {
		w := newWitness(t, seed)
		if with == 0 {
			w.agree(t, w.file)
			return
		}
		w.changed(t, int(at)%len(w.file), with, resign)
	})
}

package evidence_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// What a server showed in the place of a value is in the file, and hashed again
// by whoever reads it.
func TestDamaged(t *testing.T) {
	t.Parallel()
	history := new(book).commit(4, "as it was")
	committed := proof.Hash(sha256.Sum256([]byte("\x00paid")))
	key := []byte("\x00invoice/7")
	long := bytes.Repeat([]byte("x"), 70_000)
	for name, tt := range map[string]struct {
		in   evidence.Damaged
		says string
	}{
		"another value": {evidence.Damaged{Key: key, Committed: committed, Received: []byte("\x00owed"), Size: 5}, `key "invoice/7", the value received hashes to`},
		"none":          {evidence.Damaged{Key: key, Committed: committed}, "no value was received"},
		"too long":      {evidence.Damaged{Key: key, Committed: committed, Received: long, Size: len(long)}, "70000 bytes were received, of which the file holds 65536"},
		"not damaged":   {evidence.Damaged{Key: key, Committed: committed, Received: []byte("\x00paid"), Size: 5}, "it is not damaged"},
		"odd key":       {evidence.Damaged{Key: []byte("\x00\x1b[31m"), Committed: committed}, "key 1b5b33316d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := incident(evidence.Value)
			tt.in.Tx, tt.in.Header = 3, &history.headers[2]
			m.Damaged = []evidence.Damaged{tt.in, {Tx: 4}}
			signer := newAuditor(t, 9)
			text := encoded(t, m, signer)
			f, err := evidence.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Damaged; len(got) != 2 || got[0].Header == nil || got[0].Header.Alh() != history.headers[2].Alh() || !bytes.Equal(got[0].Key, key) && name != "odd key" {
				t.Errorf("%+v", got)
			}
			out, err := evidence.Recheck(text, evidence.RecheckOptions{AuditorKey: f.AuditorKey})
			if err != nil {
				t.Fatal(err)
			}
			if said := strings.Join(out.Recomputed, "\n"); !strings.Contains(said, tt.says) {
				t.Errorf("it says\n%s\nand not %q", said, tt.says)
			}
		})
	}
	m := incident(evidence.Value)
	m.Damaged = []evidence.Damaged{{Tx: 3, Key: bytes.Repeat([]byte("k"), 5000)}, {Tx: 5, Header: &proof.Header{ID: 5, Version: 7}}}
	f, err := evidence.Build(m)
	if err != nil || len(f.Omitted) != 2 || len(f.Damaged) != 1 || f.Damaged[0].Header != nil {
		t.Errorf("what cannot be written down is left out and named: %+v, %v", f, err)
	}
}

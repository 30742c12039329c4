package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/store"
	"immuaudit/proof"
)

// signedBy makes a state of transaction 3 that verifies under the key it carries.
func signedBy(t *testing.T, key *ecdsa.PrivateKey, alh byte) *proof.SignedState {
	t.Helper()
	s := &proof.SignedState{DB: "shop", State: proof.State{TxID: 3, Alh: proof.Hash{alh}}}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s.DB)))
	b = binary.BigEndian.AppendUint64(append(b, s.DB...), s.TxID)
	digest := sha256.Sum256(append(b, s.Alh[:]...))
	var err error
	if s.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		t.Fatal(err)
	}
	if s.PublicKey, err = key.PublicKey.Bytes(); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOfflineForgedStates: two states prove a fork only under the key in force,
// whatever keys they carry.
func TestOfflineForgedStates(t *testing.T) {
	t.Parallel()
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	server, own := keys[0], keys[1]
	point, err := server.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	accepted := evidence.Baseline{Origin: evidence.OriginAccepted, State: proof.State{TxID: 5}, At: time.Unix(1000, 0)}
	for name, c := range map[string]struct {
		key      []byte
		baseline evidence.Baseline
		a, b     *ecdsa.PrivateKey
		proven   bool
	}{
		"no key in force":                   {a: own, b: own},
		"no key in force, and the server's": {a: server, b: server},
		"before what was accepted":          {key: point, baseline: accepted, a: own, b: own},
		"one of two":                        {key: point, baseline: accepted, a: server, b: own},
		"both, before what was accepted":    {key: point, baseline: accepted, a: server, b: server, proven: true},
		"both":                              {key: point, a: server, b: server, proven: true},
	} {
		var l look
		r := &record{Trust: &evidence.Trust{Key: c.key, Baseline: c.baseline}}
		check := signedCheck{mirrorCheck: &mirrorCheck{record: r, depth: &depth{}}, look: &l}
		for alh, key := range []*ecdsa.PrivateKey{c.a, c.b} {
			w := evidence.Witnessed{State: *signedBy(t, key, byte(alh+1)), At: time.Unix(2000, 0)}
			if err := check.state("file", &w); err != nil {
				t.Fatal(err)
			}
		}
		if len(l) != 1 || !l[0].bad() || (l[0].proven != nil) != c.proven {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// TestOfflineVerdictNow: nothing is consistent that nothing is trusted of, nor
// what the auditor opens an incident of meanwhile.
func TestOfflineVerdictNow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Create: true, Dir: filepath.Join(dir, "state"), Guard: filepath.Join(dir, "guard"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := evidence.Name{Server: "p", Database: "shop"}
	state := proof.State{TxID: 3, Alh: proof.Hash{1}}
	now := time.Unix(1_790_000_000, 0)
	trust := evidence.Trust{Name: name, Baseline: evidence.Baseline{State: state, Origin: evidence.OriginFirstContact, At: now}, Proven: proof.SignedState{DB: "shop", State: state}, ProvenAt: now}
	if err := s.Apply(t.Context(), evidence.Change{Trust: &trust}); err != nil {
		t.Fatal(err)
	}
	o := &offline{checkup: &checkup{s: s, live: true}, env: &Env{Stderr: &bytes.Buffer{}}}
	if err := o.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer o.end()
	verdict := func(name evidence.Name, want evidence.Verdict) {
		t.Helper()
		v, err := o.verdict(t.Context(), name, nil)
		if err != nil || v.Verdict != want {
			t.Errorf("%s: %v, %+v", name, err, v)
		}
	}
	verdict(name, evidence.Consistent)
	verdict(evidence.Name{Server: "p", Database: "ghost"}, evidence.Undetermined)
	inc := evidence.Incident{ID: "20261123-aaaa", Name: name, Kind: evidence.Fork, Status: evidence.Open, OpenedAt: now, EvidenceError: "none"}
	if err := s.Apply(t.Context(), evidence.Change{Incidents: []evidence.Incident{inc}}); err != nil {
		t.Fatal(err)
	}
	verdict(name, evidence.Tampered)
}

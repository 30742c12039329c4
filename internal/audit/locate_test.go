package audit_test

import (
	"fmt"
	"log/slog"
	"math/bits"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/mirror"
	"immuaudit/internal/wire/schema"
)

// mirrored gives the rig a mirror in its state directory.
func (r *rig) mirrored() *mirror.Mirror {
	r.t.Helper()
	m, err := mirror.Open(filepath.Join(r.dir, "mirror"), slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.opts.Mirror = mirrors(m)
	return m
}

// mirrors gives the engine the mirror of each ledger.
func mirrors(m *mirror.Mirror) func(evidence.Name, bool) (audit.Mirror, error) {
	return func(name evidence.Name, anew bool) (audit.Mirror, error) {
		if anew {
			if err := m.SetAside(name); err != nil {
				return nil, err
			}
		}
		l, err := m.Ledger(name)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
}

// holds checks the mirror against the ledger's own history.
func (r *rig) holds(m *mirror.Mirror, want uint64) {
	r.t.Helper()
	l, err := m.Ledger(evidence.Name{Server: "srv", Database: defaultDB})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := l.Check(r.t.Context()); err != nil {
		r.t.Error(err)
	}
	if l.Size() != want {
		r.t.Fatalf("%d transactions are mirrored, want %d", l.Size(), want)
	}
	history := r.db(defaultDB).Snapshot()
	for tx := uint64(1); tx <= want; tx++ {
		stored, err := history.Tx(tx)
		if err != nil {
			r.t.Fatal(err)
		}
		if ok, err := l.Holds(tx, stored.Header.Alh()); err != nil || !ok {
			r.t.Fatalf("transaction %d is mirrored otherwise (%v)", tx, err)
		}
	}
}

func (r *rig) rewrite(from uint64) {
	r.t.Helper()
	r.tamper(func(h *ledger.History) {
		h.SetValue(from, 0, []byte("\x00forged"))
		h.Rehash(from)
	})
}

func (r *rig) tamper(f func(h *ledger.History)) {
	r.t.Helper()
	if err := r.db(defaultDB).Tamper(f); err != nil {
		r.t.Fatal(err)
	}
}

// located expects an incident that names the place.
func (r *rig) located(kind evidence.Kind, lastGood, firstBad uint64) evidence.Incident {
	r.t.Helper()
	rep := r.tampered(kind)
	inc := r.incidents()[0]
	if rep.Divergence == nil || *rep.Divergence != *inc.Divergence {
		r.t.Fatalf("the report says %+v, the incident %+v", rep.Divergence, inc.Divergence)
	}
	if d := *inc.Divergence; d.LastGoodTx != lastGood || d.FirstBadTx != firstBad {
		r.t.Fatalf("%+v, want last good %d and first bad %d", d, lastGood, firstBad)
	}
	return inc
}

// probes reads the evidence of the only incident.
func (r *rig) evidence() *evidence.File {
	r.t.Helper()
	text, err := os.ReadFile(r.incidents()[0].Evidence)
	if err != nil {
		r.t.Fatal(err)
	}
	file, err := evidence.Parse(text)
	if err != nil {
		r.t.Fatal(err)
	}
	return file
}

// witnessed gives the rig evidence files.
func (r *rig) witnessed() *evidence.Key {
	r.t.Helper()
	key, err := evidence.LoadOrCreateKey(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.opts.Record = func(m evidence.Material) (string, error) {
		return evidence.Record(filepath.Join(r.dir, "evidence"), m, key)
	}
	return key
}

// A rewritten history is located to the transaction, in O(log n) questions.
func TestLocateFork(t *testing.T) {
	t.Parallel()
	const n = 600
	for _, tt := range []struct {
		from uint64
		more int // transactions that follow the rewriting; negative: fewer than before
	}{{1, 0}, {2, 0}, {57, 3}, {256, 0}, {257, 40}, {n, 0}, {n - 1, 1}, {300, -100}, {300, -300}, {1, -(n - 1)}} {
		t.Run(fmt.Sprintf("%d/%+d", tt.from, tt.more), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			r.mirrored()
			r.witnessed()
			r.write(n)
			r.settle()
			r.rewrite(tt.from)
			if tt.more < 0 {
				r.tamper(func(h *ledger.History) { h.Truncate(h.Len() - uint64(-tt.more)) })
			} else {
				r.write(tt.more)
			}
			r.located(evidence.Fork, tt.from-1, tt.from)
			file := r.evidence()
			if most := 2*bits.Len(n) + 8; len(file.Probes) == 0 || len(file.Probes) > most {
				t.Errorf("%d probes, at most %d are expected", len(file.Probes), most)
			}
			if file.Divergence == nil || file.Divergence.FirstBadTx != tt.from || len(file.Checks) == 0 {
				t.Errorf("the evidence says %+v after checks %+v", file.Divergence, file.Checks)
			}
		})
	}
}

func TestLocateRollback(t *testing.T) {
	t.Parallel()
	for _, to := range []uint64{1, 2, 128, 299} {
		t.Run(fmt.Sprint(to), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			r.mirrored()
			r.write(300)
			r.settle()
			r.tamper(func(h *ledger.History) { h.Truncate(to) })
			r.located(evidence.Rollback, to, to+1)
		})
	}
	t.Run("emptied", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ledger.Config{HeaderVersion: 1})
		r.write(300)
		r.settle()
		r.tamper(func(h *ledger.History) { h.Truncate(0) })
		r.located(evidence.Emptied, 0, 1)
	})
}

// Without a mirror only a range can be named, between remembered states.
func TestLocateRange(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.WalkLimit, r.opts.WalkRate = 0, 0 // states are remembered, nothing is walked
	r.write(100)
	r.settle()
	for range 9 {
		r.write(100)
		r.expect(evidence.Consistent)
	}
	r.rewrite(450)
	r.located(evidence.Fork, 400, 500)
}

func TestLocateTree(t *testing.T) {
	t.Parallel()
	const n = 700
	for name, tt := range map[string]struct {
		swap     func(n uint64) []uint64
		mirrored bool
	}{
		"newest":            {func(n uint64) []uint64 { return []uint64{n} }, true},
		"newest, no mirror": {func(n uint64) []uint64 { return []uint64{n} }, false},
		"old":               {func(uint64) []uint64 { return []uint64{300} }, true},
		"first":             {func(uint64) []uint64 { return []uint64{1} }, true},
		"several":           {func(n uint64) []uint64 { return []uint64{n - 5, 257, 512, 300} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			r.witnessed()
			if tt.mirrored {
				r.mirrored()
			}
			r.write(n)
			r.settle()
			first := uint64(n)
			r.tamper(func(h *ledger.History) {
				for _, tx := range tt.swap(n) {
					h.SetLeaf(tx, [32]byte{1})
					first = min(first, tx)
				}
			})
			r.write(3)
			r.located(evidence.Tree, first-1, first)
		})
	}
}

// What comes after the trusted state is walked again to find the place.
func TestLocateAfter(t *testing.T) {
	t.Parallel()
	t.Run("header", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ledger.Config{HeaderVersion: 1})
		r.mirrored()
		r.write(50)
		r.settle()
		r.write(20)
		r.tamper(func(h *ledger.History) { h.Header(60).Ts++ })
		r.located(evidence.Header, 60, 61) // 61 does not continue what 60 has become
	})
	t.Run("proof alone", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ledger.Config{HeaderVersion: 1})
		r.opts.WalkLimit = 0
		r.mirrored()
		r.write(50)
		r.settle()
		r.write(20)
		r.hostile.set(func(method string, _, resp any) (any, error) {
			if m, ok := resp.(*schema.VerifiableTx); ok && len(m.GetDualProof().GetConsistencyProof()) > 0 {
				m.DualProof.ConsistencyProof[0][3] ^= 1
			}
			return resp, nil
		})
		r.located(evidence.Proof, 70, 0)
	})
	t.Run("signature", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
		r.mirrored()
		r.write(50)
		r.settle()
		r.write(5)
		r.hostile.set(func(method string, _, resp any) (any, error) {
			if s, ok := resp.(*schema.ImmutableState); ok {
				s.Signature = nil
			}
			return resp, nil
		})
		r.located(evidence.SignatureMissing, 55, 0)
	})
}

// A server that answers the search one way and then the other says so itself.
func TestLocateLies(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.mirrored()
	r.witnessed()
	r.write(300)
	r.settle()
	honest := r.db(defaultDB).Snapshot()
	r.rewrite(100)
	shown := map[uint64]int{}
	r.hostile.set(func(method string, req, resp any) (any, error) {
		scan, ok := req.(*schema.TxScanRequest)
		if !ok || scan.GetLimit() != 1 {
			return resp, nil
		}
		tx := scan.GetInitialTx()
		if shown[tx]++; shown[tx] > 1 && tx < 300 { // the second time as it was
			stored, err := honest.Tx(tx)
			if err != nil {
				return nil, err
			}
			list := resp.(*schema.TxList)
			list.Txs[0].Header.EH, list.Txs[0].Header.PrevAlh = stored.Header.EH[:], stored.Header.PrevAlh[:]
			list.Txs[0].Header.BlRoot = stored.Header.BlRoot[:]
		}
		return resp, nil
	})
	r.tampered(evidence.Fork)
	found := false
	for _, f := range r.incidents()[0].Findings {
		found = found || f.Check == "search"
	}
	if !found {
		t.Errorf("the server contradicted itself, and no finding says so: %+v", r.incidents()[0].Findings)
	}
}

// The alarm does not depend on the search: a server that refuses it is tampered
// with all the same.
func TestLocateRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.mirrored()
	r.write(300)
	r.settle()
	r.rewrite(100)
	r.hostile.set(func(method string, _, resp any) (any, error) {
		if method == "TxScan" {
			return nil, status.Error(codes.Unknown, "no")
		}
		return resp, nil
	})
	r.located(evidence.Fork, 0, 300) // the state alone says that much
}

// Where the server signs, an older signed state shows the rewriting even if the
// newest trusted one is out of its reach.
func TestKeptStateProves(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
	r.mirrored()
	key := r.witnessed()
	r.write(80)
	r.settle()
	for range 4 {
		r.write(5)
		r.expect(evidence.Consistent)
	}
	r.rewrite(70)
	r.tamper(func(h *ledger.History) { h.Truncate(92) })
	r.write(1) // 93, behind the trusted 100
	r.located(evidence.Fork, 69, 70)
	file := r.evidence()
	if file.Proof == nil {
		t.Fatalf("no contradiction is proven from states %+v", file.States)
	}
	text, err := os.ReadFile(r.incidents()[0].Evidence)
	if err != nil {
		t.Fatal(err)
	}
	out, err := evidence.Recheck(text, evidence.RecheckOptions{ServerKey: &r.key.PublicKey, AuditorKey: key.VerifierKey()})
	if err != nil || !out.Proven {
		t.Errorf("%+v, %v", out, err)
	}
}

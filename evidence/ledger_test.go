package evidence_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// TestFromAServer makes evidence of what a server really answers over the
// wire, attack by attack: what an auditor asks for anyway suffices for proof
// wherever the server signed two histories.
func TestFromAServer(t *testing.T) {
	t.Parallel()
	write := func(db *ledger.Database, content string, n int) error {
		var errs []error
		for i := range n {
			_, err := db.Set(fmt.Appendf(nil, "k%d", i), []byte(content))
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	lagging := func(_ string, id uint64) uint64 { return id - min(id, 1+id%5) }
	for name, test := range map[string]struct {
		version int
		lag     func(string, uint64) uint64
		attack  func(db *ledger.Database, old *ledger.Snapshot) error
		tx      uint64 // with two hashes; 0: nothing is proven
	}{
		"rollback":        {1, nil, func(db *ledger.Database, old *ledger.Snapshot) error { return db.Restore(old) }, 0},
		"growth":          {1, nil, func(db *ledger.Database, _ *ledger.Snapshot) error { return write(db, "more", 3) }, 0},
		"growth, lagging": {0, lagging, func(db *ledger.Database, _ *ledger.Snapshot) error { return write(db, "more", 9) }, 0},
		"fork, as long": {1, nil, func(db *ledger.Database, old *ledger.Snapshot) error {
			return errors.Join(db.Restore(old), write(db, "y", 4))
		}, 12},
		"fork, longer": {1, nil, func(db *ledger.Database, old *ledger.Snapshot) error {
			return errors.Join(db.Restore(old), write(db, "y", 9))
		}, 12},
		"fork, old headers": {0, nil, func(db *ledger.Database, old *ledger.Snapshot) error {
			return errors.Join(db.Restore(old), write(db, "y", 9))
		}, 12},
		"fork, lagging": {1, lagging, func(db *ledger.Database, old *ledger.Snapshot) error {
			return errors.Join(db.Restore(old), write(db, "y", 9))
		}, 12},
		"header changed": {1, nil, func(db *ledger.Database, _ *ledger.Snapshot) error {
			return errors.Join(db.Tamper(func(h *ledger.History) { h.SetValue(9, 0, []byte("\x00z")); h.Rehash(9) }), write(db, "more", 3))
		}, 12},
		"leaf swapped (§4.2 8)": {1, nil, func(db *ledger.Database, _ *ledger.Snapshot) error {
			return errors.Join(db.Tamper(func(h *ledger.History) { h.SetLeaf(12, [32]byte{1}) }), write(db, "more", 1))
		}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := newServerKey(t, 7)
			l, err := ledger.Open(ledger.Config{HeaderVersion: test.version, BlTxID: test.lag, SigningKey: key.private})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			if err := l.Start("127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
			client, err := wire.New(wire.Options{Address: l.Addr(), Username: "immudb", Password: "immudb"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Close() })
			db, err := l.Database(ledger.DefaultDB)
			if err != nil {
				t.Fatal(err)
			}
			must := func(err error) {
				if err != nil {
					t.Fatal(err)
				}
			}
			must(write(db, "x", 8))
			old := db.Snapshot()
			must(write(db, "x", 4))
			m := incident(evidence.Fork)
			m.ServerKey = key.point
			m.Trusted, err = client.CurrentState(t.Context(), ledger.DefaultDB)
			must(err)
			must(test.attack(db, old))
			m.Observed, err = client.CurrentState(t.Context(), ledger.DefaultDB)
			must(err)
			if m.Observed.TxID >= m.Trusted.TxID {
				p, err := client.DualProof(t.Context(), ledger.DefaultDB, m.Trusted.TxID, m.Observed.TxID)
				must(err)
				m.Proofs = []*proof.DualProof{p}
			}
			path, err := evidence.Record(t.TempDir(), m, newAuditor(t, 9))
			must(err)
			b, err := os.ReadFile(path)
			must(err)
			o, err := evidence.Recheck(b, evidence.RecheckOptions{ServerKey: &key.private.PublicKey})
			must(err)
			switch c := o.File.Proof; {
			case test.tx == 0 && (c != nil || o.ExitCode() != 1):
				t.Errorf("proven: %q", o.Proof)
			case test.tx > 0 && (c == nil || c.Tx != test.tx || o.ExitCode() != 3):
				t.Errorf("not proven: %+v, %q", c, o.Proof)
			}
		})
	}
}

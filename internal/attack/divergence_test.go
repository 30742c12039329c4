package attack_test

import (
	"reflect"
	"testing"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
)

// TestDivergence compares what is stored before and after each attack, and its
// chain with its tree: the first transaction that differs must be the one that
// the scenario names.
func TestDivergence(t *testing.T) {
	t.Parallel()
	for _, s := range attack.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			st := newStage(t, s)
			before := snapshot(t, st)
			if err := s.Strike(st); err != nil {
				t.Fatal(err)
			}
			n, _ := before.State()
			lastGood, firstBad := s.Expect.Divergence(n)
			switch {
			case firstBad != 0 && (firstBad != lastGood+1 || s.Expect.Verdict != "tampered"):
				t.Errorf("%d, %d, and %s", lastGood, firstBad, s.Expect)
			case s.Expect.Kind == "vanished", s.Name == "retention":
				// There is nothing to compare with, or it is as it should be.
			case s.Name == "value-served", s.Name == "state-hash":
				// What is shown differs from what is stored.
			default:
				if got := parts(before, snapshot(t, st)); got != firstBad {
					t.Errorf("parts at %d, the scenario says %d", got, firstBad)
				}
			}
		})
	}
}

func snapshot(t *testing.T, st *attack.Stage) *ledger.Snapshot {
	t.Helper()
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		return nil // the attack took it away
	}
	return db.Snapshot()
}

// parts is the first transaction that is not what it was, or not what the tree
// or its own hashes say; 0 if there is none.
func parts(before, after *ledger.Snapshot) uint64 {
	n, _ := before.State()
	m, _ := after.State()
	for id := uint64(1); id <= max(n, m); id++ {
		now, err := after.Tx(id)
		if err != nil {
			return id // it is missing
		}
		if was, err := before.Tx(id); err == nil && !reflect.DeepEqual(was, now) {
			return id
		}
		var leaf [32]byte
		after.Tamper(func(h *ledger.History) { leaf = h.Leaf(id) })
		if leaf != now.Alh {
			return id
		}
		for _, e := range now.Entries {
			if e.Gone || ledger.HashValue(e.Value) != e.HValue {
				return id
			}
		}
	}
	return 0
}

package cli_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Killed at any moment while the ledger grows, the auditor goes on where it
// was: the state opens, what was trusted is never lost, and nothing is trusted
// that the ledger did not say. (docs/threat-model.md: kill -9 at any instruction)
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const kills = 12
	names := []string{"defaultdb", "second", "third"}
	s, dir := newServer(t), t.TempDir()
	for _, name := range names[1:] {
		if err := s.CreateDatabase(name); err != nil {
			t.Fatal(err)
		}
	}
	said := newWitness()
	stop := make(chan struct{})
	var writing sync.WaitGroup
	defer writing.Wait()
	defer close(stop)
	for _, name := range names {
		writing.Go(func() {
			ticker := time.NewTicker(3 * time.Millisecond)
			defer ticker.Stop()
			for {
				select {
				case <-stop:
					return
				case <-ticker.C:
					if err := said.write(s, name); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	before := map[string]trusted{}
	for kill := range kills {
		p, err := startProcess(dir, "auditor", isolated(dir), "immuclient", "audit-mode", "-a", s.Addr(), "--audit-server", "tested", "--audit-interval", "10ms")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.kill)
		// Not only while it works well: some die in their very first steps.
		moment := time.NewTimer(time.Duration(random.IntN(250)) * time.Millisecond)
		<-moment.C
		p.kill()
		now := map[string]trusted{}
		if _, err := os.Stat(filepath.Join(dir, "state", "state.db")); err == nil {
			now = remembered(t, dir)
		}
		for name, then := range before {
			if got, ok := now[name]; !ok || got.Trusted.Tx < then.Trusted.Tx || got.Baseline != then.Baseline {
				t.Fatalf("kill %d: of %s %+v was remembered, now %+v", kill, name, then, got)
			}
		}
		for name, got := range now {
			if !said.did(name, got.Trusted.Tx, got.Trusted.Alh) || !said.did(name, got.Baseline.Tx, got.Baseline.Alh) {
				t.Fatalf("kill %d: the ledger never said what is trusted of %s: %+v", kill, name, got)
			}
			if got.Open != 0 || got.Assurance.Walked > got.Trusted.Tx {
				t.Fatalf("kill %d: %s: %+v", kill, name, got)
			}
		}
		before = now
	}
	// It goes on, past everything that was remembered.
	a := audit(t, dir, s.Addr(), "--audit-interval", "10ms")
	for _, name := range names {
		eventually(t, name+" goes on", func() (bool, error) {
			got := remembered(t, dir)[name]
			return got.Trusted.Tx > before[name].Trusted.Tx && got.Origin == "first-contact", nil
		})
	}
	a.kill()
	if out := run(t, dir, 0, "incident", "list"); !strings.Contains(out, "no incident") {
		t.Error(out)
	}
}

// witness remembers every state a ledger was ever in.
type witness struct {
	mu     sync.Mutex
	states map[string]bool
}

func newWitness() *witness { return &witness{states: map[string]bool{}} }

func (w *witness) write(s *testServer, database string) error {
	db, err := s.Database(database)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(database, db.State)
	if _, err := db.Set([]byte("k"), fmt.Append(nil, len(w.states))); err != nil {
		return err
	}
	w.add(database, db.State)
	return nil
}

func (w *witness) add(database string, state func() (uint64, [32]byte)) {
	tx, alh := state()
	w.states[fmt.Sprintf("%s %d %x", database, tx, alh)] = true
}

func (w *witness) did(database string, tx uint64, alh string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[fmt.Sprintf("%s %d %s", database, tx, alh)]
}

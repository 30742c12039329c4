package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// childEnv makes the test binary behave as another process; see crash_test.go.
const childEnv = "IMMUAUDIT_STORE_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		os.Exit(child(mode, os.Args[len(os.Args)-1]))
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// guarded are the options of an auditor with a guard beside its directory.
func guarded(dir string) Options {
	return Options{Dir: dir, Create: true, Guard: filepath.Clean(dir) + ".guard", Logger: quiet}
}

// open opens a state that is checked and closed at the end of the test.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), guarded(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, s) })
	return s
}

// finish checks what must hold of every state at every time, then closes it.
func finish(t testing.TB, s *Store) {
	t.Helper()
	if s.isClosed() {
		return
	}
	if err := invariants(s); err != nil {
		t.Errorf("the state is not sound: %v", err)
	}
	now, err := s.readStanding(context.Background())
	if err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if s.witness != nil {
		// Another store may have gone on, and may still owe a guard for that.
		if g, err := s.place.read(); err != nil || g == nil || g.sequence < s.commit.last || g.sequence == now.commits && g.hash != now.hash() {
			t.Errorf("the guard is not that of commit %d: %+v, %v", s.commit.last, g, err)
		}
	}
	for _, name := range []string{fileState, fileState + "-wal", fileState + "-shm", fileID, fileLock} {
		info, err := os.Lstat(s.dir.file(name))
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

// invariants is what a state promises, whatever happened to it.
func invariants(s *Store) error {
	ctx := context.Background()
	if err := s.Verify(ctx); err != nil {
		return err
	}
	all, err := s.Load(ctx)
	if err != nil {
		return err
	}
	known := map[evidence.Name]evidence.Trust{}
	for _, t := range all.Trust {
		known[t.Name] = t
		switch {
		case t.Version == 0:
			return fmt.Errorf("%s: version 0 is stored", t.Name)
		case t.Verified > t.Walked || t.Walked > t.Proven.TxID || t.Proven.TxID < t.Baseline.State.TxID:
			return fmt.Errorf("%s: baseline %d, verified %d, walked %d, proven %d", t.Name, t.Baseline.State.TxID, t.Verified, t.Walked, t.Proven.TxID)
		case t.Baseline.Origin == "" && t.Proven.State != (proof.State{}):
			return fmt.Errorf("%s: trust without an origin", t.Name)
		}
	}
	for name, marks := range all.Marks {
		t, ok := known[name]
		if !ok {
			return fmt.Errorf("%s: marks of an unknown ledger", name)
		}
		last := uint64(0)
		for i, m := range marks {
			if i > 0 && m.TxID <= last || m.TxID > t.Proven.TxID {
				return fmt.Errorf("%s: mark %d after %d, proven %d", name, m.TxID, last, t.Proven.TxID)
			}
			last = m.TxID
		}
	}
	incidents, err := s.Incidents(ctx, true)
	if err != nil {
		return err
	}
	open := 0
	for _, i := range incidents {
		if i.Status == evidence.Open {
			open++
		}
		if i.Version == 0 || i.Kind == "" {
			return fmt.Errorf("incident %s: version %d, kind %q", i.ID, i.Version, i.Kind)
		}
	}
	if open != len(all.Open) {
		return fmt.Errorf("%d open incidents are loaded, %d are stored", len(all.Open), open)
	}
	// state.id never leads: the state could not be opened any more.
	mark, err := s.dir.readWatermark()
	if err != nil || mark == nil {
		return fmt.Errorf("state.id: %v (%w)", mark, err)
	}
	state, err := readState(ctx, s.reader, s.path)
	if err != nil {
		return err
	}
	return s.dir.judgeWatermark(mark, state)
}

func apply(t testing.TB, s *Store, c evidence.Change) {
	t.Helper()
	if err := s.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// refused demands an error of a kind whose text names all the given words.
func refused(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want %v", err, kind)
	}
	for _, word := range words {
		if !bytes.Contains([]byte(err.Error()), []byte(word)) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

func stateAt(tx uint64) proof.State {
	return proof.State{TxID: tx, Alh: proof.Hash(sha256.Sum256(fmt.Append(nil, "alh ", tx)))}
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)

func ledger(server, database string) evidence.Name {
	return evidence.Name{Server: server, Database: database}
}

// trustAt is a full record of trust at a transaction, from a baseline at 1.
func trustAt(name evidence.Name, version, tx uint64) evidence.Trust {
	return evidence.Trust{
		Name: name, Version: version,
		Baseline: evidence.Baseline{State: stateAt(1), Origin: evidence.OriginFirstContact, At: noon, Note: "met"},
		Proven:   proof.SignedState{DB: name.Database, State: stateAt(tx), PublicKey: bytes.Repeat([]byte{4}, 65), Signature: []byte{0x30, 1, 2}},
		ProvenAt: noon.Add(time.Duration(tx) * time.Second),
		Walk:     bytes.Repeat([]byte{byte(tx)}, 100), Walked: tx / 2, Verified: tx / 4,
		Key: bytes.Repeat([]byte{4}, 65), UUID: "c0ffee", LastAgreed: noon, LastAttempt: noon.Add(time.Hour),
	}
}

func incidentOf(name evidence.Name, id string, version uint64) evidence.Incident {
	return evidence.Incident{
		ID: id, Version: version, Name: name, UUID: "c0ffee", Kind: evidence.Fork, Status: evidence.Open, OpenedAt: noon,
		Findings: []evidence.Finding{{Kind: evidence.Fork, Check: "alh", Tx: 7, Want: "aa", Got: "bb", Detail: "differs"}},
		Trusted:  proof.SignedState{DB: name.Database, State: stateAt(9), PublicKey: []byte{4}, Signature: []byte{5}},
		Observed: proof.SignedState{DB: name.Database, State: stateAt(8)},
		LastSeen: noon.Add(time.Minute), Seen: 3, Evidence: "evidence/x.json",
	}
}

func eventOf(name evidence.Name, typ evidence.EventType, id string) evidence.Event {
	previous := proof.SignedState{DB: name.Database, State: stateAt(9)}
	return evidence.Event{
		ID: id, Type: typ, At: noon, Name: name, UUID: "c0ffee", Verdict: evidence.Tampered, Kind: evidence.Fork,
		Incident: "20261123-abcd", Message: "said", Previous: &previous,
	}
}

// seeded gives each test its own reproducible numbers.
func seeded(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 2))
}

// copyDir copies a state directory that no process has open.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

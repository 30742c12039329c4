package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/attack"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/mirror"
	"immuaudit/internal/store"
	"immuaudit/internal/wire"
)

// TestKit runs every scenario of the attack kit against the engine, by walks
// and by dual proofs: the verdict, kind and check must be the ones that the kit
// says are right, trust must not move over an attack, and the incident sticks.
func TestKit(t *testing.T) {
	t.Parallel()
	for _, s := range attack.All() {
		for _, limit := range []uint64{10_000, 0} {
			for version := range 2 {
				if limit > 0 == (version == 0) && s.Row != "A15" {
					continue // each way and each version once; CVE-2022-36111 all ways
				}
				t.Run(fmt.Sprintf("%s/%d/v%d", s.Name, limit, version), func(t *testing.T) {
					t.Parallel()
					strike(t, s, limit, version)
				})
			}
		}
	}
}

// right is what an auditor that looks in this way has to say.
func right(e attack.Expectation, limit uint64) (verdict, kind, reason, check string) {
	switch {
	case e.Export, e.Deep && limit == 0, e.DualOnly && limit > 0, e.WalkOnly && limit == 0, e.Alert && e.Verdict == "consistent":
		return "consistent", "", "", ""
	case limit == 0 && e.DualKind != "":
		return e.Verdict, e.DualKind, e.Reason, e.DualCheck
	}
	return e.Verdict, e.Kind, e.Reason, e.Check
}

// recheck reads the evidence as somebody would who has nothing but the file and
// the public keys.
func recheck(t *testing.T, r evidence.Report, key *evidence.Key, s attack.Scenario) {
	t.Helper()
	text, err := os.ReadFile(r.Evidence)
	if err != nil {
		t.Fatalf("no evidence: %v", err)
	}
	got, err := evidence.Recheck(text, evidence.RecheckOptions{AuditorKey: key.VerifierKey()})
	if err != nil {
		t.Fatalf("re-checking the evidence: %v", err)
	}
	if got.ExitCode() != 3 {
		t.Errorf("the evidence convinces nobody: %+v", got)
	}
	file, err := evidence.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	// Where a server signs two histories, it convicts itself.
	if signed := s.Signed && r.Kind == evidence.Fork; signed && file.Proof == nil {
		t.Errorf("the server signed both histories, and the evidence does not prove it: %+v", file.Findings)
	}
}

func strike(t *testing.T, s attack.Scenario, limit uint64, version int) {
	layer := attack.NewLayer()
	config := ledger.Config{HeaderVersion: version}
	if s.Signed {
		config.SigningKey = newKey(t)
	}
	config = layer.Config(s.Config(config))
	l, err := ledger.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	stage := attack.NewStage(l, layer, defaultDB)
	stage.Key = config.SigningKey
	if err := s.Prepare(stage); err != nil {
		t.Fatal(err)
	}
	memory, err := store.Open(t.Context(), store.Options{Dir: t.TempDir() + "/state", Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := memory.Verify(context.Background()); err != nil {
			t.Errorf("the state's invariants: %v", err)
		}
		memory.Close()
	})
	client, err := wire.New(wire.Options{Address: l.Addr(), Username: "immudb", Password: "immudb", CallTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	key, err := evidence.LoadOrCreateKey(memory.Dir())
	if err != nil {
		t.Fatal(err)
	}
	o := audit.Options{
		Record: func(m evidence.Material) (string, error) {
			return evidence.Record(filepath.Join(memory.Dir(), "evidence"), m, key)
		},
		Server: client, Memory: memory, Name: "srv", List: true, Matches: func(string) bool { return true },
		Interval: time.Second, WalkLimit: limit, StaleAfter: time.Hour,
	}
	if limit > 0 {
		o.WalkRate = 1_000_000
		o.Deep.Source = client
		m, err := mirror.Open(filepath.Join(memory.Dir(), "mirror"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		o.Mirror = mirrors(m)
	}
	if s.Pinned {
		o.Key, o.KeyPoint = &config.SigningKey.PublicKey, point(t, config.SigningKey)
	}
	round := func() evidence.Report {
		e, err := audit.New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var report evidence.Report
		for _, r := range e.Once(t.Context()) {
			if r.Database == defaultDB {
				report = r
			}
		}
		if s.Expect.Deep && limit > 0 && report.Verdict == evidence.Consistent {
			if _, report, err = e.Verify(t.Context(), defaultDB, audit.Verification{}); err != nil {
				t.Fatal(err)
			}
		}
		return report
	}
	trusted := func() evidence.Trust {
		trust, err := memory.Trust(t.Context(), evidence.Name{Server: "srv", Database: defaultDB})
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	if r := round(); r.Reason != evidence.FirstContact {
		t.Fatalf("first contact: %+v", r)
	}
	if r := round(); r.Verdict != evidence.Consistent {
		t.Fatalf("before the attack: %+v", r)
	}
	verdict, kind, reason, check := right(s.Expect, limit)
	var r evidence.Report
	var before evidence.Trust
	origin := trusted().Proven.TxID
	for _, step := range s.Steps {
		before = trusted()
		if err := step.Strike(stage); err != nil {
			t.Fatal(err)
		}
		if r = round(); r.Verdict != evidence.Consistent {
			break
		}
	}
	if r.Verdict.String() != verdict || string(r.Kind) != kind || reason != "" && string(r.Reason) != reason {
		t.Fatalf("%s %s%s, the right verdict is %s %s%s: %+v", r.Verdict, r.Kind, r.Reason, verdict, kind, reason, r)
	}
	if check != "" && !hasCheck(r.Findings, check) {
		t.Errorf("no finding of check %q: %+v", check, r.Findings)
	}
	if r.Verdict == evidence.Consistent {
		return
	}
	if after := trusted(); after.Proven.State != before.Proven.State && !r.Kind.AboutData() || after.Walked < before.Walked {
		t.Errorf("trust moved from %+v to %+v", before.Proven.State, after.Proven.State)
	}
	open, err := memory.Incidents(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict == evidence.Undetermined {
		if len(open) != 0 {
			t.Errorf("an incident without a verdict: %+v", open)
		}
		return
	}
	recheck(t, r, key, s)
	lastGood, firstBad := s.Expect.Divergence(origin)
	if d := r.Divergence; limit > 0 && firstBad > 0 && (d == nil || d.LastGoodTx != lastGood || d.FirstBadTx != firstBad) {
		t.Errorf("the place: %+v, want %d and %d", d, lastGood, firstBad)
	}
	layer.Clear()
	if again := round(); again.Verdict != evidence.Tampered || len(open) == 0 {
		t.Errorf("it does not stick: %+v", again)
	}
}

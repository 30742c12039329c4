package audit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
)

func TestFirstContact(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
	r.write(30)
	rep := r.round()
	if rep.Verdict != evidence.Undetermined || rep.Reason != evidence.FirstContact {
		t.Fatalf("%+v", rep)
	}
	trust := r.trust(defaultDB)
	if trust.Baseline.Origin != evidence.OriginFirstContact || trust.Baseline.State.TxID != 30 || trust.Walked != 30 {
		t.Errorf("baseline %+v, walked %d", trust.Baseline, trust.Walked)
	}
	if string(trust.Key) != string(point(t, r.key)) {
		t.Errorf("the signing key was not remembered")
	}
	if len(r.events(evidence.EventFirstContact)) != 1 {
		t.Errorf("the first contact was not reported")
	}
	rep = r.expect(evidence.Consistent)
	if rep.Trusted.Tx != 30 || rep.Assurance.Walked != 30 {
		t.Errorf("%+v", rep)
	}
}

func TestFirstContactWithEmptyDatabase(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{10_000, 0} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
			r.opts.WalkLimit = limit
			r.settle()
			for _, n := range []int{1, 1, 2, 7} {
				r.write(n)
				r.expect(evidence.Consistent)
			}
			if got := r.trust(defaultDB).Proven.TxID; got != 11 {
				t.Errorf("proven %d, want 11", got)
			}
		})
	}
}

// A first contact whose own header contradicts its state is tampered, and
// nothing of it is trusted.
func TestFirstContactThatContradictsItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(3)
	r.set(func(_ string, _, resp any) (any, error) {
		if s, ok := resp.(*schema.ImmutableState); ok {
			s.TxHash[0] ^= 1
		}
		return resp, nil
	})
	rep := r.tampered(evidence.Header)
	if rep.Trusted != nil {
		t.Errorf("trusted %+v", rep.Trusted)
	}
	r.set(nil)
	r.tampered(evidence.Header) // sticky, and still no trust
	if _, err := r.store.Trust(t.Context(), evidence.Name{Server: "srv", Database: defaultDB}); err == nil {
		t.Error("trust was recorded while an incident was open")
	}
	inc := r.incidents()[0]
	d := audit.Decider{Memory: r.store}
	r.must(d.Accept(t.Context(), inc, nil, audit.KeyChoice{}, "the server was repaired"))
	r.settle()
}

// Everything of A27 and A33 is undetermined at most, and recovers by itself.
func TestHonestTrouble(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.must(r.ledger.CreateDatabase("other"))
	r.writeTo("other", 3, "v")
	r.write(5)
	r.settle()

	r.must(r.ledger.Restart()) // every token dies
	r.write(1)
	r.expect(evidence.Consistent)

	r.must(r.ledger.UnloadDatabase(defaultDB))
	for range 4 {
		if rep := r.round(); rep.Verdict != evidence.Undetermined || rep.Reason != evidence.NotLoaded {
			t.Fatalf("unloaded: %+v", rep)
		}
	}
	r.must(r.ledger.LoadDatabase(defaultDB))
	r.expect(evidence.Consistent)

	r.set(func(string, any, any) (any, error) {
		return nil, status.Error(codes.Unknown, "max concurrency limit exceeded")
	})
	if rep := r.round(); rep.Verdict != evidence.Undetermined || rep.Reason != evidence.Overloaded {
		t.Fatalf("overloaded: %+v", rep)
	}
	r.set(nil)

	addr := r.ledger.Addr()
	r.must(r.ledger.Stop())
	if rep := r.round(); rep.Verdict != evidence.Undetermined || rep.Reason != evidence.Unreachable {
		t.Fatalf("down: %+v", rep)
	}
	r.must(r.ledger.Start(addr))
	poll(t, "the server is seen again", func() bool { return r.round().Verdict == evidence.Consistent })

	r.must(r.ledger.SetHeaderVersion(0)) // versions mix within one database
	r.write(3)
	r.expect(evidence.Consistent)
	r.must(r.ledger.DeleteDatabase("other")) // moves indexes, which stale tokens hold
	r.write(1)
	r.expect(evidence.Consistent)
	if all := r.incidents(); len(all) != 1 || all[0].Kind != evidence.Vanished {
		t.Errorf("incidents %+v, want only that other vanished", all)
	}
}

// TestLaggingTrees is A33: trees that lag by any amount, not monotone, and a
// server that refuses the proofs or leaves the advance proof out.
func TestLaggingTrees(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0.5", "1.2.4", "1.11.1"} {
		for _, limit := range []uint64{10_000, 0} {
			for seed := range uint64(4) {
				t.Run(fmt.Sprintf("%s/%d/%d", version, limit, seed), func(t *testing.T) {
					t.Parallel()
					rnd := rand.New(rand.NewPCG(seed, 7))
					r := newRig(t, ledger.Config{Version: version, BlTxID: func(_ string, id uint64) uint64 {
						return id - 1 - min(id-1, rnd.Uint64N(19))
					}})
					r.opts.WalkLimit = limit
					r.write(1 + rnd.IntN(40))
					r.settle()
					for range 12 {
						r.write(1 + rnd.IntN(25))
						if rep := r.round(); rep.Verdict != evidence.Consistent {
							t.Fatalf("seed %d: %+v", seed, rep)
						}
					}
				})
			}
		}
	}
}

// A gap beyond the limit is crossed by a dual proof; the background walk
// closes it afterwards and then the walk is the normal check.
func TestBackgroundWalkCatchesUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.WalkLimit = 20
	r.write(300)
	run := r.start()
	run.await("walked to the first contact", func(rep evidence.Report) bool {
		return rep.Verdict == evidence.Consistent && rep.Assurance.Walked == 300
	})
	r.write(100)
	run.await("walked over the jump", func(rep evidence.Report) bool {
		return rep.Verdict == evidence.Consistent && rep.Assurance.Proven == 400 && rep.Assurance.Walked == 400
	})
	run.stop()
	if marks, err := r.store.Load(t.Context()); err != nil || len(marks.Marks) != 0 {
		t.Errorf("states are still to be met: %v %v", marks.Marks, err)
	}
}

// A31, A32 and A11 in the history before the first contact: only the
// background walk can see them.
func TestBackgroundWalkFindsOldDamage(t *testing.T) {
	t.Parallel()
	damage := map[string]struct {
		do   func(h *ledger.History)
		kind evidence.Kind
	}{
		"A11 header": {func(h *ledger.History) { h.Header(50).Ts++ }, evidence.Header},
		"A31 leaf":   {func(h *ledger.History) { h.SetLeaf(50, [32]byte{1}) }, evidence.Tree},
	}
	for name, d := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			r.opts.WalkLimit = 20
			r.write(100)
			r.must(r.db(defaultDB).Tamper(d.do))
			r.write(200)
			run := r.start()
			rep := run.await("tampered", is(evidence.Tampered))
			if rep.Kind != d.kind {
				t.Fatalf("%+v", rep)
			}
			run.stop()

			// Accepted, trust begins at what was recorded and goes on by a
			// walk from there; the damage is not found again.
			inc := r.incidents()[0]
			trust := r.trust(defaultDB)
			decider := audit.Decider{Memory: r.store}
			r.must(decider.Accept(t.Context(), inc, &trust, audit.KeyChoice{}, "known since the migration"))
			run = r.start()
			r.write(60)
			run.await("walking on from the accepted baseline", func(rep evidence.Report) bool {
				return rep.Verdict == evidence.Consistent && rep.Assurance.Walked == 360
			})
			r.write(3)
			run.await("walking", func(rep evidence.Report) bool {
				return rep.Verdict == evidence.Consistent && rep.Assurance.Walked == 363
			})
			if n := len(r.incidents()); n != 0 {
				t.Errorf("%d incidents", n)
			}
		})
	}
}

func TestIdentityChangeIsToldOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	for _, name := range []string{"a", "b", "c"} {
		r.must(r.ledger.CreateDatabase(name))
	}
	r.write(3)
	r.settle()
	r.must(r.ledger.SetUUID("bbbbbbbbbbbbbbbbbbbb"))
	for range 3 {
		r.expect(evidence.Consistent)
	}
	if n := len(r.events(evidence.EventIdentityChanged)); n != 1 {
		t.Errorf("%d identity events, want 1", n)
	}
	if got := r.trust(defaultDB).UUID; got != "bbbbbbbbbbbbbbbbbbbb" {
		t.Errorf("remembered %q", got)
	}
}

func TestSigningBegins(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(3)
	r.settle()
	key := newKey(t)
	r.must(r.ledger.SetSigningKey(key))
	r.expect(evidence.Consistent)
	if n := len(r.events(evidence.EventSigningBegan)); n != 1 {
		t.Errorf("%d signing events, want 1", n)
	}
	r.must(r.ledger.SetSigningKey(nil))
	r.tampered(evidence.SignatureMissing)
}

// A configured key is authoritative: it beats what was remembered, and an
// unsigned first contact is tampering.
func TestConfiguredKey(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: key})
	r.opts.Key, r.opts.KeyPoint = &key.PublicKey, point(t, key)
	r.write(3)
	r.settle()
	other := newKey(t)
	r.opts.Key, r.opts.KeyPoint = &other.PublicKey, point(t, other)
	r.tampered(evidence.KeyChanged)

	unsigned := newRig(t, ledger.Config{HeaderVersion: 1})
	unsigned.opts.Key, unsigned.opts.KeyPoint = &key.PublicKey, point(t, key)
	unsigned.write(3)
	unsigned.tampered(evidence.SignatureMissing)
}

// DatabaseList refused: the names given are taken as exact, else the login's
// default database is audited.
func TestListRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1, NoAuth: true})
	r.write(3)
	if reports := r.once(); len(reports) != 1 || reports[defaultDB].Reason != evidence.FirstContact {
		t.Fatalf("%+v", reports)
	}
	r.write(3)
	r.expect(evidence.Consistent)
	r.opts.Fallback = []string{defaultDB, "named"}
	reports := r.once()
	if reports[defaultDB].Verdict != evidence.Consistent || reports["named"].Verdict != evidence.Undetermined {
		t.Fatalf("%+v", reports)
	}
}

// A database that was never trusted and does not exist is a mistake in the
// configuration, not tampering.
func TestNeverExisted(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.Exact = []string{"typo"}
	if rep := r.once()["typo"]; rep.Verdict != evidence.Undetermined || rep.Reason != evidence.NotFound {
		t.Fatalf("%+v", rep)
	}
}

// TestPermissionRevoked: not auditable is not tampered, and says why.
func TestPermissionRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.must(r.ledger.CreateUser("auditor", "Secret1!"))
	r.must(r.ledger.Grant("auditor", defaultDB, ledger.Read))
	r.login("auditor", "Secret1!")
	r.write(3)
	r.settle()
	r.must(r.ledger.Revoke("auditor", defaultDB))
	for range 4 {
		if rep := r.round(); rep.Verdict != evidence.Undetermined || rep.Reason != evidence.Unauthorised {
			t.Fatalf("%+v", rep)
		}
	}
	r.must(r.ledger.Grant("auditor", defaultDB, ledger.Read))
	poll(t, "permission is seen again", func() bool { return r.round().Verdict == evidence.Consistent })
}

func (r *rig) login(user, password string) {
	r.t.Helper()
	client, err := wire.New(wire.Options{Address: r.ledger.Addr(), Username: user, Password: password, CallTimeout: 5 * time.Second})
	r.must(err)
	r.t.Cleanup(func() { client.Close() })
	r.opts.Server = client
}

// Ledgers taken out of the configuration are paused and shown, not forgotten.
func TestPaused(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.other()
	r.write(3)
	r.settle()
	r.opts.Matches = func(name string) bool { return name == defaultDB }
	e, err := audit.New(context.Background(), r.opts)
	r.must(err)
	if reports := e.Once(t.Context()); len(reports) != 1 {
		t.Errorf("%+v", reports)
	}
	paused := 0
	for _, l := range e.Status().Ledgers {
		if l.Paused && l.Name.Database == "other" && l.ProvenTx == 10 {
			paused++
		}
	}
	if paused != 1 {
		t.Errorf("%+v", e.Status().Ledgers)
	}
}

// A server that was never reached is told too, once.
func TestNeverReached(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.StaleAfter = 50 * time.Millisecond
	addr := r.ledger.Addr()
	r.must(r.ledger.Stop())
	run := r.start()
	poll(t, "stale", func() bool { return len(r.events(evidence.EventStale)) == 1 })
	if s := run.engine.Status(); s.ServerError == "" {
		t.Error("the status does not say why")
	}
	r.must(r.ledger.Start(addr))
	poll(t, "recovered", func() bool { return len(r.events(evidence.EventRecovered)) == 1 })
	run.await("first contact", func(rep evidence.Report) bool { return rep.Reason == evidence.FirstContact })
}

// A refused login is not a refused listing: prefixes must not become names.
func TestLoginRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.login("immudb", "wrong password")
	r.opts.Fallback = []string{"def"}
	reports := r.once()
	if rep, ok := reports[""]; !ok || len(reports) != 1 || rep.Reason != evidence.Unauthorised {
		t.Errorf("%+v", reports)
	}
}

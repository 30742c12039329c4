package audit_test

import (
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// deed is a row of docs/threat-model.md that concerns a server.
type deed struct {
	name string
	// config of the ledger, before anything; setup before the first contact.
	config ledger.Config
	signed bool
	setup  func(r *rig)
	do     func(r *rig)
	kind   evidence.Kind
	check  string // a check that must be among the findings
	// dualOnly audits with --audit-walk-limit 0.
	dualOnly bool
}

func deeds() []deed {
	return []deed{
		{name: "A1 rollback", do: func(r *rig) {
			db := r.db(defaultDB)
			old := db.Snapshot()
			r.write(5)
			r.expect(evidence.Consistent)
			r.must(db.Restore(old))
		}, kind: evidence.Rollback, check: "growth"},
		{name: "A1 rollback to before the first contact", do: func(r *rig) {
			r.must(r.db(defaultDB).Tamper(func(h *ledger.History) { h.Truncate(3) }))
		}, kind: evidence.Rollback},
		{name: "A2 fork, longer", do: func(r *rig) { r.fork(20) }, kind: evidence.Fork, check: "alh"},
		{name: "A2 fork, same length", do: func(r *rig) { r.fork(5) }, kind: evidence.Fork},
		{name: "A2 fork, shorter", do: func(r *rig) { r.fork(3) }, kind: evidence.Fork, check: "growth"},
		{name: "A2 fork, longer, dual proofs only", dualOnly: true, do: func(r *rig) { r.fork(20) }, kind: evidence.Fork, check: "alh-source"},
		{name: "A3 emptied", do: func(r *rig) { r.must(r.db(defaultDB).Restore(new(ledger.Snapshot))) }, kind: evidence.Emptied},
		{name: "A4 fork and new identity", do: func(r *rig) {
			r.fork(20)
			r.must(r.ledger.SetUUID("cccccccccccccccccccc"))
		}, kind: evidence.Fork},
		{name: "A5 deleted", setup: func(r *rig) { r.other() }, do: func(r *rig) {
			r.must(r.ledger.DeleteDatabase("other"))
		}, kind: evidence.Vanished},
		{name: "A5 renamed away", setup: func(r *rig) { r.other() }, do: func(r *rig) {
			r.must(r.ledger.RenameDatabase("other", "gone"))
		}, kind: evidence.Vanished},
		{name: "A5 deleted, server restarted", setup: func(r *rig) { r.other() }, do: func(r *rig) {
			r.must(r.ledger.DeleteDatabase("other"))
			r.must(r.ledger.Restart())
		}, kind: evidence.Vanished},
		{name: "A6 created anew, longer", setup: func(r *rig) { r.other() }, do: func(r *rig) {
			r.must(r.ledger.DeleteDatabase("other"))
			r.must(r.ledger.Restart())
			r.must(r.ledger.CreateDatabase("other"))
			r.writeTo("other", 20, "another life")
		}, kind: evidence.Fork},
		{name: "A6 created anew, shorter", setup: func(r *rig) { r.other() }, do: func(r *rig) {
			r.must(r.ledger.DeleteDatabase("other"))
			r.must(r.ledger.Restart())
			r.must(r.ledger.CreateDatabase("other"))
			r.writeTo("other", 2, "another life")
		}, kind: evidence.Fork},
		{name: "A12 same transaction, other hash", do: func(r *rig) {
			r.set(func(method string, _, resp any) (any, error) {
				if s, ok := resp.(*schema.ImmutableState); ok {
					s.TxHash[7] ^= 1
				}
				return resp, nil
			})
		}, kind: evidence.Fork},
		{name: "A12 by a header that fits", do: func(r *rig) {
			r.must(r.db(defaultDB).Tamper(func(h *ledger.History) {
				h.Header(h.Len()).Ts++
				h.Rehash(h.Len())
			}))
		}, kind: evidence.Fork},
		{name: "A16 unsigned", signed: true, do: func(r *rig) { r.must(r.ledger.SetSigningKey(nil)) }, kind: evidence.SignatureMissing},
		{name: "A17 other key", signed: true, do: func(r *rig) { r.must(r.ledger.SetSigningKey(newKey(r.t))) }, kind: evidence.KeyChanged},
		{name: "A17 other key that pretends to be the old one", signed: true, do: func(r *rig) {
			r.must(r.ledger.SetSigningKey(newKey(r.t)))
			r.set(func(_ string, _, resp any) (any, error) {
				if s, ok := resp.(*schema.ImmutableState); ok {
					s.Signature.PublicKey = point(r.t, r.key)
				}
				return resp, nil
			})
		}, kind: evidence.SignatureInvalid},
		{name: "A18 signature of another transaction", signed: true, do: func(r *rig) {
			var old *schema.Signature
			r.set(func(_ string, _, resp any) (any, error) {
				if s, ok := resp.(*schema.ImmutableState); ok && s.Db == defaultDB {
					if old == nil {
						old = s.Signature
					}
					s.Signature = old
				}
				return resp, nil
			})
			r.expect(evidence.Consistent)
			r.write(1)
		}, kind: evidence.SignatureInvalid},
		{name: "A19 answers for another database", do: func(r *rig) {
			r.set(func(_ string, _, resp any) (any, error) {
				if s, ok := resp.(*schema.ImmutableState); ok {
					s.Db = "elsewhere"
				}
				return resp, nil
			})
		}, kind: evidence.WrongDatabase},
		{name: "A31 leaf swap, newest leaf", do: func(r *rig) { r.swapLeaf(1) }, kind: evidence.Tree, check: "bl-root"},
		{name: "A31 leaf swap, dual proofs only", dualOnly: true, do: func(r *rig) { r.swapLeaf(1) }, kind: evidence.Tree, check: "leaf-binding"},
		{name: "A31 leaf swap, lagging tree", dualOnly: true, config: ledger.Config{BlTxID: lag(3)}, do: func(r *rig) {
			// The newest leaf lies before the trusted transaction: only the
			// binding proof leads from the leaf to it.
			db := r.db(defaultDB)
			last, _ := db.State()
			r.must(db.Tamper(func(h *ledger.History) { h.SetLeaf(last-3, [32]byte{1}) }))
			r.write(1)
		}, kind: evidence.Tree, check: "leaf-binding"},
		{name: "A32 junk leaves between audited states", do: func(r *rig) {
			r.write(10)
			last, _ := r.db(defaultDB).State()
			r.must(r.db(defaultDB).Tamper(func(h *ledger.History) {
				for tx := last - 6; tx < last-2; tx++ {
					h.SetLeaf(tx, [32]byte{byte(tx)})
				}
			}))
			r.write(1)
		}, kind: evidence.Tree, check: "bl-root"},
	}
}

func lag(n uint64) func(string, uint64) uint64 {
	return func(_ string, id uint64) uint64 { return id - 1 - min(id-1, n) }
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// other makes a second database with ten transactions.
func (r *rig) other() {
	r.must(r.ledger.CreateDatabase("other"))
	r.writeTo("other", 10, "v")
}

// fork puts back a copy made now, after five more transactions were proven,
// and writes n others onto it.
func (r *rig) fork(n int) {
	r.t.Helper()
	db := r.db(defaultDB)
	old := db.Snapshot()
	r.write(5)
	r.expect(evidence.Consistent)
	r.must(db.Restore(old))
	r.writeTo(defaultDB, n, "forged")
}

// swapLeaf puts another Alh into the tree for the newest transaction, then
// commits n more: the chain itself is untouched.
func (r *rig) swapLeaf(n int) {
	r.t.Helper()
	last, _ := r.db(defaultDB).State()
	r.must(r.db(defaultDB).Tamper(func(h *ledger.History) { h.SetLeaf(last, [32]byte{0xbe, 0xef}) }))
	r.write(n)
}

// TestAttacks does to a ledger what docs/threat-model.md lists, and looks at
// everything that must follow: verdict and kind, the sticky incident, frozen
// trust, the event, and that a ledger beside it stays well.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range deeds() {
		for _, version := range []int{0, 1} {
			t.Run(a.name+map[int]string{0: " v0", 1: " v1"}[version], func(t *testing.T) {
				t.Parallel()
				config := a.config
				config.HeaderVersion = version
				if a.signed {
					config.SigningKey = newKey(t)
				}
				r := newRig(t, config)
				if a.dualOnly {
					r.opts.WalkLimit = 0
				}
				r.must(r.ledger.CreateDatabase("bystander"))
				r.writeTo("bystander", 7, "calm")
				r.write(10)
				if a.setup != nil {
					a.setup(r)
				}
				victim := defaultDB
				if a.setup != nil {
					victim = "other"
				}
				r.settle()
				a.do(r)
				before := r.trust(victim)

				reports := r.once()
				rep := reports[victim]
				if rep.Verdict != evidence.Tampered || rep.Kind != a.kind {
					t.Fatalf("%s %s %s, want tampered %s: %+v", rep.Verdict, rep.Kind, rep.Reason, a.kind, rep)
				}
				if a.check != "" && !hasCheck(rep.Findings, a.check) {
					t.Errorf("no finding of check %q: %+v", a.check, rep.Findings)
				}
				calm(t, reports, victim, a.kind)
				after := r.trust(victim)
				if after.Proven.State != before.Proven.State || after.Walked != before.Walked {
					t.Errorf("trust moved from %+v to %+v", before.Proven.State, after.Proven.State)
				}
				for _, inc := range r.incidents() {
					if inc.Name.Database == victim && (inc.Trusted.State != before.Proven.State || inc.Status != evidence.Open) {
						t.Errorf("incident %+v", inc)
					}
				}
				if n := len(r.events(evidence.EventTampered)); n != len(r.incidents()) || n == 0 {
					t.Errorf("%d tampered events for %d incidents", n, len(r.incidents()))
				}

				// Nothing the server does afterwards makes it look well again.
				again := r.once()[victim]
				if again.Verdict != evidence.Tampered || again.Incident != rep.Incident {
					t.Errorf("the second round: %s %s, want the same incident %s", again.Verdict, again.Incident, rep.Incident)
				}
				r.must(r.ledger.Stop())
				down := r.once()[victim]
				if down.Verdict != evidence.Tampered {
					t.Errorf("with the server down: %+v", down)
				}
			})
		}
	}
}

// calm checks the ledger beside the attacked one. What is about a server's
// answers as a whole (signatures, names) hits it too.
func calm(t *testing.T, reports map[string]evidence.Report, victim string, kind evidence.Kind) {
	t.Helper()
	if kind.AboutSignature() || kind == evidence.WrongDatabase || kind == evidence.Fork && reports["bystander"].Kind == evidence.Fork {
		return
	}
	if b := reports["bystander"]; b.Verdict != evidence.Consistent {
		t.Errorf("the ledger beside %s: %+v", victim, b)
	}
}

func hasCheck(findings []evidence.Finding, check string) bool {
	for _, f := range findings {
		if f.Check == check {
			return true
		}
	}
	return false
}

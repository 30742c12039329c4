package audit_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// deep makes the rig verify contents, in passes that never pause.
func (r *rig) deep() {
	r.t.Helper()
	r.mirrored()
	r.witnessed()
	r.opts.Deep = audit.Deep{Source: r.client, Every: time.Hour}
}

func (r *rig) verify(o audit.Verification) evidence.Report {
	r.t.Helper()
	e, err := audit.New(r.t.Context(), r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	_, report, err := e.Verify(r.t.Context(), defaultDB, o)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

func (r *rig) setValue(tx uint64, value string) {
	r.t.Helper()
	r.tamper(func(h *ledger.History) { h.SetValue(tx, 0, []byte("\x00"+value)) })
}

// In the background everything is looked at once, then what is new.
func TestVerifiesInTheBackground(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	r.write(2500)
	run := r.start()
	verified := func(tx uint64) func() bool {
		return func() bool { return run.engine.Status().Ledgers[0].VerifiedTx == tx }
	}
	run.await("a consistent round", is(evidence.Consistent))
	poll(t, "all of it verified", verified(2500))
	r.write(40)
	poll(t, "the new ones verified", verified(2540))
	scrub := run.engine.Status().Ledgers[0].Scrub
	if scrub.Pass != 1 || scrub.Settled < 2540 || scrub.Verified < 2540 || scrub.Bytes == 0 || scrub.Finished.IsZero() {
		t.Errorf("%+v", scrub)
	}
	r.setValue(2530, "forged") // after it was verified: only the next pass sees it
	r.setValue(2541, "forged") // there is none yet
	r.write(5)
	r.setValue(2543, "forged") // this may be seen at once
	rep := run.await("the damage", is(evidence.Tampered))
	if rep.Kind != evidence.Value {
		t.Errorf("%+v", rep)
	}
	run.stop()
	if trust := r.trust(defaultDB); trust.Proven.TxID != 2545 {
		t.Errorf("the chain is not followed any more: %+v", trust.Proven)
	}
	inc := r.incidents()[0]
	if inc.Divergence == nil || inc.Divergence.FirstBadTx != 2543 || inc.Divergence.Key == "" || inc.Findings[0].Key == "" {
		t.Errorf("where: %+v, %+v", inc.Divergence, inc.Findings)
	}
}

// A restart goes on where verification was; what was settled is not read again.
func TestVerificationResumes(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	r.write(900)
	r.settle()
	r.verify(audit.Verification{To: 400})
	if trust := r.trust(defaultDB); trust.Verified != 400 || trust.Scrub.Settled != 400 {
		t.Fatalf("%d verified, %+v", trust.Verified, trust.Scrub)
	}
	var lowest uint64 = 1 << 62
	r.hostile.set(func(method string, req, resp any) (any, error) {
		if scan, ok := req.(*schema.TxScanRequest); ok && scan.GetEntriesSpec().GetKvEntriesSpec().GetAction() == schema.EntryTypeAction_RAW_VALUE {
			r.hostile.mu.Lock()
			lowest = min(lowest, scan.GetInitialTx())
			r.hostile.mu.Unlock()
		}
		return resp, nil
	})
	run := r.start()
	poll(t, "all of it verified", func() bool { return run.engine.Status().Ledgers[0].VerifiedTx == 900 })
	run.stop()
	r.hostile.mu.Lock()
	defer r.hostile.mu.Unlock()
	if lowest != 401 {
		t.Errorf("values are read again from %d on", lowest)
	}
}

// With --audit-verify-values trust does not advance over what was not looked at.
func TestNewValuesFirst(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{10_000, 0} {
		r := newRig(t, ledger.Config{HeaderVersion: 1})
		r.deep()
		r.opts.WalkLimit, r.opts.Deep.NewValues = limit, true
		r.write(50)
		r.settle()
		r.verify(audit.Verification{})
		r.write(10)
		r.expect(evidence.Consistent)
		if trust := r.trust(defaultDB); trust.Proven.TxID != 60 || limit > 0 && trust.Verified != 60 {
			t.Errorf("limit %d: %d verified of %d", limit, trust.Verified, trust.Proven.TxID)
		}
		// It cannot look: nothing is trusted.
		r.write(5)
		r.hostile.set(func(method string, req, resp any) (any, error) {
			if scan, ok := req.(*schema.TxScanRequest); ok && scan.GetEntriesSpec().GetKvEntriesSpec().GetAction() != schema.EntryTypeAction_EXCLUDE {
				return nil, status.Error(codes.PermissionDenied, "not for you")
			}
			return resp, nil
		})
		if rep := r.expect(evidence.Undetermined); rep.Trusted.Tx != 60 {
			t.Errorf("limit %d: trusted without a look: %+v", limit, rep)
		}
		r.hostile.set(nil)
		// It looks, and finds: an incident, and the chain goes on.
		r.setValue(63, "forged")
		if rep := r.tampered(evidence.Value); rep.Trusted.Tx != 65 || rep.Divergence.FirstBadTx != 63 {
			t.Errorf("limit %d: %+v", limit, rep)
		}
		r.write(5)
		if rep := r.tampered(evidence.Value); rep.Trusted.Tx != 70 {
			t.Errorf("limit %d: the chain is not followed: %+v", limit, rep)
		}
	}
}

// Accepting damage accepts that damage and no other; damage that was repaired
// lets the baseline be kept.
func TestDecidingAboutDamage(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	r.write(100)
	r.settle()
	decide := audit.Decider{Memory: r.store}
	trust := func() *evidence.Trust { tr := r.trust(defaultDB); return &tr }
	verdict := func() evidence.Report { t.Helper(); return r.verify(audit.Verification{}) }

	r.setValue(30, "forged")
	if rep := verdict(); rep.Kind != evidence.Value {
		t.Fatalf("%+v", rep)
	}
	r.setValue(40, "forged") // found later: the incident grows
	verdict()
	inc := r.incidents()[0]
	if len(r.incidents()) != 1 || len(inc.Findings) != 2 || len(r.events(evidence.EventTampered)) != 1 {
		t.Fatalf("%d findings: %+v", len(inc.Findings), inc)
	}
	if file := r.evidence(); len(file.Findings) != 2 || len(file.Damaged) == 0 || file.Damaged[0].Header == nil || len(file.Damaged[0].Key) == 0 {
		t.Errorf("the evidence did not grow with the incident: %+v", file.Damaged)
	}
	if err := decide.Keep(t.Context(), inc, trust(), "hope"); !errors.Is(err, audit.ErrDecision) || !strings.Contains(err.Error(), "sound again") {
		t.Errorf("kept although nothing was repaired: %v", err)
	}
	if err := decide.Accept(t.Context(), inc, trust(), audit.KeyChoice{}, "known loss"); err != nil {
		t.Fatal(err)
	}
	if rep := verdict(); rep.Verdict != evidence.Consistent {
		t.Errorf("accepted, and found again: %+v", rep)
	}
	if got := r.trust(defaultDB); got.Verified != 100 {
		t.Errorf("verified %d", got.Verified)
	}
	r.setValue(31, "forged") // beside what was accepted
	if rep := verdict(); rep.Kind != evidence.Value {
		t.Errorf("other damage was not accepted: %+v", rep)
	}
	inc = r.incidents()[0]
	if len(inc.Findings) != 1 {
		t.Errorf("%+v", inc.Findings)
	}
	r.setValue(31, "v") // repaired
	verdict()
	inc = r.incidents()[0]
	if err := decide.Keep(t.Context(), inc, trust(), "restored from a backup"); err != nil {
		t.Errorf("kept after a repair: %v", err)
	}
	if rep := verdict(); rep.Verdict != evidence.Consistent {
		t.Errorf("%+v", rep)
	}
}

// A running auditor notices the repair by itself.
func TestRepairIsNoticed(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	r.write(50)
	r.settle()
	r.setValue(20, "forged")
	run := r.start()
	run.await("the damage", is(evidence.Tampered))
	r.setValue(20, "v")
	poll(t, "sound again", func() bool {
		inc := r.incidents()
		return len(inc) == 1 && inc[0].SoundAt.After(inc[0].LastSeen)
	})
}

// Samples look at a part, and store nothing but damage.
func TestSample(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	r.write(5000)
	r.settle()
	e, err := audit.New(t.Context(), r.opts)
	if err != nil {
		t.Fatal(err)
	}
	sum, rep, err := e.Verify(t.Context(), defaultDB, audit.Verification{Sample: 0.3})
	if err != nil || rep.Verdict != evidence.Consistent || sum.Transactions == 0 || sum.Transactions%1000 != 0 || sum.Through != 5000 {
		t.Errorf("%+v, %+v, %v", sum.Tally, rep, err)
	}
	if trust := r.trust(defaultDB); trust.Verified != 0 || trust.Scrub.Settled != 0 {
		t.Errorf("a sample is not all: %+v", trust.Scrub)
	}
	if _, _, err := e.Verify(t.Context(), defaultDB, audit.Verification{From: 5001}); err == nil {
		t.Error("beyond the end")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := e.Verify(ctx, defaultDB, audit.Verification{}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// All damage is found, not just the first, in one run.
func TestAllDamage(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	r.write(1200)
	r.settle()
	bad := []uint64{1, 2, 77, 500, 501, 999, 1000, 1001, 1200}
	for _, tx := range bad {
		r.setValue(tx, "forged")
	}
	r.verify(audit.Verification{})
	var found []uint64
	for _, f := range r.incidents()[0].Findings {
		found = append(found, f.Tx)
	}
	slices.Sort(found)
	if !slices.Equal(found, bad) {
		t.Errorf("found %v, changed %v", found, bad)
	}
}

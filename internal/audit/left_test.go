package audit_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// refuses has the server refuse to show the contents of some transactions, in
// words that speak neither of damage nor of the connection.
func (r *rig) refuses(first, last uint64) {
	r.hostile.set(func(_ string, req, resp any) (any, error) {
		concerns := false
		switch q := req.(type) {
		case *schema.TxScanRequest:
			concerns = q.EntriesSpec.GetKvEntriesSpec().GetAction() != schema.EntryTypeAction_EXCLUDE &&
				q.InitialTx <= last && first < q.InitialTx+uint64(q.Limit)
		case *schema.TxRequest:
			concerns = first <= q.Tx && q.Tx <= last
		case *schema.VerifiableGetRequest:
			concerns = first <= q.KeyRequest.AtTx && q.KeyRequest.AtTx <= last
		}
		if concerns {
			return nil, status.Error(codes.Unknown, "not today")
		}
		return resp, nil
	})
}

// Transactions that cannot be read, however many, hide nothing behind them: what
// follows is verified, and what cannot be said of them is not said. Once they can
// be read they are verified, too.
func TestUnreadHidesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	r.write(900)
	r.settle()
	r.refuses(100, 350) // more than one run leaves out
	r.setValue(880, "forged")
	e, err := audit.New(t.Context(), r.opts)
	if err != nil {
		t.Fatal(err)
	}
	sum, rep, err := e.Verify(t.Context(), defaultDB, audit.Verification{})
	if err == nil || sum.Tally.Unread != 251 || sum.Through != 99 || sum.Unread[0].Tx != 100 || len(sum.Unread) > evidence.MaxFindings {
		t.Errorf("%v: %d unread, through %d", err, sum.Tally.Unread, sum.Through)
	}
	if rep.Kind != evidence.Value || len(rep.Findings) > 0 && rep.Findings[0].Tx != 880 {
		t.Fatalf("the damage behind them: %+v", rep)
	}
	if trust := r.trust(defaultDB); trust.Verified != 99 || trust.Scrub.Settled != 900 {
		t.Errorf("verified %d, looked at %d", trust.Verified, trust.Scrub.Settled)
	}

	// Repaired, and kept: all of it is looked at again, but for those.
	r.setValue(880, "v")
	verify := func() { e.Verify(t.Context(), defaultDB, audit.Verification{}) } // it could not read all
	verify()
	trust := r.trust(defaultDB)
	if err := (&audit.Decider{Memory: r.store}).Keep(t.Context(), r.incidents()[0], &trust, "restored"); err != nil {
		t.Fatal(err)
	}
	run := r.start()
	first := func() audit.LedgerStatus { return run.engine.Status().Ledgers[0] }
	poll(t, "the rest looked at", func() bool { return first().Scrub.Settled == 900 })
	if s := first(); s.VerifiedTx != 99 || s.UnreadableTx != 100 || s.Last.Verdict == evidence.Tampered {
		t.Errorf("%+v", s)
	}
	run.stop()
	r.hostile.set(nil)
	run = r.start()
	poll(t, "all of it verified", func() bool { return first().VerifiedTx == 900 })
	if s := first(); s.UnreadableTx != 0 {
		t.Errorf("%+v", s)
	}
}

// Servers that cannot list values are verified as well.
func TestOldServerInTheBackground(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{Version: "1.2.2"})
	r.deep()
	r.write(60)
	run := r.start()
	poll(t, "all of it verified", func() bool {
		s := run.engine.Status().Ledgers
		return len(s) == 1 && s[0].VerifiedTx == 60
	})
	r.write(10)
	r.setValue(65, "forged")
	rep := run.await("the damage", is(evidence.Tampered))
	if rep.Kind != evidence.Value || rep.Divergence.FirstBadTx != 65 {
		t.Errorf("%+v", rep)
	}
}

// All that verify at a time share one rate, and one alone has all of it.
func TestVerifyRateIsShared(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.deep()
	const each = 100 << 10
	r.opts.Deep.BytesPerSecond = 2 * each
	if err := r.ledger.CreateDatabase("other"); err != nil {
		t.Fatal(err)
	}
	text := string(make([]byte, each/10))
	for _, db := range []string{defaultDB, "other"} {
		r.writeTo(db, 30, text)
	}
	r.once()
	r.once()
	e, err := audit.New(t.Context(), r.opts)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	done := make(chan error, 2)
	for _, db := range []string{defaultDB, "other"} {
		go func() {
			_, _, err := e.Verify(t.Context(), db, audit.Verification{})
			done <- err
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// 600 KiB at 200 KiB/s, of which those of the first second are free.
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("both were read in %s", took)
	}
}

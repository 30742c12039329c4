package audit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"immuaudit/evidence"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

func flip(b []byte) []byte {
	b = slices.Clone(b)
	if len(b) > 0 {
		b[len(b)/2] ^= 1
	}
	return b
}

// TestCorruptedProofs is A13: each part of the dual proof corrupted in turn.
// What is well-formed and wrong is tampered · proof and names the step.
func TestCorruptedProofs(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		do    func(p *schema.DualProof)
		kind  evidence.Kind
		check string
	}{
		{"source timestamp", func(p *schema.DualProof) { p.SourceTxHeader.Ts++ }, evidence.Proof, "alh-source"},
		{"source entry tree", func(p *schema.DualProof) { p.SourceTxHeader.EH = flip(p.SourceTxHeader.EH) }, evidence.Proof, "alh-source"},
		{"source previous hash", func(p *schema.DualProof) { p.SourceTxHeader.PrevAlh = flip(p.SourceTxHeader.PrevAlh) }, evidence.Proof, "alh-source"},
		{"source tree root", func(p *schema.DualProof) { p.SourceTxHeader.BlRoot = flip(p.SourceTxHeader.BlRoot) }, evidence.Proof, "alh-source"},
		{"source count", func(p *schema.DualProof) { p.SourceTxHeader.Nentries++ }, evidence.Proof, "alh-source"},
		{"target timestamp", func(p *schema.DualProof) { p.TargetTxHeader.Ts++ }, evidence.Proof, "alh-target"},
		{"target entry tree", func(p *schema.DualProof) { p.TargetTxHeader.EH = flip(p.TargetTxHeader.EH) }, evidence.Proof, "alh-target"},
		{"target tree root", func(p *schema.DualProof) { p.TargetTxHeader.BlRoot = flip(p.TargetTxHeader.BlRoot) }, evidence.Proof, "alh-target"},
		{"inclusion", func(p *schema.DualProof) { p.InclusionProof[0] = flip(p.InclusionProof[0]) }, evidence.Proof, "inclusion"},
		{"consistency", func(p *schema.DualProof) { p.ConsistencyProof[0] = flip(p.ConsistencyProof[0]) }, evidence.Proof, "consistency"},
		{"last leaf", func(p *schema.DualProof) { p.TargetBlTxAlh = flip(p.TargetBlTxAlh) }, evidence.Proof, "last-inclusion"},
		{"last inclusion", func(p *schema.DualProof) { p.LastInclusionProof[0] = flip(p.LastInclusionProof[0]) }, evidence.Proof, "last-inclusion"},
		{"linear start", func(p *schema.DualProof) { p.LinearProof.Terms[0] = flip(p.LinearProof.Terms[0]) }, evidence.Proof, "linear"},
		{"linear term", func(p *schema.DualProof) { p.LinearProof.Terms[1] = flip(p.LinearProof.Terms[1]) }, evidence.Proof, "linear"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			r.opts.WalkLimit = 0
			r.write(11)
			r.settle()
			r.write(6)
			r.set(func(method string, _, resp any) (any, error) {
				if tx, ok := resp.(*schema.VerifiableTx); ok {
					tx = proto.Clone(tx).(*schema.VerifiableTx)
					c.do(tx.DualProof)
					return tx, nil
				}
				return resp, nil
			})
			rep := r.tampered(c.kind)
			if !hasCheck(rep.Findings, c.check) {
				t.Errorf("findings %+v, want check %s", rep.Findings, c.check)
			}
			if got := r.trust(defaultDB).Proven.TxID; got != 11 {
				t.Errorf("trust moved to %d", got)
			}
		})
	}
}

// TestAdvanceProof is A15, CVE-2022-36111: with a lagging tree the linear
// advance proof must be there and be right. Forged it is tampered; where the
// server leaves it out it is rebuilt, and honest data stays consistent.
func TestAdvanceProof(t *testing.T) {
	t.Parallel()
	for _, version := range []int{0, 1} {
		for _, name := range []string{"forged", "missing"} {
			t.Run(fmt.Sprintf("%s v%d", name, version), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, ledger.Config{HeaderVersion: version, BlTxID: lag(5)})
				r.opts.WalkLimit = 0
				r.write(20)
				r.settle()
				r.write(15)
				touched := 0
				r.set(func(_ string, _, resp any) (any, error) {
					tx, ok := resp.(*schema.VerifiableTx)
					if !ok || tx.DualProof.GetLinearAdvanceProof() == nil {
						return resp, nil
					}
					tx = proto.Clone(tx).(*schema.VerifiableTx)
					touched++
					if name == "missing" {
						tx.DualProof.LinearAdvanceProof = nil
					} else {
						a := tx.DualProof.LinearAdvanceProof
						a.LinearProofTerms[len(a.LinearProofTerms)-1] = flip(a.LinearProofTerms[0])
					}
					return tx, nil
				})
				if name == "missing" {
					r.expect(evidence.Consistent)
				} else if rep := r.tampered(evidence.Proof); !hasCheck(rep.Findings, "linear-advance") {
					t.Errorf("%+v", rep.Findings)
				}
				if touched == 0 {
					t.Error("the server sent no advance proof: nothing was tested")
				}
			})
		}
	}
}

// TestSwappedTransactionUnderLag is A15 as it would be done: a server with a
// lagging tree swaps a transaction that only the old linear part covered.
func TestSwappedTransactionUnderLag(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{10_000, 0} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1, BlTxID: lag(5)})
			r.opts.WalkLimit = limit
			r.write(20)
			r.settle()
			// Leaf 17 is in no tree yet that was audited (those end at 14).
			r.must(r.db(defaultDB).Tamper(func(h *ledger.History) { h.SetLeaf(17, [32]byte{0xee}) }))
			r.write(15)
			if limit > 0 {
				r.tampered(evidence.Tree)
			} else {
				r.tampered(evidence.Proof)
			}
		})
	}
}

// TestMalformed is A14: undetermined, never a verdict, never a crash.
func TestMalformed(t *testing.T) {
	t.Parallel()
	state := func(f func(s *schema.ImmutableState)) func(string, any, any) (any, error) {
		return func(_ string, _, resp any) (any, error) {
			if s, ok := resp.(*schema.ImmutableState); ok {
				s = proto.Clone(s).(*schema.ImmutableState)
				f(s)
				return s, nil
			}
			return resp, nil
		}
	}
	header := func(f func(h *schema.TxHeader)) func(string, any, any) (any, error) {
		return func(_ string, _, resp any) (any, error) {
			if l, ok := resp.(*schema.TxList); ok {
				l = proto.Clone(l).(*schema.TxList)
				for _, tx := range l.Txs {
					f(tx.Header)
				}
				return l, nil
			}
			return resp, nil
		}
	}
	dual := func(f func(p *schema.VerifiableTx)) func(string, any, any) (any, error) {
		return func(_ string, _, resp any) (any, error) {
			if tx, ok := resp.(*schema.VerifiableTx); ok {
				tx = proto.Clone(tx).(*schema.VerifiableTx)
				f(tx)
				return tx, nil
			}
			return resp, nil
		}
	}
	cases := map[string]struct {
		change func(string, any, any) (any, error)
		dual   bool
		reason evidence.Reason
	}{
		"short hash":          {state(func(s *schema.ImmutableState) { s.TxHash = s.TxHash[:31] }), false, evidence.Malformed},
		"no hash":             {state(func(s *schema.ImmutableState) { s.TxHash = nil }), false, evidence.Malformed},
		"huge id":             {state(func(s *schema.ImmutableState) { s.TxId = 1 << 63 }), false, evidence.Malformed},
		"far ahead":           {state(func(s *schema.ImmutableState) { s.TxId = 1 << 62 }), false, evidence.Refused},
		"header version 7":    {header(func(h *schema.TxHeader) { h.Version = 7 }), false, evidence.Malformed},
		"negative count":      {header(func(h *schema.TxHeader) { h.Nentries = -1 }), false, evidence.Malformed},
		"header without hash": {header(func(h *schema.TxHeader) { h.EH = nil }), false, evidence.Malformed},
		"tree beyond itself":  {header(func(h *schema.TxHeader) { h.BlTxId = h.Id }), false, evidence.Malformed},
		"another id":          {header(func(h *schema.TxHeader) { h.Id += 5 }), false, evidence.Malformed},
		"no headers": {func(_ string, _, resp any) (any, error) {
			if _, ok := resp.(*schema.TxList); ok {
				return &schema.TxList{}, nil
			}
			return resp, nil
		}, false, evidence.Unproven},
		"nil proof":        {dual(func(p *schema.VerifiableTx) { p.DualProof = nil }), true, evidence.Malformed},
		"no source header": {dual(func(p *schema.VerifiableTx) { p.DualProof.SourceTxHeader = nil }), true, evidence.Malformed},
		"other target":     {dual(func(p *schema.VerifiableTx) { p.DualProof.TargetTxHeader = p.DualProof.SourceTxHeader }), true, evidence.Malformed},
		"long inclusion":   {dual(func(p *schema.VerifiableTx) { p.DualProof.InclusionProof = make([][]byte, 1000) }), true, evidence.Malformed},
		"huge source blTx": {dual(func(p *schema.VerifiableTx) { p.DualProof.SourceTxHeader.BlTxId = 1 << 63 }), true, evidence.Malformed},
		"short digest":     {dual(func(p *schema.VerifiableTx) { p.DualProof.ConsistencyProof[0] = []byte{1} }), true, evidence.Malformed},
		"too many terms": {dual(func(p *schema.VerifiableTx) {
			p.DualProof.LinearProof.Terms = slices.Repeat(p.DualProof.LinearProof.Terms, 55_000)
		}), true, evidence.Malformed},
		"refused by server": {func(m string, _, resp any) (any, error) { return refuseProofs(m, resp) }, true, evidence.Refused},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			if c.dual {
				r.opts.WalkLimit = 0
			}
			r.write(11)
			r.settle()
			r.write(6)
			r.set(c.change)
			rep := r.expect(evidence.Undetermined)
			if rep.Reason != c.reason {
				t.Errorf("reason %s (%s), want %s", rep.Reason, rep.Detail, c.reason)
			}
			r.set(nil)
			r.expect(evidence.Consistent)
		})
	}
}

// refuseProofs answers no proof and no walk either.
func refuseProofs(method string, resp any) (any, error) {
	switch resp.(type) {
	case *schema.VerifiableTx, *schema.TxList:
		return nil, status.Error(codes.Unknown, "tx data is corrupted: binary linking mismatch at tx 5")
	}
	return resp, nil
}

// TestShortProofIsNotTampering: an absent or too short part is not proven; a
// walk decides where one is possible.
func TestShortProofIsNotTampering(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.opts.WalkLimit = 0
	r.write(11)
	r.settle()
	r.write(6)
	r.set(func(_ string, _, resp any) (any, error) {
		if tx, ok := resp.(*schema.VerifiableTx); ok {
			tx = proto.Clone(tx).(*schema.VerifiableTx)
			tx.DualProof.InclusionProof = nil
			return tx, nil
		}
		return resp, nil
	})
	if rep := r.expect(evidence.Consistent); rep.Assurance.Walked != 17 {
		t.Errorf("%+v", rep.Assurance)
	}
}

// TestUnstableMismatch: a mismatch that does not repeat itself on a fresh
// token is no verdict.
func TestUnstableMismatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.write(5)
	r.settle()
	first := true
	r.set(func(_ string, _, resp any) (any, error) {
		if s, ok := resp.(*schema.ImmutableState); ok && first {
			first = false
			s = proto.Clone(s).(*schema.ImmutableState)
			s.TxHash[3] ^= 1
			return s, nil
		}
		return resp, nil
	})
	r.expect(evidence.Consistent)
	if first {
		t.Error("nothing was changed")
	}
	if n := len(r.incidents()); n != 0 {
		t.Errorf("%d incidents", n)
	}
}

// TestSlowLedgerDelaysNoOther: one database that hangs until its deadline.
func TestSlowLedgerDelaysNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1})
	r.must(r.ledger.CreateDatabase("hangs"))
	r.write(3)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	r.set(func(_ string, _, resp any) (any, error) {
		if s, ok := resp.(*schema.ImmutableState); ok && s.Db == "hangs" {
			<-release
		}
		return resp, nil
	})
	run := r.start()
	for i := range 20 {
		r.write(1)
		run.await(fmt.Sprintf("round %d", i), func(rep evidence.Report) bool {
			return rep.Database == defaultDB && rep.Verdict == evidence.Consistent && rep.Trusted.Tx == uint64(4+i)
		})
	}
	rep := run.await("the hanging one", func(rep evidence.Report) bool { return rep.Database == "hangs" })
	if rep.Reason != evidence.Timeout {
		t.Errorf("%+v", rep)
	}
	if rep.DurationMS > float64(20*time.Second/time.Millisecond) || !strings.Contains(rep.Detail, "time") {
		t.Errorf("%+v", rep)
	}
}

// TestWalkIsKeptWhereItIsBound: what a walk took before the server failed is
// kept if a proof leads from there to what is proven, and only then. Headers of
// another history, shown once, must not speak against the right one later.
func TestWalkIsKeptWhereItIsBound(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"its own", "another's"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1})
			r.opts.WalkLimit = 0
			r.must(r.ledger.CreateDatabase("other"))
			r.writeTo("other", 40, "elsewhere")
			r.write(40)
			other := r.db("other").Snapshot()
			r.set(func(_ string, req, resp any) (any, error) {
				l, ok := resp.(*schema.TxList)
				from := uint64(0)
				if ok {
					from = req.(*schema.TxScanRequest).InitialTx
				}
				switch {
				case !ok || from == 40: // the header of the first contact
					return resp, nil
				case from > 1:
					return nil, status.Error(codes.Unknown, "max concurrency limit exceeded")
				}
				l.Txs = l.Txs[:25]
				if name != "its own" {
					for i := range l.Txs {
						stored, err := other.Tx(uint64(i + 1))
						if err != nil {
							return nil, err
						}
						h := stored.Header
						l.Txs[i].Header = &schema.TxHeader{Id: h.ID, PrevAlh: h.PrevAlh[:], Ts: h.Ts, Nentries: int32(h.NEntries), EH: h.EH[:], BlTxId: h.BlTxID, BlRoot: h.BlRoot[:], Version: int32(h.Version)}
					}
				}
				return l, nil
			})
			rep := r.once()[defaultDB]
			want := map[string]uint64{"its own": 25, "another's": 0}[name]
			if got := r.trust(defaultDB).Walked; got != want {
				t.Errorf("walked %d, want %d: %+v", got, want, rep)
			}
			if tampered := rep.Verdict == evidence.Tampered; tampered != (name != "its own") {
				t.Errorf("%+v", rep)
			}
		})
	}
}

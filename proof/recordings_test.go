package proof_test

import (
	"errors"
	"fmt"
	"testing"

	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// errNotRecorded: an answer that would decide a proof is not in the recording.
var errNotRecorded = errors.New("not recorded")

// supply answers what a proof asks for from what is recorded.
func (l *recordedLedger) supply(p *proof.DualProof, u *proof.Unproven, extra *proof.Extra) error {
	target := p.Target.ID
	switch u.Need {
	case proof.NeedAdvance:
		var headers []proof.Header
		var inclusions [][]proof.Hash
		for tx := u.From + 1; tx <= u.To; tx++ {
			h, ok := l.headers[tx]
			if !ok {
				return fmt.Errorf("header %d: %w", tx, errNotRecorded)
			}
			headers = append(headers, h)
			if tx == u.To {
				break
			}
			v, ok := l.byPair[[2]uint64{tx, target}]
			if !ok {
				return fmt.Errorf("proof %d→%d: %w", tx, target, errNotRecorded)
			}
			inclusions = append(inclusions, v.Proof.Inclusion)
		}
		a, err := proof.RebuildAdvance(u.From, u.To, headers, inclusions)
		extra.Advance = a
		return err
	case proof.NeedBinding:
		v, ok := l.byPair[[2]uint64{u.From, u.To}]
		if !ok {
			return fmt.Errorf("proof %d→%d: %w", u.From, u.To, errNotRecorded)
		}
		extra.Binding = v.Proof
		return nil
	}
	return fmt.Errorf("nothing recorded can supply this: %w", u)
}

// settle runs check, supplying what it asks for, until it is decided.
func (l *recordedLedger) settle(p *proof.DualProof, check func(*proof.Extra) error) (*proof.Extra, error) {
	extra := new(proof.Extra)
	for range 3 { // nothing, the advance, the binding
		err := check(extra)
		u, ok := errors.AsType[*proof.Unproven](err)
		if !ok {
			return extra, err
		}
		if err := l.supply(p, u, extra); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("asks for the same thing again")
}

func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, l := range recordings(t) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			t.Run("states", l.testStates)
			t.Run("signatures", l.testSignatures)
			t.Run("proofs", l.testProofs)
			t.Run("checkpoints", l.testCheckpoints)
			t.Run("entry-trees", l.testEntryTrees)
			t.Run("values", l.testValues)
			t.Run("exports", l.testExports)
		})
	}
}

func (l *recordedLedger) testStates(t *testing.T) {
	if len(l.states) == 0 {
		t.Fatal("none recorded")
	}
	for _, s := range l.states {
		h, ok := l.headers[s.TxID]
		if s.TxID == 0 {
			if s.Alh != proof.EmptyAlh() {
				t.Errorf("empty state has Alh %s", s.Alh)
			}
			continue
		}
		if got := h.Alh(); ok && got != s.Alh {
			t.Errorf("header %d hashes to %s, state says %s", s.TxID, got, s.Alh)
		}
		if next, ok := l.headers[s.TxID+1]; ok && next.PrevAlh != s.Alh {
			t.Errorf("header %d follows %s, state says %s", s.TxID+1, next.PrevAlh, s.Alh)
		}
	}
}

func (l *recordedLedger) testSignatures(t *testing.T) {
	checked := 0
	verify := func(what string, s proof.SignedState) {
		if l.key == nil {
			if len(s.Signature) > 0 {
				t.Errorf("%s: signed, but no key is recorded", what)
			}
			checked++
			return
		}
		if err := proof.VerifySignature(l.key, &s); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		sent, err := proof.ParsePoint(s.PublicKey)
		if err != nil || !sent.Equal(l.key) {
			t.Errorf("%s: carries another key (error %v)", what, err)
		}
		checked++
	}
	for _, s := range l.states {
		verify(fmt.Sprintf("state %d", s.TxID), s)
	}
	for _, p := range l.proofs {
		if len(p.Signature) > 0 {
			verify(fmt.Sprintf("proof %d→%d", p.source, p.target), proof.SignedState{
				DB: l.states[0].DB, State: l.state(p.target), PublicKey: p.PublicKey, Signature: p.Signature,
			})
		}
	}
	if checked == 0 {
		t.Fatal("nothing checked")
	}
}

func (l *recordedLedger) testProofs(t *testing.T) {
	verified, rebuilt, open := 0, 0, 0
	for _, p := range l.proofs {
		source, target := l.state(p.source), l.state(p.target)
		extra, err := l.settle(p.Proof, func(x *proof.Extra) error {
			return proof.VerifyDual(p.Proof, source, target, x)
		})
		switch {
		case errors.Is(err, errNotRecorded):
			// Decided only as far as the recording goes: everything that is
			// there holds.
			open++
			t.Logf("%d→%d holds as far as it goes: %v", p.source, p.target, err)
		case err != nil:
			t.Errorf("%d→%d: %v", p.source, p.target, err)
		default:
			verified++
			if extra.Advance != nil {
				rebuilt++
			}
		}
		if p.Header != nil && p.Header.Alh() != target.Alh {
			t.Errorf("%d→%d: the transaction's header is not the target's", p.source, p.target)
		}
	}
	t.Logf("%d verified, %d of them with a rebuilt advance proof; %d not decidable from the recording", verified, rebuilt, open)
	if verified == 0 {
		t.Fatal("nothing verified")
	}
}

func (l *recordedLedger) testCheckpoints(t *testing.T) {
	formed, compared := 0, 0
	roots := map[uint64]proof.Hash{}
	for _, h := range l.headers {
		if h.BlTxID > 0 {
			roots[h.BlTxID] = h.BlRoot
		}
	}
	for _, p := range l.proofs {
		var root proof.Hash
		_, err := l.settle(p.Proof, func(x *proof.Extra) (err error) {
			root, err = proof.CheckpointRoot(p.Proof, l.state(p.source), l.state(p.target), x)
			return err
		})
		if errors.Is(err, errNotRecorded) {
			continue
		}
		if err != nil {
			t.Errorf("%d→%d: %v", p.source, p.target, err)
			continue
		}
		formed++
		// Whichever proof leads there, and whatever header commits to it
		// later: one root.
		want, ok := roots[p.target]
		if ok && root != want {
			t.Errorf("%d→%d: root %s, elsewhere %s", p.source, p.target, root, want)
		}
		if ok {
			compared++
		}
		roots[p.target] = root
	}
	t.Logf("%d roots formed, %d of them compared", formed, compared)
	if compared == 0 {
		t.Fatal("nothing compared")
	}
}

func (l *recordedLedger) testEntryTrees(t *testing.T) {
	checked := 0
	for _, x := range l.txs {
		if x.digests == nil {
			continue
		}
		h, entries, _, err := wire.DecodeTx(x.digests)
		if err != nil {
			t.Errorf("transaction %d: %v", x.tx, err)
			continue
		}
		if want, ok := l.alhs[x.tx]; ok && h.Alh() != want {
			t.Errorf("transaction %d: header hashes to %s, wanted %s", x.tx, h.Alh(), want)
		}
		if err := proof.VerifyEntries(&h, entries); err != nil {
			t.Errorf("transaction %d: %v", x.tx, err)
		}
		if len(entries) > 1 {
			if err := proof.VerifyEntries(&h, entries[1:]); !isMismatch(err, proof.CheckEntryTree) {
				t.Errorf("transaction %d without its first entry: %v", x.tx, err)
			}
		}
		checked++
	}
	if checked == 0 {
		t.Fatal("nothing checked")
	}
}

func (l *recordedLedger) testValues(t *testing.T) {
	checked := 0
	for _, x := range l.txs {
		if x.raw == nil {
			// Legitimate only where retention says so (docs/protocol.md §7).
			if x.rawError == "" || x.tx >= x.truncatedSince {
				t.Errorf("transaction %d has no values (%q), truncated before %d", x.tx, x.rawError, x.truncatedSince)
			}
			checked++
			continue
		}
		_, all, _, err := wire.DecodeTx(x.digests)
		if err != nil {
			t.Errorf("transaction %d: %v", x.tx, err)
			continue
		}
		_, entries, values, err := wire.DecodeTx(x.raw)
		if err != nil {
			t.Errorf("transaction %d: %v", x.tx, err)
			continue
		}
		known := map[string]proof.Entry{}
		for _, e := range all {
			known[string(e.Key)] = e
		}
		for i := range entries {
			e, ok := known[string(entries[i].Key)]
			if !ok || e.HValue != entries[i].HValue {
				t.Errorf("transaction %d: entry %x is not one of the listing's", x.tx, entries[i].Key)
				continue
			}
			if len(values[i]) == 0 {
				continue // servers before 1.2.3 send none; some entries have none
			}
			if err := proof.VerifyValue(&e, values[i]); err != nil {
				t.Errorf("transaction %d: %v", x.tx, err)
			}
			values[i][0] ^= 1
			if err := proof.VerifyValue(&e, values[i]); !isMismatch(err, proof.CheckValue) {
				t.Errorf("transaction %d, changed value: %v", x.tx, err)
			}
		}
		checked++
	}
	if checked == 0 {
		t.Fatal("nothing checked")
	}
}

func (l *recordedLedger) testExports(t *testing.T) {
	checked := 0
	for _, x := range l.txs {
		if len(x.export) == 0 {
			continue
		}
		got, err := proof.ParseExport(x.export)
		if err != nil {
			t.Errorf("transaction %d: %v", x.tx, err)
			continue
		}
		if want, ok := l.alhs[x.tx]; ok && got.Header.Alh() != want {
			t.Errorf("transaction %d: header hashes to %s, wanted %s", x.tx, got.Header.Alh(), want)
		}
		entries := make([]proof.Entry, len(got.Entries))
		for i := range got.Entries {
			entries[i] = got.Entries[i].Entry
		}
		if err := proof.VerifyEntries(&got.Header, entries); err != nil {
			t.Errorf("transaction %d: %v", x.tx, err)
		}
		back, err := proof.AppendExport(nil, got)
		if err != nil || string(back) != string(x.export) {
			t.Errorf("transaction %d: encodes differently (error %v)", x.tx, err)
		}
		checked++
	}
	// A server does not export what retention has cut.
	if cut := len(l.txs) > 0 && l.txs[0].truncatedSince > 0; checked == 0 && !cut {
		t.Fatal("nothing checked")
	}
}

func isMismatch(err error, check proof.Check) bool {
	m, ok := errors.AsType[*proof.Mismatch](err)
	return ok && m.Check == check
}

func isUnproven(err error, need proof.Need) bool {
	u, ok := errors.AsType[*proof.Unproven](err)
	return ok && u.Need == need
}

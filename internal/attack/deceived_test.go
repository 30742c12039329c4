package attack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// trusting is a client that verifies every dual proof by steps 1 to 7 of
// docs/protocol.md §4.2, which is what verifiers check that are in use, and
// nothing else. With binding it makes step 8 too.
type trusting struct {
	*client
	binding bool
	tx      uint64
	alh     [32]byte
}

// audit moves on to the newest state, if the server proves it.
func (c *trusting) audit(ctx context.Context) error {
	s, err := c.CurrentState(c.with(ctx), &emptypb.Empty{})
	if err != nil {
		return err
	}
	if c.tx == 0 {
		c.tx, c.alh = s.GetTxId(), [32]byte(s.GetTxHash())
		return nil
	}
	p, err := c.proof(ctx, s.GetTxId(), c.tx)
	if err != nil {
		return err
	}
	if err := verify(p, c.alh, [32]byte(s.GetTxHash())); err != nil {
		return err
	}
	if c.binding {
		if err := c.bound(ctx, p); err != nil {
			return err
		}
	}
	c.tx, c.alh = s.GetTxId(), [32]byte(s.GetTxHash())
	return nil
}

// read is a verified read of a transaction: proven against the audited state.
func (c *trusting) read(ctx context.Context, tx uint64) (ledger.Header, error) {
	p, err := c.proof(ctx, tx, c.tx)
	if err != nil {
		return ledger.Header{}, err
	}
	h := headerOf(p.GetSourceTxHeader())
	if h.ID != tx {
		return h, errors.New("another transaction")
	}
	return h, verify(p, h.Alh(), c.alh)
}

func (c *trusting) proof(ctx context.Context, tx, since uint64) (*schema.DualProof, error) {
	m, err := c.VerifiableTxById(c.with(ctx), &schema.VerifiableTxRequest{Tx: tx, ProveSinceTx: since})
	return m.GetDualProof(), err
}

// bound is step 8: the newest leaf is the chain's.
func (c *trusting) bound(ctx context.Context, p *schema.DualProof) error {
	source, target := p.GetSourceTxHeader(), p.GetTargetTxHeader()
	if target.GetBlTxId() <= source.GetBlTxId() || source.GetId() < target.GetBlTxId() {
		return nil
	}
	q, err := c.proof(ctx, target.GetId(), target.GetBlTxId())
	if err != nil {
		return err
	}
	// From the newest leaf by the chain to the trusted and the target state.
	alh, found := [32]byte(p.GetTargetBlTxAlh()), source.GetId() == target.GetBlTxId()
	if found && alh != c.alh {
		return errUnbound
	}
	for i, term := range q.GetLinearProof().GetTerms() {
		if i > 0 {
			id := target.GetBlTxId() + uint64(i)
			alh = link(id, alh, term)
			found = found || id == source.GetId() && alh == c.alh
		}
	}
	h := headerOf(target)
	if !found || alh != h.Alh() {
		return errUnbound
	}
	return nil
}

var errUnbound = errors.New("the newest leaf of the tree is not the chain's")

// verify is steps 1 to 7.
func verify(p *schema.DualProof, sourceAlh, targetAlh [32]byte) error {
	s, t := p.GetSourceTxHeader(), p.GetTargetTxHeader()
	sh, th := headerOf(s), headerOf(t)
	if sh.Alh() != sourceAlh || th.Alh() != targetAlh {
		return errors.New("step 2")
	}
	source, size := s.GetId(), t.GetBlTxId()
	newest := [32]byte(p.GetTargetBlTxAlh())
	if source < size {
		if err := included(sourceAlh, source, size, p.GetInclusionProof(), t.GetBlRoot()); err != nil {
			return fmt.Errorf("step 3: %w", err)
		}
	}
	if old := s.GetBlTxId(); old > 0 && old < size {
		path := p.GetConsistencyProof()
		if old&(old-1) == 0 { // one node more than RFC 6962 has, docs/protocol.md §3
			if len(path) == 0 || !bytes.Equal(path[0], s.GetBlRoot()) {
				return errors.New("step 4")
			}
			path = path[1:]
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old, size, path, s.GetBlRoot(), t.GetBlRoot()); err != nil {
			return fmt.Errorf("step 4: %w", err)
		}
	}
	if err := included(newest, size, size, p.GetLastInclusionProof(), t.GetBlRoot()); err != nil {
		return fmt.Errorf("step 5: %w", err)
	}
	start, alh := source, sourceAlh
	if source < size {
		start, alh = size, newest
	}
	l := p.GetLinearProof()
	if l.GetSourceTxId() != start || l.GetTargetTxId() != t.GetId() || uint64(len(l.GetTerms())) != t.GetId()-start+1 || !bytes.Equal(l.GetTerms()[0], alh[:]) {
		return errors.New("step 6: shape")
	}
	for i, term := range l.GetTerms()[1:] {
		alh = link(start+1+uint64(i), alh, term)
	}
	if alh != targetAlh {
		return errors.New("step 6")
	}
	end := newest
	if source < size {
		end = sourceAlh
	}
	return advanced(p.GetLinearAdvanceProof(), s.GetBlTxId(), min(source, size), size, end, t.GetBlRoot())
}

// advanced is step 7.
func advanced(a *schema.LinearAdvanceProof, start, end, size uint64, want [32]byte, root []byte) error {
	if end <= start+1 {
		return nil
	}
	if uint64(len(a.GetLinearProofTerms())) != end-start || uint64(len(a.GetInclusionProofs())) != end-start-1 {
		return errors.New("step 7: shape")
	}
	alh := [32]byte(a.LinearProofTerms[0])
	for tx := start + 1; tx < end; tx++ {
		if err := included(alh, tx, size, a.InclusionProofs[tx-start-1].GetTerms(), root); err != nil {
			return fmt.Errorf("step 7: %w", err)
		}
		alh = link(tx+1, alh, a.LinearProofTerms[tx-start])
	}
	if alh != want {
		return errors.New("step 7")
	}
	return nil
}

func included(alh [32]byte, tx, size uint64, path [][]byte, root []byte) error {
	h := rfc6962.DefaultHasher
	return proof.VerifyInclusion(h, tx-1, size, h.HashLeaf(alh[:]), path, root)
}

func link(tx uint64, prev [32]byte, inner []byte) [32]byte {
	b := binary.BigEndian.AppendUint64(nil, tx)
	return sha256.Sum256(append(append(b, prev[:]...), inner...))
}

func headerOf(m *schema.TxHeader) ledger.Header {
	h := ledger.Header{
		ID: m.GetId(), Ts: m.GetTs(), Version: uint16(m.GetVersion()), NEntries: uint32(m.GetNentries()), BlTxID: m.GetBlTxId(),
		Metadata: ledger.TxMetadata{TruncatedTxID: m.GetMetadata().GetTruncatedTxID(), Extra: m.GetMetadata().GetExtra()},
	}
	copy(h.PrevAlh[:], m.GetPrevAlh())
	copy(h.EH[:], m.GetEH())
	copy(h.BlRoot[:], m.GetBlRoot())
	return h
}

// TestDeceived shows what is wrong with trusting dual proofs alone (A31, A32):
// a client that verifies every one of them is shown, against the state it
// audited, a transaction that never was. One that checks the binding of the
// newest leaf is not, except for leaves between two audits: those take a walk.
func TestDeceived(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		swapped        uint64 // the transaction
		bindingNotices bool
	}{
		{"leaf-swap", 24, true},
		{"leaf-swap-lagging", 21, true},
		{"leaf-swap-catching-up", 24, true},
		{"junk-leaves", 28, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, ok := attack.Find(c.name)
			if !ok {
				t.Fatal("no such scenario")
			}
			st := newStage(t, s)
			plain := &trusting{client: admin(t, st)}
			careful := &trusting{client: plain.client, binding: true}
			// Both audit after each step, and at last after six more.
			last := attack.Step{Strike: func(st *attack.Stage) error { return st.Write(6) }}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := errors.Join(plain.audit(ctx), careful.audit(ctx)); err != nil {
				t.Fatal(err)
			}
			var noticed error
			for i, step := range append(s.Steps, last) {
				if err := step.Strike(st); err != nil {
					t.Fatal(err)
				}
				if err := plain.audit(ctx); err != nil {
					t.Fatalf("step %d: the client that trusts dual proofs noticed: %v", i+1, err)
				}
				noticed = errors.Join(noticed, careful.audit(ctx))
			}
			if (noticed != nil) != c.bindingNotices {
				t.Errorf("the client that checks the newest leaf: %v", noticed)
			}

			db, err := st.Ledger.Database(st.Database)
			if err != nil {
				t.Fatal(err)
			}
			honest, err := db.Snapshot().Tx(c.swapped)
			if err != nil {
				t.Fatal(err)
			}
			shown, err := plain.read(ctx, c.swapped)
			if err != nil {
				t.Fatalf("the swapped transaction does not verify: %v", err)
			}
			if shown.EH == honest.Header.EH || shown.Alh() == honest.Alh {
				t.Error("the client was shown the transaction that is in the chain")
			}
			// The chain itself is whole: a walk over it leads to the audited state.
			alh := sha256.Sum256(nil)
			for tx := uint64(1); tx <= plain.tx; tx++ {
				stored, err := db.Snapshot().Tx(tx)
				if err != nil {
					t.Fatal(err)
				}
				inner := stored.Header.Inner()
				alh = link(tx, alh, inner[:])
			}
			if alh != plain.alh {
				t.Error("the chain was touched")
			}
		})
	}
}

// TestHonestReads: the client above does verify, and honest reads pass.
func TestHonestReads(t *testing.T) {
	t.Parallel()
	s, ok := attack.Find("lagging-trees")
	if !ok {
		t.Fatal("no such scenario")
	}
	st := newStage(t, s)
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		t.Fatal(err)
	}
	db.SetBlTxID(nil)
	if err := st.Write(1); err != nil {
		t.Fatal(err)
	}
	c := &trusting{client: admin(t, st), binding: true}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 3 {
		if err := c.audit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := st.Write(3); err != nil {
			t.Fatal(err)
		}
	}
	h, err := c.read(ctx, 20)
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := db.Snapshot().Tx(20); err != nil || h.Alh() != stored.Alh {
		t.Errorf("read another transaction: %v", err)
	}
	// And a damaged one does not.
	st.Layer.Add(attack.Rule{Change: func(_ context.Context, call *attack.Call) error {
		if m, ok := call.Response.(*schema.VerifiableTx); ok {
			m.DualProof.SourceTxHeader.Ts++
		}
		return nil
	}})
	if _, err := c.read(ctx, 20); err == nil {
		t.Error("a damaged transaction verified")
	}
	st.Layer.Clear()
	if _, err := c.read(ctx, 20); err != nil {
		t.Errorf("the layer is not honest again: %v", err)
	}
}

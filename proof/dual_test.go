package proof_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"immuaudit/proof"
)

// lagging is a book in whose proof 10→12 every step has work to do: the
// source's tree lags by four, the target's by one.
func lagging() *book {
	b := new(book)
	for id := uint64(1); id <= 12; id++ {
		switch id {
		case 9, 10:
			b.commit(6, nil)
		case 12:
			b.commit(11, nil)
		default:
			b.commit(id-1, nil)
		}
	}
	return b
}

// behind is a book in whose proof 10→11 the source lies beyond the target's
// tree, so that a binding proof is needed.
func behind() *book {
	b := new(book)
	for id := uint64(1); id <= 12; id++ {
		switch id {
		case 10:
			b.commit(5, nil)
		case 11:
			b.commit(8, nil)
		default:
			b.commit(id-1, nil)
		}
	}
	return b
}

// Every step refuses what it is there for, under its own name, although all
// others hold.
func TestDualProofSteps(t *testing.T) {
	t.Parallel()
	other := proof.Hash{1, 2, 3}
	for _, c := range []struct {
		name    string
		book    *book
		s, t    uint64
		corrupt func(p *proof.DualProof, s, t *proof.State, x *proof.Extra)
		want    proof.Check
	}{
		{"another source state", lagging(), 10, 12, func(_ *proof.DualProof, s, _ *proof.State, _ *proof.Extra) { s.Alh = other }, proof.CheckAlhSource},
		{"another source header", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Source.Ts++ }, proof.CheckAlhSource},
		{"another target state", lagging(), 10, 12, func(_ *proof.DualProof, _, t *proof.State, _ *proof.Extra) { t.Alh = other }, proof.CheckAlhTarget},
		{"another target header", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Target.EH = other }, proof.CheckAlhTarget},
		{"inclusion", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Inclusion[1] = other }, proof.CheckInclusion},
		{"consistency", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Consistency[1] = other }, proof.CheckConsistency},
		{"consistency, old size a power of two", honest(12), 9, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Consistency[0] = other }, proof.CheckConsistency},
		{"consistency, equal sizes", lagging(), 9, 10, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Consistency[1] = other }, proof.CheckConsistency},
		{"last inclusion", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.LastInclusion[0] = other }, proof.CheckLastInclusion},
		{"last leaf", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.TargetBlTxAlh = other }, proof.CheckLastInclusion},
		{"start of the chain", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Linear.Terms[0] = other }, proof.CheckLinear},
		{"end of the chain", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Linear.Terms[1] = other }, proof.CheckLinear},
		{"advance, first term", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Advance.Terms[0] = other }, proof.CheckLinearAdvance},
		{"advance, last term", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Advance.Terms[3] = other }, proof.CheckLinearAdvance},
		{"advance, a path", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Advance.Inclusions[2][0] = other }, proof.CheckLinearAdvance},
		{"advance, rebuilt", lagging(), 10, 12, func(p *proof.DualProof, _, _ *proof.State, x *proof.Extra) {
			x.Advance, p.Advance = p.Advance, nil
			x.Advance.Terms[1] = other
		}, proof.CheckLinearAdvance},
		{"advance that ends at the last leaf", behind(), 10, 11, func(p *proof.DualProof, _, _ *proof.State, _ *proof.Extra) { p.Advance.Terms[2] = other }, proof.CheckLinearAdvance},
		{"binding, its first header", behind(), 10, 11, func(_ *proof.DualProof, _, _ *proof.State, x *proof.Extra) { x.Binding.Source.Ts++ }, proof.CheckLeafBinding},
		{"binding, its last header", behind(), 10, 11, func(_ *proof.DualProof, _, _ *proof.State, x *proof.Extra) { x.Binding.Target.Ts++ }, proof.CheckLeafBinding},
		{"binding, start", behind(), 10, 11, func(_ *proof.DualProof, _, _ *proof.State, x *proof.Extra) { x.Binding.Linear.Terms[0] = other }, proof.CheckLeafBinding},
		{"binding, on its way", behind(), 10, 11, func(_ *proof.DualProof, _, _ *proof.State, x *proof.Extra) { x.Binding.Linear.Terms[1] = other }, proof.CheckLeafBinding},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, s, target := c.book.dual(c.s, c.t), c.book.state(c.s), c.book.state(c.t)
			extra := c.book.extra(p)
			if err := proof.VerifyDual(p, s, target, extra); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.corrupt(p, &s, &target, extra)
			err := proof.VerifyDual(p, s, target, extra)
			if !isMismatch(err, c.want) {
				t.Fatalf("got %v, wanted a mismatch at %s", err, c.want)
			}
			if _, err := proof.CheckpointRoot(p, s, target, extra); !isMismatch(err, c.want) {
				t.Fatalf("checkpoint: got %v, wanted a mismatch at %s", err, c.want)
			}
		})
	}
}

// A part that is absent or too short is not proven, and says what is needed;
// one too long, or not needed, is malformed.
func TestDualProofParts(t *testing.T) {
	t.Parallel()
	b := lagging()
	lists := map[string]struct {
		of   func(*proof.DualProof) *[]proof.Hash
		need proof.Need
	}{
		"inclusion":       {func(p *proof.DualProof) *[]proof.Hash { return &p.Inclusion }, proof.NeedComplete},
		"consistency":     {func(p *proof.DualProof) *[]proof.Hash { return &p.Consistency }, proof.NeedComplete},
		"last inclusion":  {func(p *proof.DualProof) *[]proof.Hash { return &p.LastInclusion }, proof.NeedComplete},
		"linear":          {func(p *proof.DualProof) *[]proof.Hash { return &p.Linear.Terms }, proof.NeedComplete},
		"advance terms":   {func(p *proof.DualProof) *[]proof.Hash { return &p.Advance.Terms }, proof.NeedAdvance},
		"advance path":    {func(p *proof.DualProof) *[]proof.Hash { return &p.Advance.Inclusions[0] }, proof.NeedAdvance},
		"advance, path 2": {func(p *proof.DualProof) *[]proof.Hash { return &p.Advance.Inclusions[2] }, proof.NeedAdvance},
	}
	for name, list := range lists {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := b.dual(10, 12)
			l := list.of(p)
			whole := *l
			for n := range whole {
				*l = whole[:n]
				err := proof.VerifyDual(p, b.state(10), b.state(12), nil)
				// Inclusions beside too few terms have no shape at all.
				if name == "advance terms" && isMalformed(err) {
					continue
				}
				if !isUnproven(err, list.need) {
					t.Errorf("%d of %d: %v", n, len(whole), err)
				}
			}
			*l = append(slices.Clone(whole), proof.Hash{})
			if err := proof.VerifyDual(p, b.state(10), b.state(12), nil); !isMalformed(err) {
				t.Errorf("one too many: %v", err)
			}
		})
	}

	t.Run("no advance", func(t *testing.T) {
		t.Parallel()
		p := b.dual(10, 12)
		for _, a := range []*proof.AdvanceProof{nil, {}, {Terms: p.Advance.Terms}} {
			q := *p
			q.Advance = a
			err := proof.VerifyDual(&q, b.state(10), b.state(12), nil)
			u, ok := errors.AsType[*proof.Unproven](err)
			if !ok || u.Need != proof.NeedAdvance || u.From != 6 || u.To != 10 {
				t.Errorf("%+v: %v", a, err)
			}
			// A sound one from elsewhere decides it, as does an unsound one.
			if err := proof.VerifyDual(&q, b.state(10), b.state(12), &proof.Extra{Advance: p.Advance}); err != nil {
				t.Errorf("%+v, rebuilt: %v", a, err)
			}
		}
	})
	t.Run("no linear", func(t *testing.T) {
		t.Parallel()
		p := b.dual(10, 12)
		p.Linear = proof.LinearProof{}
		if err := proof.VerifyDual(p, b.state(10), b.state(12), nil); !isUnproven(err, proof.NeedComplete) {
			t.Error(err)
		}
	})
	t.Run("no binding", func(t *testing.T) {
		t.Parallel()
		b := behind()
		p := b.dual(10, 11)
		err := proof.VerifyDual(p, b.state(10), b.state(11), nil)
		u, ok := errors.AsType[*proof.Unproven](err)
		if !ok || u.Need != proof.NeedBinding || u.From != 8 || u.To != 11 {
			t.Errorf("got %v", err)
		}
		x := b.extra(p)
		x.Binding.Linear.Terms = x.Binding.Linear.Terms[:2]
		if err := proof.VerifyDual(p, b.state(10), b.state(11), x); !isUnproven(err, proof.NeedComplete) {
			t.Errorf("short binding: %v", err)
		}
	})
	t.Run("a contradiction beats what is missing", func(t *testing.T) {
		t.Parallel()
		p := b.dual(10, 12)
		p.Inclusion, p.Advance = nil, nil
		p.Linear.Terms[1][7] ^= 1
		if err := proof.VerifyDual(p, b.state(10), b.state(12), nil); !isMismatch(err, proof.CheckLinear) {
			t.Error(err)
		}
	})
	t.Run("not needed", func(t *testing.T) {
		t.Parallel()
		b := honest(12)
		for name, add := range map[string]func(*proof.DualProof){
			"inclusion":   func(p *proof.DualProof) { p.Inclusion = make([]proof.Hash, 1) },
			"consistency": func(p *proof.DualProof) { p.Consistency = make([]proof.Hash, 1) },
			"last":        func(p *proof.DualProof) { p.LastInclusion = make([]proof.Hash, 1) },
			"leaf":        func(p *proof.DualProof) { p.TargetBlTxAlh[0] = 1 },
			"advance":     func(p *proof.DualProof) { p.Advance = &proof.AdvanceProof{Terms: make([]proof.Hash, 2)} },
			"paths":       func(p *proof.DualProof) { p.Advance = &proof.AdvanceProof{Inclusions: make([][]proof.Hash, 1)} },
		} {
			p := b.dual(1, 1)
			add(p)
			if err := proof.VerifyDual(p, b.state(1), b.state(1), nil); !isMalformed(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Shapes and bounds (docs/protocol.md §4.2 step 1).
func TestDualProofMalformed(t *testing.T) {
	t.Parallel()
	b := lagging()
	for name, breakIt := range map[string]func(p *proof.DualProof, s, t *proof.State){
		"source 0":         func(_ *proof.DualProof, s, _ *proof.State) { s.TxID = 0 },
		"backwards":        func(_ *proof.DualProof, s, t *proof.State) { s.TxID = t.TxID + 1 },
		"target 2⁶³":       func(p *proof.DualProof, _, t *proof.State) { t.TxID, p.Target.ID = 1<<63, 1<<63 },
		"another source":   func(p *proof.DualProof, _, _ *proof.State) { p.Source.ID = 9 },
		"another target":   func(p *proof.DualProof, _, _ *proof.State) { p.Target.ID = 13 },
		"source blTxId":    func(p *proof.DualProof, _, _ *proof.State) { p.Source.BlTxID = 10 },
		"target blTxId":    func(p *proof.DualProof, _, _ *proof.State) { p.Target.BlTxID = 1 << 62 },
		"version 7":        func(p *proof.DualProof, _, _ *proof.State) { p.Target.Version = 7 },
		"linear source":    func(p *proof.DualProof, _, _ *proof.State) { p.Linear.SourceTxID = 10 },
		"linear target":    func(p *proof.DualProof, _, _ *proof.State) { p.Linear.TargetTxID = 1 << 63 },
		"linear too long":  func(p *proof.DualProof, _, _ *proof.State) { p.Linear.Terms = make([]proof.Hash, 1000) },
		"path too long":    func(p *proof.DualProof, _, _ *proof.State) { p.Inclusion = make([]proof.Hash, 100) },
		"list too long":    func(p *proof.DualProof, _, _ *proof.State) { p.Consistency = make([]proof.Hash, 100) },
		"advance too long": func(p *proof.DualProof, _, _ *proof.State) { p.Advance.Terms = make([]proof.Hash, 1000) },
	} {
		p, s, target := b.dual(10, 12), b.state(10), b.state(12)
		breakIt(p, &s, &target)
		if err := proof.VerifyDual(p, s, target, nil); !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := proof.VerifyDual(nil, b.state(10), b.state(12), nil); !isMalformed(err) {
		t.Errorf("nil: %v", err)
	}
	bind := behind()
	for name, x := range map[string]*proof.Extra{
		"binding of another pair": {Binding: bind.dual(9, 11)},
		"empty binding":           {Binding: &proof.DualProof{}},
		"advance of another pair": {Advance: b.dual(10, 12).Advance},
	} {
		if err := proof.VerifyDual(bind.dual(10, 11), bind.state(10), bind.state(11), x); !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Data of old servers whose trees are not monotone is honest, but only the
// walk can show it (docs/protocol.md §4.2 step 9).
func TestDualProofShrinkingTree(t *testing.T) {
	t.Parallel()
	b := new(book)
	for id := uint64(1); id <= 20; id++ {
		bl := id - 1
		if id > 15 {
			bl = 12
		}
		b.commit(bl, nil)
	}
	err := proof.VerifyDual(b.dual(15, 18), b.state(15), b.state(18), nil)
	if u, ok := errors.AsType[*proof.Unproven](err); !ok || u.Need != proof.NeedWalk || u.From != 15 || u.To != 18 {
		t.Errorf("got %v", err)
	}
	p := b.dual(15, 18)
	p.Linear.Terms[2][0] ^= 1
	if err := proof.VerifyDual(p, b.state(15), b.state(18), nil); !isMismatch(err, proof.CheckLinear) {
		t.Errorf("broken: %v", err)
	}
	var w proof.Walk
	walkTo(t, &w, b, 20)
}

// A gap that nobody should collect proofs for is for the walk.
func TestDualProofWideAdvance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		lag  uint64
		need proof.Need
	}{{proof.MaxAdvance, proof.NeedAdvance}, {proof.MaxAdvance + 1, proof.NeedWalk}} {
		b := honest(3)
		for id := uint64(4); id <= 3+c.lag; id++ {
			b.commit(3, nil)
		}
		last := 3 + c.lag
		b.grow()
		b.commit(last, nil)
		p := b.dual(last, last+1)
		if err := proof.VerifyDual(p, b.state(last), b.state(last+1), nil); err != nil {
			t.Errorf("lag %d, sent: %v", c.lag, err)
		}
		p.Advance = nil
		if err := proof.VerifyDual(p, b.state(last), b.state(last+1), nil); !isUnproven(err, c.need) {
			t.Errorf("lag %d, not sent: %v", c.lag, err)
		}
	}
}

func TestRebuildAdvance(t *testing.T) {
	t.Parallel()
	b := lagging()
	want := b.dual(10, 12).Advance
	var inclusions [][]proof.Hash
	for tx := uint64(7); tx < 10; tx++ {
		inclusions = append(inclusions, b.dual(tx, 12).Inclusion)
	}
	got, err := proof.RebuildAdvance(6, 10, b.headers[6:10], inclusions)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, bad := range map[string]func() (*proof.AdvanceProof, error){
		"a header less": func() (*proof.AdvanceProof, error) { return proof.RebuildAdvance(6, 10, b.headers[6:9], inclusions) },
		"a path less": func() (*proof.AdvanceProof, error) {
			return proof.RebuildAdvance(6, 10, b.headers[6:10], inclusions[1:])
		},
		"other headers": func() (*proof.AdvanceProof, error) { return proof.RebuildAdvance(6, 10, b.headers[5:9], inclusions) },
		"invalid header": func() (*proof.AdvanceProof, error) {
			return proof.RebuildAdvance(6, 10, make([]proof.Header, 4), inclusions)
		},
		"backwards":        func() (*proof.AdvanceProof, error) { return proof.RebuildAdvance(10, 6, nil, nil) },
		"beyond the limit": func() (*proof.AdvanceProof, error) { return proof.RebuildAdvance(0, 1<<62, nil, nil) },
		"nothing to prove": func() (*proof.AdvanceProof, error) { return proof.RebuildAdvance(6, 7, b.headers[6:7], nil) },
	} {
		if _, err := bad(); !isMalformed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func isMalformed(err error) bool {
	_, ok := errors.AsType[*proof.Malformed](err)
	return ok
}

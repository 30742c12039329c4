package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"immuaudit/internal/wire/schema"
)

// A checker of docs/protocol.md §4.2, written straight from its steps and from
// RFC 9162's verification algorithms; it shares nothing with what builds proofs.

func hashOf(parts ...[]byte) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}

// checkInclusion is RFC 9162 §2.1.3.2.
func checkInclusion(leaf [32]byte, index, size uint64, path [][]byte, root []byte) error {
	if index >= size {
		return errors.New("index beyond size")
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return errors.New("path too long")
		}
		if fn%2 == 1 || fn == sn {
			r = hashOf([]byte{1}, p, r[:])
			for fn%2 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = hashOf([]byte{1}, r[:], p)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 || string(r[:]) != string(root) {
		return errors.New("inclusion does not verify")
	}
	return nil
}

// checkConsistency is RFC 9162 §2.1.4.2 with the deviations of §3.
func checkConsistency(m, n uint64, path [][]byte, oldRoot, newRoot []byte) error {
	bad := errors.New("consistency does not verify")
	if m == n {
		if string(oldRoot) != string(newRoot) {
			return bad
		}
		if m == 1 && len(path) == 0 {
			return nil
		}
		if r := hashOf([]byte{1}, path[1], path[0]); len(path) != 2 || string(r[:]) != string(newRoot) {
			return bad
		}
		return nil
	}
	if m&(m-1) == 0 && string(path[0]) != string(oldRoot) {
		return bad
	}
	fn, sn := m-1, n-1
	for fn%2 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	fr, sr := [32]byte(path[0]), [32]byte(path[0])
	for _, c := range path[1:] {
		if sn == 0 {
			return bad
		}
		if fn%2 == 1 || fn == sn {
			fr, sr = hashOf([]byte{1}, c, fr[:]), hashOf([]byte{1}, c, sr[:])
			for fn%2 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			sr = hashOf([]byte{1}, sr[:], c)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 || string(fr[:]) != string(oldRoot) || string(sr[:]) != string(newRoot) {
		return bad
	}
	return nil
}

func step(n uint64, prev [32]byte, term []byte) [32]byte {
	return hashOf(be.AppendUint64(nil, n), prev[:], term)
}

func checkDual(p *schema.DualProof, sAlh, tAlh [32]byte) error {
	s, t := p.SourceTxHeader, p.TargetTxHeader
	source, target, size := s.Id, t.Id, t.BlTxId
	sh, th := headerOf(s), headerOf(t)
	if sh.Alh() != sAlh || th.Alh() != tAlh {
		return errors.New("headers")
	}
	blAlh := [32]byte(p.TargetBlTxAlh)
	if source < size {
		if err := checkInclusion(hashOf([]byte{0}, sAlh[:]), source-1, size, p.InclusionProof, t.BlRoot); err != nil {
			return fmt.Errorf("source: %w", err)
		}
	} else if len(p.InclusionProof) > 0 {
		return errors.New("needless inclusion proof")
	}
	if s.BlTxId > 0 {
		if err := checkConsistency(s.BlTxId, size, p.ConsistencyProof, s.BlRoot, t.BlRoot); err != nil {
			return err
		}
	}
	if size > 0 {
		if err := checkInclusion(hashOf([]byte{0}, blAlh[:]), size-1, size, p.LastInclusionProof, t.BlRoot); err != nil {
			return fmt.Errorf("last: %w", err)
		}
	}
	start, alh := source, sAlh
	if source < size {
		start, alh = size, blAlh
	}
	l := p.LinearProof
	if l.SourceTxId != start || l.TargetTxId != target || uint64(len(l.Terms)) != target-start+1 || [32]byte(l.Terms[0]) != alh {
		return errors.New("linear proof: shape")
	}
	for i := uint64(1); i <= target-start; i++ {
		alh = step(start+i, alh, l.Terms[i])
	}
	if alh != tAlh {
		return errors.New("linear proof")
	}
	want := blAlh
	if source < size {
		want = sAlh
	}
	return checkAdvance(p.LinearAdvanceProof, s.BlTxId, min(source, size), size, want, t.BlRoot)
}

func checkAdvance(p *schema.LinearAdvanceProof, start, end, size uint64, want [32]byte, root []byte) error {
	if end <= start+1 {
		if p != nil {
			return errors.New("needless advance proof")
		}
		return nil
	}
	if p == nil || uint64(len(p.LinearProofTerms)) != end-start || uint64(len(p.InclusionProofs)) != end-start-1 {
		return errors.New("advance proof: shape")
	}
	alh := [32]byte(p.LinearProofTerms[0])
	for tx := start + 1; tx < end; tx++ {
		if err := checkInclusion(hashOf([]byte{0}, alh[:]), tx-1, size, p.InclusionProofs[tx-start-1].Terms, root); err != nil {
			return fmt.Errorf("advance: %w", err)
		}
		alh = step(tx+1, alh, p.LinearProofTerms[tx-start])
	}
	if alh != want {
		return errors.New("advance proof")
	}
	return nil
}

// TestProofsWithLag: whatever the lag, every pair is proven or refused for the
// one honest reason.
func TestProofsWithLag(t *testing.T) {
	t.Parallel()
	l, err := Open(Config{})
	try(t, err)
	t.Cleanup(func() { try(t, l.Close()) })
	d := database(t, l, DefaultDB)
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(rt, "transactions")
		lags := rapid.SliceOfN(rapid.Uint64Range(0, 20), n, n).Draw(rt, "lags")
		try(t, d.Restore(&Snapshot{}))
		d.SetBlTxID(func(_ string, id uint64) uint64 {
			return id - 1 - min(id-1, lags[id-1])
		})
		for i := range n {
			try(t, d.SetHeaderVersion(i%2))
			if _, err := d.Set([]byte{byte(i + 1)}, []byte("v")); err != nil {
				rt.Fatal(err)
			}
		}
		v := d.view()
		for s := uint64(1); s <= v.last(); s++ {
			for target := s; target <= v.last(); target++ {
				p, err := v.dualProof(s, target, release{1, 11, 1})
				if v.tx(s).Header.BlTxID > v.tx(target).Header.BlTxID {
					if err == nil {
						rt.Fatalf("%d to %d: proven with a tree that shrinks", s, target)
					}
					continue
				}
				if err == nil {
					err = checkDual(p, v.tx(s).Alh, v.tx(target).Alh)
				}
				if err != nil {
					rt.Fatalf("%d to %d: %v", s, target, err)
				}
			}
		}
	})
}

// TestTreeAgainstDefinition compares with RFC 6962's recursive definitions.
func TestTreeAgainstDefinition(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var leaves [][32]byte
	tr := &tree{}
	for n := uint64(1); n <= 130; n++ {
		var data [8]byte
		be.PutUint64(data[:], rng.Uint64())
		leaves = append(leaves, hashOf([]byte{0}, data[:]))
		tr.appendLeaf(leafHash(data[:]))
		root := tr.root(n)
		if want := definedRoot(leaves); root != want {
			t.Fatalf("root of %d leaves: %x, want %x", n, root, want)
		}
		for i := uint64(0); i < n; i += 1 + n/9 {
			if err := checkInclusion(leaves[i], i, n, list(tr.inclusion(i, n)), root[:]); err != nil {
				t.Fatalf("leaf %d of %d: %v", i, n, err)
			}
			old := tr.root(i + 1)
			if err := checkConsistency(i+1, n, list(tr.consistency(i+1, n)), old[:], root[:]); err != nil {
				t.Fatalf("%d to %d leaves: %v", i+1, n, err)
			}
		}
	}
	// Cutting back and growing again, and changing a leaf, end in the same tree
	// as building it at once.
	tr.truncate(77)
	for _, leaf := range leaves[77:] {
		tr.appendLeaf(leaf)
	}
	leaves[13] = [32]byte{1}
	tr.setLeaf(13, leaves[13])
	if tr.root(130) != definedRoot(leaves) {
		t.Error("tree after truncate and setLeaf differs")
	}
}

func definedRoot(leaves [][32]byte) [32]byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	l, r := definedRoot(leaves[:k]), definedRoot(leaves[k:])
	return hashOf([]byte{1}, l[:], r[:])
}

package proof_test

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"immuaudit/proof"
)

// book is a ledger as its owner can write it: a chain of headers, and the
// leaves that its transaction trees are made of. Honestly, leaf n is Alh(n);
// an owner who cheats puts others there. It shares no code with what it
// tests: trees and proofs are the recursive definitions of RFC 6962 §2.1.
type book struct {
	headers []proof.Header // transaction n at n−1
	alhs    []proof.Hash
	leaves  []proof.Hash // what the trees hold; RFC 6962 leaf inputs
	levels  [][]proof.Hash
}

// commit appends a transaction whose tree holds the first bl leaves.
func (b *book) commit(bl uint64, set func(*proof.Header)) {
	id := uint64(len(b.headers) + 1)
	h := proof.Header{
		ID: id, Version: 1, Ts: 1_700_000_000 + int64(id), NEntries: uint32(id%7 + 1),
		EH: sha256.Sum256(binary.BigEndian.AppendUint64([]byte("entries"), id)),
	}
	h.PrevAlh = proof.EmptyAlh()
	if id > 1 {
		h.PrevAlh = b.alhs[id-2]
	}
	if set != nil {
		set(&h)
	}
	if h.BlTxID = bl; bl > 0 {
		h.BlRoot = b.root(bl)
	}
	b.headers = append(b.headers, h)
	b.alhs = append(b.alhs, alhOf(&h))
	b.leaves = append(b.leaves, b.alhs[id-1])
}

// innerOf and alhOf are the formulas of docs/protocol.md §3 once more.
func innerOf(h *proof.Header) proof.Hash {
	d := sha256.New()
	put := func(v any) {
		if err := binary.Write(d, binary.BigEndian, v); err != nil {
			panic(err)
		}
	}
	put(h.Ts)
	put(h.Version)
	if h.Version == 0 {
		put(uint16(h.NEntries))
	} else {
		var md []byte
		if h.Metadata.TruncatedTxID > 0 {
			md = binary.BigEndian.AppendUint64(append(md, 0), h.Metadata.TruncatedTxID)
		}
		if n := len(h.Metadata.Extra); n > 0 {
			md = append(append(md, 1, byte(n>>8), byte(n)), h.Metadata.Extra...)
		}
		put(uint16(len(md)))
		put(md)
		put(h.NEntries)
	}
	put(h.EH)
	put(h.BlTxID)
	put(h.BlRoot)
	return proof.Hash(d.Sum(nil))
}

func alhOf(h *proof.Header) proof.Hash { return link(h.ID, h.PrevAlh, innerOf(h)) }

func link(id uint64, prev, inner proof.Hash) proof.Hash {
	return sha256.Sum256(slices.Concat(binary.BigEndian.AppendUint64(nil, id), prev[:], inner[:]))
}

func leaf(data proof.Hash) proof.Hash { return sha256.Sum256(append([]byte{0}, data[:]...)) }

func node(l, r proof.Hash) proof.Hash {
	return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
}

// split is the largest power of two below n.
func split(n uint64) uint64 {
	k := uint64(1)
	for k*2 < n {
		k *= 2
	}
	return k
}

// sub is MTH(D[lo:hi]).
func (b *book) sub(lo, hi uint64) proof.Hash {
	n := hi - lo
	if n == 1 {
		return leaf(b.leaves[lo])
	}
	// Perfect, aligned subtrees may be cached (see grow).
	if level := len64(n) - 1; n&(n-1) == 0 && lo%n == 0 && level < len(b.levels) && lo/n < uint64(len(b.levels[level])) {
		return b.levels[level][lo/n]
	}
	k := split(n)
	return node(b.sub(lo, lo+k), b.sub(lo+k, hi))
}

func len64(n uint64) (bits int) {
	for ; n > 0; n >>= 1 {
		bits++
	}
	return bits
}

// grow caches the perfect subtrees over the leaves there are, for big books.
func (b *book) grow() {
	level := make([]proof.Hash, len(b.leaves))
	for i, l := range b.leaves {
		level[i] = leaf(l)
	}
	b.levels = [][]proof.Hash{level}
	for len(level) > 1 {
		next := make([]proof.Hash, len(level)/2)
		for i := range next {
			next[i] = node(level[2*i], level[2*i+1])
		}
		b.levels = append(b.levels, next)
		level = next
	}
}

func (b *book) root(size uint64) proof.Hash { return b.sub(0, size) }

// path is PATH(m, D[lo:hi]).
func (b *book) path(m, lo, hi uint64) []proof.Hash {
	n := hi - lo
	if n == 1 {
		return nil
	}
	if k := split(n); m < k {
		return append(b.path(m, lo, lo+k), b.sub(lo+k, hi))
	} else {
		return append(b.path(m-k, lo+k, hi), b.sub(lo, lo+k))
	}
}

// subproof is SUBPROOF(m, D[lo:hi], whole).
func (b *book) subproof(m, lo, hi uint64, whole bool) []proof.Hash {
	n := hi - lo
	if m == n {
		if whole {
			return nil
		}
		return []proof.Hash{b.sub(lo, hi)}
	}
	if k := split(n); m <= k {
		return append(b.subproof(m, lo, lo+k, whole), b.sub(lo+k, hi))
	} else {
		return append(b.subproof(m-k, lo+k, hi, false), b.sub(lo, lo+k))
	}
}

func (b *book) inclusion(tx, size uint64) []proof.Hash { return b.path(tx-1, 0, size) }

// consistency is RFC 6962's with immudb's deviations.
func (b *book) consistency(from, to uint64) []proof.Hash {
	switch {
	case from == to && from == 1:
		return nil
	case from == to:
		k := split(from)
		return []proof.Hash{b.sub(k, from), b.sub(0, k)}
	}
	p := b.subproof(from, 0, to, true)
	if from&(from-1) == 0 {
		p = append([]proof.Hash{b.root(from)}, p...)
	}
	return p
}

func (b *book) state(tx uint64) proof.State {
	if tx == 0 {
		return proof.State{TxID: 0, Alh: proof.EmptyAlh()}
	}
	return proof.State{TxID: tx, Alh: b.alhs[tx-1]}
}

func (b *book) header(tx uint64) proof.Header { return b.headers[tx-1] }

func (b *book) linear(from, to uint64) proof.LinearProof {
	l := proof.LinearProof{SourceTxID: from, TargetTxID: to, Terms: []proof.Hash{b.alhs[from-1]}}
	for tx := from + 1; tx <= to; tx++ {
		h := b.header(tx)
		l.Terms = append(l.Terms, innerOf(&h))
	}
	return l
}

// dual is what a server answers to VerifiableTxById(tx=target,
// proveSinceTx=source), with the advance proof of servers from 1.4.1.
func (b *book) dual(source, target uint64) *proof.DualProof {
	p := &proof.DualProof{Source: b.header(source), Target: b.header(target)}
	s, t := &p.Source, &p.Target
	if source < t.BlTxID {
		p.Inclusion = b.inclusion(source, t.BlTxID)
	}
	if s.BlTxID > 0 && s.BlTxID <= t.BlTxID {
		p.Consistency = b.consistency(s.BlTxID, t.BlTxID)
	}
	start := source
	if t.BlTxID > 0 {
		p.TargetBlTxAlh = b.leaves[t.BlTxID-1]
		p.LastInclusion = b.inclusion(t.BlTxID, t.BlTxID)
		start = max(source, t.BlTxID)
	}
	p.Linear = b.linear(start, target)
	if s.BlTxID > t.BlTxID {
		return p
	}
	if end := min(source, t.BlTxID); end > s.BlTxID+1 {
		p.Advance = &proof.AdvanceProof{Terms: []proof.Hash{b.alhs[s.BlTxID]}}
		for tx := s.BlTxID + 1; tx < end; tx++ {
			h := b.header(tx + 1)
			p.Advance.Inclusions = append(p.Advance.Inclusions, b.inclusion(tx, t.BlTxID))
			p.Advance.Terms = append(p.Advance.Terms, innerOf(&h))
		}
	}
	return p
}

// extra is the binding proof, where there can be one.
func (b *book) extra(p *proof.DualProof) *proof.Extra {
	return &proof.Extra{Binding: b.dual(max(p.Target.BlTxID, 1), p.Target.ID)}
}

// honest is a book of n transactions without lag.
func honest(n uint64) *book {
	b := new(book)
	for id := uint64(1); id <= n; id++ {
		b.commit(id-1, nil)
	}
	return b
}

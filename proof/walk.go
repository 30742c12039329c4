package proof

import "fmt"

// Window is how far back from its position a Walk knows the root of every
// tree size. Trees of servers before 1.3.2 lag behind their transactions, by
// up to 18 as far as seen (docs/protocol.md §3).
const Window = 64

// Walk follows a history header by header (docs/protocol.md §4.1). Every
// transaction is chained to the one before, and every tree root is compared
// with the tree over the Alhs walked, so that no leaf can be anything but the
// chain's own; lagging and non-monotone trees are natural to it.
//
// The zero value stands before transaction 1. A Walk must not be copied, see
// Clone, nor used from two goroutines at once.
type Walk struct {
	_    noCopy
	alh  Hash // of the transaction it stands at; meaningless at 0
	now  tree // over Alh(1)…Alh(N)
	base tree // over the transactions before the window, from which it can be formed again

	// Rings over the window: the Alh of transaction n is alhs[n%Window], the
	// root over the first n transactions roots[n%(Window+1)].
	alhs   [Window]Hash
	leaves [Window]Hash // leaf hashes of alhs, hashed once for both trees
	roots  [Window + 1]Hash
}

// noCopy lets go vet find copies: the trees point into themselves.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// At is the state that the walk has reached: the zero transaction and
// EmptyAlh before transaction 1.
func (w *Walk) At() State {
	if w.now.size() == 0 {
		return State{0, EmptyAlh()}
	}
	return State{w.now.size(), w.alh}
}

// Next takes the header of the transaction after At. On any error the walk
// stands where it stood. Errors are *Malformed, *Mismatch, or
// *Unproven{NeedRoot} where the header's tree ends before the window.
func (w *Walk) Next(h *Header) error {
	return w.next(h, nil)
}

// NextWithRoot is Next for a header whose tree ends before the window: root
// is the RFC 6962 root over the first h.BlTxID Alhs as the caller knows it
// from its own record, never from the server.
func (w *Walk) NextWithRoot(h *Header, root Hash) error {
	return w.next(h, &root)
}

func (w *Walk) next(h *Header, known *Hash) error {
	if err := h.Validate(); err != nil {
		return inside("header", err)
	}
	at := w.At()
	if h.ID != at.TxID+1 {
		return &Mismatch{Check: CheckID, Tx: at.TxID + 1,
			Detail: fmt.Sprintf("the header is that of transaction %d", h.ID)}
	}
	// Transaction 1 follows the empty database, whose Alh is H("").
	if h.PrevAlh != at.Alh {
		return &Mismatch{Check: CheckPrevAlh, Tx: h.ID, Want: at.Alh, Got: h.PrevAlh}
	}
	// Over no leaves blRoot is zero rather than RFC 6962's root (Validate has
	// seen to it).
	if h.BlTxID > 0 {
		want, err := w.Root(h.BlTxID)
		if u, ok := err.(*Unproven); ok {
			if known == nil {
				u.To = h.ID
				return u
			}
			want, err = *known, nil
		}
		if err != nil {
			return err
		}
		if h.BlRoot != want {
			return &Mismatch{Check: CheckBlRoot, Tx: h.ID, Want: want, Got: h.BlRoot,
				Detail: fmt.Sprintf("the tree over the first %d transactions is not the one walked", h.BlTxID)}
		}
	}
	return w.push(h.Alh())
}

// push appends the Alh of the next transaction and moves the window.
func (w *Walk) push(alh Hash) error {
	n := w.now.size() + 1
	if n-w.base.size() > Window {
		// The window is full: transaction n−Window leaves it, and its place
		// is free.
		if err := w.base.append(w.leaves[n%Window]); err != nil {
			return fmt.Errorf("moving the walk's window to transaction %d: %w", n, err)
		}
	}
	return w.record(alh)
}

// record appends the Alh of the next transaction within the window.
func (w *Walk) record(alh Hash) error {
	n := w.now.size() + 1
	leaf := leafHash(&alh)
	if err := w.now.append(leaf); err != nil {
		return fmt.Errorf("appending transaction %d to the walk: %w", n, err)
	}
	root, err := w.now.root()
	if err != nil {
		return fmt.Errorf("forming the root at transaction %d: %w", n, err)
	}
	w.alh, w.alhs[n%Window], w.leaves[n%Window], w.roots[n%(Window+1)] = alh, alh, leaf, root
	return nil
}

// Root is the RFC 6962 root over Alh(1)…Alh(size) as walked, for any size
// from At back by Window, or by less where WalkAt has begun less far back; of
// no transactions it is SHA-256 of nothing. With size = At().TxID it is the
// checkpoint of the state reached. Errors are *Malformed for a size beyond At
// and *Unproven{NeedRoot} below the window.
func (w *Walk) Root(size uint64) (Hash, error) {
	n := w.now.size()
	switch {
	case size > n:
		return Hash{}, malformed("size", "%d is beyond transaction %d, which the walk has reached", size, n)
	case size == 0:
		return EmptyAlh(), nil
	case size < w.base.size():
		return Hash{}, &Unproven{Check: CheckBlRoot, Need: NeedRoot, From: size, To: n,
			Detail: fmt.Sprintf("the walk remembers no tree of fewer than %d transactions", w.base.size())}
	}
	return w.roots[size%(Window+1)], nil
}

// Alh is the Alh of a transaction within the window; false for any other.
func (w *Walk) Alh(tx uint64) (Hash, bool) {
	if tx <= w.base.size() || tx > w.now.size() {
		return Hash{}, false
	}
	return w.alhs[tx%Window], true
}

// Clone returns an independent copy.
func (w *Walk) Clone() *Walk {
	c := new(Walk)
	c.set(w)
	return c
}

func (w *Walk) set(from *Walk) {
	w.alh, w.alhs, w.leaves, w.roots = from.alh, from.alhs, from.leaves, from.roots
	w.now.set(&from.now)
	w.base.set(&from.base)
}

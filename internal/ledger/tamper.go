package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Restore replaces the content, as putting back an older data directory does.
func (d *Database) Restore(s *Snapshot) error {
	if s == nil {
		return errors.New("restoring a database: no snapshot given; take one with Snapshot")
	}
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	return d.replace(s.content.freeze(true))
}

// Tamper gives raw access to the stored history and puts back what f leaves
// there, as if the data files had been edited: nothing is recomputed except the
// inner nodes of the tree over leaves that were set. f must not use the
// database itself.
func (d *Database) Tamper(f func(*History)) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	h := newHistory(&d.working)
	f(h)
	return d.replace(h.content)
}

// newHistory copies all that a History changes in place.
func newHistory(of *view) *History {
	v := of.freeze(true)
	v.txs = slices.Clone(v.txs)
	for k := range v.tree.levels {
		v.tree.levels[k] = slices.Clone(v.tree.levels[k])
	}
	v.swapped = maps.Clone(v.swapped)
	return &History{content: v, owned: map[uint64]bool{}}
}

// replace makes v the content; writeMu is held.
func (d *Database) replace(v view) error {
	d.mu.RLock()
	deleted := d.deleted
	d.mu.RUnlock()
	if deleted {
		return errDatabaseDeleted
	}
	if d.failed != nil {
		return d.failed
	}
	v.generation = d.working.generation + 1
	if d.log != nil {
		if err := d.log.rewrite(&v); err != nil {
			d.failed = fmt.Errorf("rewriting the log of database %s: %w; restart the ledger", d.Name(), err)
			return d.failed
		}
	}
	d.working = v
	d.publish()
	return nil
}

// History is what Tamper opens. Transactions are numbered from 1; asking for
// one that does not exist gives an empty one that is stored nowhere.
type History struct {
	content view
	owned   map[uint64]bool // transactions already copied for this Tamper
}

// Len is the number of transactions.
func (h *History) Len() uint64 { return h.content.last() }

// Tx is transaction id, to be changed in place.
func (h *History) Tx(id uint64) *StoredTx {
	if id == 0 || id > h.Len() {
		return &StoredTx{}
	}
	if !h.owned[id] {
		h.content.txs[id-1] = h.content.txs[id-1].clone()
		h.owned[id] = true
	}
	return h.content.txs[id-1]
}

// Header is the stored header of transaction id, to be changed in place.
func (h *History) Header(id uint64) *Header { return &h.Tx(id).Header }

// SetValue changes the stored bytes of entry i (prefix included) and leaves
// what the entry commits to.
func (h *History) SetValue(id uint64, i int, value []byte) {
	if tx := h.Tx(id); i >= 0 && i < len(tx.Entries) {
		tx.Entries[i].Value = slices.Clone(value)
		tx.Entries[i].Gone = false
	}
}

// RemoveValue removes the stored bytes of entry i.
func (h *History) RemoveValue(id uint64, i int) {
	if tx := h.Tx(id); i >= 0 && i < len(tx.Entries) {
		tx.Entries[i].Value = nil
		tx.Entries[i].Gone = true
	}
}

// Leaf is the Alh that stands in the transaction tree for transaction id.
func (h *History) Leaf(id uint64) [32]byte {
	if id == 0 || id > h.Len() {
		return [32]byte{}
	}
	return h.content.leafAlh(id)
}

// SetLeaf puts another Alh into the tree for transaction id. The chain is left
// alone; roots of later headers, and all proofs, are built over the new leaf.
func (h *History) SetLeaf(id uint64, alh [32]byte) {
	if id == 0 || id > h.Len() {
		return
	}
	h.content.tree.setLeaf(id-1, leafHash(alh[:]))
	if h.content.swapped == nil {
		h.content.swapped = map[uint64][32]byte{}
	}
	h.content.swapped[id] = alh
}

// Truncate drops every transaction after the first n.
func (h *History) Truncate(n uint64) {
	if n >= h.Len() {
		return
	}
	for id := n + 1; id <= h.Len(); id++ {
		delete(h.owned, id)
		delete(h.content.swapped, id)
	}
	h.content.txs = h.content.txs[:n]
	h.content.tree.truncate(n)
}

// Append adds a transaction as it is; its Alh becomes its leaf.
func (h *History) Append(tx StoredTx) {
	h.content.append(&tx)
	h.owned[h.Len()] = true
}

// Rehash makes the transactions from id on a history that is consistent in
// itself again: entry digests and counts, tree roots, chain and leaves follow
// from the stored keys and values, as a forger with full control would do it.
// Values that are gone keep their digests.
func (h *History) Rehash(id uint64) {
	if id == 0 || id > h.Len() {
		return
	}
	last := h.Len()
	for t := id; t <= last; t++ {
		h.Tx(t)
		delete(h.content.swapped, t)
	}
	rest := h.content.txs[id-1:]
	h.content.txs = slices.Clone(h.content.txs[:id-1])
	h.content.tree.truncate(id - 1)
	for _, tx := range rest {
		for i := range tx.Entries {
			if !tx.Entries[i].Gone {
				tx.Entries[i].HValue = HashValue(tx.Entries[i].Value)
			}
		}
		hd := &tx.Header
		prev, alh := h.content.state()
		hd.ID, hd.PrevAlh = prev+1, alh
		hd.NEntries = uint32(len(tx.Entries))
		hd.EH = EntriesRoot(tx.Entries, hd.Version)
		hd.BlTxID = min(hd.BlTxID, prev)
		hd.BlRoot = [32]byte{}
		if hd.BlTxID > 0 {
			hd.BlRoot = h.content.tree.root(hd.BlTxID)
		}
		tx.Alh = hd.Alh()
		h.content.append(tx)
	}
}

package ledger

import (
	"fmt"
	"slices"

	"immuaudit/internal/wire/schema"
)

// Snapshot is an exact copy of a database's content at one moment. It never
// changes and may be restored any number of times, into any database of any
// ledger. The zero Snapshot is an empty database.
type Snapshot struct{ content view }

// Snapshot copies the content; it costs next to nothing whatever the size.
func (d *Database) Snapshot() *Snapshot {
	return &Snapshot{content: d.view().freeze(true)}
}

// State is the newest transaction of the snapshot and its Alh.
func (s *Snapshot) State() (txID uint64, alh [32]byte) { return s.content.state() }

// Tx is a copy of transaction id.
func (s *Snapshot) Tx(id uint64) (*StoredTx, error) {
	if id == 0 || id > s.content.last() {
		return nil, fmt.Errorf("transaction %d: there are %d", id, s.content.last())
	}
	return s.content.tx(id).clone(), nil
}

// Tamper returns the snapshot with the changes f makes; see Database.Tamper.
func (s *Snapshot) Tamper(f func(*History)) *Snapshot {
	h := newHistory(&s.content)
	f(h)
	return &Snapshot{content: h.content}
}

// DualProof is the proof a server of the given version would give for two
// transactions of the snapshot, source ≤ target.
func (s *Snapshot) DualProof(version string, source, target uint64) (*schema.DualProof, error) {
	r, err := parseRelease(version)
	if err != nil {
		return nil, err
	}
	if source == 0 || source > target || target > s.content.last() {
		return nil, fmt.Errorf("proof from transaction %d to %d: there are %d", source, target, s.content.last())
	}
	return s.content.dualProof(source, target, r)
}

// clone copies all that can be changed in place.
func (tx *StoredTx) clone() *StoredTx {
	c := *tx
	c.Header.Metadata.Extra = slices.Clone(tx.Header.Metadata.Extra)
	c.Entries = slices.Clone(tx.Entries)
	for i := range c.Entries {
		c.Entries[i].Key = slices.Clone(c.Entries[i].Key)
		c.Entries[i].Value = slices.Clone(c.Entries[i].Value)
	}
	return &c
}

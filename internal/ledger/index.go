package ledger

import (
	"bytes"
	"slices"
	"sort"
	"strings"
	"sync"
)

// ref is one revision of a key.
type ref struct {
	tx    uint64
	entry int
}

// index finds the revisions of keys. It is derived from the history, catches up
// when it is asked, and starts over when history was replaced: nothing that
// writes or tampers has to keep it right.
type index struct {
	mu         sync.Mutex
	generation uint64
	built      uint64           // transactions looked at
	keys       map[string][]ref // without prefix
	sorted     []string
	added      []string // not in sorted yet
}

// catchUp is called with mu held.
func (x *index) catchUp(v *view) {
	if x.keys == nil || x.generation != v.generation {
		x.keys, x.generation, x.built = map[string][]ref{}, v.generation, 0
		x.sorted, x.added = nil, nil
	}
	for ; x.built < v.last(); x.built++ {
		tx := v.txs[x.built]
		for i := range tx.Entries {
			e := &tx.Entries[i]
			if len(e.Key) == 0 || e.Key[0] != PrefixKV || e.Metadata.NonIndexable {
				continue
			}
			key := string(e.Key[1:])
			refs, known := x.keys[key]
			if !known {
				x.added = append(x.added, key)
			}
			x.keys[key] = append(refs, ref{x.built + 1, i})
		}
	}
}

// revisions are those of a key, oldest first, and the view they are of.
func (d *Database) revisions(key []byte) (*view, []ref) {
	d.index.mu.Lock()
	defer d.index.mu.Unlock()
	v := d.view()
	d.index.catchUp(v)
	return v, d.index.keys[string(key)]
}

// keyRefs is a key and its revisions.
type keyRefs struct {
	key  string
	refs []ref
}

// withPrefix lists the keys with a prefix in order.
func (d *Database) withPrefix(prefix []byte) (*view, []keyRefs) {
	d.index.mu.Lock()
	defer d.index.mu.Unlock()
	v := d.view()
	x := &d.index
	x.catchUp(v)
	if len(x.added) > 0 {
		x.sorted = append(x.sorted, x.added...)
		x.added = nil
		sort.Strings(x.sorted)
	}
	from, _ := slices.BinarySearch(x.sorted, string(prefix))
	var found []keyRefs
	for _, k := range x.sorted[from:] {
		if !strings.HasPrefix(k, string(prefix)) {
			break
		}
		found = append(found, keyRefs{k, x.keys[k]})
	}
	return v, found
}

// record is a revision found.
type record struct {
	id       uint64 // where it stands, whatever its header says
	tx       *StoredTx
	entry    int
	revision uint64
	key      []byte // of the value: a reference's target
	shown    uint64 // transaction of the value: a reference's target's
	value    []byte
	metadata EntryMetadata
	expired  bool
}

// lookup finds a key: its newest revision, that of one transaction (atTx), or a
// numbered one (atRevision: from 1; negative counts back from the newest).
func (d *Database) lookup(key []byte, atTx uint64, atRevision int64) (*view, *record, error) {
	v, refs := d.revisions(key)
	r, err := d.pick(v, key, refs, atTx, atRevision)
	if err != nil {
		return nil, nil, err
	}
	if err := d.unwrap(v, r); err != nil {
		return nil, nil, err
	}
	return v, r, nil
}

// pick reads one revision, its value with prefix.
func (d *Database) pick(v *view, key []byte, refs []ref, atTx uint64, atRevision int64) (*record, error) {
	if len(refs) == 0 {
		return nil, errKeyNotFound
	}
	at := len(refs) - 1
	switch {
	case atTx > 0 && atRevision != 0:
		return nil, errIllegal
	case atTx > 0:
		at = slices.IndexFunc(refs, func(r ref) bool { return r.tx == atTx })
	case atRevision > 0:
		at = int(min(atRevision-1, int64(len(refs))))
	case atRevision < 0:
		at = int(max(int64(at)+atRevision, -1))
	}
	if at < 0 || at >= len(refs) {
		return nil, errKeyNotFound
	}
	r, err := d.read(v, key, refs[at], uint64(at)+1)
	if err != nil {
		return nil, err
	}
	if r.expired || r.metadata.Deleted {
		return nil, errKeyNotFound
	}
	return r, nil
}

// read reads a revision, whether deleted, expired or not; the value comes with
// its prefix.
func (d *Database) read(v *view, key []byte, at ref, revision uint64) (*record, error) {
	tx := v.tx(at.tx)
	e := &tx.Entries[at.entry]
	r := &record{id: at.tx, shown: at.tx, tx: tx, entry: at.entry, revision: revision, key: key, metadata: e.Metadata}
	r.metadata.Deleted = e.isTombstone(tx.Header.Version)
	if r.expired = e.expired(d.now().Unix()); r.expired || r.metadata.Deleted {
		return r, nil
	}
	value, err := e.readValue()
	if err != nil {
		return nil, err
	}
	r.value = value
	return r, nil
}

// follow replaces what a reference record shows by its target. One step only: a
// reference to a reference is refused, so nothing can run in circles.
func (d *Database) follow(v *view, r *record) error {
	if len(r.value) < 10 || r.value[9] != PrefixKV {
		return errValueDamaged
	}
	atTx, target := be.Uint64(r.value[1:]), r.value[10:]
	_, refs := d.revisions(target)
	refs = upTo(refs, v)
	found, err := d.pick(v, target, refs, atTx, 0)
	if err != nil {
		return err
	}
	if len(found.value) > 0 && found.value[0] == valueReference {
		return errIllegal
	}
	r.key, r.shown = bytes.Clone(target), found.id
	r.value = found.value[min(1, len(found.value)):]
	return nil
}

// upTo drops revisions newer than the view.
func upTo(refs []ref, v *view) []ref {
	n := sort.Search(len(refs), func(i int) bool { return refs[i].tx > v.last() })
	return refs[:n]
}

// live reports whether a key has a value now.
func (d *Database) live(v *view, refs []ref, now int64) bool {
	if len(refs) == 0 {
		return false
	}
	last := refs[len(refs)-1]
	tx := v.tx(last.tx)
	e := &tx.Entries[last.entry]
	return !e.isTombstone(tx.Header.Version) && !e.expired(now)
}

package ledger

import (
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Database is one database of a ledger. All methods are safe for concurrent use.
type Database struct {
	now     func() time.Time
	created time.Time
	file    string // in Dir; "" in memory

	current atomic.Pointer[view] // what readers see: durable where there is a Dir

	queueMu sync.Mutex
	queue   []*commit

	// writeMu serialises whatever changes the content, over the fsync.
	writeMu sync.Mutex
	working view // current plus what is being written; its tail may be discarded
	log     *txLog
	failed  error // the log could not be written: its content is unknown

	mu            sync.RWMutex // the settings below
	name          string
	headerVersion int
	blTxID        func(db string, id uint64) uint64
	unloaded      bool
	deleted       bool
	exportStuck   bool

	signMu sync.Mutex
	signed signedState

	index index
}

// commit is a batch waiting to be written by whoever holds writeMu.
type commit struct {
	txs  []Tx
	ids  []uint64
	err  error
	done bool
}

// signedState is the newest signature, so that asking for the state of a quiet
// database costs none.
type signedState struct {
	name      string
	txID      uint64
	alh       [32]byte
	key       *ecdsa.PrivateKey
	publicKey []byte
	signature []byte
}

func newDatabase(name string, cfg *Config) *Database {
	d := &Database{
		name:          name,
		now:           cfg.Now,
		created:       cfg.Now(),
		headerVersion: cfg.HeaderVersion,
		blTxID:        cfg.BlTxID,
	}
	d.current.Store(&view{})
	return d
}

// Name is the database's name, which RenameDatabase changes.
func (d *Database) Name() string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.name
}

func (d *Database) view() *view { return d.current.Load() }

// State is the newest transaction and its Alh; an empty database has 0, H("").
func (d *Database) State() (txID uint64, alh [32]byte) { return d.view().state() }

// SetHeaderVersion chooses the header version, 0 or 1, of new transactions.
func (d *Database) SetHeaderVersion(v int) error {
	if err := checkHeaderVersion(v); err != nil {
		return err
	}
	d.mu.Lock()
	d.headerVersion = v
	d.mu.Unlock()
	return nil
}

// SetBlTxID chooses the trees of new headers; see Config.BlTxID.
func (d *Database) SetBlTxID(f func(db string, id uint64) uint64) {
	d.mu.Lock()
	d.blTxID = f
	d.mu.Unlock()
}

// Set commits one key with its value, both without prefixes.
func (d *Database) Set(key, value []byte) (uint64, error) {
	return d.Commit(Tx{Entries: []Entry{{Key: key, Value: value}}})
}

// Commit commits one transaction and returns its id.
func (d *Database) Commit(tx Tx) (uint64, error) {
	ids, err := d.CommitAll([]Tx{tx})
	if err != nil {
		return 0, err
	}
	return ids[0], nil
}

// CommitAll commits transactions one after the other: all or none of them, and
// with a Dir for the price of one fsync.
func (d *Database) CommitAll(txs []Tx) ([]uint64, error) {
	c := &commit{txs: txs}
	d.queueMu.Lock()
	d.queue = append(d.queue, c)
	d.queueMu.Unlock()

	// Whoever gets the lock writes for all who wait: one fsync for many.
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	if !c.done {
		d.queueMu.Lock()
		batch := d.queue
		d.queue = nil
		d.queueMu.Unlock()
		d.write(batch)
	}
	return c.ids, c.err
}

// write builds, stores and publishes a batch; writeMu is held.
func (d *Database) write(batch []*commit) {
	var written []*commit
	first := d.working.last()
	for _, c := range batch {
		c.done = true
		if c.err = d.usable(); c.err != nil {
			continue
		}
		mark := d.working.last()
		for i := range c.txs {
			var tx *StoredTx
			if tx, c.err = d.build(&c.txs[i]); c.err != nil {
				break
			}
			d.working.append(tx)
			c.ids = append(c.ids, tx.Header.ID)
		}
		if c.err != nil {
			d.rewind(mark)
			c.ids = nil
			continue
		}
		written = append(written, c)
	}
	if len(written) == 0 {
		return
	}
	if d.log != nil {
		if err := d.log.append(d.working.txs[first:]); err != nil {
			// After a failed write or fsync nobody knows what the file holds:
			// nothing more is written until it is opened anew.
			d.failed = fmt.Errorf("writing the log of database %s: %w; restart the ledger", d.Name(), err)
			d.rewind(first)
			for _, c := range written {
				c.ids, c.err = nil, d.failed
			}
			return
		}
	}
	d.publish()
}

// rewind forgets what was appended to working and not published.
func (d *Database) rewind(n uint64) {
	d.working.txs = d.working.txs[:n]
	d.working.tree.truncate(n)
}

func (d *Database) publish() {
	v := d.working.freeze(false)
	d.current.Store(&v)
}

func (d *Database) usable() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case d.deleted:
		return errDatabaseDeleted
	case d.unloaded:
		return errAlreadyClosed
	default:
		return d.failed
	}
}

// build makes the transaction that follows what working holds.
func (d *Database) build(tx *Tx) (*StoredTx, error) {
	d.mu.RLock()
	name, version, choose := d.name, d.headerVersion, d.blTxID
	d.mu.RUnlock()
	if tx.HeaderVersion != nil {
		version = *tx.HeaderVersion
	}
	if err := tx.check(version); err != nil {
		return nil, err
	}
	entries, err := storeEntries(tx.Entries)
	if err != nil {
		return nil, err
	}
	last, prev := d.working.state()
	h := Header{
		ID:       last + 1,
		PrevAlh:  prev,
		Ts:       tx.Ts,
		Version:  uint16(version),
		NEntries: uint32(len(entries)),
		Metadata: tx.Metadata,
		BlTxID:   last,
	}
	if h.Ts == 0 {
		h.Ts = d.now().Unix()
	}
	h.EH = EntriesRoot(entries, h.Version)
	if choose != nil {
		h.BlTxID = choose(name, h.ID)
	}
	if h.BlTxID >= h.ID {
		return nil, fmt.Errorf("tree of %d leaves for transaction %d: the tree can only cover transactions before it", h.BlTxID, h.ID)
	}
	if h.BlTxID > 0 { // otherwise 32 zero bytes, docs/protocol.md §3
		h.BlRoot = d.working.tree.root(h.BlTxID)
	}
	return &StoredTx{Header: h, Alh: h.Alh(), Entries: entries}, nil
}

// check refuses what could not be hashed, or not be covered by its hash.
func (tx *Tx) check(version int) error {
	if err := checkHeaderVersion(version); err != nil {
		return err
	}
	if len(tx.Entries) > maxEntries {
		return fmt.Errorf("%d entries in one transaction: at most %d", len(tx.Entries), maxEntries)
	}
	size := 0
	for i := range tx.Entries {
		size += len(tx.Entries[i].Key) + len(tx.Entries[i].Value)
	}
	if size > maxMessage {
		return fmt.Errorf("%d bytes of keys and values in one transaction: at most %d", size, maxMessage)
	}
	if len(tx.Metadata.Extra) > maxExtra {
		return fmt.Errorf("%d bytes of transaction metadata: at most %d", len(tx.Metadata.Extra), maxExtra)
	}
	if version == 1 {
		return nil
	}
	if !tx.Metadata.isZero() {
		return errors.New("headers of version 0 have no metadata; use header version 1")
	}
	for i := range tx.Entries {
		if tx.Entries[i].Metadata != (EntryMetadata{}) {
			return errors.New("entries under a header of version 0 have no metadata; use header version 1")
		}
	}
	return nil
}

func storeEntries(entries []Entry) ([]StoredEntry, error) {
	out := make([]StoredEntry, len(entries))
	for i, e := range entries {
		if len(e.Key) == 0 || len(e.Key) > maxKey {
			return nil, fmt.Errorf("key of %d bytes: 1 to %d are possible", len(e.Key), maxKey)
		}
		if e.Metadata.ExpiresAt < 0 {
			return nil, fmt.Errorf("expiry at %d: unix seconds after 1970 are possible", e.Metadata.ExpiresAt)
		}
		s := StoredEntry{Metadata: e.Metadata}
		switch {
		case e.Raw:
			s.Key, s.Value = prefixedCopy(e.Key), prefixedCopy(e.Value)
		case e.Metadata.Deleted:
			s.Key = prefixed(PrefixKV, e.Key)
		default:
			s.Key, s.Value = prefixed(PrefixKV, e.Key), prefixed(valuePlain, e.Value)
		}
		s.HValue = HashValue(s.Value)
		out[i] = s
	}
	return out, nil
}

func prefixedCopy(b []byte) []byte { return append([]byte(nil), b...) }

// Delete commits the deletion of keys given without prefixes.
func (d *Database) Delete(keys ...[]byte) (uint64, error) {
	d.mu.RLock()
	version := d.headerVersion
	d.mu.RUnlock()
	tx := Tx{HeaderVersion: &version}
	for _, k := range keys {
		if version == 0 { // see isTombstone
			tx.Entries = append(tx.Entries, Entry{Key: prefixed(PrefixKV, k), Raw: true})
			continue
		}
		tx.Entries = append(tx.Entries, Entry{Key: k, Metadata: EntryMetadata{Deleted: true}})
	}
	return d.Commit(tx)
}

// Truncate removes the value bytes of the transactions before the given one and
// commits the transaction that records it (docs/protocol.md §7), whose id it
// returns. The record is always a header of version 1: version 0 has no place
// for it.
func (d *Database) Truncate(before uint64) (uint64, error) {
	if before == 0 || before > d.view().last() {
		return 0, fmt.Errorf("truncating before transaction %d: the last one is %d", before, d.view().last())
	}
	one := 1
	id, err := d.Commit(Tx{Metadata: TxMetadata{TruncatedTxID: before}, HeaderVersion: &one})
	if err != nil {
		return 0, err
	}
	return id, d.Tamper(func(h *History) {
		for t := uint64(1); t < before; t++ {
			for i := range h.Tx(t).Entries {
				h.RemoveValue(t, i)
			}
		}
	})
}

// signState is the signature over a state under a name; nil without a key.
func (d *Database) signState(key *ecdsa.PrivateKey, txID uint64, alh [32]byte) (publicKey, signature []byte, err error) {
	if key == nil {
		return nil, nil, nil
	}
	name := d.Name()
	d.signMu.Lock()
	s := d.signed
	d.signMu.Unlock()
	if s.key != key || s.txID != txID || s.alh != alh || s.name != name {
		digest := stateDigest(name, txID, alh)
		s = signedState{name: name, txID: txID, alh: alh, key: key}
		if s.signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
			return nil, nil, fmt.Errorf("signing the state: %w", err)
		}
		if s.publicKey, err = key.PublicKey.Bytes(); err != nil {
			return nil, nil, fmt.Errorf("encoding the public key: %w", err)
		}
		d.signMu.Lock()
		// Proofs ask for older states too; only the newest is asked for again.
		if last, _ := d.State(); txID == last {
			d.signed = s
		}
		d.signMu.Unlock()
	}
	return append([]byte(nil), s.publicKey...), append([]byte(nil), s.signature...), nil
}

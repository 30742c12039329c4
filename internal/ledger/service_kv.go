package ledger

import (
	"bytes"
	"context"

	"immuaudit/internal/wire/schema"
)

// writing is the database a writing call is for.
func (s *service) writing(ctx context.Context) (*Database, error) {
	return s.ledger.selected(ctx, ReadWrite, errDenied)
}

func (s *service) Set(ctx context.Context, req *schema.SetRequest) (*schema.TxHeader, error) {
	d, err := s.writing(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := s.set(d, req)
	if err != nil {
		return nil, err
	}
	return headerMessage(&tx.Header), nil
}

// set commits a request and finds the transaction it became.
func (s *service) set(d *Database, req *schema.SetRequest) (*StoredTx, error) {
	if len(req.GetKVs()) == 0 {
		return nil, errIllegal
	}
	var tx Tx
	keys := make(map[string]bool, len(req.GetKVs()))
	for _, kv := range req.GetKVs() {
		key := string(kv.GetKey())
		if keys[key] || !validKey(kv.GetKey()) {
			return nil, errIllegal
		}
		keys[key] = true
		tx.Entries = append(tx.Entries, Entry{
			Key:   kv.GetKey(),
			Value: kv.GetValue(),
			Metadata: EntryMetadata{
				Deleted:      kv.GetMetadata().GetDeleted(),
				ExpiresAt:    kv.GetMetadata().GetExpiration().GetExpiresAt(),
				NonIndexable: kv.GetMetadata().GetNonIndexable(),
			},
		})
	}
	return d.commitVisible(tx)
}

func validKey(key []byte) bool { return len(key) > 0 && len(key) < maxKey }

// commitVisible commits and returns the stored transaction.
func (d *Database) commitVisible(tx Tx) (*StoredTx, error) {
	id, err := d.Commit(tx)
	if err != nil {
		return nil, err
	}
	v := d.view()
	if id > v.last() { // history was replaced in between
		return nil, errTxNotFound
	}
	return v.tx(id), nil
}

func (s *service) VerifiableSet(ctx context.Context, req *schema.VerifiableSetRequest) (*schema.VerifiableTx, error) {
	d, err := s.writing(ctx)
	if err != nil {
		return nil, err
	}
	if since, last := req.GetProveSinceTx(), d.view().last(); since > last {
		return nil, errSinceBeyondLast(last, since)
	}
	stored, err := s.set(d, req.GetSetRequest())
	if err != nil {
		return nil, err
	}
	v := d.view()
	id := stored.Header.ID
	if err := v.checkTx(id, 0); err != nil {
		return nil, err
	}
	tx, err := s.txMessage(d, v, id, nil)
	if err != nil {
		return nil, err
	}
	return s.verifiable(d, v, tx, id, req.GetProveSinceTx())
}

// unwrap takes the prefix off a record's value, following a reference.
func (d *Database) unwrap(v *view, r *record) error {
	switch {
	case len(r.value) == 0:
		return nil
	case r.value[0] == valueReference:
		return d.follow(v, r)
	default:
		r.value = r.value[1:]
		return nil
	}
}

// message is a record as Get, Scan and History show it: without prefixes.
func (r *record) message() *schema.Entry {
	m := &schema.Entry{
		Tx:       r.shown,
		Key:      bytes.Clone(r.key),
		Value:    bytes.Clone(r.value),
		Expired:  r.expired,
		Revision: r.revision,
		Metadata: metadataMessage(r.metadata),
	}
	return m
}

// get looks a request up.
func (s *service) get(ctx context.Context, req *schema.KeyRequest) (*Database, *view, *record, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(req.GetKey()) == 0 {
		return nil, nil, nil, errIllegal
	}
	if last := d.view().last(); req.GetSinceTx() > last {
		return nil, nil, nil, errSinceBeyondLast(last, req.GetSinceTx())
	}
	v, r, err := d.lookup(req.GetKey(), req.GetAtTx(), req.GetAtRevision())
	return d, v, r, err
}

func (s *service) Get(ctx context.Context, req *schema.KeyRequest) (*schema.Entry, error) {
	_, _, r, err := s.get(ctx, req)
	if err != nil {
		return nil, err
	}
	return r.message(), nil
}

func (s *service) VerifiableGet(ctx context.Context, req *schema.VerifiableGetRequest) (*schema.VerifiableEntry, error) {
	d, v, r, err := s.get(ctx, req.GetKeyRequest())
	if err != nil {
		return nil, err
	}
	// The transaction of the key asked for: a reference's own, not its target's.
	id := r.id
	tx, err := s.txMessage(d, v, id, nil)
	if err != nil {
		return nil, err
	}
	vtx, err := s.verifiable(d, v, tx, id, req.GetProveSinceTx())
	if err != nil {
		return nil, err
	}
	return &schema.VerifiableEntry{
		Entry:          r.message(),
		VerifiableTx:   vtx,
		InclusionProof: entryInclusion(r.tx, r.entry),
	}, nil
}

func (s *service) Delete(ctx context.Context, req *schema.DeleteKeysRequest) (*schema.TxHeader, error) {
	d, err := s.writing(ctx)
	if err != nil {
		return nil, err
	}
	if len(req.GetKeys()) == 0 {
		return nil, errIllegal
	}
	now := d.now().Unix()
	seen := make(map[string]bool, len(req.GetKeys()))
	for _, key := range req.GetKeys() {
		if !validKey(key) || seen[string(key)] {
			return nil, errIllegal
		}
		seen[string(key)] = true
		if v, refs := d.revisions(key); !d.live(v, refs, now) {
			return nil, errKeyNotFound
		}
	}
	id, err := d.Delete(req.GetKeys()...)
	if err != nil {
		return nil, err
	}
	v := d.view()
	if err := v.checkTx(id, 0); err != nil {
		return nil, err
	}
	return headerMessage(&v.tx(id).Header), nil
}

func (s *service) Scan(ctx context.Context, req *schema.ScanRequest) (*schema.Entries, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	n, err := s.page(req.GetLimit())
	if err != nil {
		return nil, err
	}
	if last := d.view().last(); req.GetSinceTx() > last {
		return nil, errSinceBeyondLast(last, req.GetSinceTx())
	}
	v, found := d.withPrefix(req.GetPrefix())
	list := &schema.Entries{}
	now := d.now().Unix()
	skip := req.GetOffset()
	for i := range found {
		k := &found[i]
		if req.GetDesc() {
			k = &found[len(found)-1-i]
		}
		if !inRange(req, []byte(k.key)) || !d.live(v, k.refs, now) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(list.Entries) == n {
			break
		}
		r, err := d.read(v, []byte(k.key), k.refs[len(k.refs)-1], uint64(len(k.refs)))
		if err == nil {
			err = d.unwrap(v, r)
		}
		if err != nil {
			return nil, err
		}
		list.Entries = append(list.Entries, r.message())
	}
	return list, nil
}

// inRange applies seekKey, where the scan begins, and endKey, where it ends, in
// the direction of the scan.
func inRange(req *schema.ScanRequest, key []byte) bool {
	sign := 1
	if req.GetDesc() {
		sign = -1
	}
	if seek := req.GetSeekKey(); len(seek) > 0 {
		c := sign * bytes.Compare(key, seek)
		if c < 0 || c == 0 && !req.GetInclusiveSeek() {
			return false
		}
	}
	if end := req.GetEndKey(); len(end) > 0 {
		c := sign * bytes.Compare(key, end)
		if c > 0 || c == 0 && !req.GetInclusiveEnd() {
			return false
		}
	}
	return true
}

func (s *service) Count(ctx context.Context, req *schema.KeyPrefix) (*schema.EntryCount, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	v, found := d.withPrefix(req.GetPrefix())
	now := d.now().Unix()
	var n uint64
	for i := range found {
		if d.live(v, found[i].refs, now) {
			n++
		}
	}
	return &schema.EntryCount{Count: n}, nil
}

func (s *service) History(ctx context.Context, req *schema.HistoryRequest) (*schema.Entries, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	if len(req.GetKey()) == 0 || req.GetLimit() < 0 {
		return nil, errIllegal
	}
	if last := d.view().last(); req.GetSinceTx() > last {
		return nil, errSinceBeyondLast(last, req.GetSinceTx())
	}
	n, err := s.page(uint64(req.GetLimit()))
	if err != nil {
		return nil, err
	}
	v, refs := d.revisions(req.GetKey())
	if len(refs) == 0 {
		return nil, errKeyNotFound
	}
	list := &schema.Entries{}
	for i := req.GetOffset(); i < uint64(len(refs)) && len(list.Entries) < n; i++ {
		at := i
		if req.GetDesc() {
			at = uint64(len(refs)) - 1 - i
		}
		r, err := d.read(v, req.GetKey(), refs[at], at+1)
		if err == nil {
			err = d.unwrap(v, r)
		}
		if err != nil {
			return nil, err
		}
		list.Entries = append(list.Entries, r.message())
	}
	return list, nil
}

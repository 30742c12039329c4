package ledger

import (
	"bytes"
	"context"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/wire/schema"
)

// reading is the database a reading call is for.
func (s *service) reading(ctx context.Context) (*Database, error) {
	return s.ledger.selected(ctx, Read, errDenied)
}

func (s *service) CurrentState(ctx context.Context, _ *emptypb.Empty) (*schema.ImmutableState, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	txID, alh := d.State()
	sig, err := s.sign(d, txID, alh)
	if err != nil {
		return nil, err
	}
	return &schema.ImmutableState{
		Db:                 d.Name(),
		TxId:               txID,
		TxHash:             bytesOf(alh),
		Signature:          sig,
		PrecommittedTxId:   txID,
		PrecommittedTxHash: bytesOf(alh),
	}, nil
}

func (s *service) sign(d *Database, txID uint64, alh [32]byte) (*schema.Signature, error) {
	pub, sig, err := d.signState(s.ledger.key(), txID, alh)
	if err != nil || sig == nil {
		return nil, err
	}
	return &schema.Signature{PublicKey: pub, Signature: sig}, nil
}

func (s *service) VerifiableTxById(ctx context.Context, req *schema.VerifiableTxRequest) (*schema.VerifiableTx, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	v := d.view()
	if err := v.checkTx(req.GetTx(), req.GetSinceTx()); err != nil {
		return nil, err
	}
	tx, err := s.txMessage(d, v, req.GetTx(), req.GetEntriesSpec())
	if err != nil {
		return nil, err
	}
	return s.verifiable(d, v, tx, req.GetTx(), req.GetProveSinceTx())
}

// checkTx answers for a transaction id a client asks for.
func (v *view) checkTx(id, since uint64) error {
	switch {
	case id == 0:
		return errIllegal
	case id > v.last():
		return errTxNotFound
	case since > v.last():
		return errSinceBeyondLast(v.last(), since)
	}
	return nil
}

// verifiable adds to a transaction the proof between it and since (0: itself),
// whichever is smaller as the source.
func (s *service) verifiable(d *Database, v *view, tx *schema.Tx, id, since uint64) (*schema.VerifiableTx, error) {
	if since == 0 {
		since = id
	}
	if since > v.last() {
		return nil, errSinceBeyondLast(v.last(), since)
	}
	source, target := min(id, since), max(id, since)
	proof, err := v.dualProof(source, target, s.ledger.release)
	if err != nil {
		return nil, err
	}
	sig, err := s.sign(d, target, v.tx(target).Alh)
	if err != nil {
		return nil, err
	}
	return &schema.VerifiableTx{Tx: tx, DualProof: proof, Signature: sig}, nil
}

func (s *service) TxById(ctx context.Context, req *schema.TxRequest) (*schema.Tx, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	v := d.view()
	if err := v.checkTx(req.GetTx(), req.GetSinceTx()); err != nil {
		return nil, err
	}
	return s.txMessage(d, v, req.GetTx(), req.GetEntriesSpec())
}

func (s *service) TxScan(ctx context.Context, req *schema.TxScanRequest) (*schema.TxList, error) {
	d, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	v := d.view()
	if req.GetInitialTx() == 0 {
		return nil, errIllegal
	}
	if req.GetSinceTx() > v.last() {
		return nil, errSinceBeyondLast(v.last(), req.GetSinceTx())
	}
	n, err := s.page(uint64(req.GetLimit()))
	if err != nil {
		return nil, err
	}
	list := &schema.TxList{}
	for id := req.GetInitialTx(); id >= 1 && id <= v.last() && len(list.Txs) < n; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		tx, err := s.txMessage(d, v, id, req.GetEntriesSpec())
		if err != nil {
			return nil, err
		}
		list.Txs = append(list.Txs, tx)
		if req.GetDesc() {
			id--
		} else {
			id++
		}
	}
	return list, nil
}

// page is how many results to give at most.
func (s *service) page(asked uint64) (int, error) {
	limit := s.ledger.release.pageLimit()
	if asked > uint64(limit) {
		return 0, errPageLimit(asked, limit)
	}
	if asked == 0 {
		return limit, nil
	}
	return int(asked), nil
}

func headerMessage(h *Header) *schema.TxHeader {
	m := &schema.TxHeader{
		Id:       h.ID,
		PrevAlh:  bytesOf(h.PrevAlh),
		Ts:       h.Ts,
		Nentries: int32(h.NEntries),
		EH:       bytesOf(h.EH),
		BlTxId:   h.BlTxID,
		BlRoot:   bytesOf(h.BlRoot),
		Version:  int32(h.Version),
	}
	if !h.Metadata.isZero() {
		m.Metadata = &schema.TxMetadata{
			TruncatedTxID: h.Metadata.TruncatedTxID,
			Extra:         bytes.Clone(h.Metadata.Extra),
		}
	}
	return m
}

// fullHeaderMessage is the header as newer servers show it in transactions and
// as the target of proofs, though not as their source: with its metadata
// present even where empty.
func fullHeaderMessage(h *Header, r release) *schema.TxHeader {
	m := headerMessage(h)
	if m.Metadata == nil && h.Version > 0 && r.atLeast(1, 5, 0) {
		m.Metadata = &schema.TxMetadata{}
	}
	return m
}

func metadataMessage(m EntryMetadata) *schema.KVMetadata {
	if m == (EntryMetadata{}) {
		return nil
	}
	out := &schema.KVMetadata{Deleted: m.Deleted, NonIndexable: m.NonIndexable}
	if m.ExpiresAt != 0 {
		out.Expiration = &schema.Expiration{ExpiresAt: m.ExpiresAt}
	}
	return out
}

// txMessage is a transaction with the entries a spec asks for: docs/protocol.md
// §2, "Retrieving a transaction's entries".
func (s *service) txMessage(d *Database, v *view, id uint64, spec *schema.EntriesSpec) (*schema.Tx, error) {
	tx := v.tx(id)
	m := &schema.Tx{Header: fullHeaderMessage(&tx.Header, s.ledger.release)}
	if spec == nil || !s.ledger.release.atLeast(1, 2, 3) {
		for i := range tx.Entries {
			m.Entries = append(m.Entries, s.entryMessage(&tx.Entries[i], nil))
		}
		return m, nil
	}
	now := d.now().Unix()
	for i := range tx.Entries {
		e := &tx.Entries[i]
		switch action := actionFor(spec, e.prefix()); action {
		case schema.EntryTypeAction_EXCLUDE:
		case schema.EntryTypeAction_ONLY_DIGEST:
			m.Entries = append(m.Entries, s.entryMessage(e, nil))
		case schema.EntryTypeAction_RAW_VALUE:
			if e.expired(now) {
				continue
			}
			value, err := e.readValue()
			if err != nil {
				return nil, err
			}
			m.Entries = append(m.Entries, s.entryMessage(e, bytes.Clone(value)))
		case schema.EntryTypeAction_RESOLVE:
			// Sorted sets and SQL rows resolve to messages of calls that are
			// not served here.
			if e.prefix() != PrefixKV {
				return nil, errIllegal
			}
			if err := d.resolveInto(m, v, ref{id, i}); err != nil {
				return nil, err
			}
		default:
			return nil, errIllegal
		}
	}
	return m, nil
}

func actionFor(spec *schema.EntriesSpec, prefix byte) schema.EntryTypeAction {
	switch prefix {
	case PrefixKV:
		return spec.GetKvEntriesSpec().GetAction()
	case PrefixZSet:
		return spec.GetZEntriesSpec().GetAction()
	case PrefixSQL:
		return spec.GetSqlEntriesSpec().GetAction()
	default: // documents can be had only without a spec
		return schema.EntryTypeAction_EXCLUDE
	}
}

// resolveInto adds an entry as Get would show it.
func (d *Database) resolveInto(m *schema.Tx, v *view, at ref) error {
	key := v.tx(at.tx).Entries[at.entry].Key
	r, err := d.read(v, key[min(1, len(key)):], at, 0)
	if err != nil {
		return err
	}
	if r.expired {
		return nil
	}
	if err := d.unwrap(v, r); err != nil {
		return err
	}
	m.KvEntries = append(m.KvEntries, r.message())
	return nil
}

// entryMessage is an entry as listed in a transaction.
func (s *service) entryMessage(e *StoredEntry, value []byte) *schema.TxEntry {
	m := &schema.TxEntry{
		Key:      bytes.Clone(e.Key),
		HValue:   bytesOf(e.HValue),
		Metadata: metadataMessage(e.Metadata),
		Value:    value,
	}
	// Servers before 1.2 give the length as field 4 and know no others.
	if !s.ledger.release.atLeast(1, 2, 0) {
		m.Metadata, m.Value = nil, nil
		if len(e.Value) > 0 {
			b := protowire.AppendTag(nil, 4, protowire.VarintType)
			m.ProtoReflect().SetUnknown(protowire.AppendVarint(b, uint64(len(e.Value))))
		}
		return m
	}
	m.VLen = int32(len(e.Value))
	return m
}

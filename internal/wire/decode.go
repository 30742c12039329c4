package wire

import (
	"fmt"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// Bounds of what is decoded. They are far above anything honest and are
// checked before anything is copied.
const (
	maxTerms     = 100_000 // hashes in a linear proof or a linear advance proof
	maxDBName    = 128     // bytes
	maxPoint     = 256     // bytes of a public key beside a signature
	maxSignature = 256     // bytes of a signature
)

// VerifiableTx is what VerifiableTxById answers with.
type VerifiableTx struct {
	Proof *proof.DualProof
	// Header is the transaction's header as it stands beside the proof; nil
	// where the answer has none. It is not the one that the proof verifies:
	// before use its Alh must equal that of Proof.Target.
	Header *proof.Header
	// PublicKey and Signature are over the target state; empty where the
	// server does not sign.
	PublicKey, Signature []byte
}

// DecodeState decodes a server's claim about one database. The precommitted
// fields are left out: they are unsigned and may be taken back.
func DecodeState(m *schema.ImmutableState) (proof.SignedState, error) {
	var s proof.SignedState
	if m == nil {
		return s, refuse("state", "is missing")
	}
	if len(m.Db) > maxDBName {
		return s, refuse("db", "%d bytes, at most %d", len(m.Db), maxDBName)
	}
	if m.TxId > proof.MaxTxID {
		return s, refuse("txId", "%d is beyond 2⁶³−1", m.TxId)
	}
	alh, err := decodeHash("txHash", m.TxHash)
	if err != nil {
		return s, err
	}
	// An empty database has exactly one state (docs/protocol.md §3).
	if m.TxId == 0 && alh != proof.EmptyAlh() {
		return s, refuse("txHash", "is not that of an empty database although txId is 0")
	}
	point, signature, err := decodeSignature(m.Signature)
	if err != nil {
		return s, err
	}
	return proof.SignedState{
		DB:        m.Db,
		State:     proof.State{TxID: m.TxId, Alh: alh},
		PublicKey: point,
		Signature: signature,
	}, nil
}

// DecodeHeader decodes a transaction header and refuses one that its hash
// would not cover (docs/protocol.md §3).
func DecodeHeader(m *schema.TxHeader) (proof.Header, error) {
	var h proof.Header
	if m == nil {
		return h, refuse("header", "is missing")
	}
	// The wire's types are wider than the hashed ones: nothing may be cut off.
	if m.Version < 0 || m.Version > 1 {
		return h, refuse("version", "%d is not known, only 0 and 1 are", m.Version)
	}
	if m.Nentries < 0 {
		return h, refuse("nentries", "%d is negative", m.Nentries)
	}
	h = proof.Header{
		ID:       m.Id,
		Ts:       m.Ts,
		Version:  uint16(m.Version),
		NEntries: uint32(m.Nentries),
		BlTxID:   m.BlTxId,
	}
	if md := m.Metadata; md != nil {
		h.Metadata = proof.TxMetadata{TruncatedTxID: md.TruncatedTxID, Extra: md.Extra}
	}
	for _, f := range [...]struct {
		to   *proof.Hash
		what string
		from []byte
	}{{&h.PrevAlh, "prevAlh", m.PrevAlh}, {&h.EH, "eH", m.EH}, {&h.BlRoot, "blRoot", m.BlRoot}} {
		var err error
		if *f.to, err = decodeHash(f.what, f.from); err != nil {
			return proof.Header{}, err
		}
	}
	if err := h.Validate(); err != nil {
		return proof.Header{}, err
	}
	return h, nil
}

// DecodeDualProof decodes a dual proof. Headers must be there and valid; lists
// may be short or absent, which proof.VerifyDual tells as not proven.
func DecodeDualProof(m *schema.DualProof) (*proof.DualProof, error) {
	if m == nil {
		return nil, refuse("dualProof", "is missing")
	}
	p := new(proof.DualProof)
	var err error
	if p.Source, err = DecodeHeader(m.SourceTxHeader); err != nil {
		return nil, within("sourceTxHeader", err)
	}
	if p.Target, err = DecodeHeader(m.TargetTxHeader); err != nil {
		return nil, within("targetTxHeader", err)
	}
	if p.Inclusion, err = decodePath("inclusionProof", m.InclusionProof); err != nil {
		return nil, err
	}
	// One node more than a path: see the deviations of docs/protocol.md §3.
	if p.Consistency, err = decodeHashes("consistencyProof", m.ConsistencyProof, proof.MaxPath+1); err != nil {
		return nil, err
	}
	if p.TargetBlTxAlh, err = decodeHash("targetBlTxAlh", m.TargetBlTxAlh); err != nil {
		return nil, err
	}
	if p.LastInclusion, err = decodePath("lastInclusionProof", m.LastInclusionProof); err != nil {
		return nil, err
	}
	if l := m.LinearProof; l != nil {
		limit := maxTerms
		if l.TargetTxId < l.SourceTxId {
			return nil, refuse("linearProof", "leads backwards, from %d to %d", l.SourceTxId, l.TargetTxId)
		}
		if gap := l.TargetTxId - l.SourceTxId; gap < maxTerms {
			limit = int(gap) + 1
		}
		p.Linear = proof.LinearProof{SourceTxID: l.SourceTxId, TargetTxID: l.TargetTxId}
		if p.Linear.Terms, err = decodeHashes("linearProof.terms", l.Terms, limit); err != nil {
			return nil, err
		}
	}
	if p.Advance, err = decodeAdvance(m.LinearAdvanceProof); err != nil {
		return nil, within("LinearAdvanceProof", err)
	}
	return p, nil
}

func decodeAdvance(m *schema.LinearAdvanceProof) (*proof.AdvanceProof, error) {
	if m == nil {
		return nil, nil
	}
	terms, err := decodeHashes("linearProofTerms", m.LinearProofTerms, maxTerms)
	if err != nil {
		return nil, err
	}
	if n := len(m.InclusionProofs); n > 0 && n >= len(terms) {
		return nil, refuse("inclusionProofs", "%d beside %d terms, needs one less", n, len(terms))
	}
	a := &proof.AdvanceProof{Terms: terms, Inclusions: make([][]proof.Hash, len(m.InclusionProofs))}
	for i, p := range m.InclusionProofs {
		// Leaf and width are unused by servers, and implied here.
		if a.Inclusions[i], err = decodePath(fmt.Sprintf("inclusionProofs[%d]", i), p.GetTerms()); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// DecodeVerifiableTx decodes the answer of VerifiableTxById and VerifiableSet.
func DecodeVerifiableTx(m *schema.VerifiableTx) (*VerifiableTx, error) {
	if m == nil {
		return nil, refuse("verifiableTx", "is missing")
	}
	v := new(VerifiableTx)
	var err error
	if v.Proof, err = DecodeDualProof(m.DualProof); err != nil {
		return nil, err
	}
	if m.Tx.GetHeader() != nil {
		h, err := DecodeHeader(m.Tx.Header)
		if err != nil {
			return nil, within("tx.header", err)
		}
		v.Header = &h
	}
	if v.PublicKey, v.Signature, err = decodeSignature(m.Signature); err != nil {
		return nil, err
	}
	return v, nil
}

// DecodeTx decodes a transaction, its entries as listed, and the values that
// came with them: values[i] belongs to entries[i] and is empty where none
// came, which on the wire looks like an empty one. Whether the entries are all
// of the transaction's is for proof.VerifyEntries.
func DecodeTx(m *schema.Tx) (h proof.Header, entries []proof.Entry, values [][]byte, err error) {
	if m == nil {
		return h, nil, nil, refuse("tx", "is missing")
	}
	if h, err = DecodeHeader(m.Header); err != nil {
		return proof.Header{}, nil, nil, within("header", err)
	}
	entries = make([]proof.Entry, len(m.Entries))
	values = make([][]byte, len(m.Entries))
	for i, e := range m.Entries {
		if entries[i], err = decodeEntry(h.Version, e); err != nil {
			return proof.Header{}, nil, nil, within(fmt.Sprintf("entries[%d]", i), err)
		}
		values[i] = e.Value
	}
	return h, entries, values, nil
}

// decodeEntry leaves vLen out: no hash covers it, and 1.0 and 1.1 put it
// elsewhere.
func decodeEntry(version uint16, m *schema.TxEntry) (proof.Entry, error) {
	if m == nil {
		return proof.Entry{}, refuse("entry", "is missing")
	}
	hValue, err := decodeHash("hValue", m.HValue)
	if err != nil {
		return proof.Entry{}, err
	}
	e := proof.Entry{Key: m.Key, HValue: hValue}
	if md := m.Metadata; md != nil {
		e.Metadata = proof.EntryMetadata{
			Deleted:      md.Deleted,
			HasExpiry:    md.Expiration != nil,
			ExpiresAt:    md.Expiration.GetExpiresAt(),
			NonIndexable: md.NonIndexable,
		}
	}
	if err := e.Validate(version); err != nil {
		return proof.Entry{}, err
	}
	return e, nil
}

func decodeSignature(m *schema.Signature) (point, signature []byte, err error) {
	if n := len(m.GetPublicKey()); n > maxPoint {
		return nil, nil, refuse("signature.publicKey", "%d bytes, at most %d", n, maxPoint)
	}
	if n := len(m.GetSignature()); n > maxSignature {
		return nil, nil, refuse("signature.signature", "%d bytes, at most %d", n, maxSignature)
	}
	return m.GetPublicKey(), m.GetSignature(), nil
}

func decodePath(what string, list [][]byte) ([]proof.Hash, error) {
	return decodeHashes(what, list, proof.MaxPath)
}

func decodeHashes(what string, list [][]byte, limit int) ([]proof.Hash, error) {
	if len(list) > limit {
		return nil, refuse(what, "%d hashes, at most %d", len(list), limit)
	}
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]proof.Hash, len(list))
	for i, b := range list {
		if len(b) != len(out[i]) {
			return nil, refuse(fmt.Sprintf("%s[%d]", what, i), "%d bytes, a digest has %d", len(b), len(out[i]))
		}
		out[i] = proof.Hash(b)
	}
	return out, nil
}

func decodeHash(what string, b []byte) (proof.Hash, error) {
	var h proof.Hash
	if len(b) != len(h) {
		return h, refuse(what, "%d bytes, a digest has %d", len(b), len(h))
	}
	return proof.Hash(b), nil
}

func refuse(what, format string, args ...any) error {
	return &proof.Malformed{What: what, Why: fmt.Sprintf(format, args...)}
}

// within puts the enclosing message's name before the field of a
// *proof.Malformed.
func within(what string, err error) error {
	if m, ok := err.(*proof.Malformed); ok {
		return &proof.Malformed{What: what + "." + m.What, Why: m.Why}
	}
	return err
}

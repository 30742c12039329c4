package audit

import (
	"bytes"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// signing judges the signature of an observed state. A configured key is
// authoritative; without one, the key that states were first seen under is
// held on to. The key inside a message proves nothing by itself
// (docs/protocol.md §5); it only tells a changed key from a broken signature.
// The key to remember from now on is returned, nil where nothing is new.
func (e *Engine) signing(v *view, s *proof.SignedState) (remember []byte, finding *evidence.Finding) {
	key, point := e.o.Key, e.o.KeyPoint
	if key == nil && len(v.trust.Key) > 0 {
		point = v.trust.Key
		pinned, err := proof.ParsePoint(point)
		if err != nil { // it was checked before it was stored
			return nil, &evidence.Finding{Kind: evidence.SignatureInvalid, Check: string(proof.CheckSignature), Tx: s.TxID, Detail: "the remembered signing key cannot be read: " + err.Error()}
		}
		key = pinned
	}
	f := evidence.Finding{Check: string(proof.CheckSignature), Tx: s.TxID}
	if key == nil {
		if len(s.Signature) == 0 {
			return nil, nil
		}
		if carriedVerifies(s) {
			return bytes.Clone(s.PublicKey), nil
		}
		f.Kind, f.Detail = evidence.SignatureInvalid, "the state's signature does not verify under the key sent with it"
		return nil, &f
	}
	if len(s.Signature) == 0 {
		f.Kind, f.Detail = evidence.SignatureMissing, "states of this ledger must be signed, this one is not"
		return nil, &f
	}
	if proof.VerifySignature(key, s) == nil {
		if e.o.Key != nil && !bytes.Equal(v.trust.Key, e.o.KeyPoint) {
			return bytes.Clone(e.o.KeyPoint), nil
		}
		return nil, nil
	}
	if !bytes.Equal(s.PublicKey, point) && carriedVerifies(s) {
		f.Kind, f.Want, f.Got = evidence.KeyChanged, hexOf(point), hexOf(s.PublicKey)
		f.Detail = "the state is signed by another key than the trusted one"
		return nil, &f
	}
	f.Kind, f.Detail = evidence.SignatureInvalid, "the state's signature does not verify under the trusted key: it is of another state, another database or nobody's"
	return nil, &f
}

// carriedVerifies reports whether the state is signed by the key it carries.
func carriedVerifies(s *proof.SignedState) bool {
	key, err := proof.ParsePoint(s.PublicKey)
	return err == nil && proof.VerifySignature(key, s) == nil
}

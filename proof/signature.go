package proof

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"math"
)

// Sizes of what is read as a key.
const (
	pointSize = 1 + 32 + 32 // uncompressed P-256 point
	maxPEM    = 64 << 10
)

// ParsePublicKey reads the PEM form ("PUBLIC KEY", PKIX) of a P-256 key, as
// given to a server's clients. An error is a *Malformed.
func ParsePublicKey(data []byte) (*ecdsa.PublicKey, error) {
	const what = "public key"
	if len(data) > maxPEM {
		return nil, malformed(what, "%d bytes, at most %d; give the file that holds nothing but the key", len(data), maxPEM)
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, malformed(what, "no PEM block; give the PEM file that begins with -----BEGIN PUBLIC KEY-----")
	}
	if block.Type != "PUBLIC KEY" {
		return nil, malformed(what, "PEM block %q; give the public key, as openssl ec -pubout writes it", block.Type)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, malformed(what, "more than one PEM block; give one key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, malformed(what, "%v; give an ECDSA P-256 key", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, malformed(what, "not ECDSA on P-256; give the key that the server signs its states with")
	}
	return key, nil
}

// ParsePoint reads the uncompressed point (65 bytes) that a server sends
// beside its signature. An error is a *Malformed.
func ParsePoint(point []byte) (*ecdsa.PublicKey, error) {
	if len(point) != pointSize {
		return nil, malformed("signature.publicKey", "%d bytes, an uncompressed P-256 point has %d", len(point), pointSize)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, malformed("signature.publicKey", "not a point of P-256")
	}
	return key, nil
}

// VerifySignature checks that s is signed by key (docs/protocol.md §5). The
// key must be a remembered or configured one, never the one in s, which proves
// nothing. An unsigned state is a *Mismatch like any other: look at
// s.Signature first to tell the two apart.
func VerifySignature(key *ecdsa.PublicKey, s *SignedState) error {
	switch {
	case key == nil || key.Curve != elliptic.P256():
		return malformed("public key", "not ECDSA on P-256")
	case s == nil:
		return malformed("state", "is missing")
	case uint64(len(s.DB)) > math.MaxUint32:
		return malformed("db", "%d bytes, at most 2³²−1", len(s.DB))
	case s.TxID > MaxTxID:
		return malformed("txId", "%d is beyond 2⁶³−1", s.TxID)
	case len(s.Signature) == 0:
		return &Mismatch{Check: CheckSignature, Tx: s.TxID, Detail: "the state is not signed"}
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(s.DB)+8+32), uint32(len(s.DB)))
	b = append(b, s.DB...)
	b = binary.BigEndian.AppendUint64(b, s.TxID)
	b = append(b, s.Alh[:]...)
	digest := sha256.Sum256(b)
	if !ecdsa.VerifyASN1(key, digest[:], s.Signature) {
		return &Mismatch{Check: CheckSignature, Tx: s.TxID, Detail: "the signature is not the key's over this state"}
	}
	return nil
}

package evidence

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

var errKeyForm = errors.New("is not a key of a signed note")

// keyBytes gives name and key of NAME+HASH+KEY: an algorithm byte, 1 for
// Ed25519, and 32 bytes.
func keyBytes(encoded string) (name string, key []byte, err error) {
	name, rest, _ := strings.Cut(encoded, "+")
	_, data, _ := strings.Cut(rest, "+")
	key, err = base64.StdEncoding.DecodeString(data)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 1 {
		return "", nil, errKeyForm
	}
	return name, key[1:], nil
}

// verifierKey gives the public form of PRIVATE+KEY+NAME+HASH+SEED.
func verifierKey(private string) (string, error) {
	name, seed, err := keyBytes(strings.TrimPrefix(private, "PRIVATE+KEY+"))
	if err != nil {
		return "", err
	}
	public, ok := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	if !ok {
		return "", errKeyForm
	}
	return note.NewEd25519VerifierKey(name, public)
}

// canonical gives a verifier key in the one form that is written, "" for what
// is none.
func canonical(key string) string {
	name, public, err := keyBytes(key)
	if err != nil {
		return ""
	}
	again, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return ""
	}
	return again
}

package evidence

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
)

// Signer signs evidence. Its verifier key is written into every file.
type Signer interface {
	note.Signer
	// VerifierKey is the public key in the form NAME+HASH+KEY.
	VerifierKey() string
}

// keyFile holds the auditor's signing key, in the state directory.
const (
	keyFile    = "auditor.key"
	maxKeyFile = 1024
)

// Key is an auditor's own Ed25519 key.
type Key struct {
	note.Signer
	verifier string
	// Created: there was none before.
	Created bool
}

// VerifierKey is what others check the auditor's evidence with.
func (k *Key) VerifierKey() string { return k.verifier }

// LoadOrCreateKey reads the auditor's key from its state directory, and makes
// one where there is none. Two processes that do so at once get the same key.
func LoadOrCreateKey(dir string) (*Key, error) {
	disk{}.sweep(dir) // what is left over may be a copy of the key
	path := filepath.Join(dir, keyFile)
	k, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	// The name tells auditors apart and says nothing about the machine.
	id := make([]byte, 6)
	if _, err := rand.Read(id); err != nil {
		return nil, fmt.Errorf("making the auditor's key: %w", err)
	}
	private, _, err := note.GenerateKey(rand.Reader, "immuaudit-"+hex.EncodeToString(id))
	if err != nil {
		return nil, fmt.Errorf("making the auditor's key: %w", err)
	}
	err = disk{}.publish(path, []byte(private+"\n"))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("storing the auditor's key: %w; make sure that %s can be written", err, dir)
	}
	created := err == nil
	if k, err = loadKey(path); err != nil {
		return nil, err
	}
	k.Created = created
	return k, nil
}

// LoadKey reads the auditor's key from its state directory, and changes nothing
// there. Where there is none the error is fs.ErrNotExist.
func LoadKey(dir string) (*Key, error) { return loadKey(filepath.Join(dir, keyFile)) }

// loadKey refuses a key that others can read or replace: they could sign in
// this auditor's name.
func loadKey(path string) (*Key, error) {
	refuse := func(what, next string) error {
		return fmt.Errorf("reading the auditor's key: %s %s; %s", path, what, next)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the auditor's key: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, refuse("is not a regular file", "put the key itself there, or move it away to begin with a new one")
	case exposed(info):
		return nil, refuse(fmt.Sprintf("can be used by others (mode %04o)", info.Mode().Perm()),
			"if nobody can have read it: chmod 600; else move it away, a new one is made, and tell those who check evidence")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the auditor's key: %w; run as the user that the auditor runs as", err)
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the auditor's key: %w", err)
	}
	const next = "restore it from a backup, or move it away to begin with a new one"
	line, whole := bytes.CutSuffix(text, []byte("\n"))
	if !whole || len(text) > maxKeyFile {
		return nil, refuse("is cut or damaged", next)
	}
	// What is wrong is not quoted: it is a secret all the same.
	signer, err := note.NewSigner(string(line))
	if err != nil {
		return nil, refuse("is cut or damaged", next)
	}
	verifier, err := verifierKey(string(line))
	if err != nil {
		return nil, refuse("is cut or damaged", next)
	}
	return &Key{Signer: signer, verifier: verifier}, nil
}

// checkNote: the note is signed by the key and by nobody else, and is over the
// body.
func checkNote(text string, body []byte, key string) error {
	verifier, err := ParseAuditorKey(key)
	if err != nil {
		return err
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return fmt.Errorf("its note is not signed by the key it names, or was changed: %w", err)
	}
	if n.Text != noteText(body) {
		return errors.New("its body was changed after it was signed, or the note is of something else")
	}
	// One form of the note only: base64 may end in bits that nobody reads.
	raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != n.Sigs[0].Base64 {
		return errors.New("its signature is not in the form that is written")
	}
	again, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
	if err != nil || string(again) != text {
		return errors.New("its note is not in the form that is written")
	}
	return nil
}

// ParseAuditorKey reads an auditor's verifier key, as immuclient trust key
// prints it.
func ParseAuditorKey(key string) (note.Verifier, error) {
	const next = "give the line that immuclient trust key prints: NAME+HASH+KEY"
	if len(key) > maxText || !isClean(key, maxText) {
		return nil, errors.New("the auditor's key is not one; " + next)
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("reading the auditor's key: %w; %s", err, next)
	}
	if canonical(key) != key {
		return nil, errors.New("the auditor's key is not in the form that is written; " + next)
	}
	return v, nil
}

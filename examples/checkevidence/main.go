// Checkevidence re-checks an evidence file of immuaudit with nothing but the
// standard library and docs/evidence-format.md: checkevidence FILE
// [SERVER-KEY.pem [AUDITOR-KEY]]. It exits with 3 if the server's key signed
// two histories, 1 if the file proves no such thing, 2 if it was changed.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

type showing struct {
	State struct {
		SignedBytes []byte `json:"signed_bytes"`
		Signature   []byte
	}
	Path []struct {
		By      string
		Tx      uint64
		Alh     hash
		Headers [][]byte
		Hashes  []hash
	}
}

type body struct {
	Version int
	Auditor struct{ Key string }
	Proof   *struct {
		Key           []byte
		Tx            uint64
		First, Second showing
	}
}

type hash []byte // 64 hex digits in the file

func (h *hash) UnmarshalText(text []byte) (err error) {
	if *h, err = hex.DecodeString(string(text)); err == nil && len(*h) != sha256.Size {
		err = errors.New("a hash has 64 hex digits")
	}
	return err
}

func main() {
	args := append(os.Args, "", "", "")
	file, err := os.ReadFile(args[1])
	var serverKey []byte
	if err == nil && args[2] != "" {
		serverKey, err = os.ReadFile(args[2])
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	words, code := check(file, serverKey, args[3])
	fmt.Println(words)
	os.Exit(code)
}

func check(file, serverKey []byte, auditorKey string) (words string, code int) {
	b, err := open(file, auditorKey)
	if err != nil {
		return "not the file that the auditor signed: " + err.Error(), 2
	}
	if b.Proof == nil {
		return "the auditor's signature holds; what it says is its own word, for the server signed no contradiction", 1
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b.Proof.Key)
	if err != nil {
		return "the proof names no key: " + err.Error(), 1
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if block, _ := pem.Decode(serverKey); err != nil || len(serverKey) > 0 && (block == nil || !bytes.Equal(block.Bytes, der)) {
		return "the proof is about another key than the one given", 1
	}
	database, first, err1 := b.Proof.First.follow(key, b.Proof.Tx)
	other, second, err2 := b.Proof.Second.follow(key, b.Proof.Tx)
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(database, other) || bytes.Equal(first, second) {
		return fmt.Sprintf("the two paths do not contradict each other (%v)", err), 1
	}
	return fmt.Sprintf("PROVEN: the holder of key SHA256:%x signed two histories of database %q:\ntransaction %d is %x, and it is %x",
		sha256.Sum256(der), database, b.Proof.Tx, first, second), 3
}

// open checks that the file is what its auditor signed: a note (Ed25519) over
// the SHA-256 of the body, byte for byte as it stands in the file.
func open(file []byte, auditorKey string) (*body, error) {
	var b body
	var outer struct {
		Body json.RawMessage
		Note string
	}
	err := json.Unmarshal(file, &outer)
	if err = errors.Join(err, json.Unmarshal(outer.Body, &b)); err != nil {
		return nil, err
	}
	if b.Version != 1 || auditorKey != "" && auditorKey != b.Auditor.Key {
		return nil, errors.New("of another version, or signed by another auditor")
	}
	part := append(strings.SplitN(b.Auditor.Key, "+", 3), "", "") // name, hash, key
	key, err1 := base64.StdEncoding.DecodeString(part[2])
	text := fmt.Sprintf("immuaudit-evidence-v1\n%x\n", sha256.Sum256(outer.Body))
	line, found := strings.CutPrefix(outer.Note, text+"\n— "+part[0]+" ")
	signature, err2 := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(line, "\n"))
	if !found || errors.Join(err1, err2) != nil || len(key) != 33 || key[0] != 1 || len(signature) != 68 ||
		fmt.Sprintf("%x", signature[:4]) != part[1] || !ed25519.Verify(key[1:], []byte(text), signature[4:]) {
		return nil, errors.New("the body was changed, or the signature")
	}
	return &b, nil
}

// follow checks the signature of the state and leads from there to tx.
func (s *showing) follow(key *ecdsa.PublicKey, tx uint64) (database, alh []byte, err error) {
	b := s.State.SignedBytes // u32 length || database || u64 transaction || alh
	digest := sha256.Sum256(b)
	if len(b) < 44 || int(binary.BigEndian.Uint32(b)) != len(b)-44 || !ecdsa.VerifyASN1(key, digest[:], s.State.Signature) {
		return nil, nil, errors.New("the state is not signed by the key")
	}
	at, alh := binary.BigEndian.Uint64(b[len(b)-40:]), b[len(b)-32:]
	for _, step := range s.Path {
		if len(step.Alh) != sha256.Size || step.Tx == 0 || step.Tx >= at {
			return nil, nil, errors.New("a step does not lead back")
		}
		end := []byte(step.Alh) // followed from its end, the step must lead to alh
		switch {
		case step.By == "linear" && uint64(len(step.Hashes)) == at-step.Tx:
			for i, inner := range step.Hashes {
				end = sum(binary.BigEndian.AppendUint64(nil, step.Tx+1+uint64(i)), end, inner)
			}
		case step.By == "headers" && uint64(len(step.Headers)) == at-step.Tx:
			for i, h := range step.Headers {
				if len(h) < 124 || binary.BigEndian.Uint64(h) != step.Tx+1+uint64(i) || !bytes.Equal(h[8:40], end) {
					return nil, nil, errors.New("a header does not follow the one before")
				}
				end = sum(h[:40], sum(h[40:]))
			}
		case step.By == "inclusion" && len(step.Headers) == 1 && len(step.Headers[0]) >= 124:
			h := step.Headers[0]
			if binary.BigEndian.Uint64(h) != at || !included(step.Tx, h[len(h)-40:], sum([]byte{0}, end), step.Hashes) {
				return nil, nil, errors.New("the transaction is not in the tree")
			}
			end = sum(h[:40], sum(h[40:]))
		default:
			return nil, nil, errors.New("an unknown step")
		}
		if !bytes.Equal(end, alh) {
			return nil, nil, fmt.Errorf("a step does not belong to transaction %d", at)
		}
		at, alh = step.Tx, step.Alh
	}
	if at != tx {
		return nil, nil, fmt.Errorf("the path ends at transaction %d, not %d", at, tx)
	}
	return b[4 : len(b)-40], alh, nil
}

// included follows an audit path (RFC 9162 §2.1.3.2); transaction n is leaf n−1.
// tree is u64 size || root, with which a header ends.
func included(tx uint64, tree, at []byte, path []hash) bool {
	index, last := tx-1, binary.BigEndian.Uint64(tree)-1
	if index > last || last+1 == 0 {
		return false
	}
	for ; len(path) > 0 && last > 0; path = path[1:] {
		p := path[0]
		if index&1 == 0 && index != last {
			at = sum([]byte{1}, at, p)
		} else {
			at = sum([]byte{1}, p, at)
			for index&1 == 0 && index != 0 {
				index, last = index>>1, last>>1
			}
		}
		index, last = index>>1, last>>1
	}
	return last == 0 && len(path) == 0 && bytes.Equal(at, tree[8:])
}

func sum(parts ...[]byte) []byte {
	s := sha256.Sum256(bytes.Join(parts, nil))
	return s[:]
}

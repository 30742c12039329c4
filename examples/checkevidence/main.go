// Checkevidence re-checks an evidence file of immuaudit with nothing but the
// standard library and docs/evidence-format.md: checkevidence FILE
// [SERVER-KEY.pem [AUDITOR-KEY]]. It exits with 3 if the server's key signed two
// histories, or if it is the word of the auditor whose key was given, 1 if it is
// that of another, 2 if it is no evidence. The testimony it does not read.
package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/bits"
	"os"
	"strings"
)

type body struct {
	Version int `json:"version"`
	Auditor struct {
		Key     string `json:"key"`
		Version string `json:"version"`
	} `json:"auditor"`
	Proof *struct {
		Key      []byte  `json:"key"`
		Database string  `json:"database"`
		Tx       uint64  `json:"tx"`
		First    showing `json:"first"`
		Second   showing `json:"second"`
	} `json:"proof,omitempty"`
	Testimony json.RawMessage `json:"testimony"`
}

type showing struct {
	Alh   octets `json:"alh"`
	State struct {
		Database  string `json:"database"`
		Tx        uint64 `json:"tx"`
		Alh       octets `json:"alh"`
		Signed    []byte `json:"signed_bytes"`
		Signature []byte `json:"signature,omitempty"`
		PublicKey []byte `json:"public_key,omitempty"`
	} `json:"state"`
	Path []struct {
		By      string   `json:"by"`
		Tx      uint64   `json:"tx"`
		Alh     octets   `json:"alh"`
		Headers [][]byte `json:"headers,omitempty"`
		Hashes  []octets `json:"hashes,omitempty"`
	} `json:"path,omitempty"`
}

type octets string // in a file always a hash, as 64 hex digits

func (o octets) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", string(o)), nil }

func (o *octets) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if len(b) == sha256.Size {
		*o = octets(b)
	}
	return err
}

func main() {
	args := append(os.Args, "", "", "")
	file, err1 := os.ReadFile(args[1])
	serverKey, err2 := os.ReadFile(args[2])
	words, code := check(file, serverKey, args[3])
	if err1 != nil || args[2] != "" && err2 != nil {
		words, code = fmt.Sprint(err1, err2), 2
	}
	fmt.Println(words)
	os.Exit(code)
}

func check(file, serverKey []byte, auditorKey string) (words string, code int) {
	b, err := open(file)
	if err != nil {
		return "not a file as an auditor signed it: " + err.Error(), 2
	}
	words, code = "it is the word of whoever has auditor key "+b.Auditor.Key, 1
	if auditorKey == b.Auditor.Key {
		code = 3
	}
	p := b.Proof
	if p == nil {
		return words, code
	}
	database, err1 := p.First.follow(p.Key, p.Tx)
	other, err2 := p.Second.follow(p.Key, p.Tx)
	if err1 != nil || err2 != nil || p.First.Alh == p.Second.Alh || database != other || p.Database != p.First.State.Database {
		return fmt.Sprintf("the two paths do not contradict each other (%v, %v)", err1, err2), 2
	}
	// The PKIX form of a P-256 key is always this, and the point.
	der := "0Y0\x13\x06\x07*\x86H\xce=\x02\x01\x06\x08*\x86H\xce=\x03\x01\x07\x03B\x00" + string(p.Key)
	if block, _ := pem.Decode(serverKey); len(serverKey) > 0 && (block == nil || string(block.Bytes) != der) {
		return "what is proven is about another key than the one given; " + words, code
	}
	return fmt.Sprintf("PROVEN: the holder of key SHA256:%x signed two histories of database %q:\ntransaction %d is %x, and it is %x",
		sum(octets(der)), database, p.Tx, p.First.Alh, p.Second.Alh), 3
}

// open checks that a file has the one form there is, and is what its auditor
// signed: a note (Ed25519) over the SHA-256 of the body as it stands there.
func open(file []byte) (*body, error) {
	var b body
	var outer struct {
		Body json.RawMessage `json:"body"`
		Note string          `json:"note"`
	}
	if len(file) > 64<<20 || json.Unmarshal(file, &outer) != nil || json.Unmarshal(outer.Body, &b) != nil || b.Version != 1 || written(outer) != string(file) || written(b) != string(outer.Body)+"\n" {
		return nil, fmt.Errorf("of another version, or not in the form that is written")
	}
	part := append(strings.SplitN(b.Auditor.Key, "+", 3), "", "") // name, hash, key; 01 before the key says Ed25519
	key, _ := base64.StdEncoding.DecodeString(part[2])
	id := sum(octets(part[0] + "\n" + string(key)))[:4]
	text := fmt.Sprintf("immuaudit-evidence-v1\n%x\n", sum(octets(outer.Body)))
	line, _ := strings.CutPrefix(outer.Note, text+"\n— "+part[0]+" ")
	sig, _ := base64.StdEncoding.DecodeString(line)
	if len(key) != 33 || key[0] != 1 || b.Auditor.Key != fmt.Sprintf("%s+%x+%s", part[0], id, base64.StdEncoding.EncodeToString(key)) ||
		len(sig) != 68 || octets(sig[:4]) != id || line != base64.StdEncoding.EncodeToString(sig)+"\n" || !ed25519.Verify(key[1:], []byte(text), sig[4:]) {
		return nil, fmt.Errorf("the body was changed, or the signature")
	}
	return &b, nil
}

func written(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(v) // what cannot be written is equal to nothing
	return b.String()
}

// follow checks the signature of the state and leads from there to tx.
func (s *showing) follow(point []byte, tx uint64) (database string, err error) {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	signed, text, at, alh := octets(s.State.Signed), s.State.Database, s.State.Tx, s.State.Alh
	// In text, what is not fit to be printed is replaced.
	database = strings.TrimSuffix(string(signed[min(4, len(signed)):]), string(u64(at)+alh))
	if err != nil || signed != u64(uint64(len(database)))[4:]+octets(database)+u64(at)+alh || !ecdsa.VerifyASN1(key, []byte(sum(signed)), s.State.Signature) ||
		text != database && !strings.ContainsRune(text, '\uFFFD') {
		return "", fmt.Errorf("the state is not what the key signed (%v)", err)
	}
	for _, step := range s.Path {
		end, n, ok := step.Alh, at-step.Tx, step.Tx > 0 && step.Tx < at // followed from its end, it must lead to alh
		switch headers, hashes := uint64(len(step.Headers)), uint64(len(step.Hashes)); {
		case step.By == "linear" && headers == 0 && hashes == n:
			for i, inner := range step.Hashes {
				end = sum(u64(step.Tx+1+uint64(i)) + end + inner)
			}
		case step.By == "headers" && headers == n && hashes == 0:
			for i, h := range step.Headers {
				ok, end = ok && len(h) >= 124 && octets(h[:40]) == u64(step.Tx+1+uint64(i))+end, alhOf(h)
			}
		case step.By == "inclusion" && headers == 1:
			h := step.Headers[0]
			ok, end = ok && len(h) >= 124 && octets(h[:8]) == u64(at) && included(step.Tx, h[len(h)-40:], sum("\x00"+end), step.Hashes), alhOf(h)
		default:
			ok = false
		}
		if !ok || end != alh {
			return "", fmt.Errorf("a step does not lead back from transaction %d", at)
		}
		at, alh = step.Tx, step.Alh
	}
	if at == 0 || at != tx || alh != s.Alh {
		err = fmt.Errorf("the path leads to transaction %d, not as it says", at)
	}
	return database, err
}

// included follows the audit path of leaf tx−1 in the RFC 6962 tree u64 size ||
// root: both sides occur below where it meets the last leaf's, left ones above.
func included(tx uint64, tree []byte, at octets, path []octets) bool {
	index, last := tx-1, binary.BigEndian.Uint64(tree)-1
	both := bits.Len64(index ^ last)
	if index > last || last+1 == 0 || len(path) != both+bits.OnesCount64(index>>both) {
		return false
	}
	for i, p := range path {
		if i >= both || index>>i&1 == 1 {
			p, at = at, p
		}
		at = sum("\x01" + at + p)
	}
	return at == octets(tree[8:])
}

func alhOf(h []byte) octets { n := min(40, len(h)); return sum(octets(h[:n]) + sum(octets(h[n:]))) }
func u64(n uint64) octets   { return octets(binary.BigEndian.AppendUint64(nil, n)) }
func sum(o octets) octets   { s := sha256.Sum256([]byte(o)); return octets(s[:]) }

package mirror

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"immuaudit/evidence"
	"immuaudit/proof"
)

const (
	headMark   = "immuaudit mirror head 1"
	ledgerMark = "immuaudit mirror ledger 1"
	// maxHead is beyond 64 hashes in base64 and the lines before them.
	maxHead = 4 << 10
	// maxLedger is beyond what two names of maxName bytes take when every
	// byte is escaped.
	maxLedger = 16 << 10
	maxName   = 1 << 10
)

// head says what of the tiles counts.
type head struct {
	size     uint64
	frontier []proof.Hash // one for each bit set in size, the largest subtree first
}

// section gives where in the frontier the hashes of a level's partial tile are.
func (h *head) section(level int) (from, to int) {
	from = bits.OnesCount64(hashesAt(level+1, h.size))
	return from, from + bits.OnesCount(uint(edge(level, h.size).width))
}

// String is the content of the file head: a mark, the size, the root and the
// frontier, a line each, as the body of a checkpoint would have them.
func (h *head) String() string {
	var b strings.Builder
	root := rootOf(h.frontier)
	fmt.Fprintf(&b, "%s\n%d\n%s\n", headMark, h.size, base64.StdEncoding.EncodeToString(root[:]))
	for i := range h.frontier {
		b.WriteString(base64.StdEncoding.EncodeToString(h.frontier[i][:]))
		b.WriteByte('\n')
	}
	return b.String()
}

// parseHead accepts exactly what String gives. The root, formed again from
// the frontier, is what a cut or changed file does not get past.
func parseHead(data []byte) (head, error) {
	lines := strings.Split(string(data), "\n")
	if len(lines) < 4 || len(lines) > 4+64 {
		return head{}, fmt.Errorf("%d lines", len(lines))
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return head{}, errors.New("the size is not a number below 2^63")
	}
	h := head{size: size}
	frontier := lines[3 : len(lines)-1]
	if need := bits.OnesCount64(size); len(frontier) != need {
		return head{}, fmt.Errorf("%d hashes where a tree of %d leaves needs %d", len(frontier), size, need)
	}
	for _, line := range frontier {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(hash) != hashSize {
			return head{}, errors.New("the frontier holds something else than hashes")
		}
		h.frontier = append(h.frontier, proof.Hash(hash))
	}
	if h.String() != string(data) {
		return head{}, errors.New("size, root and frontier do not fit together")
	}
	return h, nil
}

// describe is the content of the file ledger.
func describe(name evidence.Name) string {
	return fmt.Sprintf("%s\nserver %s\ndatabase %s\n", ledgerMark, strconv.QuoteToASCII(name.Server), strconv.QuoteToASCII(name.Database))
}

// parseDescription accepts exactly what describe gives.
func parseDescription(data []byte) (evidence.Name, error) {
	lines := strings.Split(string(data), "\n")
	if len(lines) != 4 {
		return evidence.Name{}, fmt.Errorf("%d lines", len(lines))
	}
	server, err1 := strconv.Unquote(strings.TrimPrefix(lines[1], "server "))
	database, err2 := strconv.Unquote(strings.TrimPrefix(lines[2], "database "))
	name := evidence.Name{Server: server, Database: database}
	if err1 != nil || err2 != nil || describe(name) != string(data) {
		return evidence.Name{}, errors.New("it does not name a ledger")
	}
	return name, checkName(name)
}

func checkName(name evidence.Name) error {
	if len(name.Server) > maxName || len(name.Database) > maxName {
		return fmt.Errorf("a ledger's name has %d and %d bytes, at most %d each can be mirrored", len(name.Server), len(name.Database), maxName)
	}
	return nil
}

package verify

import "fmt"

// Kind is what an entry is, as the first byte of its key says
// (docs/protocol.md §2).
type Kind uint8

const (
	KeyValue Kind = iota
	SortedSet
	SQL
	Document
	Other // no server is known to write such entries
	kinds = iota
)

var kindNames = [kinds]string{"key/value", "sorted set", "SQL", "document", "other"}

func (k Kind) String() string {
	if int(k) < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// kindOf is the kind of the entry with this key, which is not empty.
func kindOf(key []byte) Kind { return min(Kind(key[0]), Other) }

// listed reports whether listings with values have entries of this kind.
func (k Kind) listed() bool { return k <= SQL }

// listedKinds are the key prefixes of all that listings with values have.
var listedKinds = []byte{byte(KeyValue), byte(SortedSet), byte(SQL)}

// Count tells what became of the entries of one kind. Every entry of a
// transaction whose listing was bound to its header is in Entries and in
// exactly one of the others.
type Count struct {
	Entries   uint64
	Verified  uint64 // the value was hashed here and is the committed one
	Expired   uint64 // not seen, for the entry has expired
	Truncated uint64 // not seen, for retention has removed it, and a header says so
	Unseen    uint64 // not seen, for there was no way to ask for it
	Damaged   uint64 // another value than the committed one, or none that the server can read
	Missing   uint64 // not there, and no record of retention
	Bytes     uint64 // of the values that were verified
}

func (c *Count) add(o *Count) {
	c.Entries += o.Entries
	c.Verified += o.Verified
	c.Expired += o.Expired
	c.Truncated += o.Truncated
	c.Unseen += o.Unseen
	c.Damaged += o.Damaged
	c.Missing += o.Missing
	c.Bytes += o.Bytes
}

// Tally counts what was looked at.
type Tally struct {
	Transactions uint64
	Empty        uint64 // transactions without entries
	Received     uint64 // bytes of answers

	// Headers are transactions whose header is not the remembered one, Loose
	// those before such a one, or beside it, whose own header is bound to
	// nothing that is known: what they contain says nothing, and is not
	// counted below. Unread could not be read.
	Headers, Loose, Unread uint64
	// Unlisted are transactions whose listing of entries is not what their
	// header commits to. Their entries are not counted below.
	Unlisted uint64
	// Unstable are transactions that did not hold when they were first looked
	// at, and did when they were looked at again.
	Unstable uint64

	Kinds [kinds]Count // by Kind
}

// Damages is how many damages there are in all.
func (t *Tally) Damages() uint64 {
	n := t.Headers + t.Unlisted
	for i := range t.Kinds {
		n += t.Kinds[i].Damaged + t.Kinds[i].Missing
	}
	return n
}

// Total is the count over all kinds of entries.
func (t *Tally) Total() (all Count) {
	for i := range t.Kinds {
		all.add(&t.Kinds[i])
	}
	return all
}

func (t *Tally) add(o *Tally) {
	t.Transactions += o.Transactions
	t.Empty += o.Empty
	t.Headers += o.Headers
	t.Loose += o.Loose
	t.Unread += o.Unread
	t.Unlisted += o.Unlisted
	t.Unstable += o.Unstable
	for i := range t.Kinds {
		t.Kinds[i].add(&o.Kinds[i])
	}
}

// Add adds what another run, or another part of one, has come to.
func (t *Tally) Add(o Tally) {
	t.add(&o)
	t.Received += o.Received
}

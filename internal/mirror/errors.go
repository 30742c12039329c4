package mirror

import (
	"errors"
	"fmt"

	"immuaudit/proof"
)

var (
	// ErrUnsafe: somebody else could change the mirror, or a link stands where
	// a file of it should.
	ErrUnsafe = errors.New("others could change the mirror")
	// ErrForeign: the directory holds what no mirror has made.
	ErrForeign = errors.New("not a mirror")
	// ErrBeyond: asked for more than is mirrored.
	ErrBeyond = errors.New("beyond what is mirrored")
	// ErrExists: a ledger of that name is mirrored already.
	ErrExists = errors.New("mirrored already")
	// ErrChanged: the files are not those that this process has left.
	ErrChanged = errors.New("the mirror was changed by another process")
	// ErrClosed: the mirror was closed.
	ErrClosed = errors.New("the mirror is closed")
)

// Contradiction says that a transaction is mirrored with another Alh than the
// one given. Nothing was written. The mirror keeps leaf hashes, H(00 || Alh).
type Contradiction struct {
	Tx   uint64
	Have proof.Hash // leaf hash that is mirrored
	Got  proof.Hash // leaf hash of the Alh given
}

func (e *Contradiction) Error() string {
	return fmt.Sprintf("transaction %d is mirrored with leaf hash %s, not %s", e.Tx, e.Have, e.Got)
}

// Gap says that an Append would leave transactions out. Nothing was written.
type Gap struct {
	First uint64 // the transaction given
	Size  uint64 // transactions 1…Size are mirrored
}

func (e *Gap) Error() string {
	return fmt.Sprintf("transaction %d cannot be mirrored: the next one is %d", e.First, e.Size+1)
}

// Damage says that a file of the mirror is not what it was when it was
// written. No hash that depends on it is given out.
type Damage struct {
	Path  string
	What  string
	Whole uint64 // transactions 1…Whole do not depend on it: Truncate(Whole) lets the rest be fetched again
	Err   error  // the cause, where there is one
}

func (e *Damage) Error() string {
	text := e.Path + ": the mirror is damaged: " + e.What
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; find out how that came about, then move the folder of this ledger away: the walk fills it again"
}

func (e *Damage) Unwrap() error { return e.Err }

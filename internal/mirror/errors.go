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
	// ErrReadOnly: the mirror was opened for reading.
	ErrReadOnly = errors.New("the mirror was opened for reading only")
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

// Keep is how much of the mirror does not contradict: Truncate(Keep()) lets the
// other history begin.
func (e *Contradiction) Keep() uint64 { return e.Tx - 1 }

// Gap says that an Append would leave transactions out. Nothing was written.
type Gap struct {
	First uint64 // the transaction given
	Size  uint64 // transactions 1…Size are mirrored
}

func (e *Gap) Error() string {
	return fmt.Sprintf("transaction %d cannot be mirrored: the next one is %d", e.First, e.Size+1)
}

// Behind says that a state comes before one that is kept already. Nothing was
// written.
type Behind struct {
	Tx     uint64 // of the state given
	Newest uint64 // of the newest one kept
}

func (e *Behind) Error() string {
	return fmt.Sprintf("a state of transaction %d cannot be kept: there is one of transaction %d; where another history was accepted, set the one before it aside first", e.Tx, e.Newest)
}

// Keep is how much can be of the history that the state is of.
func (e *Behind) Keep() uint64 { return e.Tx - 1 }

// Damage says that a file of the mirror is not what it was when it was
// written. No hash that depends on it is given out.
type Damage struct {
	Path  string
	What  string
	Whole uint64 // transactions 1…Whole do not depend on it: Truncate(Whole) lets the rest be fetched again
	Last  uint64 // transactions Whole+1…Last do; 0 where it concerns no tiles
	Err   error  // the cause, where there is one
	next  string // what to do, where it concerns no tiles
}

func (e *Damage) Error() string {
	text := e.Path + ": the mirror is damaged: " + e.What
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Last > e.Whole {
		text += fmt.Sprintf(" (transactions %d to %d)", e.Whole+1, e.Last)
	}
	next := e.next
	if next == "" {
		next = "move the folder of this ledger away: the walk fills it again"
	}
	return text + "; find out how that came about, then " + next
}

// Keep is Whole.
func (e *Damage) Keep() uint64 { return e.Whole }

func (e *Damage) Unwrap() error { return e.Err }

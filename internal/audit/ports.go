package audit

import (
	"context"
	"errors"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// Server is one immudb, as the engine needs it. Every call has a deadline of
// its own; every answer was bounded and decoded, none was judged. An error that
// the caller did not cause by cancelling implements Fault.
type Server interface {
	Chain
	// Databases lists the databases the login may see. The list is a hint:
	// it only ever adds to what is audited.
	Databases(ctx context.Context) ([]string, error)
	// DefaultDatabase names the database of a login that chose none.
	DefaultDatabase(ctx context.Context) (string, error)
	// Bind gets a new token for db by its name, whatever token there was.
	Bind(ctx context.Context, db string) error
	// Binding is a number that changes with every new token for db: two
	// answers under one number came through one token.
	Binding(db string) uint64
	// UUID is what the server called itself in its newest answer.
	UUID() string
}

// Chain reads the history of one database.
type Chain interface {
	// CurrentState is the newest state the server claims. Its DB is the
	// server's word and may name another database than asked for.
	CurrentState(ctx context.Context, db string) (proof.SignedState, error)
	// Headers gives up to limit consecutive headers starting at from, fewer
	// where the history ends or a page would be too large.
	Headers(ctx context.Context, db string, from uint64, limit int) ([]proof.Header, error)
	// DualProof gives the server's proof that target extends source.
	DualProof(ctx context.Context, db string, source, target uint64) (*proof.DualProof, error)
}

// Fault is an answer that could not be had, with the reason in the words of
// package evidence ("not-found" only where the server, asked by name with a
// fresh login, said that there is no such database; "tx-not-found" is mapped
// to what it means by the caller).
type Fault interface {
	error
	Reason() string
}

// Mirror is the auditor's own memory of one ledger: a hash of every transaction
// that was walked, on disk. It may lag what is trusted and never leads it.
type Mirror interface {
	// Size is how far it reaches: transactions 1…Size, with no gap.
	Size() uint64
	// Append adds transactions from first on, at most Size()+1; those that are
	// mirrored already must be the same. It returns once they are on disk. An
	// error that implements Salvage says how much of the mirror may stay.
	Append(first uint64, alhs []proof.Hash) error
	// Truncate sets everything aside but the first size transactions.
	Truncate(size uint64) error
	Past
	Witness
}

// Past gives the hashes of an RFC 6962 tree of which only a part may be asked for.
type Past interface {
	// LeafHash is H(00 || Alh) of a transaction, LeafHashes those of n from one on.
	LeafHash(tx uint64) (proof.Hash, error)
	LeafHashes(first uint64, n int) ([]proof.Hash, error)
	// Root is the root over the first size transactions.
	Root(size uint64) (proof.Hash, error)
	// Subtree is the root of a perfect subtree: number index of its height.
	Subtree(level uint, index uint64) (proof.Hash, error)
}

// Witness keeps the states that a server signed.
type Witness interface {
	// Witness keeps states, in ascending order; it need not sync them.
	Witness(states []evidence.Witnessed) error
	// States gives kept ones of transactions from … to, newest first.
	States(from, to uint64, limit int) ([]evidence.Witnessed, error)
}

// Salvage is implemented by errors of a mirror that is damaged, or that
// contradicts what is to be appended: the first Keep transactions can stay.
type Salvage interface {
	error
	Keep() uint64
}

// Memory is the auditor's state. Apply returns only once the change is on disk.
// If a record changed since it was read, because somebody decided meanwhile,
// nothing of the change is stored and the error implements
// interface{ Conflict() bool }.
type Memory interface {
	// Load reads everything the engine keeps in mind.
	Load(ctx context.Context) (*evidence.Remembered, error)
	// Apply stores one change, all of it or nothing.
	Apply(ctx context.Context, c evidence.Change) error
	// Generation changes whenever another process wrote to the state.
	Generation(ctx context.Context) (uint64, error)
}

// conflicts reports whether a change was refused because of a decision.
func conflicts(err error) bool {
	var c interface{ Conflict() bool }
	return errors.As(err, &c) && c.Conflict()
}

// epochError voids work that began before a decision.
type epochError struct{}

func (epochError) Error() string  { return "an operator decided meanwhile" }
func (epochError) Conflict() bool { return true }

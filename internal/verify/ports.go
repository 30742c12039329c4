package verify

import (
	"context"
	"errors"

	"immuaudit/proof"
)

// Source is one server. Every call has a deadline of its own and an answer of
// at most [Options.MessageBytes]; every answer was decoded, none was judged. An
// error that the caller did not cause by cancelling implements [Fault]. Several
// calls are made at a time.
type Source interface {
	// Headers gives up to limit consecutive headers from one on, fewer where
	// a page would be too large, and none beyond the end.
	Headers(ctx context.Context, db string, from uint64, limit int) ([]proof.Header, error)
	// Transactions lists up to limit consecutive transactions from one on and
	// gives each in turn, once the whole answer is there: all entries without
	// their values where values is nil, else those with these key prefixes,
	// with their values, nil where none came. What is given is good only until
	// each returns. An error of each is returned as it is. received is the
	// size of the answer.
	Transactions(ctx context.Context, db string, from uint64, limit int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (received int, err error)
	// ValueAt asks for the value of a key/value entry by its key, with prefix,
	// and its transaction. The answer can stand for several stored values.
	ValueAt(ctx context.Context, db string, key []byte, tx uint64) (stored [][]byte, err error)
	// Export asks for a transaction with all its values, unchecked by the
	// server.
	Export(ctx context.Context, db string, tx uint64) (*proof.Export, error)
}

// Mirror remembers headers by their leaf hashes, H(00 || Alh), from transaction
// 1 to its size. Its errors are trouble of the auditor's own state and end the
// run.
type Mirror interface {
	Size() uint64
	LeafHashes(first uint64, n int) ([]proof.Hash, error)
}

// Fault is an answer that could not be had: the reason in the words of package
// evidence, and whether the server says that what it stored is damaged, or
// gone. What a connection does is neither.
type Fault interface {
	error
	Reason() string
	Damaged() bool
	Gone() bool
}

// trouble is what a failed call means for what is done next.
type trouble uint8

const (
	fine     trouble = iota
	damaged          // the server says so: narrow it down
	gone             // likewise
	tooLarge         // ask for less
	slow             // ask for less, or again
	garbled          // an answer nobody can read, or a refusal that says nothing known: narrow it down
	passing          // of the connection or the server's load: ask again
	final            // asking again will not help
)

// ends reports whether nothing else can be tried.
func (t trouble) ends() bool { return t == slow || t == passing || t == final }

func troubleOf(err error) trouble {
	if err == nil {
		return fine
	}
	var f Fault
	if !errors.As(err, &f) {
		return final
	}
	switch {
	case f.Damaged():
		return damaged
	case f.Gone():
		return gone
	}
	switch f.Reason() {
	case "too-large":
		return tooLarge
	case "timeout":
		return slow
	case "malformed", "refused":
		return garbled
	case "unauthorised", "not-found", "tx-not-found":
		return final
	}
	return passing
}

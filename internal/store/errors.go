package store

import (
	"context"
	"errors"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"
)

// What can be wrong, for errors.Is. Every one of them arrives inside an *Error
// that names the path and what to do next.
var (
	ErrAbsent     = errors.New("there is no state here")
	ErrGone       = errors.New("the state is gone, but traces of it are left")
	ErrUnsafe     = errors.New("others could change the state")
	ErrNetwork    = errors.New("the state is on a network file system")
	ErrNotState   = errors.New("not a database")
	ErrForeign    = errors.New("a database of something else")
	ErrVersion    = errors.New("a state of an unknown version")
	ErrDamaged    = errors.New("the state is cut or damaged")
	ErrRolledBack = errors.New("the state is older than what was acknowledged")
	ErrEdited     = errors.New("the state is not what was acknowledged")
	ErrReadOnly   = errors.New("the state cannot be written")
	ErrFull       = errors.New("the disk is full")
	ErrDisk       = errors.New("the disk does not work")
	ErrBusy       = errors.New("the state is in use")
	ErrLocked     = errors.New("another auditor is running")
	ErrClosed     = errors.New("the state is closed")
	ErrConflict   = errors.New("the record was changed by somebody else meanwhile")
	ErrInvalid    = errors.New("not a possible change")
	ErrNotFound   = errors.New("not found")
	ErrExists     = errors.New("exists already")
	ErrAmbiguous  = errors.New("more than one fits")

	ErrGuardPlace   = errors.New("a guard cannot be kept here")
	ErrGuardDamaged = errors.New("the guard is cut or damaged")
	ErrGuardForeign = errors.New("this guard belongs to another state")
)

// Error is trouble with the state directory: which kind, where, and what to
// do next.
type Error struct {
	Kind error  // one of the Err… above
	Path string // the file or directory it is about
	What string // what was found
	Next string // what to do next
	Err  error  // the cause, where there is one
}

func (e *Error) Error() string {
	text := e.Path + ": " + e.Kind.Error()
	if e.What != "" {
		text += ": " + e.What
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Next != "" {
		text += "; " + e.Next
	}
	return text
}

func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Full reports whether the disk is full: the store stays usable and the same
// change can be tried again when there is room.
func (e *Error) Full() bool { return errors.Is(e.Kind, ErrFull) }

// ConflictError says that a record changed since it was read. Nothing of the
// change was stored.
type ConflictError struct {
	Record string // "ledger a/b" or "incident 20261123-k7qd"
	Want   uint64 // the version the change was made from
	Have   uint64 // the version that is stored, 0 for none
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: %v (made from version %d, stored is %d); read it again and decide anew", e.Record, ErrConflict, e.Want, e.Have)
}

func (e *ConflictError) Unwrap() error { return ErrConflict }

// Conflict marks the error for consumers that may not import this package.
func (e *ConflictError) Conflict() bool { return true }

// invalid refuses a change that would break what the state promises. It is a
// fault of the program or of a file somebody wrote, never of a server.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// coder is how the driver's errors carry SQLite's extended result code.
type coder interface{ Code() int }

// resultCode gives SQLite's primary and extended result codes, 0 for other errors.
func resultCode(err error) (primary, extended int) {
	var c coder
	if !errors.As(err, &c) {
		return 0, 0
	}
	return c.Code() & 0xff, c.Code()
}

// spoils reports whether an error inside a transaction is about the database
// rather than about the one change that met it.
func spoils(err error) bool {
	switch primary, _ := resultCode(err); primary {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CORRUPT,
		sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_MISUSE:
		return true
	}
	return errors.Is(err, ErrDamaged)
}

// unsynced reports a failed sync. What the kernel then still holds is unknown
// and a later sync may succeed without having written it, so that nothing
// stored after it can be called durable before the file is opened anew.
func unsynced(err error) bool {
	_, extended := resultCode(err)
	return extended == sqlite3.SQLITE_IOERR_FSYNC || extended == sqlite3.SQLITE_IOERR_DIR_FSYNC
}

// explain turns an error of the database into one that names the file and
// what to do next. Errors that are explained already, and those of a
// cancelled call, stay as they are.
func explain(path string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	primary, _ := resultCode(err)
	switch primary {
	case 0:
		return err
	case sqlite3.SQLITE_FULL:
		return &Error{Kind: ErrFull, Path: path, Err: err, Next: "make room on its disk: nothing of the change was stored and it can be tried again"}
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		return &Error{Kind: ErrReadOnly, Path: path, Err: err, Next: "mount its file system read-write and make the file belong to the user the auditor runs as"}
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return &Error{Kind: ErrBusy, Path: path, Err: err, Next: "find out which program holds it (fuser shows it) and try again"}
	case sqlite3.SQLITE_NOTADB:
		return &Error{Kind: ErrNotState, Path: path, Err: err, Next: nextRestore}
	case sqlite3.SQLITE_CORRUPT:
		return &Error{Kind: ErrDamaged, Path: path, Err: err, Next: nextRestore}
	default:
		return &Error{Kind: ErrDisk, Path: path, Err: err, Next: "look for errors of the disk in the system log, and at quotas and limits of file sizes; nothing of the change was stored"}
	}
}

const (
	nextRestore = "restore the whole directory from one backup, or move it away and begin anew with what `immuclient trust import` or `trust pin` can take over"
	nextExport  = "save what it holds with `immuclient trust export`, move the directory away and take it over with `immuclient trust import`; or restore the whole directory from one backup"
)

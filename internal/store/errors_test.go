package store

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

// TestTroubleIsNamed: each kind of trouble is told apart, whether the system
// or the database met it, and says what to do next.
func TestTroubleIsNamed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		err  error
		kind error
		full bool
	}{
		{"no room", unusable("p", syscall.ENOSPC), ErrFull, true},
		{"quota", unusable("p", &fs.PathError{Err: syscall.EDQUOT}), ErrFull, true},
		{"read-only", unusable("p", &fs.PathError{Err: syscall.EROFS}), ErrReadOnly, false},
		{"no right", unusable("p", &fs.PathError{Err: syscall.EACCES}), ErrReadOnly, false},
		{"disk", unusable("p", syscall.EIO), ErrDisk, false},
		{"SQLITE_FULL", explain("p", sqliteError(13)), ErrFull, true},
		{"SQLITE_READONLY_DBMOVED", explain("p", sqliteError(1032)), ErrReadOnly, false},
		{"SQLITE_CANTOPEN", explain("p", sqliteError(14)), ErrReadOnly, false},
		{"SQLITE_BUSY_SNAPSHOT", explain("p", sqliteError(517)), ErrBusy, false},
		{"SQLITE_NOTADB", explain("p", sqliteError(26)), ErrNotState, false},
		{"SQLITE_CORRUPT_INDEX", explain("p", sqliteError(779)), ErrDamaged, false},
		{"SQLITE_IOERR_WRITE", explain("p", sqliteError(778)), ErrDisk, false},
	} {
		var e *Error
		if !errors.As(test.err, &e) || !errors.Is(test.err, test.kind) || e.Full() != test.full || e.Next == "" || e.Path != "p" {
			t.Errorf("%s: %v", test.name, test.err)
		}
	}
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, fs.ErrNotExist} {
		if explain("p", err) != err {
			t.Errorf("%v is explained as %v", err, explain("p", err))
		}
	}
	if !unsynced(sqliteError(1034)) || unsynced(sqliteError(778)) {
		t.Error("a failed sync is not told from a failed write")
	}
}

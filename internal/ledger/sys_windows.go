package ledger

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile holds an exclusive lock for as long as the file is open.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	if err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncDir has nothing to do: directories cannot be synced here, and a rename is
// kept by the file system's own log.
func syncDir(string) error { return nil }

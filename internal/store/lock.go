package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Lock makes this process the one auditor of the directory, until release is
// called or the process ends. Commands that only read or decide need no lock.
func (s *Store) Lock() (release func(), err error) {
	path := s.dir.file(fileLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, unusable(path, err)
	}
	if _, err := s.dir.checkFile(fileLock); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := tryLock(f); err != nil {
		holder := holderOf(f)
		if err := f.Close(); err != nil {
			return nil, unusable(path, err)
		}
		if !errors.Is(err, errHeld) {
			return nil, unusable(path, err)
		}
		return nil, &Error{Kind: ErrLocked, Path: path, What: "held by " + holder,
			Next: "stop it first, or give this one a directory of its own with --dir"}
	}
	// The number is for people; the lock is what counts.
	if err := errors.Join(s.dir.adopt(f), f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		return nil, errors.Join(unusable(path, err), f.Close())
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			// The file stays: to remove it would let two processes hold
			// locks on two files of one name.
			if err := errors.Join(f.Truncate(0), f.Close()); err != nil {
				s.log.Warn("releasing the lock of the state directory", "file", path, "error", err)
			}
		})
	}, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// holderOf reads who holds the lock, as far as the file tells.
func holderOf(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, 32), 32))
	if err == nil {
		if pid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil {
			return fmt.Sprintf("process %d", pid)
		}
	}
	return "a process that did not leave its number"
}

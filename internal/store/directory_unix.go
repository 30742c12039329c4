//go:build unix

package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// noFollow refuses symbolic links, and never waits where a pipe was put in
// the place of a file.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

type owner struct{ uid, gid int }

func ownerOf(info fs.FileInfo) (owner, uint64) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{-1, -1}, 1
	}
	return owner{int(st.Uid), int(st.Gid)}, uint64(st.Nlink)
}

func euid() int { return os.Geteuid() }

// errHeld: somebody else holds the lock.
var errHeld = errors.New("held by another process")

// tryLock takes the exclusive lock on f without waiting. The kernel gives it
// back when the process ends, however it ends.
func tryLock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errHeld
		default:
			return err
		}
	}
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

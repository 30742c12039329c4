//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package evidence

import (
	"os"
	"syscall"
)

// lockShared takes part in a lock on a directory that any number of writers
// hold together; the kernel gives it back when a process ends, however it
// ends. Where the file system has no locks nobody sweeps, so none is needed.
func lockShared(dir string) (unlock func()) {
	unlock, ok := flock(dir, syscall.LOCK_SH)
	if !ok {
		return func() {}
	}
	return unlock
}

// tryLockAlone takes the lock if nobody holds it.
func tryLockAlone(dir string) (unlock func(), ok bool) {
	return flock(dir, syscall.LOCK_EX|syscall.LOCK_NB)
}

func flock(dir string, how int) (unlock func(), ok bool) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false
	}
	for {
		if err = syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close() // only opened
		return nil, false
	}
	return func() { f.Close() }, true // which gives the lock back
}

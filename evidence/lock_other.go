//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package evidence

import "sync"

// writers: where directories cannot be locked, the auditor's own lock keeps
// other processes out, and only this one's goroutines are left.
var writers sync.RWMutex

func lockShared(string) (unlock func()) {
	writers.RLock()
	return writers.RUnlock
}

func tryLockAlone(string) (unlock func(), ok bool) {
	return writers.Unlock, writers.TryLock()
}

//go:build unix

package service

import (
	"io/fs"
	"os"
	"syscall"
)

// noWait keeps a pipe in the place of a file from holding the program up.
const noWait = syscall.O_NONBLOCK

type owner struct {
	uid, gid int
	links    uint64
}

func ownerOf(info fs.FileInfo) (owner, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{-1, -1, 1}, false
	}
	return owner{int(st.Uid), int(st.Gid), uint64(st.Nlink)}, true
}

func privileged() bool { return os.Geteuid() == 0 }

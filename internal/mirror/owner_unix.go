//go:build unix

package mirror

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// owner is whose the mirror is. Root may look after the mirror of a service
// user, who must be able to read it afterwards.
type owner struct{ uid, gid int }

func ownerOf(info fs.FileInfo) owner {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return owner{int(s.Uid), int(s.Gid)}
	}
	return owner{os.Geteuid(), os.Getegid()}
}

func (o owner) adopt(f *os.File) error {
	if os.Geteuid() != 0 || o.uid == 0 {
		return nil
	}
	return f.Chown(o.uid, o.gid)
}

func syncFolder(root *os.Root, p string) error {
	f, err := root.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

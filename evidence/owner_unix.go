//go:build unix

package evidence

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// adopt gives a new file to the owner of its directory where root made it:
// the auditor itself runs as another user and must be able to read it.
func adopt(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}

// exposed reports whether others than the owner may do anything with a file.
func exposed(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }

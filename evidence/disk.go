package evidence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// deed is one thing that is about to be done to the disk.
type deed struct {
	op   string // mkdir, create, adopt, write, sync, link, rename, remove, syncdir
	path string
	data []byte
}

// disk does what Write needs of the file system, step by step. before, where
// it is set, is asked before each step: tests stop, fail and record there.
type disk struct{ before func(deed) error }

func (d disk) take(next deed, f func() error) error {
	if d.before != nil {
		if err := d.before(next); err != nil {
			return err
		}
	}
	return f()
}

// makeDir makes a directory where it is missing, and its name durable in any
// case: a process that died may have made it.
func (d disk) makeDir(dir string) error {
	err := d.take(deed{op: "mkdir", path: dir}, func() error { return os.Mkdir(dir, 0o700) })
	if err == nil {
		err = d.take(deed{op: "adopt", path: dir}, func() error { return adopt(dir) })
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(filepath.Dir(dir))
}

// temporary begins the names of files that are not finished.
const temporary = ".new-"

// publish makes a file appear complete and durable under its name, or not at
// all; fs.ErrExist if the name is taken. Nothing is ever replaced.
func (d disk) publish(path string, content []byte) error {
	dir := filepath.Dir(path)
	defer lockShared(dir)()
	var f *os.File
	err := d.take(deed{op: "create", path: dir}, func() (err error) {
		f, err = os.CreateTemp(dir, temporary+"*") // 0600
		return err
	})
	if err != nil {
		return err
	}
	name := f.Name()
	// What is not taken away here is swept away the next time.
	defer d.take(deed{op: "remove", path: name}, func() error { return os.Remove(name) })
	err = errors.Join(d.fill(f, content), f.Close())
	if err == nil {
		err = d.give(name, path)
	}
	if err != nil {
		return err
	}
	return d.syncDir(dir)
}

// fill writes the content, synced, and to whom it belongs.
func (d disk) fill(f *os.File, content []byte) error {
	name := f.Name()
	if err := d.take(deed{op: "adopt", path: name}, func() error { return adopt(name) }); err != nil {
		return err
	}
	if err := d.take(deed{op: "write", path: name, data: content}, func() error { _, err := f.Write(content); return err }); err != nil {
		return err
	}
	return d.take(deed{op: "sync", path: name}, f.Sync)
}

// give gives a file its name. A link, not a rename, for a rename replaces what
// is there; where the file system has no links, the auditor's own lock is what
// keeps another one from coming in between.
func (d disk) give(from, to string) error {
	err := d.take(deed{op: "link", path: to}, func() error { return os.Link(from, to) })
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	switch _, statErr := os.Lstat(to); {
	case statErr == nil:
		return fs.ErrExist
	case !errors.Is(statErr, fs.ErrNotExist):
		return errors.Join(err, statErr)
	}
	return d.take(deed{op: "rename", path: to}, func() error { return os.Rename(from, to) })
}

// maxSwept bounds the leftovers that one call takes away.
const maxSwept = 1000

// sweep takes away what processes that died left unfinished. While anybody
// writes, it leaves that to the next time. Evidence must not fail for it, so
// no error is reported.
func (d disk) sweep(dir string) {
	unlock, ok := tryLockAlone(dir)
	if !ok {
		return
	}
	defer unlock()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	swept := 0
	for _, e := range entries {
		if swept < maxSwept && e.Type().IsRegular() && isTemporary(e.Name()) {
			path := filepath.Join(dir, e.Name())
			_ = d.take(deed{op: "remove", path: path}, func() error { return os.Remove(path) })
			swept++
		}
	}
}

// isTemporary: as os.CreateTemp makes it of temporary.
func isTemporary(name string) bool {
	digits, ok := strings.CutPrefix(name, temporary)
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// syncDir makes names durable. Windows cannot, and writes them through.
func (d disk) syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return d.take(deed{op: "syncdir", path: path}, func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

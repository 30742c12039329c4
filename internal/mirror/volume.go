package mirror

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
)

// step is one thing that is about to be done to the disk.
type step struct {
	op       string // write, append, cut, sync, rename, link, mkdir, remove, syncdir
	path, to string
	data     []byte
	size     int64 // what cut leaves
}

// volume is the directory of the mirror. All paths are relative to it, and
// none leads out of it, whatever links are put there.
type volume struct {
	root *os.Root
	dir  string
	own  owner
	// readOnly: no step is taken.
	readOnly bool
	// before, where it is set, is asked before each step: tests stop, fail and
	// record there.
	before func(step) error
}

func (v *volume) ask(s step) error {
	if v.readOnly {
		return ErrReadOnly
	}
	if v.before == nil {
		return nil
	}
	return v.before(s)
}

// errDone is the answer of a test that stands in for the disk: the step is
// not to be taken, and counts as taken.
var errDone = errors.New("taken already")

// sync takes a step that makes something durable.
func (v *volume) sync(s step, f func() error) error {
	switch err := v.ask(s); {
	case err == errDone:
		return nil
	case err != nil:
		return err
	}
	return f()
}

// name is a path as the operator knows it.
func (v *volume) name(p string) string { return filepath.Join(v.dir, filepath.FromSlash(p)) }

// makeVolume opens the directory and makes it where it is missing.
func makeVolume(dir string) (*volume, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making the mirror's directory: %w; make sure that the state directory exists and can be written", err)
	}
	return openVolume(dir)
}

// openVolume refuses a directory that others can write: they could put another
// history there.
func openVolume(dir string) (*volume, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("looking at the mirror's directory: %w", err)
	}
	if err := safe(dir, info, true); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the mirror's directory: %w", err)
	}
	if now, err := root.Stat("."); err != nil || !os.SameFile(info, now) {
		return nil, errors.Join(fmt.Errorf("%s: %w: it was exchanged while it was opened; try again", dir, ErrUnsafe), err, root.Close())
	}
	return &volume{root: root, dir: dir, own: ownerOf(info)}, nil
}

// safe refuses links, what is not a file or folder, and what others can write.
func safe(path string, info fs.FileInfo, folder bool) error {
	what, next := "", ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		what, next = "is a symbolic link", "put the thing itself there"
	case folder && !info.IsDir():
		what, next = "is not a directory", "move it away"
	case !folder && !info.Mode().IsRegular():
		what, next = "is not a regular file", "move it away"
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0:
		what, next = fmt.Sprintf("mode %04o lets group or others write", info.Mode().Perm()), "make sure that nobody changed it, then: chmod go-w "+path
	default:
		return nil
	}
	return fmt.Errorf("%s: %w: it %s; %s", path, ErrUnsafe, what, next)
}

// isThere reports whether a folder is there, and refuses what is not a folder.
func (v *volume) isThere(p string) (bool, error) {
	info, err := v.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, safe(v.name(p), info, true)
}

// errLong says that a file is larger than what may be in it.
var errLong = errors.New("the file is too long")

// maxExchanges is how often a file is opened again that was exchanged while it
// was opened: beside a writer that is what its renaming looks like.
const maxExchanges = 100

// open opens a file of at most limit bytes for reading.
func (v *volume) open(p string, limit int) (f *os.File, info fs.FileInfo, err error) {
	for try := 1; ; try++ {
		f, info, err = v.openOnce(p, limit)
		if !v.readOnly || !errors.Is(err, errExchanged) || try == maxExchanges {
			return f, info, err
		}
	}
}

var errExchanged = fmt.Errorf("%w: it was exchanged while it was opened", ErrUnsafe)

func (v *volume) openOnce(p string, limit int) (*os.File, fs.FileInfo, error) {
	info, err := v.root.Lstat(p)
	if err != nil {
		return nil, nil, errors.Join(v.along(p), err)
	}
	if err := safe(v.name(p), info, false); err != nil {
		return nil, nil, err
	}
	if info.Size() > int64(limit) {
		return nil, nil, errLong
	}
	f, err := v.root.Open(p)
	if err != nil {
		return nil, nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", v.name(p), errExchanged), err, f.Close())
	}
	return f, info, nil
}

// read gives the content of a file of at most limit bytes.
func (v *volume) read(p string, limit int) ([]byte, error) {
	f, info, err := v.open(p, limit)
	if err != nil {
		return nil, err
	}
	defer f.Close() // nothing was written
	// What the file holds when it is read, not when it was looked at.
	data := make([]byte, info.Size()+1)
	n, err := io.ReadFull(f, data)
	if err == nil {
		return nil, errLong
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data[:n], nil
}

// along looks for what is wrong with the folders that a file should be in.
func (v *volume) along(p string) error {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if _, err := v.isThere(dir); errors.Is(err, ErrUnsafe) {
			return err
		}
	}
	return nil
}

// list gives the names in a folder, at most limit of them.
func (v *volume) list(p string, limit int) ([]fs.DirEntry, error) {
	f, err := v.root.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close() // nothing was written
	entries, err := f.ReadDir(limit + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(entries) > limit {
		return nil, fmt.Errorf("%s: %w: it holds more than %d names", v.name(p), ErrForeign, limit)
	}
	return entries, nil
}

// remove takes away a file, or a folder that is empty.
func (v *volume) remove(p string) error {
	if err := v.ask(step{op: "remove", path: p}); err != nil {
		return err
	}
	return v.root.Remove(p)
}

// clear takes away what was left unfinished in a folder.
func (v *volume) clear(p string) error {
	if err := v.ask(step{op: "remove", path: p}); err != nil {
		return err
	}
	return v.root.RemoveAll(p)
}

// change is a series of steps whose names become durable together: settle
// syncs every directory that one of them touched.
type change struct {
	*volume
	touched map[string]bool
	// sure holds the folders that are known to be on disk under their name. A
	// folder that is merely there may have been made by a change that failed.
	sure, used map[string]bool
}

// change begins a change; sure is kept by the caller from one to the next.
func (v *volume) change(sure map[string]bool) *change {
	return &change{v, map[string]bool{}, sure, map[string]bool{}}
}

// put writes a file whole or not at all: under a temporary name, synced, then
// renamed.
func (c *change) put(temporary, p string, data []byte) error {
	if err := c.folders(path.Dir(p)); err != nil {
		return err
	}
	if err := c.write(temporary, data); err != nil {
		return fmt.Errorf("writing %s: %w", c.name(temporary), err)
	}
	return c.rename(temporary, p)
}

func (c *change) write(p string, data []byte) (err error) {
	if err := c.ask(step{op: "write", path: p, data: data}); err != nil {
		return err
	}
	// A left-over is taken away rather than written over: it may be a link.
	if err := c.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := c.root.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := c.own.adopt(f); err != nil {
		return err
	}
	return c.sync(step{op: "sync", path: p}, f.Sync)
}

// append adds to a file that is as it was left: that file, of that size; nil
// makes it. It is the caller who syncs it.
func (c *change) append(p string, left fs.FileInfo, size int64, data []byte) (info fs.FileInfo, err error) {
	if err := c.ask(step{op: "append", path: p, data: data}); err != nil {
		return nil, err
	}
	how := os.O_WRONLY | os.O_APPEND
	if left == nil {
		how |= os.O_CREATE | os.O_EXCL
	}
	f, err := c.root.OpenFile(p, how, 0o600)
	if errors.Is(err, fs.ErrExist) || left != nil && errors.Is(err, fs.ErrNotExist) {
		return nil, ErrChanged
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if left == nil {
		c.touched[path.Dir(p)] = true
		if err := c.own.adopt(f); err != nil {
			return nil, err
		}
	} else if !os.SameFile(left, info) || info.Size() != size {
		return nil, ErrChanged
	} else if err := safe(c.name(p), info, false); err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	return info, err
}

// syncFile makes durable what was appended to a file.
func (v *volume) syncFile(p string) error {
	return v.sync(step{op: "sync", path: p}, func() error {
		return v.alter(p, (*os.File).Sync)
	})
}

// cut takes away what follows the first size bytes of a file.
func (v *volume) cut(p string, size int64) error {
	if err := v.ask(step{op: "cut", path: p, size: size}); err != nil {
		return err
	}
	return v.alter(p, func(f *os.File) error { return f.Truncate(size) })
}

func (v *volume) alter(p string, do func(*os.File) error) error {
	f, err := v.root.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func (c *change) rename(from, to string) error {
	if err := c.ask(step{op: "rename", path: from, to: to}); err != nil {
		return err
	}
	if err := c.root.Rename(from, to); err != nil {
		return err
	}
	c.touched[path.Dir(from)], c.touched[path.Dir(to)] = true, true
	return nil
}

// link gives a file that never changes a second name.
func (c *change) link(from, to string) error {
	if err := c.folders(path.Dir(to)); err != nil {
		return err
	}
	if err := c.ask(step{op: "link", path: from, to: to}); err != nil {
		return err
	}
	if err := c.root.Link(from, to); err != nil {
		return err
	}
	c.touched[path.Dir(to)] = true
	return nil
}

// folders makes a folder and those above it.
func (c *change) folders(p string) error {
	if p == "." || c.sure[p] || c.used[p] {
		return nil
	}
	if err := c.folders(path.Dir(p)); err != nil {
		return err
	}
	there, err := c.isThere(p)
	if err != nil {
		return err
	}
	if !there {
		if err := c.mkdir(p); err != nil {
			return err
		}
	}
	c.used[p], c.touched[path.Dir(p)] = true, true
	return nil
}

func (c *change) mkdir(p string) error {
	if err := c.ask(step{op: "mkdir", path: p}); err != nil {
		return err
	}
	if err := c.root.Mkdir(p, 0o700); err != nil {
		return err
	}
	f, err := c.root.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(c.own.adopt(f), f.Close())
}

// maxSure bounds what is remembered of each ledger.
const maxSure = 64

// settle makes durable what the change has done to names.
func (c *change) settle() error {
	for _, dir := range slices.Sorted(maps.Keys(c.touched)) {
		if err := c.sync(step{op: "syncdir", path: dir}, func() error { return syncFolder(c.root, dir) }); err != nil {
			return fmt.Errorf("syncing %s: %w", c.name(dir), err)
		}
	}
	if len(c.sure) > maxSure {
		clear(c.sure)
	}
	maps.Copy(c.sure, c.used)
	clear(c.touched)
	clear(c.used)
	return nil
}

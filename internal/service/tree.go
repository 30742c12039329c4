package service

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// tree is the file system that is worked on: this system's, or the one below
// another root. There no link leads out of it.
type tree struct {
	base string // "" = this system's
	root *os.Root
}

func openTree(dir string) (*tree, error) {
	top := dir
	if dir == "" {
		top = "/"
		if runtime.GOOS == "windows" {
			top = `C:\`
		}
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, fmt.Errorf("opening the root: %w; name a directory that exists with --root", err)
	}
	return &tree{base: dir, root: root}, nil
}

func (t *tree) close() error { return t.root.Close() }

// rel is the name of a path within the root. On this system, links above it
// are the administrator's and are followed; os.Root itself would refuse those
// that are absolute.
func (t *tree) rel(path string) string {
	if t.base == "" {
		rest := filepath.Base(path)
		for at := filepath.Dir(path); ; at = filepath.Dir(at) {
			if real, err := filepath.EvalSymlinks(at); err == nil {
				path = filepath.Join(real, rest)
				break
			}
			if at == filepath.Dir(at) {
				break
			}
			rest = filepath.Join(filepath.Base(at), rest)
		}
	}
	path = strings.TrimLeft(path[len(filepath.VolumeName(path)):], `/\`)
	if path == "" {
		return "."
	}
	return path
}

// within is rel for a directory that may itself be a link.
func (t *tree) within(dir string) string {
	if t.base == "" {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
	}
	return t.rel(dir)
}

func (t *tree) lstat(path string) (fs.FileInfo, error) { return t.root.Lstat(t.rel(path)) }

// largestFile bounds what is read whole.
const largestFile = 1 << 20

func (t *tree) read(path string) ([]byte, error) {
	f, err := t.root.OpenFile(t.rel(path), os.O_RDONLY|noWait, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read-only: nothing is lost
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	data, err := io.ReadAll(io.LimitReader(f, largestFile+1))
	if err == nil && len(data) > largestFile {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("larger than %d bytes", largestFile)}
	}
	return data, err
}

// replace puts a file in place, whole or not at all, durably.
func (t *tree) replace(path string, from io.Reader, mode fs.FileMode, own ids) error {
	name := t.rel(path)
	if err := t.draft(name, from, mode, own); err != nil {
		return err
	}
	return t.sync(filepath.Dir(name))
}

func (t *tree) draft(name string, from io.Reader, mode fs.FileMode, own ids) (err error) {
	draft := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+rand.Text())
	f, err := t.root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // may be closed; the draft is thrown away
			err = errors.Join(err, t.root.Remove(draft))
		}
	}()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	// The owner first: a change of owner may take bits of the mode away.
	if err := own.give(f); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return t.root.Rename(draft, name)
}

// sync makes names in a directory durable.
func (t *tree) sync(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := t.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ids are owner and group of a file, by number.
type ids struct {
	uid, gid int
	leave    bool // leave files to whoever makes them
}

func (i ids) give(f *os.File) error {
	if i.leave {
		return nil
	}
	return f.Chown(i.uid, i.gid)
}

// has reports whether a file belongs to them.
func (i ids) has(info fs.FileInfo) bool {
	own, known := ownerOf(info)
	return i.leave || !known || own.uid == i.uid && own.gid == i.gid
}

// account finds a user and its group in etc/passwd, which every service of
// the system is in, or a group of the name alone.
func (t *tree) account(name string) (ids, bool, error) {
	own := ids{uid: -1, gid: -1}
	if name == "root" {
		return ids{}, true, nil
	}
	err := t.fields("/etc/passwd", 4, func(f []string) bool {
		if f[0] != name {
			return true
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 == nil && err2 == nil {
			own = ids{uid: uid, gid: gid}
		}
		return false
	})
	return own, own.uid >= 0, err
}

func (t *tree) group(name string) (int, bool, error) {
	gid := -1
	if name == "root" {
		return 0, true, nil
	}
	err := t.fields("/etc/group", 3, func(f []string) bool {
		if f[0] != name {
			return true
		}
		if n, err := strconv.Atoi(f[2]); err == nil {
			gid = n
		}
		return false
	})
	return gid, gid >= 0, err
}

// fields reads a file of lines with fields between colons, at least so many.
func (t *tree) fields(path string, least int, take func([]string) bool) error {
	f, err := t.root.Open(t.rel(path))
	if err != nil {
		return err
	}
	defer f.Close() // read-only: nothing is lost
	lines := bufio.NewScanner(io.LimitReader(f, 64<<20))
	for lines.Scan() {
		if f := strings.Split(lines.Text(), ":"); len(f) >= least && !take(f) {
			return nil
		}
	}
	return lines.Err()
}

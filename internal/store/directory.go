package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// The files of a state directory.
const (
	fileState = "state.db"
	fileID    = "state.id"     // which state.db belongs here, and how far it had come
	fileLock  = "auditor.lock" // held by a running auditor
	fileNew   = "state.new"    // a state.db in the making
	fileNewID = "state.id.new" // a state.id in the making
)

// traces are what a state directory leaves behind when state.db is taken out
// of it. Where one of them is found, a missing state.db is not a beginning.
var traces = [...]string{fileState + "-wal", fileState + "-shm", fileState + "-journal", fileID, fileLock}

// heirlooms are directories that other parts of the auditor fill. An empty
// one may have been made by whoever installed it.
var heirlooms = [...]string{"evidence", "mirror"}

// directory is a state directory that was found fit to hold trust.
type directory struct {
	path  string
	owner owner
	log   *slog.Logger
}

func (d directory) file(name string) string { return filepath.Join(d.path, name) }

// findDirectory checks the directory, making it first if that is wanted.
func findDirectory(path string, create bool, log *slog.Logger) (directory, error) {
	if path == "" {
		return directory{}, &Error{Kind: ErrAbsent, Path: `""`, Next: "name a state directory with --dir"}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return directory{}, fmt.Errorf("resolving the state directory: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if !create {
			return directory{}, absent(path)
		}
		if err := makeDirectory(path); err != nil {
			return directory{}, unusable(path, err)
		}
	}
	// The directory itself may be reached through a link; the files in it may not.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return directory{}, unusable(path, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return directory{}, unusable(real, err)
	}
	if !info.IsDir() {
		return directory{}, &Error{Kind: ErrUnsafe, Path: real, What: "is not a directory", Next: "name a directory with --dir"}
	}
	own, _ := ownerOf(info)
	// Whoever can write here can replace what is trusted.
	if info.Mode().Perm()&0o022 != 0 {
		return directory{}, &Error{Kind: ErrUnsafe, Path: real, What: fmt.Sprintf("mode %04o lets group or others write", info.Mode().Perm()),
			Next: "use a directory of its own, or take the right away: chmod go-w " + real}
	}
	if !ownerMayBe(own.uid, own.uid, euid()) {
		return directory{}, &Error{Kind: ErrUnsafe, Path: real, What: fmt.Sprintf("belongs to user %d, the auditor runs as user %d", own.uid, euid()),
			Next: "run the auditor as that user, or give it a directory of its own with --dir"}
	}
	d := directory{path: real, owner: own, log: log}
	return d, d.checkMedium()
}

// makeDirectory makes a directory and what is missing above it, and their
// names durable: what is synced in a directory that has none is lost.
func makeDirectory(path string) error {
	above := filepath.Dir(path)
	if _, err := os.Stat(above); errors.Is(err, fs.ErrNotExist) && above != path {
		if err := makeDirectory(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return named(above)
}

// named makes the names in a directory durable that is not ours, and that we
// may not be allowed to open.
func named(path string) error {
	if err := (directory{path: path}).sync(); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// checkMedium refuses what cannot keep a lock or cannot be written.
func (d directory) checkMedium() error {
	m, err := mediumOf(d.path)
	if err != nil {
		return unusable(d.path, err)
	}
	if m.network != "" {
		// The index of a write-ahead log is shared memory: it works on one
		// machine only, and locks over a network come and go.
		return &Error{Kind: ErrNetwork, Path: d.path, What: m.network, Next: "use a local disk: --dir DIRECTORY"}
	}
	if m.readOnly {
		return &Error{Kind: ErrReadOnly, Path: d.path, What: "its file system is mounted read-only", Next: "mount it read-write, or use another directory with --dir"}
	}
	if m.doubtful != "" {
		d.log.Warn("the state directory is on a file system that may be shared by machines: only one may use it", "dir", d.path, "type", m.doubtful)
	}
	return nil
}

// checkFiles looks at every file of ours and says whether there is a state.
func (d directory) checkFiles() (exists bool, err error) {
	for _, name := range append([]string{fileState}, traces[:]...) {
		info, err := d.checkFile(name)
		if err != nil {
			return false, err
		}
		if name != fileState || info == nil {
			continue
		}
		exists = true
		// state.db appears complete, under its name, or not at all.
		if info.Size() == 0 {
			return false, &Error{Kind: ErrDamaged, Path: d.file(name), What: "the file is empty", Next: nextRestore}
		}
	}
	if exists {
		// A rollback journal is never ours: the state is kept with a
		// write-ahead log, and SQLite would play the journal into it.
		if _, err := os.Lstat(d.file(fileState + "-journal")); err == nil {
			return false, &Error{Kind: ErrDamaged, Path: d.file(fileState + "-journal"), What: "a rollback journal lies beside the state", Next: nextRestore}
		}
		return true, nil
	}
	return false, d.checkTraces()
}

// checkFile refuses what somebody else could change; nil for a file that is not there.
func (d directory) checkFile(name string) (fs.FileInfo, error) {
	return d.checkPath(d.file(name))
}

func (d directory) checkPath(path string) (fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unusable(path, err)
	}
	own, links := ownerOf(info)
	unsafe := &Error{Kind: ErrUnsafe, Path: path}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		unsafe.What, unsafe.Next = "is a symbolic link", "put the file itself there; only the directory may be a link"
	case !info.Mode().IsRegular():
		unsafe.What, unsafe.Next = "is not a regular file", "move it away and restore the file from a backup"
	case links > 1:
		unsafe.What, unsafe.Next = fmt.Sprintf("has %d names", links), "remove the other hard links: through them it could be changed unnoticed"
	case info.Mode().Perm()&0o022 != 0:
		unsafe.What, unsafe.Next = fmt.Sprintf("mode %04o lets group or others write", info.Mode().Perm()), "make sure that nobody changed it, then: chmod 600 "+path
	case !ownerMayBe(own.uid, d.owner.uid, euid()):
		unsafe.What, unsafe.Next = fmt.Sprintf("belongs to user %d, the directory to user %d", own.uid, d.owner.uid), fmt.Sprintf("make sure that nobody changed it, then: chown %d %s", d.owner.uid, path)
	default:
		if info.Mode().Perm()&0o044 != 0 {
			d.log.Warn("a file of the state can be read by others", "file", path, "next", "chmod 600 "+path)
		}
		return info, nil
	}
	return nil, unsafe
}

// checkTraces refuses a directory that held a state before.
func (d directory) checkTraces() error {
	gone := func(name string) error {
		return &Error{Kind: ErrGone, Path: d.file(fileState), What: "it is missing although " + name + " is there",
			Next: "restore the whole directory from one backup; to begin anew, with no memory of what was proven, move the directory away"}
	}
	for _, name := range traces {
		if _, err := os.Lstat(d.file(name)); err == nil {
			return gone(name)
		}
	}
	for _, name := range heirlooms {
		if entries, err := os.ReadDir(d.file(name)); err == nil && len(entries) > 0 {
			return gone(name)
		}
	}
	return nil
}

// ownerMayBe says whose files are trusted: those of the user we run as. Root
// may look after the directory of a service user, where its own files are
// trusted too (only root can have put them there).
func ownerMayBe(file, dir, self int) bool {
	if self == 0 {
		return file == dir || file == 0
	}
	return file == self
}

// createFile makes a new file of the state, readable by its owner alone.
func (d directory) createFile(name string) (*os.File, error) {
	f, err := os.OpenFile(d.file(name), os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return nil, unusable(d.file(name), err)
	}
	if err := d.adopt(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// adopt gives a file its mode whatever the umask, and to the owner of the
// directory where root made it.
func (d directory) adopt(f *os.File) error {
	if err := f.Chmod(0o600); err != nil {
		return unusable(f.Name(), err)
	}
	if euid() == 0 && d.owner.uid != 0 {
		if err := f.Chown(d.owner.uid, d.owner.gid); err != nil {
			return unusable(f.Name(), err)
		}
	}
	return nil
}

// exclusively runs f while no other process makes a state in this directory, or
// replaces its guard.
func (d directory) exclusively(ctx context.Context, f func() error) error {
	dir, err := os.Open(d.path)
	if err != nil {
		return unusable(d.path, err)
	}
	defer dir.Close() // also releases the lock; nothing was written through it
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	for {
		switch err := tryLock(dir); {
		case err == nil:
			return f()
		case !errors.Is(err, errHeld):
			return unusable(d.path, err)
		}
		select {
		case <-ctx.Done():
			return &Error{Kind: ErrBusy, Path: d.path, What: "another process is making a state or a guard here", Err: ctx.Err(), Next: "wait for it and try again"}
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// sync makes names in the directory durable.
func (d directory) sync() error {
	dir, err := os.Open(d.path)
	if err != nil {
		return unusable(d.path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return unusable(d.path, err)
	}
	return nil
}

func absent(path string) error {
	return &Error{Kind: ErrAbsent, Path: path, Next: "name the directory the auditor uses with --dir; the first run of `immuclient audit-mode` creates one"}
}

// unusable explains an error of the operating system.
func unusable(path string, err error) error {
	kind, next := ErrDisk, "look into the system log for errors of the disk, then start again"
	switch {
	case isFull(err):
		kind, next = ErrFull, "make room on its disk and try again"
	case errors.Is(err, fs.ErrPermission), isReadOnly(err):
		kind, next = ErrReadOnly, "make it belong to the user the auditor runs as, on a file system mounted read-write, or use another directory with --dir"
	}
	return &Error{Kind: kind, Path: path, Err: err, Next: next}
}

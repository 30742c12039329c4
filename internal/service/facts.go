package service

import (
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

// Facts are what there is before a plan is made.
type Facts struct {
	GOOS  string
	Paths Paths
	Root  string // "" = this system
	// Systemd runs this system, or would run the other root.
	Systemd bool
	// AccountCommands make the account; none if no program for it was found.
	AccountCommands [][]string
	Unit            UnitFact
	State           DirFact
	Guard           FileFact
	GuardDir        DirFact
	LogFile         FileFact
	LogDir          DirFact
	PidFile         FileFact
	PidDir          DirFact
	ConfigDir       DirFact
}

// UnitFact is the unit that is there.
type UnitFact struct {
	Exists bool
	Ours   bool   // written by install
	Path   string // of the one that is not ours
}

// FileFact is a file that is there.
type FileFact struct {
	// Others: there is one, and the service cannot write to it because it is
	// not the account's.
	Others bool
}

// DirFact is a directory that is there.
type DirFact struct {
	Exists  bool
	Root    bool   // belongs to root
	Foreign string // whose it is, if neither root's nor the account's
	Mode    fs.FileMode
	Empty   bool
	// HoldsState says that an auditor's state is in it.
	HoldsState bool
}

// stateFile is what the state directory of an auditor holds.
const stateFile = "state.db"

// Look gathers the facts. It changes nothing.
func Look(root string, o Options) (Facts, error) {
	f := Facts{GOOS: runtime.GOOS, Paths: PathsOf(runtime.GOOS), Root: root}
	if root != "" && f.GOOS != "linux" {
		return f, errors.New("--root is for the images of Linux systems")
	}
	if err := o.check(); err != nil {
		return f, err
	}
	t, err := openTree(root)
	if err != nil {
		return f, err
	}
	defer t.close() // nothing was written
	f.Systemd = f.GOOS == "linux" && (root != "" || runsSystemd())
	if root == "" {
		f.AccountCommands = findAccountCommands(f.GOOS, o.State)
	}
	f.Unit = t.unit(f.Paths.Unit)
	account, _, err := t.account(Account)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("looking up %s: %w", Account, err)
	}
	f.State = t.dir(o.State, account)
	if o.Guard != "" {
		f.Guard, f.GuardDir = t.file(o.Guard, account), t.dir(parent(o.Guard), account)
	}
	f.ConfigDir = t.dir(filepath.Dir(f.Paths.Config), account)
	if o.LogFile != "" {
		f.LogFile, f.LogDir = t.file(o.LogFile, account), t.dir(filepath.Dir(o.LogFile), account)
	}
	if o.PidFile != "" {
		f.PidFile, f.PidDir = t.file(o.PidFile, account), t.dir(filepath.Dir(o.PidFile), account)
	}
	return f, nil
}

// runsSystemd is what sd_booted(3) looks at.
func runsSystemd() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// ownerOf knows nothing in an image that is made without privileges: there
// every file is whoever makes it.
func (t *tree) ownerOf(info fs.FileInfo) (owner, bool) {
	own, known := ownerOf(info)
	return own, known && (t.base == "" || privileged())
}

func (t *tree) file(path string, account ids) FileFact {
	info, err := t.lstat(path)
	if err != nil {
		return FileFact{}
	}
	own, known := t.ownerOf(info)
	return FileFact{Others: known && own.uid != account.uid || !info.Mode().IsRegular()}
}

func (t *tree) dir(path string, account ids) DirFact {
	if path == "" {
		return DirFact{}
	}
	handle, err := t.root.Open(t.within(path))
	if err != nil {
		return DirFact{}
	}
	defer handle.Close() // nothing was written
	info, err := handle.Stat()
	if err != nil || !info.IsDir() {
		return DirFact{}
	}
	d := DirFact{Exists: true, Mode: info.Mode()}
	_, err = handle.Readdirnames(1)
	d.Empty = errors.Is(err, io.EOF)
	own, known := t.ownerOf(info)
	switch {
	case !known || own.uid == account.uid:
	case own.uid == 0:
		d.Root = true
	default:
		d.Foreign = t.userName(own.uid)
	}
	if _, err := t.lstat(filepath.Join(path, stateFile)); err == nil {
		d.HoldsState = true
	}
	return d
}

func (t *tree) userName(uid int) string {
	name := "user " + strconv.Itoa(uid)
	_ = t.fields("/etc/passwd", 4, func(f []string) bool { // unreadable: the number says it too
		if f[2] == strconv.Itoa(uid) {
			name = f[0]
			return false
		}
		return true
	})
	return name
}

// unit looks where systemd finds units, the administrator's first.
func (t *tree) unit(path string) UnitFact {
	for _, dir := range unitDirs(path) {
		text, err := t.read(filepath.Join(dir, filepath.Base(path)))
		if errors.Is(err, fs.ErrNotExist) || path == "" {
			continue
		}
		return UnitFact{Exists: true, Ours: err == nil && strings.Contains(string(text), marker), Path: filepath.Join(dir, filepath.Base(path))}
	}
	return UnitFact{}
}

func unitDirs(path string) []string {
	dirs := []string{filepath.Dir(path)}
	if strings.HasSuffix(path, ".service") {
		dirs = append(dirs, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
	}
	return dirs
}

// ReadFile reads a file of this system or below another root, from which no
// link leads out.
func ReadFile(root, path string) ([]byte, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
	defer t.close() // nothing was written
	return t.read(path)
}

// HoldsState reports whether an auditor's state is in a directory.
func HoldsState(root, dir string) bool {
	t, err := openTree(root)
	if err != nil {
		return false
	}
	defer t.close() // nothing was written
	return t.dir(dir, ids{}).HoldsState
}

// Exists reports whether there is such a file.
func Exists(root, path string) bool {
	t, err := openTree(root)
	if err != nil {
		return false
	}
	defer t.close() // nothing was written
	_, err = t.lstat(path)
	return err == nil
}

// Privileged reports whether this process may install services.
func Privileged() bool { return privileged() }

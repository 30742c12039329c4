package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"immuaudit/evidence"
)

const (
	asideFolder = "aside"
	newSuffix   = ".new" // a folder in the making
	// maxFolders bounds what Open looks at: 20,000 databases of some servers.
	maxFolders = 1 << 20
)

// folderName: what a folder of a ledger can be called.
var folderName = regexp.MustCompile(`^[a-z0-9_-]{0,40}\.[0-9a-f]{32}$`)

// folderOf names the folder of a ledger. The readable part is for people; the
// hash keeps apart names that look alike, differ only in case, or hold what a
// file name cannot, and it bounds the length.
func folderOf(name evidence.Name) string {
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, name.Database)
	if len(readable) > 40 {
		readable = readable[:40]
	}
	// The length keeps ("a", "bc") and ("ab", "c") apart.
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(name.Server), name.Server, name.Database))
	return readable + "." + hex.EncodeToString(sum[:16])
}

// Mirror is the directory with the mirrors of all ledgers. It keeps one file
// open, the directory itself, however many ledgers there are, and may be used
// from several goroutines.
type Mirror struct {
	vol *volume
	log *slog.Logger

	// renamed, for reading only, says which folder holds what is to be in
	// another, where a crash came between.
	renamed map[string]string

	mu      sync.Mutex // taken after a ledger's, never before
	ledgers map[evidence.Name]*Ledger
	closed  bool
}

// Open opens the directory, making it where it is missing, and finishes what
// a crash has interrupted. The directory above it must exist.
func Open(dir string, log *slog.Logger) (*Mirror, error) {
	return open(dir, log, nil)
}

func open(dir string, log *slog.Logger, before func(step) error) (*Mirror, error) {
	vol, err := makeVolume(dir)
	if err != nil {
		return nil, err
	}
	vol.before = before
	m := &Mirror{vol: vol, log: log, ledgers: map[evidence.Name]*Ledger{}}
	if err := m.finish(); err != nil {
		return nil, errors.Join(err, vol.root.Close())
	}
	return m, nil
}

// OpenReadOnly opens the directory for looking at what is there: nothing is
// made, mended or finished, and what would write is refused with ErrReadOnly.
// A crash may have left something to finish, which is then read as it will be;
// a torn end, which Open would give up, is a *Damage. Without a directory the
// error is fs.ErrNotExist. Nobody may write meanwhile: hold the lock of the
// state directory.
func OpenReadOnly(dir string, log *slog.Logger) (*Mirror, error) {
	vol, err := openVolume(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; nothing was mirrored there yet", err)
	}
	if err != nil {
		return nil, err
	}
	vol.readOnly = true
	m := &Mirror{vol: vol, log: log, ledgers: map[evidence.Name]*Ledger{}, renamed: map[string]string{}}
	if err := m.finish(); err != nil {
		return nil, errors.Join(err, vol.root.Close())
	}
	return m, nil
}

// Close closes the directory. Everything that was acknowledged is on disk
// already.
func (m *Mirror) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	return m.vol.root.Close()
}

// finish refuses foreign content and completes or takes back what was being
// made, renamed or set aside when the process ended.
func (m *Mirror) finish() error {
	entries, err := m.vol.list(".", maxFolders)
	if err != nil {
		return fmt.Errorf("listing the mirror: %w", err)
	}
	here := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		if name != asideFolder && !folderName.MatchString(strings.TrimSuffix(name, newSuffix)) {
			return fmt.Errorf("%s: %w: no mirror has made it; move it away", m.vol.name(name), ErrForeign)
		}
		if _, err := m.vol.isThere(name); err != nil {
			return err
		}
		here[name] = true
	}
	c := m.vol.change(map[string]bool{})
	for _, name := range slices.Sorted(maps.Keys(here)) {
		if folder, making := strings.CutSuffix(name, newSuffix); making {
			if m.vol.readOnly {
				continue // looked for with its ledger
			}
			if err := m.finishMaking(c, folder, here[folder]); err != nil {
				return err
			}
		} else if name != asideFolder {
			if err := m.finishRename(c, name); err != nil {
				return err
			}
		}
	}
	if err := c.settle(); err != nil {
		return fmt.Errorf("finishing what was interrupted: %w", err)
	}
	return nil
}

// finishLedger is finish for one ledger, within a running process.
func (m *Mirror) finishLedger(folder string) error {
	making, err := m.vol.isThere(folder + newSuffix)
	if err != nil || !making {
		return err
	}
	there, err := m.vol.isThere(folder)
	if err != nil {
		return err
	}
	c := m.vol.change(map[string]bool{})
	if err := m.finishMaking(c, folder, there); err != nil {
		return err
	}
	return c.settle()
}

// finishMaking: a folder in the making is complete before the one that it is
// to replace is taken out of its way.
func (m *Mirror) finishMaking(c *change, folder string, replaced bool) error {
	making := folder + newSuffix
	if replaced || !m.complete(making, folder) {
		if err := c.clear(making); err != nil {
			return fmt.Errorf("removing an unfinished folder: %w", err)
		}
		return nil
	}
	if err := c.rename(making, folder); err != nil {
		return fmt.Errorf("finishing a folder: %w", err)
	}
	return nil
}

// complete reports whether everything is in a folder in the making: its head
// comes last.
func (m *Mirror) complete(making, folder string) bool {
	name, err1 := m.readName(making)
	_, err2 := m.readHead(making)
	return err1 == nil && err2 == nil && folderOf(name) == folder
}

// left says where that is, for reading only, which is to be in a folder once
// what was interrupted is finished.
func (m *Mirror) left(folder string) (string, error) {
	for to, from := range m.renamed {
		switch folder {
		case to:
			return from, nil
		case from:
			return to, nil // where nothing is yet
		}
	}
	if there, err := m.vol.isThere(folder); err != nil || there {
		return folder, err
	}
	making := folder + newSuffix
	if there, err := m.vol.isThere(making); err != nil || there && m.complete(making, folder) {
		return making, err
	}
	return folder, nil
}

// finishRename: the description is changed before the folder's name.
func (m *Mirror) finishRename(c *change, folder string) error {
	name, err := m.readName(folder)
	if err != nil {
		// One ledger's trouble is not that of the others: it comes up when this
		// one is asked for.
		m.log.Error("a folder of the mirror cannot be read", "folder", m.vol.name(folder), "error", err)
		return nil
	}
	want := folderOf(name)
	if want == folder {
		return nil
	}
	if there, err := m.vol.isThere(want); err != nil || there {
		return errors.Join(err, fmt.Errorf("%s: %w: it says that it is the mirror of %q, which is at %s; move one of them away", m.vol.name(folder), ErrForeign, name.String(), want))
	}
	if m.vol.readOnly {
		m.renamed[want] = folder
		return nil
	}
	if err := c.rename(folder, want); err != nil {
		return fmt.Errorf("finishing a renaming: %w", err)
	}
	return nil
}

// readName reads which ledger a folder is of.
func (m *Mirror) readName(folder string) (evidence.Name, error) {
	p := path.Join(folder, "ledger")
	data, err := m.vol.read(p, maxLedger)
	if err != nil {
		return evidence.Name{}, m.damage(p, "it does not say of which ledger it is", err)
	}
	name, err := parseDescription(data)
	if err != nil {
		return evidence.Name{}, m.damage(p, "it does not say of which ledger it is", err)
	}
	return name, nil
}

func (m *Mirror) readHead(folder string) (head, error) {
	p := path.Join(folder, "head")
	data, err := m.vol.read(p, maxHead)
	if err != nil {
		return head{}, m.damage(p, "it does not say how far the mirror reaches", err)
	}
	h, err := parseHead(data)
	if err != nil {
		return head{}, m.damage(p, "it does not say how far the mirror reaches", err)
	}
	return h, nil
}

// damage tells damaged files from trouble that reading has.
func (m *Mirror) damage(p, what string, err error) error {
	switch {
	case errors.Is(err, os.ErrClosed):
		return ErrClosed
	case errors.Is(err, ErrUnsafe):
		return err
	case errors.Is(err, fs.ErrNotExist):
		what, err = "the file is missing", nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("reading the mirror: %w; make it belong to the user the auditor runs as", err)
	}
	return &Damage{Path: m.vol.name(p), What: what, Err: err}
}

// Ledger gives the mirror of one ledger; one that was never written to is
// empty and leaves nothing on disk. Where the end of it was torn, the mirror
// comes back shorter by what is not provably whole. A damaged head or
// description is a *Damage; see SetAside.
func (m *Mirror) Ledger(name evidence.Name) (*Ledger, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	if l := m.ledgers[name]; l != nil {
		return l, nil
	}
	l := &Ledger{m: m, name: name, folder: folderOf(name), sure: map[string]bool{}}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("opening the mirror of %q: %w", name.String(), err)
	}
	m.ledgers[name] = l
	return l, nil
}

// SetAside moves the mirror of a ledger out of the way, damaged or not, so
// that it begins anew with transaction 1. Nothing is destroyed.
func (m *Mirror) SetAside(name evidence.Name) error {
	if err := checkName(name); err != nil {
		return err
	}
	l, err := m.unread(name)
	if err != nil {
		return err
	}
	return l.Truncate(0)
}

// unread gives a ledger without reading its files, which it does later.
func (m *Mirror) unread(name evidence.Name) (*Ledger, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	l := m.ledgers[name]
	if l == nil {
		l = &Ledger{m: m, name: name, folder: folderOf(name), stale: true, sure: map[string]bool{}}
		m.ledgers[name] = l
	}
	return l, nil
}

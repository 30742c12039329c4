package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The catalog is everything in Dir that is not transactions: one small JSON
// file, replaced as a whole.
const catalogName = "ledger.json"

type catalog struct {
	Format    int               `json:"format"`
	UUID      string            `json:"uuid"`
	NextFile  uint64            `json:"next_file"`
	System    catalogDatabase   `json:"system"`
	Databases []catalogDatabase `json:"databases"`
	Users     []catalogUser     `json:"users"`
}

type catalogDatabase struct {
	Name    string    `json:"name"`
	File    string    `json:"file"`
	Created time.Time `json:"created"`
}

type catalogUser struct {
	Name         string                `json:"name"`
	PasswordHash []byte                `json:"password_hash"`
	Permissions  map[string]Permission `json:"permissions,omitempty"`
}

// save writes the catalog; mu is held, or nobody knows the ledger yet.
func (l *Ledger) save() error {
	if l.cfg.Dir == "" {
		return nil
	}
	c := catalog{Format: 1, UUID: l.uuid, NextFile: l.nextFile, System: l.system.catalogEntry()}
	for _, d := range l.slots {
		if d != nil {
			c.Databases = append(c.Databases, d.catalogEntry())
		}
	}
	for name, u := range l.users {
		c.Users = append(c.Users, catalogUser{name, u.passwordHash, u.permissions})
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = replaceFile(filepath.Join(l.cfg.Dir, catalogName), func(w io.Writer) error {
			_, err := w.Write(append(data, '\n'))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("saving the catalog: %w", err)
	}
	return nil
}

func (d *Database) catalogEntry() catalogDatabase {
	return catalogDatabase{Name: d.Name(), File: d.file, Created: d.created}
}

// load opens the ledger in Dir, or makes one there.
func (l *Ledger) load() error {
	if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
		return err
	}
	var err error
	if l.lock, err = lockFile(filepath.Join(l.cfg.Dir, "ledger.lock")); err != nil {
		return fmt.Errorf("locking %s: %w; another process may be using it", l.cfg.Dir, err)
	}
	data, err := os.ReadFile(filepath.Join(l.cfg.Dir, catalogName))
	if errors.Is(err, os.ErrNotExist) {
		if err := l.checkEmpty(); err != nil {
			return err
		}
		return l.create()
	}
	if err != nil {
		return err
	}
	var c catalog
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("reading %s: %w; restore it from a copy", catalogName, err)
	}
	if c.Format != 1 || len(c.Databases) == 0 {
		return fmt.Errorf("reading %s: not a catalog this version knows", catalogName)
	}
	return l.apply(&c)
}

// checkEmpty refuses a directory with logs but without their catalog, which a
// new ledger would write over. A crash between the first log and the first
// catalog leaves logs too, but nothing in them.
func (l *Ledger) checkEmpty() error {
	names, err := filepath.Glob(filepath.Join(l.cfg.Dir, "*.log"))
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if info.Size() > int64(len(logMagic)) {
			return fmt.Errorf("%s holds transactions but %s is missing; restore it from a copy or give an empty directory", name, catalogName)
		}
	}
	return nil
}

func (l *Ledger) apply(c *catalog) error {
	if l.uuid == "" {
		l.uuid = c.UUID
	}
	l.nextFile = c.NextFile
	known := map[string]bool{}
	var err error
	for _, cd := range append([]catalogDatabase{c.System}, c.Databases...) {
		if cd.File != filepath.Base(cd.File) || !strings.HasSuffix(cd.File, ".log") {
			return fmt.Errorf("reading %s: file name %q of database %s", catalogName, cd.File, cd.Name)
		}
		d := newDatabase(cd.Name, &l.cfg)
		d.file, d.created = cd.File, cd.Created
		if d.log, d.working, err = openLog(filepath.Join(l.cfg.Dir, cd.File)); err != nil {
			return fmt.Errorf("opening database %s: %w", cd.Name, err)
		}
		d.publish()
		known[cd.File] = true
		if l.system == nil {
			l.system = d
		} else {
			l.slots = append(l.slots, d)
		}
	}
	for _, u := range c.Users {
		if u.Permissions == nil {
			u.Permissions = map[string]Permission{}
		}
		l.users[u.Name] = &user{name: u.Name, passwordHash: u.PasswordHash, permissions: u.Permissions}
	}
	if l.cfg.AdminPassword != "" && !l.users[AdminUser].accepts([]byte(l.cfg.AdminPassword)) {
		if err := l.setUser(AdminUser, l.cfg.AdminPassword); err != nil {
			return err
		}
	}
	if err := l.sweep(known); err != nil {
		return err
	}
	return l.save()
}

// sweep removes what interrupted replacements and deletions left behind.
func (l *Ledger) sweep(known map[string]bool) error {
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		orphan := strings.HasSuffix(name, ".log") && !known[name]
		if !orphan && !strings.Contains(name, temporaryMark) {
			continue
		}
		if err := os.Remove(filepath.Join(l.cfg.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

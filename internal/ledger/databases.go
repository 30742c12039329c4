package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Database returns a database by name, systemdb included, loaded or not.
func (l *Ledger) Database(name string) (*Database, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.named(name)
}

// Databases are the names of all databases but systemdb, in the order of their creation.
func (l *Ledger) Databases() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var names []string
	for _, d := range l.slots {
		if d != nil {
			names = append(names, d.Name())
		}
	}
	return names
}

// named finds a database; mu is held.
func (l *Ledger) named(name string) (*Database, error) {
	if name == SystemDB {
		return l.system, nil
	}
	if i := l.slot(name); i >= 0 {
		return l.slots[i], nil
	}
	if l.deleted[name] {
		return nil, errDatabaseDeleted
	}
	return nil, errNoSuchDatabase(name)
}

// slot is the place of a name in slots, -1 where there is none; mu is held.
func (l *Ledger) slot(name string) int {
	return slices.IndexFunc(l.slots, func(d *Database) bool { return d != nil && d.Name() == name })
}

// newDatabase makes an empty database with its file; mu is held, or nobody
// knows the ledger yet.
func (l *Ledger) newDatabase(name string) (*Database, error) {
	d := newDatabase(name, &l.cfg)
	if l.cfg.Dir == "" {
		return d, nil
	}
	l.nextFile++
	d.file = fmt.Sprintf("%06d.log", l.nextFile)
	var err error
	if d.log, err = createLog(filepath.Join(l.cfg.Dir, d.file)); err != nil {
		return nil, fmt.Errorf("creating database %s: %w", name, err)
	}
	return d, nil
}

// CreateDatabase makes an empty database. A name that was deleted is free again
// only after a restart, as with the original.
func (l *Ledger) CreateDatabase(name string) error {
	if err := validName(name); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("the ledger is closed; open it again")
	}
	if _, err := l.named(name); err == nil || l.deleted[name] {
		return errDatabaseExists
	}
	d, err := l.newDatabase(name)
	if err != nil {
		return err
	}
	// The first free slot: this is how a token bound to a deleted database
	// comes to point at another one.
	i := slices.Index(l.slots, nil)
	if i < 0 {
		i = len(l.slots)
		l.slots = append(l.slots, nil)
	}
	l.slots[i] = d
	if err := l.save(); err != nil {
		l.slots[i] = nil
		return errors.Join(err, d.log.close())
	}
	return nil
}

// DeleteDatabase deletes a database with all its content.
func (l *Ledger) DeleteDatabase(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.slot(name)
	if i < 0 {
		_, err := l.named(name)
		if err == nil {
			err = errors.New("systemdb cannot be deleted")
		}
		return err
	}
	d := l.slots[i]
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	d.mu.Lock()
	d.deleted = true
	d.mu.Unlock()
	l.slots[i] = nil
	l.deleted[name] = true
	for _, u := range l.users {
		delete(u.permissions, name)
	}
	// First it must be unknown, then it may be gone.
	err := l.save()
	if d.log != nil {
		err = errors.Join(err, d.log.close(), os.Remove(d.log.path))
	}
	return err
}

// RenameDatabase gives a database another name; tokens bound to it go on
// pointing at it. The old name counts as never known.
func (l *Ledger) RenameDatabase(name, to string) error {
	if err := validName(to); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.slot(name)
	if i < 0 {
		return errNoSuchDatabase(name)
	}
	if _, err := l.named(to); err == nil || l.deleted[to] {
		return errDatabaseExists
	}
	d := l.slots[i]
	d.mu.Lock()
	d.name = to
	d.mu.Unlock()
	for _, u := range l.users {
		if p, ok := u.permissions[name]; ok {
			delete(u.permissions, name)
			u.permissions[to] = p
		}
	}
	return l.save()
}

// UnloadDatabase closes a database without deleting anything; it is still
// listed. Opening the ledger anew loads it again.
func (l *Ledger) UnloadDatabase(name string) error { return l.setUnloaded(name, true) }

// LoadDatabase ends UnloadDatabase.
func (l *Ledger) LoadDatabase(name string) error { return l.setUnloaded(name, false) }

func (l *Ledger) setUnloaded(name string, unloaded bool) error {
	d, err := l.Database(name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.unloaded = unloaded
	d.mu.Unlock()
	return nil
}

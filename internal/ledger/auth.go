package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/metadata"
)

// Permission is what a user may do with one database.
type Permission int

// Permissions, each including those before it.
const (
	Read Permission = iota + 1
	ReadWrite
	Admin
)

type user struct {
	name         string
	passwordHash []byte
	permissions  map[string]Permission // by database; unused for the administrator
}

func (u *user) accepts(password []byte) bool {
	return u != nil && bcrypt.CompareHashAndPassword(u.passwordHash, password) == nil
}

// on is what the user may do with a database.
func (u *user) on(db string) Permission {
	if u.name == AdminUser {
		return Admin
	}
	return u.permissions[db]
}

// Slots that are none of the databases of a user.
const (
	slotNone   = -1 // no database chosen
	slotSystem = -2
)

// login is what a token or a session stands for. It points at a slot, not at a
// name: see Ledger.slots.
type login struct {
	user    string
	slot    int
	expires time.Time
	// out: by Logout, by Revoke. The token itself is known, its user no longer
	// is.
	out bool
}

// CreateUser makes a user, or gives one another password, without permissions
// on any database.
func (l *Ledger) CreateUser(name, password string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("user name of %d bytes: 1 to %d are possible", len(name), maxName)
	}
	l.mu.Lock()
	err := l.setUser(name, password)
	if err == nil {
		err = l.save()
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return l.recordUser(name)
}

// setUser leaves permissions as they are; mu is held, or nobody knows the
// ledger yet. The cheapest bcrypt will do: these are passwords of a ledger for
// tests and development.
func (l *Ledger) setUser(name, password string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return fmt.Errorf("setting the password of %s: %w", name, err)
	}
	u := l.users[name]
	if u == nil {
		u = &user{name: name, permissions: map[string]Permission{}}
		l.users[name] = u
	}
	u.passwordHash = hash
	return nil
}

// Grant lets a user use a database.
func (l *Ledger) Grant(name, db string, p Permission) error {
	if p < Read || p > Admin {
		return fmt.Errorf("permission %d: Read, ReadWrite and Admin exist", p)
	}
	return l.changePermission(name, db, func(u *user) { u.permissions[db] = p })
}

// Revoke ends what Grant gave. Every login of the user ends with it.
func (l *Ledger) Revoke(name, db string) error {
	return l.changePermission(name, db, func(u *user) {
		delete(u.permissions, db)
		l.endLogins(name)
	})
}

func (l *Ledger) changePermission(name, db string, change func(*user)) error {
	l.mu.Lock()
	err := func() error {
		u := l.users[name]
		if u == nil {
			return fmt.Errorf("user %q does not exist; create it with CreateUser", name)
		}
		if name == AdminUser {
			return errors.New("the administrator's permissions cannot be changed")
		}
		if _, err := l.named(db); err != nil {
			return err
		}
		change(u)
		return l.save()
	}()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return l.recordUser(name)
}

// recordUser commits a user's standing to systemdb, as the original keeps users
// there. No password hash is in it.
func (l *Ledger) recordUser(name string) error {
	l.mu.RLock()
	value, err := json.Marshal(l.users[name].permissions)
	system := l.system
	l.mu.RUnlock()
	if err == nil {
		_, err = system.Set([]byte("user."+name), value)
	}
	if err != nil {
		return fmt.Errorf("recording user %s: %w", name, err)
	}
	return nil
}

// endLogins logs a user out everywhere; mu is held.
func (l *Ledger) endLogins(name string) {
	for _, logins := range []map[string]*login{l.tokens, l.sessions} {
		for _, t := range logins {
			if t.user == name {
				t.out = true
			}
		}
	}
}

// tokenPrefix marks what this kind of server makes, so that a token of an
// earlier run can be told from garbage.
const tokenPrefix = "ledger1."

// newLogin issues a token or a session; mu is held.
func (l *Ledger) newLogin(into map[string]*login, name string, slot int, lifetime time.Duration) (string, error) {
	now := l.cfg.Now()
	if len(into) >= maxLogins {
		for id, t := range into {
			if now.After(t.expires) {
				delete(into, id)
			}
		}
		if len(into) >= maxLogins {
			return "", errTooManyLogins
		}
	}
	id := tokenPrefix + rand.Text()
	into[id] = &login{user: name, slot: slot, expires: now.Add(lifetime)}
	return id, nil
}

// authenticate checks a password.
func (l *Ledger) authenticate(name string, password []byte) error {
	if l.cfg.NoAuth {
		return errAuthDisabled
	}
	l.mu.RLock()
	u := l.users[name]
	var known user
	if u != nil {
		known = *u
	}
	l.mu.RUnlock()
	if u == nil || !known.accepts(password) {
		return errBadLogin
	}
	return nil
}

// initialSlot is what a login is bound to at once: the default database where
// there is no other.
func (l *Ledger) initialSlot() int {
	for i, d := range l.slots {
		if i > 0 && d != nil {
			return slotNone
		}
	}
	return 0
}

// credential reads the call's metadata.
func credential(ctx context.Context, key string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(key); len(v) > 0 {
		return strings.TrimPrefix(v[0], "Bearer ")
	}
	return ""
}

// caller finds who is calling; mu is held for writing, as a session's life is
// extended by use.
func (l *Ledger) caller(ctx context.Context) (*user, *login, error) {
	now := l.cfg.Now()
	if id := credential(ctx, "sessionid"); id != "" {
		s := l.sessions[id]
		if s == nil || now.After(s.expires) {
			delete(l.sessions, id)
			return nil, nil, errSessionStale
		}
		if s.out {
			return nil, nil, errNotLoggedIn
		}
		s.expires = now.Add(sessionIdleTime)
		return l.users[s.user], s, nil
	}
	id := credential(ctx, "authorization")
	if id == "" {
		return nil, nil, errNotLoggedIn
	}
	t := l.tokens[id]
	switch {
	case t == nil && strings.HasPrefix(id, tokenPrefix):
		return nil, nil, errTokenStale
	case t == nil:
		return nil, nil, errTokenInvalid
	case t.out:
		return nil, nil, errNotLoggedIn
	case now.After(t.expires):
		return nil, nil, errTokenExpired
	}
	return l.users[t.user], t, nil
}

// selected finds the database a call is for and checks that the caller may do
// what it wants with it; denied is the answer where the permission is too low.
func (l *Ledger) selected(ctx context.Context, need Permission, denied error) (*Database, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.NoAuth {
		return l.at(0)
	}
	u, t, err := l.caller(ctx)
	if err != nil {
		return nil, err
	}
	d, err := l.at(t.slot)
	if err != nil {
		return nil, err
	}
	have := u.on(d.Name())
	if have == 0 {
		return nil, errNoPermission
	}
	if have < need {
		return nil, denied
	}
	return d, nil
}

// at is the database in a slot, if it can be used; mu is held.
func (l *Ledger) at(slot int) (*Database, error) {
	var d *Database
	switch {
	case slot == slotSystem:
		d = l.system
	case slot == slotNone:
		return nil, errSelectDatabase
	case slot < len(l.slots):
		d = l.slots[slot]
	}
	if d == nil {
		return nil, errDatabaseDeleted
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.unloaded {
		return nil, errAlreadyClosed
	}
	return d, nil
}

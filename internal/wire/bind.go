package wire

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// ledger is what the client keeps for one database. Its bound, flight and page
// are guarded by Client.mu.
type ledger struct {
	name    string
	traffic traffic
	bound   *binding
	flight  *attempt
	page    page
}

// binding is one token for one database. It never changes.
type binding struct {
	number uint64
	token  string
	login  *login
}

func anyBinding(*binding) bool { return true }

// newer reports whether other was made after b.
func (b *binding) newer(other *binding) bool { return other.number > b.number }

// Bind drops the token of db and gets a new one by its name, with a login that
// is at most ten seconds old: what is answered after it cannot be the work of a
// stale token. Use it after errors, and before a mismatch is believed.
func (c *Client) Bind(ctx context.Context, db string) error {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	began := time.Now()
	k, f := c.ledger(db)
	if f != nil {
		return f.asError()
	}
	c.mu.Lock()
	last := c.bindings
	k.bound = nil
	c.mu.Unlock()
	isNew := func(b *binding) bool { return b.number > last && c.fresh(b.login, began) }
	isFresh := func(l *login) bool { return c.fresh(l, began) }
	_, f = c.bound(ctx, k, began, isNew, isFresh)
	return f.asError()
}

// Binding is the number of db's token: each new token of any database has a
// higher one, and 0 says that there is none now. Where it is the same before
// the first and after the last of several calls, and not 0, all their answers
// came through that one token.
func (c *Client) Binding(db string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.ledgers[db]; k != nil && k.bound != nil {
		return k.bound.number
	}
	return 0
}

// ledger finds or makes what is kept for a database.
func (c *Client) ledger(db string) (*ledger, *Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.ledgers[db]; k != nil {
		return k, nil
	}
	if err := checkName(db); err != nil {
		return nil, c.malformed("UseDatabase", "", err)
	}
	if len(c.ledgers) >= maxRemembered {
		// Any of them: it costs that database a UseDatabase and its counters.
		for name := range c.ledgers {
			delete(c.ledgers, name)
			break
		}
	}
	k := &ledger{name: db}
	c.ledgers[db] = k
	return k, nil
}

// fresh reports whether l is new enough where a fresh login is called for.
func (c *Client) fresh(l *login, began time.Time) bool {
	return !l.began.Before(began) || time.Since(l.began) < c.freshLogin
}

// bound gives the token of a database if it is good enough, else gets a new
// one, from a login that is good enough. Callers share it as they share a login.
func (c *Client) bound(ctx context.Context, k *ledger, began time.Time, enough func(*binding) bool, enoughLogin func(*login) bool) (*binding, *Fault) {
	for {
		c.mu.Lock()
		if b := k.bound; b != nil && enough(b) {
			c.mu.Unlock()
			return b, nil
		}
		if a := k.flight; a != nil {
			c.mu.Unlock()
			select {
			case <-a.done:
			case <-ctx.Done():
				return nil, c.expired(ctx, "UseDatabase", k.name)
			}
			if a.fault != nil && !a.abandoned {
				return nil, a.fault
			}
			continue
		}
		a := &attempt{done: make(chan struct{})}
		k.flight = a
		c.mu.Unlock()

		b, fault := c.useDatabase(ctx, k, began, enoughLogin)
		c.mu.Lock()
		a.fault, a.abandoned = fault, fault != nil && ctx.Err() != nil
		if fault == nil {
			c.bindings++
			b.number = c.bindings
			k.bound = b
		}
		k.flight = nil
		c.mu.Unlock()
		close(a.done)
		return b, fault
	}
}

// unbind drops b, unless another call has replaced it already.
func (c *Client) unbind(k *ledger, b *binding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.bound == b {
		k.bound = nil
	}
}

// useDatabase asks for a token by name. A login that is refused is replaced
// once in a call, and "no such database" is believed only with a fresh one.
func (c *Client) useDatabase(ctx context.Context, k *ledger, began time.Time, enough func(*login) bool) (*binding, *Fault) {
	for {
		l, f := c.loggedIn(ctx, enough)
		if f != nil {
			f = f.forDatabase(k.name)
			return nil, f
		}
		if l.authOff {
			b, f := c.useOnly(ctx, k, l)
			if f != nil && f.sign == signStale && l.began.Before(began) {
				enough = l.newer // authentication was turned on
				continue
			}
			return b, f
		}
		var reply schema.UseDatabaseReply
		f = c.invoke(ctx, k, schema.ImmuService_UseDatabase_FullMethodName, l.token,
			&schema.Database{DatabaseName: k.name}, &reply)
		if f == nil {
			if err := checkToken(reply.GetToken()); err != nil {
				return nil, c.malformed("UseDatabase", k.name, err)
			}
			return &binding{token: reply.GetToken(), login: l}, nil
		}
		// NotFound for a name the server never knew, Unknown for one that was
		// deleted since it started (docs/protocol.md §1).
		missing := f.Code == codes.NotFound || f.sign == signGone
		switch {
		case f.sign == signStale && l.began.Before(began):
			enough = l.newer
			continue
		case missing && !c.fresh(l, began):
			enough = l.newer
			continue
		case missing:
			f.Kind = NotFound
		}
		return nil, f
	}
}

// useOnly binds the one database of a server without authentication. It takes
// no names, so that any other would be answered for with the wrong database.
func (c *Client) useOnly(ctx context.Context, k *ledger, l *login) (*binding, *Fault) {
	name, f := c.useDefault(ctx)
	if f != nil {
		return nil, f.forDatabase(k.name)
	}
	if name != k.name {
		f := c.fault(Unauthorised, "UseDatabase", k.name)
		f.Err = fmt.Errorf("the server runs without authentication and then serves %q alone", name)
		f.hint = "turn authentication on there, or audit that database only"
		return nil, f
	}
	return &binding{login: l}, nil
}

// forDatabase is f, told of a database on whose account the call was made. f
// itself may be shared.
func (f *Fault) forDatabase(db string) *Fault {
	g := *f
	g.DB = db
	return &g
}

// checkName bounds the name of a database, whoever gave it.
func checkName(name string) error {
	switch {
	case name == "":
		return &proof.Malformed{What: "database name", Why: "empty"}
	case len(name) > maxName:
		return &proof.Malformed{What: "database name", Why: fmt.Sprintf("%d bytes, at most %d are expected", len(name), maxName)}
	case !printable(name):
		return &proof.Malformed{What: "database name", Why: fmt.Sprintf("unprintable characters: %q", name)}
	}
	return nil
}

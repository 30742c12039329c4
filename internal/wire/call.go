package wire

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// invoke makes one call. k may be nil: the call is then not on account of any
// database.
func (c *Client) invoke(ctx context.Context, k *ledger, method, token string, request, reply proto.Message) *Fault {
	op, db := methodName(method), ""
	if k != nil {
		db = k.name
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
	}
	c.flying.Add(1)
	defer c.flying.Add(-1)
	c.calls[method].Add(1)

	var header metadata.MD
	a := answer{message: reply}
	err := c.exchange(ctx, method, request, &a, &header)
	c.account(&c.traffic, proto.Size(request), a.size)
	if k != nil {
		c.account(&k.traffic, proto.Size(request), a.size)
	}
	c.noteUUID(header)
	switch {
	case err != nil:
		return c.explain(ctx, op, db, token, err)
	case tooLong(a.err):
		f := c.fault(TooLarge, op, db)
		f.sign, f.Err = signTx, a.err
		return f
	case a.err != nil:
		return c.malformed(op, db, a.err)
	}
	return nil
}

func (c *Client) account(t *traffic, out, in int) {
	t.calls.Add(1)
	t.out.Add(uint64(out))
	t.in.Add(uint64(in))
}

// noteUUID reads the header that every answer carries (docs/protocol.md §1).
// One that is too long, unprintable or sent twice counts as absent.
func (c *Client) noteUUID(header metadata.MD) {
	values := header.Get("immudb-uuid")
	if len(values) != 1 {
		return
	}
	id := values[0]
	if id == "" || len(id) > maxUUID || !printable(id) {
		return
	}
	if old := c.uuid.Load(); old == nil || *old != id {
		c.uuid.Store(&id)
	}
}

// withoutSecrets keeps a server that repeats what it was sent from bringing it
// into the log. Passwords as short as the well-known default are no secret and
// would only mutilate the text.
func (c *Client) withoutSecrets(text, token string) string {
	const hidden = "(secret)"
	if token != "" {
		text = strings.ReplaceAll(text, token, hidden)
	}
	if len(c.password) >= 8 {
		text = strings.ReplaceAll(text, c.password, hidden)
	}
	return text
}

// onServer makes a call that concerns no database, with the login's token.
// A token that is refused is replaced once.
func (c *Client) onServer(ctx context.Context, method string, request, reply proto.Message) *Fault {
	began := time.Now()
	l, f := c.loggedIn(ctx, anyLogin)
	if f != nil {
		return f
	}
	f = c.invoke(ctx, nil, method, l.token, request, reply)
	if f == nil || f.sign != signStale || !l.began.Before(began) {
		return f
	}
	if l, f = c.loggedIn(ctx, l.newer); f != nil {
		return f
	}
	return c.invoke(ctx, nil, method, l.token, request, reply)
}

// onDatabase makes a call with the token of a database. A token that is
// refused, or whose database is gone, is replaced once.
func (c *Client) onDatabase(ctx context.Context, db, method string, request, reply proto.Message) *Fault {
	began := time.Now()
	k, f := c.ledger(db)
	if f != nil {
		f.Op = methodName(method)
		return f
	}
	b, f := c.bound(ctx, k, began, anyBinding, anyLogin)
	if f != nil {
		return f
	}
	f = c.invoke(ctx, k, method, b.token, request, reply)
	var enough func(*login) bool
	switch {
	case f == nil:
		return nil
	case (f.sign == signStale || f.sign == signSelect) && b.login.began.Before(began):
		enough = b.login.newer
	case f.sign == signGone:
		enough = anyLogin
	default:
		c.unbindAfter(k, b, f)
		return f
	}
	c.unbind(k, b)
	if b, f = c.bound(ctx, k, began, b.newer, enough); f != nil {
		return f
	}
	if f = c.invoke(ctx, k, method, b.token, request, reply); f != nil {
		c.unbindAfter(k, b, f)
	}
	return f
}

// unbindAfter drops the token after an error, so that the next call asks for
// the database by name again: a token holds an index, and what it points at is
// in doubt once something went wrong. It stays where the error says nothing
// about the token, or shows that it reached a database: no answer in time, too
// many requests, anything about a transaction. Otherwise a server could, by
// refusing one call in each round, keep two answers from ever coming through
// the same token, and with them every mismatch from being believed.
func (c *Client) unbindAfter(k *ledger, b *binding, f *Fault) {
	switch {
	case f.Kind == Timeout, f.Kind == Overloaded, f.sign == signTx:
	default:
		c.unbind(k, b)
	}
}

// methodName is the last part of a full method name.
func methodName(method string) string {
	return method[strings.LastIndexByte(method, '/')+1:]
}

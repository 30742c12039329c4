package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// login is one answer to Login. It never changes.
type login struct {
	generation uint64
	token      string    // "" where the server runs without authentication
	began      time.Time // before the call was made
	authOff    bool
}

func anyLogin(*login) bool { return true }

// newer reports whether other was made after l.
func (l *login) newer(other *login) bool { return other.generation > l.generation }

// attempt is a login in progress, which all who need one wait for.
type attempt struct {
	done chan struct{}
	// Written before done is closed.
	fault     *Fault
	abandoned bool // by its caller: says nothing to those who waited
}

// loggedIn gives the current login if it is good enough, else makes a new one.
// Callers that need one at the same time share it: after a restart of the
// server every database finds its token refused, and all of them together cost
// one login.
func (c *Client) loggedIn(ctx context.Context, enough func(*login) bool) (*login, *Fault) {
	const op = "Login"
	for {
		c.mu.Lock()
		if l := c.current; l != nil && enough(l) {
			c.mu.Unlock()
			return l, nil
		}
		if a := c.attempt; a != nil {
			c.mu.Unlock()
			select {
			case <-a.done:
			case <-ctx.Done():
				return nil, c.expired(ctx, op, "")
			}
			if a.fault != nil && !a.abandoned {
				return nil, a.fault
			}
			continue
		}
		a := &attempt{done: make(chan struct{})}
		c.attempt = a
		c.mu.Unlock()

		l, fault := c.logIn(ctx)
		c.mu.Lock()
		a.fault, a.abandoned = fault, fault != nil && ctx.Err() != nil
		if fault == nil {
			c.sessions++
			l.generation = c.sessions
			c.current = l
		}
		c.attempt = nil
		c.mu.Unlock()
		close(a.done)
		return l, fault
	}
}

// logIn makes the call, unless the credentials were refused a moment ago.
func (c *Client) logIn(ctx context.Context) (*login, *Fault) {
	const op = "Login"
	if f := c.refused.still(time.Now()); f != nil {
		return nil, f
	}
	if err := c.logInPace.Wait(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, c.expired(ctx, op, "")
		}
		f := c.fault(Unauthorised, op, "")
		f.Err = errors.New("the server takes the password and then refuses the tokens it gave")
		f.hint = "see whether something logs this user out all the time; the next login is tried in a moment"
		return nil, f
	}
	l := &login{began: time.Now()}
	c.logins.Add(1)
	var reply schema.LoginResponse
	f := c.invoke(ctx, nil, schema.ImmuService_Login_FullMethodName, "",
		&schema.LoginRequest{User: []byte(c.username), Password: []byte(c.password)}, &reply)
	switch {
	case f != nil && f.sign == signAuthOff:
		l.authOff = true
		c.log.Debug("the server runs without authentication", "server", c.address)
	case f != nil && (f.Kind == Unauthorised || f.Kind == Refused):
		f.sign = signLogin
		f.hint = "check --audit-username and --audit-password"
		now := time.Now()
		c.refused.add(now, f)
		return nil, c.refused.still(now)
	case f != nil:
		return nil, f
	default:
		if err := checkToken(reply.GetToken()); err != nil {
			return nil, c.malformed(op, "", err)
		}
		l.token = reply.GetToken()
		c.log.Debug("logged in", "server", c.address, "user", c.username)
	}
	c.refused.clear()
	return l, nil
}

// expired is a wait that ended before there was an answer.
func (c *Client) expired(ctx context.Context, op, db string) *Fault {
	if errors.Is(ctx.Err(), context.Canceled) {
		return c.cancelled(op, db, ctx.Err())
	}
	f := c.fault(Timeout, op, db)
	f.Err = context.DeadlineExceeded
	return f
}

// checkToken bounds the server text that will travel in a header of every call.
func checkToken(token string) error {
	if token == "" || len(token) > maxToken {
		return &proof.Malformed{What: "token", Why: fmt.Sprintf("%d bytes, wanted 1 to %d", len(token), maxToken)}
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return &proof.Malformed{What: "token", Why: "a character that no header may carry"}
		}
	}
	return nil
}

// refusal holds the credentials back after the server refused them, longer each
// time, so that a wrong password neither locks the user out nor costs the
// server a bcrypt every round. It is used by one login at a time.
type refusal struct {
	pace  *backoff.ExponentialBackOff
	until time.Time
	last  *Fault
}

func newRefusal(first, most time.Duration) refusal {
	pace := &backoff.ExponentialBackOff{InitialInterval: first, MaxInterval: most, Multiplier: 2}
	pace.Reset()
	return refusal{pace: pace}
}

func (r *refusal) add(now time.Time, f *Fault) {
	r.until, r.last = now.Add(r.pace.NextBackOff()), f
}

func (r *refusal) clear() {
	r.pace.Reset()
	r.until, r.last = time.Time{}, nil
}

// still gives the fault of a call that is not made because it is too early.
func (r *refusal) still(now time.Time) *Fault {
	if r.last == nil || !now.Before(r.until) {
		return nil
	}
	f := *r.last
	f.hint = fmt.Sprintf("%s; not tried again for %s", r.last.hint, r.until.Sub(now).Round(100*time.Millisecond))
	return &f
}

// useDefault finds out which database a server without authentication serves.
func (c *Client) useDefault(ctx context.Context) (string, *Fault) {
	var reply schema.ImmutableState
	if f := c.invoke(ctx, nil, schema.ImmuService_CurrentState_FullMethodName, "", &emptypb.Empty{}, &reply); f != nil {
		return "", f
	}
	if err := checkName(reply.GetDb()); err != nil {
		return "", c.malformed("CurrentState", "", err)
	}
	return reply.GetDb(), nil
}

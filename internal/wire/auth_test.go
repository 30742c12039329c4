package wire

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// all asks for the state of every database at once.
func all(ctx context.Context, c *Client, names []string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range names {
		group.Go(func() error {
			state, err := c.CurrentState(ctx, name)
			if err == nil && state.DB != name {
				err = errors.New("the state of " + state.DB + " for " + name)
			}
			return err
		})
	}
	return group.Wait()
}

// However many databases there are, a start costs one login, and a restart of
// the server costs one more.
func TestOneLogin(t *testing.T) {
	t.Parallel()
	many := names(200)
	s := serve(t, nil, many...)
	c := dial(t, s.addr)
	for range 2 {
		if err := all(t.Context(), c, many); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Stats(); got.Logins != 1 || got.Calls["UseDatabase"] != 200 || got.Calls["CurrentState"] != 400 {
		t.Errorf("after two rounds: %+v", got)
	}
	// The connection survives: only the tokens are gone.
	s.set(func() { clear(s.tokens) })
	if err := all(t.Context(), c, many); err != nil {
		t.Fatal(err)
	}
	if got := c.Stats(); got.Logins != 2 {
		t.Errorf("%d logins after the tokens were lost, want 2", got.Logins)
	}
	s.restart(t)
	eventually(t, func() error { return all(t.Context(), c, many) })
	if got := c.Stats(); got.Logins > 4 {
		t.Errorf("%d logins after a restart", got.Logins)
	}
	if s.called("Logout") != 0 {
		t.Error("the client logged out")
	}
}

// Every way a server has of refusing a token leads to one new login and to the
// answer.
func TestStaleToken(t *testing.T) {
	t.Parallel()
	for _, refused := range []error{
		status.Error(codes.Unknown, "not logged in"),
		status.Error(codes.Internal, "invalid token"),
		status.Error(codes.Unauthenticated, "invalid token"),
		status.Error(codes.PermissionDenied, "token has expired"),
		status.Error(codes.Unauthenticated, "please login"),
		status.Error(codes.PermissionDenied, "session not found"),
		status.Error(codes.Unknown, "please select a database first"),
		status.Error(codes.Unauthenticated, "a text of some later version"),
	} {
		t.Run(refused.Error(), func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil, "db0", "db1")
			c := dial(t, s.addr)
			if _, err := c.CurrentState(t.Context(), "db1"); err != nil {
				t.Fatal(err)
			}
			before := c.Binding("db1")
			var once atomic.Bool
			s.answer("CurrentState", func(context.Context, proto.Message) (any, error, bool) {
				return nil, refused, once.CompareAndSwap(false, true)
			})
			if _, err := c.CurrentState(t.Context(), "db1"); err != nil {
				t.Fatal(err)
			}
			if got := c.Stats(); got.Logins != 2 {
				t.Errorf("%d logins, want 2", got.Logins)
			}
			if after := c.Binding("db1"); after <= before {
				t.Errorf("binding %d after %d", after, before)
			}

			// Refused for ever: one more login, then the caller is told.
			s.answer("CurrentState", say(status.Code(refused), status.Convert(refused).Message()))
			_, err := c.CurrentState(t.Context(), "db1")
			wantFault(t, err, Unauthorised, "--audit-username")
			if got := c.Stats(); got.Logins != 3 {
				t.Errorf("%d logins, want 3", got.Logins)
			}
			if got := c.Binding("db1"); got != 0 {
				t.Errorf("binding %d after a refusal, want none", got)
			}
		})
	}
}

// The list is asked for with the token of the login itself.
func TestStaleLogin(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0", "db1")
	c := dial(t, s.addr)
	for want := uint64(1); want <= 3; want++ {
		if _, err := c.Databases(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.Stats().Logins; got != want {
			t.Fatalf("%d logins, want %d", got, want)
		}
		s.set(func() { clear(s.tokens) })
	}
	if _, err := c.CurrentState(t.Context(), "db0"); err != nil {
		t.Errorf("UseDatabase with a stale login: %v", err)
	}
	s.answer("DatabaseList", say(codes.Unknown, "not logged in"))
	_, err := c.Databases(t.Context())
	wantFault(t, err, Unauthorised, "DatabaseList")
}

// Servers that want a database chosen even for the list.
func TestListNeedsDatabase(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "defaultdb", "db1")
	var asked atomic.Int32
	s.answer("DatabaseList", func(context.Context, proto.Message) (any, error, bool) {
		return nil, errors.New("please select a database first"), asked.Add(1) == 1
	})
	c := dial(t, s.addr)
	list, err := c.Databases(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("Databases: %q, %v", list, err)
	}
}

func TestRefusedCredentials(t *testing.T) {
	t.Parallel()
	many := names(50)
	s := serve(t, nil, many...)
	c := dial(t, s.addr, func(o *Options) { o.Password = "correct horse" })
	c.refused = newRefusal(200*time.Millisecond, time.Second)
	err := all(t.Context(), c, many)
	f := wantFault(t, err, Unauthorised, "--audit-password", "not tried again for", many[0][:2])
	if strings.Contains(f.Error(), "correct horse") {
		t.Error("the password is in the error")
	}
	// Nothing but the wait can make the second try: the others fail at once.
	if got := s.called("Login"); got > 2 {
		t.Errorf("%d logins with refused credentials", got)
	}
	s.set(func() { s.password = "correct horse" })
	eventually(t, func() error { return all(t.Context(), c, many) })
	if got := c.Stats().Logins; got > 4 {
		t.Errorf("%d logins until the password was right", got)
	}
}

// The wait doubles from the first to the longest, and one success resets it.
func TestRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRefusal(refusedFirst, refusedMost)
		f := &Fault{Kind: Unauthorised, hint: "check"}
		tries := func(n int) (waits []time.Duration) {
			for range n {
				r.add(time.Now(), f)
				start := time.Now()
				for r.still(time.Now()) != nil {
					<-time.After(500 * time.Millisecond) // of the bubble's clock
				}
				waits = append(waits, time.Since(start))
			}
			return waits
		}
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
		for i, wait := range tries(len(want)) {
			if wait != want[i]*time.Second {
				t.Errorf("wait %d is %s, want %s", i+1, wait, want[i]*time.Second)
			}
		}
		r.clear()
		if r.still(time.Now()) != nil {
			t.Error("still refused after a success")
		}
		if got := tries(1)[0]; got != time.Second {
			t.Errorf("the first wait after a success is %s", got)
		}
		r.add(time.Now(), f)
		if text := r.still(time.Now()).Error(); !strings.Contains(text, "check; not tried again for 2s") {
			t.Errorf("text: %s", text)
		}
	})
}

// A server that takes the password and refuses the tokens it gave must not be
// logged in to without end.
func TestLoginsArePaced(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0", "db1")
	s.answer("UseDatabase", say(codes.Unauthenticated, "invalid token"))
	c := dial(t, s.addr)
	c.logInPace = rate.NewLimiter(rate.Every(time.Hour), 3)
	for range 10 {
		_, err := c.CurrentState(t.Context(), "db0")
		wantFault(t, err, Unauthorised)
	}
	if got := c.Stats().Logins; got != 3 {
		t.Errorf("%d logins, want 3 and then a pause", got)
	}
	_, err := c.CurrentState(t.Context(), "db0")
	wantFault(t, err, Unauthorised, "refuses the tokens it gave")
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0", "db1", "db2")
	c := dial(t, s.addr)
	_, err := c.CurrentState(t.Context(), "never known")
	wantFault(t, err, NotFound, "never known")

	if _, err := c.CurrentState(t.Context(), "db1"); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.databases[1].deleted = true })
	_, err = c.CurrentState(t.Context(), "db1")
	f := wantFault(t, err, NotFound, "UseDatabase")
	if f.Op != "UseDatabase" || f.DB != "db1" {
		t.Errorf("not found by %s of %s", f.Op, f.DB)
	}
	if got := c.Stats().Logins; got != 1 {
		t.Errorf("%d logins although the login was fresh", got)
	}

	// With an old login it is not believed before there is a new one.
	c.freshLogin = 0
	_, err = c.CurrentState(t.Context(), "db1")
	wantFault(t, err, NotFound)
	if got := c.Stats().Logins; got != 2 {
		t.Errorf("%d logins, want a second before not-found", got)
	}

	// Created anew under the same name: found again, under another token.
	s.set(func() { s.databases = append(s.databases, database{name: "db1", length: 1}) })
	state, err := c.CurrentState(t.Context(), "db1")
	if err != nil || state.TxID != 1 {
		t.Errorf("after it was created anew: %+v, %v", state, err)
	}
	s.set(func() {
		s.databases[3].deleted = true
		s.databases = append(s.databases, database{name: "db1", length: 2})
	})
	state, err = c.CurrentState(t.Context(), "db1")
	if err != nil || state.TxID != 2 {
		t.Errorf("after it was created anew while bound: %+v, %v", state, err)
	}
}

// "does not exist" is believed from UseDatabase alone.
func TestNotFoundElsewhere(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0", "db1")
	s.answer("CurrentState", say(codes.NotFound, "'db1' does not exist"))
	c := dial(t, s.addr)
	_, err := c.CurrentState(t.Context(), "db1")
	wantFault(t, err, Refused)
	s.answer("CurrentState", say(codes.Unknown, "database does not exist"))
	_, err = c.CurrentState(t.Context(), "db1")
	wantFault(t, err, Refused)
}

// A token that came to point at another database is the caller's to notice;
// Bind sets it right.
func TestBind(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0", "db1")
	c := dial(t, s.addr)
	if got := c.Binding("db1"); got != 0 {
		t.Errorf("binding %d before the first call", got)
	}
	if _, err := c.CurrentState(t.Context(), "db1"); err != nil {
		t.Fatal(err)
	}
	first := c.Binding("db1")
	s.set(func() { s.databases[0].name, s.databases[1].name = "db1", "db0" })
	state, err := c.CurrentState(t.Context(), "db1")
	if err != nil || state.DB != "db0" {
		t.Fatalf("the stale token: %+v, %v", state, err)
	}
	if got := c.Binding("db1"); got != first {
		t.Errorf("binding %d, want %d still", got, first)
	}
	if err := c.Bind(t.Context(), "db1"); err != nil {
		t.Fatal(err)
	}
	if got := c.Binding("db1"); got <= first {
		t.Errorf("binding %d after %d", got, first)
	}
	if state, err = c.CurrentState(t.Context(), "db1"); err != nil || state.DB != "db1" {
		t.Errorf("after Bind: %+v, %v", state, err)
	}
	if got := c.Stats().Logins; got != 1 {
		t.Errorf("%d logins although the login was fresh", got)
	}
	c.freshLogin = 0
	if err := c.Bind(t.Context(), "db1"); err != nil {
		t.Fatal(err)
	}
	if got := c.Stats().Logins; got != 2 {
		t.Errorf("%d logins, want a fresh one for Bind", got)
	}
	s.set(func() { s.databases[0].state = errors.New("already closed") })
	wantFault(t, c.Bind(t.Context(), "db1"), NotLoaded)
	if got := c.Binding("db1"); got != 0 {
		t.Errorf("binding %d although Bind failed", got)
	}
}

// Which errors cost the token is what the engine's rule about answers through
// one token rests on.
func TestWhichErrorsUnbind(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer answerFunc
		kind   string
		keeps  bool
	}{
		"unloaded":        {say(codes.Unknown, "already closed"), NotLoaded, false},
		"no permission":   {say(codes.PermissionDenied, "Logged in user does not have permission on this database"), Unauthorised, false},
		"something new":   {say(codes.Unknown, "something new"), Refused, false},
		"too busy":        {say(codes.Unknown, "max concurrency limit exceeded"), Overloaded, true},
		"exhausted":       {say(codes.ResourceExhausted, "quota"), Overloaded, true},
		"slow":            {hang, Timeout, true},
		"slow over there": {say(codes.DeadlineExceeded, "context deadline exceeded"), Timeout, true},
		"no such tx":      {say(codes.Unknown, "tx not found"), TxNotFound, true},
		"behind":          {say(codes.Unknown, "illegal state: latest txID=3 is lower than specified as initial tx=9"), TxNotFound, true},
		"old tree":        {say(codes.Unknown, "tx data is corrupted: binary linking mismatch at tx 18"), Refused, true},
		"too large":       {say(codes.ResourceExhausted, "grpc: trying to send message larger than max (40000000 vs. 33554432)"), TooLarge, true},
		"going away":      {say(codes.Unavailable, "the server is shutting down"), Unreachable, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil, "db0")
			c := dial(t, s.addr, func(o *Options) {
				if name == "slow" {
					o.CallTimeout = time.Second
				}
			})
			if _, err := c.CurrentState(t.Context(), "db0"); err != nil {
				t.Fatal(err)
			}
			before := c.Binding("db0")
			s.answer("VerifiableTxById", tt.answer)
			_, err := c.DualProof(t.Context(), "db0", 1, 2)
			wantFault(t, err, tt.kind, `database "db0"`, s.addr)
			if kept := c.Binding("db0") == before; kept != tt.keeps {
				t.Errorf("the token was kept: %t, want %t", kept, tt.keeps)
			}
			if got := c.Stats().Logins; got != 1 {
				t.Errorf("%d logins, want 1", got)
			}
			s.answer("VerifiableTxById", nil)
			if _, err := c.DualProof(t.Context(), "db0", 1, 2); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestRevokedPermission(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0", "db1")
	c := dial(t, s.addr)
	if _, err := c.CurrentState(t.Context(), "db1"); err != nil {
		t.Fatal(err)
	}
	s.answer("CurrentState", say(codes.Unknown, "not logged in"))
	s.answer("UseDatabase", say(codes.PermissionDenied, "Logged in user does not have permission on this database"))
	_, err := c.CurrentState(t.Context(), "db1")
	wantFault(t, err, Unauthorised, "permission on this database", "may read the database")
}

func TestAuthenticationOff(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "defaultdb", "db1")
	s.set(func() { s.authOff = true })
	c := dial(t, s.addr)
	name, err := c.DefaultDatabase(t.Context())
	if err != nil || name != "defaultdb" {
		t.Fatalf("DefaultDatabase: %q, %v", name, err)
	}
	for range 3 {
		if state, err := c.CurrentState(t.Context(), "defaultdb"); err != nil || state.DB != "defaultdb" {
			t.Fatalf("CurrentState: %+v, %v", state, err)
		}
	}
	if headers, err := c.Headers(t.Context(), "defaultdb", 1, 10); err != nil || len(headers) != 3 {
		t.Errorf("Headers: %d, %v", len(headers), err)
	}
	if got := c.Stats().Logins; got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	_, err = c.CurrentState(t.Context(), "db1")
	wantFault(t, err, Unauthorised, "without authentication", "defaultdb")
	_, err = c.Databases(t.Context())
	wantFault(t, err, Unauthorised)

	// Turned on, and off again.
	s.set(func() { s.authOff = false })
	if err := all(t.Context(), c, []string{"defaultdb", "db1"}); err != nil {
		t.Errorf("with authentication on: %v", err)
	}
	s.set(func() { s.authOff = true })
	if state, err := c.CurrentState(t.Context(), "db1"); err != nil || state.DB != "defaultdb" {
		t.Errorf("the token is not looked at any more: %+v, %v", state, err)
	}
	c.freshLogin = 0
	wantFault(t, c.Bind(t.Context(), "db1"), Unauthorised, "without authentication")
}

// One who stops waiting for a login takes nobody with him.
func TestCancelledLogin(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0", "db1")
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	s.answer("Login", func(ctx context.Context, _ proto.Message) (any, error, bool) {
		select {
		case arrived <- struct{}{}:
		default:
		}
		select {
		case <-release:
			return nil, nil, false
		case <-ctx.Done():
			return nil, ctx.Err(), true
		}
	})
	c := dial(t, s.addr)
	first, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		_, err := c.CurrentState(first, "db0")
		var f *Fault
		if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
			t.Errorf("cancelled by its caller: %v, want context.Canceled and no fault", err)
		}
	})
	<-arrived
	group.Go(func() {
		if _, err := c.CurrentState(t.Context(), "db0"); err != nil {
			t.Errorf("who waited for the same token: %v", err)
		}
	})
	group.Go(func() {
		if _, err := c.CurrentState(t.Context(), "db1"); err != nil {
			t.Errorf("who waited for the same login: %v", err)
		}
	})
	cancel()
	close(release)
	group.Wait()
	if got := c.Stats().InFlight; got != 0 {
		t.Errorf("%d calls in flight", got)
	}
}

package wire_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// open starts a compatible ledger with some transactions and a client for it.
func open(t *testing.T, config ledger.Config, change ...func(*wire.Options)) (*ledger.Ledger, *wire.Client) {
	t.Helper()
	l, err := ledger.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	fill(t, l, ledger.DefaultDB, 20, "v")
	o := wire.Options{Address: l.Addr(), Username: ledger.AdminUser, Password: ledger.DefaultAdminPassword}
	for _, f := range change {
		f(&o)
	}
	c, err := wire.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return l, c
}

func fill(t *testing.T, l *ledger.Ledger, name string, n int, value string) {
	t.Helper()
	db, err := l.Database(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := db.Set(fmt.Append(nil, "k", i), []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	var fault interface {
		error
		Reason() string
	}
	if !errors.As(err, &fault) || fault.Reason() != reason {
		t.Errorf("got %v, want %s", err, reason)
	}
}

// What the client brings home is what the checks of package proof accept,
// whatever the age of the server.
func TestContractProofs(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]ledger.Config{
		"1.11.1":       {HeaderVersion: 1, SigningKey: key},
		"1.4.1":        {Version: "1.4.1", HeaderVersion: 1, SigningKey: key},
		"1.0.5":        {Version: "1.0.5", SigningKey: key},
		"without auth": {NoAuth: true, SigningKey: key},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := open(t, config)
			ctx := t.Context()
			db, err := c.DefaultDatabase(ctx)
			if err != nil || db != ledger.DefaultDB {
				t.Fatalf("DefaultDatabase: %q, %v", db, err)
			}
			state, err := c.CurrentState(ctx, db)
			if err != nil {
				t.Fatal(err)
			}
			if err := proof.VerifySignature(&key.PublicKey, &state); err != nil {
				t.Error(err)
			}
			headers, err := c.Headers(ctx, db, 1, 1000)
			if err != nil {
				t.Fatal(err)
			}
			var walk proof.Walk
			states := []proof.State{walk.At()}
			for i := range headers {
				if err := walk.Next(&headers[i]); err != nil {
					t.Fatal(err)
				}
				states = append(states, walk.At())
			}
			if walk.At() != state.State {
				t.Errorf("walked to %v, the state is %v", walk.At(), state.State)
			}
			for source := 1; source < len(states); source++ {
				v, err := c.VerifiableTx(ctx, db, states[source].TxID, state.TxID)
				if err != nil {
					t.Fatal(err)
				}
				if v.Header == nil || v.Header.Alh() != state.Alh || len(v.Signature) == 0 {
					t.Errorf("beside the proof from %d: header %v, signature %x", source, v.Header, v.Signature)
				}
				if err := proof.VerifyDual(v.Proof, states[source], state.State, nil); err != nil {
					t.Errorf("from %d: %v", source, err)
				}
			}
			_, err = c.VerifiableTx(ctx, db, 1, state.TxID+1)
			wantReason(t, err, wire.TxNotFound)
			if c.UUID() != l.UUID() {
				t.Errorf("UUID %q, want %q", c.UUID(), l.UUID())
			}
			if got := c.Stats().Logins; got != 1 {
				t.Errorf("%d logins", got)
			}
		})
	}
}

// An old server sends the entries along, so that a page does not fit.
func TestContractOldPages(t *testing.T) {
	t.Parallel()
	l, c := open(t, ledger.Config{Version: "1.0.5"}, func(o *wire.Options) { o.MaxRecvMsgSize = 16 << 10 })
	fill(t, l, ledger.DefaultDB, 500, "v")
	var walk proof.Walk
	for walk.At().TxID < 520 {
		headers, err := c.Headers(t.Context(), ledger.DefaultDB, walk.At().TxID+1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(headers) == 0 || len(headers) > 200 {
			t.Fatalf("%d headers in 16 KiB", len(headers))
		}
		for i := range headers {
			if err := walk.Next(&headers[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestContractDatabases(t *testing.T) {
	t.Parallel()
	l, c := open(t, ledger.Config{})
	ctx := t.Context()
	for _, name := range []string{"alpha", "beta"} {
		if err := l.CreateDatabase(name); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.Databases(ctx)
	if err != nil || !slices.Equal(list, []string{"alpha", "beta", ledger.DefaultDB}) {
		t.Errorf("Databases: %q, %v", list, err)
	}
	if name, err := c.DefaultDatabase(ctx); err != nil || name != ledger.DefaultDB {
		t.Errorf("DefaultDatabase: %q, %v", name, err)
	}
	state := func(name string) error {
		s, err := c.CurrentState(ctx, name)
		if err == nil && s.DB != name {
			err = fmt.Errorf("the state of %q for %q", s.DB, name)
		}
		return err
	}
	for _, name := range []string{"alpha", "beta", ledger.DefaultDB, ledger.SystemDB} {
		if err := state(name); err != nil {
			t.Error(err)
		}
	}
	wantReason(t, state("gamma"), wire.NotFound)

	if err := l.UnloadDatabase("alpha"); err != nil {
		t.Fatal(err)
	}
	wantReason(t, state("alpha"), wire.NotLoaded)
	wantReason(t, state("alpha"), wire.NotLoaded)
	if err := l.LoadDatabase("alpha"); err != nil {
		t.Fatal(err)
	}
	if err := state("alpha"); err != nil {
		t.Errorf("loaded again: %v", err)
	}

	if err := l.UnloadDatabase("beta"); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteDatabase("beta"); err != nil {
		t.Fatal(err)
	}
	wantReason(t, state("beta"), wire.NotFound)
	if err := l.Restart(); err != nil {
		t.Fatal(err)
	}
	deadline, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := state("alpha")
		if err == nil {
			break
		}
		// For a moment the connection is down; nothing else may come of it.
		wantReason(t, err, wire.Unreachable)
		if deadline.Err() != nil || t.Failed() {
			t.Fatalf("after a restart: %v", err)
		}
		<-time.After(5 * time.Millisecond)
	}
	wantReason(t, state("beta"), wire.NotFound)
	if got := c.Stats().Logins; got != 2 {
		t.Errorf("%d logins, want one before and one after the restart", got)
	}
}

func TestContractPermissions(t *testing.T) {
	t.Parallel()
	l, c := open(t, ledger.Config{}, func(o *wire.Options) { o.Username, o.Password = "auditor", "Auditor-1" })
	if err := l.CreateDatabase("alpha"); err != nil {
		t.Fatal(err)
	}
	if err := l.CreateUser("auditor", "Auditor-1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Grant("auditor", "alpha", ledger.Read); err != nil {
		t.Fatal(err)
	}
	state := func(name string) error { _, err := c.CurrentState(t.Context(), name); return err }
	if err := state("alpha"); err != nil {
		t.Error(err)
	}
	if _, err := c.Headers(t.Context(), "alpha", 1, 10); err != nil {
		t.Error(err)
	}
	wantReason(t, state(ledger.DefaultDB), wire.Unauthorised)
	wantReason(t, state(ledger.SystemDB), wire.Unauthorised)
	if err := l.Revoke("auditor", "alpha"); err != nil {
		t.Fatal(err)
	}
	wantReason(t, state("alpha"), wire.Unauthorised)
	if err := l.Grant("auditor", "alpha", ledger.Read); err != nil {
		t.Fatal(err)
	}
	if err := state("alpha"); err != nil {
		t.Errorf("granted again: %v", err)
	}
}

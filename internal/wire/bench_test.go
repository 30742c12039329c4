package wire_test

import (
	"testing"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
)

// What a quiet ledger costs in a round.
func BenchmarkCurrentState(b *testing.B) {
	c := benched(b)
	for b.Loop() {
		if _, err := c.CurrentState(b.Context(), ledger.DefaultDB); err != nil {
			b.Fatal(err)
		}
	}
}

// What a walk costs apart from its hashes, per page of 1,000.
func BenchmarkHeaders(b *testing.B) {
	c := benched(b)
	for b.Loop() {
		headers, err := c.Headers(b.Context(), ledger.DefaultDB, 1, 1000)
		if err != nil || len(headers) != 1000 {
			b.Fatalf("%d headers, %v", len(headers), err)
		}
	}
}

func benched(b *testing.B) *wire.Client {
	b.Helper()
	l, err := ledger.Open(ledger.Config{HeaderVersion: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	if err := l.Start("127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	db, err := l.Database(ledger.DefaultDB)
	if err != nil {
		b.Fatal(err)
	}
	for range 1000 {
		if _, err := db.Set([]byte("k"), []byte("v")); err != nil {
			b.Fatal(err)
		}
	}
	c, err := wire.New(wire.Options{Address: l.Addr(), Username: ledger.AdminUser, Password: ledger.DefaultAdminPassword})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

package audit_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/store"
)

// brokenMemory is a state on a disk that is full for a while.
type brokenMemory struct {
	audit.Memory
	fail atomic.Bool
}

func (b *brokenMemory) Apply(ctx context.Context, c evidence.Change) error {
	if b.fail.Load() {
		return errors.New("no space left on device")
	}
	return b.Memory.Apply(ctx, c)
}

// reopen opens the same state as another process would.
func (r *rig) reopen() *store.Store {
	r.t.Helper()
	s, err := store.Open(r.t.Context(), store.Options{Dir: r.dir, Logger: slog.New(slog.DiscardHandler)})
	r.must(err)
	r.t.Cleanup(func() { s.Close() })
	return s
}

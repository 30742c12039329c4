package verify

import (
	"context"
	"errors"
	"sync"
)

// believer makes sure that contradictions are about the right database.
type believer struct {
	mu    sync.Mutex // one confirmation at a time
	times int
}

// confirm looks again at what did not hold, in the way that the caller of Run
// wants to be sure.
func (r *run) confirm(ctx context.Context, look func(context.Context) error) error {
	if r.o.Confirm == nil || !r.believe.another() {
		return look(ctx)
	}
	r.believe.mu.Lock()
	defer r.believe.mu.Unlock()
	looked := false
	err := r.o.Confirm(ctx, func(ctx context.Context) error {
		looked = true
		return look(ctx)
	})
	if err == nil && !looked {
		err = errors.New("a contradiction was to be confirmed, and was not looked at again")
	}
	return err
}

// another reports whether there is to be another confirmation.
func (b *believer) another() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times++
	return b.times <= confirmations
}

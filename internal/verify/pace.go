package verify

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"

	"immuaudit/proof"
)

// sizer chooses how many transactions a stretch has: as many as bring about
// the wanted number of bytes, judged by what came before, and never more than
// fitted into a message.
type sizer struct {
	mu     sync.Mutex
	target float64
	each   float64 // bytes of one transaction, as of late; 0: not known
	most   int     // what fits
	fitted int     // answers in a row that were as large as may be
}

func newSizer(target int64) sizer { return sizer{target: float64(max(target, 1)), most: maxPage} }

// next is the size of the next stretch.
func (s *sizer) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := firstPage
	if s.each > 0 {
		n = int(min(s.target/s.each, maxPage))
	}
	return max(1, min(n, s.most))
}

// came is told that n transactions came in so many bytes.
func (s *sizer) came(n, bytes int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if each := float64(bytes) / float64(n); s.each == 0 {
		s.each = each
	} else {
		// A large one counts at once, so that the next ones are not too many.
		s.each = max(0.8*s.each+0.2*each, 0.5*each)
	}
	if n < s.most || s.most == maxPage {
		return
	}
	if s.fitted++; s.fitted >= pagesBeforeGrowth {
		s.fitted, s.most = 0, min(2*s.most, maxPage)
	}
}

// tooLarge is told that n transactions did not fit, or did not come in time.
func (s *sizer) tooLarge(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fitted, s.most = 0, max(1, min(s.most, n/2))
}

// pace bounds what is read in a second, and counts it.
type pace struct {
	limit    *rate.Limiter // nil: none
	received *atomic.Uint64
}

func newPace(bytesPerSecond int64) pace {
	p := pace{received: new(atomic.Uint64)}
	if bytesPerSecond > 0 {
		// What was read is paid for afterwards: how much an answer brings is
		// not known before.
		p.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(bytesPerSecond, 1<<30)))
	}
	return p
}

// pay waits until n more bytes may be read, or ctx ends: what was read is good
// all the same, so that one answer which costs more than the time there is does
// not keep a run from ever getting beyond it.
func (p *pace) pay(ctx context.Context, n int) {
	p.received.Add(uint64(n))
	if p.limit == nil {
		return
	}
	for n > 0 {
		part := min(n, p.limit.Burst())
		if p.limit.WaitN(ctx, part) != nil {
			<-ctx.Done() // the limiter knows of a deadline before it has passed
			return
		}
		n -= part
	}
}

// ask makes a call, again and again where the connection is to blame. An answer
// that is slow to come is asked for again only if less cannot be asked for.
func (r *run) ask(ctx context.Context, less bool, call func(context.Context) (int, error)) error {
	pause := &backoff.ExponentialBackOff{InitialInterval: firstPause, MaxInterval: lastPause, Multiplier: 2, RandomizationFactor: 0.2}
	pause.Reset()
	for try := 1; ; try++ {
		n, err := call(ctx)
		r.pace.pay(ctx, n)
		kind := troubleOf(err)
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case kind != passing && kind != slow, kind == slow && less:
			return err
		case try == tries, try == slowTries && kind == slow:
			return fmt.Errorf("tried %d times: %w", try, err)
		}
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// list asks for transactions and gives those that come to each.
func (r *run) list(ctx context.Context, from uint64, n int, values []byte, each func(*proof.Header, []proof.ExportedEntry) error) (received int, err error) {
	err = r.ask(ctx, n > 1, func(ctx context.Context) (int, error) {
		received, err = r.o.Source.Transactions(ctx, r.o.Database, from, n, values, each)
		return received, err
	})
	return received, err
}

// headers asks for headers, at least one.
func (r *run) headers(ctx context.Context, from uint64, n int) (list []proof.Header, err error) {
	err = r.ask(ctx, false, func(ctx context.Context) (int, error) {
		list, err = r.o.Source.Headers(ctx, r.o.Database, from, n)
		return len(list) * headerBytes, err
	})
	return list, err
}

// headerBytes is about what a header takes in an answer.
const headerBytes = 130

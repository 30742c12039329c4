package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/internal/audit"
)

// livez and readyz speak of the auditor, whatever immudb does.
func TestHealthOfTheAuditor(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		change      func(*audit.Status)
		live, ready int
		says        string
	}{
		"at work":         {func(*audit.Status) {}, 200, 200, ""},
		"first pass":      {func(s *audit.Status) { s.FirstPass = false }, 200, 503, "first pass"},
		"immudb is away":  {func(s *audit.Status) { s.FirstPass, s.ServerError = false, "unreachable" }, 200, 200, ""},
		"just started":    {func(s *audit.Status) { s.LoopAt, s.Started, s.FirstPass = time.Time{}, now, false }, 200, 503, "first pass"},
		"hangs":           {func(s *audit.Status) { s.LoopAt = now.Add(-time.Minute) }, 503, 503, "has not turned for"},
		"hung from start": {func(s *audit.Status) { s.LoopAt = time.Time{} }, 503, 503, "has not turned for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status := healthy()
			c.change(&status)
			for immudb, ask := range map[string]func(context.Context) error{"OK": immudbUp, "connection refused": immudbDown} {
				s, err := New(Options{Addr: "127.0.0.1:0", Statuses: showing(status), Immudb: ask})
				if err != nil {
					t.Fatal(err)
				}
				s.started = now.Add(-time.Hour)
				run(t, s)
				live, ready := get(t, s, "/livez"), get(t, s, "/readyz")
				if live.code != c.live || ready.code != c.ready {
					t.Errorf("livez %d, readyz %d, want %d and %d", live.code, ready.code, c.live, c.ready)
				}
				contains(t, live.body, `{"immudb":"`+immudb+`"`)
				contains(t, ready.body, `{"immudb":"`+immudb+`"`, c.says)
				for _, got := range []answer{live, ready} {
					if strings.Contains(got.body, `"auditor"`) != (got.code == http.StatusServiceUnavailable) {
						t.Errorf("%d %s", got.code, got.body)
					}
				}
			}
		})
	}
}

// However many ask, immudb is asked once a second, one question at a time, for
// at most two seconds; a probe does not wait for it.
func TestPulse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked, under, most atomic.Int64
		var mu sync.Mutex
		hang := false
		p := newPulse(func(ctx context.Context) error {
			asked.Add(1)
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			mu.Lock()
			hangs := hang
			mu.Unlock()
			if hangs {
				<-ctx.Done()
				return ctx.Err()
			}
			<-time.After(10 * time.Millisecond)
			return nil
		})
		var visitors sync.WaitGroup
		for range 100 {
			visitors.Go(func() {
				for range 100 {
					if err := p.answer(t.Context(), immudbTimeout); err != nil {
						t.Error(err)
					}
					<-time.After(50 * time.Millisecond)
				}
			})
		}
		visitors.Wait()
		if n := asked.Load(); n < 4 || n > 6 || most.Load() != 1 {
			t.Errorf("asked %d times in 5 s, %d at once", n, most.Load())
		}

		mu.Lock()
		hang = true
		mu.Unlock()
		pass(2 * immudbFresh)
		begun := time.Now()
		if err := p.answer(t.Context(), probePatience); err != nil || time.Since(begun) != probePatience {
			t.Errorf("a probe got %v after %s, want the answer before", err, time.Since(begun))
		}
		if err := p.answer(t.Context(), immudbTimeout); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > immudbTimeout {
			t.Errorf("got %v after %s", err, time.Since(begun))
		}

		pass(2 * immudbFresh)
		_ = p.answer(t.Context(), time.Millisecond) // leaves a question under way
		begun = time.Now()
		p.close()
		if took := time.Since(begun); took != 0 {
			t.Errorf("closing took %s", took)
		}
		pass(2 * immudbFresh)
		if err := p.answer(t.Context(), time.Second); !errors.Is(err, errStopping) {
			t.Errorf("after close: %v", err)
		}
	})
}

// Before anything was heard nothing is good.
func TestPulseStartsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPulse(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if err := p.answer(t.Context(), probePatience); !errors.Is(err, errNoAnswerYet) {
			t.Errorf("got %v", err)
		}
		p.close()
	})
}

func TestImmudbErrorIsBounded(t *testing.T) {
	t.Parallel()
	hostile := errors.New("rpc error:\n\x00\x1b[2J\xff" + strings.Repeat("ä", 10_000))
	s := start(t, Options{Immudb: func(context.Context) error { return hostile }})
	got := get(t, s, "/initz")
	if got.code != 503 || len(got.body) > maxErrorText+40 || strings.ContainsAny(got.body, "\n\x00\x1b") {
		t.Errorf("%d %q", got.code, got.body)
	}
	contains(t, got.body, `{"immudb":"rpc error:`)
}

package service

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestNotifier listens as systemd does. It sets variables of the process, so it
// runs alone.
func TestNotifier(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := func(within time.Duration) string {
		t.Helper()
		if err := l.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			return ""
		}
		return string(b[:n])
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "30000")
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	var well atomic.Bool
	var asked atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- n.Run(ctx, func() bool { asked.Add(1); return well.Load() })
	}()
	if got := next(5 * time.Second); got != "READY=1" {
		t.Fatalf("first it says %q", got)
	}
	// Not healthy: asked, and nothing said.
	if got := next(100 * time.Millisecond); got != "" || asked.Load() == 0 {
		t.Errorf("an auditor that hangs says %q, asked %d times", got, asked.Load())
	}
	well.Store(true)
	for range 3 {
		if got := next(5 * time.Second); got != "WATCHDOG=1" {
			t.Errorf("an auditor that is well says %q", got)
		}
	}
	cancel()
	for {
		got := next(5 * time.Second)
		if got == "STOPPING=1" {
			break
		}
		if got != "WATCHDOG=1" {
			t.Fatalf("at the end it says %q", got)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}

	// Without a watchdog it says Ready and Stopping alone.
	t.Setenv("WATCHDOG_USEC", "")
	if n, err = NewNotifier(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- n.Run(ctx, func() bool { t.Error("nobody watches"); return true }) }()
	if got := next(5 * time.Second); got != "READY=1" {
		t.Errorf("without a watchdog it says %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := next(5 * time.Second); got != "STOPPING=1" {
		t.Errorf("without a watchdog it says %q at the end", got)
	}

	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := NewNotifier(); err == nil {
		t.Error("a watchdog's interval that is no number was taken")
	}
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("NOTIFY_SOCKET", "") // nobody listens: nothing happens
	ended, end := context.WithCancel(t.Context())
	end()
	if n, err = NewNotifier(); err != nil {
		t.Fatal(err)
	}
	if err := n.Run(ended, nil); err != nil {
		t.Error(err)
	}
	if err := Supervised(ended, context.Context.Err); err != context.Canceled {
		t.Errorf("supervised it ended with %v", err)
	}
}

package alert

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// beats answers requests without a network, so that they fit into a bubble.
type beats struct {
	mu     sync.Mutex
	at     []time.Time
	status int
}

func (b *beats) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = append(b.at, time.Now())
	return &http.Response{StatusCode: b.status, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// A beat stands for all of its servers, goes out at most once a minute, and is
// not made up for where it failed.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, err := NewHeartbeat(HeartbeatOptions{Name: "beat", URL: "https://hc.example/x", Servers: []string{"a", "b"}})
		if err != nil {
			t.Fatal(err)
		}
		receiver := &beats{status: 200}
		h.client.Transport = receiver
		var kept book
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.Run(ctx, &kept) }()
		for range 600 {
			h.Beat("a")
			h.Beat("c") // not its server
			pass(time.Second)
		}
		if len(receiver.at) != 0 {
			t.Errorf("%d beats while a server hangs", len(receiver.at))
		}
		begun := time.Now()
		for range 600 {
			h.Beat("a")
			h.Beat("b")
			pass(time.Second)
		}
		if n := len(receiver.at); n < 10 || n > 11 || receiver.at[0].Sub(begun) > time.Second {
			t.Errorf("%d beats in ten minutes", n)
		}
		receiver.mu.Lock()
		receiver.status = 404
		receiver.mu.Unlock()
		pass(2 * time.Minute)
		n := len(receiver.at)
		pass(time.Hour)
		if len(receiver.at) != n {
			t.Error("a beat that failed was made up for")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if !slices.Contains(kept.notes, "beat:") {
			t.Errorf("notes: %v", kept.notes)
		}
	})
}

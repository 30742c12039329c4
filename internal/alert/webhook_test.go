package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// receiver is a webhook receiver on a real socket.
func receiver(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func webhook(t *testing.T, o WebhookOptions) *Webhook {
	t.Helper()
	w, err := NewWebhook(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func hashOf(b byte) (h proof.Hash) {
	for i := range h {
		h[i] = b
	}
	return h
}

// The bodies are the original's, byte for byte as its receivers know them; the
// sequence comes after all that is the original's.
func TestBodyGolden(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 13, 14, 15, 123456789, time.FixedZone("CET", 3600))
	signed := &proof.SignedState{DB: "defaultdb", State: proof.State{TxID: 41, Alh: hashOf(0xaa)}, Signature: []byte{1, 2, 3}, PublicKey: []byte{4, 5, 6}}
	unsigned := &proof.SignedState{DB: "defaultdb", State: proof.State{TxID: 42, Alh: hashOf(0xbb)}}
	for name, e := range map[string]evidence.Event{
		"tampered.json": {
			ID: "k", Type: evidence.EventTampered, Verdict: evidence.Tampered, At: at,
			Name: evidence.Name{Server: "prod", Database: "defaultdb"}, Previous: signed, Current: unsigned, Sequence: 4711,
		},
		"consistent.json": {
			ID: "k", Type: evidence.EventComparison, Verdict: evidence.Consistent, At: at,
			Name: evidence.Name{Server: "prod", Database: "defaultdb"}, Previous: signed, Current: unsigned,
		},
		"stateless.json": {
			ID: "k", Type: evidence.EventTampered, Verdict: evidence.Tampered, At: at.Truncate(time.Second).UTC(),
			Name: evidence.Name{Server: "prod", Database: "sal<e>s\xff"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile("testdata/" + name)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			var header http.Header
			r := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
				header = r.Header.Clone()
				_, _ = got.ReadFrom(r.Body)
			})
			w := webhook(t, WebhookOptions{URL: r.URL, Username: "watcher", Password: `p"w<d`, Version: "1.2.3"})
			if err := w.Send(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if got.String()+"\n" != string(want) {
				t.Errorf("sent %s\nwant %s", got.String(), want)
			}
			for key, value := range map[string]string{"Content-Type": "application/json", "User-Agent": "immuaudit/1.2.3", "Idempotency-Key": "k"} {
				if header.Get(key) != value {
					t.Errorf("%s: %q, want %q", key, header.Get(key), value)
				}
			}
			if header.Get("Authorization") != "" {
				t.Error("sent an Authorization header without being told to")
			}
		})
	}
}

func TestAcceptedStatuses(t *testing.T) {
	t.Parallel()
	accepted := map[int]bool{200: true, 201: true, 202: true, 204: true}
	var elsewhere sync.Map
	other := receiver(t, func(_ http.ResponseWriter, r *http.Request) { elsewhere.Store(r.Method, true) })
	for _, status := range []int{200, 201, 202, 203, 204, 205, 206, 226, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 422, 425, 429, 500, 502, 503, 504, 599} {
		r := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(status)
		})
		w := webhook(t, WebhookOptions{URL: r.URL, Username: "u", Password: "p"})
		err := w.Send(t.Context(), tampered("db", 1))
		if (err == nil) != accepted[status] {
			t.Errorf("status %d: %v", status, err)
		}
		var refusal *Refusal
		if !accepted[status] {
			if !errors.As(err, &refusal) || refusal.Status != status {
				t.Errorf("status %d: %v is no refusal of that status", status, err)
			} else if permanent := status >= 400 && status < 500 && status != 408 && status != 425 && status != 429; refusal.Permanent() != permanent {
				t.Errorf("status %d: permanent %v", status, refusal.Permanent())
			}
		}
	}
	elsewhere.Range(func(method, _ any) bool {
		t.Errorf("a redirect was followed with %s", method)
		return true
	})
}

func TestCertificateIsVerified(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	hits := 0
	r := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		hits++
	}))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	err := webhook(t, WebhookOptions{URL: r.URL}).Send(t.Context(), tampered("db", 1))
	if err == nil || !strings.Contains(err.Error(), "certificate") || hits != 0 {
		t.Errorf("an unknown certificate: %v, %d requests", err, hits)
	}
	if err := webhook(t, WebhookOptions{URL: r.URL, Transport: r.Client().Transport}).Send(t.Context(), tampered("db", 1)); err != nil || hits != 1 {
		t.Errorf("a known certificate: %v, %d requests", err, hits)
	}
}

// However much a receiver answers, little is read, and less is kept.
func TestHugeAnswer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 500} {
		var mu sync.Mutex
		written := 0
		r := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			chunk := bytes.Repeat([]byte("ä"), 16<<10)
			for range 8 << 10 { // 256 MiB
				n, err := w.Write(chunk)
				mu.Lock()
				written += n
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
		err := webhook(t, WebhookOptions{URL: r.URL}).Send(t.Context(), tampered("db", 1))
		var refusal *Refusal
		switch {
		case status == 200 && err != nil:
			t.Errorf("accepted, with a long answer: %v", err)
		case status == 500 && (!errors.As(err, &refusal) || len(refusal.Quote) == 0 || len(refusal.Quote) > maxQuote):
			t.Errorf("refused: %v", err)
		}
		r.Close() // waits for the handler
		if written > 64<<20 {
			t.Errorf("status %d: %d bytes of the answer were taken", status, written)
		}
	}
}

func TestEndlessHeaders(t *testing.T) {
	t.Parallel()
	r := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			w.Header().Add("X-Filler", strings.Repeat("x", 1000)+string(rune('a'+i%26)))
		}
	})
	if err := webhook(t, WebhookOptions{URL: r.URL}).Send(t.Context(), tampered("db", 1)); err == nil || len(err.Error()) > maxErrorBytes {
		t.Errorf("a megabyte of headers: %v", err)
	}
}

// Nothing secret is in what is recorded, not even if the receiver sends it back.
func TestErrorsHoldNoCredentials(t *testing.T) {
	t.Parallel()
	const secret = `s3cr<t "&päss`
	echo := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var sent map[string]any
		_ = json.Unmarshal(body, &sent)
		user, password, _ := r.BasicAuth()
		w.WriteHeader(400)
		_, _ = io.WriteString(w, user+" "+password+" "+sent["password"].(string)+" "+string(body))
	})
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, base := range map[string]string{"echo": echo.URL, "gone": gone.URL} {
		address := strings.Replace(base, "http://", "http://urluser:urlpass@", 1) + "/hook/t0ken?key=t0ken"
		w := webhook(t, WebhookOptions{URL: address, Username: "watcher", Password: secret})
		err := w.Send(t.Context(), tampered("db", 1))
		if err == nil {
			t.Fatalf("%s: accepted", name)
		}
		for _, word := range []string{secret, "s3cr", "päss", "watcher", "urluser", "urlpass", "t0ken"} {
			if strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is in %q", name, word, err)
			}
		}
	}
}

func TestNewWebhookRefuses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"", "receiver", "receiver:8080", "//receiver/x", "ftp://receiver", "https://", "http:///path",
		"https://user:pa%ss@receiver", "https://user:hunter2/@receiver:port", "user:hunter2@receiver", "https://rec\neiver/hunter2",
	} {
		_, err := NewWebhook(WebhookOptions{URL: address})
		if err == nil {
			t.Errorf("%q was taken", address)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "user") {
			t.Errorf("%q: the error quotes it: %v", address, err)
		}
		if !strings.Contains(err.Error(), "https://host/path") {
			t.Errorf("%q: the error does not say what to write: %v", address, err)
		}
	}
}

// stuck is a transport that answers when its request is given up.
type stuck struct{}

func (stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestTryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, err := NewWebhook(WebhookOptions{URL: "https://receiver.example/hook", Transport: stuck{}})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		err = w.Send(t.Context(), tampered("db", 1))
		if took := time.Since(begun); took != tryTimeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("took %s: %v", took, err)
		}
	})
}

// A receiver that answers its headers and then dribbles its body for ever.
func TestSlowReceiver(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := receiver(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/body" {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "thinking")
			w.(http.Flusher).Flush()
		}
		<-release
	})
	t.Cleanup(func() { close(release) })
	for _, path := range []string{"/headers", "/body"} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		begun := time.Now()
		err := webhook(t, WebhookOptions{URL: r.URL + path}).Send(ctx, tampered("db", 1))
		cancel()
		if err == nil || time.Since(begun) > 5*time.Second {
			t.Errorf("%s: %v after %s", path, err, time.Since(begun))
		}
	}
}

// flaky takes every other request: of those it refuses, it resets some before
// reading, some after it read everything and took it for done (the reply is
// lost), and answers some with 500.
type flaky struct {
	t     *testing.T
	mu    sync.Mutex
	calls int
	taken map[string]int // by idempotency key
	db    map[string]string
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.calls++
	call := f.calls
	f.mu.Unlock()
	if call%2 == 0 && call%6 == 2 {
		f.reset(w)
		return
	}
	body, err := io.ReadAll(r.Body)
	var sent struct {
		DB       string `json:"db"`
		Tampered bool   `json:"tampered"`
	}
	if err != nil || json.Unmarshal(body, &sent) != nil || !sent.Tampered {
		f.t.Errorf("received %q: %v", body, err)
	}
	key := r.Header.Get("Idempotency-Key")
	if call%6 == 4 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	f.mu.Lock()
	f.taken[key]++
	f.db[key] = sent.DB
	f.mu.Unlock()
	if call%6 == 0 {
		f.reset(w)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (f *flaky) reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		f.t.Error(err)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// Through a receiver that fails half of the time, with the auditor restarted
// again and again, every event arrives, under one key each.
func TestEverythingArrives(t *testing.T) {
	t.Parallel()
	f := &flaky{t: t, taken: make(map[string]int), db: make(map[string]string)}
	r := httptest.NewServer(f)
	t.Cleanup(r.Close)
	outbox := newDurable()
	const total = 60
	var w *Webhook
	for n := range total {
		outbox.queue("webhook", tampered([]string{"db0", "db1", "db2"}[n%3], n))
		if n%10 == 9 {
			w = webhook(t, WebhookOptions{URL: r.URL})
			stop := running(t, outbox, hurried, w)
			want := n / 2
			eventually(t, "half of them delivered", func() bool { return n+1-len(outbox.pending()) >= want })
			stop()
		}
	}
	stop := running(t, outbox, hurried, w)
	eventually(t, "all delivered", func() bool { return len(outbox.pending()) == 0 })
	stop()
	repeats := 0
	for n := range total {
		e := tampered([]string{"db0", "db1", "db2"}[n%3], n)
		if f.taken[e.ID] == 0 || f.db[e.ID] != e.Name.Database {
			t.Errorf("%s was taken %d times, for %q", e.ID, f.taken[e.ID], f.db[e.ID])
		}
		repeats += f.taken[e.ID] - 1
	}
	if len(f.taken) != total {
		t.Errorf("%d keys for %d events", len(f.taken), total)
	}
	if repeats == 0 || repeats > f.calls/6+1 {
		t.Errorf("%d repeats in %d calls: want as many as replies were lost", repeats, f.calls)
	}
}

// A lost reply is followed by the same notification under the same key.
func TestLostReplyIsRepeatedUnderItsKey(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var keys, bodies []string
	r := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		keys, bodies = append(keys, r.Header.Get("Idempotency-Key")), append(bodies, string(body))
		if len(keys) == 1 {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.Close()
		}
	})
	outbox := newDurable()
	outbox.queue("webhook", tampered("db", 1))
	stop := running(t, outbox, hurried, webhook(t, WebhookOptions{URL: r.URL}))
	eventually(t, "delivered", func() bool { return len(outbox.pending()) == 0 })
	stop()
	if len(keys) != 2 || keys[0] != "db-0001" || keys[1] != keys[0] || bodies[1] != bodies[0] {
		t.Errorf("keys %v, bodies %v", keys, bodies)
	}
}

// Credentials are added when sending: what waits holds none.
func TestOutboxHoldsNoCredentials(t *testing.T) {
	t.Parallel()
	r := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.Copy(w, r.Body)
	})
	outbox := newDurable()
	outbox.queue("webhook", tampered("db", 1))
	stop := running(t, outbox, hurried, webhook(t, WebhookOptions{URL: r.URL, Username: "watcher", Password: "hunter2"}))
	eventually(t, "tried", func() bool { return outbox.pending()[0].Attempts > 2 })
	stop()
	stored, err := json.Marshal(outbox.pending())
	if err != nil || bytes.Contains(stored, []byte("hunter2")) || bytes.Contains(stored, []byte("watcher")) {
		t.Errorf("stored %s, %v", stored, err)
	}
	if !bytes.Contains(stored, []byte("the receiver answered 502")) {
		t.Errorf("stored %s", stored)
	}
}

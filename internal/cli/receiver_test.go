package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// receiver takes notifications. What it was sent goes to a file too, a line
// each: the status it answered, the key, and the body as it came.
type receiver struct {
	file string
	addr string

	mu     sync.Mutex
	status int
	slow   bool
	got    []received
	server *http.Server
	served chan struct{}
}

// received is one try of the sender's.
type received struct {
	Status      int             `json:"status"`
	Key         string          `json:"key"`
	ContentType string          `json:"content_type"`
	UserAgent   string          `json:"user_agent"`
	Body        json.RawMessage `json:"body"`
}

// newReceiver reserves an address; up makes somebody answer there.
func newReceiver(dir, name string) (*receiver, error) {
	r := &receiver{file: filepath.Join(dir, name+".log"), status: http.StatusOK}
	if err := os.WriteFile(r.file, nil, 0o600); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.addr = l.Addr().String()
	return r, l.Close()
}

// receiving is a receiver that answers until the test ends.
func receiving(t *testing.T, dir string) *receiver {
	t.Helper()
	r, err := newReceiver(dir, "hook")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.down() })
	return r
}

func (r *receiver) url() string { return "http://" + r.addr + "/notify" }

func (r *receiver) up() error {
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server, r.served = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	go func(s *http.Server, served chan struct{}) {
		defer close(served)
		_ = s.Serve(l) // until down
	}(r.server, r.served)
	return nil
}

func (r *receiver) down() error {
	r.mu.Lock()
	server, served := r.server, r.served
	r.server = nil
	r.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Close()
	<-served
	return err
}

func (r *receiver) answer(status int, slow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.slow = status, slow
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was killed
	}
	r.mu.Lock()
	one := received{
		Status: r.status, Key: req.Header.Get("Idempotency-Key"), Body: body,
		ContentType: req.Header.Get("Content-Type"), UserAgent: req.Header.Get("User-Agent"),
	}
	r.got = append(r.got, one)
	line, err := json.Marshal(one)
	slow := r.slow
	if err == nil {
		err = appendLine(r.file, line)
	}
	r.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	if slow { // until the sender loses patience
		<-req.Context().Done()
		return
	}
	w.WriteHeader(one.Status)
}

func appendLine(file string, line []byte) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// do carries out one verb of the stories' receiver command.
func (r *receiver) do(verb string) error {
	switch verb {
	case "up":
		return r.up()
	case "down":
		return r.down()
	case "slow":
		r.answer(http.StatusOK, true)
		return nil
	}
	var status int
	if n, err := fmt.Sscanf(verb, "%d", &status); n != 1 || err != nil {
		return fmt.Errorf("%q is no verb: up, down, slow or a status", verb)
	}
	r.answer(status, false)
	return nil
}

// fetch makes one request, over a unix socket if one is given.
func fetch(method, url, socket string, header http.Header, user, password string, transport *http.Transport) (*http.Response, []byte, error) {
	if transport == nil {
		transport = &http.Transport{}
	}
	defer transport.CloseIdleConnections()
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return nil, nil, err
	}
	for name := range header {
		req.Header[name] = header[name]
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	client := http.Client{Transport: transport, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

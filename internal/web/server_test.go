package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// webConfig writes a web configuration with a certificate and one user.
func webConfig(t *testing.T, withTLS bool) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	config := "basic_auth_users:\n  watcher: " + string(hash) + "\n"
	if withTLS {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"auditor"}}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
		write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		config += "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
	}
	write("web.yml", []byte(config))
	return filepath.Join(dir, "web.yml")
}

func TestTLSAndBasicAuthentication(t *testing.T) {
	t.Parallel()
	for scheme, withTLS := range map[string]bool{"http": false, "https": true} {
		socket := socketPath(t)
		s := start(t, Options{ConfigFile: webConfig(t, withTLS), ProbeAddress: "127.0.0.1:0", ProbeSocket: socket})
		client := tcp(s.Addr())
		authenticate := func(r *http.Request) { r.SetBasicAuth("watcher", "hunter2") }
		for _, path := range []string{"/", "/metrics", "/initz", "/livez", "/readyz", "/version", "/debug/vars", "/nothing"} {
			if got := ask(t, client, "GET", scheme+"://auditor"+path); got.code != http.StatusUnauthorized {
				t.Errorf("%s %s without credentials: %d", scheme, path, got.code)
			}
			req, err := http.NewRequestWithContext(t.Context(), "GET", scheme+"://auditor"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			authenticate(req)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if want := map[bool]int{false: 200, true: 404}[path == "/nothing"]; resp.StatusCode != want {
				t.Errorf("%s %s with credentials: %d", scheme, path, resp.StatusCode)
			}
		}
		// The probes stay plaintext and open, and are all there is on their ports.
		bySocket := visitor(func() (net.Conn, error) { return net.Dial("unix", socket) })
		for _, probe := range []*http.Client{tcp(s.ProbeAddr()), bySocket} {
			for path, code := range map[string]int{"/livez": 200, "/readyz": 200, "/": 404, "/metrics": 404, "/initz": 404, "/version": 404, "/debug/vars": 404} {
				if got := ask(t, probe, "GET", "http://auditor"+path); got.code != code {
					t.Errorf("probe %s: %d, want %d", path, got.code, code)
				}
			}
		}
	}
}

// Whatever is wrong is said before anything starts, with the file's name and
// what to do.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	plain := file("plain", "not a socket")
	missing := filepath.Join(dir, "missing.yml")
	base := Options{Addr: "127.0.0.1:0", Statuses: showing(healthy()), Immudb: immudbUp}
	for name, c := range map[string]struct {
		change func(*Options)
		says   []string
	}{
		"missing file":      {func(o *Options) { o.ConfigFile = missing }, []string{missing, "--web.config.file"}},
		"unknown key":       {func(o *Options) { o.ConfigFile = file("a.yml", "tls_config:\n  x: 1\n") }, []string{filepath.Join(dir, "a.yml"), "tls_config"}},
		"no such cert":      {func(o *Options) { o.ConfigFile = file("b.yml", "tls_server_config:\n  cert_file: c\n  key_file: k\n") }, []string{"b.yml", filepath.Join(dir, "c")}},
		"password, no hash": {func(o *Options) { o.ConfigFile = file("d.yml", "basic_auth_users:\n  u: clear\n") }, []string{"d.yml"}},
		"port taken":        {func(o *Options) { o.Addr = taken.Addr().String() }, []string{taken.Addr().String(), "--audit-monitoring-port"}},
		"bad address":       {func(o *Options) { o.Addr = "nowhere" }, []string{"nowhere", "--audit-monitoring-host"}},
		"probe taken":       {func(o *Options) { o.ProbeAddress = taken.Addr().String() }, []string{taken.Addr().String(), "--audit-probe-address"}},
		"not a socket":      {func(o *Options) { o.ProbeSocket = plain }, []string{plain, "not a socket"}},
		"no directory":      {func(o *Options) { o.ProbeSocket = filepath.Join(dir, "no", "s") }, []string{"socket"}},
		"no status":         {func(o *Options) { o.Statuses = nil }, []string{"status"}},
		"nobody to ask":     {func(o *Options) { o.Immudb = nil }, []string{"server to ask"}},
	} {
		o := base
		c.change(&o)
		_, err := New(o)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		for _, words := range c.says {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %q does not say %q", name, err, words)
			}
		}
	}
	if text, err := os.ReadFile(plain); err != nil || string(text) != "not a socket" {
		t.Errorf("the file in the way was touched: %q, %v", text, err)
	}
}

// socketPath is short enough for a unix socket on every system.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "probe.sock")
}

func TestSocket(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	// A dead process leaves its socket behind.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Addr: "127.0.0.1:0", Statuses: showing(healthy()), Immudb: immudbUp, ProbeSocket: path})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	client := visitor(func() (net.Conn, error) { return net.Dial("unix", path) })
	if got := ask(t, client, "GET", "http://auditor/livez"); got.body != `{"immudb":"OK"}` {
		t.Errorf("%d %s", got.code, got.body)
	}
	// That of a live one is left alone.
	_, err = New(Options{Addr: "127.0.0.1:0", Statuses: showing(healthy()), Immudb: immudbUp, ProbeSocket: path})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("a second auditor: %v", err)
	}
	if got := ask(t, client, "GET", "http://auditor/livez"); got.code != 200 {
		t.Errorf("after the second one tried: %d", got.code)
	}
	stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket was left behind: %v", err)
	}
}

// A state directory with a long path costs the socket, not the auditor.
func TestSocketPathTooLong(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	path := filepath.Join(t.TempDir(), strings.Repeat("d", maxSocketPath), "probe.sock")
	s := start(t, Options{ProbeSocket: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := get(t, s, "/livez"); got.code != 200 {
		t.Errorf("livez: %d", got.code)
	}
	contains(t, log.String(), "no probe socket", "--audit-probe-address")
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Connections above the cap wait; those of the probes are counted apart.
func TestConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	s := start(t, Options{ProbeAddress: "127.0.0.1:0"})
	var idle []net.Conn
	for range maxConnections {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	if got := ask(t, tcp(s.ProbeAddr()), "GET", "http://auditor/livez"); got.code != 200 {
		t.Errorf("a probe beside a crowd: %d", got.code)
	}
	answered := make(chan error, 1)
	go func() {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			defer func() { _ = conn.Close() }()
			_, err = fmt.Fprint(conn, "GET /version HTTP/1.0\r\n\r\n")
		}
		if err == nil {
			_, err = io.ReadAll(conn)
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("answered above the cap: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for _, conn := range idle {
		_ = conn.Close()
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// An answer under way when the auditor is told to stop is given.
func TestStopLetsAnswersFinish(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	s, err := New(Options{Addr: "127.0.0.1:0", Statuses: showing(healthy()), Immudb: func(ctx context.Context) error {
		close(asked)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	answered := make(chan int, 1)
	go func() {
		resp, err := tcp(s.Addr()).Get("http://auditor/initz")
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-asked
	cancel()
	eventually(t, "no new connections", func() bool {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	if code := <-answered; code != 200 {
		t.Errorf("answered %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Stopping waits for answers under way, but not longer than three seconds.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	s, err := New(Options{Addr: "127.0.0.1:0", Statuses: showing(healthy()), Immudb: immudbUp})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	get(t, s, "/livez")
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "GET /version HTTP/1.1\r\n"); err != nil { // and no more
		t.Fatal(err)
	}
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > shutdownGrace+time.Second {
		t.Errorf("stopping took %s", took)
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("still listening")
	}
}

// Ended before it began, it leaves no listener.
func TestRunWithEndedContext(t *testing.T) {
	t.Parallel()
	s, err := New(Options{Addr: "127.0.0.1:0", Statuses: showing(healthy()), Immudb: immudbUp, ProbeSocket: socketPath(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("still listening")
	}
}

package wire

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func loopback() []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback} }

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options Options
		says    string
	}{
		"no address":      {Options{}, "host:port"},
		"no port":         {Options{Address: "localhost"}, "127.0.0.1:3322"},
		"no host":         {Options{Address: ":3322"}, "host"},
		"port 0":          {Options{Address: "localhost:0"}, "between 1 and 65535"},
		"port 65536":      {Options{Address: "localhost:65536"}, "between 1 and 65535"},
		"a named port":    {Options{Address: "localhost:http"}, "between 1 and 65535"},
		"a host too long": {Options{Address: strings.Repeat("x", 256) + ":3322"}, "host"},
		"control":         {Options{Address: "a\x00b:3322"}, "host"},
		"bare IPv6":       {Options{Address: "::1:3322"}, "host:port"},
		"tiny messages":   {Options{Address: "localhost:3322", MaxRecvMsgSize: 100}, "--max-recv-msg-size"},
		"negative":        {Options{Address: "localhost:3322", MaxRecvMsgSize: -1}, "--max-recv-msg-size"},
		"huge messages":   {Options{Address: "localhost:3322", MaxRecvMsgSize: 1<<30 + 1}, "--max-recv-msg-size"},
		"no time":         {Options{Address: "localhost:3322", CallTimeout: -1}, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := New(tt.options); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error that mentions %q", err, tt.says)
			}
		})
	}
	for _, address := range []string{"localhost:3322", "[::1]:3322", "[fe80::1%eth0]:3322", "ledger.example:65535"} {
		c, err := New(Options{Address: address})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if target, err := url.Parse(c.conn.Target()); err != nil || target.Path != "/"+address {
			t.Errorf("%s is dialled as %s, %v", address, target, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A server that is down is seen at once, and again soon after it is back.
func TestServerDown(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	s.stop()
	c := dial(t, s.addr)
	for range 3 {
		start := time.Now()
		_, err := c.CurrentState(t.Context(), "db0")
		wantFault(t, err, Unreachable, s.addr, "connection refused", "--immudb-address")
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("a refused connection took %s", took)
		}
	}
	s.start(t, s.addr)
	start := time.Now()
	eventually(t, func() error { _, err := c.CurrentState(t.Context(), "db0"); return err })
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("seen %s after it was back", took)
	}
	if got := c.Stats().Logins; got < 1 || s.called("Login") != 1 {
		t.Errorf("%d logins reached the server", s.called("Login"))
	}
}

func TestUnknownHost(t *testing.T) {
	t.Parallel()
	c := dial(t, "ledger.invalid:3322")
	_, err := c.CurrentState(t.Context(), "db0")
	wantFault(t, err, Unreachable)
}

// Proxies of the environment are for browsing, not for auditing. Go reads them
// once per process, hence the second one.
func TestNoProxy(t *testing.T) {
	t.Parallel()
	const inside = "IMMUAUDIT_TEST_PROXIED"
	if os.Getenv(inside) != "" {
		c := dial(t, "ledger.invalid:3322")
		_, err := c.CurrentState(t.Context(), "db0")
		wantFault(t, err, Unreachable)
		return
	}
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := proxy.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			conn.Close()
		}
	})
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoProxy$")
	cmd.Env = append(os.Environ(), inside+"=1", "NO_PROXY=", "HTTPS_PROXY=http://"+proxy.Addr().String(), "HTTP_PROXY=http://"+proxy.Addr().String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	proxy.Close()
	group.Wait()
	if asked.Load() != 0 {
		t.Error("the proxy of the environment was asked")
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	c, err := New(Options{Address: s.addr, Username: "immudb", Password: "immudb"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CurrentState(t.Context(), "db0"); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = c.CurrentState(t.Context(), "db0")
	wantFault(t, err, Unreachable)
}

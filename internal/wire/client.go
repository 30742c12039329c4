// Package wire is the client of one immudb server: it connects, logs in, holds
// a token per database, asks, bounds and decodes what comes back into the types
// of package proof. It judges nothing: an answer is given as it was said, and
// what could not be had is a [*Fault] with a reason.
//
// A server is hostile until proven otherwise, so every method returns within
// [Options].CallTimeout and every answer is bounded in bytes, in elements and
// field by field. No answer may be compressed, no proxy is used, and the text
// of a server is quoted wherever it is shown.
//
//	c, err := wire.New(wire.Options{Address: "127.0.0.1:3322", Username: "immudb", Password: "immudb"})
//	…
//	defer c.Close()
//	state, err := c.CurrentState(ctx, "defaultdb")
//
// # Tokens
//
// The client logs in once, asks UseDatabase for a token per database, and never
// logs out, because servers before 1.11.0 then end every token of that user
// (docs/protocol.md §1). A token holds the index of a database rather than its
// name, so it may come to point at another one. That is why a token is dropped
// after every error that does not speak of a transaction (see [Client.Binding])
// and why the name in an answer is for the caller to compare.
package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// Options say which server to talk to, and how.
type Options struct {
	Address            string // host:port
	TLS                TLSOptions
	Username, Password string
	MaxRecvMsgSize     int           // bytes of one answer; 0 is 4 MiB
	CallTimeout        time.Duration // deadline of every method, logging in included; 0 is 10 s
	Logger             *slog.Logger  // nil logs nothing
}

// Client talks to one server. Its methods may be called concurrently.
type Client struct {
	address            string
	username, password string
	maxRecv            int
	timeout            time.Duration
	log                *slog.Logger
	conn               *grpc.ClientConn
	tls                bool

	shown   *certificate
	uuid    atomic.Pointer[string]
	traffic traffic
	calls   map[string]*atomic.Uint64 // by method; the keys never change
	logins  atomic.Uint64
	flying  atomic.Int64

	// Set before the first call, shorter in tests.
	freshLogin time.Duration
	logInPace  *rate.Limiter

	mu       sync.Mutex // guards what follows; never held during a call
	current  *login
	attempt  *attempt
	refused  refusal
	ledgers  map[string]*ledger
	bindings uint64 // the number of the newest binding
	sessions uint64 // the generation of the newest login
}

// New checks the options and loads certificates. It does not connect: a server
// that is down is a matter of the calls, and comes back by itself.
func New(o Options) (*Client, error) {
	host, err := checkAddress(o.Address)
	if err != nil {
		return nil, err
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	maxRecv, err := checkMaxRecv(o.MaxRecvMsgSize)
	if err != nil {
		return nil, err
	}
	timeout := o.CallTimeout
	if timeout == 0 {
		timeout = defaultCallTimeout
	}
	if timeout < 0 {
		return nil, fmt.Errorf("the call timeout %s is negative; give a positive one", timeout)
	}
	creds, err := o.TLS.credentials(host, time.Now(), log)
	if err != nil {
		return nil, err
	}
	shown := new(certificate)
	// passthrough leaves looking up the name to every attempt to connect; the
	// dns resolver would remember addresses for half a minute.
	target := url.URL{Scheme: "passthrough", Path: "/" + o.Address}
	conn, err := grpc.NewClient(target.String(),
		grpc.WithTransportCredentials(witness{creds, shown}),
		// An auditor looks at the server itself, not at what HTTPS_PROXY
		// happens to name.
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithUserAgent("immuaudit"),
		grpc.WithMaxHeaderListSize(maxHeaderList),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: reconnectFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMost},
			MinConnectTimeout: min(connectTimeout, timeout),
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxRecv),
			grpc.ForceCodecV2(codec{}),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", o.Address, err)
	}
	return &Client{
		address:    o.Address,
		username:   o.Username,
		password:   o.Password,
		maxRecv:    maxRecv,
		timeout:    timeout,
		log:        log,
		conn:       conn,
		tls:        o.TLS.Enabled || o.TLS.Mutual,
		shown:      shown,
		calls:      callCounters(),
		freshLogin: freshLogin,
		logInPace:  rate.NewLimiter(rate.Every(loginEvery), loginBurst),
		refused:    newRefusal(refusedFirst, refusedMost),
		ledgers:    make(map[string]*ledger),
	}, nil
}

// Close ends the connection. Tokens are left to expire: see the package
// comment for why there is no Logout.
func (c *Client) Close() error { return c.conn.Close() }

// UUID is what the server called itself in its newest answer, "" before the
// first. It is information, never an identity (CVE-2022-39199).
func (c *Client) UUID() string {
	if id := c.uuid.Load(); id != nil {
		return *id
	}
	return ""
}

// deadline bounds one method, whatever number of calls it needs.
func (c *Client) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}

func checkAddress(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("the server address %q is not host:port: %w; give for example 127.0.0.1:3322", address, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("the server address %q has no port between 1 and 65535; immudb listens on 3322 unless told otherwise", address)
	}
	if host == "" || len(host) > 255 || !printable(host) {
		return "", fmt.Errorf("the server address %q has no usable host; give for example 127.0.0.1:3322", address)
	}
	return host, nil
}

func checkMaxRecv(size int) (int, error) {
	switch {
	case size == 0:
		return defaultMaxRecv, nil
	case size < minMaxRecv:
		return 0, fmt.Errorf("a limit of %d bytes for one answer is too small to audit with; give --max-recv-msg-size at least %d", size, minMaxRecv)
	case size > limitMaxRecv:
		return 0, errors.New("a limit of more than 1 GiB for one answer is no limit; give a smaller --max-recv-msg-size")
	}
	return size, nil
}

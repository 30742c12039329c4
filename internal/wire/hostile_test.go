package wire

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
)

// frames is a server that knows HTTP/2 and no manners: it logs everybody in and
// answers CurrentState with whatever the test writes.
func frames(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		switch r.URL.Path {
		case schema.ImmuService_Login_FullMethodName:
			finish(w, frame(0, encode(t, &schema.LoginResponse{Token: "hidden-token"})), "0", "")
		case schema.ImmuService_UseDatabase_FullMethodName:
			finish(w, frame(0, encode(t, &schema.UseDatabaseReply{Token: "hidden-token"})), "0", "")
		default:
			answer(w, r)
		}
	})}
	var group sync.WaitGroup
	group.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		server.Close()
		group.Wait()
	})
	return listener.Addr().String()
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	text, err := proto.Marshal(m)
	if err != nil {
		t.Error(err)
	}
	return text
}

// frame puts gRPC's prefix before a message.
func frame(compressed byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(message))), message...)
}

func finish(w http.ResponseWriter, body []byte, code, message string) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Write(body)
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", code)
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", url.PathEscape(message))
}

func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	good := encode(t, &schema.ImmutableState{Db: "db0", TxId: 1, TxHash: make([]byte, 32)})
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	zip.Write(good)
	zip.Close()

	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		kind   string
		says   string
	}{
		"a compressed message": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Grpc-Encoding", "gzip")
			finish(w, frame(1, packed.Bytes()), "0", "")
		}, Malformed, "gzip"},
		"compressed with nothing": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, frame(1, good), "0", "")
		}, Malformed, "compressed"},
		"a message of 4 GiB": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, []byte{0, 255, 255, 255, 255, 'x'}, "0", "")
		}, TooLarge, "--max-recv-msg-size"},
		"a message that never ends": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Write([]byte{0, 0, 16, 0, 0})
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte{8}); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-time.After(10 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		}, Timeout, ""},
		"messages without end": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			for r.Context().Err() == nil {
				if _, err := w.Write(frame(0, good)); err != nil {
					return
				}
			}
		}, Malformed, ""},
		"no answer at all": {func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, Timeout, ""},
		"no message": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, nil, "0", "")
		}, Malformed, ""},
		"half a message": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, frame(0, good)[:10], "0", "")
		}, Malformed, ""},
		"not protobuf": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, frame(0, bytes.Repeat([]byte{0xff}, 100)), "0", "")
		}, Malformed, "malformed answer"},
		"text that is not UTF-8": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, frame(0, []byte{0x0a, 1, 0xff}), "0", "")
		}, Malformed, "malformed answer"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Write([]byte{0, 0, 0, 1, 0, 8})
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, Unreachable, "RST_STREAM"},
		"a web page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<h1>It works!</h1>")
		}, Malformed, "gRPC port"},
		"a web page that is not there": {http.NotFound, Malformed, "gRPC port"},
		"a gateway": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		}, Unreachable, "502"},
		"a thousand headers": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range 1000 {
				w.Header().Set(fmt.Sprint("Waste-", i), strings.Repeat("x", 100))
			}
			finish(w, frame(0, good), "0", "")
		}, Malformed, "PROTOCOL_ERROR"},
		"somewhat too many headers": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range 500 {
				w.Header().Set(fmt.Sprint("Waste-", i), strings.Repeat("x", 100))
			}
			finish(w, frame(0, good), "0", "")
		}, Malformed, "header list"},
		"a header of 1 MiB": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Immudb-Uuid", strings.Repeat("x", 1<<20))
			finish(w, frame(0, good), "0", "")
		}, Malformed, "COMPRESSION_ERROR"},
		"a long error": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, nil, "2", strings.Repeat("€", 5000))
		}, Refused, "€…"},
		"an error for terminals": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, nil, "2", "\x1b[2J\r\nlevel=INFO msg=consistent")
		}, Refused, `\x1b[2J\r\nlevel`},
		"an error that repeats secrets": {func(w http.ResponseWriter, r *http.Request) {
			finish(w, nil, "2", "bad "+r.Header.Get("Authorization")+" or hidden-password "+strings.Repeat("x", 200)+" hidden-password")
		}, Refused, "(secret)"},
		"an unknown code": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, nil, "4711", "what")
		}, Refused, "what"},
		"a code that is no number": {func(w http.ResponseWriter, _ *http.Request) {
			finish(w, nil, "fine", "")
		}, Malformed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, frames(t, tt.answer), func(o *Options) {
				o.Password = "hidden-password"
				if tt.kind == Timeout {
					o.CallTimeout = time.Second
				}
			})
			start := time.Now()
			_, err := c.CurrentState(t.Context(), "db0")
			f := wantFault(t, err, tt.kind, tt.says)
			if took := time.Since(start); tt.kind == Timeout && took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			if text := f.Error(); strings.Contains(text, "hidden") || !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\r\n") {
				t.Errorf("text: %q", text)
			}
			if len(f.Message) > maxMessage {
				t.Errorf("kept %d bytes of text", len(f.Message))
			}
			if got := c.Stats().InFlight; got != 0 {
				t.Errorf("%d calls in flight", got)
			}
		})
	}
}

// Listeners that are no HTTP/2 servers.
func TestHostileConnections(t *testing.T) {
	t.Parallel()
	for name, greet := range map[string]func(net.Conn){
		"silent":       func(net.Conn) {},
		"talkative":    func(conn net.Conn) { conn.Write(bytes.Repeat([]byte("SSH-2.0-OpenSSH_9.6\r\n"), 100)) },
		"short of it":  func(conn net.Conn) { conn.Close() },
		"only a start": func(conn net.Conn) { conn.Write([]byte{0, 0, 0, 4, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var group sync.WaitGroup
			group.Go(func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					group.Go(func() {
						defer conn.Close()
						greet(conn)
						io.Copy(io.Discard, conn) // until the client gives up
					})
				}
			})
			c, err := New(Options{Address: listener.Addr().String(), CallTimeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = c.CurrentState(t.Context(), "db0")
			wantFault(t, err, Unreachable)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			c.Close()
			listener.Close()
			group.Wait()
		})
	}
}

// What the caller cancels is not the server's fault, what takes too long is.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "db0")
	s.answer("CurrentState", hang)
	c := dial(t, s.addr, func(o *Options) { o.CallTimeout = 200 * time.Millisecond })
	_, err := c.CurrentState(t.Context(), "db0")
	f := wantFault(t, err, Timeout)
	if !errors.Is(err, context.DeadlineExceeded) || f.Code != codes.DeadlineExceeded {
		t.Errorf("%v with code %s", err, f.Code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.CurrentState(ctx, "db0")
	wantFault(t, err, Timeout)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = c.CurrentState(ctx, "db0")
	if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("%v, want context.Canceled and no fault", err)
	}
	// The token outlives all of it.
	if c.Binding("db0") == 0 || c.Stats().Logins != 1 {
		t.Errorf("binding %d, %d logins", c.Binding("db0"), c.Stats().Logins)
	}
}

package wire

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/proof"
)

// Every error of docs/protocol.md §1, and what it is taken for.
func TestReasons(t *testing.T) {
	t.Parallel()
	c := &Client{address: "localhost:3322"}
	for _, tt := range []struct {
		code codes.Code
		text string
		kind string
		sign sign
	}{
		{codes.Unknown, "not logged in", Unauthorised, signStale},
		{codes.Unknown, "invalid user name or password", Unauthorised, signLogin},
		{codes.Unknown, "please select a database first", Unauthorised, signSelect},
		{codes.Internal, "invalid token", Unauthorised, signStale},
		{codes.Unauthenticated, "token has expired", Unauthorised, signStale},
		{codes.PermissionDenied, "please login", Unauthorised, signStale},
		{codes.PermissionDenied, "session not found", Unauthorised, signStale},
		{codes.PermissionDenied, "Logged in user does not have permission on this database", Unauthorised, signNone},
		{codes.Internal, "permission denied", Unauthorised, signNone},
		{codes.Unauthenticated, "", Unauthorised, signStale},
		{codes.NotFound, "'x' does not exist", Refused, signNone},
		{codes.Unknown, "database does not exist", Refused, signGone},
		{codes.Unknown, "already closed", NotLoaded, signNone},
		{codes.InvalidArgument, "illegal arguments", Refused, signNone},
		{codes.Unknown, "tx not found", TxNotFound, signTx},
		{codes.Unknown, "illegal state: latest txID=5 is lower than specified as initial tx=6", TxNotFound, signTx},
		{codes.Unknown, "tx data is corrupted: binary linking mismatch at tx 5", Refused, signTx},
		{codes.Unknown, "data is corrupted: value length or digest mismatch", Refused, signTx},
		{codes.Unknown, "result size limit exceeded: the specified limit", TooLarge, signTx},
		{codes.Unknown, "EOF", Refused, signTx},
		{codes.Unknown, "corrupted data", Refused, signTx},
		{codes.Unknown, "key not found", Refused, signTx},
		{codes.Unknown, "max concurrency limit exceeded", Overloaded, signNone},
		{codes.Unavailable, "max concurrency limit exceeded", Overloaded, signNone},
		{codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)", TooLarge, signTx},
		{codes.ResourceExhausted, "slow down", Overloaded, signNone},
		{codes.Unknown, "authentication is disabled on server", Unauthorised, signAuthOff},
		{codes.Unimplemented, "unknown method CurrentState", Refused, signNone},
		{codes.Internal, "grpc: failed to unmarshal the received message", Malformed, signNone},
		// A firewall refuses a connection in the words of a missing permission.
		{codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.1:3322: connect: permission denied"`, Unreachable, signNone},
		{codes.Unavailable, "error reading from server: EOF", Unreachable, signNone},
		{codes.Canceled, "grpc: the client connection is closing", Unreachable, signNone},
		{codes.Canceled, "stream terminated by RST_STREAM with error code: CANCEL", Unreachable, signNone},
		{codes.DeadlineExceeded, "context deadline exceeded", Timeout, signNone},
		{codes.DeadlineExceeded, "context deadline exceeded while waiting for connections to become ready", Unreachable, signNone},
	} {
		f := c.explain(context.Background(), "CurrentState", "db0", "", status.Error(tt.code, tt.text))
		if f.Kind != tt.kind || f.sign != tt.sign {
			t.Errorf("%s %q: got %s, sign %d, want %s, sign %d", tt.code, tt.text, f.Kind, f.sign, tt.kind, tt.sign)
		}
	}
}

func TestFaultText(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]*Fault{
		`calling CurrentState for database "db0" at localhost:3322: unreachable: "dial tcp 127.0.0.1:3322: connect: connection refused"; check that immudb runs there, and --immudb-address and --immudb-port`: {
			Kind: Unreachable, Op: "CurrentState", DB: "db0", Server: "localhost:3322", Code: codes.Unavailable, Message: "dial tcp 127.0.0.1:3322: connect: connection refused",
		},
		`calling Login at localhost:3322: unauthorised: the answer is Unknown "invalid user name or password"; check`: {
			Kind: Unauthorised, Op: "Login", Server: "localhost:3322", Code: codes.Unknown, Message: "invalid user name or password", hint: "check",
		},
		`calling TxScan for database "db0" at localhost:3322: malformed txHash: 31 bytes; check that this is immudb's gRPC port and nothing rewrites the traffic`: {
			Kind: Malformed, Op: "TxScan", DB: "db0", Server: "localhost:3322", Err: &proof.Malformed{What: "txHash", Why: "31 bytes"},
		},
		`calling Health at localhost:3322: timeout: context deadline exceeded; look at the load of the server and the network between`: {
			Kind: Timeout, Op: "Health", Server: "localhost:3322", Code: codes.DeadlineExceeded, Err: context.DeadlineExceeded,
		},
	} {
		if got := f.Error(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	var malformed *proof.Malformed
	if f := (&Client{}).malformed("TxScan", "db0", errors.New("x")); !errors.As(f.asError(), &malformed) {
		t.Errorf("%v does not carry *proof.Malformed", f)
	}
	if err := (*Fault)(nil).asError(); err != nil {
		t.Errorf("no fault is %v", err)
	}
	if got := bounded("€€" + string(make([]byte, 300))); len(got) > maxMessage {
		t.Errorf("%d bytes", len(got))
	}
}

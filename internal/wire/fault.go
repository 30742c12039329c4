package wire

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"immuaudit/proof"
)

// The reasons of a [Fault].
const (
	Unreachable  = "unreachable"  // no connection, or it broke
	Timeout      = "timeout"      // connected, and no answer in time
	Unauthorised = "unauthorised" // login, token or permission refused
	NotLoaded    = "not-loaded"   // the database exists but is not open
	NotFound     = "not-found"    // UseDatabase by name with a fresh login: no such database
	Malformed    = "malformed"    // cannot be decoded, or breaks a bound
	TooLarge     = "too-large"    // does not fit Options.MaxRecvMsgSize
	Overloaded   = "overloaded"   // the server turns requests away
	TxNotFound   = "tx-not-found" // the server has no such transaction
	Refused      = "refused"      // any other error the server answered with
)

// Fault is an answer that could not be had. Its Kind was chosen from what the
// server says, so it never proves anything against it or for it.
type Fault struct {
	Kind    string     // one of the reasons
	Op      string     // the call, as the protocol names it: "CurrentState"
	DB      string     // "" where the call concerns the server as a whole
	Server  string     // host:port
	Code    codes.Code // of the answer, codes.OK where there was none
	Message string     // text of the server or of the connection, at most 256 bytes; not to be shown unquoted
	Err     error      // the cause, where it is one of this program: *proof.Malformed, context.DeadlineExceeded

	sign sign
	hint string
}

// Reason is Kind, for those who know a fault by its reason alone.
func (f *Fault) Reason() string { return f.Kind }

// LoginRefused reports whether the credentials were refused, rather than what
// was asked for with them.
func (f *Fault) LoginRefused() bool { return f.sign == signLogin }

// Unwrap gives the cause, if it is one of this program.
func (f *Fault) Unwrap() error { return f.Err }

func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString("calling " + f.Op)
	if f.DB != "" {
		b.WriteString(" for database " + strconv.Quote(f.DB))
	}
	b.WriteString(" at " + f.Server + ": ")
	if f.Kind != Malformed || f.Err == nil { // which says so itself
		b.WriteString(f.Kind)
	}
	if f.Err != nil {
		if f.Kind != Malformed {
			b.WriteString(": ")
		}
		b.WriteString(f.Err.Error())
	}
	if f.Message != "" {
		b.WriteString(": ")
		if f.Code != codes.OK && f.Code != codes.Unavailable {
			b.WriteString("the answer is " + f.Code.String() + " ")
		}
		b.WriteString(strconv.Quote(f.Message))
	}
	hint := f.hint
	if hint == "" {
		hint = hints[f.Kind]
	}
	if hint != "" {
		b.WriteString("; " + hint)
	}
	return b.String()
}

// hints end a fault's text: what the operator can do.
var hints = map[string]string{
	Unreachable:  "check that immudb runs there, and --immudb-address and --immudb-port",
	Timeout:      "look at the load of the server and the network between",
	Unauthorised: "check --audit-username and --audit-password, and that this user may read the database",
	NotLoaded:    "load the database on the server, or leave it out of --audit-databases",
	NotFound:     "if it was not meant to go, find out who deleted or renamed it",
	Malformed:    "check that this is immudb's gRPC port and nothing rewrites the traffic",
	TooLarge:     "raise --max-recv-msg-size",
	Overloaded:   "raise the request limit of the server or audit less often",
	TxNotFound:   "compare with the current state of the database",
	Refused:      "see the log of the server",
}

// sign is what an error tells the client to do, beside what it tells the caller.
type sign int

const (
	signNone      sign = iota
	signStale          // the token is not, or no longer, accepted: log in again
	signSelect         // the token is bound to no database
	signGone           // the database behind the token does not exist
	signAuthOff        // the server runs without authentication
	signLogin          // user or password refused
	signTx             // it is about a transaction: the token did reach the database
	signCancelled      // the caller does not want the answer any more
)

const tooBusy = "max concurrency limit exceeded"

// texts are the errors of servers 1.0 to 1.11 that matter to the client
// (docs/protocol.md §1). Most come with code Unknown, and none of the texts is
// promised to stay, so that whatever is not found here falls back on its code.
var texts = [...]struct {
	text string // in lower case
	kind string
	sign sign
}{
	{"authentication is disabled", Unauthorised, signAuthOff},
	{"invalid user name or password", Unauthorised, signLogin},
	{"please select a database", Unauthorised, signSelect},
	{"not logged in", Unauthorised, signStale},
	{"invalid token", Unauthorised, signStale},
	{"token has expired", Unauthorised, signStale},
	{"please login", Unauthorised, signStale},
	{"session not found", Unauthorised, signStale},
	{"does not have permission", Unauthorised, signNone},
	{"permission denied", Unauthorised, signNone},
	{"database does not exist", Refused, signGone},
	{"already closed", NotLoaded, signNone},
	{tooBusy, Overloaded, signNone},
	{"result size limit exceeded", TooLarge, signTx},
	{"tx not found", TxNotFound, signTx},
	{"is lower than specified as initial tx", TxNotFound, signTx},
	{"binary linking mismatch", Refused, signTx},
	{"corrupted", Refused, signTx},
	{"key not found", Refused, signTx},
}

// connections are the troubles of a connection that an operator can mend, by
// the words that Go's own libraries have for them.
var connections = [...]struct{ text, hint string }{
	{"certificate signed by unknown authority", "give the authority that signed the server's certificate as --clientcas"},
	{"certificate is valid for", "give one of the names in the server's certificate as --servername"},
	{"certificate is not valid for any names", "give the server a certificate with a subject alternative name"},
	{"legacy common name", "give the server a certificate with a subject alternative name"},
	{"cannot validate certificate for", "give the name in the server's certificate as --servername"},
	{"certificate has expired or is not yet valid", "renew the server's certificate, or correct the clock here"},
	{"failed to verify certificate", "check the server's certificate against --clientcas and --servername"},
	{"first record does not look like a tls handshake", "the server speaks plaintext: leave out --tls and --mtls, or turn TLS on there"},
	{"remote error: tls", mutualHint},
	{"no such host", "check the name in --immudb-address"},
}

// mutualHint is for a server that refuses the handshake, or ends it in silence.
const mutualHint = "if the server wants a client certificate, give --mtls with --certificate and --pkey signed by its authority; else check that it is up"

// plaintextHint is for a connection that ends before its first frame.
const plaintextHint = "the connection ends at once: if the server wants TLS, give --tls or --mtls; else check --immudb-address and --immudb-port"

// explain turns the error of a call into a fault. ctx is the call's own.
func (c *Client) explain(ctx context.Context, op, db, token string, err error) *Fault {
	f := c.fault(Refused, op, db)
	st := status.Convert(err)
	f.Code = st.Code()
	f.Message = bounded(c.withoutSecrets(stripTransport(st.Message()), token))
	lower := strings.ToLower(st.Message())

	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return c.cancelled(op, db, ctx.Err())
	case f.Code == codes.DeadlineExceeded && noConnection(lower):
		f.Kind, f.hint = Unreachable, c.connectionHint(lower)
		return f
	case ctx.Err() != nil || f.Code == codes.DeadlineExceeded:
		f.Kind, f.Err, f.Message = Timeout, context.DeadlineExceeded, ""
		f.Code = codes.DeadlineExceeded
		return f
	case strings.Contains(lower, "rst_stream"):
		// The stream was reset in mid-answer; the code is a mere translation
		// of the HTTP/2 error and would mislead (CANCEL, ENHANCE_YOUR_CALM).
		f.Kind = Unreachable
		return f
	case f.Code == codes.Unavailable && !strings.Contains(lower, tooBusy):
		// Before the texts: "permission denied" is also what a firewall says.
		f.Kind, f.hint = Unreachable, c.connectionHint(lower)
		if brokeProtocol(lower) {
			f.Kind, f.hint = Malformed, ""
		}
		return f
	}
	for _, known := range texts {
		if strings.Contains(lower, known.text) {
			f.Kind, f.sign = known.kind, known.sign
			return f
		}
	}
	if endOfFile(lower) {
		f.sign = signTx
		return f
	}
	switch f.Code {
	case codes.Canceled: // and not by the caller: the connection was closed
		f.Kind = Unreachable
	case codes.Unauthenticated, codes.PermissionDenied:
		f.Kind, f.sign = Unauthorised, signStale
	case codes.ResourceExhausted:
		f.Kind = Overloaded
		if strings.Contains(lower, "larger than max") {
			f.Kind, f.sign = TooLarge, signTx
		}
	case codes.Internal, codes.Unknown, codes.Unimplemented:
		if notGRPC(lower) {
			f.Kind = Malformed
		}
	}
	return f
}

func (c *Client) fault(kind, op, db string) *Fault {
	return &Fault{Kind: kind, Op: op, DB: db, Server: c.address}
}

func (c *Client) cancelled(op, db string, cause error) *Fault {
	f := c.fault(Timeout, op, db)
	f.sign, f.Err = signCancelled, cause
	return f
}

// malformed is an answer that could not be decoded or breaks a bound.
func (c *Client) malformed(op, db string, err error) *Fault {
	f := c.fault(Malformed, op, db)
	var m *proof.Malformed
	if !errors.As(err, &m) {
		m = &proof.Malformed{What: "answer", Why: bounded(err.Error())}
	}
	f.Err = m
	return f
}

// asError is what a caller sees of f: what the caller cancelled is no fault of
// the server.
func (f *Fault) asError() error {
	switch {
	case f == nil:
		return nil
	case f.sign == signCancelled:
		return fmt.Errorf("calling %s: %w", f.Op, f.Err)
	default:
		return f
	}
}

// connectionHint finds what can be done about a connection.
func (c *Client) connectionHint(lower string) string {
	for _, known := range connections {
		if strings.Contains(lower, known.text) {
			return known.hint
		}
	}
	early := strings.Contains(lower, "error reading server preface")
	switch {
	case early && !c.tls:
		return plaintextHint
	case c.tls && (early || strings.Contains(lower, "broken pipe") || strings.Contains(lower, "connection reset")):
		// In TLS 1.3 the client has finished by the time the server looks at
		// its certificate, and may find the connection closed before it reads
		// the alert that says why.
		return mutualHint
	}
	return ""
}

// noConnection knows a deadline that passed before there was a connection.
func noConnection(lower string) bool {
	return strings.Contains(lower, "waiting for connections to become ready") || strings.Contains(lower, "latest balancer error")
}

// brokeProtocol knows a connection that was given up because of what came over
// it, such as header fields without end.
func brokeProtocol(lower string) bool {
	for _, code := range [...]string{"protocol_error", "compression_error", "frame_size_error", "flow_control_error"} {
		if strings.Contains(lower, "error reading from server: connection error: "+code) {
			return true
		}
	}
	return false
}

// notGRPC knows the errors that gRPC itself makes of an answer it cannot read.
// A server could write them too; it would gain nothing.
func notGRPC(lower string) bool {
	for _, text := range [...]string{
		"grpc: ", "transport: ", "unexpected http status", "cardinality violation", "peer header list size",
		"unexpected eof", "server closed the stream without sending trailers", "frame cannot appear", "malformed header",
	} {
		if strings.Contains(lower, text) {
			return true
		}
	}
	return false
}

// stripTransport takes off what gRPC wraps around the error of a connection.
func stripTransport(text string) string {
	text = strings.TrimPrefix(text, "latest balancer error: ")
	text = strings.TrimPrefix(text, `connection error: desc = "`)
	text = strings.TrimPrefix(text, "transport: ")
	text = strings.TrimPrefix(text, "Error while dialing: ")
	return strings.TrimSuffix(text, `"`)
}

// bounded cuts text at maxMessage bytes, between characters.
func bounded(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxMessage {
		return text
	}
	cut := maxMessage - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// printable reports whether text can be shown as it is: no control, format or
// direction characters.
func printable(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

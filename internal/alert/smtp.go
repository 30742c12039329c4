package alert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
)

// How a mail server is spoken to.
const (
	StartTLS    = "starttls" // the default of smtp://
	ImplicitTLS = "implicit" // the default of smtps://
	NoTLS       = "none"     // in clear, and without credentials
)

// SMTPOptions describe where mail goes.
type SMTPOptions struct {
	Name               string
	URL                string // smtp://host[:587] or smtps://host[:465]
	Username, Password string
	From               string
	To                 []string
	TLS                string         // "" = what the URL says
	Roots              *x509.CertPool // nil: the system's
}

// SMTP sends mail to people.
type SMTP struct {
	name, address, host, security string
	username, password            string
	from                          *mail.Address
	to                            []*mail.Address
	roots                         *x509.CertPool
	secrets                       *strings.Replacer
}

var _ Batch = (*SMTP)(nil)

// NewSMTP checks the options; it connects to nothing.
func NewSMTP(o SMTPOptions) (*SMTP, error) {
	target, err := url.Parse(o.URL)
	if err != nil || target.Hostname() == "" || target.Opaque != "" || strings.Trim(target.Path, "/") != "" || target.RawQuery != "" {
		return nil, errors.New("the url cannot be read; write it as smtp://host:587 or smtps://host:465")
	}
	port, security := "587", StartTLS
	switch target.Scheme {
	case "smtp":
	case "smtps":
		port, security = "465", ImplicitTLS
	default:
		return nil, errors.New("the url must begin with smtp:// or smtps://; write it as smtp://host:587 or smtps://host:465")
	}
	switch o.TLS {
	case "":
	case StartTLS, ImplicitTLS, NoTLS:
		security = o.TLS
	default:
		return nil, fmt.Errorf("tls is %q; it is %s, %s or %s", o.TLS, StartTLS, ImplicitTLS, NoTLS)
	}
	if target.Port() != "" {
		port = target.Port()
	}
	s := &SMTP{
		name: o.Name, host: target.Hostname(), security: security, username: o.Username, password: o.Password, roots: o.Roots,
		address: net.JoinHostPort(target.Hostname(), port),
	}
	if user := target.User; user != nil {
		if o.Username != "" || o.Password != "" {
			return nil, errors.New("the url holds credentials, and others are given beside it; drop one of them")
		}
		s.username = user.Username()
		s.password, _ = user.Password()
	}
	switch {
	case (s.username == "") != (s.password == ""):
		return nil, errors.New("a username and a password belong together; give both or none")
	case s.username != "" && security == NoTLS:
		return nil, errors.New(`credentials are not sent in clear; set tls to "starttls" or "implicit", or give none`)
	}
	if s.from, err = mailbox(o.From); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	if len(o.To) == 0 {
		return nil, errors.New(`nobody would get the mail; set to = ["oncall@example.org"]`)
	}
	for _, address := range o.To {
		to, err := mailbox(address)
		if err != nil {
			return nil, fmt.Errorf("to: %w", err)
		}
		s.to = append(s.to, to)
	}
	s.secrets = redactor(s.username, s.password, nil)
	return s, nil
}

func mailbox(address string) (*mail.Address, error) {
	a, err := mail.ParseAddress(address)
	if err != nil || strings.ContainsFunc(a.Address, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("%q is no address for mail in ASCII; write it as name@example.org", address)
	}
	return a, nil
}

// Name is the sink's name in the outbox.
func (s *SMTP) Name() string { return s.name }

// Most is how many events one mail tells.
func (s *SMTP) Most() int { return maxBatch }

// Patience is how long the first event of a burst waits for others.
func (s *SMTP) Patience() time.Duration { return mailPause }

// Send sends one event.
func (s *SMTP) Send(ctx context.Context, e evidence.Event) error {
	return s.SendAll(ctx, []evidence.Event{e})
}

// SendAll sends one mail. Accepted is what the server took for at least one
// recipient; those it did not take it for are in a PartlyError.
func (s *SMTP) SendAll(ctx context.Context, events []evidence.Event) error {
	text, err := compose(s.from, s.to, events, time.Now())
	if err != nil {
		return fmt.Errorf("writing the mail: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	client, done, err := s.connect(ctx)
	if err != nil {
		return s.failed(ctx, "connecting to", err)
	}
	defer done()
	return s.deliver(ctx, client, text)
}

// connect gives a conversation in the security that was asked for, and never
// in a lesser one.
func (s *SMTP) connect(ctx context.Context) (client *smtp.Client, done func(), err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, nil, err
	}
	// What hangs is broken off with its context.
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	end := func() { release(); _ = conn.Close() }
	defer func() {
		if err != nil {
			end()
		}
	}()
	var spoken net.Conn = &bounded{conn, io.LimitReader(conn, maxDialogue)}
	secured := &tls.Config{ServerName: s.host, RootCAs: s.roots, MinVersion: tls.VersionTLS12}
	if s.security == ImplicitTLS {
		spoken = tls.Client(spoken, secured)
	}
	if client, err = smtp.NewClient(spoken, s.host); err != nil {
		return nil, nil, err
	}
	if err = client.Hello(ownName()); err != nil {
		return nil, nil, err
	}
	if s.security == StartTLS {
		if offered, _ := client.Extension("STARTTLS"); !offered {
			err = errors.New(`it offers no STARTTLS, and nothing is sent in clear; use smtps://, or set tls = "none" where that is meant`)
			return nil, nil, err
		}
		if err = client.StartTLS(secured); err != nil {
			return nil, nil, err
		}
	}
	if s.username != "" {
		err = s.login(client)
	}
	return client, end, err
}

// bounded is a connection on which somebody says a bounded amount.
type bounded struct {
	net.Conn
	from io.Reader
}

func (b *bounded) Read(p []byte) (int, error) { return b.from.Read(p) }

func ownName() string {
	name, err := os.Hostname()
	if err != nil || name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}) {
		return "localhost"
	}
	return name
}

func (s *SMTP) login(client *smtp.Client) error {
	if _, encrypted := client.TLSConnectionState(); !encrypted {
		return errors.New("credentials are not sent in clear") // not reached while the options are checked
	}
	_, offered := client.Extension("AUTH")
	switch methods := strings.Fields(strings.ToUpper(offered)); {
	case slices.Contains(methods, "PLAIN"):
		return client.Auth(smtp.PlainAuth("", s.username, s.password, s.host))
	case slices.Contains(methods, "LOGIN"):
		return client.Auth(&loginAuth{answers: []string{s.username, s.password}})
	default:
		return fmt.Errorf("it offers to log in by %q; PLAIN and LOGIN are known here", offered)
	}
}

// loginAuth is AUTH LOGIN: the server asks for the name, then for the password.
type loginAuth struct{ answers []string }

func (a *loginAuth) Start(*smtp.ServerInfo) (string, []byte, error) { return "LOGIN", nil, nil }

func (a *loginAuth) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	if len(a.answers) == 0 {
		return nil, errors.New("it asks for more than a name and a password")
	}
	answer := a.answers[0]
	a.answers = a.answers[1:]
	return []byte(answer), nil
}

func (s *SMTP) deliver(ctx context.Context, client *smtp.Client, text []byte) error {
	if err := client.Mail(s.from.Address); err != nil {
		return s.failed(ctx, "the sender "+s.from.Address+" at", err)
	}
	var refused []string
	var last error
	for _, to := range s.to {
		if err := client.Rcpt(to.Address); err != nil {
			last = s.failed(ctx, "the recipient "+to.Address+" at", err)
			refused = append(refused, last.Error())
		}
		if ctx.Err() != nil {
			return last
		}
	}
	if len(refused) == len(s.to) {
		return last
	}
	w, err := client.Data()
	if err == nil {
		if _, err = w.Write(text); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		failure := s.failed(ctx, "the text at", err)
		var answer *textproto.Error
		if errors.As(err, &answer) && answer.Code >= 500 {
			return &Refusal{Status: answer.Code, Quote: cut(s.secrets.Replace(answer.Msg), maxQuote), final: true}
		}
		return failure
	}
	_ = client.Quit() // it was accepted
	if len(refused) > 0 {
		return &PartlyError{Missed: cut(strings.Join(refused, "; "), maxErrorBytes)}
	}
	return nil
}

func (s *SMTP) failed(ctx context.Context, doing string, err error) error {
	if ended := context.Cause(ctx); ended != nil {
		return fmt.Errorf("%s %s: %w", doing, s.address, ended)
	}
	var answer *textproto.Error
	if errors.As(err, &answer) {
		return fmt.Errorf("%s %s: it answered %d %q", doing, s.address, answer.Code, cut(s.secrets.Replace(answer.Msg), maxQuote))
	}
	return redacted(doing+" "+s.address, err, s.secrets)
}

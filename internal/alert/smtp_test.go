package alert

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"immuaudit/evidence"
)

// mailServer is as much of a mail server as a client of one meets.
type mailServer struct {
	listener net.Listener
	config   *tls.Config
	roots    *x509.CertPool
	implicit bool
	starttls bool
	auth     string            // methods that are offered
	answers  map[string]string // instead of the good one, by verb or by recipient
	silent   bool              // takes connections and says nothing

	mu     sync.Mutex
	mails  []string
	login  string // name:password as received
	plain  bool   // something other than EHLO, HELO, STARTTLS and QUIT came in clear
	closed sync.WaitGroup
}

func startMail(t *testing.T, s *mailServer) *mailServer {
	t.Helper()
	certified := httptest.NewUnstartedServer(http.NotFoundHandler())
	certified.StartTLS()
	s.config = &tls.Config{Certificates: certified.TLS.Certificates}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(certified.Certificate())
	certified.Close()
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.closed.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.closed.Go(func() { defer conn.Close(); s.talk(conn) })
		}
	})
	t.Cleanup(func() { _ = s.listener.Close(); s.closed.Wait() })
	return s
}

func (s *mailServer) talk(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	secure := s.implicit
	if s.implicit {
		conn = tls.Server(conn, s.config)
	}
	if s.silent {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	r := bufio.NewReader(conn)
	say := func(text string) { _, _ = io.WriteString(conn, text+"\r\n") }
	say("220 test ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		if !secure && verb != "EHLO" && verb != "HELO" && verb != "STARTTLS" && verb != "QUIT" {
			s.mu.Lock()
			s.plain = true
			s.mu.Unlock()
		}
		if special, ok := s.answers[verb]; ok {
			say(special)
			continue
		}
		switch verb {
		case "EHLO":
			say("250-test")
			if s.starttls && !secure {
				say("250-STARTTLS")
			}
			if s.auth != "" {
				say("250-AUTH " + s.auth)
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go ahead")
			conn, secure = tls.Server(conn, s.config), true
			r = bufio.NewReader(conn)
		case "AUTH":
			method, initial, _ := strings.Cut(rest, " ")
			answer := func() string {
				line, _ := r.ReadString('\n')
				b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
				return string(b)
			}
			var login string
			if method == "LOGIN" {
				say("334 VXNlcm5hbWU6")
				name := answer()
				say("334 UGFzc3dvcmQ6")
				login = name + ":" + answer()
			} else {
				b, _ := base64.StdEncoding.DecodeString(initial)
				login = strings.ReplaceAll(strings.TrimPrefix(string(b), "\x00"), "\x00", ":")
			}
			s.mu.Lock()
			s.login = login
			s.mu.Unlock()
			if strings.HasSuffix(login, ":wrong") {
				say("535 no: " + login)
			} else {
				say("235 welcome")
			}
		case "RCPT":
			answer := "250 ok"
			for address, special := range s.answers {
				if address != "." && strings.Contains(rest, address) {
					answer = special
				}
			}
			say(answer)
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(line, "."))
			}
			s.mu.Lock()
			s.mails = append(s.mails, text.String())
			s.mu.Unlock()
			if special, ok := s.answers["."]; ok {
				say(special)
			} else {
				say("250 queued")
			}
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *mailServer) sink(t *testing.T, o SMTPOptions) *SMTP {
	t.Helper()
	scheme := "smtp"
	if s.implicit {
		scheme = "smtps"
	}
	o.Name, o.URL, o.From, o.Roots = "mail", scheme+"://"+s.listener.Addr().String(), "Auditor <auditor@example.org>", s.roots
	if o.To == nil {
		o.To = []string{"oncall@example.org"}
	}
	sink, err := NewSMTP(o)
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

// One of each way to be secured and to log in; what is hostile in the event
// gets nowhere.
func TestMailArrives(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server  *mailServer
		options SMTPOptions
		login   string
	}{
		"starttls, plain": {&mailServer{starttls: true, auth: "LOGIN PLAIN"}, SMTPOptions{Username: "watcher", Password: "hunter2"}, "watcher:hunter2"},
		"implicit, login": {&mailServer{implicit: true, auth: "LOGIN"}, SMTPOptions{Username: "watcher", Password: "hunter2"}, "watcher:hunter2"},
		"starttls":        {&mailServer{starttls: true}, SMTPOptions{}, ""},
		"clear":           {&mailServer{}, SMTPOptions{TLS: NoTLS}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startMail(t, test.server)
			if err := s.sink(t, test.options).Send(t.Context(), rich()); err != nil {
				t.Fatal(err)
			}
			if s.login != test.login || len(s.mails) != 1 || s.plain != (test.options.TLS == NoTLS) {
				t.Fatalf("login %q, %d mails, in clear %v", s.login, len(s.mails), s.plain)
			}
			checkMail(t, s.mails[0])
		})
	}
}

func checkMail(t *testing.T, raw string) {
	t.Helper()
	if strings.ContainsFunc(raw, func(r rune) bool { return r > '~' || r < ' ' && r != '\r' && r != '\n' }) {
		t.Errorf("not 7-bit text: %q", raw)
	}
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if want := "[immuaudit] TAMPERED (rollback): prod/eu 1/cust??Bcc: x@y?ömers"; err != nil || subject != want {
		t.Errorf("subject %q, want %q, %v", subject, want, err)
	}
	for header, want := range map[string]string{
		"Auto-Submitted": "auto-generated", "Bcc": "", "X-Immuaudit-Event": "tampered", "X-Immuaudit-Incident": "20261123-k7qd",
		"Content-Transfer-Encoding": "quoted-printable", "To": "<oncall@example.org>",
	} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	if _, err := m.Header.Date(); err != nil || !strings.HasSuffix(m.Header.Get("Message-ID"), "@example.org>") {
		t.Errorf("date: %v, Message-ID %q", err, m.Header.Get("Message-ID"))
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil || !strings.Contains(string(body), "immuclient incident show 20261123-k7qd") || !strings.Contains(string(body), "ömers") {
		t.Errorf("text %s, %v", body, err)
	}
}

// Nothing is sent less securely than was asked for, and no error holds a secret.
func TestMailIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server    *mailServer
		options   SMTPOptions
		says      string
		permanent bool
	}{
		"no STARTTLS":        {server: &mailServer{}, says: "STARTTLS"},
		"STARTTLS withheld":  {server: &mailServer{starttls: true, answers: map[string]string{"STARTTLS": "454 later"}}, says: "454"},
		"wrong password":     {server: &mailServer{starttls: true, auth: "PLAIN"}, options: SMTPOptions{Username: "watcher", Password: "wrong"}, says: "535"},
		"unknown methods":    {server: &mailServer{starttls: true, auth: "GSSAPI"}, options: SMTPOptions{Username: "watcher", Password: "wrong"}, says: "GSSAPI"},
		"no auth":            {server: &mailServer{starttls: true}, options: SMTPOptions{Username: "watcher", Password: "wrong"}, says: "log in"},
		"recipient":          {server: &mailServer{starttls: true, answers: map[string]string{"oncall@": "550 who?"}}, says: "550"},
		"text":               {server: &mailServer{starttls: true, answers: map[string]string{".": "554 spam"}}, says: "554", permanent: true},
		"busy":               {server: &mailServer{starttls: true, answers: map[string]string{"MAIL": "421 busy"}}, says: "421"},
		"an endless answer":  {server: &mailServer{starttls: true, answers: map[string]string{"EHLO": strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 1000) + "250 ok"}}, says: "EOF"},
		"an impossible text": {server: &mailServer{starttls: true, answers: map[string]string{"EHLO": "what?", "HELO": "what?"}}, says: "what?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startMail(t, test.server)
			err := s.sink(t, test.options).Send(t.Context(), rich())
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "watcher") {
				t.Errorf("%v", err)
			}
			var refusal *Refusal
			if errors.As(err, &refusal) != test.permanent || test.permanent && !refusal.Permanent() {
				t.Errorf("permanent: %v", err)
			}
			if s.plain {
				t.Error("something was sent in clear")
			}
		})
	}
	t.Run("unknown authority", func(t *testing.T) {
		t.Parallel()
		s := startMail(t, &mailServer{starttls: true})
		s.roots = nil
		if err := s.sink(t, SMTPOptions{}).Send(t.Context(), rich()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		s := startMail(t, &mailServer{silent: true})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := s.sink(t, SMTPOptions{}).Send(ctx, rich()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
	t.Run("for some", func(t *testing.T) {
		t.Parallel()
		s := startMail(t, &mailServer{starttls: true, answers: map[string]string{"gone@": "550 who?"}})
		err := s.sink(t, SMTPOptions{To: []string{"gone@example.org", "oncall@example.org"}}).Send(t.Context(), rich())
		var partly *PartlyError
		if !errors.As(err, &partly) || !strings.Contains(partly.Missed, "gone@example.org") || len(s.mails) != 1 {
			t.Errorf("%v, %d mails", err, len(s.mails))
		}
	})
}

func TestNewSMTPRefuses(t *testing.T) {
	t.Parallel()
	good := SMTPOptions{URL: "smtp://mx", From: "a@b", To: []string{"c@d"}}
	if _, err := NewSMTP(good); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*SMTPOptions){
		"smtp://host:587":  func(o *SMTPOptions) { o.URL = "mx:25" },
		"begin with":       func(o *SMTPOptions) { o.URL = "http://mx" },
		"is no address":    func(o *SMTPOptions) { o.From = "a@b\r\nBcc: x@y" },
		"nobody would get": func(o *SMTPOptions) { o.To = nil },
		"in clear":         func(o *SMTPOptions) { o.TLS, o.Username, o.Password = NoTLS, "u", "hunter2" },
		"belong together":  func(o *SMTPOptions) { o.Password = "hunter2" },
		"tls is":           func(o *SMTPOptions) { o.TLS = "ssl" },
	} {
		o := good
		change(&o)
		if _, err := NewSMTP(o); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// A digest names everything, tampering first, and has the same Message-ID each time.
func TestDigest(t *testing.T) {
	t.Parallel()
	s := startMail(t, &mailServer{starttls: true})
	var events []evidence.Event
	for n := range 5 {
		e := tampered(fmt.Sprint("db", n), n)
		if n < 3 {
			e.Type, e.Kind = evidence.EventFirstContact, ""
		}
		events = append(events, e)
	}
	for range 2 {
		if err := s.sink(t, SMTPOptions{}).SendAll(t.Context(), events); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := mail.ReadMessage(strings.NewReader(s.mails[0]))
	again, _ := mail.ReadMessage(strings.NewReader(s.mails[1]))
	if id := first.Header.Get("Message-ID"); id == "" || id != again.Header.Get("Message-ID") {
		t.Errorf("Message-ID %q, then %q", id, again.Header.Get("Message-ID"))
	}
	if got := first.Header.Get("Subject"); got != "[immuaudit] TAMPERED (fork): prod/db3, and 4 more" {
		t.Errorf("subject %q", got)
	}
	text, _ := io.ReadAll(quotedprintable.NewReader(first.Body))
	last := -1
	for _, db := range []string{"prod/db3", "prod/db4", "prod/db0", "prod/db1", "prod/db2"} {
		at := strings.Index(string(text), db)
		if at <= last {
			t.Errorf("%s is at %d, after %d: %s", db, at, last, text)
		}
		last = at
	}
}

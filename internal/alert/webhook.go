package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// WebhookOptions is what --audit-notification-url, -username and -password say.
type WebhookOptions struct {
	// Name is the sink's name in the outbox; empty means "webhook".
	Name string
	URL  string
	// Username and Password go into the body, as in the original. They are
	// added when sending and are never part of what is stored.
	Username string
	Password string
	// Version goes into the User-Agent.
	Version string
	// Transport is for tests and special networks. nil means a transport of its
	// own that verifies certificates against the system's roots and honours
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY: receivers often are outside, and
	// the way outside often is a proxy.
	Transport http.RoundTripper
}

// Webhook posts events in the shape of the original's notifications.
type Webhook struct {
	name      string
	target    *url.URL
	username  string
	password  string
	userAgent string
	client    *http.Client
	secrets   *strings.Replacer
}

var _ Sink = (*Webhook)(nil)

// NewWebhook checks the options; it connects to nothing.
func NewWebhook(o WebhookOptions) (*Webhook, error) {
	target, err := url.Parse(o.URL)
	if err != nil {
		// What the parser says quotes the address, password and all.
		return nil, errors.New("the notification URL cannot be read; write it as https://host/path (special characters in it percent-encoded)")
	}
	if (target.Scheme != "https" && target.Scheme != "http") || target.Host == "" {
		return nil, errors.New("the notification URL must begin with https:// or http:// and name a host; write it as https://host/path")
	}
	if o.Name == "" {
		o.Name = "webhook"
	}
	if o.Version == "" {
		o.Version = "unknown"
	}
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	return &Webhook{
		name:      o.Name,
		target:    target,
		username:  o.Username,
		password:  o.Password,
		userAgent: "immuaudit/" + o.Version,
		client: &http.Client{
			Transport: o.Transport,
			// The body holds credentials: it goes to the address that the
			// operator named and to no other (CWE-601, CWE-522).
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       tryTimeout,
		},
		secrets: redactor(o.Username, o.Password, target),
	}, nil
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: tryTimeout}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    tryTimeout,
		MaxIdleConnsPerHost:    triesPerSink,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		// An answer is read for its first bytes only; nobody gains from a
		// compressed one but who wants to send a bomb.
		DisableCompression: true,
	}
}

// Name is the sink's name in the outbox.
func (w *Webhook) Name() string { return w.name }

// Close closes the connections that are kept open between two events.
func (w *Webhook) Close() { w.client.CloseIdleConnections() }

// Send posts one event. Accepted is 200, 201, 202 or 204, as in the original;
// a redirect is a refusal.
func (w *Webhook) Send(ctx context.Context, e evidence.Event) error {
	body, err := w.body(e)
	if err != nil {
		return fmt.Errorf("encoding the notification: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.target.String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("making the request for the notification URL failed; check --audit-notification-url")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", w.userAgent)
	req.Header.Set("Idempotency-Key", e.ID)
	resp, err := w.client.Do(req)
	if err != nil {
		return w.redacted("posting to "+w.target.Scheme+"://"+w.target.Host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent:
		// Reading a short answer to its end lets the connection be used again.
		if resp.ContentLength >= 0 && resp.ContentLength <= maxAnswerBytes {
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		return nil
	}
	// An answer that breaks off is quoted as far as it came.
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	return &Refusal{Status: resp.StatusCode, Quote: cut(w.secrets.Replace(string(answer)), maxQuote)}
}

// redacted drops what the HTTP client tells of the address: its user-info, path
// and query may be secrets. What remains is kept for errors.Is only in so far as
// it is about the context.
func (w *Webhook) redacted(doing string, err error) error {
	var asURL *url.Error
	if errors.As(err, &asURL) {
		err = asURL.Err
	}
	text := cut(w.secrets.Replace(err.Error()), maxErrorBytes/2)
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s: %w (%s)", doing, known, text)
		}
	}
	return fmt.Errorf("%s: %s", doing, text)
}

// redactor replaces every credential that was sent, in the forms in which a
// receiver might echo it.
func redactor(username, password string, target *url.URL) *strings.Replacer {
	// Passwords come first: where a name is the beginning of one, the first of
	// the list wins.
	secrets := []string{password, "", username, ""}
	if target.User != nil {
		secrets[1], _ = target.User.Password()
		secrets[3] = target.User.Username()
	}
	var pairs []string
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		for _, form := range []string{secret, quoted(secret, true), quoted(secret, false), url.QueryEscape(secret), url.PathEscape(secret)} {
			pairs = append(pairs, form, "***")
		}
	}
	return strings.NewReplacer(pairs...)
}

// quoted is how s looks within a JSON string.
func quoted(s string, escapeHTML bool) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(escapeHTML)
	if err := enc.Encode(s); err != nil {
		return s
	}
	return strings.Trim(strings.TrimSpace(out.String()), `"`)
}

// cut gives at most limit bytes of valid UTF-8.
func cut(s string, limit int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// notification is the body, in the original's shape, with one member behind it:
//
//	{"username":"…","password":"…","db":"defaultdb","run_at":"2026-11-23T12:00:00Z","tampered":true,
//	 "previous_state":{"tx":7,"hash":"<base64>","signature":{"signature":"<base64>","public_key":"<base64>"}},
//	 "current_state":{…},"sequence":4711}
//
// run_at is RFC 3339 with as many digits of a second as there are, in UTC; a
// state that there is none of is null; an unsigned state has an empty signature
// and public_key. sequence is the number of the commit that stored the event,
// left out where it was not stored. It grows with time, unless the auditor's
// state was rolled back or begun anew.
type notification struct {
	Username string      `json:"username"`
	Password string      `json:"password"`
	DB       string      `json:"db"`
	RunAt    time.Time   `json:"run_at"`
	Tampered bool        `json:"tampered"`
	Previous *stateShape `json:"previous_state"`
	Current  *stateShape `json:"current_state"`
	Sequence uint64      `json:"sequence,omitempty"`
}

type stateShape struct {
	Tx        uint64         `json:"tx"`
	Hash      []byte         `json:"hash"`
	Signature signatureShape `json:"signature"`
}

type signatureShape struct {
	Signature []byte `json:"signature"`
	PublicKey []byte `json:"public_key"`
}

func (w *Webhook) body(e evidence.Event) ([]byte, error) {
	return json.Marshal(notification{
		Username: w.username,
		Password: w.password,
		DB:       e.Name.Database,
		RunAt:    e.At.UTC(),
		Tampered: e.Type == evidence.EventTampered || e.Verdict == evidence.Tampered,
		Previous: shapeOf(e.Previous),
		Current:  shapeOf(e.Current),
		Sequence: e.Sequence,
	})
}

func shapeOf(s *proof.SignedState) *stateShape {
	if s == nil {
		return nil
	}
	// Appending to an empty slice turns nil into "", which a receiver that
	// expects a string can take.
	return &stateShape{
		Tx:   s.TxID,
		Hash: s.Alh[:],
		Signature: signatureShape{
			Signature: append([]byte{}, s.Signature...),
			PublicKey: append([]byte{}, s.PublicKey...),
		},
	}
}

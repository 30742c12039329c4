package alert

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// endpoint is one address that is spoken to by HTTP, and by no other: what is
// sent may hold credentials, so that redirects are not followed (CWE-601,
// CWE-522).
type endpoint struct {
	target    *url.URL
	userAgent string
	client    *http.Client
	secrets   *strings.Replacer
	// username and password go into the Authorization header; a password alone
	// is a bearer token.
	username, password string
}

// newEndpoint checks an address. Its error goes on after the name of what was
// to hold it, and does not quote it.
func newEndpoint(address, version string, transport http.RoundTripper, roots *x509.CertPool, username, password string) (*endpoint, error) {
	target, err := url.Parse(address)
	if err != nil {
		// What the parser says quotes the address, password and all.
		return nil, errors.New("cannot be read; write it as https://host/path (special characters in it percent-encoded)")
	}
	if (target.Scheme != "https" && target.Scheme != "http") || target.Host == "" {
		return nil, errors.New("must begin with https:// or http:// and name a host; write it as https://host/path")
	}
	if version == "" {
		version = "unknown"
	}
	if transport == nil {
		transport = newTransport(roots)
	}
	return &endpoint{
		target:    target,
		userAgent: "immuaudit/" + version,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       tryTimeout,
		},
		secrets: redactor(username, password, target.User, partsOf(target)...),
	}, nil
}

// authorized is newEndpoint with credentials for the Authorization header.
func authorized(address, version string, roots *x509.CertPool, username, password string) (*endpoint, error) {
	if username != "" && password == "" {
		return nil, errors.New("has a username without a password; give both, or a password alone as a bearer token")
	}
	e, err := newEndpoint(address, version, nil, roots, username, password)
	if err != nil {
		return nil, err
	}
	if e.target.User != nil && password != "" {
		return nil, errors.New("holds credentials, and others are given beside it; drop one of them")
	}
	e.username, e.password = username, password
	return e, nil
}

func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: tryTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
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

// Close closes the connections that are kept open between two events.
func (e *endpoint) Close() { e.client.CloseIdleConnections() }

// send makes one request; nil if its answer is an acceptance.
func (e *endpoint) send(ctx context.Context, method string, body []byte, header http.Header, accepted func(status int) bool) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, e.target.String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("making the request failed; check the URL of the sink")
	}
	req.Header = header
	req.Header.Set("User-Agent", e.userAgent)
	switch {
	case e.username != "":
		req.SetBasicAuth(e.username, e.password)
	case e.password != "":
		req.Header.Set("Authorization", "Bearer "+e.password)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return redacted("sending to "+e.target.Scheme+"://"+e.target.Host, err, e.secrets)
	}
	defer func() { _ = resp.Body.Close() }()
	if accepted(resp.StatusCode) {
		// Reading a short answer to its end lets the connection be used again.
		if resp.ContentLength >= 0 && resp.ContentLength <= maxAnswerBytes {
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		return nil
	}
	// An answer that breaks off is quoted as far as it came.
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	return &Refusal{Status: resp.StatusCode, Quote: cut(e.secrets.Replace(string(answer)), maxQuote)}
}

func success(status int) bool { return status >= 200 && status < 300 }

// redacted drops what the HTTP client tells of the address: its user-info, path
// and query may be secrets. What remains is kept for errors.Is only in so far as
// it is about the context.
func redacted(doing string, err error, secrets *strings.Replacer) error {
	var asURL *url.Error
	if errors.As(err, &asURL) {
		err = asURL.Err
	}
	text := cut(secrets.Replace(err.Error()), maxErrorBytes/2)
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s: %w (%s)", doing, known, text)
		}
	}
	return fmt.Errorf("%s: %s", doing, text)
}

// A shorter part of an address is no secret, and to replace it everywhere would
// leave nothing to read of an answer.
const (
	minSegment = 8
	minValue   = 4
)

// partsOf gives what of an address may be a secret, as it is sent and decoded:
// many receivers know their senders by nothing else.
func partsOf(target *url.URL) []string {
	var parts []string
	for _, path := range []string{target.RequestURI(), target.EscapedPath(), target.Path} {
		if len(path) > 1 {
			parts = append(parts, path)
		}
	}
	for segment := range strings.SplitSeq(target.EscapedPath(), "/") {
		if len(segment) >= minSegment {
			parts = append(parts, segment)
			if decoded, err := url.PathUnescape(segment); err == nil {
				parts = append(parts, decoded)
			}
		}
	}
	for pair := range strings.SplitSeq(target.RawQuery, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if value == "" {
			value = key // a query may be nothing but a token
		}
		if len(value) >= minValue {
			parts = append(parts, value)
			if decoded, err := url.QueryUnescape(value); err == nil {
				parts = append(parts, decoded)
			}
		}
	}
	return parts
}

// redactor replaces every credential that was sent, and more secrets, in the
// forms in which a receiver might echo them.
func redactor(username, password string, user *url.Userinfo, more ...string) *strings.Replacer {
	secrets := []string{password, "", username, ""}
	if user != nil {
		secrets[1], _ = user.Password()
		secrets[3] = user.Username()
	}
	var forms []string
	// As they are in an Authorization header.
	for i := range 2 {
		if secrets[i] != "" {
			forms = append(forms, base64.StdEncoding.EncodeToString([]byte(secrets[i+2]+":"+secrets[i])))
		}
	}
	for _, secret := range append(secrets, more...) {
		if secret != "" {
			forms = append(forms, secret, quoted(secret, true), quoted(secret, false), url.QueryEscape(secret), url.PathEscape(secret))
		}
	}
	// Where one is the beginning of another, the first of the list wins.
	slices.SortStableFunc(forms, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, form := range forms {
		pairs = append(pairs, form, "***")
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

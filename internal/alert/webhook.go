package alert

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

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
	Roots    *x509.CertPool // nil: the system's
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
	name, username, password string
	*endpoint
}

var _ Sink = (*Webhook)(nil)

// NewWebhook checks the options; it connects to nothing.
func NewWebhook(o WebhookOptions) (*Webhook, error) {
	if o.Name == "" {
		o.Name = "webhook"
	}
	e, err := newEndpoint(o.URL, o.Version, o.Transport, o.Roots, o.Username, o.Password)
	if err != nil {
		return nil, fmt.Errorf("the notification URL %w", err)
	}
	return &Webhook{name: o.Name, username: o.Username, password: o.Password, endpoint: e}, nil
}

// Name is the sink's name in the outbox.
func (w *Webhook) Name() string { return w.name }

// Send posts one event. Accepted is 200, 201, 202 or 204, as in the original;
// a redirect is a refusal.
func (w *Webhook) Send(ctx context.Context, e evidence.Event) error {
	body, err := w.body(e)
	if err != nil {
		return fmt.Errorf("encoding the notification: %w", err)
	}
	return w.send(ctx, http.MethodPost, body, http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {e.ID}}, func(status int) bool {
		return status == http.StatusOK || status == http.StatusCreated || status == http.StatusAccepted || status == http.StatusNoContent
	})
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

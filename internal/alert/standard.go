package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"immuaudit/evidence"
)

// StandardWebhookOptions describe a receiver of CloudEvents.
type StandardWebhookOptions struct {
	Name, URL          string
	Username, Password string // a password alone is a bearer token
	// Secret signs what is sent: whsec_ and the base64 of 24 to 64 bytes.
	Secret  string
	Roots   *x509.CertPool // nil: the system's
	Version string
}

// StandardWebhook posts CloudEvents 1.0, signed as Standard Webhooks 1.0 has it:
// webhook-signature is "v1," and the base64 of HMAC-SHA256 over
// "webhook-id.webhook-timestamp.body".
type StandardWebhook struct {
	name   string
	secret []byte
	*endpoint
}

var _ Sink = (*StandardWebhook)(nil)

// NewStandardWebhook checks the options; it connects to nothing.
func NewStandardWebhook(o StandardWebhookOptions) (*StandardWebhook, error) {
	encoded, ok := strings.CutPrefix(o.Secret, "whsec_")
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(secret) < 24 || len(secret) > 64 {
		return nil, errors.New(`the secret must be whsec_ and the base64 of 24 to 64 bytes; make one with: echo "whsec_$(openssl rand -base64 32)"`)
	}
	e, err := authorized(o.URL, o.Version, o.Roots, o.Username, o.Password)
	if err != nil {
		return nil, fmt.Errorf("the url %w", err)
	}
	return &StandardWebhook{name: o.Name, secret: secret, endpoint: e}, nil
}

// Name is the sink's name in the outbox.
func (s *StandardWebhook) Name() string { return s.name }

// Send posts one event; any 2xx is an acceptance.
func (s *StandardWebhook) Send(ctx context.Context, e evidence.Event) error {
	body, err := encodeCloudEvent(e)
	if err != nil {
		return fmt.Errorf("encoding the event: %w", err)
	}
	id, at := plain(e.ID), strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	header := http.Header{"Content-Type": {"application/cloudevents+json"}}
	header.Set("Webhook-Id", id)
	header.Set("Webhook-Timestamp", at)
	header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return s.send(ctx, http.MethodPost, body, header, success)
}

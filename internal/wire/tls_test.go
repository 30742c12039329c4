package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// authority makes certificates and writes them to files.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	pair := a.issue(t, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key, a.file = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey), a.path("ca.crt")
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue makes a key and a certificate, name.key and name.crt, valid for a day
// around now unless the template says otherwise.
func (a *authority) issue(t *testing.T, name string, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.Subject = pkix.Name{CommonName: name}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-12 * time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(12 * time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	a.write(t, name+".crt", certText)
	a.write(t, name+".key", keyText)
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (a *authority) write(t *testing.T, name string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(a.path(name), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return a.path(name)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func secured(config *tls.Config) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(config))}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	named := a.issue(t, "server", &x509.Certificate{DNSNames: []string{"ledger.example"}})
	local := a.issue(t, "local", &x509.Certificate{IPAddresses: loopback()})
	expired := a.issue(t, "expired", &x509.Certificate{IPAddresses: loopback(), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	a.issue(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	stranger := newAuthority(t)
	stranger.issue(t, "client", &x509.Certificate{})

	client := TLSOptions{Mutual: true, CAFile: a.file, CertFile: a.path("client.crt"), KeyFile: a.path("client.key")}
	strange := client
	strange.CertFile, strange.KeyFile = stranger.path("client.crt"), stranger.path("client.key")
	oneWay := func(pair tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{pair}} }
	mutual := &tls.Config{Certificates: []tls.Certificate{local}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool()}

	for name, tt := range map[string]struct {
		server *tls.Config // nil: plaintext
		client TLSOptions
		says   string // "" : it works
	}{
		"the host of the address":      {oneWay(local), TLSOptions{Enabled: true, CAFile: a.file}, ""},
		"a name of its own":            {oneWay(named), TLSOptions{Enabled: true, CAFile: a.file, ServerName: "ledger.example"}, ""},
		"mutual":                       {mutual, client, ""},
		"a client certificate for all": {oneWay(local), client, ""},
		"another name":                 {oneWay(named), TLSOptions{Enabled: true, CAFile: a.file, ServerName: "other.example"}, "--servername"},
		"no name but the address":      {oneWay(named), TLSOptions{Enabled: true, CAFile: a.file}, "--servername"},
		"system roots":                 {oneWay(local), TLSOptions{Enabled: true}, "--clientcas"},
		"another authority":            {oneWay(local), TLSOptions{Enabled: true, CAFile: stranger.file}, "--clientcas"},
		"an expired server":            {oneWay(expired), TLSOptions{Enabled: true, CAFile: a.file}, "renew the server's certificate"},
		"no client certificate":        {mutual, TLSOptions{Enabled: true, CAFile: a.file}, "--mtls"},
		"a stranger's certificate":     {mutual, strange, "--certificate"},
		"plaintext to TLS":             {oneWay(local), TLSOptions{}, "--tls"},
		"TLS to plaintext":             {nil, TLSOptions{Enabled: true, CAFile: a.file}, "leave out --tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var opts []grpc.ServerOption
			if tt.server != nil {
				opts = secured(tt.server)
			}
			s := serve(t, opts, "db0")
			c := dial(t, s.addr, func(o *Options) { o.TLS = tt.client })
			if got := c.CertificateSHA256(); got != "" {
				t.Errorf("certificate %s before there was a connection", got)
			}
			_, err := c.CurrentState(t.Context(), "db0")
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				if got := c.CertificateSHA256(); got != sumOf(tt.server.Certificates[0]) {
					t.Errorf("certificate %q is not the server's", got)
				}
				return
			}
			// Where it was this side that refused, the server never showed
			// that the certificate is its own.
			if got := c.CertificateSHA256(); tt.server != mutual && got != "" {
				t.Errorf("certificate %s of a server that was refused", got)
			}
			wantFault(t, err, Unreachable, tt.says)
			if s.called("Login") != 0 {
				t.Error("the password was sent all the same")
			}
		})
	}
}

func sumOf(pair tls.Certificate) string {
	return fmt.Sprintf("%x", sha256.Sum256(pair.Certificate[0]))
}

// The certificate told is that of the newest connection, whoever asks for it
// meanwhile.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	first := a.issue(t, "first", &x509.Certificate{IPAddresses: loopback()})
	second := a.issue(t, "second", &x509.Certificate{IPAddresses: loopback()})
	a.issue(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	oneWay := TLSOptions{Enabled: true, CAFile: a.file}
	mutual := TLSOptions{Mutual: true, CAFile: a.file, CertFile: a.path("client.crt"), KeyFile: a.path("client.key")}
	for name, tt := range map[string]struct {
		client TLSOptions
		auth   tls.ClientAuthType
	}{"TLS": {oneWay, tls.NoClientCert}, "mutual": {mutual, tls.RequireAndVerifyClientCert}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var shown atomic.Pointer[tls.Certificate]
			shown.Store(&first)
			s := serve(t, secured(&tls.Config{
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil },
				ClientAuth:     tt.auth, ClientCAs: a.pool(),
			}), "db0")
			c := dial(t, s.addr, func(o *Options) { o.TLS = tt.client })
			ask := func() error { _, err := c.CurrentState(t.Context(), "db0"); return err }
			if err := ask(); err != nil {
				t.Fatal(err)
			}
			asking := make(chan struct{})
			var asked sync.WaitGroup
			asked.Go(func() {
				for {
					select {
					case <-asking:
						return
					default:
					}
					if got := c.CertificateSHA256(); got != sumOf(first) && got != sumOf(second) {
						t.Errorf("certificate %q", got)
						return
					}
				}
			})
			// A renewal shows only once a connection is made.
			shown.Store(&second)
			if err := ask(); err != nil || c.CertificateSHA256() != sumOf(first) {
				t.Errorf("%s, %v", c.CertificateSHA256(), err)
			}
			s.restart(t)
			eventually(t, ask)
			close(asking)
			asked.Wait()
			if got := c.CertificateSHA256(); got != sumOf(second) {
				t.Errorf("certificate %s, want the renewed one", got)
			}
		})
	}
	plain := serve(t, nil, "db0")
	c := dial(t, plain.addr)
	if _, err := c.CurrentState(t.Context(), "db0"); err != nil || c.CertificateSHA256() != "" {
		t.Errorf("in plaintext: %q, %v", c.CertificateSHA256(), err)
	}
}

// What cannot be used is an error at start that names the file and the flag.
func TestTLSFiles(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(t, "client", &x509.Certificate{})
	a.issue(t, "other", &x509.Certificate{})
	garbage := a.write(t, "garbage", []byte("garbage"))
	broken := a.write(t, "broken", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")}))
	locked := a.write(t, "locked", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("locked")}))
	huge := a.write(t, "huge", make([]byte, maxPEMFile+1))
	text, err := os.ReadFile(a.file)
	if err != nil {
		t.Fatal(err)
	}
	second := a.write(t, "second", append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})...))

	mutual := func(cert, key string) TLSOptions {
		return TLSOptions{Mutual: true, CertFile: cert, KeyFile: key}
	}
	good := mutual(a.path("client.crt"), a.path("client.key"))
	dial(t, "localhost:3322", func(o *Options) { o.TLS = good })
	for name, tt := range map[string]struct {
		options TLSOptions
		says    []string
	}{
		"no CA file":             {TLSOptions{Enabled: true, CAFile: a.path("absent")}, []string{a.path("absent"), "--clientcas"}},
		"a CA file of garbage":   {TLSOptions{Enabled: true, CAFile: garbage}, []string{garbage, "BEGIN CERTIFICATE", "--clientcas"}},
		"a broken second CA":     {TLSOptions{Enabled: true, CAFile: second}, []string{second, "certificate 2", "--clientcas"}},
		"a CA file without end":  {TLSOptions{Enabled: true, CAFile: huge}, []string{huge, "larger than"}},
		"a directory":            {TLSOptions{Enabled: true, CAFile: a.dir}, []string{a.dir, "--clientcas"}},
		"no certificate named":   {TLSOptions{Mutual: true}, []string{"--certificate", "--pkey"}},
		"no certificate file":    {mutual(a.path("absent"), a.path("client.key")), []string{a.path("absent"), "--certificate"}},
		"a broken certificate":   {mutual(broken, a.path("client.key")), []string{broken, "--certificate"}},
		"no key file":            {mutual(a.path("client.crt"), a.path("absent")), []string{a.path("absent"), "--pkey"}},
		"a key file of garbage":  {mutual(a.path("client.crt"), garbage), []string{garbage, "--pkey"}},
		"a key with a password":  {mutual(a.path("client.crt"), locked), []string{locked, "passphrase", "--pkey"}},
		"the key of another":     {mutual(a.path("client.crt"), a.path("other.key")), []string{a.path("other.key"), a.path("client.crt"), "does not match"}},
		"files the wrong way":    {mutual(a.path("client.key"), a.path("client.crt")), []string{a.path("client.key"), "--certificate"}},
		"a name no one can have": {TLSOptions{Enabled: true, ServerName: "a\nb"}, []string{"--servername"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(Options{Address: "localhost:3322", TLS: tt.options})
			if err == nil {
				t.Fatal("no error")
			}
			for _, word := range tt.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not mention %q", err, word)
				}
			}
		})
	}
	// Files that are not used are not read: the flags have defaults.
	dial(t, "localhost:3322", func(o *Options) {
		o.TLS = TLSOptions{Enabled: true, CertFile: garbage, KeyFile: "absent"}
	})
}

func TestClientCertificateDates(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	now := time.Now()
	a.issue(t, "old", &x509.Certificate{NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)})
	a.issue(t, "early", &x509.Certificate{NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour)})
	a.issue(t, "good", &x509.Certificate{})
	for name, says := range map[string]string{"old": "has expired", "early": "not valid yet", "good": ""} {
		var log bytes.Buffer
		dial(t, "localhost:3322", func(o *Options) {
			o.TLS = TLSOptions{Mutual: true, CertFile: a.path(name + ".crt"), KeyFile: a.path(name + ".key")}
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		if says == "" && log.Len() > 0 || !strings.Contains(log.String(), says) {
			t.Errorf("%s: logged %q", name, log.String())
		}
	}
}

package wire

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLSOptions say how the connection is protected. The zero value is plaintext.
type TLSOptions struct {
	Enabled    bool   // TLS, the server's certificate checked
	Mutual     bool   // TLS, and a client certificate shown
	ServerName string // name the server's certificate must carry; "" is the host of the address
	CertFile   string // client certificate chain in PEM, with Mutual
	KeyFile    string // its private key in PEM, with Mutual
	CAFile     string // authorities that may vouch for the server; "" is those of the system
}

// credentials loads what the options name, so that a file that cannot be used
// is an error at start and not at the first call.
func (o TLSOptions) credentials(host string, now time.Time, log *slog.Logger) (credentials.TransportCredentials, error) {
	if !o.Enabled && !o.Mutual {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if config.ServerName == "" {
		config.ServerName = host
	}
	if len(config.ServerName) > 255 || !printable(config.ServerName) {
		return nil, fmt.Errorf("the server name %q cannot stand in a certificate; correct --servername", o.ServerName)
	}
	if o.CAFile != "" {
		roots, err := loadAuthorities(o.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = roots
	}
	if o.Mutual {
		pair, err := loadPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, err
		}
		warnExpired(log, o.CertFile, pair.Leaf, now)
		config.Certificates = []tls.Certificate{*pair}
	}
	return credentials.NewTLS(config), nil
}

// certificate is the SHA-256 of the certificate that the server showed last.
type certificate = atomic.Pointer[[sha256.Size]byte]

// witness notes whom each handshake was made with. It asks no earlier than
// when one is complete: only then has the server shown that the certificate is
// its own.
type witness struct {
	credentials.TransportCredentials
	shown *certificate
}

func (w witness) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	if info, ok := info.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		sum := sha256.Sum256(info.State.PeerCertificates[0].Raw)
		w.shown.Store(&sum)
	}
	return conn, info, nil
}

func (w witness) Clone() credentials.TransportCredentials {
	return witness{w.TransportCredentials.Clone(), w.shown}
}

// CertificateSHA256 is the SHA-256 of the certificate (DER) that the server
// showed when the newest connection to it was made, in hex. It is "" in
// plaintext, and before the first connection.
func (c *Client) CertificateSHA256() string {
	if sum := c.shown.Load(); sum != nil {
		return hex.EncodeToString(sum[:])
	}
	return ""
}

func loadAuthorities(file string) (*x509.CertPool, error) {
	const advice = "correct --clientcas, or leave it out to use the authorities of the system"
	text, err := readPEM(file)
	if err != nil {
		return nil, fmt.Errorf("reading the CA file: %w; %s", err, advice)
	}
	certs, err := parseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("reading the CA file %q: %w; %s", file, err, advice)
	}
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool, nil
}

func loadPair(certFile, keyFile string) (*tls.Certificate, error) {
	if certFile == "" || keyFile == "" {
		return nil, errors.New("mutual TLS needs a client certificate and its key; give --certificate and --pkey")
	}
	certText, err := readPEM(certFile)
	if err != nil {
		return nil, fmt.Errorf("reading the client certificate: %w; correct --certificate", err)
	}
	if _, err := parseCertificates(certText); err != nil {
		return nil, fmt.Errorf("reading the client certificate %q: %w; correct --certificate", certFile, err)
	}
	keyText, err := readPEM(keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the client key: %w; correct --pkey", err)
	}
	if encrypted(keyText) {
		return nil, fmt.Errorf("the client key %q is protected by a passphrase, which a service cannot be asked for; make a copy without one (openssl pkey -in KEY -out COPY), readable only by the auditor, and give that as --pkey", keyFile)
	}
	// The certificate was parsed above: what is left to fail is the key, or
	// that the two do not belong together.
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, fmt.Errorf("using the client key %q with the certificate %q: %w; give the --pkey that belongs to --certificate", keyFile, certFile, err)
	}
	return &pair, nil
}

func warnExpired(log *slog.Logger, file string, leaf *x509.Certificate, now time.Time) {
	switch {
	case now.After(leaf.NotAfter):
		log.Warn("the client certificate has expired, the server will refuse it; renew it", "file", file, "expired", leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		log.Warn("the client certificate is not valid yet, the server will refuse it; check the clock", "file", file, "valid_from", leaf.NotBefore)
	}
}

// readPEM reads a small file. Its errors name the file.
func readPEM(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEMFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxPEMFile {
		return nil, fmt.Errorf("%q is larger than %d bytes, which no certificate or key is", file, maxPEMFile)
	}
	return text, nil
}

// parseCertificates wants at least one certificate and no broken one: a CA
// that is skipped in silence would be missed much later.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
	}
	return certs, nil
}

func encrypted(key []byte) bool {
	block, _ := pem.Decode(key)
	return block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"))
}

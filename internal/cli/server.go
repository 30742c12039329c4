package cli

import (
	"crypto/ecdsa"
	"fmt"
	"io"
	"log/slog"
	"os"

	"immuaudit/internal/config"
	"immuaudit/internal/web"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// connect makes the client of the configured server. It does not talk to it.
func connect(c *config.Config, log *slog.Logger) (*wire.Client, error) {
	cert, key := c.ClientCertificate()
	client, err := wire.New(wire.Options{
		Address:  c.Target(),
		TLS:      wire.TLSOptions{Enabled: c.TLS || c.MTLS, Mutual: c.MTLS, ServerName: c.ServerName, CertFile: cert, KeyFile: key, CAFile: c.CAFile()},
		Username: c.Audit.Username, Password: c.Audit.Password,
		MaxRecvMsgSize: c.MaxRecvMsgSize,
		Logger:         log,
	})
	if err != nil {
		return nil, usage(err)
	}
	return client, nil
}

// maxKeyFile bounds a PEM file; a public key has 180 bytes.
const maxKeyFile = 64 << 10

// readKey reads the public key in PEM that a flag names.
func readKey(flag, file string) (*ecdsa.PublicKey, []byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the server's signing key: %w; correct %s", err, flag)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the server's signing key: %w; correct %s", err, flag)
	}
	key, err := proof.ParsePublicKey(pem)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the server's signing key %s: %w; it must be the PEM public key (openssl ec -in immudb.key -pubout) that belongs to immudb's --signingKey", file, err)
	}
	public, err := key.ECDH() // the uncompressed point (SEC 1 §2.3.3)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the server's signing key %s: %w", file, err)
	}
	return key, public.Bytes(), nil
}

// signingKey reads the configured key, if there is one.
func signingKey(c *config.Config) (*ecdsa.PublicKey, []byte, error) {
	if c.SigningKeyFile == "" {
		return nil, nil, nil
	}
	key, point, err := readKey("--server-signing-pub-key", c.SigningKeyFile)
	if err != nil {
		return nil, nil, usage(err)
	}
	return key, point, nil
}

// traffic is what the connection did, for the metrics.
func traffic(c *wire.Client) web.Traffic {
	stats := c.Stats()
	t := web.Traffic{Logins: stats.Logins, CallsInFlight: int(stats.InFlight), PerLedger: map[string]web.Usage{}}
	for name, u := range c.Usages() {
		t.PerLedger[name] = web.Usage(u)
	}
	return t
}

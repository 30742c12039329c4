package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"immuaudit/internal/ledger"
)

func newLedger(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ledger", Short: "The embedded ledger, compatible with immudb", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLedgerServe(env), newLedgerAttacks(env))
	return cmd
}

// serving is what ledger serve was asked for. The connection flags of the
// general client (--immudb-address, --immudb-port, --dir) do not apply: this
// is a server, and its data is not an auditor's state.
type serving struct {
	listen, dir, signingKey, cert, key, version, uuid string
	headerVersion                                     int
	lag                                               uint64
	noAuth                                            bool
	databases                                         []string
	adminPassword                                     string
	users                                             []string
	attacks                                           hostility
}

func newLedgerServe(env *Env) *cobra.Command {
	var s serving
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve an immudb-compatible ledger, for development and tests",
		Long: `serve runs the embedded ledger as a server that immudb's clients can use: user
immudb, password immudb unless told otherwise. It is for development and
tests, not for data that matters. With --attack it is honest first, and then
does what an attacker does, so that auditors and clients can be tried.`,
		Example: "  immuclient ledger serve --listen 127.0.0.1:3322 --dir ./ledger",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return serveLedger(cmd.Context(), env, s) },
	}
	f := cmd.Flags()
	f.StringVar(&s.listen, "listen", "127.0.0.1:3322", "`host:port` to listen on; port 0: any free one")
	f.StringVar(&s.dir, "dir", "", "`directory` to keep the ledger in; default: in memory")
	f.StringVar(&s.signingKey, "signing-key", "", "PEM `file` of an EC private key that signs the states")
	f.StringVar(&s.cert, "tls-certificate", "", "PEM `file` of the server's certificate: serve TLS")
	f.StringVar(&s.key, "tls-key", "", "PEM `file` of its private key")
	f.StringVar(&s.version, "server-version", ledger.DefaultVersion, "immudb `version` to behave like")
	f.StringVar(&s.uuid, "uuid", "", "`id` the server gives itself; default: a fresh one")
	f.IntVar(&s.headerVersion, "header-version", 1, "version of new transaction headers, 0 or 1")
	f.Uint64Var(&s.lag, "lag", 0, "`transactions` by which the tree of new headers lags")
	boolVar(f, &s.noAuth, "no-auth", "", "serve the default database to everyone, without login")
	f.StringSliceVar(&s.databases, "database", nil, "`name` of a database to create; may be repeated")
	f.StringVar(&s.adminPassword, "admin-password", "", "password of the user immudb; default: immudb")
	f.StringArrayVar(&s.users, "user", nil, "`user` to create, written NAME:PASSWORD:DATABASE:read, :readwrite or :admin; may be repeated")
	s.attacks.register(f)
	return cmd
}

func serveLedger(ctx context.Context, env *Env, s serving) error {
	l, err := openLedger(env, s)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Start(s.listen); err != nil {
		return usagef("starting the ledger: %w; choose another address with --listen", err)
	}
	host, port, err := net.SplitHostPort(l.Addr())
	if err != nil {
		return unknown(err)
	}
	where := "in memory"
	if s.dir != "" {
		where = "in " + s.dir
	}
	fmt.Fprintf(env.Stdout, "ledger listening on %s, %s, uuid %s\n", l.Addr(), where, l.UUID())
	fmt.Fprintf(env.Stdout, "audit it with: immuclient audit-mode -a %s -p %s\n", host, port)
	<-ctx.Done()
	return nil
}

// openLedger checks what was asked for and makes the ledger.
func openLedger(env *Env, s serving) (*ledger.Ledger, error) {
	c := ledger.Config{
		Dir: s.dir, UUID: s.uuid, Version: s.version, HeaderVersion: s.headerVersion, NoAuth: s.noAuth, AdminPassword: s.adminPassword,
	}
	if s.lag > 0 {
		c.BlTxID = func(_ string, id uint64) uint64 { return id - 1 - min(id-1, s.lag) }
	}
	if s.signingKey != "" {
		key, err := readPrivateKey(s.signingKey)
		if err != nil {
			return nil, usage(err)
		}
		c.SigningKey = key
	}
	if (s.cert == "") != (s.key == "") {
		return nil, usagef("--tls-certificate and --tls-key go together; give both, or neither to serve in plaintext")
	}
	if s.cert != "" {
		pair, err := tls.LoadX509KeyPair(s.cert, s.key)
		if err != nil {
			return nil, usagef("reading --tls-certificate and --tls-key: %w", err)
		}
		c.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	c, err := s.attacks.config(c)
	if err != nil {
		return nil, usage(err)
	}
	l, err := ledger.Open(c)
	if err != nil {
		return nil, usage(err)
	}
	if err := errors.Join(furnish(l, s), s.attacks.prepare(env, l, c)); err != nil {
		l.Close()
		return nil, usage(err)
	}
	return l, nil
}

// furnish creates the databases and users asked for.
func furnish(l *ledger.Ledger, s serving) error {
	for _, name := range s.databases {
		if _, err := l.Database(name); err == nil {
			continue // from an earlier run
		}
		if err := l.CreateDatabase(name); err != nil {
			return fmt.Errorf("creating database %s: %w", strconv.Quote(name), err)
		}
	}
	permissions := map[string]ledger.Permission{"read": ledger.Read, "readwrite": ledger.ReadWrite, "admin": ledger.Admin}
	for _, u := range s.users {
		part := strings.SplitN(u, ":", 4)
		if len(part) != 4 || permissions[part[3]] == 0 {
			return fmt.Errorf("--user %s: write NAME:PASSWORD:DATABASE:read, readwrite or admin", strconv.Quote(part[0]))
		}
		if err := l.CreateUser(part[0], part[1]); err != nil {
			return fmt.Errorf("--user %s: %w", strconv.Quote(part[0]), err)
		}
		if err := l.Grant(part[0], part[2], permissions[part[3]]); err != nil {
			return fmt.Errorf("--user %s: %w", strconv.Quote(part[0]), err)
		}
	}
	return nil
}

func readPrivateKey(file string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading --signing-key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("reading --signing-key %s: no PEM block; make one with openssl ecparam -name prime256v1 -genkey -noout", file)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading --signing-key %s: %w", file, err)
	}
	return key, nil
}

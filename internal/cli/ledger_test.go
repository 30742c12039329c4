package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"immuaudit/internal/ledger"
)

// testServer is a server that honest and dishonest things can be done to.
type testServer struct {
	*ledger.Ledger
	copies map[string]*ledger.Snapshot
	keys   map[string]*ecdsa.PrivateKey
	dir    string // where public keys are written
	writes int    // makes every value another one: within a second, equal writes make equal histories
}

// newTestServer starts a ledger in memory on a free port. Options: key=NAME
// signs by a fresh key, whose public half goes to NAME.pub; tls=DIR and
// mtls=DIR serve with the certificates in it; version=, uuid=, header=,
// password= and noauth speak for themselves.
func newTestServer(dir string, options ...string) (*testServer, error) {
	s := &testServer{copies: map[string]*ledger.Snapshot{}, keys: map[string]*ecdsa.PrivateKey{}, dir: dir}
	c := ledger.Config{HeaderVersion: 1}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		var err error
		switch name {
		case "key":
			c.SigningKey, err = s.key(value)
		case "tls", "mtls":
			c.TLS, err = serverTLS(filepath.Join(dir, value), name == "mtls")
		case "version":
			c.Version = value
		case "uuid":
			c.UUID = value
		case "header":
			c.HeaderVersion, err = strconv.Atoi(value)
		case "password":
			c.AdminPassword = value
		case "noauth":
			c.NoAuth = true
		default:
			err = fmt.Errorf("unknown option %q", o)
		}
		if err != nil {
			return nil, err
		}
	}
	var err error
	if s.Ledger, err = ledger.Open(c); err != nil {
		return nil, err
	}
	if err := s.Start("127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// key gives the signing key of a name, made when first asked for; nil for "none".
func (s *testServer) key(name string) (*ecdsa.PrivateKey, error) {
	if name == "none" || s.keys[name] != nil {
		return s.keys[name], nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	s.keys[name] = key
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	return key, os.WriteFile(filepath.Join(s.dir, name+".pub"), block, 0o600)
}

// write commits n transactions.
func (s *testServer) write(database string, n int) error {
	db, err := s.Database(database)
	if err != nil {
		return err
	}
	for range n {
		s.writes++
		if _, err := db.Set(fmt.Appendf(nil, "key/%d", s.writes), fmt.Appendf(nil, "value %d", s.writes)); err != nil {
			return err
		}
	}
	return nil
}

// do carries out one verb of the stories' ledger command.
func (s *testServer) do(out io.Writer, verb string, args ...string) error {
	want := map[string]int{
		"write": 2, "create": 1, "delete": 1, "name": 2, "unload": 1, "load": 1, "snapshot": 2, "restore": 2, "empty": 1, "leaf": 2, "value": 3,
		"state": 1, "sign": 1, "uuid": 1, "user": 4, "revoke": 2, "restart": 0, "stop": 0, "resume": 0,
	}
	n, known := want[verb]
	if !known || len(args) != n {
		return fmt.Errorf("%q is no verb, or wants %d arguments", verb, n)
	}
	switch verb {
	case "create":
		return s.CreateDatabase(args[0])
	case "delete":
		return s.DeleteDatabase(args[0])
	case "name":
		return s.RenameDatabase(args[0], args[1])
	case "unload":
		return s.UnloadDatabase(args[0])
	case "load":
		return s.LoadDatabase(args[0])
	case "sign":
		key, err := s.key(args[0])
		if err != nil {
			return err
		}
		return s.SetSigningKey(key)
	case "uuid":
		return s.SetUUID(args[0])
	case "user":
		return s.user(args)
	case "revoke":
		return s.Revoke(args[0], args[1])
	case "restart":
		return s.Restart()
	case "stop":
		return s.Stop()
	case "resume":
		return s.Start(s.Addr())
	case "write":
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return s.write(args[0], count)
	}
	return s.change(out, verb, args)
}

func (s *testServer) user(args []string) error {
	permission := map[string]ledger.Permission{"read": ledger.Read, "readwrite": ledger.ReadWrite, "admin": ledger.Admin}[args[3]]
	if err := s.CreateUser(args[0], args[1]); err != nil {
		return err
	}
	return s.Grant(args[0], args[2], permission)
}

// change does what an attacker does to the content.
func (s *testServer) change(out io.Writer, verb string, args []string) error {
	db, err := s.Database(args[0])
	if err != nil {
		return err
	}
	switch verb {
	case "snapshot":
		s.copies[args[1]] = db.Snapshot()
	case "restore":
		return db.Restore(s.copies[args[1]]) // which refuses what was never taken
	case "empty":
		return db.Restore(new(ledger.Snapshot))
	case "leaf": // another leaf in the tree, the chain untouched
		tx, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil {
			return err
		}
		return db.Tamper(func(h *ledger.History) { h.SetLeaf(tx, [32]byte{1}) })
	case "value": // bytes in the data files, the chain untouched
		tx, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil {
			return err
		}
		return db.Tamper(func(h *ledger.History) { h.SetValue(tx, 0, []byte("\x00"+args[2])) })
	case "state":
		tx, alh := db.State()
		fmt.Fprintf(out, "%d %x\n", tx, alh)
	}
	return nil
}

// serverTLS loads what writeCertificates wrote.
func serverTLS(dir string, mutual bool) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if mutual {
		ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil {
			return nil, err
		}
		c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		c.ClientCAs.AppendCertsFromPEM(ca)
	}
	return c, nil
}

// Package ledger is an immudb-compatible ledger in one process, over real
// gRPC: for demonstrations, for tests, and for development without a server.
//
//	l, err := ledger.Open(ledger.Config{HeaderVersion: 1})
//	err = l.Start("127.0.0.1:0")
//	db, err := l.Database("defaultdb")
//	tx, err := db.Set([]byte("k"), []byte("v"))
//	defer l.Close()
//
// It answers every call of docs/protocol.md §2 with the errors of §1. Its
// hashing and its proofs are its own: it shares no code with the packages that
// check them, so that prover and checker cannot have a fault in common. It is
// as honest as the original until told otherwise; Snapshot, Restore and Tamper
// are for telling it otherwise.
package ledger

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// Names of the two databases that always exist, and of the administrator.
const (
	DefaultDB = "defaultdb"
	SystemDB  = "systemdb"
	AdminUser = "immudb"
)

// Defaults of Config.
const (
	DefaultVersion       = "1.11.1"
	DefaultAdminPassword = "immudb"
)

// Config says what a ledger is. The zero value is a ledger in memory that
// reports version 1.11.1, does not sign and writes headers of version 0.
type Config struct {
	// Dir keeps the ledger on disk: what was acknowledged survives a restart
	// and kill -9. Empty keeps it in memory.
	Dir string
	// UUID is what the server calls itself. Empty: the one remembered in Dir,
	// else a fresh one.
	UUID string
	// Version is the server version reported; behaviour that differs between
	// versions follows it.
	Version string
	// HeaderVersion, 0 or 1, is that of new transactions.
	HeaderVersion int
	// BlTxID chooses how many leaves the tree of a new transaction's header
	// covers, less than id: servers before 1.3.2 lag behind under concurrent
	// writes. It must not call the ledger. Nil: id-1.
	BlTxID func(db string, id uint64) uint64
	// SigningKey, on P-256, signs the states. Nil: unsigned.
	SigningKey *ecdsa.PrivateKey
	// TLS serves with TLS; ask for client certificates here too.
	TLS *tls.Config
	// NoAuth serves the default database to everyone, without login.
	NoAuth bool
	// AdminPassword is that of the user immudb. Empty: the one remembered in
	// Dir, else "immudb".
	AdminPassword string
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// ServerOptions come before the ledger's own, so that interceptors among
	// them stand outermost: they see each answer last and may change it, every
	// answer being a fresh copy. An interceptor that waits must end with its
	// context, or Stop waits for it.
	ServerOptions []grpc.ServerOption
}

// release is a server version as far as behaviour depends on it.
type release struct{ major, minor, patch int }

// parseRelease accepts 1.2.3, v1.2.3 and either with a suffix after a hyphen.
func parseRelease(s string) (release, error) {
	core, _, _ := strings.Cut(strings.TrimPrefix(s, "v"), "-")
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return release{}, fmt.Errorf("server version %q: want MAJOR.MINOR.PATCH, such as 1.11.1", s)
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return release{}, fmt.Errorf("server version %q: want MAJOR.MINOR.PATCH, such as 1.11.1", s)
		}
		n[i] = int(v)
	}
	return release{n[0], n[1], n[2]}, nil
}

func (r release) atLeast(major, minor, patch int) bool {
	if r.major != major {
		return r.major > major
	}
	if r.minor != minor {
		return r.minor > minor
	}
	return r.patch >= patch
}

// withDefaults fills in and checks.
func (c Config) withDefaults() (Config, release, error) {
	if c.Version == "" {
		c.Version = DefaultVersion
	}
	rel, err := parseRelease(c.Version)
	if err != nil {
		return c, release{}, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := checkHeaderVersion(c.HeaderVersion); err != nil {
		return c, release{}, err
	}
	if err := checkSigningKey(c.SigningKey); err != nil {
		return c, release{}, err
	}
	if len(c.UUID) > maxUUID {
		return c, release{}, fmt.Errorf("UUID of %d bytes: at most %d", len(c.UUID), maxUUID)
	}
	return c, rel, nil
}

func checkHeaderVersion(v int) error {
	if v != 0 && v != 1 {
		return fmt.Errorf("header version %d: only 0 and 1 exist", v)
	}
	return nil
}

func checkSigningKey(k *ecdsa.PrivateKey) error {
	if k != nil && k.Curve != elliptic.P256() {
		return errors.New("signing key: states are signed on the curve P-256; make one with openssl ecparam -name prime256v1 -genkey")
	}
	return nil
}

// What a client can make the ledger hold or send is bounded.
const (
	maxMessage      = 32 << 20 // docs/protocol.md §1
	maxUUID         = 64
	maxName         = 128
	maxKey          = 1024
	maxEntries      = 65535 // what a header of version 0 can count
	maxExtra        = 256   // docs/protocol.md §3
	maxLogins       = 100_000
	tokenLifetime   = 24 * time.Hour
	sessionIdleTime = 2 * time.Minute
)

// pageLimit is the most that one TxScan, Scan or History may ask for.
func (r release) pageLimit() int {
	if r.atLeast(1, 6, 0) {
		return 2500
	}
	return 1000
}

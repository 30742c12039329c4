package ledger

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"immuaudit/internal/wire/schema"
)

// Ledger is one server with its databases and users. All methods are safe for
// concurrent use.
type Ledger struct {
	cfg     Config
	release release
	lock    *os.File // keeps a second process out of Dir

	mu         sync.RWMutex // everything below
	uuid       string
	signingKey *ecdsa.PrivateKey
	system     *Database
	// slots is what bound tokens point into, so an entry keeps its place; nil
	// where a database was deleted. slots[0] is the default database.
	slots    []*Database
	deleted  map[string]bool // names, since the server started
	users    map[string]*user
	tokens   map[string]*login
	sessions map[string]*login
	nextFile uint64
	closed   bool

	runMu   sync.Mutex // serialises Start, Stop, Restart and Close
	addr    string
	server  *grpc.Server
	served  chan error
	started time.Time
}

// Open makes a ledger, or opens the one in cfg.Dir. It does not listen yet.
func Open(cfg Config) (*Ledger, error) {
	cfg, rel, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	l := &Ledger{
		cfg:        cfg,
		release:    rel,
		uuid:       cfg.UUID,
		signingKey: cfg.SigningKey,
		deleted:    map[string]bool{},
		users:      map[string]*user{},
		tokens:     map[string]*login{},
		sessions:   map[string]*login{},
		started:    cfg.Now(),
	}
	if cfg.Dir == "" {
		err = l.create()
	} else {
		err = l.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the ledger: %w", err), l.closeFiles())
	}
	return l, nil
}

// create makes what a new ledger begins with.
func (l *Ledger) create() error {
	if l.uuid == "" {
		l.uuid = newUUID()
	}
	password := l.cfg.AdminPassword
	if password == "" {
		password = DefaultAdminPassword
	}
	if err := l.setUser(AdminUser, password); err != nil {
		return err
	}
	var err error
	if l.system, err = l.newDatabase(SystemDB); err != nil {
		return err
	}
	def, err := l.newDatabase(DefaultDB)
	if err != nil {
		return err
	}
	l.slots = []*Database{def}
	if err := l.save(); err != nil {
		return err
	}
	return l.recordUser(AdminUser)
}

// newUUID has the look of the identifiers immudb makes: 20 characters of
// lower-case base32.
func newUUID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	const alphabet = "0123456789abcdefghijklmnopqrstuv"
	return base32.NewEncoding(alphabet).WithPadding(base32.NoPadding).EncodeToString(b[:])
}

// Start listens on addr, such as 127.0.0.1:0, and serves until Stop or Close.
func (l *Ledger) Start(addr string) error {
	l.runMu.Lock()
	defer l.runMu.Unlock()
	if l.server != nil {
		return fmt.Errorf("starting the ledger: it listens on %s already", l.addr)
	}
	return l.start(addr, 0)
}

// start listens, trying again for as long as patience lasts.
func (l *Ledger) start(addr string, patience time.Duration) error {
	l.mu.RLock()
	closed := l.closed
	l.mu.RUnlock()
	if closed {
		return errors.New("starting the ledger: it is closed; open it again")
	}
	ln, err := net.Listen("tcp", addr)
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		<-time.After(20 * time.Millisecond)
		ln, err = net.Listen("tcp", addr)
	}
	if err != nil {
		return fmt.Errorf("starting the ledger: %w", err)
	}
	l.addr = ln.Addr().String()
	l.server = grpc.NewServer(l.options()...)
	schema.RegisterImmuServiceServer(l.server, &service{ledger: l})
	l.served = make(chan error, 1)
	go func(s *grpc.Server, done chan<- error) { done <- s.Serve(ln) }(l.server, l.served)
	return nil
}

func (l *Ledger) options() []grpc.ServerOption {
	opts := slices.Clone(l.cfg.ServerOptions)
	opts = append(opts,
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(l.unaryUUID),
		grpc.ChainStreamInterceptor(l.streamUUID),
	)
	if l.cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(l.cfg.TLS.Clone())))
	}
	return opts
}

// Addr is where the ledger listens, or last listened.
func (l *Ledger) Addr() string {
	l.runMu.Lock()
	defer l.runMu.Unlock()
	return l.addr
}

// Stop ends serving; every connection is cut. The content stays: Start or
// Restart serves it again.
func (l *Ledger) Stop() error {
	l.runMu.Lock()
	defer l.runMu.Unlock()
	return l.stop()
}

func (l *Ledger) stop() error {
	if l.server == nil {
		return nil
	}
	l.server.Stop()
	err := <-l.served
	l.server = nil
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// Restart serves again on the same address, as after a restart of the process:
// tokens and sessions are void, names of deleted databases free.
func (l *Ledger) Restart() error {
	l.runMu.Lock()
	defer l.runMu.Unlock()
	if l.addr == "" {
		return errors.New("restarting the ledger: it was never started; use Start")
	}
	if err := l.stop(); err != nil {
		return err
	}
	l.mu.Lock()
	clear(l.tokens)
	clear(l.sessions)
	clear(l.deleted)
	l.slots = slices.DeleteFunc(l.slots, func(d *Database) bool { return d == nil })
	l.started = l.cfg.Now()
	for _, d := range l.slots {
		d.mu.Lock()
		d.exportStuck = false
		d.mu.Unlock()
	}
	l.mu.Unlock()
	return l.start(l.addr, 2*time.Second)
}

// Close stops serving and closes the files. The ledger is of no use afterwards.
func (l *Ledger) Close() error {
	l.runMu.Lock()
	defer l.runMu.Unlock()
	return errors.Join(l.stop(), l.closeFiles())
}

func (l *Ledger) closeFiles() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, d := range append([]*Database{l.system}, l.slots...) {
		if d == nil {
			continue
		}
		d.writeMu.Lock()
		d.failed = errors.New("the ledger is closed; open it again")
		errs = append(errs, d.log.close())
		d.writeMu.Unlock()
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

// UUID is what the server calls itself.
func (l *Ledger) UUID() string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.uuid
}

// SetUUID changes what the server calls itself, from the next answer on.
func (l *Ledger) SetUUID(uuid string) error {
	if uuid == "" || len(uuid) > maxUUID {
		return fmt.Errorf("UUID of %d bytes: 1 to %d are possible", len(uuid), maxUUID)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uuid = uuid
	return l.save()
}

// SetSigningKey changes the key that signs the states; nil stops signing.
func (l *Ledger) SetSigningKey(key *ecdsa.PrivateKey) error {
	if err := checkSigningKey(key); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signingKey = key
	return nil
}

func (l *Ledger) key() *ecdsa.PrivateKey {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.signingKey
}

// SetHeaderVersion chooses the header version, 0 or 1, of new transactions in
// all databases, those to come included.
func (l *Ledger) SetHeaderVersion(v int) error {
	if err := checkHeaderVersion(v); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.HeaderVersion = v
	for _, d := range append([]*Database{l.system}, l.slots...) {
		if d == nil {
			continue
		}
		if err := d.SetHeaderVersion(v); err != nil {
			return err
		}
	}
	return nil
}

// SetBlTxID chooses the trees of new headers in all databases, those to come
// included; see Config.BlTxID.
func (l *Ledger) SetBlTxID(f func(db string, id uint64) uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.BlTxID = f
	for _, d := range append([]*Database{l.system}, l.slots...) {
		if d != nil {
			d.SetBlTxID(f)
		}
	}
}

// validName accepts what a database may be called.
func validName(name string) error {
	ok := name != "" && len(name) <= maxName
	for _, c := range name {
		ok = ok && strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.", c)
	}
	if !ok {
		return fmt.Errorf("database name %.128q: 1 to %d letters, digits, '_', '-' and '.' are possible", name, maxName)
	}
	return nil
}

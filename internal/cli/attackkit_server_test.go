package cli_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"immuaudit/evidence"
	"immuaudit/internal/attack"
	"immuaudit/internal/cli"
	"immuaudit/internal/ledger"
)

// bystanders are databases on the attacked server that nobody attacks.
var bystanders = [...]string{ledger.DefaultDB, "well"}

// liar is a server that is honest until it is struck.
type liar struct {
	*attack.Stage
	gate    sync.RWMutex // held by the ledger for each call, and by each step as a whole
	keyFile string       // the public key, where states are signed
}

// newLiar serves what a scenario begins with, and the bystanders.
func newLiar(t *testing.T, dir string, c *trial) *liar {
	t.Helper()
	l := &liar{}
	layer := attack.NewLayer()
	config := ledger.Config{HeaderVersion: c.version}
	if c.signs() {
		config.SigningKey, l.keyFile = newServerKey(t, dir)
	}
	config = layer.Config(c.Config(config))
	// Behind the layer, which may sit on an answer for ever.
	config.ServerOptions = append(config.ServerOptions, grpc.ChainUnaryInterceptor(l.pass))
	server, err := ledger.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	l.Stage = attack.NewStage(server, layer, attacked)
	l.Key = config.SigningKey
	if err := server.CreateDatabase("well"); err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare(l.Stage); err != nil {
		t.Fatal(err)
	}
	l.grow(t)
	if err := server.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return l
}

// signs: where a scenario does not need signatures, one version of headers has
// them all the same, so that the evidence can hold what the server signed.
func (c *trial) signs() bool { return c.Signed || c.version == 1 }

func newServerKey(t *testing.T, dir string) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "server.pub")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return key, file
}

// pass lets the ledger answer unless a step is being done: what takes a step
// several moves, whoever has the server's files puts in place at once.
func (l *liar) pass(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	l.gate.RLock()
	defer l.gate.RUnlock()
	return handler(ctx, req)
}

// strike does one step while nobody looks. The bystanders get on meanwhile.
func (l *liar) strike(t *testing.T, step attack.Step) {
	t.Helper()
	l.gate.Lock()
	defer l.gate.Unlock()
	if err := step.Strike(l.Stage); err != nil {
		t.Fatalf("%s: %v", step.Summary, err)
	}
	l.grow(t)
}

// relent takes back what a server can take back, and commits honestly.
func (l *liar) relent(t *testing.T) {
	t.Helper()
	l.gate.Lock()
	defer l.gate.Unlock()
	l.Layer.Clear()
	if _, err := l.Ledger.Database(l.Database); err == nil {
		if err := errors.Join(l.Ledger.LoadDatabase(l.Database), l.Write(1)); err != nil {
			t.Fatal(err)
		}
	}
	l.grow(t)
}

// grow commits to the bystanders.
func (l *liar) grow(t *testing.T) {
	t.Helper()
	for _, name := range bystanders {
		db, err := l.Ledger.Database(name)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := db.Set([]byte("k"), []byte(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// last is the number of transactions of a database, 0 if it is gone.
func (l *liar) last(name string) uint64 {
	db, err := l.Ledger.Database(name)
	if err != nil {
		return 0
	}
	tx, _ := db.State()
	return tx
}

// pager takes notifications, and looks at the evidence before it answers.
type pager struct {
	*httptest.Server
	dir string
	mu  sync.Mutex
	got []arrival
}

// arrival is a notification, and what was there at the moment when it came.
type arrival struct {
	notification
	incident incident
	file     *evidence.File
	problem  error // why it would have convinced nobody then
}

// incident is a line of incident list --json.
type incident struct {
	ID         string `json:"incident"`
	Database   string
	Kind       evidence.Kind
	OpenedAt   time.Time `json:"opened_at"`
	Findings   []evidence.Finding
	Trusted    *evidence.Mark
	Observed   *evidence.Mark
	Divergence *evidence.Divergence
	Evidence   string
}

func newPager(t *testing.T, dir string) *pager {
	p := &pager{dir: dir}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *pager) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was stopped
	}
	var a arrival
	if a.problem = json.Unmarshal(body, &a.notification); a.problem == nil {
		a.incident, a.file, a.problem = p.look(a.DB)
	}
	p.mu.Lock()
	p.got = append(p.got, a)
	p.mu.Unlock()
}

// look reads the incident of a database and its evidence, as somebody would who
// was called and has the auditor's public key.
func (p *pager) look(database string) (inc incident, file *evidence.File, err error) {
	key, err := p.ask(0, "trust", "key")
	if err != nil {
		return inc, nil, err
	}
	open, err := p.ask(3, "incident", "list", "--json")
	if err != nil {
		return inc, nil, err
	}
	for dec := json.NewDecoder(strings.NewReader(open)); inc.Database != database; {
		inc = incident{}
		if err := dec.Decode(&inc); err != nil {
			return inc, nil, fmt.Errorf("no incident: %w", err)
		}
	}
	text, err := os.ReadFile(inc.Evidence)
	if err != nil {
		return inc, nil, err
	}
	checked, err := evidence.Recheck(text, evidence.RecheckOptions{AuditorKey: strings.TrimSpace(key)})
	if err != nil {
		return inc, nil, err
	}
	if code := checked.ExitCode(); code != 3 {
		return inc, nil, fmt.Errorf("the evidence convinces nobody: exit code %d", code)
	}
	return inc, checked.File, nil
}

func (p *pager) ask(want int, args ...string) (string, error) {
	var out, log bytes.Buffer
	code := cli.Run(context.Background(), args, cli.Env{Stdout: &out, Stderr: &log, Environ: isolated(p.dir), WorkDir: p.dir})
	if code != want {
		return "", errors.New(log.String())
	}
	return out.String(), nil
}

func (p *pager) all() []arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]arrival(nil), p.got...)
}

package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// asBareCalls, in the environment, makes this binary the client that the
// auditor is compared with: it names the server.
const asBareCalls = "IMMUAUDIT_BENCH_BARE_CALLS"

func TestMain(m *testing.M) {
	if address := os.Getenv(asBareCalls); address != "" {
		if err := bareCalls(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// program is the auditor as it is handed out, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "immuaudit-bench")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "immuclient")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "immuaudit/cmd/immuclient")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// process is the auditor at work, in a process of its own: what it costs is
// read from the kernel, and nothing of the server is in it.
type process struct {
	*exec.Cmd
	tb  testing.TB
	log string
}

func start(tb testing.TB, dir string, args ...string) *process {
	tb.Helper()
	path, err := program()
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{Cmd: exec.Command(path, args...), tb: tb, log: filepath.Join(dir, "log")}
	p.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "GOMAXPROCS=" + os.Getenv("GOMAXPROCS")}
	out, err := os.Create(p.log)
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	p.Stdout, p.Stderr, p.Dir = out, out, dir
	if err := p.Start(); err != nil {
		tb.Fatal(err)
	}
	return p
}

// end asks the process to stop and waits for it.
func (p *process) end() {
	p.tb.Helper()
	_ = p.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	p.finish()
}

// finish waits for a process that ends by itself.
func (p *process) finish() {
	p.tb.Helper()
	if err := p.Wait(); err != nil {
		text, _ := os.ReadFile(p.log)
		p.tb.Fatalf("%v: %v\n%s", p.Args, err, text)
	}
}

// logged waits for a line and gives its first group.
func (p *process) logged(pattern string) string {
	p.tb.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	p.tb.Helper()
	until(p.tb, time.Minute, func() bool {
		text, err := os.ReadFile(p.log)
		if err != nil {
			p.tb.Fatal(err)
		}
		found = re.FindStringSubmatch(string(text))
		return found != nil
	})
	return found[1]
}

// until waits for a condition of another process.
func until(tb testing.TB, patience time.Duration, done func() bool) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			tb.Fatalf("not within %s", patience)
		}
	}
}

// cost is what a process has cost up to now.
type cost struct {
	processor      time.Duration
	resident, peak int64 // bytes
}

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for user space.
const ticksPerSecond = 100

func (p *process) cost() cost {
	p.tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		p.tb.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ") // behind the name: state is the third field
	fields := strings.Fields(after)
	ticks := number(p.tb, fields[11]) + number(p.tb, fields[12])
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		p.tb.Fatal(err)
	}
	kilobytes := func(name string) int64 {
		_, after, _ := strings.Cut(string(status), name+":")
		return number(p.tb, strings.Fields(after)[0]) << 10
	}
	return cost{time.Duration(ticks) * time.Second / ticksPerSecond, kilobytes("VmRSS"), kilobytes("VmHWM")}
}

func number(tb testing.TB, s string) int64 {
	tb.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// own is the processor time of this process.
func own() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bare is what calls cost a client that does nothing else.
type bare struct{ Alone, Together time.Duration }

// bareCall measures the processor time of one CurrentState in a client of its
// own process: calls one after the other, and a thousand begun at once, as
// the auditor does.
func bareCall(tb testing.TB, address string) bare {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asBareCalls+"="+address)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatal(err)
	}
	var b bare
	if err := json.Unmarshal(out, &b); err != nil {
		tb.Fatal(err)
	}
	return b
}

func bareCalls(address string) error {
	ctx := context.Background()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	c := schema.NewImmuServiceClient(conn)
	login, err := c.Login(ctx, &schema.LoginRequest{User: []byte(ledger.AdminUser), Password: []byte(ledger.DefaultAdminPassword)})
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", login.GetToken())
	use, err := c.UseDatabase(ctx, &schema.Database{DatabaseName: ledger.DefaultDB})
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(context.Background(), "authorization", use.GetToken())
	const calls, atOnce = 5_000, 1_000
	call := func() error { _, err := c.CurrentState(ctx, &emptypb.Empty{}); return err }
	for range atOnce { // warm
		if err := call(); err != nil {
			return err
		}
	}
	var b bare
	began := own()
	for range calls {
		if err := call(); err != nil {
			return err
		}
	}
	b.Alone = (own() - began) / calls
	began = own()
	for range calls / atOnce {
		var wait sync.WaitGroup
		errs := make([]error, atOnce)
		for i := range errs {
			wait.Go(func() { errs[i] = call() })
		}
		wait.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	b.Together = (own() - began) / calls
	return json.NewEncoder(os.Stdout).Encode(b)
}

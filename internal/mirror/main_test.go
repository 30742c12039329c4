package mirror

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// childEnv makes the test binary behave as another process; see crash_test.go.
const childEnv = "IMMUAUDIT_MIRROR_CHILD"

func TestMain(m *testing.M) {
	if at := os.Getenv(childEnv); at != "" {
		os.Exit(child(at, os.Args[len(os.Args)-1]))
	}
	goleak.VerifyTestMain(m)
}

var (
	quiet  = slog.New(slog.NewTextHandler(io.Discard, nil))
	orders = evidence.Name{Server: "db1:3322", Database: "orders"}
	bills  = evidence.Name{Server: "db1:3322", Database: "bills"}
)

// alhs makes the Alhs of transactions first…last of a history of that name.
func alhs(history string, first, last uint64) []proof.Hash {
	out := make([]proof.Hash, 0, last+1-first)
	b := make([]byte, 8, 8+len(history))
	b = append(b, history...)
	for tx := first; tx <= last; tx++ {
		binary.BigEndian.PutUint64(b, tx)
		out = append(out, sha256.Sum256(b))
	}
	return out
}

// room is where a mirror can be made: in memory where the system has a place
// for that, since a slow disk would hold up what is tried a thousand times.
func room(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		return onDisk(t)
	}
	dir, err := os.MkdirTemp(memory, "mirror-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "mirror")
}

func onDisk(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "mirror")
}

// unsynced spares a test what it does not look at: that is what crash_test.go
// is for.
func unsynced(s step) error {
	if s.op == "sync" || s.op == "syncdir" {
		return errDone
	}
	return nil
}

// opened opens a mirror that is checked and closed at the end of the test.
func opened(t testing.TB, dir string, before func(step) error) *Mirror {
	t.Helper()
	m, err := open(dir, quiet, before)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finished(t, m) })
	return m
}

// finished checks what must hold of every mirror, then closes it.
func finished(t testing.TB, m *Mirror) {
	t.Helper()
	if m.closed {
		return
	}
	if err := m.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	err := filepath.WalkDir(m.vol.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want && info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s has mode %v", p, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func ledgerOf(t testing.TB, m *Mirror, name evidence.Name) *Ledger {
	t.Helper()
	l, err := m.Ledger(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appended(t testing.TB, l *Ledger, first uint64, hashes []proof.Hash) {
	t.Helper()
	if err := l.Append(first, hashes); err != nil {
		t.Fatal(err)
	}
}

// filled makes a mirror of orders with size transactions.
func filled(t testing.TB, dir string, size uint64) *Ledger {
	t.Helper()
	l := ledgerOf(t, opened(t, dir, unsynced), orders)
	appended(t, l, 1, alhs("a", 1, size))
	return l
}

// holds demands that exactly these are mirrored, to the last tile.
func holds(t testing.TB, l *Ledger, want []proof.Hash) {
	t.Helper()
	if got := l.Size(); got != uint64(len(want)) {
		t.Fatalf("%d transactions are mirrored, want %d", got, len(want))
	}
	if err := l.compare(1, want); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	root, err := l.Root(uint64(len(want)))
	if err != nil || root != reference(want) {
		t.Fatalf("root %v, %v", root, err)
	}
}

// reference is RFC 6962 §2.1 word by word.
func reference(alhs []proof.Hash) proof.Hash {
	switch len(alhs) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, alhs[0][:]...))
	}
	k := 1
	for k*2 < len(alhs) {
		k *= 2
	}
	left, right := reference(alhs[:k]), reference(alhs[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func damaged(t testing.TB, err error, path string, whole uint64) {
	t.Helper()
	d, ok := errors.AsType[*Damage](err)
	if !ok {
		t.Fatalf("got %v, want damage", err)
	}
	if !strings.HasSuffix(d.Path, path) || d.Whole != whole {
		t.Fatalf("damage at %s, whole up to %d; want %s, %d", d.Path, d.Whole, path, whole)
	}
}

func rewrite(t testing.TB, path string, f func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

package ledger

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const childDirVariable = "IMMUAUDIT_LEDGER_TEST_CHILD"

// writeUntilKilled commits for ever and prints what was acknowledged.
func writeUntilKilled(dir string) int {
	l, err := Open(Config{Dir: dir, HeaderVersion: 1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	d, err := l.Database(DefaultDB)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		id, err := d.Set([]byte(fmt.Sprintf("key %d", i)), bytes.Repeat([]byte{byte(i)}, 3000))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		_, alh := d.view().tx(id).Header.ID, d.view().tx(id).Alh
		fmt.Printf("%d %x\n", id, alh)
	}
}

// TestKill kills a writing process and compares what is on disk with what was
// acknowledged.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	last, acknowledged := 0, map[uint64]string{}
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDirVariable+"="+dir)
		cmd.Stderr = os.Stderr
		out := must(cmd.StdoutPipe())(t)
		try(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var id uint64
			var alh string
			if _, err := fmt.Sscan(lines.Text(), &id, &alh); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			acknowledged[id] = alh
			if n == 40+37*round { // in the middle of whatever comes next
				try(t, cmd.Process.Kill())
			}
		}
		if cmd.Wait() == nil {
			t.Fatal("the child ended by itself")
		}
		l := must(Open(Config{Dir: dir, HeaderVersion: 1}))(t)
		v := database(t, l, DefaultDB).view()
		for id, alh := range acknowledged {
			if id > v.last() || fmt.Sprintf("%x", v.tx(id).Alh) != alh {
				t.Errorf("transaction %d was acknowledged and is not there", id)
			}
		}
		checkWhole(t, v)
		if int(v.last()) <= last {
			t.Errorf("round %d: %d transactions after %d", round, v.last(), last)
		}
		last = int(v.last())
		try(t, l.Close())
	}
}

// checkWhole recomputes everything.
func checkWhole(t *testing.T, v *view) {
	t.Helper()
	fresh := &view{}
	for i, tx := range v.txs {
		id, alh := fresh.state()
		h := tx.Header
		if h.ID != id+1 || h.PrevAlh != alh || h.Alh() != tx.Alh || EntriesRoot(tx.Entries, h.Version) != h.EH ||
			h.BlTxID > 0 && fresh.tree.root(h.BlTxID) != h.BlRoot {
			t.Fatalf("transaction %d does not follow", i+1)
		}
		fresh.append(tx)
	}
	if v.tree.size() != v.last() || v.last() > 0 && v.tree.root(v.last()) != fresh.tree.root(v.last()) {
		t.Fatal("the tree is another one")
	}
}

// TestReopen: everything that can be stored comes back as it was.
func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := must(Open(Config{Dir: dir, HeaderVersion: 1}))(t)
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opening twice: %v", err)
	}
	try(t, l.CreateDatabase("two"))
	try(t, l.CreateDatabase("gone"))
	try(t, l.DeleteDatabase("gone"))
	try(t, l.CreateUser("ada", "secret"))
	try(t, l.Grant("ada", "two", ReadWrite))
	d := database(t, l, "two")
	must(d.Commit(Tx{
		Metadata: TxMetadata{Extra: []byte("extra")},
		Entries: []Entry{
			{Key: []byte("a"), Value: []byte("1"), Metadata: EntryMetadata{ExpiresAt: 4102444800}},
			{Key: []byte("b"), Value: nil, Metadata: EntryMetadata{NonIndexable: true}},
			{Key: []byte("c"), Metadata: EntryMetadata{Deleted: true}},
			ZSetEntry([]byte("set"), []byte("a"), 4.5, 0),
			ReferenceEntry([]byte("r"), []byte("a"), 0),
		},
	}))(t)
	must(d.Commit(Tx{}))(t)
	must(d.Truncate(2))(t)
	must(d.Set([]byte("x"), []byte("y")))(t)
	try(t, d.Tamper(func(h *History) {
		h.SetLeaf(2, [32]byte{9})
		h.Header(4).Ts++
	}))
	must(d.Set([]byte("z"), []byte("z")))(t)
	before, uuid := d.view(), l.UUID()
	try(t, l.Close())
	if _, err := d.Set([]byte("k"), nil); err == nil {
		t.Error("written after Close")
	}

	l = must(Open(Config{Dir: dir}))(t)
	t.Cleanup(func() { try(t, l.Close()) })
	if l.UUID() != uuid {
		t.Errorf("UUID %s, was %s", l.UUID(), uuid)
	}
	if got := l.Databases(); len(got) != 2 || got[1] != "two" {
		t.Errorf("databases: %v", got)
	}
	if err := l.authenticate("ada", []byte("secret")); err != nil || l.users["ada"].on("two") != ReadWrite {
		t.Errorf("user: %v", err)
	}
	sameContent(t, before, database(t, l, "two").view())
}

// sameContent compares all that is stored, by what is written for it.
func sameContent(t *testing.T, a, b *view) {
	t.Helper()
	if a.last() != b.last() || a.tree.root(a.last()) != b.tree.root(b.last()) {
		t.Fatalf("%d and %d transactions, or other trees", a.last(), b.last())
	}
	for id := uint64(1); id <= a.last(); id++ {
		x, y := appendRecord(nil, a.tx(id), a.leafAlh(id)), appendRecord(nil, b.tx(id), b.leafAlh(id))
		if !bytes.Equal(x, y) {
			t.Errorf("transaction %d: %x, was %x", id, y, x)
		}
	}
}

// TestTornTail cuts the log within its last record, and damages each byte of the
// one before.
func TestTornTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "x.log")
	lg := must(createLog(path))(t)
	v := &view{}
	var ends []int
	for i := range 3 {
		tx := &StoredTx{Header: Header{ID: uint64(i + 1)}, Entries: []StoredEntry{{Key: []byte{0, byte(i)}}}}
		tx.Alh = tx.Header.Alh()
		v.append(tx)
		try(t, lg.append(v.txs[i:]))
		ends = append(ends, int(must(os.Stat(path))(t).Size()))
	}
	try(t, lg.close())
	whole := must(os.ReadFile(path))(t)
	reopen := func(data []byte) (uint64, error) {
		try(t, os.WriteFile(path, data, 0o600))
		lg, got, err := openLog(path)
		if err != nil {
			return 0, err
		}
		// What was cut off must not come back behind what is written next.
		tx := *v.txs[0]
		try(t, lg.append([]*StoredTx{&tx}))
		try(t, lg.close())
		lg, again, err := openLog(path)
		if err != nil || again.last() != got.last()+1 {
			t.Fatalf("after writing on: %d transactions, %v", again.last(), err)
		}
		return got.last(), lg.close()
	}
	for cut := ends[1]; cut < len(whole); cut += 13 { // each costs some fsyncs
		if n, err := reopen(whole[:cut]); n != 2 || err != nil {
			t.Fatalf("cut at %d: %d transactions, %v", cut, n, err)
		}
		// Length without bytes, as after a power cut.
		padded := append(bytes.Clone(whole[:cut]), make([]byte, 300)...)
		want := uint64(2)
		if bytes.HasPrefix(padded, whole) { // only zeros were cut off
			want = 3
		}
		if n, err := reopen(padded); n != want || err != nil {
			t.Fatalf("zeros from %d on: %d transactions, %v", cut, n, err)
		}
	}
	if n, err := reopen(whole); n != 3 || err != nil {
		t.Fatalf("whole: %d, %v", n, err)
	}
	for at := ends[0] + 8; at < ends[1]; at++ {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		if _, err := reopen(damaged); err == nil || !strings.Contains(err.Error(), "transaction 2: checksum") {
			t.Fatalf("damage at %d in the middle: %v", at, err)
		}
	}
	for at := range len(logMagic) {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		if _, err := reopen(damaged); err == nil {
			t.Fatalf("damage at %d of the first line accepted", at)
		}
	}
}

// TestForeignDir: a directory that is not a ledger's is refused, not written over.
func TestForeignDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := must(Open(Config{Dir: dir}))(t)
	must(database(t, l, DefaultDB).Set([]byte("k"), []byte("v")))(t)
	try(t, l.Close())
	catalog := filepath.Join(dir, catalogName)
	good := must(os.ReadFile(catalog))(t)
	for name, bad := range map[string]string{
		"not JSON":       "{",
		"other format":   `{"format": 2}`,
		"no databases":   `{"format": 1}`,
		"file elsewhere": strings.Replace(string(good), "000002.log", "../000002.log", 1),
		"log missing":    strings.Replace(string(good), "000002.log", "000009.log", 1),
	} {
		try(t, os.WriteFile(catalog, []byte(bad), 0o600))
		if _, err := Open(Config{Dir: dir}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	try(t, os.Remove(catalog))
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("catalog gone: %v", err)
	}
	try(t, os.WriteFile(catalog, good, 0o600))
	l = must(Open(Config{Dir: dir}))(t)
	if id, _ := database(t, l, DefaultDB).State(); id != 1 {
		t.Errorf("%d transactions left", id)
	}
	try(t, l.Close())
}

// FuzzReadLog: no file makes reading fail other than with an error, and what is
// read is written back as the same bytes.
func FuzzReadLog(f *testing.F) {
	tx := &StoredTx{Header: Header{ID: 1, Version: 1, Metadata: TxMetadata{Extra: []byte("x")}}, Entries: []StoredEntry{{Key: []byte("\x00k"), Value: []byte("\x00v")}}}
	f.Add(appendRecord([]byte(logMagic), tx, [32]byte{1})[len(logMagic)+8:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		tx, leaf, err := decodeTx(bytes.Clone(payload))
		if err != nil {
			return
		}
		// Only flag bits that mean nothing may differ.
		again := appendRecord(nil, tx, leaf)[8:]
		tx2, leaf2, err := decodeTx(bytes.Clone(again))
		if err != nil || leaf2 != leaf || !bytes.Equal(appendRecord(nil, tx2, leaf2)[8:], again) || len(again) != len(payload) {
			t.Fatalf("%x became %x: %v", payload, again, err)
		}
	})
}

package mirror

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// signedAt makes a state of history a; signature and key are what they would
// be in length.
func signedAt(name evidence.Name, tx uint64, at time.Time) evidence.Witnessed {
	sum := sha512.Sum512(binary.BigEndian.AppendUint64(nil, tx))
	return evidence.Witnessed{
		State: proof.SignedState{
			DB: name.Database, State: proof.State{TxID: tx, Alh: alhs("a", tx, tx)[0]},
			PublicKey: append([]byte{4}, sum[:]...), Signature: append([]byte{0x30, 69, 2, 33, 0, 2, 32}, sum[:]...),
		},
		At: at,
	}
}

// day is a morning in November 2026.
func day(n int) time.Time { return time.Date(2026, 11, n, 6, 0, 0, 0, time.UTC) }

// signed is a state of some second of that day.
func signed(name evidence.Name, tx uint64, n int) evidence.Witnessed {
	return signedAt(name, tx, day(n).Add(time.Duration(tx)*time.Second))
}

func witnessed(t testing.TB, l *Ledger, states ...evidence.Witnessed) {
	t.Helper()
	if err := l.Witness(states); err != nil {
		t.Fatal(err)
	}
}

// statesOf gives everything that is kept, newest first.
func statesOf(t testing.TB, l *Ledger) []evidence.Witnessed {
	t.Helper()
	states, err := l.States(0, 1<<64-1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return states
}

func is(a evidence.Witnessed) func(evidence.Witnessed) bool {
	return func(b evidence.Witnessed) bool {
		return a.State.DB == b.State.DB && a.State.State == b.State.State && a.At.Equal(b.At) &&
			bytes.Equal(a.State.Signature, b.State.Signature) && bytes.Equal(a.State.PublicKey, b.State.PublicKey)
	}
}

func has(states []evidence.Witnessed, w evidence.Witnessed) bool {
	return slices.ContainsFunc(states, is(w))
}

// same demands these states, given from the oldest to the newest.
func same(t testing.TB, got, want []evidence.Witnessed) {
	t.Helper()
	txs := func(states []evidence.Witnessed) (out []uint64) {
		for _, w := range states {
			out = append(out, w.State.TxID)
		}
		return out
	}
	newest := slices.Clone(want)
	slices.Reverse(newest)
	if !slices.EqualFunc(got, newest, func(a, b evidence.Witnessed) bool { return is(a)(b) }) {
		t.Fatalf("states of %v are kept, want %v", txs(got), txs(newest))
	}
}

// thinned is what is left of states, the oldest first, once a day has begun:
// all of that day and the one before, the last of each earlier one.
func thinned(states []evidence.Witnessed, today string) (out []evidence.Witnessed) {
	for i, w := range states {
		if d := dayOf(w.At); d >= dayBefore(today) || i == len(states)-1 || dayOf(states[i+1].At) != d {
			out = append(out, w)
		}
	}
	return out
}

// TestLine: what stands in the file, to the byte, also of what the package
// comment shows.
func TestLine(t *testing.T) {
	t.Parallel()
	w := evidence.Witnessed{
		State: proof.SignedState{
			DB: "or ders", State: proof.State{TxID: 70_000, Alh: proof.Hash{0x3f, 31: 0xc1}},
			PublicKey: []byte{4, 1, 2}, Signature: []byte{0x30, 6, 2, 1, 1, 2, 1, 1},
		},
		At: time.Unix(1795413600, 999).UTC(),
	}
	want := "or+ders 70000 3f000000000000000000000000000000000000000000000000000000000000c1 1795413600 MAYCAQECAQE= BAEC fb29cdc1\n"
	if got := string(appendLine(nil, &w)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.At = w.At.Truncate(time.Second)
	if got, err := parseLine([]byte(want)); err != nil || !is(w)(got) {
		t.Errorf("got %v, %v", got, err)
	}
	w.State.Signature = nil
	if _, err := parseLine(appendLine(nil, &w)); err == nil {
		t.Error("a state without a signature is read")
	}
	w.State.DB, w.At = strings.Repeat("\xff", maxName), time.Unix(maxUnix, 0)
	w.State.TxID, w.State.Signature, w.State.PublicKey = maxTx, make([]byte, maxSignature), make([]byte, maxSignature)
	line := appendLine(nil, &w)
	if _, err := parseLine(line); err != nil || len(line) > maxLine {
		t.Errorf("the longest line has %d bytes: %v", len(line), err)
	}
}

func TestWitness(t *testing.T) {
	t.Parallel()
	dir := room(t)
	l := ledgerOf(t, opened(t, dir, unsynced), orders)
	same(t, statesOf(t, l), nil)
	unsigned := signed(orders, 8, 1)
	unsigned.State.Signature = nil
	empty := signedAt(orders, 0, day(1))
	empty.State.Alh = proof.EmptyAlh()
	witnessed(t, l, unsigned, empty, evidence.Witnessed{})
	if l.made {
		t.Error("a folder was made for nothing")
	}
	witnessed(t, l, signed(orders, 5, 1), signed(orders, 7, 1), unsigned)
	again := signed(orders, 7, 1)
	again.State.Signature = []byte{1} // signing again gives other bytes
	witnessed(t, l, again, again, signed(orders, 9, 1))
	witnessed(t, l, signed(orders, 5, 1), signed(orders, 7, 1), signed(orders, 9, 1), signed(orders, 10, 1)) // as after an error
	want := []evidence.Witnessed{signed(orders, 5, 1), signed(orders, 7, 1), signed(orders, 9, 1), signed(orders, 10, 1)}
	same(t, statesOf(t, l), want)

	behind := &Behind{}
	if err := l.Witness([]evidence.Witnessed{signed(orders, 11, 1), signed(orders, 8, 1)}); !errors.As(err, &behind) || *behind != (Behind{8, 11}) || behind.Keep() != 7 {
		t.Errorf("got %v", err)
	}
	fork := signed(orders, 10, 1)
	fork.State.Alh = proof.Hash{1}
	have, got := alhs("a", 10, 10)[0], proof.Hash{1}
	contradiction := &Contradiction{}
	if err := l.Witness([]evidence.Witnessed{fork}); !errors.As(err, &contradiction) || *contradiction != (Contradiction{10, leafHash(&have), leafHash(&got)}) || contradiction.Keep() != 9 {
		t.Errorf("got %v", err)
	}
	for what, spoil := range map[string]func(*evidence.Witnessed){
		"another database":  func(w *evidence.Witnessed) { w.State.DB = "bills" },
		"transaction 2^63":  func(w *evidence.Witnessed) { w.State.TxID = 1 << 63 },
		"a long signature":  func(w *evidence.Witnessed) { w.State.Signature = make([]byte, maxSignature+1) },
		"a long key":        func(w *evidence.Witnessed) { w.State.PublicKey = make([]byte, maxSignature+1) },
		"before 1970":       func(w *evidence.Witnessed) { w.At = time.Unix(-1, 0) },
		"of the year 10000": func(w *evidence.Witnessed) { w.At = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		w := signed(orders, 20, 1)
		spoil(&w)
		if err := l.Witness([]evidence.Witnessed{signed(orders, 19, 1), w}); err == nil || !strings.Contains(err.Error(), "orders") {
			t.Errorf("%s: %v", what, err)
		}
	}
	same(t, statesOf(t, l), want)
	finished(t, l.m)
	l = ledgerOf(t, opened(t, dir, unsynced), orders)
	if l.Size() != 0 {
		t.Error("something is mirrored")
	}
	same(t, statesOf(t, l), want)
	witnessed(t, l, signed(orders, 10, 2), signed(orders, 12, 2))
	appended(t, l, 1, alhs("a", 1, 3))
	holds(t, l, alhs("a", 1, 3))
	same(t, statesOf(t, l), append(want, signed(orders, 12, 2)))
}

// TestWitnessIsOneWrite: no sync, no name, nothing but the line, however much
// is there already.
func TestWitnessIsOneWrite(t *testing.T) {
	t.Parallel()
	var ops []string
	l := ledgerOf(t, opened(t, room(t), func(s step) error {
		ops = append(ops, s.op)
		return unsynced(s)
	}), orders)
	witnessed(t, l, signed(orders, 1, 1))
	for tx := uint64(2); tx < 100; tx++ {
		ops = nil
		witnessed(t, l, signed(orders, tx, 1))
		if !slices.Equal(ops, []string{"append"}) {
			t.Fatalf("state %d takes %v", tx, ops)
		}
		ops = nil
		witnessed(t, l, signed(orders, tx, 1))
		if len(ops) > 0 {
			t.Fatalf("state %d, again, takes %v", tx, ops)
		}
	}
}

func TestThinning(t *testing.T) {
	t.Parallel()
	l := ledgerOf(t, opened(t, room(t), unsynced), orders)
	files := func(want ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(filesUnder(t, l.file(statesFolder), "."))); !slices.Equal(got, want) {
			t.Fatalf("files %v, want %v", got, want)
		}
	}
	late := signedAt(orders, 3, time.Date(2026, 11, 1, 23, 59, 59, 0, time.UTC))
	witnessed(t, l, signed(orders, 1, 1), signed(orders, 2, 1), late)
	witnessed(t, l, signedAt(orders, 4, time.Date(2026, 11, 2, 23, 59, 59, 0, time.UTC)))
	// Everything of the last 24 hours is there.
	same(t, statesOf(t, l), []evidence.Witnessed{signed(orders, 1, 1), signed(orders, 2, 1), late, signedAt(orders, 4, time.Date(2026, 11, 2, 23, 59, 59, 0, time.UTC))})
	files("2026-11-01", "2026-11-02")
	witnessed(t, l, signed(orders, 5, 3))
	files("2026-11-02", "2026-11-03", "daily")
	same(t, statesOf(t, l), []evidence.Witnessed{late, signedAt(orders, 4, time.Date(2026, 11, 2, 23, 59, 59, 0, time.UTC)), signed(orders, 5, 3)})
	witnessed(t, l, signed(orders, 6, 3))
	for _, now := range []time.Time{day(3), day(4)} {
		if err := l.Prune(now); err != nil {
			t.Fatal(err)
		}
	}
	files("2026-11-03", "daily")
	if err := l.Prune(day(5)); err != nil {
		t.Fatal(err)
	}
	files("daily")
	want := []evidence.Witnessed{late, signedAt(orders, 4, time.Date(2026, 11, 2, 23, 59, 59, 0, time.UTC)), signed(orders, 6, 3)}
	same(t, statesOf(t, l), want)
	// The file that was written to is gone; one of the same day is made again.
	witnessed(t, l, signed(orders, 7, 3))
	files("2026-11-03", "daily")
	witnessed(t, l, signed(orders, 8, 9))
	same(t, statesOf(t, l), append(want, signed(orders, 7, 3), signed(orders, 8, 9)))
	if err := ledgerOf(t, l.m, bills).Prune(day(5)); err != nil {
		t.Error(err)
	}
}

// TestClockSet: a day that comes before the one written to is its own file.
func TestClockSet(t *testing.T) {
	t.Parallel()
	dir := room(t)
	l := ledgerOf(t, opened(t, dir, unsynced), orders)
	witnessed(t, l, signed(orders, 1, 5), signed(orders, 2, 28), signed(orders, 3, 5))
	finished(t, l.m)
	l = ledgerOf(t, opened(t, dir, unsynced), orders)
	if err := l.Witness([]evidence.Witnessed{signed(orders, 2, 5)}); !errors.As(err, new(*Behind)) {
		t.Errorf("got %v", err)
	}
	witnessed(t, l, signed(orders, 4, 6))
	same(t, statesOf(t, l), []evidence.Witnessed{signed(orders, 1, 5), signed(orders, 3, 5), signed(orders, 4, 6), signed(orders, 2, 28)})
	// In the end each is where its transaction belongs, and is found there.
	witnessed(t, l, signed(orders, 5, 40))
	want := []evidence.Witnessed{signed(orders, 1, 5), signed(orders, 2, 28), signed(orders, 3, 5), signed(orders, 4, 6), signed(orders, 5, 40)}
	same(t, statesOf(t, l), want)
	for _, w := range want {
		got, err := l.States(w.State.TxID, w.State.TxID, 1)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, []evidence.Witnessed{w})
	}
}

// TestStatesRange compares with a list, on files of many chunks.
func TestStatesRange(t *testing.T) {
	t.Parallel()
	l := ledgerOf(t, opened(t, room(t), unsynced), orders)
	var model []evidence.Witnessed
	for n := range 3 {
		for i := range uint64(1500) {
			model = append(model, signed(orders, uint64(n)*10_000+i*3+1, 10+n))
		}
	}
	witnessed(t, l, model...)
	model = thinned(model, dayOf(day(12)))
	random := rand.New(rand.NewPCG(8, 9))
	for range 300 {
		from, to, limit := random.Uint64N(30_000), random.Uint64N(30_000), random.IntN(2000)
		if random.IntN(2) == 0 {
			to = from + random.Uint64N(30)
		}
		want := slices.DeleteFunc(slices.Clone(model), func(w evidence.Witnessed) bool { return w.State.TxID < from || w.State.TxID > to })
		want = want[max(0, len(want)-limit):]
		got, err := l.States(from, to, limit)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	}
	if got, err := l.States(0, 1<<64-1, -1); len(got) > 0 || err != nil {
		t.Error(len(got), err)
	}
}

// counting counts what is read.
type counting struct {
	io.ReaderAt
	bytes int
}

func (c *counting) ReadAt(p []byte, at int64) (int, error) {
	c.bytes += len(p)
	return c.ReaderAt.ReadAt(p, at)
}

// TestStatesReadsLittle: an old state in a long file is found by bisection.
func TestStatesReadsLittle(t *testing.T) {
	t.Parallel()
	var data []byte
	for tx := uint64(1); tx <= 20_000; tx++ {
		w := signed(orders, tx, 1)
		data = appendLine(data, &w)
	}
	for _, to := range []uint64{0, 1, 7, 9_999, 19_990, 20_000, 1 << 40} {
		f := &counting{ReaderAt: bytes.NewReader(data)}
		b := &backward{f: f, at: int64(len(data))}
		end, err := b.whole()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.skip(end, to); err != nil {
			t.Fatal(err)
		}
		found := uint64(0)
		for found == 0 {
			line, err := b.previous()
			if err != nil {
				t.Fatal(err)
			}
			if line == nil {
				break
			}
			if w, err := parseLine(line); err != nil {
				t.Fatal(err)
			} else if w.State.TxID <= to {
				found = w.State.TxID
			}
		}
		if want := min(to, 20_000); found != want {
			t.Errorf("up to %d: found %d", to, found)
		}
		if f.bytes > 20*chunk {
			t.Errorf("up to %d: %d of %d bytes are read", to, f.bytes, len(data))
		}
	}
}

// TestStatesAside: states go with the history they are of.
func TestStatesAside(t *testing.T) {
	t.Parallel()
	dir := room(t)
	m := opened(t, dir, unsynced)
	l := ledgerOf(t, m, orders)
	appended(t, l, 1, alhs("a", 1, 300))
	all := []evidence.Witnessed{signed(orders, 100, 1), signed(orders, 200, 3), signed(orders, 250, 4), signed(orders, 300, 4), signed(orders, 320, 4)}
	witnessed(t, l, all...)
	if err := l.Truncate(300); err != nil { // the mirror was behind
		t.Fatal(err)
	}
	same(t, statesOf(t, l), all[:4])
	if err := errors.Join(l.Truncate(300), l.Truncate(300)); err != nil {
		t.Fatal(err)
	}
	if err := l.Truncate(220); err != nil {
		t.Fatal(err)
	}
	same(t, statesOf(t, l), all[:2])
	fork := signed(orders, 240, 5)
	fork.State.Alh = proof.Hash{1}
	witnessed(t, l, fork)
	same(t, statesOf(t, l), append(all[:2:2], fork))
	if err := l.Rename(moved); err != nil {
		t.Fatal(err)
	}
	same(t, statesOf(t, l), append(all[:2:2], fork)) // with the name that was signed
	last := signed(moved, 400, 5)
	witnessed(t, l, last)
	finished(t, m)
	m = opened(t, dir, unsynced)
	l = ledgerOf(t, m, moved)
	same(t, statesOf(t, l), append(all[:2:2], fork, last))
	witnessed(t, l, last) // is known already
	folder := l.folder
	if err := m.SetAside(moved); err != nil {
		t.Fatal(err)
	}
	same(t, statesOf(t, l), nil)
	witnessed(t, l, signed(moved, 2, 6))
	for n, want := range map[string][]evidence.Witnessed{
		filepath.Join(folderOf(orders), "1"): all,
		filepath.Join(folderOf(orders), "2"): all[:4],
		filepath.Join(folder, "1"):           append(all[:2:2], fork, last),
	} {
		other := room(t)
		if err := os.Mkdir(other, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, asideFolder, n), filepath.Join(other, filepath.Dir(n))); err != nil {
			t.Fatal(err)
		}
		name := orders
		if strings.HasPrefix(n, folder) {
			name = moved
		}
		same(t, statesOf(t, ledgerOf(t, opened(t, other, unsynced), name)), want)
	}
	if _, err := os.Stat(filepath.Join(dir, asideFolder, folderOf(orders), "3")); err == nil {
		t.Error("set aside although there was nothing to set aside")
	}
}

// TestStatesModel does whatever may be done, in any order, and compares with a
// list.
func TestStatesModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 10))
		dir := room(t)
		m := opened(t, dir, unsynced)
		l := ledgerOf(t, m, orders)
		name, now, tx, model := orders, day(1), uint64(0), []evidence.Witnessed(nil)
		for range 60 {
			switch random.IntN(8) {
			default:
				var more []evidence.Witnessed
				for range random.IntN(40) {
					tx += 1 + random.Uint64N(3)
					now = now.Add(time.Duration(random.IntN(8000)) * time.Second)
					more = append(more, signedAt(name, tx, now))
					model = thinned(append(model, more[len(more)-1]), dayOf(now))
				}
				witnessed(t, l, more...)
			case 4:
				finished(t, m)
				m = opened(t, dir, unsynced)
				l = ledgerOf(t, m, name)
			case 5:
				now = now.Add(time.Duration(random.IntN(80)) * time.Hour)
				model = thinned(model, dayOf(now))
				if err := l.Prune(now); err != nil {
					t.Fatal(err)
				}
			case 6:
				size := uint64(random.IntN(300))
				appended(t, l, l.Size()+1, alhs(fmt.Sprint(seed), l.Size()+1, l.Size()+1+size))
				size = random.Uint64N(l.Size() + 1)
				if err := l.Truncate(size); err != nil {
					t.Fatal(err)
				}
				model = slices.DeleteFunc(model, func(w evidence.Witnessed) bool { return w.State.TxID > size })
				tx = min(tx, size)
			case 7:
				name.Database += " É"
				if err := l.Rename(name); err != nil {
					t.Fatal(err)
				}
			}
			same(t, statesOf(t, l), model)
		}
	}
}

package verify_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// TestFlips flips random bits of what is stored of a mixed ledger, as a failing
// or a forging disk would, behind servers that report the damage and behind
// some that hide it. Every flip that changes an entry or a value is found and
// named, and nothing else is.
//
// IMMUAUDIT_SOAK=<ledgers> makes it longer, IMMUAUDIT_SEED=<seed> makes it the
// ones from that seed on.
func TestFlips(t *testing.T) {
	t.Parallel()
	ledgers, seed := numberFrom(t, "IMMUAUDIT_SOAK", 24), numberFrom(t, "IMMUAUDIT_SEED", rand.Uint64N(1<<32))
	t.Logf("IMMUAUDIT_SOAK=%d IMMUAUDIT_SEED=%d", ledgers, seed)
	for i := range ledgers {
		t.Run(fmt.Sprint(seed+i), func(t *testing.T) {
			t.Parallel()
			f := newFlips(t, seed+i)
			f.check(nil, nil) // nothing was flipped
			for range 12 {
				f.once()
			}
		})
	}
}

func numberFrom(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: give a number", name, text)
	}
	return n
}

// flips is a mixed ledger, and what was flipped in it.
type flips struct {
	*rig
	random *rand.Rand
	honest *ledger.Snapshot
	hides  bool
	export bool
	about  string // the run, for messages
}

func newFlips(t *testing.T, seed uint64) *flips {
	f := &flips{random: rand.New(rand.NewPCG(seed, 11))}
	lag := f.random.Uint64N(5)
	f.rig = newRig(t, ledger.Config{HeaderVersion: 1, BlTxID: func(_ string, id uint64) uint64 {
		return id - 1 - min(lag*(id%3), id-1)
	}})
	f.commit(ledger.Tx{Entries: []ledger.Entry{{Key: []byte("always"), Value: []byte("there")}}})
	n := 20 + f.random.IntN(30)
	for range f.random.IntN(3) { // what was truncated before
		for i := range 6 + f.random.IntN(8) {
			f.commit(f.transaction(1000 + i))
		}
		last, _ := f.db.State()
		f.truncate(last - f.random.Uint64N(4))
		f.commit(ledger.Tx{Entries: []ledger.Entry{{Key: []byte("always"), Value: []byte("there")}}})
	}
	var txs []ledger.Tx
	for i := range n {
		txs = append(txs, f.transaction(i))
	}
	f.commit(txs...)
	f.remember()
	f.honest = f.db.Snapshot()
	f.layer.Add(f.hiding())
	return f
}

// transaction makes one of any kinds of entries, or of none.
func (f *flips) transaction(i int) (tx ledger.Tx) {
	version := f.random.IntN(2)
	tx.HeaderVersion = &version
	if version == 1 && f.random.IntN(5) == 0 {
		tx.Metadata.Extra = []byte("extra")
	}
	for j := range f.random.IntN(5) {
		key, value := fmt.Appendf(nil, "%d/%d", i, j), make([]byte, 1+f.random.IntN(60))
		for n := range value {
			value[n] = byte(f.random.IntN(256))
		}
		e := ledger.Entry{Key: key, Value: value}
		switch f.random.IntN(10) {
		case 0, 1:
			e = ledger.Entry{Key: append([]byte{2}, key...), Value: value, Raw: true}
		case 2:
			e = ledger.Entry{Key: append([]byte{3}, key...), Value: value, Raw: true}
		case 3:
			e = ledger.ZSetEntry(key, []byte("always"), 1, 0)
		case 4:
			e = ledger.ReferenceEntry(key, []byte("always"), uint64(f.random.IntN(2)))
		case 5:
			if version == 1 {
				e.Metadata.ExpiresAt = 1 + int64(f.random.IntN(2))*1<<33
			}
		case 6:
			e.Metadata.Deleted = version == 1
		case 7:
			if version == 1 {
				e.Metadata.NonIndexable = true
			}
		}
		tx.Entries = append(tx.Entries, e)
	}
	return tx
}

// hiding serves what is stored, damaged or not, in place of the server's word
// that it is damaged.
func (f *flips) hiding() attack.Rule {
	return attack.Rule{Around: func(_ context.Context, c *attack.Call, next func() (any, error)) (any, error) {
		response, err := next()
		if err == nil || !f.hides {
			return response, err
		}
		switch r := c.Request.(type) {
		case *schema.TxScanRequest:
			list := &schema.TxList{}
			last, _ := f.db.State()
			for tx := r.InitialTx; tx <= last && tx < r.InitialTx+uint64(r.Limit); tx++ {
				m := f.raw(tx, r.EntriesSpec)
				if m == nil {
					return response, err
				}
				list.Txs = append(list.Txs, m)
			}
			return list, nil
		case *schema.TxRequest:
			if m := f.raw(r.Tx, r.EntriesSpec); m != nil {
				return m, nil
			}
		case *schema.KeyRequest:
			tx, e2 := f.db.Snapshot().Tx(r.AtTx)
			if e2 != nil {
				break
			}
			for _, e := range tx.Entries {
				if len(e.Value) > 0 && !e.Gone && bytes.Equal(e.Key, append([]byte{0}, r.Key...)) {
					return &schema.Entry{Tx: r.AtTx, Key: r.Key, Value: e.Value[1:]}, nil
				}
			}
		}
		return response, err
	}}
}

// raw is a transaction as a server lists it that checks nothing; nil where
// values are gone.
func (f *flips) raw(id uint64, spec *schema.EntriesSpec) *schema.Tx {
	tx, err := f.db.Snapshot().Tx(id)
	if err != nil {
		return nil
	}
	h := &tx.Header
	m := &schema.Tx{Header: &schema.TxHeader{
		Id: h.ID, PrevAlh: h.PrevAlh[:], Ts: h.Ts, Nentries: int32(h.NEntries), EH: h.EH[:], BlTxId: h.BlTxID, BlRoot: h.BlRoot[:], Version: int32(h.Version),
	}}
	if md := h.Metadata; md.TruncatedTxID > 0 || len(md.Extra) > 0 {
		m.Header.Metadata = &schema.TxMetadata{TruncatedTxID: md.TruncatedTxID, Extra: md.Extra}
	}
	wanted := map[byte]schema.EntryTypeAction{0: spec.GetKvEntriesSpec().GetAction(), 1: spec.GetZEntriesSpec().GetAction(), 2: spec.GetSqlEntriesSpec().GetAction()}
	for i := range tx.Entries {
		e := &tx.Entries[i]
		switch {
		case wanted[e.Key[0]] != schema.EntryTypeAction_RAW_VALUE, e.Metadata.ExpiresAt == 1:
			continue
		case e.Gone && e.HValue != ledger.HashValue(nil):
			return nil
		}
		x := &schema.TxEntry{Key: e.Key, HValue: e.HValue[:], Value: e.Value}
		if md := e.Metadata; md != (ledger.EntryMetadata{}) {
			x.Metadata = &schema.KVMetadata{Deleted: md.Deleted, NonIndexable: md.NonIndexable}
			if md.ExpiresAt > 0 {
				x.Metadata.Expiration = &schema.Expiration{ExpiresAt: md.ExpiresAt}
			}
		}
		m.Entries = append(m.Entries, x)
	}
	return m
}

// once flips some bits, in one to three transactions, has them found, and puts
// everything back.
func (f *flips) once() {
	f.t.Helper()
	f.hides, f.export = f.random.IntN(2) == 0, f.random.IntN(2) == 0
	last, _ := f.db.State()
	want := map[string]bool{}
	headers := 0
	f.about = fmt.Sprintf("hidden %v, exports %v", f.hides, f.export)
	for _, tx := range f.random.Perm(int(last) - 1)[:1+f.random.IntN(3)] {
		what := f.flip(uint64(tx) + 2)
		if what == "" {
			continue
		}
		want[what] = true
		if what[:2] == "he" {
			headers++
		}
	}
	f.check(want, f.blamed(want))
	if err := f.db.Restore(f.honest); err != nil {
		f.t.Fatal(err)
	}
}

// flip flips a bit of a transaction and says what there is to be found, if
// anything.
func (f *flips) flip(tx uint64) (want string) {
	f.t.Helper()
	bit := func(b []byte) {
		if len(b) > 0 {
			b[f.random.IntN(len(b))] ^= 1 << f.random.IntN(8)
		}
	}
	f.tamper(func(h *ledger.History) {
		s := h.Tx(tx)
		f.about += fmt.Sprintf(", transaction %d", tx)
		if len(s.Entries) == 0 || f.random.IntN(6) == 0 {
			hd := &s.Header
			if hd.Metadata.TruncatedTxID > 0 {
				return // then nothing that can be trusted explains what is gone
			}
			switch f.random.IntN(5) {
			case 0:
				bit(hd.PrevAlh[:])
			case 1:
				bit(hd.EH[:])
			case 2:
				if hd.BlTxID == 0 {
					return // no header at all: malformed, and unread
				}
				bit(hd.BlRoot[:])
			case 3:
				hd.Ts ^= 1 << f.random.IntN(30)
			default:
				hd.NEntries ^= 1 << f.random.IntN(8)
			}
			f.about += " header"
			want = fmt.Sprintf("header %d ", tx)
			return
		}
		i := f.random.IntN(len(s.Entries))
		e := &s.Entries[i]
		f.about += fmt.Sprintf(" entry %d %x", i, e.Key)
		switch f.random.IntN(5) {
		case 0:
			e.Key = slices.Clone(e.Key)
			bit(e.Key)
			want = fmt.Sprintf("entries %d ", tx)
		case 1:
			bit(e.HValue[:])
			want = fmt.Sprintf("entries %d ", tx)
		case 2:
			if s.Header.Version == 0 {
				return
			}
			switch f.random.IntN(3) {
			case 0:
				e.Metadata.Deleted = !e.Metadata.Deleted
			case 1:
				e.Metadata.NonIndexable = !e.Metadata.NonIndexable
			default:
				e.Metadata.ExpiresAt ^= 1 << (20 + f.random.IntN(10))
			}
			want = fmt.Sprintf("entries %d ", tx)
		default:
			if len(e.Value) == 0 || e.Gone {
				return
			}
			e.Value = slices.Clone(e.Value)
			bit(e.Value)
			if want = valueFound(tx, e.Key); f.visible(s, i) {
				return
			}
			want = ""
		}
	})
	return want
}

// visible reports whether a value is shown to an auditor at all.
func (f *flips) visible(s *ledger.StoredTx, i int) bool {
	e := &s.Entries[i]
	// No export is made of a transaction that retention may have touched.
	export := f.export && s.Header.ID >= f.truncated()
	switch {
	case e.Metadata.ExpiresAt == 1, e.Key[0] == ledger.PrefixDocument:
		return export
	}
	return true
}

// truncated is before which transaction values may be gone.
func (f *flips) truncated() (before uint64) {
	last, _ := f.db.State()
	for tx := uint64(1); tx <= last; tx++ {
		s, err := f.honest.Tx(tx)
		if err != nil {
			f.t.Fatal(err)
		}
		before = max(before, s.Header.Metadata.TruncatedTxID)
	}
	return before
}

// blamed are values that may be found although they were not flipped. Where the
// server refuses to list a transaction for what else is damaged in it, its
// entries are read one by one, and a reference is read through its target only:
// if that is damaged as well, nobody can tell which of the two it was.
func (f *flips) blamed(want map[string]bool) map[string]bool {
	f.t.Helper()
	last, _ := f.db.State()
	damaged := false // the value of "always", as of now
	values := map[string]bool{}
	for id := uint64(1); id <= last; id++ {
		tx, err := f.db.Snapshot().Tx(id)
		if err != nil {
			f.t.Fatal(err)
		}
		refused := false
		for i := range tx.Entries {
			e := &tx.Entries[i]
			if string(e.Key) == "\x00always" {
				damaged = ledger.HashValue(e.Value) != e.HValue
			}
			refused = refused || want[valueFound(id, e.Key)]
		}
		for i := range tx.Entries {
			if e := &tx.Entries[i]; refused && len(e.Value) > 0 && e.Key[0] == ledger.PrefixKV && e.Value[0] == 1 {
				values[valueFound(id, e.Key)] = true
			}
		}
	}
	if f.hides || !damaged {
		return nil
	}
	return values
}

// valueFound is how the damage of a value is written.
func valueFound(tx uint64, key []byte) string {
	return fmt.Sprintf("value %d %s", tx, hex.EncodeToString(key))
}

// check runs and wants just this found; what may be found can be missing.
func (f *flips) check(want, may map[string]bool) {
	f.t.Helper()
	for _, mirrored := range []bool{true, false} {
		o := f.options()
		if !mirrored {
			for what := range want {
				if what[:2] == "he" { // what is before it is bound to nothing
					return
				}
			}
			o = f.unmirrored()
		}
		o.Export = f.export
		sum, err := f.verify(o)
		got := map[string]bool{}
		for _, d := range sum.Damages {
			key := d.Where.Key
			if key == "" && d.Kind.AboutData() && d.Kind != "entries" {
				// Rows of SQL, and what is not indexed, are not told apart.
				prefix := fmt.Sprintf("value %d ", d.Tx)
				for what := range want {
					if rest, ok := strings.CutPrefix(what, prefix); ok {
						key = rest
					}
				}
			}
			got[fmt.Sprintf("%s %d %s", d.Kind, d.Tx, key)] = true
		}
		found := len(want)
		for what := range want {
			if !got[what] {
				f.t.Errorf("%s, mirror %v: not found: %q; found are %v", f.about, mirrored, what, got)
			}
		}
		for what := range got {
			if may[what] && !want[what] {
				found++
			} else if !want[what] {
				f.t.Errorf("%s, mirror %v: found although not flipped: %q; flipped are %v", f.about, mirrored, what, want)
			}
		}
		if err != nil || uint64(found) != sum.Tally.Damages() || sum.Unstable > 0 {
			f.t.Errorf("%s, mirror %v: %v: %+v", f.about, mirrored, err, sum.Tally)
		}
	}
}

package wire_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// stocked is a ledger with a transaction of every kind of entry after the 20
// that open commits.
func stocked(t *testing.T, config ledger.Config, change ...func(*wire.Options)) (*ledger.Database, *wire.Client) {
	t.Helper()
	l, c := open(t, config, change...)
	db, err := l.Database(ledger.DefaultDB)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.CommitAll([]ledger.Tx{
		{Entries: []ledger.Entry{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b"), Value: []byte("2")}}}, // 21
		{Entries: []ledger.Entry{ledger.ReferenceEntry([]byte("ref"), []byte("a"), 0), ledger.ReferenceEntry([]byte("bound"), []byte("a"), 21)}},
		{Entries: []ledger.Entry{ledger.ZSetEntry([]byte("set"), []byte("a"), 1, 0), {Key: []byte("\x02row"), Value: []byte("sql"), Raw: true}}},
		{Entries: []ledger.Entry{{Key: []byte("\x03doc"), Value: []byte("document"), Raw: true}, {Key: []byte("c"), Value: nil}}},
		{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return db, c
}

// contents lists transactions as text: key=value, key without one.
func contents(t *testing.T, c *wire.Client, from uint64, limit int, values []byte) (list []string, err error) {
	t.Helper()
	_, err = c.Transactions(t.Context(), ledger.DefaultDB, from, limit, values, func(h *proof.Header, entries []proof.ExportedEntry) error {
		var text []string
		for _, e := range entries {
			s := fmt.Sprintf("%.4q", e.Key)
			if e.Value != nil {
				s += fmt.Sprintf("=%q", e.Value)
			}
			text = append(text, s)
		}
		if h.ID != from+uint64(len(list)) {
			t.Errorf("transaction %d as number %d from %d", h.ID, len(list), from)
		}
		list = append(list, strings.Join(text, " "))
		return nil
	})
	return list, err
}

func TestContractTransactions(t *testing.T) {
	t.Parallel()
	_, c := stocked(t, ledger.Config{HeaderVersion: 1})
	for _, tt := range []struct {
		values []byte
		want   []string
	}{
		{nil, []string{`"\x00a" "\x00b"`, `"\x00ref" "\x00bou"`, `"\x01\x00\x00\x00" "\x02row"`, `"\x03doc" "\x00c"`, ``}},
		{[]byte{0, 1, 2}, []string{
			`"\x00a"="\x001" "\x00b"="\x002"`, `"\x00ref"="\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00a" "\x00bou"="\x01\x00\x00\x00\x00\x00\x00\x00\x15\x00a"`,
			`"\x01\x00\x00\x00" "\x02row"="sql"`, `"\x00c"="\x00"`, ``,
		}},
		{[]byte{2}, []string{``, ``, `"\x02row"="sql"`, ``, ``}},
		{[]byte{}, []string{``, ``, ``, ``, ``}},
	} {
		got, err := contents(t, c, 21, 1000, tt.values)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("values of %v: %q, %v", tt.values, got, err)
		}
		for i := range tt.want { // and one by one
			got, err := contents(t, c, 21+uint64(i), 1, tt.values)
			if err != nil || len(got) != 1 || got[0] != tt.want[i] {
				t.Errorf("values of %v in %d: %q, %v", tt.values, 21+i, got, err)
			}
		}
	}
	if got, err := contents(t, c, 26, 10, nil); err != nil || len(got) > 0 {
		t.Errorf("beyond the end: %q, %v", got, err)
	}
	_, err := contents(t, c, 26, 1, nil)
	wantReason(t, err, wire.TxNotFound)
	if calls := c.Stats().Calls; calls["TxScan"] != 5 || calls["TxById"] != 21 {
		t.Errorf("calls %v", calls)
	}
}

// Servers before 1.2.3 list everything without values, whatever they are asked.
func TestContractOldTransactions(t *testing.T) {
	t.Parallel()
	_, c := stocked(t, ledger.Config{Version: "1.0.5"})
	for _, values := range [][]byte{nil, {0, 1, 2}, {}} {
		got, err := contents(t, c, 21, 2, values)
		if err != nil || !slices.Equal(got, []string{`"\x00a" "\x00b"`, `"\x00ref" "\x00bou"`}) {
			t.Errorf("values of %v: %q, %v", values, got, err)
		}
	}
}

func TestContractDamage(t *testing.T) {
	t.Parallel()
	db, c := stocked(t, ledger.Config{HeaderVersion: 1})
	edit := func(f func(h *ledger.History)) {
		t.Helper()
		if err := db.Tamper(f); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(h *ledger.History) { h.SetValue(21, 0, []byte("\x00x")); h.RemoveValue(23, 1) })
	var f *wire.Fault
	for what, call := range map[string]func() error{
		"a page":  func() error { _, err := contents(t, c, 15, 7, []byte{0, 1, 2}); return err },
		"one":     func() error { _, err := contents(t, c, 21, 1, []byte{0, 1, 2}); return err },
		"a value": func() error { _, err := c.ValueAt(t.Context(), ledger.DefaultDB, []byte("\x00a"), 21); return err },
	} {
		if err := call(); !errors.As(err, &f) || !f.Damaged() || f.Gone() || f.Reason() != wire.Refused {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := contents(t, c, 22, 3, []byte{0, 1, 2}); !errors.As(err, &f) || !f.Gone() || f.Damaged() {
		t.Errorf("gone: %v", err)
	}
	if _, err := contents(t, c, 15, 10, nil); err != nil {
		t.Errorf("digests need no values: %v", err)
	}
	// None of this says anything about the token.
	if got := c.Stats().Calls["UseDatabase"]; got != 1 {
		t.Errorf("%d tokens", got)
	}
}

func TestContractValueAt(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0.5", "1.11.1"} {
		db, c := stocked(t, ledger.Config{Version: version})
		snapshot := db.Snapshot()
		for tx := uint64(20); tx <= 24; tx++ {
			stored, err := snapshot.Tx(tx)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range stored.Entries {
				if e.Key[0] != ledger.PrefixKV {
					continue
				}
				forms, err := c.ValueAt(t.Context(), ledger.DefaultDB, e.Key, tx)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(forms, func(b []byte) bool { return sha256.Sum256(b) == e.HValue }) {
					t.Errorf("%s: none of %q is the value of %q at %d", version, forms, e.Key, tx)
				}
			}
		}
		_, err := c.ValueAt(t.Context(), ledger.DefaultDB, []byte("\x00a"), 20)
		wantReason(t, err, wire.Refused)
		_, err = c.ValueAt(t.Context(), ledger.DefaultDB, []byte("\x02row"), 23)
		wantReason(t, err, wire.Malformed)
	}
}

func TestContractExport(t *testing.T) {
	t.Parallel()
	for version, config := range map[string]ledger.Config{"1.0.5": {Version: "1.0.5"}, "1.2.4": {Version: "1.2.4", HeaderVersion: 1}, "1.11.1": {HeaderVersion: 1}} {
		db, c := stocked(t, config)
		if err := db.Tamper(func(h *ledger.History) { h.SetValue(21, 0, []byte("\x00x")) }); err != nil {
			t.Fatal(err)
		}
		snapshot := db.Snapshot()
		for tx := uint64(20); tx <= 25; tx++ {
			stored, err := snapshot.Tx(tx)
			if err != nil {
				t.Fatal(err)
			}
			x, err := c.Export(t.Context(), ledger.DefaultDB, tx)
			if tx == 21 && version != "1.11.1" && err != nil {
				continue // they check the values
			}
			if err != nil || x.Header.Alh() != stored.Alh || len(x.Entries) != len(stored.Entries) {
				t.Errorf("%s: export of %d: %+v, %v", version, tx, x, err)
				continue
			}
			for i, e := range x.Entries {
				if string(e.Value) != string(stored.Entries[i].Value) {
					t.Errorf("%s: export of %d has %q", version, tx, e.Value)
				}
			}
		}
		_, err := c.Export(t.Context(), ledger.DefaultDB, 26)
		wantReason(t, err, wire.TxNotFound)
		_, err = c.Export(t.Context(), ledger.DefaultDB, 0)
		wantReason(t, err, wire.Malformed)
		if got := c.Stats().Calls["exportTx"]; got != 7 {
			t.Errorf("%d exports counted", got)
		}
	}
}

// A large export comes in pieces; one that is too large, or has no end, or does
// not come at all, costs no more than the limits say.
func TestContractExportBounds(t *testing.T) {
	t.Parallel()
	layer := attack.NewLayer()
	l, c := open(t, layer.Config(ledger.Config{HeaderVersion: 1}), func(o *wire.Options) { o.MaxRecvMsgSize, o.CallTimeout = 1<<20, time.Second })
	db, err := l.Database(ledger.DefaultDB)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{900 << 10, 1100 << 10} {
		tx, err := db.Set([]byte("large"), make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Export(t.Context(), ledger.DefaultDB, tx)
		if size < 1<<20 && (err != nil || len(x.Entries[0].Value) != size+1) {
			t.Error(err)
		}
		if size > 1<<20 {
			wantReason(t, err, wire.TooLarge)
		}
	}
	// One that is partly gone blocks this and all later ones.
	if _, err := db.Commit(ledger.Tx{Entries: []ledger.Entry{{Key: []byte("x"), Value: []byte("1")}, {Key: []byte("y"), Value: []byte("2")}}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Tamper(func(h *ledger.History) { h.RemoveValue(23, 0) }); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = c.Export(t.Context(), ledger.DefaultDB, 23)
	wantReason(t, err, wire.Timeout)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("a second took %s", took)
	}
	s, _ := attack.Find("endless-export")
	if err := s.Strike(attack.NewStage(l, layer, ledger.DefaultDB)); err != nil {
		t.Fatal(err)
	}
	_, err = c.Export(t.Context(), ledger.DefaultDB, 1)
	wantReason(t, err, wire.TooLarge)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Export(ctx, ledger.DefaultDB, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Readers may list everything, and export nothing.
func TestContractExportPermission(t *testing.T) {
	t.Parallel()
	l, c := open(t, ledger.Config{}, func(o *wire.Options) { o.Username, o.Password = "auditor", "Auditor-1" })
	if err := errors.Join(l.CreateUser("auditor", "Auditor-1"), l.Grant("auditor", ledger.DefaultDB, ledger.Read)); err != nil {
		t.Fatal(err)
	}
	if got, err := contents(t, c, 1, 2, []byte{0, 1, 2}); err != nil || len(got) != 2 {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.ValueAt(t.Context(), ledger.DefaultDB, []byte("\x00k0"), 1); err != nil {
		t.Error(err)
	}
	_, err := c.Export(t.Context(), ledger.DefaultDB, 1)
	wantReason(t, err, wire.Unauthorised)
}

package verify_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
	"immuaudit/internal/wire"
	"immuaudit/proof"
)

// ordinary is a script of so many transactions, each with a key/value entry, a
// row of SQL and, if it is a tenth one, a document.
func ordinary(t testing.TB, n int) *script {
	t.Helper()
	s := &script{}
	for i := range n {
		entries := []proof.ExportedEntry{put(fmt.Sprint("\x00k", i), "v"), put(fmt.Sprint("\x02r", i), "row")}
		if i%10 == 9 {
			entries = append(entries, put(fmt.Sprint("\x03d", i), "document"))
		}
		s.add(t, proof.TxMetadata{}, entries...)
	}
	return s
}

// found is what a run has found, as text.
func found(sum *verify.Summary) (list []string) {
	for _, d := range sum.Damages {
		list = append(list, fmt.Sprintf("%s %d %s", d.Kind, d.Tx, d.Where.KeyText))
	}
	return list
}

// What a server refuses to show of one transaction, call by call and in
// whatever words, is damage where it says so, is unread where it does not, and
// keeps nobody from looking at the others.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const tx = 20 // with a document
	in := func(ops ...string) func(call) bool {
		return func(c call) bool { return c.has(tx) && slices.Contains(ops, c.op) }
	}
	all := in("values", "digests", "none", "headers", "get", "export")
	for name, tt := range map[string]struct {
		which  func(call) bool
		words  string
		want   []string
		unread bool
	}{
		"everything, damaged":          {all, corrupted, []string{"header 20 "}, false},
		"everything, gone":             {all, endOfFile, []string{"header 20 "}, false},
		"everything, odd":              {all, "odd", nil, true},
		"entries, damaged":             {in("values", "digests", "none", "get", "export"), corrupted, []string{"entries 20 "}, false},
		"entries, gone":                {in("values", "digests", "none", "get", "export"), endOfFile, []string{"entries 20 "}, false},
		"entries, odd":                 {in("values", "digests", "none", "get", "export"), "odd", nil, true},
		"digests alone, damaged":       {in("digests"), corrupted, []string{"entries 20 "}, false},
		"digests and headers, damaged": {in("digests", "headers"), corrupted, []string{"header 20 "}, false},
		"digests alone, odd":           {in("digests"), "odd", nil, true},
		"values, damaged":              {in("values", "get"), corrupted, []string{"value 20 k19", "value 20 r19"}, false},
		"values, gone":                 {in("values", "get"), endOfFile, []string{"value-missing 20 k19", "value-missing 20 r19"}, false},
		"values, odd":                  {in("values", "get"), "odd", nil, true},
		"listings, damaged":            {in("values"), corrupted, []string{"value 20 r19"}, false},
		"listings, odd":                {in("values"), "odd", nil, true},
		"rows, odd":                    {func(c call) bool { return c.has(tx) && c.op == "values" && strings.Contains(c.values, "\x02") }, "odd", nil, true},
	} {
		for _, mirrored := range []bool{true, false} {
			s := ordinary(t, 60)
			s.before = func(c call) error {
				if tt.which(c) {
					return refused(tt.words)
				}
				return nil
			}
			o := s.options()
			if !mirrored {
				o = s.unmirrored()
			}
			sum, err := verified(t, t.Context(), o)
			got := found(&sum)
			if !slices.Equal(got, tt.want) || tt.unread != (err != nil) || sum.Transactions != 60 || sum.Tally.Damages() != uint64(len(tt.want)) {
				t.Errorf("%s, mirror %v: %v: %q: %+v", name, mirrored, err, got, sum.Tally)
			}
			if tt.unread && (len(sum.Unread) != 1 || sum.Unread[0].Tx != tx || sum.Tally.Unread != 1 || sum.Through != tx-1 || !strings.Contains(err.Error(), "odd")) {
				t.Errorf("%s: %v: %+v", name, err, sum)
			}
			// All others are looked at, and are bound where something is known
			// of them.
			if verified := sum.Total().Verified; verified < 2*59 && (mirrored || sum.Loose == 0) {
				t.Errorf("%s, mirror %v: %+v", name, mirrored, sum.Tally)
			}
			for _, d := range sum.Damages {
				if d.Kind == evidence.Entries && (d.Header == nil || d.Want == "" || d.Got != "unreadable") || d.Kind == evidence.Header && d.Header != nil || !strings.Contains(d.Detail, tt.words) {
					t.Errorf("%s: %+v", name, d)
				}
			}
		}
	}
}

// Several that cannot be read, found out in another order than they stand in:
// nothing is settled beyond the first of them.
func TestUnreadInOrder(t *testing.T) {
	t.Parallel()
	s := ordinary(t, 60)
	s.before = func(c call) error {
		// 25 at once, 20 when its document is looked for, 22 at last.
		if c.has(25) && c.op == "values" || c.has(20) && c.op == "digests" || c.has(22) && c.op != "headers" {
			return refused("odd")
		}
		return nil
	}
	for _, o := range []verify.Options{s.options(), s.unmirrored()} {
		sum, err := verified(t, t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "first is 20") || sum.Through != 19 || len(sum.Unread) != 3 || sum.Unread[1].Tx != 22 || sum.Unread[2].Tx != 25 || sum.Total().Verified < 2*57 {
			t.Errorf("%v: %+v", err, sum)
		}
	}
}

// A server that shows another header in one listing than in the next one of the
// same transaction shows two histories: found where it goes on doing so, and
// never called verified.
func TestTwoHeaders(t *testing.T) {
	t.Parallel()
	for name, which := range map[string]func(call) bool{
		"digests":         func(c call) bool { return c.op == "digests" },
		"single values":   func(c call) bool { return c.op == "values" && len(c.values) == 1 },
		"pages of values": func(c call) bool { return c.op == "values" && c.limit > 1 },
	} {
		for _, mirrored := range []bool{true, false} {
			s := ordinary(t, 30)
			s.show = func(c call, h *proof.Header, entries []proof.ExportedEntry) (*proof.Header, []proof.ExportedEntry) {
				if h.ID == 20 && which(c) {
					h.Ts++
				}
				return h, entries
			}
			s.before = func(c call) error {
				if c.has(20) && len(c.values) > 1 && name == "single values" {
					return refused(corrupted)
				}
				return nil
			}
			o := s.options()
			if !mirrored {
				o = s.unmirrored()
			}
			sum, err := verified(t, t.Context(), o)
			if err == nil && (len(sum.Damages) != 1 || sum.Damages[0].Kind != evidence.Header || sum.Damages[0].Tx != 20 || sum.Headers != 1 || sum.Clean > 19) {
				t.Errorf("%s, mirror %v: %+v", name, mirrored, sum)
			}
			if err != nil {
				var stopped *verify.Stopped
				if !errors.As(err, &stopped) || sum.Through >= 20 {
					t.Errorf("%s, mirror %v: %v: %+v", name, mirrored, err, sum)
				}
			}
		}
	}
}

// A listing that ends early is asked for again from there; one that shows
// nothing of what is trusted ends the run.
func TestShortListings(t *testing.T) {
	t.Parallel()
	s := ordinary(t, 100)
	s.show = func(c call, h *proof.Header, entries []proof.ExportedEntry) (*proof.Header, []proof.ExportedEntry) {
		if h.ID > c.from+2 {
			return nil, nil
		}
		return h, entries
	}
	sum, err := verified(t, t.Context(), s.options())
	if err != nil || sum.Clean != 100 || sum.Total().Verified != 200 {
		t.Errorf("%v: %+v", err, sum)
	}
	for _, op := range []string{"values", "digests"} {
		s.show = func(c call, h *proof.Header, entries []proof.ExportedEntry) (*proof.Header, []proof.ExportedEntry) {
			if h.ID == 50 && c.op == op {
				return nil, nil
			}
			return h, entries
		}
		sum, err = verified(t, t.Context(), s.options())
		var stopped *verify.Stopped
		if !errors.As(err, &stopped) || !strings.Contains(err.Error(), "does not show transaction 50") || sum.Through >= 50 {
			t.Errorf("%s: %v: %+v", op, err, sum)
		}
	}
}

// A digest listing of several that fails for the connection is not blamed on
// any of them.
func TestFillTrouble(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{wire.Unauthorised, wire.NotFound} {
		s := ordinary(t, 100)
		s.before = func(c call) error {
			if c.op == "digests" && c.has(40) {
				return fault(kind)
			}
			return nil
		}
		sum, err := verified(t, t.Context(), s.options())
		var f *wire.Fault
		if !errors.As(err, &f) || f.Kind != kind || sum.Through >= 40 || sum.Tally.Unread > 0 {
			t.Errorf("%s: %v: %+v", kind, err, sum)
		}
	}
	// Too large together, and not one by one.
	s := &script{}
	for range 100 {
		s.add(t, proof.TxMetadata{}, put("\x00k", "v"), put("\x03document", "d"))
	}
	s.before = func(c call) error {
		if c.op == "digests" && c.limit > 1 {
			return fault(wire.TooLarge)
		}
		return nil
	}
	if sum, err := verified(t, t.Context(), s.options()); err != nil || sum.Clean != 100 || sum.Total().Unseen != 100 || sum.Unstable > 0 {
		t.Errorf("%v: %+v", err, sum)
	}
}

// The entries of servers before 1.2.3 wait for their values in part of memory
// only, however many transactions are looked at together.
func TestPartedInMemory(t *testing.T) {
	t.Parallel()
	const txs, each = 40, 2000
	s := &script{old: true}
	for range 32 { // by which it is found out what server it is
		s.add(t, proof.TxMetadata{}, put("\x00k", "v"))
	}
	for range txs {
		s.add(t, proof.TxMetadata{}, pairs(each, 6, "v")...)
	}
	var mu sync.Mutex
	listed, got, most := 0, 0, 0
	s.before = func(c call) error {
		if c.limit > 2 {
			return fault(wire.TooLarge)
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case c.from <= 32:
		case c.op == "values":
			listed += min(c.limit, txs+33-int(c.from)) * each
		case c.op == "get":
			got++
		}
		most = max(most, listed-got)
		return nil
	}
	o := s.options()
	o.MemoryBytes = 1
	sum, err := verified(t, t.Context(), o)
	if err != nil || sum.Total().Verified != 32+txs*each || most > 2*each+1<<14+2*each {
		t.Errorf("%v: %d waited at a time: %+v", err, most, sum.Tally)
	}
}

// Keys are named so that a person can read them, and never beyond measure.
func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", 3000)
	for key, want := range map[string]struct{ key, text, detail string }{
		"\x00plain":    {"00706c61696e", "plain", `key/value entry "plain"`},
		"\x00a\"b":     {"00612262", `a"b`, `key/value entry "a\"b"`},
		"\x00\xff\x01": {"00ff01", "", "key/value entry ff01"},
		"\x02row":      {"02726f77", "row", `SQL entry "row"`},
		"\x00":         {"00", "", "key/value entry "},
		"\x00" + long:  {"00" + strings.Repeat("6b", 2047), "", "…"},
	} {
		s := scriptOf(t, []proof.ExportedEntry{put(key, "v")})
		s.alter(1, "w")
		sum, err := verified(t, t.Context(), s.options())
		if err != nil || len(sum.Damages) != 1 {
			t.Fatalf("%q: %v: %+v", key, err, sum)
		}
		d := sum.Damages[0]
		if d.Where.Key != want.key || d.Where.KeyText != want.text || !strings.Contains(d.Detail, want.detail) || len(d.Detail) > 400 || string(d.Entry.Key) != key {
			t.Errorf("%.20q: %+v", key, d)
		}
	}
}

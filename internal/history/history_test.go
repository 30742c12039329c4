package history

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"immuaudit/evidence"
)

var ledger = evidence.Name{Server: "db.example.org:3322", Database: "defaultdb"}

func open(t testing.TB, dir string, o Options) *History {
	t.Helper()
	h, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// round is a consistent one at a time; tweaks make it another.
func round(at time.Time, tx uint64, tweaks ...func(*evidence.Report)) evidence.Report {
	r := evidence.Report{
		Time: at, Server: ledger.Server, Database: ledger.Database, Verdict: evidence.Consistent, DurationMS: 2.5,
		Trusted:   &evidence.Mark{Tx: tx, Alh: hex.EncodeToString([]byte(fmt.Sprintf("%032d", tx)))},
		Assurance: &evidence.Assurance{Proven: tx, Walked: tx, Verified: tx / 2},
	}
	for _, tweak := range tweaks {
		tweak(&r)
	}
	return r
}

func unreachable(r *evidence.Report) {
	r.Verdict, r.Reason = evidence.Undetermined, evidence.Unreachable
}

func tampered(r *evidence.Report) { r.Verdict, r.Kind = evidence.Tampered, evidence.Fork }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func all(t testing.TB, h *History) []Stretch {
	t.Helper()
	list, err := h.Of(t.Context(), ledger, time.Time{}, noon.AddDate(10, 0, 0), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// outline is a list of stretches in a form that can be compared at a glance.
func outline(list []Stretch) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%s-%s %s", s.From.Format("02T15:04:05"), s.To.Format("15:04:05"), s.Verdict)
		if s.Kind != "" || s.Reason != "" {
			fmt.Fprintf(&b, " %s%s", s.Kind, s.Reason)
		}
		fmt.Fprintf(&b, " ×%d", s.Rounds)
		if s.Torn {
			b.WriteString(" torn")
		}
		if s.Broken {
			fmt.Fprintf(&b, " broken %d", s.Sound)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func compare(t testing.TB, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("stretches are\n%s\nwant\n%s", got, want)
	}
}

func TestStretches(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), Options{})
	at := func(minute, second int) time.Time {
		return noon.Add(time.Duration(minute)*time.Minute + time.Duration(second)*time.Second)
	}
	for s := 0; s <= 20; s += 10 {
		h.Round(round(at(0, s), 7))
	}
	h.Round(round(at(0, 30), 7, unreachable))
	h.Round(round(at(0, 40), 9))
	h.Round(round(at(3, 0), 9)) // 2:20 of silence
	h.Round(round(at(4, 0), 9))
	h.Round(round(at(5, 0), 10)) // another five minutes
	h.Round(round(at(5, 1), 10, tampered))
	want := `
23T12:00:00-12:00:20 consistent ×3 torn
23T12:00:30-12:00:30 undetermined unreachable ×1
23T12:00:40-12:00:40 consistent ×1
23T12:03:00-12:04:00 consistent ×2 torn
23T12:05:00-12:05:00 consistent ×1
23T12:05:01-12:05:01 tampered fork ×1
`
	compare(t, outline(all(t, h)), want)
	if err := h.write(t.Context(), at(9, 0), false); err != nil {
		t.Fatal(err)
	}
	compare(t, outline(all(t, h)), want)
	last, found, err := h.Last(t.Context(), ledger, at(4, 30))
	if err != nil || !found || last.LastTx != 9 || !last.To.Equal(at(4, 0)) || string(last.LastAlh[:]) != fmt.Sprintf("%032d", 9) || last.Verified != 4 {
		t.Errorf("the last before 12:04:30: %+v, %v, %v", last, found, err)
	}
	if last.Took != 5*time.Millisecond || last.Slowest != 2500*time.Microsecond || last.Longest != time.Minute {
		t.Errorf("took %s, slowest %s, longest distance %s", last.Took, last.Slowest, last.Longest)
	}
}

// What an hourly cron job finds is one history, not one of gaps.
func TestProcessAfterProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 20 {
		h := open(t, dir, Options{Version: "1.0"})
		h.Round(round(noon.Add(time.Duration(i)*time.Hour), uint64(i)+1))
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h := open(t, dir, Options{ReadOnly: true})
	list := all(t, h)
	if len(list) != 20 || list[19].Torn || list[19].Longest != time.Hour {
		t.Errorf("%s", outline(list))
	}
	runs, err := h.Runs(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil || len(runs) != 20 || !runs[0].Ended || runs[0].Version != "1.0" {
		t.Errorf("%d runs, %v", len(runs), err)
	}
	if names, err := h.Names(t.Context()); err != nil || len(names) != 1 || names[0] != ledger {
		t.Errorf("names %v, %v", names, err)
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other, third := evidence.Name{Server: "production", Database: "defaultdb"}, evidence.Name{Server: "production", Database: "third"}
	rename := func(from, to evidence.Name) {
		t.Helper()
		if err := Rename(t.Context(), dir, map[evidence.Name]evidence.Name{from: to}); err != nil {
			t.Fatal(err)
		}
	}
	rename(ledger, other)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Fatalf("a history was made: %v, %v", entries, err)
	}
	has := func(name evidence.Name, want int) {
		t.Helper()
		h := open(t, dir, Options{ReadOnly: true})
		list, err := h.Of(t.Context(), name, time.Time{}, noon.AddDate(1, 0, 0), 99)
		if err != nil || len(list) != want {
			t.Errorf("%d stretches of %s, want %d: %v", len(list), name, want, err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h := open(t, dir, Options{})
	as := func(name evidence.Name) func(*evidence.Report) {
		return func(r *evidence.Report) { r.Server, r.Database = name.Server, name.Database }
	}
	h.Round(round(noon, 1))
	h.Round(round(noon, 1, as(other)))
	h.Round(round(noon.Add(time.Hour), 2, as(other)))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	rename(other, third)
	has(third, 2)
	has(other, 0)
	rename(third, ledger) // which has one stretch that began when the first did
	has(ledger, 2)
	has(third, 0)
	if err := os.WriteFile(fileIn(dir), []byte("no history"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rename(t.Context(), dir, map[evidence.Name]evidence.Name{ledger: other}); err == nil {
		t.Error("a file that is no history was renamed in")
	}
}

func TestMerging(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		// The connections' own goroutines are made within the bubble, too.
		h, err := Open(t.Context(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}()
		start := time.Now().UTC().Truncate(day)
		for m := range 3 * 24 * 60 {
			at := start.Add(time.Duration(m) * time.Minute)
			switch {
			case m == 100:
				h.Round(round(at, uint64(m)+1, unreachable))
			case m >= 600 && m < 630: // silence
			default:
				h.Round(round(at, uint64(m)+1))
			}
			if m%60 == 59 {
				if err := h.write(t.Context(), at, false); err != nil {
					t.Fatal(err)
				}
			}
		}
		count := func(now time.Time) (n int, rounds, longest uint64) {
			if err := h.write(t.Context(), now, false); err != nil {
				t.Fatal(err)
			}
			list := all(t, h)
			for _, s := range list {
				rounds += s.Rounds
				longest = max(longest, uint64(s.Longest))
			}
			return len(list), rounds, longest
		}
		if n, rounds, _ := count(start.AddDate(0, 0, 4)); n != 3*24+2 || rounds != 3*24*60-30 {
			t.Errorf("hourly: %d stretches of %d rounds", n, rounds)
		}
		if n, rounds, _ := count(start.AddDate(0, 0, 12)); n != 3+3 || rounds != 3*24*60-30 {
			t.Errorf("daily: %d stretches of %d rounds\n%s", n, rounds, outline(all(t, h)))
		}
		list := all(t, h)
		if list[0].FirstTx != 1 || list[0].LastTx != 100 || list[len(list)-1].LastTx != 3*24*60 || list[0].Took != 250*time.Millisecond {
			t.Errorf("%+v", list[0])
		}
		// The hour 10 begins torn: nothing may hide that.
		if !list[3].Torn || list[3].From.Sub(list[2].To) != 31*time.Minute {
			t.Errorf("the gap is gone:\n%s", outline(list))
		}
		if n, _, _ := count(start.AddDate(0, 0, 802)); n != 1 {
			t.Errorf("%d stretches are left after 802 days", n)
		}
	})
}

func TestFlappingIsBounded(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), Options{})
	for s := range 3600 {
		if s%2 == 0 {
			h.Round(round(noon.Add(time.Duration(s)*time.Second), 5, unreachable))
		} else {
			h.Round(round(noon.Add(time.Duration(s)*time.Second), 5))
		}
	}
	list := all(t, h)
	if most := 12 * maxPieces; len(list) > most {
		t.Fatalf("%d stretches, at most %d", len(list), most)
	}
	var rounds, sound uint64
	for _, s := range list {
		rounds, sound = rounds+s.Rounds, sound+s.Sound
		if s.Broken && s.Verdict != evidence.Undetermined {
			t.Errorf("a broken stretch is %s", s.Verdict)
		}
	}
	if rounds != 3600 || sound != 1800 {
		t.Errorf("%d rounds, %d sound", rounds, sound)
	}
	if err := h.write(t.Context(), noon.Add(10*hour), false); err != nil {
		t.Fatal(err)
	}
	if n := len(all(t, h)); n > maxMerged {
		t.Errorf("%d stretches an hour, at most %d", n, maxMerged)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), Options{})
	ctx, stop := context.WithCancel(t.Context())
	var writers, rounds sync.WaitGroup
	writers.Go(func() {
		for ctx.Err() == nil {
			if err := h.write(t.Context(), time.Now(), false); err != nil {
				t.Error(err)
			}
			all(t, h)
		}
	})
	for g := range 8 {
		rounds.Go(func() {
			for i := range 500 {
				r := round(noon.Add(time.Duration(i)*time.Second), uint64(i))
				r.Database = fmt.Sprint(g)
				if i%7 == 0 {
					unreachable(&r)
				}
				h.Round(r)
			}
		})
	}
	rounds.Wait()
	stop()
	writers.Wait()
	for g := range 8 {
		list, err := h.Of(t.Context(), evidence.Name{Server: ledger.Server, Database: fmt.Sprint(g)}, noon, noon.Add(hour), 1000)
		if err != nil {
			t.Fatal(err)
		}
		var n uint64
		for _, s := range list {
			n += s.Rounds
		}
		if n != 500 {
			t.Errorf("ledger %d: %d rounds of 500", g, n)
		}
	}
}

func TestUnfitFiles(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), fileName)
	h := open(t, filepath.Dir(good), Options{})
	for i := range 2000 {
		r := round(noon.Add(time.Duration(i)*slice), uint64(i))
		h.Round(r)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	hole := append([]byte(nil), whole...)
	for i := 4096; i < 16384; i++ {
		hole[i] = 0x5a
	}
	foreign := append([]byte(nil), whole...)
	foreign[68] ^= 1 // application_id
	for name, content := range map[string][]byte{
		"text": []byte(strings.Repeat("no database\n", 1000)), "cut": whole[:len(whole)/2], "hole": hole, "foreign": foreign,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, fileName), content, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), dir, Options{ReadOnly: true}); err == nil {
				t.Error("opened for reading")
			}
			h := open(t, dir, Options{})
			if err := h.Problem(); err == nil || !strings.Contains(err.Error(), asideBy) {
				t.Errorf("Problem says %v", err)
			}
			h.Round(round(noon, 1))
			if n := len(all(t, h)); n != 1 {
				t.Errorf("%d stretches", n)
			}
			kept, err := filepath.Glob(filepath.Join(dir, fileName+asideBy+"*"))
			if err != nil || len(kept) == 0 {
				t.Fatalf("set aside: %v, %v", kept, err)
			}
			if b, err := os.ReadFile(kept[0]); err != nil || string(b) != string(content) {
				t.Errorf("what was set aside was changed: %v", err)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		t.Parallel()
		if _, err := Open(t.Context(), t.TempDir(), Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	})
}

func TestHostileReports(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), Options{})
	h.Round(evidence.Report{})
	h.Round(round(noon, 1, func(r *evidence.Report) { r.Database = strings.Repeat("x", maxName+1) }))
	h.Round(round(noon, 1, func(r *evidence.Report) { r.Trusted.Alh = strings.Repeat("z", 64) }))
	h.Round(round(noon.Add(-time.Hour), 1<<63, func(r *evidence.Report) { r.Kind = evidence.Kind(strings.Repeat("\xff", 1000)) }))
	h.Round(round(time.Unix(1<<60, 0), 2))
	for i := range 1000 {
		h.Round(round(noon.Add(time.Duration(i)*time.Second), 1, func(r *evidence.Report) { r.Reason = evidence.Reason(fmt.Sprint(i)) }))
	}
	if err := h.write(t.Context(), time.Now(), false); err != nil {
		t.Fatal(err)
	}
	for _, s := range all(t, h) {
		if len(s.Kind) > 64 || s.To.Before(s.From) {
			t.Errorf("%+v", s)
		}
	}
	if names, err := h.Names(t.Context()); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	var none *History
	none.Round(round(noon, 1))
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkRound(b *testing.B) {
	h := open(b, b.TempDir(), Options{})
	r := round(noon, 1)
	at := noon
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(time.Millisecond)
		r.Time = at
		h.Round(r)
		if len(h.pending) > 1000 {
			h.pending = nil
		}
	}
}

package history

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
	"unsafe"

	"immuaudit/evidence"
)

// Killed in the midst of it, at most what came after the last write is lost.
func TestKilled(t *testing.T) {
	t.Parallel()
	const dirName = "IMMUAUDIT_TEST_HISTORY"
	if dir := os.Getenv(dirName); dir != "" {
		h, err := Open(t.Context(), dir, Options{Version: "killed"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			h.Round(round(noon.Add(time.Duration(i)*time.Minute), uint64(i)+1))
		}
		if err := h.write(t.Context(), time.Now(), false); err != nil {
			t.Fatal(err)
		}
		fmt.Println("written")
		for i := uint64(0); ; i++ { // until killed, in the midst of a write
			r := round(noon.Add(200*time.Minute+time.Duration(i)*time.Second), i)
			r.Database = fmt.Sprint("other", i%100)
			h.Round(r)
			if i%500 == 0 {
				if err := h.write(t.Context(), time.Now(), false); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for delay := range 3 {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), dirName+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var line string
		if _, err := fmt.Fscanln(out, &line); err != nil || line != "written" {
			t.Fatalf("%q, %v", line, err)
		}
		// Another process reads meanwhile: it is delayed a little by that.
		other := open(t, dir, Options{ReadOnly: true})
		for range delay {
			if _, err := other.Of(t.Context(), evidence.Name{Server: ledger.Server, Database: "other1"}, noon, noon.Add(day), 1000); err != nil {
				t.Error(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("it was not killed")
		}
		h := open(t, dir, Options{})
		if err := h.Problem(); err != nil {
			t.Error(err)
		}
		var rounds uint64
		for _, s := range all(t, h) {
			rounds += s.Rounds
		}
		if rounds != 100 {
			t.Errorf("%d of 100 rounds are left", rounds)
		}
		runs, err := h.Runs(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		if err != nil || len(runs) != 2 || runs[0].Ended || runs[0].Version != "killed" {
			t.Errorf("runs %+v, %v", runs, err)
		}
	}
}

// Damaged while in use: it begins anew, and goes on.
func TestDamagedInUse(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), Options{})
	h.Round(round(noon, 1))
	if err := h.write(t.Context(), noon, false); err != nil {
		t.Fatal(err)
	}
	if _, err := h.writer.ExecContext(t.Context(), "DROP TABLE stretch"); err != nil {
		t.Fatal(err)
	}
	h.Round(round(noon.Add(time.Second), 2))
	if err := h.write(t.Context(), noon.Add(time.Minute), false); err != nil {
		t.Fatal(err)
	}
	if h.Problem() == nil {
		t.Error("nobody was told")
	}
	h.Round(round(noon.Add(2*time.Second), 3))
	if err := h.write(t.Context(), noon.Add(2*time.Minute), false); err != nil {
		t.Fatal(err)
	}
	if list := all(t, h); len(list) != 1 || list[0].Rounds != 3 {
		t.Errorf("%s", outline(list))
	}
}

// What is kept in mind of a ledger is little, and of how many is bounded.
func TestManyLedgers(t *testing.T) {
	t.Parallel()
	h := &History{gap: defaultGap, index: map[evidence.Name]int32{}, words: []string{""}, codes: map[string]uint8{"": 0}}
	for i := range maxLedgers + 10 {
		r := round(noon, 1)
		r.Database = fmt.Sprint(i)
		h.Round(r)
	}
	if len(h.index) != maxLedgers || h.lost != 10 {
		t.Errorf("%d ledgers, %d left out", len(h.index), h.lost)
	}
	if size := unsafe.Sizeof(track{}); size > 144 {
		t.Errorf("%d bytes a ledger", size)
	}
}

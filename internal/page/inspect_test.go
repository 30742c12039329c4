package page

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// Reading evidence costs memory and time: nobody reads without a slot, nobody
// waits for one longer than for the page, and nothing is read twice.
func TestEvidenceIsReadOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "evidence")
	inc := recorded(t, dir)
	synctest.Test(t, func(t *testing.T) {
		s := &Site{opts: Options{EvidenceDir: dir}}
		s.evidence.init()
		occupy := func() {
			for range maxDownloads {
				s.evidence.slots <- struct{}{}
			}
		}
		vacate := func() {
			for range maxDownloads {
				<-s.evidence.slots
			}
		}
		occupy()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.inspect(gone, &inc); !errors.Is(err, context.Canceled) {
			t.Errorf("read without a slot: %v", err)
		}

		type result struct {
			inspection
			error
		}
		second := make(chan result, 1)
		go func() {
			out, err := s.inspect(t.Context(), &inc)
			second <- result{out, err}
		}()
		synctest.Wait() // it wants a slot now
		info, err := os.Stat(inc.Evidence)
		if err != nil {
			t.Fatal(err)
		}
		s.evidence.keep(info, inspection{Known: true, SHA256: "from another visitor"})
		vacate()
		if got := <-second; got.error != nil || got.SHA256 != "from another visitor" {
			t.Errorf("read twice: %+v", got)
		}

		// What is wrong with a file is kept in mind until the file changes.
		text, err := os.ReadFile(inc.Evidence)
		if err != nil {
			t.Fatal(err)
		}
		write := func(text []byte, at time.Time) {
			if err := os.WriteFile(inc.Evidence, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(inc.Evidence, at, at); err != nil {
				t.Fatal(err)
			}
		}
		write(append(text, ' '), info.ModTime())
		if _, err := s.inspect(t.Context(), &inc); !errors.Is(err, errChanged) {
			t.Errorf("a changed file: %v", err)
		}
		occupy()
		if _, err := s.inspect(gone, &inc); !errors.Is(err, errChanged) {
			t.Errorf("a changed file was read again: %v", err)
		}
		vacate()
		write(text, info.ModTime().Add(time.Second))
		if out, err := s.inspect(t.Context(), &inc); err != nil || !out.Known {
			t.Errorf("the file is as it was: %+v, %v", out, err)
		}
	})
}

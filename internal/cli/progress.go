package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"immuaudit/internal/verify"
)

const (
	barEvery  = 200 * time.Millisecond // on a terminal
	lineEvery = time.Minute            // anywhere else
	barWidth  = 24
)

// progress shows how far a verification has come: one line that changes on a
// terminal, a line a minute otherwise.
type progress struct {
	w        io.Writer
	name     string
	terminal bool

	mu    sync.Mutex
	began time.Time
	shown time.Time
	from  uint64
	first bool
}

func newProgress(w io.Writer, name string) *progress {
	f, isFile := w.(*os.File)
	return &progress{w: w, name: shown(name), terminal: isFile && isTerminal(f), began: time.Now(), shown: time.Now(), first: true}
}

func (p *progress) show(now verify.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first {
		p.first, p.from = false, now.Through-min(now.Through, now.Transactions)
	}
	p.tell(now.Through, now.To, func(took time.Duration) string {
		rate := float64(now.Received) / max(took.Seconds(), 0.001)
		return fmt.Sprintf("%s  %s/s", size(now.Received), size(uint64(rate)))
	})
}

// walked shows how far a walk has come.
func (p *progress) walked(at, to uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first {
		p.first, p.from, p.began = false, at, time.Now()
	}
	p.tell(at, to, func(took time.Duration) string {
		return fmt.Sprintf("%.0f/s", float64(at-p.from)/max(took.Seconds(), 0.001))
	})
}

// tell shows a line when it is time to. p.mu is held.
func (p *progress) tell(at, to uint64, speed func(took time.Duration) string) {
	every := lineEvery
	if p.terminal {
		every = barEvery
	}
	if time.Since(p.shown) < every {
		return
	}
	p.shown = time.Now()
	took := time.Since(p.began)
	line := p.line(at, to, took, speed(took))
	if p.terminal {
		fmt.Fprintf(p.w, "\r%s\x1b[K", line)
	} else {
		fmt.Fprintln(p.w, line)
	}
}

// line is one state of affairs, in words.
func (p *progress) line(at, to uint64, took time.Duration, speed string) string {
	whole, done := to-min(to, p.from), at-min(at, p.from)
	share := 0.0
	if whole > 0 {
		share = float64(done) / float64(whole)
	}
	left := "–"
	if share > 0 {
		left = time.Duration(float64(took) * (1 - share) / share).Round(time.Second).String()
	}
	bar := ""
	if p.terminal {
		full := int(share * barWidth)
		bar = "[" + strings.Repeat("#", full) + strings.Repeat("·", barWidth-full) + "] "
	}
	return fmt.Sprintf("%s  %s%3.0f %%  transaction %d of %d  %s  %s left", p.name, bar, 100*share, at, to, speed, left)
}

// end leaves the terminal's line clean for what comes next.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// size is a number of bytes for people.
func size(n uint64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	value, unit := float64(n), 0
	for value >= 1000 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

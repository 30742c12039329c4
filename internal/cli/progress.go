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
	every := lineEvery
	if p.terminal {
		every = barEvery
	}
	if time.Since(p.shown) < every {
		return
	}
	p.shown = time.Now()
	line := p.line(now, time.Since(p.began))
	if p.terminal {
		fmt.Fprintf(p.w, "\r%s\x1b[K", line)
	} else {
		fmt.Fprintln(p.w, line)
	}
}

// line is one state of affairs, in words.
func (p *progress) line(now verify.Progress, took time.Duration) string {
	whole, done := now.To-min(now.To, p.from), now.Through-min(now.Through, p.from)
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
	rate := float64(now.Received) / max(took.Seconds(), 0.001)
	return fmt.Sprintf("%s  %s%3.0f %%  transaction %d of %d  %s  %s/s  %s left", p.name, bar, 100*share, now.Through, now.To,
		size(now.Received), size(uint64(rate)), left)
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

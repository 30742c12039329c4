package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"time"

	"immuaudit/evidence"
)

const (
	statesFolder = "states"
	dailyFile    = "daily"
	// maxDays bounds the names in a folder of states: three days, more where
	// the clock was set.
	maxDays = 1000
	// maxStates bounds a file of states: two a second of a usual size. More
	// than maxLines of the shortest do not fit.
	maxStates = 64 << 20
	maxLines  = 1_000_000
	// maxTorn bounds what a crash can leave behind the last whole line.
	maxTorn = 64 << 10
	// chunk is read at once, backwards.
	chunk = 16 << 10
)

func (l *Ledger) statesAt(file string) string { return l.at(path.Join(statesFolder, file)) }

// States gives the kept states with from ≤ transaction ≤ to, at most limit, the
// newest first: those of the last days, then one of each day before. Beside a
// *Damage stands what could be read in spite of it.
func (l *Ledger) States(from, to uint64, limit int) ([]evidence.Witnessed, error) {
	if err := l.look(0); err != nil {
		return nil, err
	}
	defer l.mu.RUnlock()
	if !l.made || from > to || limit <= 0 {
		return nil, nil
	}
	days, err := l.days()
	if err != nil {
		return nil, err
	}
	var out []evidence.Witnessed
	var damage error
	collect := func(file string, twice func(evidence.Witnessed) bool) error {
		err := l.scan(file, to, func(_ []byte, w evidence.Witnessed) bool {
			if w.State.TxID < from {
				return false // transactions ascend within a file
			}
			if w.State.TxID <= to && !twice(w) {
				out = append(out, w)
			}
			return len(out) < limit
		})
		if isDamage(err) {
			damage = errors.Join(damage, err)
			return nil
		}
		return err
	}
	for _, day := range slices.Backward(days) {
		if len(out) == limit {
			break
		}
		err := collect(day, func(evidence.Witnessed) bool { return false })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
	}
	if len(out) == limit {
		return out, damage
	}
	err = collect(dailyFile, func(w evidence.Witnessed) bool {
		// A crash may have come between the two places of a day's last one.
		return slices.Contains(days, dayOf(w.At)) &&
			slices.ContainsFunc(out, func(o evidence.Witnessed) bool { return o.State.State == w.State.State })
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	return out, damage
}

func isDamage(err error) bool { return errors.As(err, new(*Damage)) }

// spoiled is damage to a file of states, on which no hash depends.
func (l *Ledger) spoiled(file, what string, err error) error {
	p := l.at(statesFolder)
	if file != "" {
		p = l.statesAt(file)
	}
	e := l.m.damage(p, what, err)
	if d := (*Damage)(nil); errors.As(e, &d) {
		d.Whole, d.next = l.head.size, "move it away: it holds copies of states that the server signed, and what is trusted does not depend on them"
	}
	return e
}

// days lists the days of which there are states, in order.
func (l *Ledger) days() ([]string, error) {
	there, err := l.m.vol.isThere(l.at(statesFolder))
	if err != nil {
		return nil, l.spoiled("", "it cannot be looked at", err)
	}
	if !there {
		return nil, nil
	}
	entries, err := l.m.vol.list(l.at(statesFolder), maxDays)
	if err != nil {
		return nil, l.spoiled("", "it cannot be listed", err)
	}
	var days []string
	for _, e := range entries {
		name := e.Name()
		if name == dailyFile || name == dailyFile+newSuffix {
			continue
		}
		if at, err := time.Parse(time.DateOnly, name); err != nil || dayOf(at) != name {
			return nil, l.spoiled(name, "no mirror has made it", nil)
		}
		days = append(days, name)
	}
	slices.Sort(days)
	return days, nil
}

// scan gives the states in a file of a day, or in daily, from the newest with
// transaction ≤ to on backwards (and maybe some before), until f has enough.
// Lines that hold no state are passed over and told afterwards as a *Damage; a
// missing file is fs.ErrNotExist.
func (l *Ledger) scan(file string, to uint64, f func(line []byte, w evidence.Witnessed) bool) error {
	b, closeFile, err := l.backwards(file)
	if err != nil {
		return err
	}
	defer closeFile()
	size := b.at
	end, err := b.whole()
	if err != nil {
		return l.spoiled(file, "it does not end in a state", err)
	}
	var damage error
	if end < size && file == dailyFile { // which is replaced as a whole
		damage = l.spoiled(file, "its last line was cut", nil)
	}
	if err := b.skip(end, to); err != nil {
		return l.spoiled(file, "it cannot be read", err)
	}
	for {
		line, err := b.previous()
		if err != nil {
			return l.spoiled(file, "it cannot be read", err)
		}
		if line == nil {
			return damage
		}
		w, err := parseLine(line)
		if err == nil && file != dailyFile && dayOf(w.At) != file {
			err = errors.New("it is of another day")
		}
		if err != nil {
			if damage == nil {
				damage = l.spoiled(file, fmt.Sprintf("the line at byte %d is no state", b.offset()), err)
			}
			continue
		}
		if !f(line, w) {
			return damage
		}
	}
}

// backwards opens a file of states to be read from its end.
func (l *Ledger) backwards(file string) (*backward, func(), error) {
	f, info, err := l.m.vol.open(l.statesAt(file), maxStates)
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrUnsafe) {
		return nil, nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, l.spoiled(file, "it cannot be read", err)
	}
	return &backward{f: f, at: info.Size()}, func() { f.Close() }, nil // nothing was written
}

var (
	errLine  = errors.New("a line is longer than any state")
	errLines = fmt.Errorf("it has more than %d lines", maxLines)
)

// backward reads lines from the end of a file.
type backward struct {
	f     io.ReaderAt
	at    int64  // what lies before it was not read yet
	rest  []byte // from there on, not given yet
	lines int
}

// offset is where the line that was given last begins.
func (b *backward) offset() int64 { return b.at + int64(len(b.rest)) }

// more reads what lies before.
func (b *backward) more() error {
	n := int(min(chunk, b.at))
	data := make([]byte, n, n+len(b.rest))
	if _, err := b.f.ReadAt(data, b.at-int64(n)); err != nil {
		return err
	}
	b.at, b.rest = b.at-int64(n), append(data, b.rest...)
	return nil
}

// whole drops what follows the last whole line, which a crash has torn, and
// says where that ends.
func (b *backward) whole() (end int64, err error) {
	for {
		if i := bytes.LastIndexByte(b.rest, '\n'); i >= 0 || b.at == 0 {
			b.rest = b.rest[:i+1]
			return b.offset(), nil
		}
		if len(b.rest) > maxTorn {
			return 0, errLine
		}
		if err := b.more(); err != nil {
			return 0, err
		}
	}
}

// skip goes back to near where the transactions after to begin, by bisection:
// they ascend. Before end there are whole lines.
func (b *backward) skip(end int64, to uint64) error {
	low, high := int64(0), end // lines from high on are after to
	data := make([]byte, 2*maxLine)
	for high-low > chunk {
		middle := low + (high-low)/2
		part := data[:min(int64(len(data)), end-middle)]
		if _, err := b.f.ReadAt(part, middle); err != nil {
			return err
		}
		first := bytes.IndexByte(part, '\n') + 1
		last := first + bytes.IndexByte(part[first:], '\n') + 1
		w, err := parseLine(part[first:last])
		if err != nil || middle+int64(first) >= high {
			break // what is wrong is found again, and told, on the way from high
		}
		if w.State.TxID > to {
			high = middle + int64(first)
		} else {
			low = middle
		}
	}
	if high < end {
		b.at, b.rest = high, nil
	}
	return nil
}

// previous gives the line before, nil at the beginning.
func (b *backward) previous() ([]byte, error) {
	for {
		if end := len(b.rest); end > 0 {
			if i := bytes.LastIndexByte(b.rest[:end-1], '\n'); i >= 0 || b.at == 0 {
				if b.lines++; b.lines > maxLines {
					return nil, errLines
				}
				line := b.rest[i+1:]
				b.rest = b.rest[:i+1]
				return line, nil
			}
			if end > maxLine {
				return nil, errLine
			}
		} else if b.at == 0 {
			return nil, nil
		}
		if err := b.more(); err != nil {
			return nil, err
		}
	}
}

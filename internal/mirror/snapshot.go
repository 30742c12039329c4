package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"immuaudit/evidence"
)

// maxPins bounds how often a snapshot is tried: every try that fails needs an
// Append in between.
const maxPins = 100

// Snapshot gives the mirror of a ledger as it stands at this moment, to be read
// while the auditor goes on writing: the head and the partial tiles are taken
// now, and full tiles never change. Where the folder is set aside meanwhile the
// tiles go with it, which is a *Damage; a new snapshot shows what came after.
// It is for a mirror that was opened with OpenReadOnly, and is not kept.
func (m *Mirror) Snapshot(name evidence.Name) (*Ledger, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if !m.vol.readOnly {
		return nil, fmt.Errorf("taking a snapshot of the mirror of %q: it was opened for writing", name.String())
	}
	for try := 1; ; try++ {
		l := &Ledger{m: m, name: name, folder: folderOf(name), sure: map[string]bool{}}
		if err := l.load(); err != nil {
			return nil, fmt.Errorf("opening the mirror of %q: %w", name.String(), err)
		}
		if l.pin() || try == maxPins || !l.moved() {
			return l, nil
		}
	}
}

// pin takes the partial tiles, which the next Append removes, and reports
// whether all were there.
func (l *Ledger) pin() bool {
	l.edges = map[tile][]byte{}
	for level := range levels {
		t := edge(level, l.head.size)
		if t.width == 0 {
			continue
		}
		data, err := l.m.vol.read(l.at(t.path()), tileBytes)
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		if err == nil { // else it is told when it is read again
			l.edges[t] = data
		}
	}
	return true
}

// moved reports whether the head is another one by now than was loaded.
func (l *Ledger) moved() bool {
	now, err := l.m.readHead(l.folder)
	return err != nil || now.String() != l.head.String()
}

// Inspected says how far an inspection has come.
type Inspected struct {
	Through uint64 // leaves up to this transaction were looked at
	Tiles   uint64 // of all levels
	Bytes   uint64 // of them
}

// Inspect is Check that goes on after damage: found gets every tile that does
// not fit once, in no order to rely on, and ends the inspection with an error
// of its own. Below a tile of roots that does not fit nothing can be told.
// seen, where it is set, is called every few tiles.
func (l *Ledger) Inspect(ctx context.Context, found func(*Damage) error, seen func(Inspected)) (Inspected, error) {
	i := inspection{told: map[string]bool{}, found: found}
	for level := levels - 1; level >= 0; level-- {
		for n, more := uint64(0), true; more; {
			if err := ctx.Err(); err != nil {
				return i.Inspected, fmt.Errorf("checking a mirror: %w", err)
			}
			var err error
			if n, more, err = l.inspectTiles(&i, level, n); err != nil {
				return i.Inspected, fmt.Errorf("checking a mirror: %w", err)
			}
			if seen != nil {
				seen(i.Inspected)
			}
		}
	}
	return i.Inspected, nil
}

type inspection struct {
	Inspected
	told  map[string]bool // files
	found func(*Damage) error
}

// look reads a tile. What it depends on may be damaged instead.
func (i *inspection) look(r *reader, t tile) error {
	data, err := r.tile(t)
	var d *Damage
	if errors.As(err, &d) {
		if i.told[d.Path] {
			return nil
		}
		i.told[d.Path] = true
		return i.found(d)
	}
	if err != nil || len(data) == 0 {
		return err
	}
	i.Tiles, i.Bytes = i.Tiles+1, i.Bytes+uint64(len(data))
	if t.level == 0 {
		i.Through = t.last()
	}
	return nil
}

// inspectTiles looks at some tiles of a level from n on and says where to go on.
func (l *Ledger) inspectTiles(i *inspection, level int, n uint64) (next uint64, more bool, err error) {
	if err := l.look(0); err != nil {
		return 0, false, err
	}
	defer l.mu.RUnlock()
	r := reader{l: l}
	last := edge(level, l.head.size)
	for end := n + checkStride; n < end && n < last.index; n++ {
		if err := i.look(&r, tile{level, n, tileWidth}); err != nil {
			return 0, false, err
		}
	}
	if n < last.index {
		return n, true, nil
	}
	return n, false, i.look(&r, last)
}

// EachState gives every kept state with the file it stands in: file after
// file, the newest day first and then those of each day before, within a file
// from its end on. f ends that with an error. Beside what could be read a
// *Damage, or several joined, tells what could not.
func (l *Ledger) EachState(f func(file string, w evidence.Witnessed) error) error {
	if err := l.look(0); err != nil {
		return err
	}
	defer l.mu.RUnlock()
	if !l.made {
		return nil
	}
	days, damage := l.days()
	if damage != nil && !isDamage(damage) {
		return damage
	}
	slices.Reverse(days)
	for _, file := range append(days, dailyFile) {
		var ended error
		err := l.scan(file, maxTx, func(_ []byte, w evidence.Witnessed) bool {
			ended = f(l.m.vol.name(l.statesAt(file)), w)
			return ended == nil
		})
		if err == nil && ended == nil && file != dailyFile {
			err = l.changedEnd(file)
		}
		switch {
		case ended != nil:
			return ended
		case isDamage(err):
			damage = errors.Join(damage, err)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return damage
}

// changedEnd: what follows the last whole line of a day was torn by a crash,
// or is being written; but a line that is whole except for its end is neither.
func (l *Ledger) changedEnd(file string) error {
	b, closeFile, err := l.backwards(file)
	if err != nil {
		return err
	}
	defer closeFile()
	tail := make([]byte, min(b.at, maxLine))
	if _, err := b.f.ReadAt(tail, b.at-int64(len(tail))); err != nil {
		return l.spoiled(file, "it cannot be read", err)
	}
	tail = tail[bytes.LastIndexByte(tail, '\n')+1:]
	if len(tail) == 0 {
		return nil
	}
	tail[len(tail)-1] = '\n'
	if _, err := parseLine(tail); err != nil {
		return nil
	}
	return l.spoiled(file, "its last line does not end as it was written", nil)
}

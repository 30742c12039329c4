package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// kept is what is known of the states on disk, so that adding one costs a
// single short write.
type kept struct {
	known  bool        // what stands here was looked at
	newest proof.State // zero where there is none
	day    string      // whose file is written to; "" for none yet
	info   fs.FileInfo // that file; nil where it is not there yet
	size   int64
	full   bool // it has as much as is read again
}

// Witness keeps states that the server signed and the auditor has proven,
// ascending by transaction, with the time to the second. Passed over are those
// without a signature, those of an empty database, and the newest one when it
// comes again. One with another Alh than the newest is a *Contradiction, one
// before it a *Behind: where another history was accepted, Truncate comes first.
//
// States are not synced until their day is over. They stand beside what is
// trusted, which is on disk already, and a crash costs the last of them.
func (l *Ledger) Witness(states []evidence.Witnessed) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.witness(states); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return ErrClosed
		}
		return fmt.Errorf("keeping signed states of %q: %w", l.name.String(), err)
	}
	return nil
}

func (l *Ledger) witness(states []evidence.Witnessed) error {
	if l.m.vol.readOnly {
		return ErrReadOnly
	}
	if l.stale {
		if err := l.load(); err != nil {
			return err
		}
	}
	if err := l.recall(); err != nil {
		return err
	}
	states, err := l.fresh(states)
	if err != nil || len(states) == 0 {
		return err
	}
	if !l.made {
		if err := l.make(); err != nil {
			return err
		}
	}
	for len(states) > 0 {
		day := dayOf(states[0].At)
		n := slices.IndexFunc(states, func(w evidence.Witnessed) bool { return dayOf(w.At) != day })
		if n < 0 {
			n = len(states)
		}
		err := l.turn(day)
		if err == nil {
			err = l.add(states[:n])
		}
		if err != nil {
			// How much of it is there is not known.
			l.stale = true
			return err
		}
		states = states[n:]
	}
	return nil
}

// recall looks at what is kept, once, and takes away what a crash has torn.
func (l *Ledger) recall() error {
	if l.kept.known {
		return nil
	}
	k := kept{known: true}
	if l.made {
		days, err := l.days()
		if err != nil {
			return err
		}
		for _, file := range append(days, dailyFile) {
			if file != dailyFile {
				if err := l.mendStates(file); err != nil {
					return err
				}
			}
			err := l.scan(file, maxTx, func(_ []byte, w evidence.Witnessed) bool {
				if w.State.TxID > k.newest.TxID {
					k.newest = w.State.State
				}
				return false
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !l.passedOver(err) {
				return err
			}
		}
	}
	l.kept = k
	return nil
}

// passedOver says what is wrong with a file that others can stand beside.
func (l *Ledger) passedOver(err error) bool {
	if !isDamage(err) {
		return false
	}
	l.m.log.Warn("signed states are damaged", "ledger", l.name.String(), "error", err)
	return true
}

// mendStates cuts off a line that was torn.
func (l *Ledger) mendStates(day string) error {
	b, closeFile, err := l.backwards(day)
	if err != nil {
		return err
	}
	size := b.at
	end, err := b.whole()
	closeFile()
	if err != nil {
		return l.spoiled(day, "it does not end in a state", err)
	}
	if end == size {
		return nil
	}
	l.m.log.Warn("the last of the signed states was torn", "ledger", l.name.String(), "file", l.m.vol.name(l.statesAt(day)), "bytes", size-end)
	return l.m.vol.cut(l.statesAt(day), end)
}

// fresh gives the states that are to be added.
func (l *Ledger) fresh(states []evidence.Witnessed) ([]evidence.Witnessed, error) {
	before := l.kept.newest
	// What was added before an error is given again.
	known := slices.IndexFunc(states, func(w evidence.Witnessed) bool {
		return w.State.State == before && len(w.State.Signature) > 0
	})
	var out []evidence.Witnessed
	for _, w := range states[known+1:] {
		if len(w.State.Signature) == 0 || w.State.TxID == 0 || w.State.State == before {
			continue
		}
		if err := checkWitnessed(&w); err != nil {
			return nil, err
		}
		if w.State.DB != l.name.Database {
			return nil, fmt.Errorf("it is a state of the database %q", w.State.DB)
		}
		switch tx := w.State.TxID; {
		case tx < before.TxID:
			return nil, &Behind{Tx: tx, Newest: before.TxID}
		case tx == before.TxID:
			return nil, &Contradiction{Tx: tx, Have: leafHash(&before.Alh), Got: leafHash(&w.State.Alh)}
		}
		before = w.State.State
		out = append(out, w)
	}
	return out, nil
}

// turn makes a day the one that is written to. The days before it become
// durable, and those of which everything is older than a day are thinned.
func (l *Ledger) turn(day string) error {
	k := &l.kept
	if k.day == day {
		return nil
	}
	if err := l.thin(dayBefore(day)); err != nil && !l.passedOver(err) {
		return err
	}
	days, err := l.days()
	if err != nil {
		return err
	}
	k.day, k.info, k.size, k.full = day, nil, 0, false
	for _, other := range days {
		p := l.statesAt(other)
		if other != day {
			if err := l.m.vol.syncFile(p); err != nil {
				return err
			}
			continue
		}
		if k.info, err = l.m.vol.root.Lstat(p); err != nil {
			return err
		}
		k.size = k.info.Size()
	}
	return nil
}

func dayBefore(day string) string {
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return ""
	}
	return dayOf(at.AddDate(0, 0, -1))
}

// add appends states to the file of the day.
func (l *Ledger) add(states []evidence.Witnessed) error {
	k := &l.kept
	var data []byte
	for i := range states {
		data = appendLine(data, &states[i])
	}
	if k.size+int64(len(data)) > maxStates {
		if !k.full {
			l.m.log.Warn("no more signed states of this day are kept", "ledger", l.name.String(), "day", k.day, "bytes", k.size)
		}
		k.full = true
		return nil
	}
	c := l.m.vol.change(l.sure)
	if err := c.folders(l.at(statesFolder)); err != nil {
		return err
	}
	p := l.statesAt(k.day)
	info, err := c.append(p, k.info, k.size, data)
	if errors.Is(err, ErrChanged) {
		return fmt.Errorf("%s: %w; stop the other one", l.m.vol.name(p), err)
	}
	if err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	k.info, k.size, k.newest = info, k.size+int64(len(data)), states[len(states)-1].State.State
	return nil
}

// Prune thins the days of which every state is older than a day to the last
// one of each, as Witness does at the change of the day. While an incident is
// open there is no reason to call it.
func (l *Ledger) Prune(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.ready()
	if err == nil && l.made {
		err = l.thin(dayBefore(dayOf(now)))
	}
	if err != nil {
		return fmt.Errorf("thinning the signed states of %q: %w", l.name.String(), err)
	}
	return nil
}

// thin moves the last state of each day before that day to daily. A crash
// leaves the last one in both places, from which thinning goes on.
func (l *Ledger) thin(before string) error {
	days, err := l.days()
	if err != nil {
		return err
	}
	days = slices.DeleteFunc(days, func(day string) bool { return day >= before })
	if len(days) == 0 {
		return nil
	}
	daily, err := l.m.vol.read(l.statesAt(dailyFile), maxStates)
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrUnsafe)) {
		return l.spoiled(dailyFile, "it cannot be read", err)
	}
	if n := len(daily); n > 0 && daily[n-1] != '\n' {
		daily = append(daily, '\n')
	}
	size := len(daily)
	var gone []string
	var damage error
	for _, day := range days {
		// Where its removal does not reach the disk, it is whole there.
		if err := l.m.vol.syncFile(l.statesAt(day)); err != nil {
			return err
		}
		var last []byte
		err := l.scan(day, maxTx, func(line []byte, _ evidence.Witnessed) bool {
			last = line
			return false
		})
		if err != nil && !isDamage(err) {
			return err
		}
		if err != nil {
			damage = errors.Join(damage, err)
			if last == nil {
				continue // nothing is thrown away that nobody understands
			}
		}
		daily = place(daily, last)
		gone = append(gone, day)
	}
	if len(daily) > maxStates {
		return l.spoiled(dailyFile, "it would become larger than what is read", nil)
	}
	if len(daily) > size {
		c := l.m.vol.change(l.sure)
		if err := c.put(l.statesAt(dailyFile+newSuffix), l.statesAt(dailyFile), daily); err != nil {
			return err
		}
		if err := c.settle(); err != nil {
			return err
		}
	}
	for _, day := range gone {
		if day == l.kept.day {
			l.kept.day = ""
		}
		if err := l.m.vol.remove(l.statesAt(day)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return damage
}

// place puts a line where its transaction belongs, which is at the end unless
// the clock was set, and does nothing where it stands already.
func place(daily, line []byte) []byte {
	this, err := parseLine(line)
	if err != nil {
		return daily
	}
	at := len(daily)
	for at > 0 {
		start := bytes.LastIndexByte(daily[:at-1], '\n') + 1
		w, err := parseLine(daily[start:at])
		if err != nil || w.State.TxID < this.State.TxID {
			break
		}
		if bytes.Equal(daily[start:at], line) {
			return daily
		}
		at = start
	}
	return slices.Insert(daily, at, line...)
}

// statesAbove reports whether there are states, or what may be some, of later
// transactions.
func (l *Ledger) statesAbove(size uint64) (bool, error) {
	err := l.recall()
	if isDamage(err) {
		return true, nil
	}
	return l.kept.newest.TxID > size, err
}

// copyStates gives a folder the states of the first size transactions.
func (l *Ledger) copyStates(c *change, folder string, size uint64) error {
	days, err := l.days()
	if err != nil && !l.passedOver(err) {
		return err
	}
	for _, file := range append(days, dailyFile) {
		var lines [][]byte
		err := l.scan(file, size, func(line []byte, w evidence.Witnessed) bool {
			if w.State.TxID <= size {
				lines = append(lines, line)
			}
			return true
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !l.passedOver(err) {
			return err
		}
		if len(lines) == 0 {
			continue
		}
		slices.Reverse(lines)
		to := func(file string) string { return path.Join(folder, statesFolder, file) }
		if err := c.put(to(file+newSuffix), to(file), bytes.Join(lines, nil)); err != nil {
			return err
		}
	}
	return nil
}

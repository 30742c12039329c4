package mirror

import (
	"fmt"
	"path"
	"strconv"

	"immuaudit/evidence"
)

// maxAside bounds how often one ledger can begin anew.
const maxAside = 10_000

// Truncate keeps the first size transactions, with the states of them, and sets
// everything that was mirrored or kept aside, in the folder aside. Truncate(0) begins anew: what follows
// an accepted incident is another history. Truncate of a *Damage's Whole lets
// what does not depend on the damage stand.
func (l *Ledger) Truncate(size uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if size == 0 {
		return l.setAside()
	}
	if err := l.ready(); err != nil {
		return fmt.Errorf("truncating the mirror: %w", err)
	}
	if size > l.head.size {
		return fmt.Errorf("%w: %d of %d transactions of %q are to be kept", ErrBeyond, size, l.head.size, l.name.String())
	}
	if size == l.head.size {
		above, err := l.statesAbove(size)
		if err != nil || !above {
			return err
		}
	}
	next, err := l.prefix(size)
	if err != nil {
		return fmt.Errorf("truncating the mirror: %w", err)
	}
	fill := func(c *change, folder string) error {
		if err := l.copyTiles(c, folder, size); err != nil {
			return err
		}
		return l.copyStates(c, folder, size)
	}
	if err := l.prepare(next, fill); err != nil {
		return fmt.Errorf("truncating the mirror: %w", err)
	}
	l.stale = true
	if err := l.moveAside(true); err != nil {
		return fmt.Errorf("truncating the mirror: %w", err)
	}
	l.head, l.kept, l.stale = next, kept{}, false
	return nil
}

// setAside moves the folder, whatever is in it, and begins anew.
func (l *Ledger) setAside() error {
	if l.m.vol.readOnly {
		return fmt.Errorf("setting the mirror of %q aside: %w", l.name.String(), ErrReadOnly)
	}
	there, err := l.m.vol.isThere(l.folder)
	if err == nil && there {
		l.stale = true
		// What is in the making is older than this decision.
		if err = l.m.vol.clear(l.folder + newSuffix); err == nil {
			err = l.moveAside(false)
		}
	}
	if err != nil {
		return fmt.Errorf("setting the mirror of %q aside: %w", l.name.String(), err)
	}
	l.head, l.kept, l.made, l.stale, l.renaming = head{}, kept{}, false, false, nil
	return nil
}

// moveAside takes the folder out of the way; the one in the making takes its
// place, also where a crash comes between the two (see finishMaking).
func (l *Ledger) moveAside(replace bool) error {
	clear(l.sure)
	c := l.m.vol.change(map[string]bool{})
	place := path.Join(asideFolder, l.folder)
	if err := c.folders(place); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if n > maxAside {
			return fmt.Errorf("%s: it was set aside %d times already; move old ones away", l.m.vol.name(place), maxAside)
		}
		to := path.Join(place, strconv.Itoa(n))
		there, err := l.m.vol.isThere(to)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if err := c.rename(l.folder, to); err != nil {
			return err
		}
		break
	}
	// Not every file system keeps the order of changes in two directories.
	if err := c.settle(); err != nil {
		return err
	}
	if replace {
		if err := c.rename(l.folder+newSuffix, l.folder); err != nil {
			return err
		}
	}
	return c.settle()
}

// prefix forms the head of the first size transactions.
func (l *Ledger) prefix(size uint64) (head, error) {
	r := reader{l: l}
	h := head{size: size}
	for level := levels - 1; level >= 0; level-- {
		data, err := r.begin(edge(level, size))
		if err != nil {
			return head{}, err
		}
		h.frontier = appendFrontier(h.frontier, data)
	}
	return h, nil
}

// begin gives the first hashes of a tile that has more by now.
func (r *reader) begin(t tile) ([]byte, error) {
	if t.width == 0 {
		return nil, nil
	}
	data, err := r.tile(tileOf(t.level, t.index*tileWidth, r.l.head.size))
	if err != nil {
		return nil, err
	}
	return data[:t.width*hashSize], nil
}

// copyTiles gives a folder the tiles of the first size transactions.
func (l *Ledger) copyTiles(c *change, folder string, size uint64) error {
	r := reader{l: l}
	linked := true
	for level := levels - 1; level >= 0; level-- {
		last := edge(level, size)
		for n := range last.index {
			t := tile{level, n, tileWidth}
			data, err := r.tile(t)
			if err != nil {
				return err
			}
			// Full tiles never change, so that both can have the same file.
			if linked && c.link(l.at(t.path()), path.Join(folder, t.path())) == nil {
				continue
			}
			linked = false
			if err := c.put(path.Join(folder, "tile.new"), path.Join(folder, t.path()), data); err != nil {
				return err
			}
		}
		data, err := r.begin(last)
		if err != nil {
			return err
		}
		if last.width == 0 {
			continue
		}
		if err := c.put(path.Join(folder, "tile.new"), path.Join(folder, last.path()), data); err != nil {
			return err
		}
	}
	return nil
}

// Rename makes this the mirror of a ledger by another name, which must have
// none yet.
func (l *Ledger) Rename(to evidence.Name) error {
	if err := checkName(to); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if to == l.name {
		return nil
	}
	if err := l.ready(); err != nil {
		return fmt.Errorf("renaming the mirror: %w", err)
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	folder := folderOf(to)
	there, err := l.m.vol.isThere(folder)
	if err != nil {
		return fmt.Errorf("renaming the mirror: %w", err)
	}
	if there || l.m.ledgers[to] != nil {
		return fmt.Errorf("renaming the mirror of %q to %q: %w; choose another name, or move that one away", l.name.String(), to.String(), ErrExists)
	}
	if l.made {
		l.stale, l.renaming = true, &to
		err = l.renameFolder(to, folder)
		if err != nil {
			err = fmt.Errorf("renaming the mirror: %w", err)
			// Once the folder has moved there is no way back, synced or not.
			if moved, _ := l.m.vol.isThere(folder); !moved {
				return err
			}
		}
		l.stale, l.renaming = err != nil, nil
	}
	delete(l.m.ledgers, l.name)
	l.name, l.folder = to, folder
	l.m.ledgers[to] = l
	return err
}

// renameFolder changes the description first: a crash between the two steps
// leaves what finishRename completes.
func (l *Ledger) renameFolder(to evidence.Name, folder string) error {
	clear(l.sure)
	c := l.m.vol.change(map[string]bool{})
	if err := c.put(l.at("ledger.new"), l.at("ledger"), []byte(describe(to))); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	if err := c.rename(l.folder, folder); err != nil {
		return err
	}
	return c.settle()
}

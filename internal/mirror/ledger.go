package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// maxBatch is how many transactions are made durable at once.
const maxBatch = 1 << 16

// Ledger is the mirror of one ledger. It may be used from several goroutines;
// an Append waits for readers and they for it.
type Ledger struct {
	m *Mirror

	mu     sync.RWMutex
	name   evidence.Name
	folder string
	head   head
	made   bool // the folder is there
	// stale: a step failed after which the files may be ahead of what is known
	// here, so that they are read again first.
	stale bool
	// renaming is the name that the folder may have already, where a Rename
	// has failed.
	renaming *evidence.Name
	sure     map[string]bool // see change
	kept     kept
	edges    map[tile][]byte // the partial tiles of a Snapshot
}

func (l *Ledger) at(p string) string { return path.Join(l.folder, p) }

// Size is how far the mirror reaches: transactions 1…Size, with no gap.
func (l *Ledger) Size() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head.size
}

// load reads the head and makes sure that the end of every level is what it
// says.
func (l *Ledger) load() error {
	l.head, l.kept, l.made, l.stale = head{}, kept{}, false, true // until everything below has succeeded
	clear(l.sure)
	if err := l.settle(); err != nil {
		return err
	}
	there, err := l.m.vol.isThere(l.folder)
	if err != nil {
		return err
	}
	if !there {
		l.stale = false
		return nil
	}
	name, err := l.m.readName(l.folder)
	if err != nil {
		return err
	}
	if name != l.name && (l.renaming == nil || name != *l.renaming) {
		return &Damage{Path: l.m.vol.name(l.at("ledger")), What: fmt.Sprintf("it is the mirror of %q, not of %q", name.String(), l.name.String())}
	}
	if l.head, err = l.m.readHead(l.folder); err != nil {
		return err
	}
	if !l.m.vol.readOnly {
		if err := l.mend(); err != nil {
			return err
		}
	}
	l.made, l.stale = true, false
	return nil
}

// settle sees to it that the folder is where it is looked for: what was
// interrupted is finished, or read where it was left.
func (l *Ledger) settle() error {
	if !l.m.vol.readOnly {
		return l.m.finishLedger(l.folder)
	}
	folder, err := l.m.left(folderOf(l.name))
	if err == nil {
		l.folder = folder
	}
	return err
}

// ready is asked before each change.
func (l *Ledger) ready() error {
	if l.m.vol.readOnly {
		return ErrReadOnly
	}
	if l.stale {
		if err := l.load(); err != nil {
			return err
		}
	}
	if !l.made {
		return nil
	}
	// The lock of the state directory keeps a second auditor out; this keeps
	// what slips past it from mixing two histories.
	data, err := l.m.vol.read(l.at("head"), maxHead)
	if err != nil {
		return l.m.damage(l.at("head"), "it cannot be read any more", err)
	}
	if string(data) != l.head.String() {
		l.stale = true
		return fmt.Errorf("%s: %w; stop the other one", l.m.vol.name(l.at("head")), ErrChanged)
	}
	return nil
}

// Append mirrors transactions from first on. Those that are mirrored already
// must be the same, else it is a *Contradiction; a *Gap is refused. It returns
// after everything is on disk; on any other error a part, without a gap, may
// be. The caller appends only what is stored as trusted.
func (l *Ledger) Append(first uint64, alhs []proof.Hash) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return fmt.Errorf("appending to the mirror: %w", err)
	}
	if first == 0 || first > l.head.size+1 {
		return &Gap{First: first, Size: l.head.size}
	}
	if uint64(len(alhs)) > maxTx-(first-1) {
		return fmt.Errorf("appending %d transactions from %d on: there are no more than %d", len(alhs), first, uint64(maxTx))
	}
	known := min(uint64(len(alhs)), l.head.size-(first-1))
	if err := l.compare(first, alhs[:known]); err != nil {
		return err
	}
	for batch := range slices.Chunk(alhs[known:], maxBatch) {
		if err := l.grow(batch); err != nil {
			// Whether the new head has reached the disk is not known.
			l.stale = true
			return fmt.Errorf("appending to the mirror of %q: %w", l.name.String(), err)
		}
	}
	return nil
}

// compare looks whether transactions are mirrored as given.
func (l *Ledger) compare(first uint64, alhs []proof.Hash) error {
	r := reader{l: l}
	for i := range alhs {
		have, err := r.hash(0, first-1+uint64(i))
		if err != nil {
			return err
		}
		if got := leafHash(&alhs[i]); got != have {
			return &Contradiction{Tx: first + uint64(i), Have: have, Got: got}
		}
	}
	return nil
}

// growth is a batch on its way to disk.
type growth struct {
	l      *Ledger
	c      *change
	r      reader
	open   [levels][]byte // the tile at the end of each level that was touched
	loaded [levels]bool
	count  [levels]uint64 // hashes of each level
}

func (l *Ledger) grow(alhs []proof.Hash) error {
	if !l.made {
		if err := l.make(); err != nil {
			return err
		}
	}
	g := growth{l: l, c: l.m.vol.change(l.sure), r: reader{l: l}}
	for level := range levels {
		g.count[level] = hashesAt(level, l.head.size)
	}
	for i := range alhs {
		if err := g.push(0, leafHash(&alhs[i])); err != nil {
			return err
		}
	}
	next, err := g.close(l.head.size + uint64(len(alhs)))
	if err != nil {
		return err
	}
	// Tiles first, then the head that speaks of them.
	if err := g.c.settle(); err != nil {
		return err
	}
	if err := l.commit(g.c, next); err != nil {
		return err
	}
	before := l.head.size
	l.head = next
	l.sweep(before)
	return nil
}

// push appends a hash to a level, and the root of each tile that becomes full
// to the level above.
func (g *growth) push(level int, h proof.Hash) error {
	if !g.loaded[level] {
		// The reader has proven it; a copy, since it grows.
		data, err := g.r.tile(edge(level, g.l.head.size))
		if err != nil {
			return err
		}
		g.open[level] = append(make([]byte, 0, tileBytes), data...)
		g.loaded[level] = true
	}
	g.open[level] = append(g.open[level], h[:]...)
	g.count[level]++
	if len(g.open[level]) < tileBytes {
		return nil
	}
	t := tile{level, (g.count[level] - 1) / tileWidth, tileWidth}
	if err := g.write(t, g.open[level]); err != nil {
		return err
	}
	root := subtree(g.open[level])
	g.open[level] = g.open[level][:0]
	return g.push(level+1, root)
}

func (g *growth) write(t tile, data []byte) error {
	return g.c.put(g.l.at("tile.new"), g.l.at(t.path()), data)
}

// close writes the partial tiles and forms the head.
func (g *growth) close(size uint64) (head, error) {
	next := head{size: size}
	for level := levels - 1; level >= 0; level-- {
		if !g.loaded[level] {
			from, to := g.l.head.section(level)
			next.frontier = append(next.frontier, g.l.head.frontier[from:to]...)
			continue
		}
		if t := edge(level, size); t.width > 0 {
			if err := g.write(t, g.open[level]); err != nil {
				return head{}, err
			}
		}
		next.frontier = appendFrontier(next.frontier, g.open[level])
	}
	return next, nil
}

// commit replaces the head: everything before counts from here on.
func (l *Ledger) commit(c *change, next head) error {
	if err := c.put(l.at("head.new"), l.at("head"), []byte(next.String())); err != nil {
		return err
	}
	return c.settle()
}

// sweep removes partial tiles of the size before. What is left over does no
// harm: only tiles that the head speaks of are read.
func (l *Ledger) sweep(before uint64) {
	for level := range levels {
		old, now := edge(level, before), edge(level, l.head.size)
		if old.width == 0 || old == now {
			continue
		}
		if err := l.m.vol.remove(l.at(old.path())); err != nil {
			l.m.log.Debug("removing an old partial tile", "error", err)
			continue
		}
		if old.index != now.index {
			// Fails where more was left over, which is as harmless.
			if err := l.m.vol.remove(l.at(path.Dir(old.path()))); err != nil {
				l.m.log.Debug("removing the folder of old partial tiles", "error", err)
			}
		}
	}
}

// make makes the folder, empty, under its name or not at all.
func (l *Ledger) make() error {
	if err := l.prepare(head{}, nil); err != nil {
		return err
	}
	c := l.m.vol.change(l.sure)
	if err := c.rename(l.folder+newSuffix, l.folder); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	l.made = true
	return nil
}

// prepare makes a complete folder of this ledger beside where it will be;
// fill, where given, puts the tiles there.
func (l *Ledger) prepare(h head, fill func(c *change, folder string) error) error {
	making := l.folder + newSuffix
	if err := l.m.vol.clear(making); err != nil {
		return err
	}
	c := l.m.vol.change(map[string]bool{})
	if fill != nil {
		if err := fill(c, making); err != nil {
			return err
		}
	}
	if err := c.put(path.Join(making, "ledger.new"), path.Join(making, "ledger"), []byte(describe(l.name))); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	if err := c.put(path.Join(making, "head.new"), path.Join(making, "head"), []byte(h.String())); err != nil {
		return err
	}
	return c.settle()
}

// mend looks at the end of every level. A partial tile of transactions that
// was torn is given up, to be fetched again; one of roots is formed again from
// the full tiles below it.
func (l *Ledger) mend() error {
	r := reader{l: l}
	for level := levels - 1; level >= 0; level-- {
		t := edge(level, l.head.size)
		if t.width == 0 {
			continue
		}
		_, err := r.tile(t)
		if err == nil {
			continue
		}
		if !errors.As(err, new(*Damage)) {
			return err
		}
		l.m.log.Warn("the end of a mirror was torn", "ledger", l.name.String(), "error", err)
		if level == 0 {
			return l.shorten()
		}
		if err := l.reform(t); err != nil {
			return err
		}
	}
	return nil
}

// shorten gives up the transactions in the partial tile at the end.
func (l *Ledger) shorten() error {
	from, _ := l.head.section(0)
	next := head{size: l.head.size &^ (tileWidth - 1), frontier: l.head.frontier[:from:from]}
	if err := l.commit(l.m.vol.change(l.sure), next); err != nil {
		return fmt.Errorf("giving up a torn tile: %w", err)
	}
	l.head = next
	return nil
}

// reform forms a partial tile of roots again.
func (l *Ledger) reform(t tile) error {
	var data []byte
	for i := range uint64(t.width) {
		child := tile{t.level - 1, t.index*tileWidth + i, tileWidth}
		content, err := l.m.vol.read(l.at(child.path()), tileBytes)
		if err != nil || len(content) != tileBytes {
			return l.damage(child, "it is missing or cut", err)
		}
		root := subtree(content)
		data = append(data, root[:]...)
	}
	if !l.fits(t, data) {
		return l.damage(t, "the tiles below it do not hash to the head", nil)
	}
	c := l.m.vol.change(l.sure)
	err := c.put(l.at("tile.new"), l.at(t.path()), data)
	if err == nil {
		err = c.settle()
	}
	if err != nil {
		return fmt.Errorf("forming a torn tile again: %w", err)
	}
	return nil
}

// fits compares a partial tile with the frontier.
func (l *Ledger) fits(t tile, data []byte) bool {
	from, to := l.head.section(t.level)
	return slices.Equal(appendFrontier(nil, data), l.head.frontier[from:to])
}

func (l *Ledger) damage(t tile, what string, err error) error {
	e := l.m.damage(l.at(t.path()), what, err)
	if d := (*Damage)(nil); errors.As(e, &d) {
		d.Whole, d.Last = min(t.first(), l.head.size), min(t.last(), l.head.size)
	}
	return e
}

// reader reads tiles, each proven by the one above and at last by the head.
// It keeps the last tile of each level.
type reader struct {
	l    *Ledger
	last [levels]struct {
		t    tile
		data []byte
	}
}

// tile gives the content of a tile that the head speaks of; it must not be
// changed.
func (r *reader) tile(t tile) ([]byte, error) {
	if t.width == 0 {
		return nil, nil
	}
	if last := &r.last[t.level]; last.data != nil && last.t == t {
		return last.data, nil
	}
	data, pinned := r.l.edges[t]
	if !pinned {
		var err error
		if data, err = r.l.m.vol.read(r.l.at(t.path()), tileBytes); err != nil {
			return nil, r.l.damage(t, "it cannot be read", err)
		}
	}
	if len(data) != t.width*hashSize {
		return nil, r.l.damage(t, fmt.Sprintf("it has %d bytes instead of %d", len(data), t.width*hashSize), nil)
	}
	if !t.full() {
		if !r.l.fits(t, data) {
			return nil, r.l.damage(t, "it does not hash to the head", nil)
		}
	} else {
		// C2SP tlog-tiles: a hash of level l+1 is the root of a full tile of level l.
		want, err := r.hash(t.level+1, t.index)
		if err != nil {
			return nil, err
		}
		if got := subtree(data); !bytes.Equal(got[:], want[:]) {
			return nil, r.l.damage(t, "it does not hash to the tile above", nil)
		}
	}
	r.last[t.level].t, r.last[t.level].data = t, data
	return data, nil
}

// hash gives hash number n of a level of tiles.
func (r *reader) hash(level int, n uint64) (proof.Hash, error) {
	data, err := r.tile(tileOf(level, n, r.l.head.size))
	if err != nil {
		return proof.Hash{}, err
	}
	i := n % tileWidth * hashSize
	return proof.Hash(data[i : i+hashSize]), nil
}

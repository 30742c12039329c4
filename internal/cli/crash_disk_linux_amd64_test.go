package cli_test

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// disk keeps what of a directory would be there after a power cut: of a file
// what was synced, and of a directory the names it had when it was synced.
type disk struct {
	root  string
	known map[uint64]int         // inode: file, while it has a name
	files map[int][]byte         // synced content
	names map[int]map[string]int // synced names of directories
	last  int
}

const pageSize = 4096

// newDisk takes all that is there for synced.
func newDisk(root string) (*disk, error) {
	d := &disk{root: root, known: map[uint64]int{}, files: map[int][]byte{}, names: map[int]map[string]int{}}
	return d, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		id, err := d.file(path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			d.names[id], err = d.listing(path)
		} else {
			d.files[id], err = os.ReadFile(path)
		}
		return err
	})
}

// file tells files apart; an inode may be another file's by and by.
func (d *disk) file(path string) (int, error) {
	inode, _, err := inodeOf(path)
	if err != nil {
		return 0, err
	}
	id := d.known[inode]
	if id == 0 {
		d.last++
		id = d.last
		d.known[inode] = id
	}
	return id, nil
}

func inodeOf(path string) (inode, names uint64, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, 0, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	if info.IsDir() {
		return stat.Ino, 1, nil
	}
	return stat.Ino, stat.Nlink, nil
}

func (d *disk) listing(path string) (map[string]int, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	names := map[string]int{}
	for _, entry := range entries {
		if entry.Type()&fs.ModeSocket != 0 {
			continue // for who is running
		}
		if names[entry.Name()], err = d.file(filepath.Join(path, entry.Name())); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// before is a tracer's: what a sync makes durable is what was there when it began.
func (d *disk) before(c *call) (succeeded func()) {
	switch c.name {
	case "unlink", "unlinkat", "renameat", "renameat2":
		if inode, names, err := inodeOf(c.path); err == nil && names == 1 {
			return func() { delete(d.known, inode) }
		}
	case "fsync", "fdatasync":
		id, err := d.file(c.path)
		if err != nil {
			return nil // it has no name any more
		}
		if names, err := d.listing(c.path); err == nil {
			return func() { d.names[id] = names }
		}
		if content, err := os.ReadFile(c.path); err == nil {
			return func() { d.files[id] = content }
		}
	}
	return nil
}

// cut gives the directory after a power cut, somewhere else: nothing that was
// not synced, or, with chance, any of it, page by page and name by name.
func (d *disk) cut(to string, chance *rand.Rand) error {
	root, err := d.file(d.root)
	if err != nil {
		return err
	}
	now := map[int]string{}
	if err := filepath.WalkDir(d.root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		id, err := d.file(path)
		now[id] = path
		return err
	}); err != nil {
		return err
	}
	return d.restore(root, to, now, chance)
}

func (d *disk) restore(dir int, to string, now map[int]string, chance *rand.Rand) error {
	names := d.names[dir]
	if path := now[dir]; chance != nil && path != "" {
		shown, err := d.listing(path)
		if err != nil {
			return err
		}
		names = either(names, shown, chance)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		id, path := names[name], filepath.Join(to, name)
		info, err := os.Stat(now[id])
		if d.names[id] != nil || err == nil && info.IsDir() {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			if err := d.restore(id, path, now, chance); err != nil {
				return err
			}
			continue
		}
		content := d.files[id]
		if chance != nil && now[id] != "" {
			written, err := os.ReadFile(now[id])
			if err != nil {
				return fmt.Errorf("reading what was written: %w", err)
			}
			content = mixed(content, written, chance)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func either(synced, shown map[string]int, chance *rand.Rand) map[string]int {
	names := map[string]int{}
	all := maps.Clone(shown)
	maps.Copy(all, synced)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		from := synced
		if chance.IntN(2) == 0 {
			from = shown
		}
		if id, ok := from[name]; ok {
			names[name] = id
		}
	}
	return names
}

// mixed has some pages of one content and some of the other; a page that was
// never written is empty.
func mixed(synced, written []byte, chance *rand.Rand) []byte {
	size := len(synced)
	if chance.IntN(2) == 0 {
		size = len(written)
	}
	content := make([]byte, size)
	for at := 0; at < size; at += pageSize {
		from := synced
		if chance.IntN(2) == 0 {
			from = written
		}
		if at < len(from) {
			copy(content[at:min(at+pageSize, size)], from[at:])
		}
	}
	return content
}

package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// guard is what the guard file says of a state: which one, the number of a
// commit, and what was trusted then. See the package's comment.
type guard struct {
	id       [16]byte
	sequence uint64
	ledgers  int
	hash     [32]byte
	written  time.Time // whole seconds, UTC
}

const (
	guardHead    = "immuaudit guard "
	guardVersion = "1"
	maxGuard     = 1 << 10 // bytes; a guard has about 250
	newGuard     = ".new"  // behind the name of one in the making
)

func (g guard) text() []byte {
	text := fmt.Sprintf("%s%s\nstate %x\nsequence %d\nledgers %d\nhash %x\nwritten %s\n",
		guardHead, guardVersion, g.id, g.sequence, g.ledgers, g.hash, g.written.UTC().Format(time.RFC3339))
	sum := sha256.Sum256([]byte(text))
	return fmt.Appendf([]byte(text), "sum %x\n", sum[:8])
}

func parseGuard(text []byte) (guard, error) {
	var g guard
	lines := strings.Split(string(text), "\n")
	fields := make([]string, 0, 7)
	for i, prefix := range [...]string{guardHead, "state ", "sequence ", "ledgers ", "hash ", "written "} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], prefix) {
			return g, fmt.Errorf("line %d does not begin with %q", i+1, prefix)
		}
		fields = append(fields, strings.TrimPrefix(lines[i], prefix))
	}
	if fields[0] != guardVersion {
		return g, fmt.Errorf("it has version %.20q, this program knows version %s", fields[0], guardVersion)
	}
	_, err1 := hex.Decode(g.id[:], []byte(fields[1][:min(len(fields[1]), 2*len(g.id))]))
	_, err2 := fmt.Sscanf(fields[2]+" "+fields[3], "%20d %10d", &g.sequence, &g.ledgers)
	_, err3 := hex.Decode(g.hash[:], []byte(fields[4][:min(len(fields[4]), 2*len(g.hash))]))
	written, err4 := time.Parse(time.RFC3339, fields[5])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return g, fmt.Errorf("reading its fields: %w", err)
	}
	g.written = written
	// Accepted is exactly what would be written.
	if !bytes.Equal(g.text(), text) {
		return g, errors.New("its checksum does not fit")
	}
	return g, nil
}

// place is where a guard is kept.
type place struct {
	path  string
	given bool   // somebody named it
	kept  bool   // a guard can be written here
	found *guard // before the state was looked at; nil where there was none
	doubt error  // why it cannot be read
}

func (p *place) witnessed() bool { return p != nil && p.found != nil }

// findGuard reads the guard, and finds out whether one can be kept where
// somebody named, before anything is made or remembered.
func findGuard(o *Options) (*place, error) {
	if o.Guard == "" {
		return nil, nil
	}
	path, err := filepath.Abs(o.Guard)
	if err != nil {
		return nil, fmt.Errorf("resolving the place of the guard: %w", err)
	}
	if dir, err := filepath.Abs(o.Dir); err != nil || within(path, dir) {
		return nil, &Error{Kind: ErrGuardPlace, Path: path, What: "it lies in the state directory, and would be rolled back and deleted together with it", Err: err,
			Next: "name a file elsewhere with --state-guard, best on another disk"}
	}
	p := &place{path: path, given: o.GuardGiven}
	if p.found, p.doubt = p.read(); p.doubt != nil && !o.ReadOnly {
		return nil, p.doubt
	}
	if p.given {
		return p, p.tryOut(o)
	}
	return p, nil
}

// tryOut finds out whether a guard can be kept. Who decides or looks while an
// auditor runs is not stopped by it.
func (p *place) tryOut(o *Options) error {
	if o.ReadOnly {
		return nil
	}
	err := p.probe()
	p.kept = err == nil
	switch {
	case err == nil, !o.Create && !p.given:
	case o.Create && p.given:
		return err
	case p.given:
		o.Logger.Warn("the guard cannot be written", "error", err)
	default:
		o.Logger.Warn("there is no guard: nobody would notice a rollback of the whole state directory; name a place for one with --state-guard", "error", err)
	}
	return nil
}

// within reports whether a file lies in a directory; both may be reached
// through links, and neither has to be there yet.
func within(path, dir string) bool {
	real := func(path string) string {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
		return path
	}
	rel, err := filepath.Rel(real(dir), filepath.Join(real(filepath.Dir(path)), filepath.Base(path)))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// read gives the guard, nil where there is none.
func (p *place) read() (*guard, error) {
	switch info, err := os.Lstat(p.path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, p.trouble(err)
	case !info.Mode().IsRegular():
		// Links are not followed, and pipes not waited for.
		return nil, &Error{Kind: ErrUnsafe, Path: p.path, What: "is not a regular file", Next: "put the guard itself there, or " + p.forget()}
	}
	f, err := os.OpenFile(p.path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, p.trouble(err)
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxGuard+1))
	if err != nil {
		return nil, p.trouble(err)
	}
	g, err := parseGuard(text)
	if err != nil {
		return nil, &Error{Kind: ErrGuardDamaged, Path: p.path, Err: err, Next: "find out how that came about; if nothing else is wrong, " + p.forget()}
	}
	return &g, nil
}

// forget is what to do to go on without what the guard says. It is the one
// way: an older copy that was restored on purpose is gone on with like this.
func (p *place) forget() string { return "move " + p.path + " away" }

// trouble explains an error of the operating system.
func (p *place) trouble(err error) error {
	kind, next := ErrDisk, "look into the system log for errors of its disk, or name another place with --state-guard"
	switch {
	case isFull(err):
		kind, next = ErrFull, "make room on its disk"
	case errors.Is(err, fs.ErrPermission), isReadOnly(err):
		kind, next = ErrGuardPlace, "let the user the auditor runs as write to that directory, or name another place with --state-guard"
	case errors.Is(err, fs.ErrNotExist):
		kind, next = ErrGuardPlace, "make its directory, writable for the user the auditor runs as alone, or name another place with --state-guard"
	}
	return &Error{Kind: kind, Path: p.path, Err: err, Next: next}
}

// probe finds out whether a guard can be written, before anything depends on
// it. The file has a name of its own: an auditor may be writing a guard.
func (p *place) probe() error {
	f, err := os.CreateTemp(filepath.Dir(p.path), filepath.Base(p.path)+".try-")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return p.trouble(err)
	}
	return nil
}

// check looks whether others could change the guard, by the rules of all files
// of the state.
func (p *place) check(d directory) error {
	if _, err := d.checkPath(p.path); err != nil {
		return err
	}
	dir := filepath.Dir(p.path)
	info, err := os.Stat(dir)
	if err != nil {
		return p.trouble(err)
	}
	// Whoever can write there can take the guard away, which is noticed, or
	// put an older one there together with an older state, which is not.
	own, _ := ownerOf(info)
	mode := info.Mode()
	if mode&fs.ModeSticky == 0 && (mode.Perm()&0o002 != 0 || mode.Perm()&0o020 != 0 && own.gid != d.owner.gid) {
		d.log.Warn("others can write to the directory of the guard: they could roll it back together with the state", "guard", p.path, "next", "chmod go-w "+dir)
	}
	return nil
}

// replace puts a guard in its place unless the one there is as new. It appears
// whole or not at all. The lock of the state directory keeps the guards of two
// processes from coming in the wrong order. harm is what had become of the one
// before.
func (p *place) replace(ctx context.Context, d directory, g guard) (harm string, err error) {
	err = d.exclusively(ctx, func() error {
		switch on, err := p.read(); {
		case errors.Is(err, ErrGuardDamaged):
			harm = "it was damaged"
		case err != nil:
			return err
		case on == nil:
			harm = "it was gone"
		case on.id != g.id:
			return p.foreign()
		case on.sequence >= g.sequence:
			return nil
		}
		return p.write(d, g)
	})
	return harm, err
}

func (p *place) write(d directory, g guard) error {
	// One that a crash has left.
	if err := os.Remove(p.path + newGuard); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p.trouble(err)
	}
	f, err := os.OpenFile(p.path+newGuard, os.O_WRONLY|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return p.trouble(err)
	}
	_, err = f.Write(g.text())
	if err := errors.Join(err, d.adopt(f), f.Sync(), f.Close()); err != nil {
		return p.trouble(err)
	}
	if err := os.Rename(f.Name(), p.path); err != nil {
		return p.trouble(err)
	}
	if err := (directory{path: filepath.Dir(p.path)}).sync(); err != nil {
		return p.trouble(err)
	}
	return nil
}

func (p *place) foreign() error {
	return &Error{Kind: ErrGuardForeign, Path: p.path,
		Next: "name the state's own guard with --state-guard, or its directory with --dir; if this state is to be trusted without the one before it, " + p.forget()}
}

// gone is a state that is missing although its guard is there.
func (p *place) gone(dir string) error {
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	return &Error{Kind: ErrGone, Path: dir,
		What: fmt.Sprintf("the state that the guard %s witnessed at change %d, on %s, is not there", p.path, p.found.sequence, when(p.found.written)),
		Next: "restore the newest copy of the whole directory; to begin anew, with no memory of what was proven, " + p.forget()}
}

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// standing is all that a guard witnesses, at one commit.
type standing struct {
	watermark
	digest [32]byte // of all records: trust, marks, incidents
	proven map[evidence.Name]proof.State
	order  []evidence.Name // those of proven, sorted; made by hash
}

// readStanding reads it from the database, in one unchanging view.
func (s *Store) readStanding(ctx context.Context) (standing, error) {
	now := standing{proven: map[evidence.Name]proof.State{}}
	err := s.read(ctx, func(q querier) (err error) {
		if now.watermark, err = readState(ctx, q, s.path); err != nil {
			return err
		}
		var digest []byte
		if err := q.QueryRowContext(ctx, "SELECT digest FROM meta WHERE one = 1").Scan(&digest); err != nil {
			return err
		}
		copy(now.digest[:], digest)
		rows, err := q.QueryContext(ctx, "SELECT server, database, proven, proven_alh FROM trust")
		if err != nil {
			return err
		}
		return each(rows, func(rows *sql.Rows) error {
			var name evidence.Name
			var state proof.State
			var alh sql.RawBytes
			if err := rows.Scan(&name.Server, &name.Database, &state.TxID, &alh); err != nil {
				return misshapen(s.path, "ledger", err)
			}
			if len(alh) != len(state.Alh) {
				return broken(s.path, "ledger", name)
			}
			copy(state.Alh[:], alh)
			now.proven[name] = state
			return nil
		})
	})
	return now, err
}

// guard is what a guard says of it.
func (now *standing) guard(at time.Time) guard {
	return guard{id: now.id, sequence: now.commits, ledgers: len(now.proven), hash: now.hash(), written: at.UTC().Truncate(time.Second)}
}

// hash covers what is proven of every ledger in the order of their names, each
// field with its length, and the digest of all records at the end.
func (now *standing) hash() (sum [32]byte) {
	// Names are added, never taken out: a renaming is read from the database.
	if len(now.order) != len(now.proven) {
		now.order = slices.SortedFunc(maps.Keys(now.proven), func(a, b evidence.Name) int {
			return cmp.Or(strings.Compare(a.Server, b.Server), strings.Compare(a.Database, b.Database))
		})
	}
	h := sha256.New()
	row := make([]byte, 0, 512)
	for _, name := range now.order {
		state := now.proven[name]
		row = row[:0]
		for _, field := range [...]string{name.Server, name.Database} {
			row = append(binary.BigEndian.AppendUint64(row, uint64(len(field))), field...)
		}
		row = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(row, 8), state.TxID)
		row = append(binary.BigEndian.AppendUint64(row, uint64(len(state.Alh))), state.Alh[:]...)
		h.Write(row)
	}
	h.Write(append(binary.BigEndian.AppendUint64(nil, uint64(len(now.digest))), now.digest[:]...))
	h.Sum(sum[:0])
	return sum
}

// judgeGuard compares the guard that was found with the state, whose standing
// it gives.
func (s *Store) judgeGuard(ctx context.Context) (standing, error) {
	p := s.place
	if p == nil {
		return standing{}, nil
	}
	if p.doubt != nil {
		return standing{}, p.doubt
	}
	now, err := s.readStanding(ctx)
	if err == nil && p.found == nil && now.commits > 1 {
		// Another process may have made both since it was looked for.
		if p.found, err = p.read(); err == nil {
			now, err = s.readStanding(ctx)
		}
	}
	if err != nil || p.found == nil {
		return now, err
	}
	if err := p.check(s.dir); err != nil {
		return now, err
	}
	return now, p.judge(p.found, &now, s.path)
}

// beginGuard starts the witness. A guard that is missing is begun by those who
// may create, and left to them by others.
func (s *Store) beginGuard(ctx context.Context, now standing, create bool) error {
	p := s.place
	if p == nil || !p.kept || p.found == nil && !create {
		return nil
	}
	if p.found == nil && now.commits > 1 {
		s.problem = fmt.Sprintf("the guard %s is missing, although the state was at change %d: if it was not moved away on purpose, and this place for it is not new, somebody removed it and the state may be an older copy; a new guard was begun", p.path, now.commits)
	}
	s.witness = newWitness(s, p, now)
	if p.found == nil || p.found.sequence < now.commits {
		if _, err := p.replace(ctx, s.dir, now.guard(time.Now())); err != nil {
			if p.given && create {
				return err
			}
			s.witness.fail(err)
		}
	}
	go s.witness.run()
	return nil
}

// judge compares a guard with the state that it should be of. A guard that is
// behind is what a crash between a commit and its guard leaves.
func (p *place) judge(g *guard, now *standing, path string) error {
	switch {
	case g.id != now.id:
		return p.foreign()
	case g.sequence > now.commits:
		return &Error{Kind: ErrRolledBack, Path: path,
			What: fmt.Sprintf("it is at change %d, and %d behind what the guard %s witnessed on %s", now.commits, g.sequence-now.commits, p.path, when(g.written)),
			Next: "restore the newest copy of the whole directory; to go on with this older copy, forgetting what was proven since, " + p.forget()}
	case g.sequence == now.commits && (g.ledgers != len(now.proven) || g.hash != now.hash()):
		return &Error{Kind: ErrEdited, Path: path,
			What: fmt.Sprintf("at change %d the guard %s witnessed, on %s, other records than are there", g.sequence, p.path, when(g.written)),
			Next: "find out who can write there, and restore the whole directory from one backup; to go on with what was made of it, " + p.forget()}
	}
	return nil
}

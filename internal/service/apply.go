package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// longestCommand bounds how long a command may take; starting a service that
// does not come up takes the longest (TimeoutStartSec).
const longestCommand = 2 * time.Minute

// Applier carries plans out, or shows them.
type Applier struct {
	Root   string // apply changes of files below this directory; "" = to this system
	DryRun bool   // show the plan and do nothing
	Out    io.Writer
	// Command runs a command instead of the system, for tests; nil = the system.
	Command func(ctx context.Context, argv []string) (output []byte, err error)
}

// applying is a plan being carried out.
type applying struct {
	*Applier
	tree    *tree
	changed bool
}

// Apply carries out the steps in order and says what each did. It stops at the
// first that fails; given again it goes on where it stopped.
func (a *Applier) Apply(ctx context.Context, p Plan) error {
	if a.DryRun {
		fmt.Fprint(a.Out, p)
		return nil
	}
	t, err := openTree(a.Root)
	if err != nil {
		return err
	}
	run := &applying{Applier: a, tree: t}
	for _, s := range p.Steps {
		var o outcome
		if o, err = s.apply(ctx, run); err != nil {
			break
		}
		run.changed = run.changed || o.changed
		if o.words != "" {
			fmt.Fprintln(a.Out, o.words)
		}
	}
	if err := errors.Join(err, t.close()); err != nil {
		return err
	}
	for _, n := range p.Notes {
		fmt.Fprintln(a.Out, "note: "+n)
	}
	return nil
}

// owner looks names up, which a step before may have made.
func (a *applying) owner(o Owner) (ids, error) {
	// Without privileges files are whoever makes them; and Windows knows no
	// numbers.
	if runtime.GOOS == "windows" || a.Root != "" && !privileged() {
		return ids{leave: true}, nil
	}
	user, known, err := a.tree.account(o.User)
	if err == nil && !known {
		err = fmt.Errorf("there is no user %s", o.User)
	}
	gid, haveGroup := 0, false
	if err == nil {
		if gid, haveGroup, err = a.tree.group(o.Group); err == nil && !haveGroup {
			err = fmt.Errorf("there is no group %s", o.Group)
		}
	}
	if a.Root != "" && errors.Is(err, fs.ErrNotExist) { // not a system but a part of one
		return ids{}, nil
	}
	if err != nil {
		return ids{}, fmt.Errorf("looking up %s: %w; make the account by hand and try again", o, err)
	}
	return ids{uid: user.uid, gid: gid}, nil
}

func asItShouldBe(path string) outcome { return outcome{words: path + " is as it should be"} }

func (s WriteFile) apply(_ context.Context, a *applying) (outcome, error) {
	own, err := a.owner(s.Owner)
	if err != nil {
		return outcome{}, err
	}
	if old, err := a.tree.read(s.Path); err == nil && bytes.Equal(old, s.Content) {
		if info, err := a.tree.lstat(s.Path); err == nil && info.Mode() == s.Mode && own.has(info) {
			return asItShouldBe(s.Path), nil
		}
	}
	if err := a.tree.replace(s.Path, bytes.NewReader(s.Content), s.Mode, own); err != nil {
		return outcome{}, fmt.Errorf("writing %s: %w", s.Path, err)
	}
	return outcome{fmt.Sprintf("wrote %s (%s %04o)", s.Path, s.Owner, s.Mode), true}, nil
}

func (s Touch) apply(_ context.Context, a *applying) (outcome, error) {
	own, err := a.owner(s.Owner)
	if err != nil {
		return outcome{}, err
	}
	if info, err := a.tree.lstat(s.Path); err == nil {
		if !info.Mode().IsRegular() {
			return outcome{}, fmt.Errorf("%s is not a regular file; move it away", s.Path)
		}
		if own.has(info) {
			return asItShouldBe(s.Path), nil
		}
		return outcome{}, fmt.Errorf("%s belongs to another user; move it away, or: chown %s %s", s.Path, s.Owner, s.Path)
	}
	if err := a.tree.replace(s.Path, strings.NewReader(""), s.Mode, own); err != nil {
		return outcome{}, fmt.Errorf("making %s: %w", s.Path, err)
	}
	return outcome{fmt.Sprintf("made %s (%s %04o)", s.Path, s.Owner, s.Mode), true}, nil
}

func (s MakeDir) apply(_ context.Context, a *applying) (outcome, error) {
	own, err := a.owner(s.Owner)
	if err != nil {
		return outcome{}, err
	}
	name := a.tree.within(s.Path)
	info, err := a.tree.root.Stat(name)
	switch {
	case err == nil && !info.IsDir():
		return outcome{}, fmt.Errorf("%s is not a directory; move it away", s.Path)
	case err == nil && (!s.Own || info.Mode().Perm() == s.Mode && own.has(info)):
		return outcome{}, nil
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return outcome{}, fmt.Errorf("looking at %s: %w", s.Path, err)
	default:
		if err := a.makeParents(filepath.Dir(name)); err != nil {
			return outcome{}, fmt.Errorf("making %s: %w", filepath.Dir(s.Path), err)
		}
		if err := a.tree.root.Mkdir(name, 0o700); err != nil {
			return outcome{}, fmt.Errorf("making %s: %w", s.Path, err)
		}
	}
	// Through a handle: what was looked at is what is changed.
	d, err := a.tree.root.Open(name)
	if err == nil {
		err = errors.Join(own.give(d), d.Chmod(s.Mode), d.Close())
	}
	if err != nil {
		return outcome{}, fmt.Errorf("giving %s to %s: %w", s.Path, s.Owner, err)
	}
	return outcome{fmt.Sprintf("made %s (%s %04o)", s.Path, s.Owner, s.Mode), true}, nil
}

// makeParents makes directories that everybody can pass, whatever the umask.
func (a *applying) makeParents(name string) error {
	if _, err := a.tree.root.Stat(name); err == nil || name == "." {
		return err
	}
	if err := a.makeParents(filepath.Dir(name)); err != nil {
		return err
	}
	if err := a.tree.root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return a.tree.root.Chmod(name, 0o755)
}

func (s CopyBinary) apply(_ context.Context, a *applying) (outcome, error) {
	own, err := a.owner(s.Owner)
	if err != nil {
		return outcome{}, err
	}
	from, err := os.Open(s.From)
	if err != nil {
		return outcome{}, fmt.Errorf("copying the program: %w", err)
	}
	defer from.Close() // read-only: nothing is lost
	same, err := a.sameFile(from, s.Path)
	if err != nil {
		return outcome{}, fmt.Errorf("comparing the program with %s: %w", s.Path, err)
	}
	if same {
		if info, err := a.tree.lstat(s.Path); err == nil && info.Mode() == 0o755 && own.has(info) {
			return asItShouldBe(s.Path), nil
		}
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return outcome{}, fmt.Errorf("copying the program: %w", err)
	}
	if err := a.tree.replace(s.Path, from, 0o755, own); err != nil {
		return outcome{}, fmt.Errorf("copying the program to %s: %w", s.Path, err)
	}
	return outcome{fmt.Sprintf("copied the program to %s", s.Path), true}, nil
}

// sameFile compares contents.
func (a *applying) sameFile(from *os.File, path string) (bool, error) {
	to, err := a.tree.root.OpenFile(a.tree.rel(path), os.O_RDONLY|noWait, 0)
	if err != nil {
		return false, nil // it is written anew, which says what is wrong
	}
	defer to.Close() // read-only: nothing is lost
	one, two := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err1 := io.ReadFull(from, one)
		m, err2 := io.ReadFull(to, two)
		if !bytes.Equal(one[:n], two[:m]) {
			return false, nil
		}
		end1, end2 := errors.Is(err1, io.EOF) || errors.Is(err1, io.ErrUnexpectedEOF), errors.Is(err2, io.EOF) || errors.Is(err2, io.ErrUnexpectedEOF)
		switch {
		case end1 && end2:
			return true, nil
		case err1 != nil && !end1:
			return false, err1
		case end1 || err2 != nil:
			return false, nil
		}
	}
}

func (s SetAside) apply(_ context.Context, a *applying) (outcome, error) {
	if _, err := a.tree.lstat(s.Path); errors.Is(err, fs.ErrNotExist) {
		return outcome{}, nil
	}
	if err := a.tree.root.Rename(a.tree.rel(s.Path), a.tree.rel(s.Path+aside)); err != nil {
		return outcome{}, fmt.Errorf("setting %s aside: %w", s.Path, err)
	}
	return outcome{fmt.Sprintf("renamed %s to %s", s.Path, s.Path+aside), true}, nil
}

// TakeOver changes nothing unless everything in the directory is root's or the
// account's, with one name each: whoever else could have put it there could
// have put in anything.
func (s TakeOver) apply(_ context.Context, a *applying) (outcome, error) {
	to, err := a.owner(accountOwner)
	if err != nil {
		return outcome{}, err
	}
	if to.leave {
		return outcome{}, nil
	}
	top := a.tree.within(s.Path)
	var names []string
	err = fs.WalkDir(a.tree.root.FS(), filepath.ToSlash(top), func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := a.tree.root.Lstat(name)
		if err != nil {
			return err
		}
		own, _ := ownerOf(info)
		switch {
		case own.uid != 0 && own.uid != to.uid:
			return fmt.Errorf("%s belongs to user %d; see whether it may stay, and chown or remove it", "/"+name, own.uid)
		case info.Mode().IsRegular() && own.links > 1:
			return fmt.Errorf("%s has %d names; remove the other hard links", "/"+name, own.links)
		case !info.Mode().IsRegular() && !info.IsDir() && info.Mode().Type() != fs.ModeSocket:
			return fmt.Errorf("%s is neither a file nor a directory; move it away", "/"+name)
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return outcome{}, fmt.Errorf("giving %s to %s: %w", s.Path, Account, err)
	}
	for _, name := range names {
		if err := a.tree.root.Lchown(name, to.uid, to.gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return outcome{}, fmt.Errorf("giving %s to %s: %w", "/"+name, Account, err)
		}
	}
	return outcome{fmt.Sprintf("gave %s and what is in it from root to %s", s.Path, Account), true}, nil
}

func (s Link) apply(_ context.Context, a *applying) (outcome, error) {
	name := a.tree.rel(s.Path)
	if old, err := a.tree.root.Readlink(name); err == nil && old == s.Target {
		return asItShouldBe(s.Path), nil
	}
	if err := a.tree.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return outcome{}, fmt.Errorf("linking %s: %w", s.Path, err)
	}
	if err := a.tree.root.Symlink(s.Target, name); err != nil {
		return outcome{}, fmt.Errorf("linking %s: %w", s.Path, err)
	}
	return outcome{fmt.Sprintf("linked %s to %s", s.Path, s.Target), true}, nil
}

func (s Remove) apply(_ context.Context, a *applying) (outcome, error) {
	name := a.tree.rel(s.Path)
	if _, err := a.tree.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return outcome{}, nil
	}
	remove := a.tree.root.Remove
	if s.All {
		remove = a.tree.root.RemoveAll
	}
	if err := remove(name); err != nil {
		if info, e := a.tree.root.Lstat(name); e == nil && info.IsDir() && !s.All {
			return outcome{words: fmt.Sprintf("left %s: there is more in it", s.Path)}, nil
		}
		return outcome{}, fmt.Errorf("removing %s: %w", s.Path, err)
	}
	return outcome{"removed " + s.Path, true}, nil
}

func (s Run) apply(ctx context.Context, a *applying) (outcome, error) {
	if s.OnlyChanged && !a.changed {
		return outcome{}, nil
	}
	if err := a.run(ctx, s.Argv, s.After); err != nil {
		return outcome{}, err
	}
	return outcome{words: s.Done}, nil
}

// run runs a command and puts what it said into the error.
func (a *applying) run(ctx context.Context, argv, after []string) error {
	out, err := a.output(ctx, argv)
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out))
	if len(after) > 0 {
		if more, err := a.output(ctx, after); err == nil {
			said += "\n" + strings.TrimSpace(string(more))
		}
	}
	if said = strings.TrimSpace(said); said != "" {
		return fmt.Errorf("running %s: %w:\n%s", words(argv), err, indent(said))
	}
	return fmt.Errorf("running %s: %w", words(argv), err)
}

func (a *Applier) output(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, longestCommand)
	defer cancel()
	if a.Command != nil {
		return a.Command(ctx, argv)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// What the operator's shell has in its environment is not for these
	// programs; they print in the one language that is understood here.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

func (s Call) apply(ctx context.Context, _ *applying) (outcome, error) {
	said, changed, err := s.Do(ctx)
	return outcome{strings.Join(said, "\n"), changed}, err
}

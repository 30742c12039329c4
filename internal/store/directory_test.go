package store

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"immuaudit/evidence"
)

// used makes a closed state with something in it.
func used(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	trust := trustAt(ledger("prod", "a"), 0, 10)
	apply(t, s, evidence.Change{Trust: &trust})
	finish(t, s)
	return dir
}

func TestDirectoryIsMadePrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	open(t, dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

// TestOpenRefuses is the table of what must not be taken for a sound state,
// nor for a beginning.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	in := func(name string, do func(path string) error) func(string) error {
		return func(dir string) error { return do(filepath.Join(dir, name)) }
	}
	write := func(name, text string) func(string) error {
		return in(name, func(path string) error { return os.WriteFile(path, []byte(text), 0o600) })
	}
	remove := func(names ...string) func(string) error {
		return func(dir string) error {
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	chmod := func(name string, mode os.FileMode) func(string) error {
		return in(name, func(path string) error { return os.Chmod(path, mode) })
	}
	run := func(statements string) func(string) error {
		return in(fileState, func(path string) error { return execute(path, statements) })
	}
	both := func(steps ...func(string) error) func(string) error {
		return func(dir string) error {
			for _, step := range steps {
				if err := step(dir); err != nil {
					return err
				}
			}
			return nil
		}
	}
	tests := []struct {
		name string
		do   func(dir string) error
		kind error
		says string
	}{
		{"directory writable by the group", chmod(".", 0o770), ErrUnsafe, "chmod go-w"},
		{"directory writable by others", chmod(".", 0o1777), ErrUnsafe, "chmod go-w"},
		{"state writable by the group", chmod(fileState, 0o660), ErrUnsafe, "chmod 600"},
		{"state.id writable by others", chmod(fileID, 0o602), ErrUnsafe, "chmod 600"},
		{"lock writable by others", both(write(fileLock, ""), chmod(fileLock, 0o666)), ErrUnsafe, "chmod 600"},
		{"log writable by others", both(write(fileState+"-wal", ""), chmod(fileState+"-wal", 0o666)), ErrUnsafe, "chmod 600"},
		{"state is a link", func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, fileState), filepath.Join(dir, "other")), os.Symlink("other", filepath.Join(dir, fileState)))
		}, ErrUnsafe, "symbolic link"},
		{"lock is a link", in(fileLock, func(path string) error { return os.Symlink("/etc/passwd", path) }), ErrUnsafe, "symbolic link"},
		{"log is a dangling link", in(fileState+"-wal", func(path string) error { return os.Symlink("nowhere", path) }), ErrUnsafe, "symbolic link"},
		{"state has two names", func(dir string) error {
			return os.Link(filepath.Join(dir, fileState), filepath.Join(dir, "other"))
		}, ErrUnsafe, "hard links"},
		{"state is a directory", both(remove(fileState), in(fileState, func(path string) error { return os.Mkdir(path, 0o700) })), ErrUnsafe, "regular file"},
		{"a rollback journal", write(fileState+"-journal", "x"), ErrDamaged, "rollback journal"},
		{"empty state", write(fileState, ""), ErrDamaged, "empty"},
		{"empty state, nothing else", both(remove(fileID), write(fileState, "")), ErrDamaged, "empty"},
		{"not a database", write(fileState, strings.Repeat("no database ", 1000)), ErrNotState, "restore"},
		{"cut to one page", in(fileState, func(path string) error { return os.Truncate(path, 4096) }), ErrDamaged, "restore"},
		{"state gone", remove(fileState), ErrGone, fileID},
		{"state and state.id gone, lock left", both(remove(fileState, fileID), write(fileLock, "")), ErrGone, fileLock},
		{"state and state.id gone, log left", both(remove(fileState, fileID), write(fileState+"-wal", "")), ErrGone, "-wal"},
		{"all gone but the evidence", both(remove(fileState, fileID), in("evidence", func(path string) error { return os.Mkdir(path, 0o700) }), write("evidence/x.json", "{}")), ErrGone, "evidence"},
		{"state.id gone", remove(fileID), ErrGone, "trust export"},
		{"state.id empty", write(fileID, ""), ErrDamaged, fileID},
		{"state.id of another kind", write(fileID, "immuaudit state"), ErrDamaged, fileID},
		{"state.id of another state", write(fileID, string(watermark{id: [16]byte{1}, commits: 1}.line())), ErrForeign, "another one"},
		{"older copy of the state", in(fileID, func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			w, err := parseWatermark(text)
			w.commits += 3
			return errors.Join(err, os.WriteFile(path, w.line(), 0o600))
		}), ErrRolledBack, "3 changes are missing"},
		{"database of something else", run("PRAGMA application_id = 7"), ErrForeign, "0x7"},
		{"newer version", run("PRAGMA user_version = 4"), ErrVersion, "version 4"},
		{"unknown version", run("PRAGMA user_version = 0"), ErrVersion, "version 0"},
		{"a trigger", run("CREATE TRIGGER t AFTER UPDATE ON trust BEGIN DELETE FROM incident; END"), ErrDamaged, `"t"`},
		{"a table less", run("DROP TABLE mark"), ErrDamaged, "missing"},
		{"an index less", run("DROP INDEX event_at"), ErrDamaged, "missing"},
		{"an edited record", run("UPDATE trust SET proven = 11"), ErrDamaged, "checksum"},
		{"an edited sink", run("INSERT INTO sink VALUES ('mail', 9, 0, 0, '', 0, zeroblob(32))"), ErrDamaged, "checksum"},
		{"an edited walk", run("UPDATE trust SET walk = zeroblob(100)"), ErrDamaged, "checksum"},
		{"a removed record", run("DELETE FROM trust"), ErrDamaged, "written together"},
		{"no meta", run("DELETE FROM meta"), ErrDamaged, "restore"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := used(t)
			if err := test.do(dir); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s, err := Open(t.Context(), Options{Dir: dir, Create: true, Logger: quiet})
				if err == nil {
					t.Fatal(errors.Join(errors.New("it was opened"), s.Close()))
				}
				refused(t, err, test.kind, test.says, dir)
				var explained *Error
				if !errors.As(err, &explained) || explained.Next == "" {
					t.Errorf("%v does not say what to do next", err)
				}
			}
		})
	}
}

// execute runs SQL as any program could.
func execute(path, statements string) (err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(context.Background(), statements)
	return err
}

func TestOpenCreatesNothingUnasked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, o := range []Options{
		{Dir: filepath.Join(dir, "new")}, {Dir: dir}, {Dir: ""},
		{Dir: filepath.Join(dir, "new"), ReadOnly: true, Create: true}, {Dir: dir, ReadOnly: true, Create: true},
	} {
		o.Logger = quiet
		_, err := Open(t.Context(), o)
		refused(t, err, ErrAbsent, "--dir")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	_, err = Open(t.Context(), Options{Dir: "/dev/null", Create: true, Logger: quiet})
	refused(t, err, ErrUnsafe, "not a directory")
}

// TestOpenBesideOtherFiles: a directory that holds things of others, and empty
// folders an installer made, is still a beginning.
func TestOpenBesideOtherFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "immuclient.pid"), []byte("1"), 0o600), os.Mkdir(filepath.Join(dir, "evidence"), 0o700), os.Mkdir(filepath.Join(dir, "lost+found"), 0o700)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	s := open(t, link)
	if !s.Created() {
		t.Error("not created")
	}
	if real, err := filepath.EvalSymlinks(dir); err != nil || s.Dir() != real {
		t.Errorf("%s, %v", s.Dir(), err)
	}
}

// TestReadOnlyOpensWhatIsNotTrusted, so that it can be exported.
func TestReadOnlyOpensWhatIsNotTrusted(t *testing.T) {
	t.Parallel()
	dir := used(t)
	if err := os.Remove(filepath.Join(dir, fileID)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Dir: dir, ReadOnly: true, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Export(t.Context(), io.Discard), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestOwners(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		file, dir, self int
		may             bool
	}{
		{1000, 1000, 1000, true}, {0, 1000, 1000, false}, {1001, 1000, 1000, false}, {0, 0, 1000, false},
		{0, 0, 0, true}, {1000, 1000, 0, true}, {0, 1000, 0, true}, {1001, 1000, 0, false}, {1000, 0, 0, false},
	} {
		if got := ownerMayBe(test.file, test.dir, test.self); got != test.may {
			t.Errorf("a file of %d in a directory of %d, opened by %d: %v", test.file, test.dir, test.self, got)
		}
	}
}

func TestMedia(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		magic             uint32
		mount             string
		network, doubtful string
	}{
		{0xef53, "", "", ""}, {0x01021994, "", "", ""}, {0x9123683e, "", "", ""}, {0x794c7630, "", "", ""},
		{0x6969, "", "NFS", ""}, {0xff534d42, "", "SMB/CIFS", ""}, {0xfe534d42, "", "SMB/CIFS", ""}, {0x00c36400, "", "Ceph", ""},
		{0x65735546, "fuse.sshfs", "fuse.sshfs", ""}, {0x65735546, "fuseblk", "", ""}, {0x65735546, "fuse.gocryptfs", "", "fuse fuse.gocryptfs"}, {0x65735546, "", "", "fuse"},
		{0x01021997, "", "", "9p"},
	} {
		network, doubtful := judgeMedium(test.magic, test.mount)
		if network != test.network || doubtful != test.doubtful {
			t.Errorf("%#x %s: %q, %q", test.magic, test.mount, network, doubtful)
		}
	}
}

func FuzzWatermark(f *testing.F) {
	f.Add(watermark{id: [16]byte{1, 2}, commits: 99}.line())
	f.Add([]byte("immuaudit state"))
	f.Fuzz(func(t *testing.T, line []byte) {
		w, err := parseWatermark(line)
		if err == nil && string(w.line()) != string(line) {
			t.Errorf("%q is read as %q", line, w.line())
		}
	})
}

package evidence

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Record makes evidence of the material and puts it into dir, durably, before
// it returns the file's path: what an audit calls when it opens an incident,
// before the alarm leaves. It waits for the disk as long as that takes; a
// caller that cannot runs it in a goroutine of its own.
func Record(dir string, in Material, signer Signer) (path string, err error) {
	f, err := Build(in)
	if err != nil {
		return "", fmt.Errorf("gathering the evidence: %w", err)
	}
	return Write(dir, f, signer)
}

// Write puts a file into dir, which it makes where it is missing: complete
// and synced under its name or not there at all, readable by its owner alone.
// The name is INCIDENT-KIND-SUM.json, with the first 16 hex digits of the
// SHA-256 of the content. There is one file per incident and kind: the first
// one stands, and its path is what is returned if there is one already.
func Write(dir string, f *File, signer Signer) (path string, err error) {
	b, err := f.Encode(signer)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := errors.Join(adopt(dir), syncDir(filepath.Dir(dir))); err != nil {
			return "", failed(dir, err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return "", failed(dir, err)
	}
	stem := f.Incident + "-" + string(f.Kind) + "-"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", failed(dir, err)
	}
	for _, e := range entries {
		// Kinds are prefixes of each other: value, value-missing.
		if sum, ok := strings.CutPrefix(e.Name(), stem); ok && e.Type().IsRegular() && isSum(sum) {
			return filepath.Join(dir, e.Name()), nil
		}
	}
	path = filepath.Join(dir, fmt.Sprintf("%s%x.json", stem, sha256.Sum256(b))[:len(stem)+16]+".json")
	if err := publish(path, b); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", failed(dir, err)
	}
	return path, nil
}

func isSum(s string) bool {
	s, ok := strings.CutSuffix(s, ".json")
	return ok && len(s) == 16 && strings.Trim(s, "0123456789abcdef") == ""
}

func failed(dir string, err error) error {
	return fmt.Errorf("writing evidence: %w; make room in %s, or let the auditor write there", err, dir)
}

// publish makes a file appear complete and durable under its name, or not at
// all; fs.ErrExist if the name is taken. Nothing is ever replaced.
func publish(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreMissing(os.Remove(f.Name()))) }()
	_, err = bytes.NewReader(content).WriteTo(f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := adopt(f.Name()); err != nil {
		return err
	}
	if err := give(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// give gives a file its name. A link, not a rename, for a rename replaces what
// is there; where the file system has no links, the auditor's own lock is what
// keeps another one from coming in between.
func give(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	switch _, statErr := os.Lstat(to); {
	case statErr == nil:
		return fs.ErrExist
	case !errors.Is(statErr, fs.ErrNotExist):
		return errors.Join(err, statErr)
	}
	return os.Rename(from, to)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncDir makes names durable. Windows cannot, and writes them through.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package evidence

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
// one stands, and its path is what is returned if there is one already, unless
// more was found since (Material.Further). What a process that died left
// unfinished is taken away.
func Write(dir string, f *File, signer Signer) (path string, err error) {
	return disk{}.write(dir, f, signer)
}

func (d disk) write(dir string, f *File, signer Signer) (path string, err error) {
	b, err := f.Encode(signer)
	if err != nil {
		return "", err
	}
	stem := f.Incident + "-" + string(f.Kind) + "-"
	path, err = d.settle(dir, stem, b, f.Further)
	switch {
	case errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("writing evidence: %s is there and is not what its name says; move it away", path)
	case err != nil:
		return "", fmt.Errorf("writing evidence: %w; make sure that %s is a directory on a sound disk with room, and that the auditor can write there", err, dir)
	}
	return path, nil
}

// settle gives the path of the file that stands: the first one of its stem, if
// there is one and it need not be a further one, else the content, put there;
// fs.ErrExist if its name is taken by another.
func (d disk) settle(dir, stem string, content []byte, further bool) (path string, err error) {
	if err := d.makeDir(dir); err != nil {
		return "", err
	}
	d.sweep(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		// Kinds are prefixes of each other: value, value-missing.
		if sum, ok := strings.CutPrefix(e.Name(), stem); ok && !further && isSum(sum) && e.Type().IsRegular() && whole(filepath.Join(dir, e.Name())) {
			// It may be there without being durable: whoever put it there
			// may have died at the last step, or failed.
			return filepath.Join(dir, e.Name()), d.syncDir(dir)
		}
	}
	path = filepath.Join(dir, stem+sumOf(content)+".json")
	err = d.publish(path, content)
	if errors.Is(err, fs.ErrExist) && whole(path) { // put there meanwhile
		err = d.syncDir(dir)
	}
	return path, err
}

const sumDigits = 16

func sumOf(content []byte) string {
	return fmt.Sprintf("%x", sha256.Sum256(content))[:sumDigits]
}

func isSum(s string) bool {
	s, ok := strings.CutSuffix(s, ".json")
	return ok && len(s) == sumDigits && strings.Trim(s, "0123456789abcdef") == ""
}

// whole reports whether a file has the content that it is named by. One that
// was damaged since is no evidence, and must not keep out what would be.
func whole(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	content, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	return err == nil && len(content) <= MaxFile && strings.HasSuffix(path, "-"+sumOf(content)+".json")
}

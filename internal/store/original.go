package store

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// OriginalState is one line of what the original auditor remembers.
type OriginalState struct {
	UUID     string // the folder it was found in
	Database string
	Raw      []byte // the bytes of an ImmutableState, not decoded and not judged
}

// Bounds on the original's files: nothing in them is known to be sound.
const (
	maxOriginalLines   = 20_000
	maxOriginalLine    = 64 << 10
	maxOriginalFolders = 1_000
	originalFolder     = "auditor"
	originalFile       = ".state"
)

// ReadOriginal reads the state that `immuclient audit-mode` of immudb kept
// under dir: DIR/auditor/UUID/.state. dir may also be the auditor folder or
// one UUID's folder itself. Where there are several UUIDs one has to be named,
// because only the operator knows which of them was the server; otherwise
// uuid may be empty. Links are not followed.
//
// The file has lines "database:base64" with blank lines between them.
func ReadOriginal(dir, uuid string) ([]OriginalState, error) {
	found, err := findOriginal(dir)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, f := range found {
		known = append(known, f.uuid)
		if f.uuid == uuid || uuid == "" && len(found) == 1 {
			return f.read()
		}
	}
	switch {
	case len(found) == 0:
		return nil, &Error{Kind: ErrNotFound, Path: dir, What: "no state of the original auditor (auditor/UUID/.state)", Next: "give the directory that holds its auditor folder: by default the system's directory for temporary files"}
	case uuid == "":
		return nil, &Error{Kind: ErrAmbiguous, Path: dir, What: "states of several servers: " + strings.Join(known[:min(len(known), 20)], ", "), Next: "say which one it is with --uuid"}
	}
	return nil, &Error{Kind: ErrNotFound, Path: dir, What: fmt.Sprintf("no state under the UUID %.80q; there are: %s", uuid, strings.Join(known[:min(len(known), 20)], ", ")), Next: "choose one of them with --uuid"}
}

// OriginalUUIDs lists the servers the original auditor left states of.
func OriginalUUIDs(dir string) ([]string, error) {
	found, err := findOriginal(dir)
	if err != nil {
		return nil, err
	}
	uuids := make([]string, len(found))
	for i, f := range found {
		uuids[i] = f.uuid
	}
	return uuids, nil
}

type original struct{ uuid, path string }

func findOriginal(dir string) ([]original, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolving the directory of the original auditor: %w", err)
	}
	if info, err := os.Lstat(filepath.Join(dir, originalFile)); err == nil && info.Mode().IsRegular() {
		return []original{{filepath.Base(dir), filepath.Join(dir, originalFile)}}, nil
	}
	folder := filepath.Join(dir, originalFolder)
	if info, err := os.Lstat(folder); err != nil || !info.IsDir() {
		folder = dir
	}
	entries, err := readFolder(folder)
	if err != nil {
		return nil, err
	}
	var found []original
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name(), originalFile)
		// Lstat of the folder came with the listing: a link is not a folder.
		if !entry.IsDir() || len(entry.Name()) > maxUUID {
			continue
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if len(found) == maxOriginalFolders {
			return nil, &Error{Kind: ErrInvalid, Path: folder, What: fmt.Sprintf("more than %d servers", maxOriginalFolders), Next: "give the folder of one of them"}
		}
		found = append(found, original{entry.Name(), path})
	}
	return found, nil
}

func readFolder(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Kind: ErrNotFound, Path: path, Next: "give the directory that holds the original's auditor folder"}
	}
	if err != nil {
		return nil, &Error{Kind: ErrNotFound, Path: path, Err: err, Next: "give a directory that can be read"}
	}
	return entries, nil
}

func (o original) read() ([]OriginalState, error) {
	f, err := os.OpenFile(o.path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, &Error{Kind: ErrNotFound, Path: o.path, Err: err, Next: "make the file readable"}
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, &Error{Kind: ErrInvalid, Path: o.path, What: "is not a regular file", Err: err, Next: "give the original's own file"}
	}
	states, err := parseOriginal(f, o.uuid)
	if err != nil {
		return nil, &Error{Kind: ErrInvalid, Path: o.path, Err: err, Next: "take the line out, or pin the state by hand with `immuclient trust pin`"}
	}
	return states, nil
}

func parseOriginal(r io.Reader, uuid string) ([]OriginalState, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxOriginalLine)
	var states []OriginalState
	seen := map[string]bool{}
	number := 0
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if number > 2*maxOriginalLines || len(line) > 0 && len(states) == maxOriginalLines {
			return nil, fmt.Errorf("line %d: more than %d states", number, maxOriginalLines)
		}
		if len(line) == 0 {
			continue
		}
		// Base64 has no colon, a name might.
		colon := bytes.LastIndexByte(line, ':')
		if colon < 0 {
			return nil, fmt.Errorf("line %d: not of the form database:base64", number)
		}
		name := string(line[:colon])
		if name == "" || len(name) > maxDatabase || !utf8.ValidString(name) {
			return nil, fmt.Errorf("line %d: a database name of %d bytes", number, len(name))
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(string(line[colon+1:]))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if len(raw) == 0 {
			return nil, fmt.Errorf("line %d: an empty state", number)
		}
		// Two states of one database: nobody knows which one counts.
		if seen[name] {
			return nil, fmt.Errorf("line %d: a second state of database %q", number, name)
		}
		seen[name] = true
		states = append(states, OriginalState{UUID: uuid, Database: name, Raw: raw})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", number+1, err)
	}
	return states, nil
}

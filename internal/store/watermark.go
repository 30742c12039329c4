package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// watermark is what state.id says: which state.db belongs here, and the number
// of the last commit that was acknowledged. It is written after every commit
// but not synced, so that after a power cut it may lag; it never leads. A
// state.db that is behind it was rolled back: its write-ahead log was lost or
// cut, or the file was restored alone from an older copy. SQLite itself cannot
// tell a log that somebody cut from one that a crash cut.
//
//	immuaudit state 0f8f…32 hex digits 00000000000000001234 9c1e…16 hex digits
type watermark struct {
	id      [16]byte
	commits uint64
}

const watermarkPrefix = "immuaudit state "

func (w watermark) line() []byte {
	text := fmt.Sprintf("%s%x %020d ", watermarkPrefix, w.id, w.commits)
	sum := sha256.Sum256([]byte(text))
	return []byte(text + hex.EncodeToString(sum[:8]) + "\n")
}

func parseWatermark(line []byte) (watermark, error) {
	var w watermark
	if len(line) != len(w.line()) {
		return w, errors.New("the line is too short or too long")
	}
	var id []byte
	if _, err := fmt.Sscanf(string(line), watermarkPrefix+"%32x %20d ", &id, &w.commits); err != nil {
		return w, fmt.Errorf("reading its fields: %w", err)
	}
	copy(w.id[:], id)
	// Accepted is exactly what would be written.
	if !bytes.Equal(w.line(), line) {
		return w, errors.New("its checksum does not fit")
	}
	return w, nil
}

// readWatermark gives nil where there is no state.id.
func (d directory) readWatermark() (*watermark, error) {
	path := d.file(fileID)
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unusable(path, err)
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil, unusable(path, err)
	}
	w, err := parseWatermark(line)
	if err != nil {
		return nil, &Error{Kind: ErrDamaged, Path: path, Err: err, Next: nextExport}
	}
	return &w, nil
}

// createWatermark writes state.id for the first time. It appears complete and
// synced, or not at all: a half-written one would be taken for damage.
func (d directory) createWatermark(w watermark) error {
	f, err := d.createFile(fileNewID)
	if err != nil {
		return err
	}
	if err := errors.Join(writeAt(f, string(w.line())), f.Sync(), f.Close()); err != nil {
		return unusable(f.Name(), err)
	}
	if err := os.Rename(f.Name(), d.file(fileID)); err != nil {
		return unusable(d.file(fileID), err)
	}
	return d.sync()
}

// judgeWatermark compares state.id with the state that was opened.
func (d directory) judgeWatermark(w *watermark, state watermark) error {
	switch path := d.file(fileID); {
	case w == nil && state.commits > 1:
		return &Error{Kind: ErrGone, Path: path, What: "without it nobody can tell whether " + fileState + " is an older copy", Next: nextExport}
	case w == nil:
		return nil
	case w.id != state.id:
		return &Error{Kind: ErrForeign, Path: d.file(fileState), What: "it was not made in this directory (" + fileID + " belongs to another one)", Next: nextExport}
	case w.commits > state.commits:
		return &Error{Kind: ErrRolledBack, Path: d.file(fileState), What: fmt.Sprintf("%d changes are missing", w.commits-state.commits), Next: nextExport}
	}
	return nil
}

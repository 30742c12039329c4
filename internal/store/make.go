package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// settled reports whether nothing is in the making here: the state and its
// watermark are there, and no attempt was cut short.
func (d directory) settled() bool {
	for _, name := range [...]string{fileState, fileID} {
		if _, err := os.Lstat(d.file(name)); err != nil {
			return false
		}
	}
	_, err := os.Lstat(d.file(fileNew))
	return errors.Is(err, os.ErrNotExist)
}

// settle makes a state where there never was one, or finishes a making that
// was cut short. It runs while no other process does the same.
func (d directory) settle(ctx context.Context, create bool) error {
	if err := d.removeNew(); err != nil {
		return err
	}
	exists, err := d.checkFiles()
	if err != nil {
		return err
	}
	if !exists {
		if !create {
			return absent(d.path)
		}
		if err := d.make(ctx); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(d.file(fileID)); err == nil {
		return nil
	}
	state, err := d.peek(ctx)
	if err != nil {
		return err
	}
	// A state that was written to has had its watermark: somebody took it away.
	if err := d.judgeWatermark(nil, state); err != nil {
		return err
	}
	return d.createWatermark(state)
}

// peek reads the identity of a state that is not open yet.
func (d directory) peek(ctx context.Context) (w watermark, err error) {
	db, err := openDatabase(d.file(fileState), 1, true)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := recognise(ctx, db, d.file(fileState)); err != nil {
		return w, err
	}
	w, err = readState(ctx, db, d.file(fileState))
	return w, explain(d.file(fileState), err)
}

// removeNew removes what an attempt left. Nothing was ever remembered in it.
func (d directory) removeNew() error {
	for _, name := range [...]string{fileNew, fileNew + "-journal", fileNew + "-wal", fileNew + "-shm", fileNewID} {
		if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return unusable(d.file(name), err)
		}
	}
	return nil
}

// make creates an empty state. state.db appears under its name complete and synced,
// or not at all: a crash in between leaves only fileNew, which the next
// attempt removes.
func (d directory) make(ctx context.Context) error {
	f, err := d.createFile(fileNew)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return unusable(f.Name(), err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	if err := fill(ctx, d.file(fileNew), id); err != nil {
		return explain(d.file(fileNew), err)
	}
	// A link fails where the name exists; a rename would replace a state.
	if err := os.Link(d.file(fileNew), d.file(fileState)); err != nil {
		return unusable(d.file(fileState), err)
	}
	// The directory's own name, too: a process that died may have made it.
	return errors.Join(d.removeNew(), d.sync(), named(filepath.Dir(d.path)))
}

func fill(ctx context.Context, path string, id []byte) (err error) {
	db, err := openDatabase(path, 1, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	statements := []string{
		fmt.Sprintf("PRAGMA application_id = %d", applicationID),
		fmt.Sprintf("PRAGMA user_version = %d", userVersion),
	}
	for _, name := range creation {
		statements = append(statements, tables[name])
	}
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO meta (one, state_id, commits, digest) VALUES (1, ?, 1, ?)", id, make([]byte, 32)); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	// The mode is kept in the file's header.
	_, err = db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
	return err
}

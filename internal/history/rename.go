package history

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"

	"immuaudit/evidence"
)

// Rename gives what is kept of a ledger another name. Where something is kept
// under the new one already both become one; of two stretches that began at the
// same moment the one under the new name stays. No auditor may be running. A
// directory without a history is left as it is.
func Rename(ctx context.Context, dir string, renamed map[evidence.Name]evidence.Name) (err error) {
	h := &History{path: fileIn(dir)}
	if err := checkFile(h.path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return explain(h.path, err)
	}
	defer func() { err = explain(h.path, errors.Join(err, h.closeFiles())) }()
	if h.writer, err = connect(h.path, 1, false); err != nil {
		return err
	}
	if err := recognise(ctx, h.writer); err != nil {
		return err
	}
	tx, err := h.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for from, to := range renamed {
		if err := renameIn(ctx, tx, from, to); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func renameIn(ctx context.Context, tx *sql.Tx, from, to evidence.Name) error {
	if from == to {
		return nil
	}
	id := func(name evidence.Name) (id int64, err error) {
		err = tx.QueryRowContext(ctx, "SELECT id FROM ledger WHERE server = ? AND database = ?", name.Server, name.Database).Scan(&id)
		return id, err
	}
	old, err := id(from)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	there, err := id(to)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = tx.ExecContext(ctx, "UPDATE ledger SET server = ?, database = ? WHERE id = ?", to.Server, to.Database, old)
		return err
	}
	for _, statement := range []string{
		"UPDATE OR IGNORE stretch SET ledger = ?2 WHERE ledger = ?1",
		"DELETE FROM stretch WHERE ledger = ?1",
		"DELETE FROM ledger WHERE id = ?1",
	} {
		if err == nil {
			_, err = tx.ExecContext(ctx, statement, old, there)
		}
	}
	return err
}

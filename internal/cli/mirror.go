package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/mirror"
	"immuaudit/internal/store"
)

const mirrorFolder = "mirror" // in the state directory

// mirrors gives the engine the mirror of each ledger.
func mirrors(m *mirror.Mirror) func(evidence.Name, bool) (audit.Mirror, error) {
	return func(name evidence.Name, anew bool) (audit.Mirror, error) {
		if anew {
			if err := m.SetAside(name); err != nil {
				return nil, err
			}
		}
		l, err := m.Ledger(name)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
}

// openMirror opens the mirror where one is to be kept. Rounds need none, so
// that trouble with it is said and stops nothing.
func (a *auditor) openMirror(ctx context.Context) (done func() error, err error) {
	done = func() error { return nil }
	if !a.c.Audit.Mirror {
		return done, nil
	}
	dir := filepath.Join(a.store.Dir(), mirrorFolder)
	m, err := mirror.Open(dir, a.log)
	if err != nil {
		a.log.Error("the mirror cannot be used; rounds go on without it, and where a ledger was changed may not be said exactly", "error", err)
		if err := (&audit.Decider{Memory: a.store, Sinks: a.rules}).StateProblem(ctx, a.c.Audit.Server, fmt.Sprintf("the mirror cannot be used: %v", err)); err != nil {
			return done, unknown(err)
		}
		return done, nil
	}
	a.mirror = mirrors(m)
	return m.Close, nil
}

// renameMirrors gives the mirrors of renamed ledgers their new names. One that
// keeps the old name is not lost to the audit: it is filled again.
func renameMirrors(s *store.Store, log *slog.Logger, renamed map[evidence.Name]evidence.Name) {
	m, err := mirror.Open(filepath.Join(s.Dir(), mirrorFolder), log)
	for old, name := range renamed {
		var l *mirror.Ledger
		if err == nil {
			l, err = m.Ledger(old)
		}
		if err == nil {
			err = l.Rename(name)
		}
		if err != nil {
			break
		}
	}
	if m != nil {
		err = errors.Join(err, m.Close())
	}
	if err != nil {
		log.Warn("the mirror could not be renamed; it is filled again under the new name", "error", err)
	}
}

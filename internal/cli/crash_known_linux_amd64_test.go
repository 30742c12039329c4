package cli_test

import (
	"os"
	"path/filepath"
	"strings"
)

// What a fault may still leave that it should not. None of it is silent: each
// is said, with what to do next.

// halfMade reports that a state is refused whose making was cut short while
// state.id was written. Nothing was remembered in it yet.
func halfMade(s said) bool {
	return s.code == 1 && len(s.reports) == 0 && strings.Contains(s.log, "state.id: the state is cut or damaged") && strings.Contains(s.log, "move the directory away")
}

// nameless reports that a power cut took the name of a new state directory,
// with all that was synced in it.
func (a *aftermath) nameless() bool {
	_, err := os.Lstat(filepath.Join(a.dir, "state"))
	return a.what != nil && a.what.cut && os.IsNotExist(err)
}

// misnumbered reports that trouble when closing is told by the exit code of
// wrong usage.
func misnumbered(s said) bool {
	return s.code == 2 && strings.Contains(s.log, "for errors of the disk")
}

//go:build !unix

package store

import (
	"errors"
	"io/fs"
	"os"
)

// Without owners, modes and flock the promises of this package cannot be
// kept; the other verbs of the program still work.
const noFollow = 0

type owner struct{ uid, gid int }

func ownerOf(fs.FileInfo) (owner, uint64) { return owner{-1, -1}, 1 }

func euid() int { return -1 }

var errHeld = errors.New("held by another process")

func tryLock(*os.File) error { return errors.ErrUnsupported }

func isFull(error) bool { return false }

func isReadOnly(error) bool { return false }

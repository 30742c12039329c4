//go:build !unix

package history

import "os"

func adopt(*os.File, string) error { return nil }

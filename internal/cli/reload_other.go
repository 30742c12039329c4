//go:build !unix

package cli

import "os"

// reloadSignals: there are none; a changed file is noticed anyway.
var reloadSignals []os.Signal

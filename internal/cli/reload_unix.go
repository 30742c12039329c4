//go:build unix

package cli

import (
	"os"
	"syscall"
)

// reloadSignals ask a running auditor to read its configuration again.
var reloadSignals = []os.Signal{syscall.SIGHUP}

// Command immuclient audits immudb servers: a drop-in for immuclient
// audit-mode. Type immuclient --help, or immuclient demo to see it at work.
package main

import (
	"os"

	"immuaudit/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], cli.OS())) }

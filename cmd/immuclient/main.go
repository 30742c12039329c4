// Command immuclient audits immudb servers: a drop-in for immuclient
// audit-mode. Type immuclient --help, or immuclient demo to see it at work.
package main

import (
	"os"

	_ "golang.org/x/crypto/x509roots/fallback" // authorities for TLS where the system has none, as in a container

	"immuaudit/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], cli.OS())) }

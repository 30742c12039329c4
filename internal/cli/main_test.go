package cli_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"immuaudit/internal/cli"
)

// The test binary is also the program under test: started under the name
// immuclient it is the command line, so that every story and every daemon here
// is a process of its own, with real signals, files and exit codes.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"immuclient": func() { os.Exit(cli.Main(os.Args[1:], cli.OS())) },
		"unprivileged": func() {
			if err := dropPrivileges(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(125)
			}
			os.Exit(cli.Main(os.Args[1:], cli.OS()))
		},
	})
}

// leakChecked fails a run that left goroutines behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

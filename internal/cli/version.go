package cli

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"immuaudit/internal/web"
)

// Set by the linker: -ldflags "-X immuaudit/internal/cli.buildVersion=v1.0.0".
var (
	buildVersion = ""
	buildTime    = ""
	buildBy      = ""
)

// version says what this binary is.
func version() web.VersionInfo {
	v := web.VersionInfo{Version: buildVersion, BuildTime: buildTime, BuiltBy: buildBy, Static: true}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "CGO_ENABLED":
			v.Static = s.Value == "0"
		case s.Key == "vcs.time" && v.BuildTime == "":
			v.BuildTime = s.Value
		case s.Key == "vcs.revision" && v.Version == "" && len(s.Value) >= 12:
			v.Version = "devel-" + s.Value[:12]
		}
	}
	if v.Version == "" {
		v.Version = "devel"
	}
	return v
}

func newVersion(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print what this binary is", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := version()
			fmt.Fprintf(env.Stdout, "immuclient %s (immuaudit)\n", v.Version)
			if v.BuildTime != "" {
				fmt.Fprintf(env.Stdout, "built %s %s\n", v.BuildTime, v.BuiltBy)
			}
			return nil
		},
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

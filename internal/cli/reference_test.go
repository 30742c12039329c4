package cli

import (
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

func TestReference(t *testing.T) {
	t.Parallel()
	flags := map[string][]string{}
	err := Reference(func(cmd *cobra.Command) error {
		if cmd.Short == "" {
			t.Errorf("%s says nothing of itself", cmd.CommandPath())
		}
		for _, name := range []string{"dir", "immudb-address", "tokenfile", "audit-server"} {
			if f := cmd.Flag(name); f != nil && !f.Hidden {
				flags[cmd.CommandPath()] = append(flags[cmd.CommandPath()], name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"immuclient":            {"dir", "immudb-address", "tokenfile"},
		"immuclient audit-mode": {"dir", "immudb-address", "audit-server"},
		"immuclient trust list": {"dir", "audit-server"},
		"immuclient health":     {"dir"},
		"immuclient version":    nil,
	} {
		if !slices.Equal(flags[path], want) {
			t.Errorf("%s: %v, want %v", path, flags[path], want)
		}
	}
	if _, ok := flags["immuclient completion"]; ok {
		t.Error("hidden commands are shown")
	}
}

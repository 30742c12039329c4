package cli

import (
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Reference shows every command that help lists, for man pages: with only
// those of the general flags that mean something to it.
func Reference(visit func(cmd *cobra.Command) error) error {
	root := newRoot(&Env{Stdout: io.Discard, Stderr: io.Discard})
	return refer(root, visit)
}

func refer(cmd *cobra.Command, visit func(cmd *cobra.Command) error) error {
	var hidden []*pflag.Flag
	hide := func(f *pflag.Flag) {
		if !f.Hidden && !concerns(cmd, f.Name) {
			f.Hidden = true
			hidden = append(hidden, f)
		}
	}
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if cmd.Root().PersistentFlags().Lookup(f.Name) == f { // a parent's own are for all its verbs
			hide(f)
		}
	})
	err := visit(cmd)
	for _, f := range hidden {
		f.Hidden = false
	}
	for _, sub := range cmd.Commands() {
		if err == nil && sub.IsAvailableCommand() {
			err = refer(sub, visit)
		}
	}
	return err
}

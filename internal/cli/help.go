package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is where help texts are wrapped, on a terminal or not: the same
// text everywhere can be compared and quoted.
const helpWidth = 100

// toggle is a bool flag; pflag's own shows itself as "--name[=true|false]".
type toggle struct{ on *bool }

func (t toggle) String() string {
	if t.on == nil { // as pflag makes one to learn the zero value
		return "false"
	}
	return strconv.FormatBool(*t.on)
}

func (t toggle) Set(text string) error {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return errors.New("must be true or false")
	}
	*t.on = on
	return nil
}

func (toggle) Type() string { return "bool" }

// boolVar adds a flag that is on where it is given.
func boolVar(f *pflag.FlagSet, on *bool, name, short, usage string) {
	f.VarPF(toggle{on}, name, short, usage).NoOptDefVal = "true"
}

// addHelp gives every command its help: only those of the general flags that
// mean something to it. The others are accepted everywhere, because start-up
// scripts write them anywhere.
func addHelp(cmd *cobra.Command) {
	boolVar(cmd.Flags(), new(bool), "help", "h", "this text")
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	for _, sub := range cmd.Commands() {
		addHelp(sub)
	}
}

// writeHelp writes to a terminal or a file: there is nobody to tell of a failure.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	fmt.Fprintf(w, "%s\n\nUsage:\n", strings.TrimSpace(about))
	if cmd.Name() == auditModeName || !cmd.HasAvailableSubCommands() { // the others do nothing by themselves
		fmt.Fprintf(w, "  %s\n", cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s COMMAND [flags]\n\nCommands:\n", cmd.CommandPath())
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	own, general := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	own.AddFlagSet(cmd.LocalNonPersistentFlags())
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if concerns(cmd, f.Name) {
			general.AddFlag(f)
		}
	})
	cmd.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if concerns(cmd, f.Name) {
			general.AddFlag(f)
		}
	})
	fmt.Fprintf(w, "\nFlags:\n%s", own.FlagUsagesWrapped(helpWidth))
	if general.HasFlags() {
		fmt.Fprintf(w, "\nGeneral flags:\n%s", general.FlagUsagesWrapped(helpWidth))
	}
	if cmd.Name() == auditModeName {
		fmt.Fprint(w, "\nEvery setting is also a variable (IMMUCLIENT_AUDIT_USERNAME for --audit-username) and, but\nfor --once and --json, a key of the configuration file. Flag beats variable beats file.\n")
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nType %s COMMAND --help for more about a command.\n", cmd.CommandPath())
	}
}

// concerns reports whether a general flag means something to a command.
func concerns(cmd *cobra.Command, flag string) bool {
	family := cmd
	for family.HasParent() && family.Parent().HasParent() {
		family = family.Parent()
	}
	switch family.Name() {
	case auditModeName: // the others are the general client's, or of no meaning to a verb
		return (cmd == family || cmd.Name() == "install") && !slices.Contains([]string{"tokenfile", "value-only", "revision-separator"}, flag)
	case "verify":
		return !slices.Contains([]string{"tokenfile", "value-only", "revision-separator"}, flag)
	case "trust", "incident", "health":
		names := []string{"config", "dir", "roots-filepath", "audit-server", "state-guard"}
		if cmd.Name() == "import" {
			names = append(names, "immudb-address", "immudb-port")
		}
		return slices.Contains(names, flag)
	}
	return !family.HasParent()
}

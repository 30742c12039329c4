// Package cli is the command line: one file per subcommand, and the only place
// that wires the other packages together.
//
// Results go to stdout, logs to stderr. Exit codes are the same everywhere but
// in demo: 0 consistent, 1 could not tell, 2 wrong usage or configuration,
// 3 tampering, also while an earlier incident is open; 3 beats 1 beats 0.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"immuaudit/internal/config"
)

// Exit codes.
const (
	exitConsistent = 0
	exitUnknown    = 1
	exitUsage      = 2
	exitTampered   = 3
)

// Env is what a command sees of the world around it.
type Env struct {
	Stdout, Stderr io.Writer
	Environ        []string
	WorkDir, Home  string
	Root           bool
	Terminal       bool // stdout is one
}

// OS is the environment of this process.
func OS() Env {
	wd, _ := os.Getwd()         // empty: relative names are then an error where they are used
	home, _ := os.UserHomeDir() // empty: there is none
	return Env{
		Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(), WorkDir: wd, Home: home,
		Root: os.Geteuid() == 0, Terminal: isTerminal(os.Stdout),
	}
}

// exitError ends a command with a code; a nil err was told already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error   { return &exitError{exitUsage, err} }
func unknown(err error) error { return &exitError{exitUnknown, err} }

// closing ends what a command had open. That it failed is no wrong usage.
func closing(err *error, end func() error) {
	if failed := end(); failed != nil {
		*err = errors.Join(*err, unknown(failed))
	}
}

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// Main runs one command and gives its exit code. The first SIGINT or SIGTERM
// ends it in good order, the second at once.
func Main(args []string, env Env) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-finished:
			return
		}
		select {
		case <-signals:
			fmt.Fprintln(env.Stderr, "immuclient: forced to stop")
			os.Exit(exitUnknown)
		case <-finished:
		}
	}()
	return Run(ctx, args, env)
}

// Run is Main without signals.
func Run(ctx context.Context, args []string, env Env) int {
	root := newRoot(&env)
	root.SetArgs(args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitConsistent
	}
	var exit *exitError
	if !errors.As(err, &exit) { // what cobra itself found is wrong usage
		exit = &exitError{exitUsage, err}
	}
	if exit.err != nil {
		for _, line := range strings.Split(strings.TrimRight(exit.err.Error(), "\n"), "\n") {
			fmt.Fprintln(env.Stderr, "immuclient: "+line)
		}
	}
	return exit.code
}

func newRoot(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "immuclient",
		Short: "Audit immudb servers from outside, and prove what they did",
		Long: `immuclient audits immudb servers: it remembers what was proven of every
database and raises the alarm when a server no longer agrees.

Exit codes: 0 consistent, 1 could not tell, 2 wrong usage or configuration,
3 tampering (also while an earlier incident is open).`,
		Version:       version().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(config.FlagError(cmd.Flags(), err))
	})
	config.Register(root.PersistentFlags(), config.General)
	root.AddCommand(newAuditMode(env), newVerify(env), newTrust(env), newIncident(env), newAlert(env), newEvidence(env), newReport(env), newLedger(env), newDemo(env), newHealth(env), newVersion(env))
	boolVar(root.Flags(), new(bool), "version", "v", "print what this binary is, in one line")
	addHelp(root)
	return root
}

// noSuchCommand refuses arguments that name no subcommand, with what was
// probably meant.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%q is no command of %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
	} else {
		err = fmt.Errorf("%w; type %s --help", err, cmd.CommandPath())
	}
	return usage(err)
}

// load reads the configuration of a command and tells its warnings.
func load(cmd *cobra.Command, env *Env, offline bool) (*config.Config, []config.Warning, error) {
	c, warnings, err := config.Load(config.Input{
		Flags: cmd.Flags(), Environ: env.Environ, WorkDir: env.WorkDir, Home: env.Home, Root: env.Root, Offline: offline,
	})
	if err != nil {
		return nil, nil, usage(err)
	}
	return c, warnings, nil
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/service"
)

// target is what the verbs of the service work on.
type target struct {
	root   string // "" = this system
	dryRun bool
}

func (t *target) register(cmd *cobra.Command) {
	boolVar(cmd.Flags(), &t.dryRun, "dry-run", "", "show every file that would be written and every command that would be run, and do nothing")
	cmd.Flags().StringVar(&t.root, "root", "", "change the files below this `directory`, of an image, instead of this system's; run no command")
}

// check makes the root absolute and wants the rights that the verb needs.
func (t *target) check(env *Env, verb string) error {
	if t.root != "" {
		if t.root = filepath.Clean(t.root); !filepath.IsAbs(t.root) {
			t.root = filepath.Join(env.WorkDir, t.root)
		}
		if t.root == "/" {
			t.root = ""
		}
	}
	if t.root != "" || t.dryRun || service.Privileged() {
		return nil
	}
	if runtime.GOOS == "windows" {
		return unknown(fmt.Errorf("to %s the service needs an administrator; open a terminal as administrator and try again", verb))
	}
	return unknown(fmt.Errorf("to %s the service needs root; type it with sudo, or with --dry-run to see what would be done", verb))
}

func (t *target) apply(ctx context.Context, env *Env, p service.Plan) error {
	a := service.Applier{Root: t.root, DryRun: t.dryRun, Out: env.Stdout}
	if err := a.Apply(ctx, p); err != nil {
		return unknown(err)
	}
	return nil
}

// newServiceVerbs are the verbs of audit-mode that make it a service.
func newServiceVerbs(env *Env) []*cobra.Command {
	verbs := []*cobra.Command{newServiceInstall(env), newServiceUninstall(env)}
	for _, v := range [][2]string{{"start", "Start the service"}, {"stop", "Stop the service"}, {"restart", "Restart the service"}} {
		verbs = append(verbs, newServiceControl(env, v[0], v[1]))
	}
	return append(verbs, newServiceStatus(env))
}

func newServiceInstall(env *Env) *cobra.Command {
	var t target
	var noStart bool
	paths := service.PathsOf(runtime.GOOS)
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Make the auditor a service of this system, with the settings given",
		Long: `install writes all settings that are given here, by flag, variable or file, to
` + paths.Config + `, keeping what is there already; copies this
program to ` + paths.Binary + `, makes the account ` + service.Account + `, the state
directory and the service, and starts it. Given again it changes what is to be
changed, and restarts the service if that was anything.

An immuclient that was installed before is stopped and its settings are taken
over; its trusted states too, from directories that nobody else could write to.`,
		Example: `  IMMUCLIENT_AUDIT_PASSWORD=… immuclient audit-mode install -a db.example.org --audit-username auditor
  immuclient audit-mode install -a db.example.org --dry-run`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.check(env, "install"); err != nil {
				return err
			}
			return installService(cmd, env, &t, noStart)
		},
	}
	t.register(cmd)
	boolVar(cmd.Flags(), &noStart, "no-start", "", "do not start the service yet, so that trusted states can be imported or pinned first")
	config.Register(cmd.Flags(), config.Audit)
	return cmd
}

func newServiceUninstall(env *Env) *cobra.Command {
	var t target
	var purge bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service and remove it; keep configuration, state and evidence",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.check(env, "uninstall"); err != nil {
				return err
			}
			o, err := installedOptions(t.root)
			if err != nil && purge {
				return unknown(fmt.Errorf("finding out where the state is: %w; correct the file, or leave out --purge", err))
			}
			f, err := service.Look(t.root, o)
			if err != nil {
				return unknown(err)
			}
			p, err := service.Uninstall(f, o, purge)
			if err != nil {
				return unknown(err)
			}
			return t.apply(cmd.Context(), env, p)
		},
	}
	t.register(cmd)
	boolVar(cmd.Flags(), &purge, "purge", "", "remove configuration, state, evidence and account too: what was proven is forgotten")
	return cmd
}

func newServiceControl(env *Env, verb, short string) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: verb, Short: short, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.check(env, verb); err != nil {
				return err
			}
			f, err := service.Look("", service.Options{})
			if err != nil {
				return unknown(err)
			}
			p, err := service.Control(f, verb)
			if err != nil {
				return unknown(err)
			}
			return t.apply(cmd.Context(), env, p)
		},
	}
	boolVar(cmd.Flags(), &t.dryRun, "dry-run", "", "show the command that would be run, and do nothing")
	return cmd
}

func newServiceStatus(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the service runs: exit code 0 if it does, else 1",
		Long: `status asks the service manager whether the service runs: exit code 0 if it
does, else 1. What the ledgers are like it does not say: that is
immuclient trust list, immuclient incident list and the monitoring port.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := service.Look("", service.Options{})
			if err != nil {
				return unknown(err)
			}
			s, err := service.Ask(cmd.Context(), f, nil)
			if err != nil {
				return unknown(err)
			}
			if asJSON {
				err = json.NewEncoder(env.Stdout).Encode(s)
			} else {
				_, err = fmt.Fprint(env.Stdout, s)
			}
			if err != nil {
				return unknown(fmt.Errorf("writing the status: %w", err))
			}
			if !s.Running {
				return &exitError{code: exitUnknown}
			}
			return nil
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print one line of JSON")
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is too much; type %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

// loadInstalled reads a configuration as the service will: no flags, no
// variables, no other file.
func loadInstalled(file string, offline bool) (*config.Config, []config.Warning, error) {
	flags := newFlags()
	if err := flags.Set("config", file); err != nil {
		return nil, nil, fmt.Errorf("naming the configuration: %w", err)
	}
	return config.Load(config.Input{Flags: flags, WorkDir: "/", Root: true, Offline: offline})
}

// optionsOf are the paths that a configuration names.
func optionsOf(c *config.Config) service.Options {
	o := service.Options{LogFile: c.LogFile, PidFile: c.PidFile}
	o.State, _ = c.StateDir()
	o.Guard, _ = c.StateGuard()
	// The configuration itself goes where the service's is.
	o.Reads = slices.DeleteFunc(c.Files(), func(file string) bool { return file == c.ConfigFile })
	for i := range c.Sinks {
		for _, file := range []string{c.Sinks[i].Command, c.Sinks[i].Directory} {
			if file != "" {
				o.Reads = append(o.Reads, file)
			}
		}
	}
	return o
}

// installedOptions reads where an installed service keeps its things.
func installedOptions(root string) (service.Options, error) {
	paths := service.PathsOf(runtime.GOOS)
	usual := service.Options{State: paths.State, Guard: paths.Guard}
	file := filepath.Join(root, paths.Config)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return usual, nil
	}
	c, _, err := loadInstalled(file, true)
	if err != nil {
		return usual, err
	}
	return optionsOf(c), nil
}

const (
	// hungLoop is how long the scheduler may stand still: it turns every second.
	hungLoop = 20 * time.Second
	// hungRound is how long a round may take: its deadline is a minute, and
	// storing what it found has one of its own.
	hungRound = 3 * time.Minute
)

// liveliness tells the watchdog whether the auditor goes on: the scheduler
// turns, and no round is far past its deadline. How long the interval is does
// not matter, nor whether the server answers: a round that waits for it ends at
// its deadline.
func liveliness(statuses func() []audit.Status, now func() time.Time) func() bool {
	return func() bool {
		at := now()
		return !slices.ContainsFunc(statuses(), func(s audit.Status) bool {
			turned := s.LoopAt
			if turned.IsZero() {
				turned = s.Started
			}
			return at.Sub(turned) >= hungLoop || !s.OldestRound.IsZero() && at.Sub(s.OldestRound) >= hungRound
		})
	}
}

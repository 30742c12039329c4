package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/store"
)

// access is what a command needs of the state.
type access int

const (
	existing access = iota // it must be there
	making                 // it is made where there is none
	reading                // whatever can be read of it, even where nobody should go on with it
)

// openState opens the configured state directory.
func openState(ctx context.Context, c *config.Config, log *slog.Logger, how access) (*store.Store, error) {
	dir, temporary := c.StateDir()
	if dir == "" {
		return nil, usagef("there is no place for the state: neither $XDG_STATE_HOME nor a home directory is known; add --dir DIRECTORY")
	}
	if temporary && how == making {
		log.Warn("THE STATE DIRECTORY IS TEMPORARY: what was proven is forgotten when it is cleaned up, and others may plant a state there first. Choose another with --dir", "dir", dir)
	}
	if why := shortLived(dir); why != "" && how == making {
		log.Warn("THE STATE DIRECTORY IS LOST WITH THE CONTAINER: "+why+". The next container trusts what the server shows it then. Mount a volume with a name there", "dir", dir)
	}
	o := store.Options{Dir: dir, Create: how == making, ReadOnly: how == reading, Logger: log}
	o.Guard, o.GuardGiven = c.StateGuard()
	s, err := store.Open(ctx, o)
	switch {
	case errors.Is(err, store.ErrGuardPlace):
		return nil, usage(err)
	case err != nil:
		return nil, unknown(err)
	}
	return s, nil
}

// addStateGuard lets verbs that open the state name its guard.
func addStateGuard(cmd *cobra.Command) {
	cmd.PersistentFlags().String("state-guard", "", "`file` that witnesses the state directory; default: its name with .guard")
}

// tellCreated records, once, that a memory begins anew, or has lost its guard:
// an auditor that lost its state must not look like one that never had any.
func tellCreated(ctx context.Context, d *audit.Decider, s *store.Store, c *config.Config, log *slog.Logger) error {
	if problem := s.GuardProblem(); problem != "" {
		log.Warn(problem)
		if err := d.StateProblem(ctx, c.Audit.Server, problem); err != nil {
			return unknown(err)
		}
	}
	if !s.Created() {
		return nil
	}
	log.Warn("a new state directory was made: nothing is remembered, trust begins with what the server shows now", "dir", s.Dir())
	if err := d.StateCreated(ctx, c.Audit.Server, s.Dir()); err != nil {
		return unknown(err)
	}
	return nil
}

// openLog gives the logger: to standard error, to standard output if asked for,
// or to the configured file.
func openLog(env *Env, c *config.Config) (*slog.Logger, func(), error) {
	w, closeLog := env.Stderr, func() {}
	switch {
	case c.LogsToStdout():
		w = env.Stdout
	case c.LogFile != "" && c.LogFile != config.StandardOutput:
		f, err := os.OpenFile(c.LogFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, usagef("opening the log file: %w; set logfile to a file that this user can write", err)
		}
		w, closeLog = f, func() { f.Close() }
	}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, nil)), closeLog, nil
	}
	return slog.New(slog.NewTextHandler(w, nil)), closeLog, nil
}

// writePid writes the process id where asked for; the returned function
// removes the file if it still is this process's.
func writePid(file string) (func(), error) {
	if file == "" {
		return func() {}, nil
	}
	pid := strconv.Itoa(os.Getpid())
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, usagef("writing the pid file: %w; set pidfile to a file that this user can write", err)
	}
	if err := os.WriteFile(file, []byte(pid+"\n"), 0o644); err != nil {
		return nil, usagef("writing the pid file: %w; set pidfile to a file that this user can write", err)
	}
	return func() {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == pid {
			os.Remove(file)
		}
	}, nil
}

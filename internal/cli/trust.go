package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/history"
	"immuaudit/internal/store"
	"immuaudit/proof"
)

func newTrust(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Show and decide what is trusted",
		Long: `trust works on the state directory (--dir, or the configured one), whether or
not an auditor is running; a running one notices. A ledger is written as
SERVER/DATABASE, or as DATABASE alone where only one server has it.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().String("audit-server", "", "`name` of the server, where a ledger is given by its database alone")
	addStateGuard(cmd)
	cmd.AddCommand(newTrustList(env), newTrustShow(env), newTrustPin(env), newTrustAccept(env), newTrustKeep(env),
		newTrustRename(env), newTrustKey(env), newTrustExport(env), newTrustImport(env), newTrustCheck(env))
	return cmd
}

// withStore runs a verb over the configured state.
func withStore(cmd *cobra.Command, env *Env, how access, f func(ctx context.Context, c *config.Config, s *store.Store) error) (err error) {
	c, warnings, err := load(cmd, env, true)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := openState(cmd.Context(), c, log, how)
	if err != nil {
		// A configuration that was passed over may be why another state is
		// looked for than the auditor uses.
		for _, w := range warnings {
			if !w.Quiet {
				log.Warn(w.Text)
			}
		}
		return err
	}
	defer closing(&err, s.Close)
	if how == making {
		if err := tellCreated(cmd.Context(), &audit.Decider{Memory: s}, s, c, log); err != nil {
			return err
		}
	}
	if err := f(cmd.Context(), c, s); err != nil {
		var exit *exitError
		if errors.As(err, &exit) {
			return err
		}
		return unknown(err)
	}
	return nil
}

// find resolves SERVER/DATABASE or DATABASE; where several servers have that
// database, it is the configured server's. The server's name may hold slashes;
// a database's cannot.
func find(ctx context.Context, c *config.Config, s *store.Store, given string) (*evidence.Trust, error) {
	all, err := s.Ledgers(ctx)
	if err != nil {
		return nil, unknown(err)
	}
	var found []evidence.Trust
	for _, t := range all {
		if t.Name.String() == given {
			return &t, nil
		}
		if t.Name.Database == given {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 1:
		return &found[0], nil
	case 0:
		return nil, usagef("nothing is remembered of %q; type immuclient trust list to see what is", given)
	}
	names := make([]string, len(found))
	for i, t := range found {
		if t.Name.Server == c.Audit.Server {
			return &found[i], nil
		}
		names[i] = t.Name.String()
	}
	return nil, usagef("%q is on several servers; give one of %s", given, strings.Join(names, ", "))
}

func newTrustList(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List every remembered ledger", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, env, existing, func(ctx context.Context, _ *config.Config, s *store.Store) error {
				all, err := s.Ledgers(ctx)
				if err != nil {
					return unknown(err)
				}
				incidents, err := s.Incidents(ctx, false)
				if err != nil {
					return unknown(err)
				}
				open := map[evidence.Name]int{}
				for _, inc := range incidents {
					open[inc.Name]++
				}
				if asJSON {
					for i := range all {
						if err := writeJSON(env.Stdout, trustView(&all[i], open[all[i].Name])); err != nil {
							return err
						}
					}
					return nil
				}
				if len(all) == 0 {
					fmt.Fprintln(env.Stdout, "nothing is remembered yet")
					return nil
				}
				w := tabwriter.NewWriter(env.Stdout, 0, 8, 2, ' ', 0)
				fmt.Fprintln(w, "LEDGER\tPROVEN\tWALKED\tVERIFIED\tBEGAN\tLAST AGREED\tINCIDENTS")
				for _, t := range all {
					state := fmt.Sprint(open[t.Name])
					if t.Retired {
						state = "retired"
					}
					fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s at %d\t%s\t%s\n", shown(t.Name.String()), t.Proven.TxID, t.Walked, t.Verified,
						t.Baseline.Origin, t.Baseline.State.TxID, when(t.LastAgreed), state)
				}
				return w.Flush()
			})
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print each ledger as one line of JSON")
	return cmd
}

// trustJSON is a remembered ledger in the words of --json.
type trustJSON struct {
	Server     string              `json:"server"`
	Database   string              `json:"database"`
	ServerUUID string              `json:"server_uuid,omitempty"`
	Origin     evidence.Origin     `json:"origin"`
	Baseline   *evidence.Mark      `json:"baseline"`
	BaselineAt time.Time           `json:"baseline_at"`
	Note       string              `json:"note,omitempty"`
	Trusted    *evidence.Mark      `json:"trusted"`
	TrustedAt  time.Time           `json:"trusted_at"`
	Assurance  *evidence.Assurance `json:"assurance"`
	SigningKey string              `json:"signing_key,omitempty"`
	LastAgreed *time.Time          `json:"last_agreed,omitempty"`
	Retired    bool                `json:"retired,omitempty"`
	Open       int                 `json:"open_incidents"`
}

func trustView(t *evidence.Trust, open int) trustJSON {
	v := trustJSON{
		Server: t.Name.Server, Database: t.Name.Database, ServerUUID: t.UUID, Origin: t.Baseline.Origin,
		Baseline: evidence.MarkOf(t.Baseline.State), BaselineAt: t.Baseline.At, Note: t.Baseline.Note,
		Trusted: evidence.MarkOf(t.Proven.State), TrustedAt: t.ProvenAt,
		Assurance:  &evidence.Assurance{Proven: t.Proven.TxID, Walked: t.Walked, Verified: t.Verified},
		SigningKey: hex.EncodeToString(t.Key), Retired: t.Retired, Open: open,
	}
	if !t.LastAgreed.IsZero() {
		v.LastAgreed = &t.LastAgreed
	}
	return v
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func newTrustShow(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show LEDGER", Short: "Show what is remembered of one ledger", Args: exactly("LEDGER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, env, existing, func(ctx context.Context, c *config.Config, s *store.Store) error {
				t, err := find(ctx, c, s, args[0])
				if err != nil {
					return err
				}
				incidents, err := s.Incidents(ctx, false)
				if err != nil {
					return unknown(err)
				}
				var open []evidence.Incident
				for _, inc := range incidents {
					if inc.Name == t.Name {
						open = append(open, inc)
					}
				}
				if asJSON {
					return writeJSON(env.Stdout, trustView(t, len(open)))
				}
				showTrust(env.Stdout, t, open)
				return nil
			})
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print as one line of JSON")
	return cmd
}

func showTrust(out io.Writer, t *evidence.Trust, open []evidence.Incident) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("ledger", "%s", shown(t.Name.String()))
	row("baseline", "transaction %d, %s, %s", t.Baseline.State.TxID, t.Baseline.Origin, when(t.Baseline.At))
	row("", "%s", t.Baseline.State.Alh)
	if t.Baseline.Note != "" {
		row("", "%s", shown(t.Baseline.Note))
	}
	row("trusted", "transaction %d, since %s", t.Proven.TxID, when(t.ProvenAt))
	row("", "%s", t.Proven.Alh)
	row("walked", "transaction %d", t.Walked)
	row("verified", "transaction %d", t.Verified)
	row("last agreed", "%s", when(t.LastAgreed))
	if t.UUID != "" {
		row("server UUID", "%s (the server's own word)", shown(t.UUID))
	}
	if len(t.Key) > 0 {
		row("signing key", "%s", hex.EncodeToString(t.Key))
	} else {
		row("signing key", "none: states are not signed")
	}
	if t.Retired {
		row("retired", "an operator accepted that it is gone")
	}
	for _, inc := range open {
		row("incident", "%s %s, open since %s", inc.ID, inc.Kind, when(inc.OpenedAt))
	}
	w.Flush()
}

func newTrustPin(env *Env) *cobra.Command {
	var tx uint64
	var alh, keyFile, reason string
	cmd := &cobra.Command{
		Use: "pin SERVER/DATABASE --tx N --alh HEX", Short: "Set the expected first state by hand, where there is no baseline",
		Long: `pin sets the state from which trust begins, so that the first contact is
checked too. SERVER is the name the auditor gives the server: its host:port, or
what --audit-server says.`,
		Args: exactly("SERVER/DATABASE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := ledgerName(args[0])
			if err != nil {
				return err
			}
			hash, err := hex.DecodeString(alh)
			if err != nil || len(hash) != len(proof.Hash{}) {
				return usagef("--alh %s: give the state's hash as 64 hex digits", shown(alh))
			}
			if !cmd.Flags().Changed("tx") {
				return usagef("--tx is missing: give the number of the transaction that has this hash")
			}
			var point []byte
			if keyFile != "" {
				if _, point, err = readKey("--key", keyFile); err != nil {
					return usage(err)
				}
			}
			return withStore(cmd, env, making, func(ctx context.Context, c *config.Config, s *store.Store) error {
				d, err := decider(c, s)
				if err != nil {
					return err
				}
				if err := d.Pin(ctx, name, proof.State{TxID: tx, Alh: proof.Hash(hash)}, point, reason); err != nil {
					return decided(err)
				}
				fmt.Fprintf(env.Stdout, "pinned %s at transaction %d\n", shown(name.String()), tx)
				return nil
			})
		},
	}
	cmd.Flags().Uint64Var(&tx, "tx", 0, "`number` of the transaction")
	cmd.Flags().StringVar(&alh, "alh", "", "its accumulative hash (txHash), `hex`")
	cmd.Flags().StringVar(&keyFile, "key", "", "PEM `file` of the key that signs the states")
	cmd.Flags().StringVar(&reason, "reason", "", "where the state is known from")
	return cmd
}

// ledgerName splits SERVER/DATABASE at the last slash.
func ledgerName(s string) (evidence.Name, error) {
	i := strings.LastIndexByte(s, '/')
	if i <= 0 || i == len(s)-1 || len(s) > 512 {
		return evidence.Name{}, usagef("%s: write the ledger as SERVER/DATABASE, for example 127.0.0.1:3322/defaultdb", shown(s))
	}
	return evidence.Name{Server: s[:i], Database: s[i+1:]}, nil
}

func newTrustAccept(env *Env) *cobra.Command {
	var reason, key string
	cmd := &cobra.Command{
		Use: "accept INCIDENT --reason TEXT", Short: "Accept what an incident recorded as the new baseline",
		Long: `accept closes an incident and begins trust anew at the state that the incident
recorded, never at what the server shows now. For vanished it retires the
ledger; for damaged data it accepts the listed damage only. An incident about
signatures also needs the new key.`,
		Args: exactly("INCIDENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			choice, err := keyChoice(key)
			if err != nil {
				return err
			}
			return withIncident(cmd, env, args[0], func(ctx context.Context, d audit.Decider, inc *evidence.Incident, t *evidence.Trust) error {
				if err := d.Accept(ctx, *inc, t, choice, reason); err != nil {
					return decided(err)
				}
				switch {
				case inc.Kind == evidence.Vanished:
					fmt.Fprintf(env.Stdout, "accepted %s: %s is retired\n", inc.ID, shown(inc.Name.String()))
				case inc.Kind.AboutData() || t == nil:
					fmt.Fprintf(env.Stdout, "accepted %s\n", inc.ID)
				default:
					fmt.Fprintf(env.Stdout, "accepted %s: trust in %s begins anew at transaction %d\n", inc.ID, shown(inc.Name.String()), inc.Observed.TxID)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().StringVar(&key, "key", "", "new signing key: a PEM `file`, \"observed\" or \"none\"")
	return cmd
}

func keyChoice(s string) (audit.KeyChoice, error) {
	switch s {
	case "":
		return audit.KeyChoice{}, nil
	case "observed":
		return audit.KeyChoice{Observed: true}, nil
	case "none":
		return audit.KeyChoice{None: true}, nil
	}
	_, point, err := readKey("--key", s)
	if err != nil {
		return audit.KeyChoice{}, usage(err)
	}
	return audit.KeyChoice{Point: point}, nil
}

func newTrustKeep(env *Env) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "keep INCIDENT --reason TEXT", Short: "Close an incident because the server agrees with the old baseline again",
		Args: exactly("INCIDENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withIncident(cmd, env, args[0], func(ctx context.Context, d audit.Decider, inc *evidence.Incident, t *evidence.Trust) error {
				if err := d.Keep(ctx, *inc, t, reason); err != nil {
					return decided(err)
				}
				fmt.Fprintf(env.Stdout, "kept %s: the server agrees with what is trusted of %s\n", inc.ID, shown(inc.Name.String()))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func newTrustRename(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "rename OLD NEW", Short: "Give a server, or a ledger, another name without losing its history",
		Long: `rename moves everything that is remembered: of one ledger where both names are
SERVER/DATABASE and the old one is remembered, of all ledgers of a server
otherwise. Stop the auditor first.`,
		Example: "  immuclient trust rename 10.0.0.7:3322 production",
		Args:    exactly("OLD", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, env, existing, func(ctx context.Context, c *config.Config, s *store.Store) error {
				release, err := s.Lock()
				if err != nil {
					return unknown(err)
				}
				defer release()
				renamed := map[evidence.Name]evidence.Name{}
				event := audit.Decision(evidence.Name{}, "", fmt.Sprintf("renamed %s to %s", args[0], args[1]))
				if t, err := find(ctx, c, s, args[0]); err == nil && t.Name.String() == args[0] {
					to, err := ledgerName(args[1])
					if err != nil {
						return err
					}
					event.Name = to
					if err := s.Rename(ctx, t.Name, to, event); err != nil {
						return stored(err)
					}
					renamed[t.Name] = to
				} else {
					all, err := s.Ledgers(ctx)
					if err != nil {
						return unknown(err)
					}
					for _, t := range all {
						if t.Name.Server == args[0] {
							renamed[t.Name] = evidence.Name{Server: args[1], Database: t.Name.Database}
						}
					}
					event.Name.Server = args[1]
					if err := s.RenameServer(ctx, args[0], args[1], event); err != nil {
						return stored(err)
					}
				}
				log := slog.New(slog.NewTextHandler(env.Stderr, nil))
				renameMirrors(s, log, renamed)
				if err := history.Rename(ctx, s.Dir(), renamed); err != nil {
					log.Warn("the history could not be renamed; plots and reports keep it under the old name", "error", err)
				}
				fmt.Fprintf(env.Stdout, "renamed %s to %s\n", shown(args[0]), shown(args[1]))
				return nil
			})
		},
	}
}

func newTrustExport(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "export [FILE]", Short: "Write what is trusted as JSON, to take it elsewhere", Args: atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, env, reading, func(ctx context.Context, _ *config.Config, s *store.Store) error {
				if len(args) == 0 {
					return s.Export(ctx, env.Stdout)
				}
				f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if err != nil {
					return usagef("creating the export: %w", err)
				}
				if err := s.Export(ctx, f); err != nil {
					f.Close()
					return unknown(err)
				}
				return f.Close()
			})
		},
	}
}

// exactly checks the number of arguments, by their names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		call := strings.Join(append([]string{cmd.CommandPath()}, names...), " ")
		switch {
		case len(args) < len(names):
			return usagef("%s is missing; type %s", names[len(args)], call)
		case len(args) > len(names):
			return usagef("%s is one argument too many; type %s", shown(args[len(names)]), call)
		}
		return nil
	}
}

// atMostOne checks that there is one argument or none.
func atMostOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return exactly(name)(cmd, args)
	}
}

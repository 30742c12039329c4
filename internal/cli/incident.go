package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/store"
)

func newIncident(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "incident", Short: "Show and acknowledge incidents", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	addStateGuard(cmd)
	cmd.AddCommand(newIncidentList(env), newIncidentShow(env), newIncidentAck(env))
	return cmd
}

// withIncident runs a decision on one incident; a conflict with a running
// auditor is tried again a few times.
func withIncident(cmd *cobra.Command, env *Env, id string, f func(context.Context, audit.Decider, *evidence.Incident, *evidence.Trust) error) error {
	return withStore(cmd, env, existing, func(ctx context.Context, c *config.Config, s *store.Store) error {
		d, err := decider(c, s)
		if err != nil {
			return err
		}
		for range 5 {
			var inc evidence.Incident
			if inc, err = s.Incident(ctx, id); err != nil {
				return stored(err)
			}
			var trust *evidence.Trust
			if t, terr := s.Trust(ctx, inc.Name); terr == nil {
				trust = &t
			} else if !errors.Is(terr, store.ErrNotFound) {
				return unknown(terr)
			}
			err = f(ctx, d, &inc, trust)
			if err == nil {
				return tellOthers(ctx, env, s, &inc)
			}
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
		}
		return err
	})
}

// decider makes decisions of whoever sits here, and has them told.
func decider(c *config.Config, s *store.Store) (audit.Decider, error) {
	sinks, err := rulesOf(c)
	if err != nil {
		return audit.Decider{}, err
	}
	d := audit.Decider{Memory: s, By: whoami()}
	d.Sinks = func(server string) []audit.SinkRule { return rulesFor(c, sinks, server) }
	return d, nil
}

// whoami is the user that the machine knows, and the machine.
func whoami() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if sudo := os.Getenv("SUDO_USER"); sudo != "" && name == "root" {
		name = sudo + " as root"
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return strings.ToValidUTF8(name+"@"+host, "?")
}

// tellOthers names the other open incidents of the ledger: one attack can open
// several, and each wants a decision.
func tellOthers(ctx context.Context, env *Env, s *store.Store, decided *evidence.Incident) error {
	open, err := s.Incidents(ctx, false)
	if err != nil {
		return unknown(err)
	}
	for _, inc := range open {
		if inc.Name == decided.Name && inc.ID != decided.ID {
			fmt.Fprintf(env.Stdout, "also open for %s: %s, %s; decide about it too\n", shown(inc.Name.String()), inc.ID, inc.Kind)
		}
	}
	return nil
}

// decided gives a refused decision the exit code of wrong usage, any other
// failure that of not knowing.
func decided(err error) error {
	if errors.Is(err, audit.ErrDecision) {
		return usage(err)
	}
	return stored(err)
}

// stored gives what the state refused because of what was asked for the exit
// code of wrong usage, trouble with the state itself that of not knowing.
func stored(err error) error {
	for _, asked := range []error{store.ErrNotFound, store.ErrAmbiguous, store.ErrExists, store.ErrInvalid} {
		if errors.Is(err, asked) {
			return usage(err)
		}
	}
	return unknown(err)
}

// incidentJSON is an incident in the words of --json.
type incidentJSON struct {
	ID         string               `json:"incident"`
	Server     string               `json:"server"`
	ServerUUID string               `json:"server_uuid,omitempty"`
	Database   string               `json:"database"`
	Kind       evidence.Kind        `json:"kind"`
	Status     evidence.Status      `json:"status"`
	OpenedAt   time.Time            `json:"opened_at"`
	LastSeen   time.Time            `json:"last_seen"`
	Seen       uint64               `json:"seen"`
	Findings   []evidence.Finding   `json:"findings"`
	Trusted    *evidence.Mark       `json:"trusted,omitempty"`
	Observed   *evidence.Mark       `json:"observed,omitempty"`
	Divergence *evidence.Divergence `json:"divergence,omitempty"`
	AckedAt    *time.Time           `json:"acked_at,omitempty"`
	AckedBy    string               `json:"acked_by,omitempty"`
	AckNote    string               `json:"ack_note,omitempty"`
	ClosedAt   *time.Time           `json:"closed_at,omitempty"`
	ClosedBy   string               `json:"closed_by,omitempty"`
	CloseNote  string               `json:"close_note,omitempty"`
	Evidence   string               `json:"evidence,omitempty"`
	Error      string               `json:"evidence_error,omitempty"`
}

func incidentView(inc *evidence.Incident) incidentJSON {
	return incidentJSON{
		ID: inc.ID, Server: inc.Name.Server, ServerUUID: inc.UUID, Database: inc.Name.Database, Kind: inc.Kind, Status: inc.Status,
		OpenedAt: inc.OpenedAt, LastSeen: inc.LastSeen, Seen: inc.Seen, Findings: inc.Findings,
		Trusted: evidence.MarkOf(inc.Trusted.State), Observed: evidence.MarkOf(inc.Observed.State),
		Divergence: inc.Divergence,
		AckedAt:    timeOrNil(inc.AckedAt), AckedBy: inc.AckedBy, AckNote: inc.AckedNote, ClosedBy: inc.ClosedBy, ClosedAt: timeOrNil(inc.ClosedAt), CloseNote: inc.CloseNote,
		Evidence: inc.Evidence, Error: inc.EvidenceError,
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func writeJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

func newIncidentList(env *Env) *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List open incidents; exit code 3 while there are any", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, env, existing, func(ctx context.Context, _ *config.Config, s *store.Store) error {
				incidents, err := s.Incidents(ctx, all)
				if err != nil {
					return unknown(err)
				}
				if err := listIncidents(env.Stdout, incidents, asJSON); err != nil {
					return err
				}
				for _, inc := range incidents {
					if inc.Status == evidence.Open {
						return &exitError{code: exitTampered}
					}
				}
				return nil
			})
		},
	}
	boolVar(cmd.Flags(), &all, "all", "", "closed ones too")
	boolVar(cmd.Flags(), &asJSON, "json", "", "print each incident as one line of JSON")
	return cmd
}

func listIncidents(out io.Writer, incidents []evidence.Incident, asJSON bool) error {
	if asJSON {
		for i := range incidents {
			if err := writeJSON(out, incidentView(&incidents[i])); err != nil {
				return err
			}
		}
		return nil
	}
	if len(incidents) == 0 {
		_, err := fmt.Fprintln(out, "no incident")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "INCIDENT\tLEDGER\tKIND\tSTATUS\tOPENED\tLAST SEEN")
	for _, inc := range incidents {
		status := string(inc.Status)
		if inc.Status == evidence.Open && !inc.AckedAt.IsZero() {
			status += ", acknowledged"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", inc.ID, shown(inc.Name.String()), inc.Kind, status, when(inc.OpenedAt), when(inc.LastSeen))
	}
	return w.Flush()
}

func newIncidentShow(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show INCIDENT", Short: "Show one incident", Args: exactly("INCIDENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, env, existing, func(ctx context.Context, _ *config.Config, s *store.Store) error {
				inc, err := s.Incident(ctx, args[0])
				if err != nil {
					return stored(err)
				}
				if asJSON {
					return writeJSON(env.Stdout, incidentView(&inc))
				}
				showIncident(env.Stdout, &inc)
				return nil
			})
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print as one line of JSON")
	return cmd
}

func showIncident(out io.Writer, inc *evidence.Incident) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("incident", "%s, %s", inc.ID, inc.Status)
	row("ledger", "%s", shown(inc.Name.String()))
	row("tampered", "%s", inc.Kind)
	for _, f := range inc.Findings {
		row("finding", "%s", finding(f))
		if f.Want != "" || f.Got != "" {
			row("", "wanted %s", shown(f.Want))
			row("", "got    %s", shown(f.Got))
		}
	}
	if inc.Divergence != nil {
		row("where", "%s", inc.Divergence)
	}
	row("opened", "%s", when(inc.OpenedAt))
	row("last seen", "%s, %d times", when(inc.LastSeen), inc.Seen)
	if m := evidence.MarkOf(inc.Trusted.State); m != nil {
		row("trusted", "transaction %d  %s", m.Tx, m.Alh)
	}
	if m := evidence.MarkOf(inc.Observed.State); m != nil {
		row("observed", "transaction %d  %s", m.Tx, m.Alh)
	}
	if inc.Evidence != "" {
		row("evidence", "%s", inc.Evidence)
		row("", "re-check it with: immuclient evidence verify %s", inc.Evidence)
	}
	if inc.EvidenceError != "" {
		row("evidence", "none: %s", shown(inc.EvidenceError))
	}
	if !inc.AckedAt.IsZero() {
		row("acknowledged", "%s by %s: %s", when(inc.AckedAt), shown(inc.AckedBy), shown(inc.AckedNote))
	}
	if inc.Status == evidence.Open {
		row("decide", "immuclient trust accept %s --reason \"…\"   the recorded observed state is right", inc.ID)
		row("", "immuclient trust keep %s --reason \"…\"     the trusted state is right, and the server agrees again", inc.ID)
	} else {
		row(string(inc.Status), "%s by %s: %s", when(inc.ClosedAt), shown(inc.ClosedBy), shown(inc.CloseNote))
	}
	w.Flush()
}

func newIncidentAck(env *Env) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use: "ack INCIDENT", Short: "Acknowledge an incident: record that somebody has it; it stays open", Args: exactly("INCIDENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withIncident(cmd, env, args[0], func(ctx context.Context, d audit.Decider, inc *evidence.Incident, _ *evidence.Trust) error {
				if err := d.Acknowledge(ctx, *inc, note); err != nil {
					return decided(err)
				}
				fmt.Fprintf(env.Stdout, "acknowledged %s; it stays open\n", inc.ID)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "who knows, and what is being done")
	return cmd
}

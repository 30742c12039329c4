package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"immuaudit/internal/config"
	"immuaudit/internal/store"
)

func newTrustCheck(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Short: "Compare everything in the state directory, and its guard, with each other",
		Long: `check compares what the auditor remembers of the ledgers, its mirrors of them,
the states that the servers signed, the incidents, their evidence and the guard
of the directory with each other, one line for each thing that was looked at. It
talks to no server and changes nothing; the auditor must not run meanwhile. Beside
a running one, and with a verdict on each ledger: immuclient verify --offline.

Exit codes: 0 everything fits, 1 something does not, or could not be looked at.
That is about the auditor's own memory; it is no verdict about a server.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, env, reading, func(ctx context.Context, _ *config.Config, s *store.Store) error {
				return checkTrust(ctx, env, s, asJSON)
			})
		},
	}
	boolVar(cmd.Flags(), &asJSON, "json", "", "print each thing that was checked, and at the end how many, as one line of JSON")
	return cmd
}

// checkReport prints what was looked at, one line each.
type checkReport struct {
	w        io.Writer
	asJSON   bool
	checked  int
	problems int
	err      error // the first that printing met
}

func checkTrust(ctx context.Context, env *Env, s *store.Store, asJSON bool) error {
	release, err := s.Lock()
	if errors.Is(err, store.ErrLocked) {
		return unknown(fmt.Errorf("%w. What it writes meanwhile would look like damage; where it is a service: immuclient audit-mode stop", err))
	}
	if err != nil {
		return unknown(err)
	}
	defer release()
	p := &checkReport{w: env.Stdout, asJSON: asJSON}
	if err := p.run(ctx, &checkup{s: s, needGuard: true}); err != nil {
		return unknown(err)
	}
	if err := cmp.Or(p.err, p.sum()); err != nil {
		return unknown(fmt.Errorf("printing what was checked: %w", err))
	}
	if p.problems > 0 {
		return &exitError{code: exitUnknown}
	}
	return nil
}

// run goes through everything.
func (p *checkReport) run(ctx context.Context, c *checkup) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	found, err := c.state(ctx)
	if err != nil {
		return err
	}
	p.print(found)
	for i := range c.known.Trust {
		if found, _, err = c.ledger(ctx, c.known.Trust[i].Name); err != nil {
			return err
		}
		p.print(found)
	}
	if found, err = c.incidents(ctx); err != nil {
		return err
	}
	p.print(found)
	return nil
}

func (p *checkReport) print(found []checked) {
	for i := range found {
		p.checked++
		if found[i].bad() {
			p.problems++
		}
		var err error
		if p.asJSON {
			err = writeJSON(p.w, &found[i])
		} else {
			_, err = fmt.Fprintln(p.w, found[i].line(true))
		}
		p.err = cmp.Or(p.err, err)
	}
}

// sum ends the report, so that a whole one can be told from one that broke off.
func (p *checkReport) sum() error {
	if p.asJSON {
		return writeJSON(p.w, struct {
			Checked  int `json:"checked"`
			Problems int `json:"problems"`
		}{p.checked, p.problems})
	}
	_, err := fmt.Fprintf(p.w, "%d checked, %d ok, problems: %d\n", p.checked, p.checked-p.problems, p.problems)
	return err
}

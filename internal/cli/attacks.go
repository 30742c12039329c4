package cli

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
)

func newLedgerAttacks(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "attacks",
		Short: "List the attacks that ledger serve --attack can make",
		Long: `attacks lists, for trying auditors and clients of immudb against them: the name, the row
of the threat model, the verdict that is right, since when it is known, the last transaction
that stays what it was and the first that does not (of 24 before the attack), and what is done.`,
		Args: noSuchCommand,
		RunE: func(*cobra.Command, []string) error {
			w := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tROW\tRIGHT VERDICT\tKNOWN\tPARTS\tWHAT IT DOES")
			for _, s := range attack.All() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Row, s.Expect, s.Known, s.Expect.Parting(), s.Summary)
			}
			if err := w.Flush(); err != nil {
				return unknown(fmt.Errorf("listing the attacks: %w", err))
			}
			return nil
		},
	}
}

// hostility is what ledger serve was asked to do to its clients.
type hostility struct {
	names     []string
	after     int
	database  string
	publicKey string

	scenarios []attack.Scenario
	layer     *attack.Layer
}

func (h *hostility) register(f *pflag.FlagSet) {
	f.StringSliceVar(&h.names, "attack", nil, "`name` of an attack to make, see ledger attacks; may be repeated")
	f.IntVar(&h.after, "attack-after", 2, "begin after the state of the attacked database was asked for this many `times`")
	f.StringVar(&h.database, "attack-database", ledger.DefaultDB, "`name` of the database to attack")
	f.StringVar(&h.publicKey, "attack-public-key", "", "PEM `file` to write the public key to that the attacked ledger signs with")
}

// config is that of a ledger that can be attacked.
func (h *hostility) config(c ledger.Config) (ledger.Config, error) {
	if len(h.names) == 0 {
		return c, nil
	}
	if h.after < 0 {
		return c, fmt.Errorf("--attack-after %d: give 0 to begin at once, or a number of answers", h.after)
	}
	var err error
	if h.scenarios, err = attack.Parse(h.names); err != nil {
		return c, fmt.Errorf("--attack: %w", err)
	}
	for _, s := range h.scenarios {
		c = s.Config(c)
	}
	h.layer = attack.NewLayer()
	return h.layer.Config(c), nil
}

// prepare makes the history that the attacks begin with, and lets them wait.
func (h *hostility) prepare(env *Env, l *ledger.Ledger, c ledger.Config) error {
	if len(h.scenarios) == 0 {
		return nil
	}
	st := attack.NewStage(l, h.layer, h.database)
	st.Key = c.SigningKey
	if h.publicKey != "" {
		if err := h.writePublicKey(c); err != nil {
			return err
		}
	}
	var steps []func()
	for _, s := range h.scenarios {
		if err := s.Prepare(st); err != nil {
			return err
		}
		fmt.Fprintf(env.Stdout, "attack %s on %s (%s): %s; right verdict: %s\n", s.Name, h.database, s.Row, s.Summary, s.Expect)
		for _, step := range s.Steps {
			steps = append(steps, func() { tell(env.Stdout, s, step, step.Strike(st)) })
		}
	}
	h.layer.Arm(h.database, h.after, steps...)
	return nil
}

// tell says what was done; calls come one at a time.
func tell(w io.Writer, s attack.Scenario, step attack.Step, err error) {
	if err != nil {
		fmt.Fprintf(w, "attack %s: %s: failed: %v\n", s.Name, step.Summary, err)
		return
	}
	fmt.Fprintf(w, "attack %s: %s\n", s.Name, step.Summary)
}

func (h *hostility) writePublicKey(c ledger.Config) error {
	if c.SigningKey == nil {
		return fmt.Errorf("--attack-public-key: this ledger does not sign; give --signing-key, or an attack that is about signatures")
	}
	der, err := x509.MarshalPKIXPublicKey(&c.SigningKey.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	if err := os.WriteFile(h.publicKey, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("writing --attack-public-key: %w", err)
	}
	return nil
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/store"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

func newTrustImport(env *Env) *cobra.Command {
	var from, uuid, note string
	cmd := &cobra.Command{
		Use:   "import FILE | import --from-immuclient DIR",
		Short: "Take over what another auditor proved",
		Long: `import takes over trusted states where there is no baseline yet: from a file
that trust export wrote, or from the state of the original immuclient
(DIR/auditor/UUID/.state; by default the original kept it in /tmp). Where DIR
holds several UUIDs, say with --uuid which one was this server.

The imported states go to the server that is configured (--audit-server, or
-a and -p).`,
		Example: "  immuclient trust import --from-immuclient /tmp -a db.example.org",
		Args:    atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case from == "" && len(args) == 0:
				return usagef("what to import is missing: give a FILE that trust export wrote, or --from-immuclient DIR")
			case from != "" && len(args) > 0:
				return usagef("give either a FILE or --from-immuclient, not both")
			case from == "" && uuid != "":
				return usagef("--uuid goes with --from-immuclient")
			}
			return withStore(cmd, env, making, func(ctx context.Context, c *config.Config, s *store.Store) error {
				d, err := decider(c, s)
				if err != nil {
					return err
				}
				if from != "" {
					if c.Audit.Server == "" {
						return usagef("the configuration names several servers: say with --audit-server whose states these are")
					}
					return importOriginal(ctx, env, d, c.Audit.Server, from, uuid, note)
				}
				f, err := os.Open(args[0])
				if err != nil {
					return usagef("opening the export: %w", err)
				}
				defer f.Close()
				if note == "" {
					note = "from " + args[0]
				}
				names, err := s.Import(ctx, f, note, time.Now(), audit.Decision(evidence.Name{}, "", "imported "+note))
				if err != nil {
					return stored(err)
				}
				for _, name := range names {
					fmt.Fprintf(env.Stdout, "imported %s\n", shown(name.String()))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&from, "from-immuclient", "", "`directory` with the original's state")
	cmd.Flags().StringVar(&uuid, "uuid", "", "which server's state, where there are several")
	cmd.Flags().StringVar(&note, "reason", "", "a note for the record")
	return cmd
}

// importOriginal takes over every readable state; what exists already is left
// alone and said.
func importOriginal(ctx context.Context, env *Env, d audit.Decider, server, dir, uuid, note string) error {
	states, err := store.ReadOriginal(dir, uuid)
	if err != nil {
		return usage(err)
	}
	if len(states) == 0 {
		return usagef("%s: no trusted state in it", dir)
	}
	if note == "" {
		note = "from the original immuclient's state in " + dir
	}
	var failed []error
	for _, original := range states {
		name := evidence.Name{Server: server, Database: original.Database}
		state, err := originalState(original)
		if err == nil {
			err = d.Import(ctx, name, state, signer(&state), original.UUID, note)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", shown(name.String()), err))
			continue
		}
		fmt.Fprintf(env.Stdout, "imported %s at transaction %d\n", shown(name.String()), state.TxID)
	}
	if len(failed) == 0 {
		return nil
	}
	err = errors.Join(failed...)
	for _, one := range failed {
		if !errors.Is(one, audit.ErrDecision) && !errors.Is(one, errForeignState) {
			return unknown(err)
		}
	}
	return usage(err)
}

// errForeignState is a line of the original's file that holds no state.
var errForeignState = errors.New("reading the original's state")

func originalState(o store.OriginalState) (proof.SignedState, error) {
	var m schema.ImmutableState
	if err := proto.Unmarshal(o.Raw, &m); err != nil {
		return proof.SignedState{}, fmt.Errorf("%w: %w", errForeignState, err)
	}
	state, err := wire.DecodeState(&m)
	if err != nil {
		return proof.SignedState{}, fmt.Errorf("%w: %w", errForeignState, err)
	}
	if state.DB == "" { // servers before 1.0 named none
		state.DB = o.Database
	}
	if state.DB != o.Database {
		return proof.SignedState{}, fmt.Errorf("%w: it is of database %s", errForeignState, shown(state.DB))
	}
	return state, nil
}

// signer gives the key of a state that verifies under the key it carries: the
// original saw it, so it is the key to hold on to.
func signer(s *proof.SignedState) []byte {
	if len(s.Signature) == 0 {
		return nil
	}
	key, err := proof.ParsePoint(s.PublicKey)
	if err != nil || proof.VerifySignature(key, s) != nil {
		return nil
	}
	return s.PublicKey
}

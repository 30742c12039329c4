package cli

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/config"
	"immuaudit/internal/store"
)

func newEvidence(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "evidence", Short: "Check the evidence of an incident, offline", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newEvidenceVerify(env))
	return cmd
}

func newEvidenceVerify(env *Env) *cobra.Command {
	var serverKey, auditorKey string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify FILE…", Short: "Re-check evidence files and say what is proven, to whom",
		Long: `verify computes every hash and checks every signature of evidence files again,
with no server and no network. It tells two things apart:

  proof      two histories signed by one key: anyone can convince themselves
  testimony  everything else: it is worth what its auditor's word is worth

Exit codes: 3 proof, or testimony of the auditor whose key was given; 1 other
testimony, or nothing proven; 2 not evidence, or changed since it was signed.
Of several files the most telling one counts: 3 before 2 before 1.`,
		Example: "  immuclient evidence verify --server-key immudb.pub --auditor-key \"$(cat auditor.vkey)\" 20261123-k7qd-fork-*.json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("FILE is missing; type immuclient evidence verify FILE…")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			opts := evidence.RecheckOptions{AuditorKey: strings.TrimSpace(auditorKey)}
			if serverKey != "" {
				var err error
				if opts.ServerKey, _, err = readKey("--server-key", serverKey); err != nil {
					return usage(err)
				}
			}
			if opts.AuditorKey != "" {
				if _, err := evidence.ParseAuditorKey(opts.AuditorKey); err != nil {
					return usagef("--auditor-key: %w", err)
				}
			}
			worst := 0
			for _, file := range args {
				if code := verifyEvidence(env, file, opts, asJSON); rankOfExit(code) > rankOfExit(worst) {
					worst = code
				}
			}
			return &exitError{code: worst}
		},
	}
	cmd.Flags().StringVar(&serverKey, "server-key", "", "PEM `file` of the key that the server signs its states with")
	cmd.Flags().StringVar(&auditorKey, "auditor-key", "", "the auditor's verifier `key`, as immuclient trust key prints it")
	boolVar(cmd.Flags(), &asJSON, "json", "", "print each file's outcome as one line of JSON")
	return cmd
}

// rankOfExit: what is proven must not be hidden by a file beside it that is
// broken, nor a broken one by one that proves nothing.
func rankOfExit(code int) int {
	return map[int]int{exitUnknown: 1, exitUsage: 2, exitTampered: 3}[code]
}

// outcomeJSON is what a re-check found in the words of --json.
type outcomeJSON struct {
	File       string   `json:"file"`
	ExitCode   int      `json:"exit_code"`
	Proven     bool     `json:"proven"`  // to anyone
	Vouched    bool     `json:"vouched"` // by the auditor whose key was given
	AuditorKey string   `json:"auditor_key,omitempty"`
	ServerKey  string   `json:"server_key,omitempty"`
	Sum        string   `json:"sha256,omitempty"`
	Proof      []string `json:"proof,omitempty"`
	Testimony  []string `json:"testimony,omitempty"`
	Recomputed []string `json:"recomputed,omitempty"`
	Error      string   `json:"error,omitempty"`
}

// verifyEvidence re-checks one file, prints what it comes to, and gives its
// exit code.
func verifyEvidence(env *Env, file string, opts evidence.RecheckOptions, asJSON bool) int {
	b, err := readEvidence(file)
	var o *evidence.Outcome
	if err == nil {
		o, err = evidence.Recheck(b, opts)
	}
	code := o.ExitCode()
	if asJSON {
		view := outcomeJSON{File: file, ExitCode: code, ServerKey: fingerprint(opts.ServerKey)}
		if err != nil {
			view.Error = err.Error()
		} else {
			view.Proven, view.Vouched, view.AuditorKey, view.Sum = o.Proven, o.Vouched, o.File.AuditorKey, fmt.Sprintf("%x", o.Sum)
			view.Proof, view.Testimony, view.Recomputed = o.Proof, o.Testimony, o.Recomputed
		}
		if err := writeJSON(env.Stdout, view); err != nil {
			fmt.Fprintln(env.Stderr, "immuclient: "+err.Error())
		}
		return code
	}
	if err != nil {
		fmt.Fprintf(env.Stderr, "immuclient: %s: %s\n", shown(file), err)
		return code
	}
	head := "NOTHING PROVEN"
	switch {
	case o.Proven:
		head = "PROOF, for anyone"
	case o.Vouched:
		head = "TESTIMONY, for those who trust this auditor"
	}
	fmt.Fprintf(env.Stdout, "%s  %s\n", shown(file), head)
	for _, part := range []struct {
		name  string
		lines []string
	}{{"proof", o.Proof}, {"testimony", o.Testimony}, {"recomputed", o.Recomputed}} {
		for _, line := range part.lines {
			fmt.Fprintf(env.Stdout, "  %-10s  %s\n", part.name, line)
		}
	}
	return code
}

func fingerprint(key *ecdsa.PublicKey) string {
	if key == nil {
		return ""
	}
	return evidence.Fingerprint(key)
}

// readEvidence reads a file up to the size that evidence may have.
func readEvidence(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the evidence: %w; give the path that the incident names", err)
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, evidence.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the evidence: %w; give the path that the incident names", err)
	}
	return b, nil
}

func newTrustKey(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Print the key that this auditor's evidence can be checked with",
		Long: `key prints the verifier key of this auditor. Hand it to those who are to check
its evidence, by a way on which nobody can exchange it: with
immuclient evidence verify --auditor-key KEY they know that evidence is this
auditor's word. The secret half is auditor.key in the state directory.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, env, existing, func(_ context.Context, _ *config.Config, s *store.Store) error {
				key, err := evidence.LoadOrCreateKey(s.Dir())
				if err != nil {
					return unknown(err)
				}
				if key.Created {
					fmt.Fprintln(env.Stderr, "immuclient: a new key was made; evidence signed before, if there is any, was signed by another one")
				}
				_, err = fmt.Fprintln(env.Stdout, key.VerifierKey())
				return err
			})
		},
	}
}

package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/config"
	"immuaudit/internal/history"
	"immuaudit/internal/report"
	"immuaudit/internal/store"
)

// reportFlags are what immuclient report was asked for.
type reportFlags struct {
	from, to, out      string
	databases, servers []string
	asJSON             bool
}

func newReport(env *Env) *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use: "report", Short: "Write a signed report about a span of time, for people",
		Long: `report writes what this auditor can say about a span of time: one page that
needs nothing else, signed by the auditor. It asks no server and runs beside a
running auditor.

A DATE is 2026-11-23, 2026-11, 2026-11-23T15:04:05Z, last-month or 30d; times
are UTC, and the end is not included. Without --to a day, a month and
last-month stand for the whole of it, everything else lasts until now.

Exit codes: 3 the report tells of tampering, 1 nothing was checked or not every
database was, 0 else. docs/report.md says how to read it.`,
		Example: `  immuclient report --from last-month
  immuclient report --from 2026-11-01 --to 2026-11-15 --out report.html
  immuclient report verify report.html --key FINGERPRINT`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			span, err := report.ParseSpan(f.from, f.to, time.Now())
			if err != nil {
				return usage(err)
			}
			return withStore(cmd, env, reading, func(ctx context.Context, _ *config.Config, s *store.Store) error {
				return writeReport(ctx, env, s, span, &f)
			})
		},
	}
	addStateGuard(cmd)
	cmd.Flags().StringVar(&f.from, "from", "30d", "`DATE` to begin with")
	cmd.Flags().StringVar(&f.to, "to", "", "`DATE` to end before")
	cmd.Flags().StringSliceVar(&f.databases, "database", nil, "only databases of these `names`")
	cmd.Flags().StringSliceVar(&f.servers, "server", nil, "only servers of these `names`")
	cmd.Flags().StringVar(&f.out, "out", "", "`file` to write, - for standard output; default: immuaudit-report-FROM-TO.html")
	boolVar(cmd.Flags(), &f.asJSON, "json", "", "write signed JSON instead of a page")
	cmd.AddCommand(newReportVerify(env))
	return cmd
}

func writeReport(ctx context.Context, env *Env, s *store.Store, span report.Span, f *reportFlags) (err error) {
	key, err := evidence.LoadOrCreateKey(s.Dir())
	if err != nil {
		return unknown(err)
	}
	o := report.Options{
		Span: span, Made: time.Now(), Version: version().Version, Key: key.VerifierKey(), Filter: f.filter(), Doubts: doubtsOf(s),
		Wanted: func(n evidence.Name) bool {
			return (len(f.servers) == 0 || slices.Contains(f.servers, n.Server)) && (len(f.databases) == 0 || slices.Contains(f.databases, n.Database))
		},
		Sum: func(path string) (string, error) {
			return sumOfEvidence(filepath.Join(s.Dir(), "evidence", filepath.Base(path)))
		},
	}
	// Without a history there is less to say, and that is said.
	past, err := history.Open(ctx, s.Dir(), history.Options{ReadOnly: true})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		o.Problem = "this auditor has kept none yet"
	case err != nil:
		o.Problem = err.Error()
	default:
		defer closing(&err, past.Close)
	}
	d, err := report.Gather(ctx, s, past, o)
	if err != nil {
		return unknown(err)
	}
	if f.filter() != "" && len(d.Ledgers) == 0 {
		return usagef("no database is known for %s; immuclient trust list shows those that are", f.filter())
	}
	text, ext := d.HTML, ".html"
	if f.asJSON {
		text, ext = d.JSON, ".json"
	}
	b, err := text(key)
	if err != nil {
		return unknown(err)
	}
	if f.out == "-" {
		if _, err := env.Stdout.Write(b); err != nil {
			return unknown(fmt.Errorf("writing the report: %w", err))
		}
	} else {
		file := f.out
		if file == "" {
			file = span.FileName(ext)
		}
		if err := replaceFile(file, b); err != nil {
			return unknown(err)
		}
		fmt.Fprintf(env.Stdout, "%s  %s\nsigned by key %s\n", shown(file), d.Conclusion.Title, d.Auditor.Fingerprint)
	}
	if code := d.ExitCode(); code != exitConsistent {
		return &exitError{code: code}
	}
	return nil
}

func (f *reportFlags) filter() string {
	var parts []string
	for _, p := range []struct {
		what  string
		names []string
	}{{"server", f.servers}, {"database", f.databases}} {
		if len(p.names) > 0 {
			quoted := make([]string, 0, len(p.names))
			for _, name := range p.names {
				quoted = append(quoted, shown(name))
			}
			parts = append(parts, p.what+" "+strings.Join(quoted, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// doubtsOf are why the state may not be what the auditor left behind: whoever
// reads the report must know.
func doubtsOf(s *store.Store) (doubts []string) {
	mark, guard := s.Doubts()
	for _, err := range []error{mark, guard} {
		if err != nil {
			doubts = append(doubts, err.Error())
		}
	}
	return doubts
}

func sumOfEvidence(path string) (string, error) {
	const next = "restore it from a backup"
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("the file of evidence is not there or cannot be read: %w; %s", err, next)
	}
	defer f.Close() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("the evidence %s is not a regular file; %s", path, next)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, evidence.MaxFile+1))
	if err != nil || n > evidence.MaxFile {
		return "", fmt.Errorf("the file of evidence cannot be read, or is larger than evidence can be; %s", next)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// replaceFile writes a file that is complete or not there.
func replaceFile(path string, b []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the report: %w; name a file that can be written with --out", err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), ".immuaudit-report-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func newReportVerify(env *Env) *cobra.Command {
	var given string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check that not a byte of a report was changed, and who signed it",
		Long: `verify checks a report, as a page or as JSON, with no server and no network.

Exit codes: 0 every byte is as the auditor of the given key signed it; 1 every
byte is as signed, but by a key that was not given; 2 no report; 3 changed.
Without --key, the key in the state directory of this machine counts as given.`,
		Example: "  immuclient report verify immuaudit-report-2026-11-01-2026-12-01.html --key FINGERPRINT",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			known, err := givenAuditorKey(given)
			if err != nil {
				return usage(err)
			}
			whose := "the key that was given"
			if given == "" {
				if c, _, err := load(cmd, env, true); err == nil {
					dir, _ := c.StateDir()
					if key, err := evidence.LoadKey(dir); dir != "" && err == nil {
						known, whose = report.Fingerprint(key.VerifierKey()), "the key of the auditor on this machine"
					}
				}
			}
			code, err := verifyReport(env, args[0], known, whose, asJSON)
			if err != nil || code != exitConsistent {
				return &exitError{code: code, err: err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&given, "key", "", "the auditor's `key`: its fingerprint, what immuclient trust key prints, or a file with either")
	boolVar(cmd.Flags(), &asJSON, "json", "", "print the outcome as one line of JSON")
	return cmd
}

// givenAuditorKey gives the fingerprint of the key named by --key.
func givenAuditorKey(given string) (string, error) {
	given = strings.TrimSpace(given)
	if given == "" {
		return "", nil
	}
	if fingerprint, ok := asFingerprint(given); ok {
		return fingerprint, nil
	}
	f, err := os.Open(given)
	if err != nil {
		return "", fmt.Errorf("--key %.80q is neither a fingerprint of 64 hex digits, nor a key, nor a file that can be read (%w); give the line that immuclient trust key prints", given, errors.Unwrap(err))
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("--key: %w; give the line that immuclient trust key prints", err)
	}
	if fingerprint, ok := asFingerprint(strings.TrimSpace(string(b))); ok {
		return fingerprint, nil
	}
	return "", fmt.Errorf("--key: %s holds no key; put the line there that immuclient trust key prints", shown(given))
}

func asFingerprint(text string) (string, bool) {
	if _, err := evidence.ParseAuditorKey(text); err == nil {
		return report.Fingerprint(text), true
	}
	text = strings.ToLower(text)
	return text, len(text) == 64 && strings.Trim(text, "0123456789abcdef") == ""
}

// checkedJSON is what a check of a report found in the words of --json.
type checkedJSON struct {
	File        string `json:"file"`
	ExitCode    int    `json:"exit_code"`
	Unchanged   bool   `json:"unchanged"`
	KnownKey    bool   `json:"known_key"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Key         string `json:"key,omitempty"`
	From        string `json:"from,omitempty"`
	To          string `json:"to,omitempty"`
	Verdict     string `json:"verdict,omitempty"`
	Title       string `json:"title,omitempty"`
	Error       string `json:"error,omitempty"`
}

func verifyReport(env *Env, file, known, whose string, asJSON bool) (int, error) {
	var c *report.Checked
	b, err := readReport(file)
	if err == nil {
		c, err = report.Check(b)
	}
	v := checkedJSON{File: file, ExitCode: exitUsage}
	switch {
	case errors.Is(err, report.ErrChanged):
		v.ExitCode, v.Error = exitTampered, err.Error()
	case err != nil:
		v.Error = err.Error()
	default:
		d := c.Document
		v.Unchanged, v.Key, v.Fingerprint = true, c.Key, report.Fingerprint(c.Key)
		v.From, v.To, v.Verdict, v.Title = d.From.Format(time.RFC3339), d.To.Format(time.RFC3339), d.Conclusion.Verdict.String(), d.Conclusion.Title
		v.KnownKey = v.Fingerprint == known
		v.ExitCode = exitUnknown
		if v.KnownKey {
			v.ExitCode = exitConsistent
		}
	}
	if asJSON {
		if err := writeJSON(env.Stdout, v); err != nil {
			return exitUnknown, err
		}
		return v.ExitCode, nil
	}
	if err != nil {
		return v.ExitCode, fmt.Errorf("%s: %w", shown(file), err)
	}
	fmt.Fprintf(env.Stdout, "%s  UNCHANGED: every byte is as it was signed\n", shown(file))
	fmt.Fprintf(env.Stdout, "  signed by    %s\n               %s\n", v.Fingerprint, v.Key)
	switch {
	case v.KnownKey:
		fmt.Fprintf(env.Stdout, "  which is     %s\n", whose)
	case known != "":
		fmt.Fprintf(env.Stdout, "  which is NOT %s: anybody can sign with a key of their own\n", whose)
	default:
		fmt.Fprintln(env.Stdout, "  whose key that is, the file cannot prove: compare it with what the auditor's operator told you, or give it with --key")
	}
	fmt.Fprintf(env.Stdout, "  about        %s to %s\n  says         %s\n", v.From, v.To, shown(v.Title))
	return v.ExitCode, nil
}

func readReport(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the report: %w; give the path of a file that immuclient report wrote", err)
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, report.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the report: %w; give the path of a file that immuclient report wrote", err)
	}
	return b, nil
}

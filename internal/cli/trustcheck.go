package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/config"
	"immuaudit/internal/mirror"
	"immuaudit/internal/store"
	"immuaudit/proof"
)

func newTrustCheck(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Short: "Compare everything in the state directory, and its guard, with each other",
		Long: `check compares what the auditor remembers of the ledgers, its mirrors of them,
the states that the servers signed, the incidents, their evidence and the guard
of the directory with each other. It talks to no server and changes nothing;
the auditor must not run meanwhile.

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

// checked is one thing that was looked at, in the words of --json.
type checked struct {
	Check    string `json:"check"`
	Server   string `json:"server,omitempty"`
	Database string `json:"database,omitempty"`
	Incident string `json:"incident,omitempty"`
	File     string `json:"file,omitempty"`
	Result   string `json:"result"` // "ok" or "problem"
	Detail   string `json:"detail"`
}

// checkup compares the parts of a state directory.
type checkup struct {
	env      *Env
	asJSON   bool
	s        *store.Store
	known    *evidence.Remembered
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
	c := &checkup{env: env, asJSON: asJSON, s: s}
	if c.known, err = s.Load(ctx); err != nil {
		return unknown(err)
	}
	if err := c.run(ctx); err != nil {
		return unknown(err)
	}
	if err := cmp.Or(c.err, c.sum()); err != nil {
		return unknown(fmt.Errorf("printing what was checked: %w", err))
	}
	if c.problems > 0 {
		return &exitError{code: exitUnknown}
	}
	return nil
}

func (c *checkup) run(ctx context.Context) error {
	if err := c.state(ctx); err != nil {
		return err
	}
	for i := range c.known.Trust {
		c.ledger(&c.known.Trust[i])
	}
	if err := c.mirrors(ctx); err != nil {
		return err
	}
	return c.incidents(ctx)
}

func (c *checkup) ok(about checked, format string, args ...any) {
	about.Result, about.Detail = "ok", fmt.Sprintf(format, args...)
	c.print(about)
}

func (c *checkup) problem(about checked, format string, args ...any) {
	c.problems++
	about.Result, about.Detail = "problem", fmt.Sprintf(format, args...)
	c.print(about)
}

func (c *checkup) print(about checked) {
	c.checked++
	var err error
	if c.asJSON {
		err = writeJSON(c.env.Stdout, about)
	} else {
		name := ""
		switch {
		case about.Incident != "":
			name = about.Incident + ": "
		case about.File != "":
			name = shown(about.File) + ": "
		case about.Server != "":
			name = shown(about.Server+"/"+about.Database) + ": "
		}
		_, err = fmt.Fprintf(c.env.Stdout, "%-8s %-9s %s%s\n", map[string]string{"ok": "ok", "problem": "PROBLEM"}[about.Result], about.Check, name, about.Detail)
	}
	c.err = cmp.Or(c.err, err)
}

// sum ends the report, so that a whole one can be told from one that broke off.
func (c *checkup) sum() error {
	if c.asJSON {
		return writeJSON(c.env.Stdout, struct {
			Checked  int `json:"checked"`
			Problems int `json:"problems"`
		}{c.checked, c.problems})
	}
	_, err := fmt.Fprintf(c.env.Stdout, "%d checked, %d ok, problems: %d\n", c.checked, c.checked-c.problems, c.problems)
	return err
}

// state looks at the database, which was read and summed when it was opened,
// and at its guard.
func (c *checkup) state(ctx context.Context) error {
	about := checked{Check: "state"}
	g, err := c.s.Guarded(ctx)
	mark, doubt := c.s.Doubts()
	if mark != nil {
		c.problem(about, "%v", mark)
	} else {
		c.ok(about, "%s is at change %d, and every checksum fits", c.s.Dir(), g.State)
	}
	about.Check = "guard"
	switch {
	case doubt != nil:
		c.problem(about, "%v", doubt)
	case err != nil:
		return err
	case g.Sequence == 0:
		c.problem(about, "there is none at %s: nobody would notice it if the whole directory were rolled back; the auditor begins one when it starts, if it can write there", g.Path)
	case g.Sequence < g.State:
		c.ok(about, "%s witnesses change %d, %d less than the state has; a crash leaves it like that, and the next start makes up for it", g.Path, g.Sequence, g.State-g.Sequence)
	default:
		c.ok(about, "%s witnesses the same", g.Path)
	}
	return nil
}

func aboutLedger(check string, name evidence.Name) checked {
	return checked{Check: check, Server: name.Server, Database: name.Database}
}

// remembered are the states that are trusted of a ledger, with what they are.
func (c *checkup) remembered(t *evidence.Trust) map[string]proof.State {
	states := map[string]proof.State{}
	add := func(what string, s proof.State) {
		if s.TxID > 0 { // there is no transaction 0
			states[what] = s
		}
	}
	add("its baseline", t.Baseline.State)
	add("its trusted state", t.Proven.State)
	for _, mark := range c.known.Marks[t.Name] {
		add(fmt.Sprintf("remembered transaction %d", mark.TxID), mark)
	}
	return states
}

const nextTrust = "restore the newest copy of the whole directory in which everything fits"

// ledger compares what is remembered of one ledger within itself.
func (c *checkup) ledger(t *evidence.Trust) {
	about := aboutLedger("ledger", t.Name)
	walk, err := walkOf(t)
	if err != nil {
		c.problem(about, "%v; %s", err, nextTrust)
		return
	}
	compared := 0
	states := c.remembered(t)
	for _, what := range sorted(states) {
		alh, known := walk.Alh(states[what].TxID)
		if known {
			compared++
		}
		if known && alh != states[what].Alh {
			c.problem(about, "%s has the hash %s, the walk that went through it has %s; %s", what, states[what].Alh, alh, nextTrust)
			return
		}
	}
	if key := t.Key; len(key) > 0 && len(t.Proven.Signature) > 0 {
		if err := verifies(&t.Proven, key); err != nil {
			c.problem(about, "its trusted state is not signed by the key in force: %v; %s", err, nextTrust)
			return
		}
	}
	c.ok(about, "trusted up to transaction %d, walked to %d; the walk was compared with %d of %d remembered states", t.Proven.TxID, t.Walked, compared, len(states))
}

// walkOf reads the stored walk of a ledger; one that has not begun stands
// before transaction 1.
func walkOf(t *evidence.Trust) (*proof.Walk, error) {
	walk := new(proof.Walk)
	if len(t.Walk) > 0 {
		if err := walk.UnmarshalBinary(t.Walk); err != nil {
			return nil, fmt.Errorf("its walk cannot be read: %w", err)
		}
	}
	if at := walk.At().TxID; at != t.Walked {
		return nil, fmt.Errorf("its walk stands at transaction %d, the state says %d", at, t.Walked)
	}
	return walk, nil
}

func verifies(s *proof.SignedState, point []byte) error {
	key, err := proof.ParsePoint(point)
	if err != nil {
		return err
	}
	return proof.VerifySignature(key, s)
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// mirrors compares every mirror with what is trusted. That one lags, or is not
// there, is as it may be.
func (c *checkup) mirrors(ctx context.Context) error {
	m, err := mirror.OpenReadOnly(filepath.Join(c.s.Dir(), mirrorFolder), slog.New(slog.DiscardHandler))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.ok(checked{Check: "mirror"}, "there is none: where a ledger was changed can be said from what is remembered alone")
		return nil
	case err != nil:
		c.problem(checked{Check: "mirror"}, "%v", err)
		return nil
	}
	defer m.Close() // nothing was written
	for i := range c.known.Trust {
		t := &c.known.Trust[i]
		l, err := m.Ledger(t.Name)
		if err == nil {
			if err = c.mirror(ctx, l, t); err == nil {
				err = c.signed(l, t)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.problem(aboutLedger("mirror", t.Name), "%v", err)
		}
	}
	return nil
}

const nextMirror = "find out who can write to the directory, then move the folder of this mirror away: the walk, which meets every remembered state, fills it again"

// mirror compares one mirror with what is trusted. An error is about the
// mirror as well.
func (c *checkup) mirror(ctx context.Context, l *mirror.Ledger, t *evidence.Trust) error {
	about, size := aboutLedger("mirror", t.Name), l.Size()
	if size == 0 {
		c.ok(about, "nothing of it is mirrored")
		return nil
	}
	if err := l.Check(ctx); err != nil {
		return err
	}
	if t.Baseline.Origin == evidence.OriginAccepted && size > t.Walked {
		c.ok(about, "holds %d transactions, and every tile fits; what is of the history before the accepted incident is set aside when the walk gets there", size)
		return nil
	}
	if size > t.Walked {
		return fmt.Errorf("it holds %d transactions, the state knows that %d were walked: the state was replaced by an older copy; restore the newest one of the whole directory", size, t.Walked)
	}
	states := c.remembered(t)
	held := 0
	for _, what := range sorted(states) {
		if states[what].TxID > size {
			continue
		}
		held++
		switch holds, err := l.Holds(states[what].TxID, states[what].Alh); {
		case err != nil:
			return err
		case !holds:
			return fmt.Errorf("%s (transaction %d) is mirrored with another hash than is trusted; %s", what, states[what].TxID, nextMirror)
		}
	}
	walk, err := walkOf(t)
	if err != nil {
		return nil // it was said already
	}
	tree := "with the walk's tree"
	want, err := walk.Root(size)
	if errors.As(err, new(*proof.Unproven)) {
		tree, err = "with no tree, since it lags too far", nil
	} else if err == nil {
		var got proof.Hash
		if got, err = l.Root(size); err == nil && got != want {
			return fmt.Errorf("its %d transactions have the root %s, those that were walked %s; %s", size, got, want, nextMirror)
		}
	}
	if err != nil {
		return err
	}
	c.ok(about, "holds %d of %d walked transactions, and every tile fits; compared with %d remembered states and %s", size, t.Walked, held, tree)
	return nil
}

// maxSignedStates bounds how many kept states are verified, the newest ones:
// more than a year of one for each minute.
const maxSignedStates = 1_000_000

// signed verifies the states that a server signed, each under the key that was
// in force, and looks for them in the mirror.
func (c *checkup) signed(l *mirror.Ledger, t *evidence.Trust) error {
	about := aboutLedger("signed", t.Name)
	states, err := l.States(1, math.MaxUint64, maxSignedStates)
	if err != nil {
		return err
	}
	if len(states) == 0 {
		return nil
	}
	for i := range states {
		s := &states[i].State
		key := t.Key
		if len(key) == 0 || t.Baseline.Origin == evidence.OriginAccepted && s.TxID <= t.Baseline.State.TxID {
			key = s.PublicKey // another one was in force, which it carries
		}
		if err := verifies(s, key); err != nil {
			c.problem(about, "the kept state of transaction %d, of %s, does not verify: %v; it can prove nothing against the server any more", s.TxID, when(states[i].At), err)
			return nil
		}
		if s.TxID > l.Size() || t.Baseline.Origin == evidence.OriginAccepted {
			continue
		}
		switch holds, err := l.Holds(s.TxID, s.Alh); {
		case err != nil:
			return err
		case !holds:
			c.problem(about, "the server signed transaction %d with another hash than is mirrored; %s", s.TxID, nextMirror)
			return nil
		}
	}
	c.ok(about, "signed states kept: %d; each verifies and is as it is mirrored", len(states))
	return nil
}

// incidents looks for the evidence of every incident, and for the incident of
// every evidence file.
func (c *checkup) incidents(ctx context.Context) error {
	all, err := c.s.Incidents(ctx, true)
	if err != nil {
		return err
	}
	dir := filepath.Join(c.s.Dir(), "evidence")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing the evidence: %w", err)
	}
	key, err := c.auditorKey()
	if err != nil && len(all)+len(entries) > 0 {
		c.problem(checked{Check: "key"}, "%v", err)
		return nil
	}
	known := map[string]*evidence.Incident{}
	claimed := map[string]bool{}
	for i := range all {
		inc := &all[i]
		known[inc.ID] = inc
		about := checked{Check: "incident", Server: inc.Name.Server, Database: inc.Name.Database, Incident: inc.ID, File: inc.Evidence}
		if inc.Evidence == "" {
			c.ok(about, "%s, it has no evidence: %s", inc.Status, cmp.Or(inc.EvidenceError, "none was made"))
			continue
		}
		// The directory may have been moved since.
		file := filepath.Join(dir, filepath.Base(inc.Evidence))
		claimed[filepath.Base(inc.Evidence)] = true
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			c.problem(about, "its evidence %s is missing; put it back from the copy that was made when the incident was opened", file)
			continue
		}
		c.evidence(about, file, key, inc)
	}
	for _, e := range entries {
		if claimed[e.Name()] || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c.unclaimed(filepath.Join(dir, e.Name()), key, known)
	}
	return nil
}

// auditorKey reads this directory's own key, and makes none.
func (c *checkup) auditorKey() (string, error) {
	file := filepath.Join(c.s.Dir(), "auditor.key")
	if _, err := os.Lstat(file); err != nil {
		return "", fmt.Errorf("reading the auditor's key: %w; restore it from a backup: without it nobody can tell whether the evidence is this auditor's", err)
	}
	key, err := evidence.LoadOrCreateKey(c.s.Dir())
	if err != nil {
		return "", err
	}
	return key.VerifierKey(), nil
}

const nextEvidence = "put it back from the copy that was made when the incident was opened, and find out who can write to the directory"

// evidence verifies the file of an incident.
func (c *checkup) evidence(about checked, file, key string, inc *evidence.Incident) {
	b, err := readEvidence(file)
	if err != nil {
		c.problem(about, "%v", err)
		return
	}
	o, err := evidence.Recheck(b, evidence.RecheckOptions{AuditorKey: key})
	switch {
	case err != nil:
		c.problem(about, "its evidence %s: %v; %s", file, err, nextEvidence)
	case !o.Vouched:
		c.problem(about, "its evidence %s was signed by another auditor, not with the auditor.key of this directory; %s", file, nextEvidence)
	case o.File.Incident != inc.ID || o.File.Kind != inc.Kind || o.File.Trusted.State != inc.Trusted.State || o.File.Observed.State != inc.Observed.State:
		c.problem(about, "its evidence %s is about something else: incident %s, %s, trusted transaction %d, observed %d; %s",
			file, o.File.Incident, o.File.Kind, o.File.Trusted.TxID, o.File.Observed.TxID, nextEvidence)
	default:
		c.ok(about, "%s, %s; its evidence %s verifies", inc.Status, inc.Kind, file)
	}
}

// unclaimed looks at a file that no incident names.
func (c *checkup) unclaimed(file, key string, known map[string]*evidence.Incident) {
	about := checked{Check: "evidence", File: file}
	b, err := readEvidence(file)
	var o *evidence.Outcome
	if err == nil {
		o, err = evidence.Recheck(b, evidence.RecheckOptions{AuditorKey: key})
	}
	switch {
	case err != nil:
		c.problem(about, "it belongs to no incident: %v; move it away", err)
	case !o.Vouched:
		c.problem(about, "it belongs to no incident here, and was signed by another auditor; move it away")
	case known[o.File.Incident] == nil:
		c.problem(about, "this auditor signed it on %s, and there is no incident %s: after a crash in that moment it was opened again under another name; else it was taken out of the state: %s", when(o.File.At), o.File.Incident, nextTrust)
	default:
		c.ok(about, "more evidence of incident %s, it verifies", o.File.Incident)
	}
}

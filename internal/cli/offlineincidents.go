package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
)

// freshEvidence is how long evidence may be there before its incident is: an
// auditor writes it first.
const freshEvidence = time.Minute

// incidents looks for the evidence of every incident, and for the incident of
// every evidence file.
func (c *checkup) incidents(ctx context.Context) ([]checked, error) {
	return c.settled(func(l *look) error {
		dir := filepath.Join(c.s.Dir(), "evidence")
		// Before the incidents, since evidence is there before its incident is.
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("listing the evidence: %w", err)
		}
		all, err := c.s.Incidents(ctx, true)
		if err != nil {
			return err
		}
		key, err := c.auditorKey()
		switch {
		case err == nil:
		case len(all)+len(entries) > 0 || !errors.Is(err, fs.ErrNotExist):
			l.problem(checked{Check: "key"}, "%v", err)
			return nil
		}
		e := evidenceCheck{look: l, dir: dir, key: key, live: c.live, known: map[string]*evidence.Incident{}, claimed: map[string]bool{}}
		for i := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			e.incident(&all[i])
		}
		for _, entry := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !e.claimed[entry.Name()] && !strings.HasPrefix(entry.Name(), ".") {
				e.unclaimed(filepath.Join(dir, entry.Name()))
			}
		}
		return nil
	})
}

// auditorKey reads this directory's own key, and makes none.
func (c *checkup) auditorKey() (string, error) {
	key, err := evidence.LoadKey(c.s.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w; restore it from a backup: without it nobody can tell whether the evidence is this auditor's", err)
	}
	if err != nil {
		return "", err
	}
	return key.VerifierKey(), nil
}

const nextEvidence = "put it back from the copy that was made when the incident was opened, and find out who can write to the directory"

// evidenceCheck compares incidents and evidence.
type evidenceCheck struct {
	*look
	dir, key string
	live     bool
	known    map[string]*evidence.Incident
	claimed  map[string]bool // names of files
}

// incident looks at the evidence of one incident.
func (e *evidenceCheck) incident(inc *evidence.Incident) {
	e.known[inc.ID] = inc
	about := checked{Check: "incident", Server: inc.Name.Server, Database: inc.Name.Database, Incident: inc.ID, File: inc.Evidence}
	if inc.Evidence == "" {
		e.ok(about, "%s, it has no evidence: %s", inc.Status, cmp.Or(inc.EvidenceError, "none was made"))
		return
	}
	// The directory may have been moved since.
	file := filepath.Join(e.dir, filepath.Base(inc.Evidence))
	e.claimed[filepath.Base(inc.Evidence)] = true
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		e.problem(about, "its evidence %s is missing; put it back from the copy that was made when the incident was opened", file)
		return
	}
	b, err := readEvidence(file)
	if err != nil {
		e.problem(about, "%v", err)
		return
	}
	o, err := evidence.Recheck(b, evidence.RecheckOptions{AuditorKey: e.key})
	switch {
	case err != nil:
		e.problem(about, "its evidence %s: %v; %s", file, err, nextEvidence)
	case !o.Vouched:
		e.problem(about, "its evidence %s was signed by another auditor, not with the auditor.key of this directory; %s", file, nextEvidence)
	case o.File.Incident != inc.ID || o.File.Kind != inc.Kind || o.File.Trusted.State != inc.Trusted.State || o.File.Observed.State != inc.Observed.State:
		e.problem(about, "its evidence %s is about something else: incident %s, %s, trusted transaction %d, observed %d; %s",
			file, o.File.Incident, o.File.Kind, o.File.Trusted.TxID, o.File.Observed.TxID, nextEvidence)
	default:
		e.ok(about, "%s, %s; its evidence %s verifies", inc.Status, inc.Kind, file)
	}
}

// unclaimed looks at a file that no incident names.
func (e *evidenceCheck) unclaimed(file string) {
	about := checked{Check: "evidence", File: file}
	b, err := readEvidence(file)
	var o *evidence.Outcome
	if err == nil {
		o, err = evidence.Recheck(b, evidence.RecheckOptions{AuditorKey: e.key})
	}
	switch {
	case err != nil:
		e.problem(about, "it belongs to no incident: %v; move it away", err)
	case !o.Vouched:
		e.problem(about, "it belongs to no incident here, and was signed by another auditor; move it away")
	case e.known[o.File.Incident] != nil:
		e.ok(about, "more evidence of incident %s, it verifies", o.File.Incident)
	case e.live && time.Since(o.File.At) < freshEvidence:
		e.ok(about, "it verifies, and incident %s is being opened", o.File.Incident)
	default:
		if id := e.again(o.File); id != "" {
			e.ok(about, "it verifies; the auditor died before incident %s was stored, and found the same again as %s: keep both files, there is nothing to do", o.File.Incident, id)
			return
		}
		e.problem(about, "this auditor signed it on %s, and there is no incident %s: it died before that was stored, and has not found the same since; or it was taken out of the state. Treat what the file shows as an incident (immuclient evidence verify), and move it away when that is settled; if the auditor did not die then, %s", when(o.File.At), o.File.Incident, nextTrust)
	}
}

// again gives the incident in which the auditor found, after it had died, what
// is in a file without one; "" where there is none.
func (e *evidenceCheck) again(f *evidence.File) string {
	for _, inc := range e.known {
		if inc.Name != f.Name || inc.Kind != f.Kind || inc.OpenedAt.Before(f.At) {
			continue
		}
		for i := range f.Findings {
			if slices.ContainsFunc(inc.Findings, func(g evidence.Finding) bool {
				want := f.Findings[i]
				return g.Kind == want.Kind && g.Check == want.Check && g.Tx == want.Tx && g.Want == want.Want && g.Key == want.Key
			}) {
				return inc.ID
			}
		}
	}
	return ""
}

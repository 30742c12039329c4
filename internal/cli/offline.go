package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/config"
	"immuaudit/internal/mirror"
	"immuaudit/internal/store"
	"immuaudit/internal/verify"
)

// onlineFlags choose what to ask the server for, which --offline does not do.
var onlineFlags = []string{"from", "to", "sample", "export"}

// verifyOffline is verify --offline.
func verifyOffline(cmd *cobra.Command, env *Env) error {
	for _, flag := range onlineFlags {
		if cmd.Flags().Changed(flag) {
			return usagef("--%s chooses what to ask the server for, and --offline asks it for nothing: leave one of them away. Offline everything that is kept is looked at; --audit-databases chooses ledgers", flag)
		}
	}
	return withStore(cmd, env, reading, func(ctx context.Context, c *config.Config, s *store.Store) error {
		_, given := c.StateGuard()
		o := &offline{
			checkup: &checkup{s: s, live: true, needGuard: given},
			env:     env, chosen: c.LedgerFilter(), out: newPrinter(env, c.Audit.JSON),
		}
		reports, err := o.run(ctx)
		if err != nil && ctx.Err() != nil {
			err = errors.New("interrupted: not everything was looked at; nothing was changed, type the same again")
		}
		code := exitCode(reports)
		if err != nil {
			code = max(code, exitUnknown) // tampering stays tampering
		}
		if code != exitConsistent {
			return &exitError{code: code, err: err}
		}
		return nil
	})
}

// offline gives a verdict on every remembered ledger from what is kept of it.
type offline struct {
	*checkup
	env    *Env
	chosen config.Filter
	out    *printer
	bar    *progress
}

// offlineVerdict is one ledger, as printed with --json.
type offlineVerdict struct {
	evidence.Report
	Offline offlineJSON `json:"offline"`
}

type offlineJSON struct {
	Mirrored uint64    `json:"mirrored"` // transactions
	Tiles    uint64    `json:"tiles"`
	Bytes    uint64    `json:"tile_bytes"`
	Signed   uint64    `json:"signed_states"`
	Problems int       `json:"problems"`
	Checks   []checked `json:"checks"`
}

// run gives the verdicts that were printed, also beside an error.
func (o *offline) run(ctx context.Context) (reports []evidence.Report, err error) {
	if err := o.begin(ctx); err != nil {
		return nil, err
	}
	defer o.end()
	o.show = func(_ evidence.Name, now mirror.Inspected, size uint64) {
		o.bar.show(verify.Progress{Through: now.Through, To: size, Tally: verify.Tally{Transactions: now.Through, Received: now.Bytes}})
	}
	directory, err := o.state(ctx)
	if err != nil {
		return nil, err
	}
	incidents, err := o.incidents(ctx)
	if err != nil {
		return nil, err
	}
	byLedger := map[evidence.Name][]checked{}
	for _, c := range incidents {
		if c.Check != "incident" {
			directory = append(directory, c)
			continue
		}
		name := evidence.Name{Server: c.Server, Database: c.Database}
		byLedger[name] = append(byLedger[name], c)
	}
	for _, name := range o.names(byLedger) {
		v, err := o.verdict(ctx, name, byLedger[name])
		if err != nil {
			return reports, err
		}
		reports = append(reports, v.Report)
		o.print(v)
	}
	if len(reports) == 0 {
		return nil, errors.New("no ledger to verify: nothing is remembered of a database that --audit-databases names; type immuclient trust list to see what is")
	}
	// What is about no ledger is only said where it does not fit.
	if v := o.judge(evidence.Report{Time: time.Now()}, directory, depth{}, nil); v.Verdict != evidence.Consistent {
		reports = append(reports, v.Report)
		o.print(v)
	}
	if err := o.out.failed(); err != nil {
		return reports, fmt.Errorf("printing the outcome: %w", err)
	}
	return reports, nil
}

// names are the chosen ledgers: those that are trusted, and those that there is
// an incident of.
func (o *offline) names(incidents map[evidence.Name][]checked) (names []evidence.Name) {
	for i := range o.known.Trust {
		names = append(names, o.known.Trust[i].Name)
	}
	for name := range incidents {
		if _, known := o.at[name]; !known {
			names = append(names, name)
		}
	}
	names = slices.DeleteFunc(names, func(n evidence.Name) bool {
		return !o.chosen.Match(n.Database) && !(o.chosen.All() && n.Database != "")
	})
	slices.SortFunc(names, func(a, b evidence.Name) int { return strings.Compare(a.String(), b.String()) })
	return names
}

// verdict looks at one ledger.
func (o *offline) verdict(ctx context.Context, name evidence.Name, incidents []checked) (*offlineVerdict, error) {
	began := time.Now()
	r := evidence.Report{Server: name.Server, Database: name.Database}
	var found []checked
	var d depth
	if _, known := o.at[name]; known {
		var err error
		o.bar = newProgress(o.env.Stderr, name.String())
		found, d, err = o.ledger(ctx, name)
		o.bar.end()
		if err != nil {
			return nil, err
		}
		t := d.trust
		r.ServerUUID, r.Trusted = t.UUID, evidence.MarkOf(t.Proven.State)
		r.Assurance = &evidence.Assurance{Proven: t.Proven.TxID, Walked: t.Walked, Verified: t.Verified}
	}
	// The auditor may have opened one while the ledger was looked at.
	open, err := o.s.Incidents(ctx, false)
	if err != nil {
		return nil, err
	}
	open = slices.DeleteFunc(open, func(inc evidence.Incident) bool { return inc.Name != name })
	r.Time = time.Now()
	r.DurationMS = float64(r.Time.Sub(began).Microseconds()) / 1000
	return o.judge(r, append(found, incidents...), d, open), nil
}

// judge makes a verdict of what was found. What does not fit is trouble with
// the auditor's own memory, and no word about the server, unless the server
// itself has signed what contradicts itself.
func (o *offline) judge(r evidence.Report, found []checked, d depth, open []evidence.Incident) *offlineVerdict {
	v := &offlineVerdict{Report: r, Offline: offlineJSON{Mirrored: d.mirrored, Tiles: d.Tiles, Bytes: d.Bytes, Signed: d.signed, Checks: found}}
	var details []string
	own := 0
	for i := range found {
		switch f := found[i].proven; {
		case !found[i].bad():
			continue
		case f == nil:
			own++
		default:
			v.Kind = f.Kind
			v.Findings = append(v.Findings, *f)
		}
		v.Offline.Problems++
	}
	if own > 0 {
		details = append(details, fmt.Sprintf("%d of %d checks failed: the auditor's own state was changed, or its disk has failed, which says nothing about the server; see docs/operations.md, Verifying offline", own, len(found)))
	}
	if len(open) > 0 {
		worst := slices.MinFunc(open, func(a, b evidence.Incident) int { return a.Kind.Rank() - b.Kind.Rank() })
		v.Incident, v.Evidence, v.Divergence, v.Observed = worst.ID, worst.Evidence, worst.Divergence, evidence.MarkOf(worst.Observed.State)
		v.Findings = append(v.Findings, worst.Findings...)
		if v.Kind == "" || worst.Kind.Rank() < v.Kind.Rank() {
			v.Kind = worst.Kind
		}
		details = append(details, fmt.Sprintf("incident %s is open since %s: decide with immuclient trust accept or trust keep", worst.ID, when(worst.OpenedAt)))
	}
	unknown := r.Database != "" && d.trust == nil
	if unknown && len(open) == 0 {
		details = append(details, "nothing is trusted of it: it is only known from incidents, and the next round decides")
	}
	v.Findings = v.Findings[:min(len(v.Findings), evidence.MaxFindings)]
	switch {
	case v.Kind != "":
		v.Verdict = evidence.Tampered
	case own > 0:
		v.Verdict, v.Reason = evidence.Undetermined, evidence.StateProblem
	case unknown:
		v.Verdict, v.Reason = evidence.Undetermined, evidence.FirstContact
	default:
		v.Verdict = evidence.Consistent
	}
	v.Detail = strings.Join(details, "; ")
	return v
}

func (o *offline) print(v *offlineVerdict) {
	if o.out.json {
		o.out.line(v)
		return
	}
	var b strings.Builder
	if v.Database == "" {
		fmt.Fprintf(&b, "%-12s %s  %s: %s", strings.ToUpper(v.Verdict.String()), shown(o.s.Dir()), v.Reason, v.Detail)
	} else {
		b.WriteString(sentence(v.Report))
	}
	for i := range v.Offline.Checks {
		io.WriteString(&b, "\n             "+v.Offline.Checks[i].line(false))
	}
	o.out.text(b.String())
}

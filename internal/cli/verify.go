package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/config"
	"immuaudit/internal/verify"
)

func newVerify(env *Env) *cobra.Command {
	var run audit.Verification
	var percent float64
	var export, offline bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Verify every transaction, entry and value of the chosen databases",
		Long: `verify makes a round over the databases (--audit-databases), then reads all of their
transactions and checks them here: every header is the one that was walked over, every
entry is one that its header commits to, every value hashes to what its entry commits
to. What does not hold is tampered, with transaction and key, and becomes an incident.

Read permission is enough. Values that have expired, or that retention has removed and a
header says so, are counted. So is what a reader is not shown, documents above all:
--export fetches it, needs an administrator, and can block other exports of immudb while
it runs. The auditor must not run at the same time; it verifies by itself, see
--audit-scrub.

--offline asks no server and needs no password: what the auditor keeps of every ledger
is compared with each other instead, down to the last hash of its mirror. It changes
nothing, and the auditor may run meanwhile.`,
		Example: `  immuclient verify -a db.example.org --audit-username auditor --audit-databases 'orders$'
  immuclient verify --from 1000000 --verify-rate 20
  immuclient verify --offline`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if offline {
				return verifyOffline(cmd, env)
			}
			switch {
			case percent <= 0 || percent > 100:
				return usagef("--sample %v is not a percentage above 0 and up to 100", percent)
			case run.To != 0 && run.From > run.To:
				return usagef("--from %d is behind --to %d", run.From, run.To)
			}
			run.Sample = percent / 100
			c, warnings, err := load(cmd, env, false)
			if err != nil {
				return err
			}
			c.Audit.VerifyExport = c.Audit.VerifyExport || export
			c.Audit.Once = true
			return withAuditor(cmd.Context(), env, c, warnings, func(ctx context.Context, a *auditor) error {
				return verifyAll(ctx, a, run)
			})
		},
	}
	cmd.Flags().Uint64Var(&run.From, "from", 0, "first transaction to verify (default: the first there is)")
	cmd.Flags().Uint64Var(&run.To, "to", 0, "last transaction to verify (default: the trusted one)")
	cmd.Flags().Float64Var(&percent, "sample", 100, "`percentage` of the transactions to verify, in blocks taken at random")
	boolVar(cmd.Flags(), &export, "export", "", "fetch what a reader is not shown with exportTx; needs an administrator")
	boolVar(cmd.Flags(), &offline, "offline", "", "compare what the auditor keeps with each other, and ask no server")
	config.Register(cmd.Flags(), config.Audit, config.Output)
	// Accepted, so that one set of flags serves both, and of no meaning here.
	for _, name := range []string{
		"audit-clock-skew", "audit-expect-growth", "audit-interval", "audit-monitoring-host", "audit-monitoring-port", "audit-probe-address",
		"audit-scrub", "audit-stale-after", "audit-verify-values", "audit-walk-rate", "verify-export", "web.config.file",
	} {
		cmd.Flags().Lookup(name).Hidden = true
	}
	return cmd
}

// verification is the outcome for one ledger, as printed with --json: the
// verdict and what it rests on.
type verification struct {
	evidence.Report
	Verification *verificationJSON `json:"verification,omitempty"`
}

type verificationJSON struct {
	From         uint64               `json:"from"`
	To           uint64               `json:"to"`
	Through      uint64               `json:"through"` // everything up to here was looked at
	Transactions uint64               `json:"transactions"`
	Empty        uint64               `json:"empty,omitempty"`
	Received     uint64               `json:"received_bytes"`
	Damages      uint64               `json:"damages"`
	Unread       uint64               `json:"unread,omitempty"`
	Kinds        map[string]countJSON `json:"kinds,omitempty"`
	Damaged      []damageJSON         `json:"damaged,omitempty"`
}

type countJSON struct {
	Entries   uint64 `json:"entries"`
	Verified  uint64 `json:"verified"`
	Expired   uint64 `json:"expired,omitempty"`
	Truncated uint64 `json:"truncated,omitempty"`
	Unseen    uint64 `json:"not_shown,omitempty"`
	Damaged   uint64 `json:"damaged,omitempty"`
	Missing   uint64 `json:"missing,omitempty"`
	Bytes     uint64 `json:"value_bytes"`
}

type damageJSON struct {
	Kind    evidence.Kind `json:"kind"`
	Tx      uint64        `json:"tx"`
	Key     string        `json:"key,omitempty"`
	KeyText string        `json:"key_text,omitempty"`
	Detail  string        `json:"detail"`
}

// verifyAll makes a round over every ledger and verifies those that are known.
func verifyAll(ctx context.Context, a *auditor, run audit.Verification) error {
	a.attended = true
	if err := a.begin(ctx); err != nil {
		return err
	}
	var reports []evidence.Report
	for _, s := range a.fleet.all() {
		more, err := verifyServer(ctx, a, s, run)
		reports = append(reports, more...)
		if err != nil {
			return err
		}
	}
	if len(a.sinks) > 0 {
		a.deliverNow(ctx)
	}
	if len(reports) == 0 {
		a.log.Error("no database to verify: none matches --audit-databases", "given", a.c.Audit.Databases)
		return &exitError{code: exitUnknown}
	}
	if code := exitCode(reports); code != exitConsistent {
		return &exitError{code: code}
	}
	if err := a.out.failed(); err != nil {
		return unknown(fmt.Errorf("printing the outcome: %w", err))
	}
	return nil
}

// verifyServer verifies the ledgers of one server.
func verifyServer(ctx context.Context, a *auditor, s *audited, run audit.Verification) (reports []evidence.Report, err error) {
	for _, r := range s.engine.Once(ctx) {
		chain := r.Verdict == evidence.Tampered && !r.Kind.AboutData()
		if chain || r.Verdict == evidence.Undetermined && r.Reason != evidence.FirstContact || r.Database == "" {
			reports = append(reports, r) // nothing to verify against, or not the time to
			a.out.print(r)
			continue
		}
		r, err := verifyOne(ctx, a, s, r.Database, run)
		if err != nil {
			return reports, err
		}
		reports = append(reports, r)
		if ctx.Err() != nil {
			break
		}
	}
	return reports, nil
}

func verifyOne(ctx context.Context, a *auditor, s *audited, database string, run audit.Verification) (evidence.Report, error) {
	bar := newProgress(a.env.Stderr, s.c.Audit.Server+"/"+database+": walking")
	r := s.engine.Walk(ctx, database, bar.walked)
	bar.end()
	if r.Verdict == evidence.Tampered && !r.Kind.AboutData() {
		a.out.print(r)
		return r, nil
	}
	bar = newProgress(a.env.Stderr, s.c.Audit.Server+"/"+database)
	run.Progress = bar.show
	sum, report, err := s.engine.Verify(ctx, database, run)
	bar.end()
	var stopped *verify.Stopped
	switch {
	case err == nil:
	case errors.As(err, &stopped):
		report.Detail = fmt.Sprintf("%v (--from %d)", err, stopped.At)
		if report.Verdict == evidence.Consistent { // of what was looked at
			report.Verdict, report.Reason = evidence.Undetermined, evidence.Interrupted
		}
	case report.Time.IsZero(): // it was not begun
		return report, usage(err)
	}
	a.out.verified(verification{report, summaryJSON(&sum)}, &sum)
	return report, nil
}

func summaryJSON(s *verify.Summary) *verificationJSON {
	if s.Transactions == 0 {
		return nil
	}
	v := &verificationJSON{
		From: s.From, To: s.To, Through: s.Through, Transactions: s.Transactions, Empty: s.Empty, Received: s.Received,
		Damages: s.Tally.Damages(), Unread: s.Tally.Unread, Kinds: map[string]countJSON{},
	}
	for kind, c := range s.Kinds {
		if c.Entries > 0 {
			v.Kinds[verify.Kind(kind).String()] = countJSON{c.Entries, c.Verified, c.Expired, c.Truncated, c.Unseen, c.Damaged, c.Missing, c.Bytes}
		}
	}
	for _, d := range s.Damages {
		v.Damaged = append(v.Damaged, damageJSON{d.Kind, d.Tx, d.Where.Key, d.Where.KeyText, d.Detail})
	}
	return v
}

// verified prints the outcome for one ledger.
func (p *printer) verified(v verification, s *verify.Summary) {
	if p.json {
		p.line(v)
		return
	}
	var b strings.Builder
	b.WriteString(sentence(v.Report))
	if s.Transactions > 0 {
		fmt.Fprintf(&b, "\n\n%d transactions from %d to %d were read, %s", s.Transactions, s.From, s.Through, size(s.Received))
		if s.Empty > 0 {
			fmt.Fprintf(&b, "; %d have no entries", s.Empty)
		}
		b.WriteString("\n\n")
		table(&b, s)
	}
	for _, d := range s.Damages { // those of an open incident are named above
		if !slices.ContainsFunc(v.Findings, func(f evidence.Finding) bool { return f.Tx == d.Tx && f.Key == d.Where.Key }) {
			fmt.Fprintf(&b, "\naccepted before: %s", finding(d.Finding))
		}
	}
	if more := s.Tally.Damages(); more > uint64(len(s.Damages)) {
		fmt.Fprintf(&b, "\nand %d more", more-uint64(len(s.Damages)))
	}
	if total := s.Total(); total.Unseen > 0 {
		fmt.Fprintf(&b, "\n%d values are not shown to this user and were not verified; --export fetches them, as an administrator", total.Unseen)
	}
	p.text(strings.TrimRight(b.String(), "\n"))
}

// table sums up by kind of entry; columns without a number are left out.
func table(b *strings.Builder, s *verify.Summary) {
	total := s.Total()
	columns := []struct {
		name string
		of   func(*verify.Count) uint64
	}{
		{"ENTRIES", func(c *verify.Count) uint64 { return c.Entries }},
		{"VERIFIED", func(c *verify.Count) uint64 { return c.Verified }},
		{"EXPIRED", func(c *verify.Count) uint64 { return c.Expired }},
		{"TRUNCATED", func(c *verify.Count) uint64 { return c.Truncated }},
		{"NOT SHOWN", func(c *verify.Count) uint64 { return c.Unseen }},
		{"DAMAGED", func(c *verify.Count) uint64 { return c.Damaged }},
		{"MISSING", func(c *verify.Count) uint64 { return c.Missing }},
	}
	shownColumns := slices.Clone(columns[:2])
	for _, c := range columns[2:] {
		if c.of(&total) > 0 {
			shownColumns = append(shownColumns, c)
		}
	}
	w := tabwriter.NewWriter(b, 0, 8, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cells ...string) { fmt.Fprintf(w, "%s\t%s\t\n", name, strings.Join(cells, "\t")) }
	var heads []string
	for _, c := range shownColumns {
		heads = append(heads, c.name)
	}
	row("", append(heads, "VALUES")...)
	line := func(name string, c *verify.Count) {
		var cells []string
		for _, column := range shownColumns {
			cells = append(cells, fmt.Sprint(column.of(c)))
		}
		row(name, append(cells, size(c.Bytes))...)
	}
	for kind := range s.Kinds {
		if s.Kinds[kind].Entries > 0 {
			line(verify.Kind(kind).String(), &s.Kinds[kind])
		}
	}
	line("all", &total)
	w.Flush()
}

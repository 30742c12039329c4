package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/mirror"
	"immuaudit/internal/page"
	"immuaudit/internal/store"
	"immuaudit/internal/web"
	"immuaudit/internal/wire"
)

// Shape of the demonstration.
const (
	demoInterval = 100 * time.Millisecond
	demoPatience = 20 * time.Second // for a round that is expected
	demoOld      = 40               // transactions in the older copy
	demoMore     = 60               // committed after it, and proven
	demoForged   = 75               // written on the older copy instead
)

func newDemo(env *Env) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch a ledger being audited, attacked, and caught",
		Long: `demo starts the embedded ledger and a writer, audits it, then puts back an older
copy of the ledger and writes other transactions onto it, as somebody would who
wants a different past. Exit code 0 if that was caught as expected, 1 if not.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := runDemo(cmd.Context(), env, keep); err != nil {
				return unknown(err)
			}
			return nil
		},
	}
	boolVar(cmd.Flags(), &keep, "keep", "", "leave everything running afterwards, with the monitoring port open")
	return cmd
}

// stage tells the story.
type stage struct {
	w      io.Writer
	colour bool
}

func (s *stage) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *stage) act(who, format string, args ...any) {
	fmt.Fprintf(s.w, "  %s %s\n", s.paint("1", fmt.Sprintf("%-8s", who)), fmt.Sprintf(format, args...))
}

func (s *stage) more(format string, args ...any) {
	fmt.Fprintf(s.w, "           %s\n", fmt.Sprintf(format, args...))
}

func runDemo(ctx context.Context, env *Env, keep bool) (err error) {
	st := &stage{w: env.Stdout, colour: env.Terminal}
	fmt.Fprintf(st.w, "\n%s\n\n", st.paint("1", "An immudb-compatible ledger, audited, attacked, and caught"))

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	l, err := ledger.Open(ledger.Config{HeaderVersion: 1, SigningKey: key})
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	defer l.Close()
	if err := l.Start("127.0.0.1:0"); err != nil {
		return fmt.Errorf("starting the ledger: %w", err)
	}
	db, err := l.Database(ledger.DefaultDB)
	if err != nil {
		return err
	}
	if err := pay(db, 0, demoOld, 100); err != nil {
		return err
	}
	st.act("ledger", "listens on %s and signs its states", l.Addr())
	st.act("writer", "commits %d payments", demoOld)
	copied := db.Snapshot() // what the attacker keeps for later

	dir, err := os.MkdirTemp("", "immuaudit-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	reports := make(chan evidence.Report, 64)
	a, err := openDemoAuditor(ctx, filepath.Join(dir, "state"), l.Addr(), reports)
	if err != nil {
		return err
	}
	defer a.close()

	running, stop := context.WithCancel(ctx)
	group, groupCtx := errgroup.WithContext(running)
	group.Go(func() error { return a.engine.Run(groupCtx) })
	group.Go(func() error { return a.site.Run(groupCtx) })
	group.Go(func() error { return a.pages.Run(groupCtx) })
	defer func() {
		stop()
		if werr := group.Wait(); werr != nil && !errors.Is(werr, context.Canceled) && err == nil {
			err = werr
		}
	}()

	caught, err := playDemo(ctx, st, db, copied, reports, &key.PublicKey)
	if err != nil {
		return err
	}
	if !caught {
		return errors.New("the attack was not caught as expected; this is a bug in immuaudit")
	}
	if keep {
		st.act("keep", "everything is left running: http://%s/ shows the verdict, Ctrl-C ends it", a.site.Addr())
		<-ctx.Done()
	}
	return nil
}

// pay commits n payments, numbered from first on.
func pay(db *ledger.Database, first, n, amount int) error {
	for i := first; i < first+n; i++ {
		if _, err := db.Set(fmt.Appendf(nil, "payment/%04d", i), fmt.Appendf(nil, `{"to":"alice","amount":%d}`, amount)); err != nil {
			return fmt.Errorf("writing a payment: %w", err)
		}
	}
	return nil
}

// playDemo makes the acts and says whether the attack was caught.
func playDemo(ctx context.Context, st *stage, db *ledger.Database, copied *ledger.Snapshot, reports <-chan evidence.Report, key *ecdsa.PublicKey) (bool, error) {
	first, err := await(ctx, reports, func(r evidence.Report) bool { return r.Reason == evidence.FirstContact })
	if err != nil {
		return false, err
	}
	st.act("auditor", "first contact: trust begins at transaction %d", first.Observed.Tx)
	last := uint64(demoOld)
	for range 3 {
		if err := pay(db, int(last), demoMore/3, 100); err != nil {
			return false, err
		}
		last += demoMore / 3
		r, err := await(ctx, reports, func(r evidence.Report) bool {
			return r.Verdict == evidence.Consistent && r.Trusted.Tx == last
		})
		if err != nil {
			return false, err
		}
		st.act("auditor", "%s at transaction %d: every header from the first on chained, every leaf of the tree bound (%.1f ms)",
			st.paint("32", r.Verdict.String()), r.Trusted.Tx, r.DurationMS)
	}
	forged, err := forge(copied)
	if err != nil {
		return false, err
	}
	if err := db.Restore(forged); err != nil {
		return false, err
	}
	st.act("attacker", "puts back the copy of transaction %d and writes %d other payments onto it", demoOld, demoForged)
	st.more("the ledger is whole in itself, longer than before, and signed with the right key")

	r, err := await(ctx, reports, func(r evidence.Report) bool { return r.Verdict == evidence.Tampered })
	if err != nil {
		return false, err
	}
	st.act("auditor", "%s: %s", st.paint("1;31", "TAMPERED"), r.Kind)
	for _, f := range r.Findings {
		st.more("%s", finding(f))
	}
	st.more("trusted   transaction %-4d %s", r.Trusted.Tx, r.Trusted.Alh)
	st.more("observed  transaction %-4d %s", r.Observed.Tx, r.Observed.Alh)
	for _, f := range r.Findings {
		if f.Kind == evidence.Fork {
			st.more("shown for transaction %d: %s", f.Tx, f.Got)
			break
		}
	}
	if r.Divergence != nil {
		st.more("where     %s", r.Divergence)
	}
	st.more("incident  %s, open until an operator decides", r.Incident)
	proven, err := showEvidence(st, r.Evidence, key)
	if err != nil {
		return false, err
	}
	code := exitCode([]evidence.Report{r})
	st.more("immuclient audit-mode --once would exit with code %d", code)
	fmt.Fprintln(st.w)
	found := r.Divergence != nil && r.Divergence.LastGoodTx == demoOld && r.Divergence.FirstBadTx == demoOld+1
	return proven && found && r.Kind == evidence.Fork && code == exitTampered && r.Trusted.Tx == demoOld+demoMore, nil
}

// forge prepares the other history aside, so that it is put in place at once.
func forge(copied *ledger.Snapshot) (*ledger.Snapshot, error) {
	aside, err := ledger.Open(ledger.Config{HeaderVersion: 1})
	if err != nil {
		return nil, fmt.Errorf("opening a ledger to forge in: %w", err)
	}
	defer aside.Close()
	db, err := aside.Database(ledger.DefaultDB)
	if err != nil {
		return nil, err
	}
	if err := db.Restore(copied); err != nil {
		return nil, err
	}
	if err := pay(db, demoOld, demoForged, 9_999); err != nil {
		return nil, err
	}
	return db.Snapshot(), nil
}

// showEvidence re-checks the evidence as a third party would, who has the file
// and the server's public key, and says what is proven to anyone.
func showEvidence(st *stage, file string, key *ecdsa.PublicKey) (proven bool, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("reading the evidence: %w", err)
	}
	outcome, err := evidence.Recheck(text, evidence.RecheckOptions{ServerKey: key})
	if err != nil {
		return false, fmt.Errorf("re-checking the evidence: %w", err)
	}
	st.act("evidence", "re-checked offline, by whoever has the file and the server's public key:")
	// Who it was, and what they signed twice; evidence verify says the rest.
	for _, sentence := range outcome.Proof[:min(3, len(outcome.Proof))] {
		st.more("%s", sentence)
	}
	return outcome.Proven, nil
}

// await takes reports until one is as expected.
func await(ctx context.Context, reports <-chan evidence.Report, expected func(evidence.Report) bool) (evidence.Report, error) {
	timeout := time.NewTimer(demoPatience)
	defer timeout.Stop()
	var last evidence.Report
	for {
		select {
		case r := <-reports:
			if expected(r) {
				return r, nil
			}
			last = r
		case <-timeout.C:
			return last, fmt.Errorf("no such verdict within %s; the newest was: %s", demoPatience, sentence(last))
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
}

// demoAuditor is a whole auditor over a temporary state.
type demoAuditor struct {
	engine *audit.Engine
	site   *web.Server
	pages  *page.Site
	store  *store.Store
	mirror *mirror.Mirror
	client *wire.Client
}

func openDemoAuditor(ctx context.Context, dir, address string, reports chan<- evidence.Report) (a *demoAuditor, err error) {
	a = &demoAuditor{}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	if a.store, err = store.Open(ctx, store.Options{Dir: dir, Create: true, Logger: quiet}); err != nil {
		return a, err
	}
	if a.client, err = wire.New(wire.Options{Address: address, Username: ledger.AdminUser, Password: ledger.DefaultAdminPassword}); err != nil {
		return a, err
	}
	record, err := recorder(dir)
	if err != nil {
		return a, err
	}
	if a.mirror, err = mirror.Open(filepath.Join(dir, mirrorFolder), quiet); err != nil {
		return a, err
	}
	a.engine, err = audit.New(ctx, audit.Options{
		Mirror: mirrors(a.mirror), Record: record, Version: version().Version, Channel: func() evidence.Channel { return evidence.Channel{Transport: "plaintext"} },
		Server: a.client, Memory: a.store, Name: "demo", Address: address, Logger: quiet, List: true,
		Matches:  func(string) bool { return true },
		Interval: demoInterval, WalkLimit: 10_000, WalkRate: 20_000, StaleAfter: time.Minute,
	})
	if err != nil {
		return a, err
	}
	statuses := func() []audit.Status { return []audit.Status{a.engine.Status()} }
	if a.pages, err = page.New(page.Options{
		Statuses: statuses, Book: a.store, EvidenceDir: filepath.Join(dir, "evidence"), Private: onLoopback, Version: version().Version, Logger: quiet,
	}); err != nil {
		return a, err
	}
	a.site, err = web.New(web.Options{
		Addr: "127.0.0.1:0", Statuses: statuses, Pages: a.pages, Version: version(), Logger: quiet,
		Immudb: func(ctx context.Context) error { _, err := a.client.ServerVersion(ctx); return err },
	})
	if err != nil {
		return a, err
	}
	a.engine.OnReport(func(r evidence.Report) {
		a.site.ObserveRound(r)
		select {
		case reports <- r:
		default: // nobody is waiting
		}
	})
	return a, nil
}

func (a *demoAuditor) close() {
	if a.client != nil {
		a.client.Close()
	}
	if a.mirror != nil {
		a.mirror.Close()
	}
	if a.store != nil {
		a.store.Close()
	}
}

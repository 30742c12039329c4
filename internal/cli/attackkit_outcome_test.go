package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/attack"
	"immuaudit/internal/store"
)

// outcome is what came of a trial, to be held against what is right.
type outcome struct {
	*trial
	t      *testing.T
	server *liar
	pager  *pager
	watch  *watch
	want   claim

	before  evidence.Report // the last one before the step that told
	report  evidence.Report // the one that counts
	history uint64          // transactions before the first step
}

// settle waits for the first contact with every database, and for a round that
// agrees with it after it grew.
func (o *outcome) settle() {
	o.t.Helper()
	agrees := func(name string) evidence.Report {
		return o.watch.await("agreement over "+name, 0, func(r evidence.Report) bool {
			return r.Database == name && r.Verdict == evidence.Consistent && r.Trusted.Tx == o.server.last(name) && r.Assurance.Walked == r.Trusted.Tx
		})
	}
	for _, name := range append(bystanders[:], attacked) {
		agrees(name)
	}
	o.server.strike(o.t, attack.Step{Summary: "commit honestly", Strike: func(st *attack.Stage) error { return st.Write(1) }})
	for _, name := range append(bystanders[:], attacked) {
		o.before = agrees(name)
	}
}

// strike does the steps in turn, and lets the auditor look after each. What it
// says first counts; the other steps are done all the same.
func (o *outcome) strike() {
	o.t.Helper()
	o.history = o.server.last(attacked)
	told := false
	for i, step := range o.Steps {
		from := len(o.watch.reports())
		o.server.strike(o.t, step)
		if told {
			continue
		}
		struck := time.Now()
		last := i == len(o.Steps)-1
		r := o.watch.await("a verdict after: "+step.Summary, from, func(r evidence.Report) bool {
			// A round that had begun before may have seen the state before.
			began := r.Time.Add(-time.Duration(r.DurationMS * float64(time.Millisecond)))
			switch {
			case r.Database != attacked || !began.After(struck):
				return false
			case o.want.kind == evidence.Vanished && r.Reason == evidence.NotFound:
				return false // it takes ten seconds to be believed
			case o.company() == sameConnection && o.want.verdict == evidence.Consistent && r.Verdict == evidence.Undetermined:
				return false // the walk behind the rounds is answered by cutting the connection
			case o.want.behind && r.Verdict == evidence.Consistent:
				return !last // the walk will tell
			}
			return true
		})
		if told = r.Verdict != evidence.Consistent; !told {
			o.before = r
		}
		o.report = r
	}
}

// told checks the line of JSON.
func (o *outcome) told() {
	o.t.Helper()
	r, want := o.report, o.want
	if r.Verdict != want.verdict || r.Kind != want.kind || r.Reason != want.reason {
		o.t.Fatalf("%s %s%s, the right verdict is %s %s%s: %+v", r.Verdict, r.Kind, r.Reason, want.verdict, want.kind, want.reason, r)
	}
	if r.Server != "tested" || r.ServerUUID != o.server.Ledger.UUID() {
		o.t.Errorf("about server %q, %q", r.Server, r.ServerUUID)
	}
	switch want.verdict {
	case evidence.Consistent:
		if r.Incident != "" || len(r.Findings) > 0 || *r.Trusted != *r.Observed {
			o.t.Errorf("consistent, and yet %+v", r)
		}
	case evidence.Undetermined:
		if r.Incident != "" || len(r.Findings) > 0 || r.Detail == "" || *r.Trusted != *o.before.Trusted {
			o.t.Errorf("undetermined, and yet %+v", r)
		}
	case evidence.Tampered:
		if r.Incident == "" || r.Evidence == "" || evidence.Worst(r.Findings) != want.kind {
			o.t.Errorf("tampered, and yet %+v", r)
		}
		if want.check != "" && !slices.ContainsFunc(r.Findings, func(f evidence.Finding) bool { return f.Check == want.check }) {
			o.t.Errorf("no finding of check %q: %+v", want.check, r.Findings)
		}
		o.located(r.Divergence)
		o.frozen(r.Trusted, r.Assurance)
	}
}

// located checks where the ledger was changed: exactly there, and nowhere where
// nothing was. The transactions are few enough for all to be remembered.
func (o *outcome) located(got *evidence.Divergence) {
	o.t.Helper()
	lastGood, firstBad := o.Expect.Divergence(o.history)
	want := evidence.Divergence{LastGoodTx: lastGood, FirstBadTx: firstBad}
	switch {
	case firstBad == 0 && (got == nil || got.FirstBadTx == 0), got != nil && *got == want:
	case o.report.DurationMS >= 5000 && (got == nil || got.LastGoodTx <= lastGood && got.FirstBadTx >= firstBad):
		// The machine is too busy: a search ends after five seconds with what
		// it has found out, so as not to hold up the alarm.
	default:
		o.t.Errorf("it parts at %+v, want %+v", got, want)
	}
}

// frozen checks that no attack moved trust. What a dual proof jumped over was
// proven before the walk found it: that is why proven and walked are told apart.
func (o *outcome) frozen(trusted *evidence.Mark, assurance *evidence.Assurance) {
	o.t.Helper()
	if !o.want.behind && *trusted != *o.before.Trusted || assurance.Walked < o.before.Assurance.Walked ||
		o.want.behind && assurance.Walked >= o.Expect.FirstBad(o.history) {
		o.t.Errorf("trust moved from %+v %+v to %+v %+v", o.before.Trusted, o.before.Assurance, trusted, assurance)
	}
}

// shown checks the metrics: the original's, in which the worst ledger speaks
// for the server, and those of each ledger.
func (o *outcome) shown() {
	o.t.Helper()
	r, want := o.report, map[string]float64{}
	original := func(name string, value float64) {
		want[fmt.Sprintf(`immuclient_audit_%s_per_server{server_address=%q,server_id=%q}`, name, o.server.Ledger.Addr(), o.server.Ledger.UUID())] = value
	}
	ledger := func(name, more string, value float64) {
		want[fmt.Sprintf(`immuaudit_ledger_%s{database=%q,server="tested"%s}`, name, attacked, more)] = value
	}
	observed := o.before.Observed
	if r.Observed != nil {
		observed = r.Observed
	}
	for verdict, value := range map[evidence.Verdict]float64{evidence.Consistent: 1, evidence.Tampered: 0, evidence.Undetermined: -2} {
		ledger("verdict", fmt.Sprintf(`,verdict=%q`, verdict), 0)
		if verdict == r.Verdict {
			ledger("verdict", fmt.Sprintf(`,verdict=%q`, verdict), 1)
			original("result", value)
		}
	}
	ledger("trusted_tx", "", float64(r.Trusted.Tx))
	ledger("walked_tx", "", float64(r.Assurance.Walked))
	ledger("open_incidents", "", 0)
	switch r.Verdict {
	case evidence.Consistent:
		if !o.Expect.WalkOnly { // the walk follows
			ledger("walked_tx", "", float64(r.Trusted.Tx))
		}
	case evidence.Undetermined:
		original("curr_root", -2)
		original("prev_root", -2)
	case evidence.Tampered:
		ledger("open_incidents", "", 1)
		if o.company() != sameKey { // where the first by name speaks for all
			original("curr_root", float64(observed.Tx))
			original("prev_root", float64(r.Trusted.Tx))
		}
	}
	if o.company() == apart {
		for _, name := range bystanders {
			want[fmt.Sprintf(`immuaudit_ledger_verdict{database=%q,server="tested",verdict="consistent"}`, name)] = 1
		}
	}
	var wrong []string
	err := poll(func() (bool, error) {
		got, err := o.watch.gauges()
		wrong = nil
		for series, value := range want {
			if have, ok := got[series]; !ok || have != value {
				wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", series, have, value))
			}
		}
		return len(wrong) == 0, err
	})
	if err != nil {
		o.t.Errorf("%v:\n%s", err, strings.Join(wrong, "\n"))
	}
}

// notified checks what was sent: one notification of each incident, none of
// anything else, and each only when its evidence was there to be read.
func (o *outcome) notified() {
	o.t.Helper()
	want := o.notifications()
	err := poll(func() (bool, error) { return len(o.pager.all()) >= len(want), nil })
	got := o.pager.all()
	if err != nil || len(got) != len(want) {
		o.t.Fatalf("%d notifications, want %d: %+v\n%s", len(got), len(want), got, o.watch.log)
	}
	for _, a := range got {
		kind, known := want[a.DB]
		if a.problem != nil || !known {
			o.t.Errorf("a notification about %q: %v", a.DB, a.problem)
			continue
		}
		delete(want, a.DB)
		inc := a.incident
		if !a.Tampered || inc.Kind != kind || a.RunAt.Sub(inc.OpenedAt).Abs() > time.Second {
			o.t.Errorf("notified %+v of incident %+v, want %s", a.notification, inc, kind)
		}
		if same, err := sameMark(a.Previous, inc.Trusted); err != nil || !same {
			o.t.Errorf("previous_state is %s, of %+v: %v", a.Previous, inc.Trusted, err)
		}
		if same, err := sameMark(a.Current, inc.Observed); err != nil || !same {
			o.t.Errorf("current_state is %s, of %+v: %v", a.Current, inc.Observed, err)
		}
		if a.DB == attacked {
			o.testified(a)
		}
	}
}

// notifications are the databases that there is one about, and its kind.
func (o *outcome) notifications() map[string]evidence.Kind {
	want := map[string]evidence.Kind{}
	if o.want.verdict == evidence.Tampered {
		want[attacked] = o.want.kind
		if o.company() == sameKey {
			for _, name := range bystanders {
				want[name] = o.sharedKind()
			}
		}
	}
	return want
}

// sharedKind is what an attack on the key of the server is for the databases
// beside the attacked one: nobody disguises the key there.
func (o *outcome) sharedKind() evidence.Kind {
	if o.want.kind == evidence.SignatureMissing {
		return evidence.SignatureMissing
	}
	return evidence.KeyChanged
}

// testified checks what the evidence says of the incident it is about.
func (o *outcome) testified(a arrival) {
	o.t.Helper()
	inc, file := a.incident, a.file
	if inc.ID != o.report.Incident || inc.Evidence != o.report.Evidence || *inc.Trusted != *o.report.Trusted {
		o.t.Errorf("incident %+v, reported %+v", inc, o.report)
	}
	if file.Incident != inc.ID || file.Kind != inc.Kind || file.Name.Database != attacked || !slices.Equal(file.Findings, inc.Findings) {
		o.t.Errorf("the evidence is about something else: %+v", file.Material)
	}
	o.located(inc.Divergence)
	o.located(file.Divergence)
	// Where a server signs two histories of which both are longer than what
	// they share, it convicts itself.
	if o.signs() && inc.Kind == evidence.Fork && inc.Observed.Tx >= inc.Trusted.Tx && file.Proof == nil {
		o.t.Errorf("the server signed both histories, and the evidence does not prove it")
	}
}

// alerted checks the events beside the verdict.
func (o *outcome) alerted() {
	o.t.Helper()
	kind, database := o.alert()
	if (kind != "") != o.Expect.Alert && o.Row != "A22" {
		o.t.Errorf("event %q, and alert %t", kind, o.Expect.Alert)
	}
	if kind == "" {
		return
	}
	eventually(o.t, "the event "+string(kind)+" is kept", func() (bool, error) {
		s, err := store.Open(o.t.Context(), store.Options{Dir: o.watch.dir + "/state", ReadOnly: true})
		if err != nil {
			return false, err
		}
		defer s.Close()
		all, err := s.Events(o.t.Context(), time.Time{}, 1000)
		return slices.ContainsFunc(all, func(e evidence.Event) bool { return e.Type == kind && e.Name.Database == database }), err
	})
}

// others checks the databases beside the attacked one: nobody attacked them,
// and they got on meanwhile.
func (o *outcome) others() {
	o.t.Helper()
	for _, name := range bystanders {
		switch o.company() {
		case apart:
			o.watch.await(name+" gets on", 0, func(r evidence.Report) bool {
				return r.Database == name && r.Verdict == evidence.Consistent && r.Trusted.Tx == o.server.last(name)
			})
		case sameKey:
			o.watch.await(name+" is signed by the same key", 0, func(r evidence.Report) bool {
				return r.Database == name && r.Kind == o.sharedKind()
			})
		}
	}
	for _, r := range o.watch.reports() {
		if r.Database == attacked || r.Verdict == evidence.Consistent || r.Reason == evidence.FirstContact ||
			o.company() == sameKey || o.company() == sameConnection && r.Verdict == evidence.Undetermined {
			continue
		}
		o.t.Errorf("nobody touched %s: %+v", r.Database, r)
	}
}

// bounded checks that no round took longer than a round may, and how much
// memory the process ever had.
func (o *outcome) bounded() {
	o.t.Helper()
	if o.alone {
		got, err := o.watch.gauges()
		if used := got["go_memstats_sys_bytes"]; err != nil || used == 0 || used > maxMemory {
			o.t.Errorf("the process took %.0f bytes, at most %d are allowed: %v", used, maxMemory, err)
		}
	}
	for _, r := range o.watch.reports() {
		if r.DurationMS > float64(time.Minute.Milliseconds()) {
			o.t.Errorf("a round of %.0f ms: %+v", r.DurationMS, r)
		}
	}
	if text := o.watch.log.String(); strings.Contains(text, "panic") || strings.Contains(text, "goroutine ") {
		o.t.Errorf("the log:\n%s", text)
	}
}

// once makes a round by audit-mode --once and gives the reports by database.
func (o *outcome) once(want evidence.Verdict, args []string) map[string]evidence.Report {
	o.t.Helper()
	w := o.run(o.t, o.watch.dir, append(args, "--once")...)
	code := w.code()
	for code == 1 && strings.Contains(w.log.String(), "another auditor is running") {
		// A process that some other test starts has all files of this one until
		// it becomes another program, the lock that was just released among them.
		w = o.run(o.t, o.watch.dir, append(args, "--once")...)
		code = w.code()
	}
	if right := map[evidence.Verdict]int{evidence.Consistent: 0, evidence.Undetermined: 1, evidence.Tampered: 3}[want]; code != right {
		o.t.Errorf("exit code %d, want %d:\n%s%s", code, right, w.out, w.log)
	}
	out := map[string]evidence.Report{}
	for _, r := range w.reports() {
		out[r.Database] = r
	}
	if got := out[attacked]; got.Verdict != want {
		o.t.Errorf("with --once: %+v, want %s", got, want)
	}
	return out
}

// lasts checks what is left of it: while the attack goes on, and after it was
// taken back and everybody is honest again.
func (o *outcome) lasts(args []string) {
	o.t.Helper()
	want, exit := o.want.verdict, 0
	if want == evidence.Tampered {
		exit = 3
	}
	if o.company() != sameConnection || want != evidence.Consistent { // who is cut off then is a matter of moments
		if got := o.once(want, args)[attacked]; want == evidence.Undetermined && got.Reason != o.want.reason {
			o.t.Errorf("with --once: %+v, want %s", got, o.want.reason)
		}
	}
	// All that was queued was sent by now. Steps that came after the verdict
	// may have opened more incidents, of other kinds.
	incidents := decode[incident](o.t, o.command(exit, "incident", "list", "--json"))
	if n := len(o.pager.all()); n != len(incidents) {
		o.t.Errorf("%d notifications of %d incidents", n, len(incidents))
	}

	o.server.relent(o.t)
	if want == evidence.Undetermined {
		want = evidence.Consistent // it recovers by itself
	}
	last := o.once(want, args)
	for _, got := range decode[trusted](o.t, o.command(0, "trust", "list", "--json")) {
		newest := o.server.last(got.Database)
		switch {
		case got.Database == attacked && want == evidence.Tampered:
			o.frozen(&got.Trusted, &got.Assurance)
			if got.Open == 0 {
				o.t.Errorf("it does not stick: %+v", got)
			}
		case o.company() == sameKey:
			if got.Open == 0 || got.Trusted.Tx == newest {
				o.t.Errorf("signed by another key, and yet %+v", got)
			}
		case got.Open != 0 || got.Trusted.Tx != newest || last[got.Database].Verdict != evidence.Consistent:
			o.t.Errorf("all is well, and yet %+v; with --once %+v", got, last[got.Database])
		}
	}
	if want == evidence.Tampered {
		if !strings.Contains(o.command(3, "incident", "list"), o.report.Incident) {
			o.t.Errorf("incident %s is not open any more", o.report.Incident)
		}
		key := strings.TrimSpace(o.command(0, "trust", "key"))
		o.command(3, "evidence", "verify", "--auditor-key", key, o.report.Evidence)
	}
}

// command runs one command over the state, in this process.
func (o *outcome) command(want int, args ...string) string {
	o.t.Helper()
	w := inProcess(o.t, o.watch.dir, args...)
	w.end(want)
	return w.out.String()
}

// sameMark compares a state of a notification with that of its incident.
func sameMark(raw []byte, m *evidence.Mark) (bool, error) {
	if m == nil || bytes.Equal(raw, []byte("null")) {
		return m == nil && bytes.Equal(raw, []byte("null")), nil
	}
	var state struct {
		Tx   uint64
		Hash []byte
	}
	err := json.Unmarshal(raw, &state)
	return err == nil && state.Tx == m.Tx && fmt.Sprintf("%x", state.Hash) == m.Alh, err
}

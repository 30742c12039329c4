package cli_test

import (
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
	report  evidence.Report // the first after it
	history uint64          // transactions before the first step
	left    []attack.Step   // that were not done yet
}

// settle waits for the first contact with every database, and for a round that
// agrees with it after it grew. Where what is stored is going to be changed it
// was all looked into by then, so that it is the rounds that notice.
func (o *outcome) settle() {
	o.t.Helper()
	agrees := func(name string) evidence.Report {
		return o.watch.await("agreement over "+name, 0, func(r evidence.Report) bool {
			return r.Database == name && r.Verdict == evidence.Consistent && r.Trusted.Tx == o.server.last(name) && r.Assurance.Walked == r.Trusted.Tx &&
				(name != attacked || o.Expect.FirstBad == nil || r.Assurance.Verified == r.Trusted.Tx)
		})
	}
	for _, name := range bystanders {
		agrees(name)
	}
	agrees(attacked)
	o.server.strike(o.t, attack.Step{Summary: "commit honestly", Strike: func(st *attack.Stage) error { return st.Write(1) }})
	for _, name := range bystanders {
		agrees(name)
	}
	o.before = agrees(attacked)
}

// strike does the steps in turn and lets the auditor look after each, until it
// says something.
func (o *outcome) strike() {
	o.t.Helper()
	o.history, o.left = o.server.last(attacked), o.Steps
	for len(o.left) > 0 {
		step, from := o.left[0], len(o.watch.reports())
		o.left = o.left[1:]
		o.server.strike(o.t, step)
		struck := time.Now()
		o.report = o.watch.await("a verdict after: "+step.Summary, from, func(r evidence.Report) bool {
			// A round that had begun before may have seen the state before.
			began := r.Time.Add(-time.Duration(r.DurationMS * float64(time.Millisecond)))
			switch {
			case r.Database != attacked || !began.After(struck):
				return false
			case o.want.kind == evidence.Vanished && r.Reason == evidence.NotFound:
				return false // it takes ten seconds to be believed
			case o.want.verdict == evidence.Tampered && r.Reason == evidence.Unstable:
				return false // the token changed meanwhile: the next round says
			case o.company() == sameConnection && o.want.verdict == evidence.Consistent && r.Verdict == evidence.Undetermined:
				return false // the walk behind the rounds is answered by cutting the connection
			case o.want.behind && r.Verdict == evidence.Consistent:
				return len(o.left) > 0 // after the last step the walk will tell
			}
			return true
		})
		if o.report.Verdict != evidence.Consistent {
			return
		}
		if len(o.left) > 0 {
			o.before = o.report
		}
	}
}

// goOn does the steps that are left: what was said stands.
func (o *outcome) goOn() {
	o.t.Helper()
	from := len(o.watch.reports())
	for _, step := range o.left {
		o.server.strike(o.t, step)
	}
	if o.want.verdict != evidence.Tampered {
		return
	}
	o.watch.await("more rounds", from, func(r evidence.Report) bool {
		if r.Database == attacked && (r.Verdict != evidence.Tampered || r.Kind != o.want.kind || r.Incident != o.report.Incident) {
			o.t.Errorf("the attack goes on, and it says %+v", r)
		}
		return r.Database == attacked && r.Time.After(o.report.Time) && len(o.watch.reports()) > from+6
	})
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
		o.followed(r.Trusted, r.Assurance)
	}
}

// located checks where the ledger was changed: exactly there, and nowhere where
// nothing was. The transactions are few enough for all to be remembered.
func (o *outcome) located(got *evidence.Divergence) {
	o.t.Helper()
	lastGood, firstBad := o.Expect.Divergence(o.history)
	switch {
	case firstBad == 0 && (got == nil || got.FirstBadTx == 0):
	case got != nil && got.LastGoodTx == lastGood && got.FirstBadTx == firstBad:
		if data := o.want.kind == evidence.Value || o.want.kind == evidence.ValueMissing; data != (got.Key != "") {
			o.t.Errorf("an incident of kind %s is about the key %q", o.want.kind, got.Key)
		}
	case o.report.DurationMS >= 5000 && (got == nil || got.LastGoodTx <= lastGood && got.FirstBadTx >= firstBad):
		// The machine is too busy: a search ends after five seconds with what
		// it has found out, so as not to hold up the alarm.
	default:
		o.t.Errorf("it parts at %+v, want %d, %d", got, lastGood, firstBad)
	}
}

// followed checks that no attack on the chain moved trust, and that damage to
// what it holds does not keep the chain from being followed. What a dual proof
// jumped over was proven before the walk found it: that is why there are two
// watermarks.
func (o *outcome) followed(trusted *evidence.Mark, assurance *evidence.Assurance) {
	o.t.Helper()
	moved := *trusted != *o.before.Trusted
	switch {
	case o.want.kind.AboutData():
		if trusted.Tx != o.server.last(attacked) || assurance.Verified >= o.Expect.FirstBad(o.history) && o.want.behind {
			o.t.Errorf("the chain is not followed: %+v %+v", trusted, assurance)
		}
	case !o.want.behind && moved, assurance.Walked < o.before.Assurance.Walked,
		o.want.behind && assurance.Walked >= o.Expect.FirstBad(o.history):
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
		if o.company() != sameKey && !o.want.kind.AboutData() { // there the first by name speaks for all, here trust goes on
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
	if o.own {
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

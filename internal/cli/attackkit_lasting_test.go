package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"immuaudit/evidence"
)

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

// lookedInto has verify look into every transaction, after the rounds found
// nothing where that is what it takes. What it finds counts from there on.
func (o *outcome) lookedInto(args []string) {
	o.t.Helper()
	if !o.Expect.Deep && !o.Expect.Export || o.want.behind {
		return
	}
	o.want = claim{kind: evidence.Kind(o.Expect.Kind), reason: evidence.Reason(o.Expect.Reason)}
	command := append([]string{"verify"}, args[1:]...)
	if o.Expect.Export {
		command = append(command, "--export")
	} else {
		o.want.verdict = evidence.Tampered
	}
	reports := o.alone(o.want.verdict, command...)
	for _, name := range bystanders {
		if r := reports[name]; r.Verdict != evidence.Consistent {
			o.t.Errorf("nobody touched %s: %+v", name, r)
		}
	}
	o.report = reports[attacked]
	o.told()
	o.notified()
}

// exits gives the exit code of a verdict.
func exits(v evidence.Verdict) int {
	return map[evidence.Verdict]int{evidence.Consistent: 0, evidence.Undetermined: 1, evidence.Tampered: 3}[v]
}

// alone runs a command that needs the state for itself, and gives its reports
// by database.
func (o *outcome) alone(want evidence.Verdict, args ...string) map[string]evidence.Report {
	o.t.Helper()
	var w *watch
	var code int
	// A process that some other test starts has all files of this one until it
	// becomes another program, the lock that was just released among them.
	eventually(o.t, "the lock is free", func() (bool, error) {
		w = o.run(o.t, o.watch.dir, args...)
		code = w.code()
		return !strings.Contains(w.log.String(), "another auditor is running"), nil
	})
	if code != exits(want) {
		o.t.Errorf("%s: exit code %d, want %d:\n%s%s", args, code, exits(want), w.out, w.log)
	}
	out := map[string]evidence.Report{}
	for _, r := range w.reports() {
		out[r.Database] = r
	}
	if got := out[attacked]; got.Verdict != want {
		o.t.Errorf("%s: %+v, want %s", args, got, want)
	}
	return out
}

// lasts checks what is left of it: while the attack goes on, and after it was
// taken back and everybody is honest again.
func (o *outcome) lasts(args []string) {
	o.t.Helper()
	want, once := o.want.verdict, append(args, "--once")
	if o.Expect.Export {
		want = evidence.Consistent // a round exports nothing
	}
	if o.company() != sameConnection || want != evidence.Consistent { // who is cut off then is a matter of moments
		if got := o.alone(want, once...)[attacked]; want == evidence.Undetermined && got.Reason != o.want.reason {
			o.t.Errorf("with --once: %+v, want %s", got, o.want.reason)
		}
	}
	// All that was queued was sent by now. Steps that came after the verdict
	// may have opened more incidents, of other kinds.
	listed := 0
	if want == evidence.Tampered {
		listed = 3
	}
	incidents := decode[incident](o.t, o.command(listed, "incident", "list", "--json"))
	if n := len(o.pager.all()); n != len(incidents) {
		o.t.Errorf("%d notifications of %d incidents", n, len(incidents))
	}

	o.server.relent(o.t)
	if want == evidence.Undetermined {
		want = evidence.Consistent // it recovers by itself
	}
	last := o.alone(want, once...)
	for _, got := range decode[trusted](o.t, o.command(0, "trust", "list", "--json")) {
		newest := o.server.last(got.Database)
		switch {
		case got.Database == attacked && want == evidence.Tampered:
			o.followed(&got.Trusted, &got.Assurance)
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

package cli_test

import (
	"path/filepath"
	"testing"
)

// An operator's decision is carried out, or nothing happened; either way it can
// be made again.
func TestFaultsDuringDecisions(t *testing.T) {
	t.Parallel()
	honest := newWorld(t)
	honest.grow(3)
	attacked := honest.twin(t)
	attacked.attack()
	open := honest.audited(1, 0)
	id := attacked.round(open, 3).reports[0].Incident
	well := filepath.Join(t.TempDir(), "well")
	copyTree(t, open, well)
	honest.round(well, 3)
	for name, d := range map[string]struct {
		before string
		args   []string
		audits []string // afterwards
		code   int
	}{
		"accept": {open, []string{"trust", "accept", id, "--reason", "the test database was reset"}, attacked.quietly(), 0},
		"keep":   {well, []string{"trust", "keep", id, "--reason", "the wrong volume was mounted"}, honest.quietly(), 0},
		"ack":    {open, []string{"incident", "ack", id, "--note", "Ada is on it"}, attacked.quietly(), 3},
		"rename": {open, []string{"trust", "rename", "tested", "renamed"}, append(attacked.quietly(), "--audit-server", "renamed"), 3},
		"pin":    {open, []string{"trust", "pin", "tested/fresh", "--tx", "5", "--alh", honest.alhs[5], "--reason", "from a backup"}, attacked.quietly(), 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			undone := (&aftermath{dir: d.before}).memory(t).text
			done := ""
			s := episode{before: d.before, args: func(*aftermath) []string { return d.args }}
			s.check = func(t *testing.T, a *aftermath) {
				m := a.memory(t).text
				if done == "" {
					done = m
				}
				if m != done && m != undone {
					t.Errorf("half of it was done:\n%s", m)
				}
				if a.said.code == 0 && m != done {
					t.Error("exit code 0 and nothing was done")
				}
				if m == undone {
					if again := plain(t, a.dir, d.args...); again.code != 0 {
						t.Errorf("a second try: exit code %d\n%s%s", again.code, again.out, again.log)
					}
					if m := a.memory(t).text; m != done {
						t.Errorf("after a second try:\n%s", m)
					}
				}
				if round := plain(t, a.dir, d.audits...); round.code != d.code {
					t.Errorf("a round afterwards: exit code %d, want %d\n%s%s", round.code, d.code, round.out, round.log)
				}
				a.sound(t)
			}
			s.try(t)
		})
	}
}

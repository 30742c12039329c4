package attack_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
)

// TestScenarios carries out every scenario and compares all that a plain client
// is answered with the answers of an honest twin that has as many transactions.
// Whatever differs is the attack.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, s := range attack.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			st, twin := newStage(t, s), newStage(t, s)
			before := admin(t, st).probe(patience)
			if honest := admin(t, twin).probe(patience); before != honest {
				t.Fatal("the twins differ before the attack")
			}
			if err := s.Strike(st); err != nil {
				t.Fatal(err)
			}
			follow(t, st, twin)
			c, honest := admin(t, st), admin(t, twin)
			wait := patience
			if s.Expect.Reason == string(evidence.Timeout) {
				wait = 100 * time.Millisecond // answers that never come
			}
			struck, calm := c.probe(wait), honest.probe(patience)
			if s.Name == "split-view" {
				struck, calm = secondUser(t, st).probe(patience), secondUser(t, twin).probe(patience)
			}
			if differs := struck != calm; differs != (s.Name != "lagging-trees") {
				t.Errorf("the attacked ledger answers otherwise than its honest twin: %t", differs)
			}
		})
	}
}

// follow brings the twin to as many transactions as the attacked one has.
func follow(t *testing.T, st, twin *attack.Stage) {
	t.Helper()
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		return // the attack took it away
	}
	other, err := twin.Ledger.Database(twin.Database)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := db.State()
	if have, _ := other.State(); have < want {
		if err := twin.Write(int(want - have)); err != nil {
			t.Fatal(err)
		}
	}
}

func secondUser(t *testing.T, st *attack.Stage) *client {
	t.Helper()
	if err := st.Ledger.CreateUser("second", "Second-1"); err != nil {
		t.Fatal(err)
	}
	if err := st.Ledger.Grant("second", st.Database, ledger.Read); err != nil {
		t.Fatal(err)
	}
	return dial(t, st, "second", "Second-1")
}

// TestTable: what is said about the scenarios can be relied on.
func TestTable(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	rows := map[string]bool{}
	for _, s := range attack.All() {
		if names[s.Name] || !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(s.Name) {
			t.Errorf("%q is no name, or taken", s.Name)
		}
		names[s.Name], rows[s.Row] = true, true
		if s.Summary == "" || s.Known == "" || len(s.Steps) == 0 {
			t.Errorf("%s: incomplete: %+v", s.Name, s)
		}
		var v evidence.Verdict
		if err := v.UnmarshalText([]byte(s.Expect.Verdict)); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		e := s.Expect
		if k := evidence.Kind(e.Kind); (e.Kind != "") != (v == evidence.Tampered) || e.Kind != "" && k.Rank() >= evidence.Kind("").Rank() {
			t.Errorf("%s: kind %q of %s", s.Name, e.Kind, v)
		}
		if r := evidence.Reason(e.Reason); (e.Reason != "") != (v == evidence.Undetermined) || e.Reason != "" && !r.Known() {
			t.Errorf("%s: reason %q of %s", s.Name, e.Reason, v)
		}
		if found, ok := attack.Find(s.Name); !ok || found.Summary != s.Summary {
			t.Errorf("%s is not found", s.Name)
		}
	}
	if _, ok := attack.Find("none"); ok {
		t.Error("found what there is not")
	}
	// The rows that are about the auditor itself are not here.
	for i := 1; i <= 33; i++ {
		row := "A" + strings.TrimLeft(string([]byte{byte('0' + i/10), byte('0' + i%10)}), "0")
		if auditor := i >= 28 && i <= 30; rows[row] == auditor {
			t.Errorf("row %s: %t", row, rows[row])
		}
	}
}

// TestHandbook: docs/attack-kit.md lists what there is, in the words of the kit.
func TestHandbook(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/attack-kit.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, s := range attack.All() {
		want = append(want, "| `"+s.Name+"` | "+s.Row+" | "+s.Summary+" | "+s.Known+" | "+s.Expect.String()+" | "+s.Expect.Parting()+" |")
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `") && strings.Count(line, "|") == 7 {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table in docs/attack-kit.md must be:\n%s", strings.Join(want, "\n"))
	}
}

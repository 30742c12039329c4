package cli_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"immuaudit/evidence"
)

// An honest ledger grows: what was told to be consistent is remembered,
// nothing else than what the ledger said is trusted, and the next run goes on.
func TestFaultsWhileItGrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := w.audited(1, 0)
	w.grow(3)
	s := episode{before: dir, args: w.once}
	s.check = func(t *testing.T, a *aftermath) {
		acknowledged := uint64(5)
		if r := a.said.last(evidence.Consistent); r != nil {
			acknowledged = r.Trusted.Tx
		}
		if a.said.code == 0 && acknowledged != 8 || a.said.code > 1 {
			t.Errorf("exit code %d after transaction %d was told to be consistent", a.said.code, acknowledged)
		}
		w.honest(t, a.memory(t), acknowledged)
		again := plain(t, a.dir, w.quietly()...)
		if again.code != 0 || again.last(evidence.Consistent) == nil {
			t.Errorf("the next run: exit code %d\n%s%s", again.code, again.out, again.log)
		}
		w.honest(t, a.memory(t), 8)
		a.sound(t)
		if n := len(a.hook.all()); n != 0 {
			t.Errorf("%d notifications of nothing", n)
		}
	}
	s.try(t)
}

// First contact: the next run knows it, or makes it.
func TestFaultsAtFirstContact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.grow(3)
	s := episode{args: w.once, code: 1}
	s.check = func(t *testing.T, a *aftermath) {
		known := a.said.last(evidence.Undetermined)
		if known != nil && known.Reason != evidence.FirstContact {
			known = nil
		}
		if a.said.code != 1 && a.said.code != -1 {
			t.Errorf("exit code %d", a.said.code)
		}
		again := plain(t, a.dir, w.quietly()...)
		contact := again.code == 1 && len(again.reports) == 1 && again.reports[0].Reason == evidence.FirstContact
		if again.code != 0 && !contact || contact && known != nil {
			t.Errorf("the next run: exit code %d\n%s%s", again.code, again.out, again.log)
		}
		w.honest(t, a.memory(t), 8)
		if once := plain(t, a.dir, w.quietly()...); once.code != 0 {
			t.Errorf("the run after it: exit code %d\n%s%s", once.code, once.out, once.log)
		}
		a.sound(t)
	}
	s.try(t)
}

// An attack is found: it is told, evidence is there, and trust stays.
func TestFaultsWhileAnAttackIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.grow(3)
	dir := w.audited(1, 0)
	w.attack()
	s := episode{before: dir, args: w.once, code: 3}
	s.beside = func(a *aftermath) {
		// Noting that the alarm was told is tried for long: not here.
		if a.until("the alarm is told", func() bool { return len(a.hook.all()) > 0 && len(reportsIn(a.t, a.out)) > 0 && a.fell.Load() }) {
			a.tracer.signal(syscall.SIGTERM)
		}
	}
	s.check = func(t *testing.T, a *aftermath) {
		a.world = w
		if a.said.code == 0 {
			t.Error("exit code 0")
		}
		a.convicted(t, 8)
	}
	s.try(t)
}

// convicted checks what must be after an attack on the ledger was found, or
// had to be, and that the next run says so.
func (a *aftermath) convicted(t *testing.T, acknowledged uint64) {
	t.Helper()
	if files := a.evidence(t); len(a.hook.all()) > 0 && a.what != nil && a.what.cut && len(files) == 0 {
		t.Error("an alarm left before its evidence was on disk")
	}
	again := plain(t, a.dir, a.world.once(a)...)
	if again.code != 3 || again.last(evidence.Tampered) == nil {
		t.Fatalf("the next run: exit code %d\n%s%s", again.code, again.out, again.log)
	}
	if len(a.evidence(t)) == 0 {
		t.Error("no evidence")
	}
	m := a.memory(t)
	// Another check may have found something of its own meanwhile.
	fork := slices.IndexFunc(m.incidents, func(c caseOf) bool { return c.Kind == evidence.Fork && c.Status == "open" })
	if len(m.ledgers) != 1 || fork < 0 {
		t.Fatalf("remembered: %s", m.text)
	}
	if got := m.ledgers[0].Trusted; got.Tx < acknowledged || got.Alh != a.world.alhs[got.Tx] {
		t.Errorf("transaction %d is trusted, and %d was acknowledged: %s", got.Tx, acknowledged, m.text)
	}
	a.toldOnce(t, len(m.incidents))
	before := len(a.hook.all())
	if third := plain(t, a.dir, a.world.once(a)...); third.code != 3 || len(a.hook.all()) != before {
		t.Errorf("the third run: exit code %d, %d notifications after %d\n%s%s", third.code, len(a.hook.all()), before, third.out, third.log)
	}
	a.sound(t)
}

// toldOnce checks the notifications of some incidents: there are any, and
// repeats have one key.
func (a *aftermath) toldOnce(t *testing.T, incidents int) {
	t.Helper()
	keys := map[string]int{}
	for _, n := range a.hook.all() {
		var body notification
		if err := json.Unmarshal(n.Body, &body); err != nil || !body.Tampered || body.DB != "defaultdb" || n.Status != http.StatusOK {
			t.Errorf("notification %s: %v", n.Body, err)
		}
		keys[n.Key]++
	}
	if len(keys) == 0 {
		t.Error("the alarm was lost")
	}
	// An alarm that could not be stored is told again by the next run, which
	// cannot know of it.
	if len(keys) > incidents && !strings.Contains(a.said.log, "storing an incident failed") {
		t.Errorf("%d incidents were told under %d keys: %v", incidents, len(keys), keys)
	}
}

// evidence gives the evidence files, each of which must be whole.
func (a *aftermath) evidence(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(a.dir, "state", "evidence", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.Recheck(b, evidence.RecheckOptions{}); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
	return files
}

package cli_test

import (
	"syscall"
	"testing"

	"immuaudit/evidence"
)

// A daemon meets a fault while its ledger grows and is attacked. As long as it
// lives it tells the attack, whatever became of the disk; the next run knows
// all that was said, and tells what was not.
func TestFaultsOfADaemon(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	s := episode{before: first.audited(1, 0)}
	s.args = func(a *aftermath) []string {
		a.world = first.twin(a.t)
		return []string{
			"audit-mode", "-a", a.world.Addr(), "--audit-server", "tested", "--json", "--audit-interval", "50ms",
			"--audit-notification-url", a.hook.url(),
		}
	}
	s.beside = func(a *aftermath) {
		observed := func(tx uint64) func() bool {
			return func() bool {
				for _, r := range reportsIn(a.t, a.out) {
					if r.Observed != nil && r.Observed.Tx == tx && (a.fell.Load() || r.Trusted.Tx == tx) {
						return true
					}
				}
				return false
			}
		}
		if !a.until("transaction 5 is looked at", observed(5)) {
			return
		}
		a.world.grow(3)
		if !a.until("transaction 8 is looked at", observed(8)) {
			return
		}
		// In every second trial the disk is well again by then.
		a.over.Store(a.at != nil && a.at.nth%2 == 0)
		a.world.attack()
		if a.until("the attack is told", func() bool { return len(a.hook.all()) > 0 }) {
			a.tracer.signal(syscall.SIGTERM)
		}
	}
	s.check = func(t *testing.T, a *aftermath) {
		acknowledged := uint64(5)
		if r := a.said.last(evidence.Consistent); r != nil {
			acknowledged = r.Trusted.Tx
		}
		if a.at == nil && acknowledged != 8 {
			t.Fatalf("undisturbed: transaction %d\n%s", acknowledged, a.said.log)
		}
		if tx, _ := a.world.state(); tx < 9 { // it did not live to see the attack
			a.world.grow(int(8 - tx))
			a.world.honest(t, a.memory(t), acknowledged)
			if round := plain(t, a.dir, a.world.once(a)...); round.code != 0 || round.last(evidence.Consistent) == nil {
				t.Fatalf("the next run: exit code %d\n%s%s", round.code, round.out, round.log)
			}
			acknowledged = 8
			a.world.attack()
		}
		a.convicted(t, acknowledged)
	}
	s.try(t)
}

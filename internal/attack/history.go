package attack

import (
	"errors"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// historyScenarios put another past in place of the one that was seen.
func historyScenarios() []Scenario {
	return []Scenario{
		{
			Name: "rollback", Row: "A1", Known: general, Expect: tampered("rollback", "growth").from(quarter),
			Summary: "puts back an older copy of the database, a quarter shorter",
			Steps:   once("put back an older copy", func(st *Stage) error { return st.shorten(4) }),
		},
		{
			Name: "rollback-one", Row: "A1", Known: general, Expect: tampered("rollback", "growth").from(newest),
			Summary: "drops the newest transaction",
			Steps: once("drop the newest transaction", func(st *Stage) error {
				return st.tamper(func(h *ledger.History, n uint64) { h.Truncate(n - 1) })
			}),
		},
		{
			Name: "fork-longer", Row: "A2", Known: general, Expect: Expectation{Verdict: isTampered, Kind: "fork", Check: "alh", DualCheck: "alh-source", FirstBad: quarter},
			Summary: "puts back an older copy and writes other transactions onto it, more than there were",
			Steps:   forkSteps(7),
		},
		{
			Name: "fork-same-length", Row: "A2", Known: general, Expect: tampered("fork", "alh").from(quarter),
			Summary: "puts back an older copy and writes as many other transactions onto it",
			Steps:   forkSteps(0),
		},
		{
			Name: "fork-shorter", Row: "A2", Known: general, Expect: shorterFork().from(quarter),
			Summary: "puts back an older copy and writes fewer other transactions onto it",
			Steps:   forkSteps(-2),
		},
		{
			Name: "emptied", Row: "A3", Known: general, Expect: tampered("emptied", "growth").from(first),
			Summary: "empties the database, under the same UUID",
			Steps: once("empty the database", func(st *Stage) error {
				return st.tamper(func(h *ledger.History, _ uint64) { h.Truncate(0) })
			}),
		},
		{
			Name: "fork-new-uuid", Row: "A4", Known: cveUUID, Expect: Expectation{Verdict: isTampered, Kind: "fork", Check: "alh", FirstBad: quarter, Alert: true},
			Summary: "forks, and gives the server another UUID, so that clients that keep states by UUID trust anew",
			// In one step: who sees the fork under the old UUID has seen A2.
			Steps: once("put back an older copy, write other transactions onto it, and change the UUID", func(st *Stage) error {
				if err := st.fork(7); err != nil {
					return err
				}
				return st.Ledger.SetUUID("immuauditattackkit00")
			}),
		},
		{
			Name: "deleted", Row: "A5", Known: general, Expect: tampered("vanished", "existence"),
			Summary: "deletes the database",
			Steps:   once("delete the database", func(st *Stage) error { return st.Ledger.DeleteDatabase(st.Database) }),
		},
		{
			Name: "renamed-away", Row: "A5", Known: general, Expect: tampered("vanished", "existence"),
			Summary: "gives the database another name",
			Steps: once("rename the database", func(st *Stage) error {
				return st.Ledger.RenameDatabase(st.Database, "renamed-by-attack")
			}),
		},
		{
			Name: "recreated-longer", Row: "A6", Known: general, Expect: tampered("fork", "").from(first),
			Summary: "deletes the database and makes it anew with other content, more than there was",
			Steps:   once("make the database anew", func(st *Stage) error { return st.recreate(7) }),
		},
		{
			Name: "recreated-shorter", Row: "A6", Known: general, Expect: shorterFork().from(first),
			Summary: "deletes the database and makes it anew with other content, less than there was",
			Steps:   once("make the database anew", func(st *Stage) error { return st.recreate(-5) }),
		},
		{
			Name: "state-hash", Row: "A12", Known: general, Expect: tampered("fork", "alh").from(newest),
			Summary: "claims another hash for the same transaction",
			Steps: once("change the hash of claimed states", func(st *Stage) error {
				st.states(func(s *schema.ImmutableState) { s.TxHash = flip(s.TxHash) })
				return nil
			}),
		},
		{
			Name: "newest-rewritten", Row: "A12", Known: general, Expect: tampered("fork", "alh").from(newest),
			Summary: "changes the newest transaction; state, header and proofs agree with each other",
			Steps: once("change the newest transaction", func(st *Stage) error {
				return st.tamper(func(h *ledger.History, n uint64) {
					h.Header(n).Ts++
					h.Rehash(n)
				})
			}),
		},
		{
			Name: "oldest-rewritten", Row: "A12", Known: general, Expect: tampered("fork", "alh").from(first),
			Summary: "changes a value in the first transaction, and everything after it so that it fits",
			Steps: once("change the first transaction and rehash the rest", func(st *Stage) error {
				return st.tamper(func(h *ledger.History, _ uint64) {
					h.SetValue(1, 0, []byte("\x00forged"))
					h.Rehash(1)
				})
			}),
		},
		{
			Name: "one-of-many", Row: "A25", Known: general, Expect: tampered("fork", "alh").from(quarter),
			Summary: "forks one database among five, the others stay well",
			prepare: func(st *Stage) error {
				for _, name := range [...]string{"bystander1", "bystander2", "bystander3", "bystander4"} {
					if _, err := st.Ledger.Database(name); err == nil {
						continue // from an earlier run
					}
					if err := st.Ledger.CreateDatabase(name); err != nil {
						return err
					}
				}
				return st.fill(historyLength)
			},
			Steps: forkSteps(7),
		},
	}
}

// shorten drops the newest part-th of the history, one transaction at least.
func (st *Stage) shorten(part uint64) error {
	return st.tamper(func(h *ledger.History, n uint64) { h.Truncate(n - dropped(n, part)) })
}

// dropped is how many transactions shorten drops of n.
func dropped(n, part uint64) uint64 { return max(1, n/part) }

// forkSteps replace the newest quarter by other transactions, more of them by
// extra.
func forkSteps(extra int) []Step {
	return once("put back an older copy and write other transactions onto it", func(st *Stage) error { return st.fork(extra) })
}

func (st *Stage) fork(extra int) error {
	before, err := st.last()
	if err != nil {
		return err
	}
	if err := st.shorten(4); err != nil {
		return err
	}
	return st.write(max(0, int(dropped(before, 4))+extra), "forged")
}

// recreate deletes the database and makes it anew.
func (st *Stage) recreate(extra int) error {
	before, err := st.last()
	if err != nil {
		return err
	}
	// Renamed first: a name that was deleted is free only after a restart
	// (docs/protocol.md §1), as this is done by somebody who restarts.
	const aside = "deleted-by-attack"
	err = errors.Join(
		st.Ledger.RenameDatabase(st.Database, aside),
		st.Ledger.DeleteDatabase(aside),
		st.Ledger.CreateDatabase(st.Database),
	)
	if err != nil {
		return err
	}
	return st.write(max(1, int(before)+extra), "another life")
}

// shorterFork is a rollback to those who remember proven states alone; whoever
// also remembers the transactions before them sees that it is a fork.
func shorterFork() Expectation {
	e := tampered("fork", "growth")
	e.DualKind, e.DualCheck = "rollback", "growth"
	return e
}

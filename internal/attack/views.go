package attack

import (
	"context"
	"errors"
	"sync"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// viewScenarios show different things to different clients, or the same thing
// for ever. Every single answer is true or could be: no single auditor can
// prove anything from what it is shown.
func viewScenarios() []Scenario {
	return []Scenario{
		{
			Name: "frozen", Row: "A21", Known: general, Expect: Expectation{Verdict: consistent, Alert: true},
			Summary: "goes on claiming the same old state while transactions are committed",
			Steps: once("freeze the state, and commit ten transactions", func(st *Stage) error {
				db, err := st.Ledger.Database(st.Database)
				if err != nil {
					return err
				}
				tx, alh := db.State()
				st.states(func(s *schema.ImmutableState) {
					s.TxId, s.TxHash = tx, append([]byte(nil), alh[:]...)
					s.PrecommittedTxId, s.PrecommittedTxHash = s.TxId, s.TxHash
				})
				return st.Write(10)
			}),
		},
		{
			Name: "split-view", Row: "A22", Known: general, Expect: Expectation{Verdict: consistent, Alert: true},
			Summary: "shows the first user that asks one continuation, and all other users another; each is whole in itself, and only a comparison of what two auditors know tells",
			Steps:   once("split the history in two", splitView),
		},
	}
}

// splitView keeps two continuations of one history and puts the right one in
// place for each call.
func splitView(st *Stage) error {
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		return err
	}
	base := db.Snapshot()
	if err := st.write(8, "forged"); err != nil {
		return err
	}
	other := db.Snapshot()
	if err := db.Restore(base); err != nil {
		return err
	}
	if err := st.Write(5); err != nil {
		return err
	}
	v := &views{db: db, other: other}
	st.Layer.Add(Rule{Database: st.Database, Around: v.answer})
	return nil
}

type views struct {
	mu    sync.Mutex
	db    *ledger.Database
	other *ledger.Snapshot // what is not in place now
	first *string          // the user who sees what is in place
}

func (v *views) answer(_ context.Context, c *Call, next func() (any, error)) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.first == nil {
		v.first = &c.User
	}
	if c.User == *v.first {
		return next()
	}
	mine := v.db.Snapshot()
	if err := v.db.Restore(v.other); err != nil {
		return nil, err
	}
	resp, err := next()
	v.other = v.db.Snapshot()
	if restored := v.db.Restore(mine); restored != nil {
		return nil, errors.Join(err, restored)
	}
	return resp, err
}

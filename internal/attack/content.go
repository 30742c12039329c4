package attack

import (
	"context"
	"slices"
	"time"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// Transactions and entry that the scenarios about content damage. The third
// transaction of a stage has three entries.
const (
	damagedTx = 3
	forged    = "\x00forged" // a plain value, with its prefix
)

func damaged(uint64) uint64 { return damagedTx }

// contentScenarios change what transactions contain, and leave the chain alone.
func contentScenarios() []Scenario {
	damage := func(summary string, edit func(h *ledger.History, n uint64)) []Step {
		return once(summary, func(st *Stage) error { return st.tamper(edit) })
	}
	return []Scenario{
		{
			Name: "value-old", Row: "A7", Known: general, Expect: deep("value").from(damaged),
			Summary: "changes the stored bytes of an old value; the server notices when it reads them",
			Steps:   damage("change an old value", func(h *ledger.History, _ uint64) { h.SetValue(damagedTx, 0, []byte(forged)) }),
		},
		{
			Name: "value-new", Row: "A8", Known: general, Expect: deep("value").from(func(n uint64) uint64 { return n + 3 }),
			Summary: "changes the stored bytes of a value that was committed since the last audit",
			// In one step: between the two an auditor would have read it.
			Steps: once("commit three transactions, and change a value of the newest", func(st *Stage) error {
				if err := st.Write(3); err != nil {
					return err
				}
				return st.tamper(func(h *ledger.History, n uint64) { h.SetValue(n, 0, []byte(forged)) })
			}),
		},
		{
			Name: "value-served", Row: "A9", Known: general, Expect: deep("value").from(damaged),
			Summary: "serves another value beside the hash of the right one, with no error",
			Steps: once("serve another value", func(st *Stage) error {
				st.entries(func(e *schema.TxEntry) {
					if len(e.Value) > 0 {
						e.Value, e.VLen = []byte(forged), int32(len(forged))
					}
				})
				return nil
			}),
		},
		{
			Name: "value-fitted", Row: "A9", Known: general, Expect: deep("entries").from(damaged),
			Summary: "changes a value and the hash listed for it, so that the two agree",
			Steps: damage("change a value and its hash", func(h *ledger.History, _ uint64) {
				fit(h, damagedTx)
			}),
		},
		{
			Name: "value-refitted", Row: "A9", Known: general, Expect: deep("header").from(damaged),
			Summary: "changes a value, its hash and the root of the entry tree, so that the three agree and the header is another",
			Steps: damage("change a value, its hash and the root", func(h *ledger.History, _ uint64) {
				fit(h, damagedTx)
				tx := h.Tx(damagedTx)
				tx.Header.EH = ledger.EntriesRoot(tx.Entries, tx.Header.Version)
			}),
		},
		{
			Name: "entry-dropped", Row: "A10", Known: general, Expect: deep("entries").from(damaged),
			Summary: "leaves an entry out of a transaction's listing",
			Steps: damage("drop an entry", func(h *ledger.History, _ uint64) {
				tx := h.Tx(damagedTx)
				tx.Entries = tx.Entries[:len(tx.Entries)-1]
			}),
		},
		{
			Name: "entry-added", Row: "A10", Known: general, Expect: deep("entries").from(damaged),
			Summary: "lists an entry that the transaction never had",
			Steps: damage("add an entry", func(h *ledger.History, _ uint64) {
				tx := h.Tx(damagedTx)
				tx.Entries = append(tx.Entries, ledger.StoredEntry{
					Key: []byte("\x00added"), Value: []byte(forged), HValue: ledger.HashValue([]byte(forged)),
				})
			}),
		},
		{
			Name: "entries-reordered", Row: "A10", Known: general, Expect: deep("entries").from(damaged),
			Summary: "lists the entries of a transaction in another order",
			Steps: damage("reorder the entries", func(h *ledger.History, _ uint64) {
				slices.Reverse(h.Tx(damagedTx).Entries)
			}),
		},
		{
			Name: "entry-key", Row: "A10", Known: general, Expect: deep("entries").from(damaged),
			Summary: "lists a value under another key",
			Steps: damage("change a key", func(h *ledger.History, _ uint64) {
				h.Tx(damagedTx).Entries[0].Key = []byte("\x00account/other")
			}),
		},
		{
			Name: "header-time", Row: "A11", Known: general, Expect: deep("header").from(damaged),
			Summary: "changes the timestamp of an old transaction",
			Steps:   damage("change a timestamp", func(h *ledger.History, _ uint64) { h.Header(damagedTx).Ts -= 86_400 }),
		},
		{
			Name: "header-count", Row: "A11", Known: general, Expect: deep("header").from(damaged),
			Summary: "changes the number of entries in the header of an old transaction",
			Steps:   damage("change a count", func(h *ledger.History, _ uint64) { h.Header(damagedTx).NEntries++ }),
		},
		{
			Name: "header-metadata", Row: "A11", Known: general, Expect: deep("header").from(damaged),
			Summary: "puts metadata into the header of an old transaction, as a record of retention that never was",
			Steps: damage("change the metadata", func(h *ledger.History, _ uint64) {
				hd := h.Header(damagedTx)
				hd.Version, hd.Metadata.TruncatedTxID = 1, damagedTx-1
			}),
		},
		{
			Name: "value-removed", Row: "A23", Known: general, Expect: deep("value-missing").from(damaged),
			Summary: "removes the bytes of an old value, with no record of retention",
			Steps:   damage("remove an old value", func(h *ledger.History, _ uint64) { h.RemoveValue(damagedTx, 0) }),
		},
		{
			Name: "retention", Row: "A23", Known: general, Expect: honest(),
			Summary: "no attack: removes old values and records it, as retention does",
			Steps: once("truncate the older half", func(st *Stage) error {
				n, err := st.last()
				if err != nil {
					return err
				}
				db, err := st.Ledger.Database(st.Database)
				if err == nil {
					_, err = db.Truncate(max(1, n/2))
				}
				return err
			}),
		},
		{
			Name: "time-backwards", Row: "A24", Known: general, Expect: Expectation{Verdict: consistent, Alert: true},
			Summary: "commits a transaction dated a day before the one before it",
			Steps:   once("commit with an old date", func(st *Stage) error { return st.commitAt(-24 * time.Hour) }),
		},
		{
			Name: "time-ahead", Row: "A24", Known: general, Expect: Expectation{Verdict: consistent, Alert: true},
			Summary: "commits a transaction dated ten years ahead",
			Steps:   once("commit with a date in the future", func(st *Stage) error { return st.commitAt(10 * 365 * 24 * time.Hour) }),
		},
	}
}

// fit changes a value and what the entry commits to.
func fit(h *ledger.History, tx uint64) {
	h.SetValue(tx, 0, []byte(forged))
	if e := h.Tx(tx).Entries; len(e) > 0 {
		e[0].HValue = ledger.HashValue([]byte(forged))
	}
}

// entries changes the entries of the damaged transaction, wherever it is listed.
func (st *Stage) entries(change func(e *schema.TxEntry)) {
	st.Layer.Add(Rule{Database: st.Database, Change: func(_ context.Context, c *Call) error {
		var txs []*schema.Tx
		switch m := c.Response.(type) {
		case *schema.Tx:
			txs = []*schema.Tx{m}
		case *schema.TxList:
			txs = m.GetTxs()
		case *schema.VerifiableTx:
			txs = []*schema.Tx{m.GetTx()}
		case *schema.VerifiableEntry:
			if m.GetEntry().GetTx() == damagedTx {
				m.Entry.Value = []byte(forged)[1:]
			}
		case *schema.Entry:
			if m.GetTx() == damagedTx {
				m.Value = []byte(forged)[1:]
			}
		}
		for _, tx := range txs {
			if tx.GetHeader().GetId() != damagedTx {
				continue
			}
			for _, e := range tx.GetEntries() {
				change(e)
			}
		}
		return nil
	}})
}

// commitAt commits one transaction dated so far from the newest.
func (st *Stage) commitAt(offset time.Duration) error {
	n, err := st.last()
	if err != nil {
		return err
	}
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		return err
	}
	newest, err := db.Snapshot().Tx(n)
	if err != nil {
		return err
	}
	_, err = db.Commit(ledger.Tx{
		Entries: []ledger.Entry{{Key: []byte("dated"), Value: []byte("elsewhen")}},
		Ts:      newest.Header.Ts + int64(offset/time.Second),
	})
	return err
}

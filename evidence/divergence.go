package evidence

import (
	"fmt"
	"strconv"
)

// Exact reports whether the divergence names one transaction.
func (d Divergence) Exact() bool { return d.FirstBadTx > 0 && d.FirstBadTx == d.LastGoodTx+1 }

// String says in words where a ledger parts from what was proven.
func (d Divergence) String() string {
	switch {
	case d.KeyText != "":
		return fmt.Sprintf("what does not match is in transaction %d, under key %s", d.FirstBadTx, strconv.QuoteToASCII(d.KeyText))
	case d.Key != "":
		return fmt.Sprintf("what does not match is in transaction %d, under key %s (hex)", d.FirstBadTx, d.Key)
	case d.FirstBadTx == 0:
		return fmt.Sprintf("the chain of transactions agrees with what is remembered up to transaction %d", d.LastGoodTx)
	case d.LastGoodTx == 0 && d.FirstBadTx == 1:
		return "nothing agrees: transaction 1 is the first that differs or is missing"
	case d.Exact():
		return fmt.Sprintf("transaction %d still agrees, transaction %d is the first that differs or is missing", d.LastGoodTx, d.FirstBadTx)
	case d.LastGoodTx == 0:
		return fmt.Sprintf("the first transaction that differs or is missing is one of 1 to %d", d.FirstBadTx)
	}
	return fmt.Sprintf("transaction %d still agrees; the first that differs or is missing is one of %d to %d", d.LastGoodTx, d.LastGoodTx+1, d.FirstBadTx)
}

package mirror

import (
	"fmt"
	"os"
	"testing"

	"immuaudit/evidence"
)

// TestManyLedgers: open files do not grow with ledgers. It counts those of the
// process and therefore runs before the tests that are parallel.
func TestManyLedgers(t *testing.T) {
	const many = 10_000
	m := opened(t, room(t), unsynced)
	handles := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := 0
	for n := range many {
		l := ledgerOf(t, m, evidence.Name{Server: "db1", Database: fmt.Sprint("d", n)})
		if n%100 == 0 {
			appended(t, l, 1, alhs("a", 1, 3))
			witnessed(t, l, signed(l.name, 2, 1), signed(l.name, 3, 2))
			same(t, statesOf(t, l), []evidence.Witnessed{signed(l.name, 2, 1), signed(l.name, 3, 2)})
			holds(t, l, alhs("a", 1, 3))
		}
		if n == 0 {
			before = handles()
		}
	}
	if now := handles(); now > before {
		t.Errorf("%d files are open with %d ledgers, %d with one", now, many, before)
	}
}

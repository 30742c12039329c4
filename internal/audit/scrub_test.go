package audit

import (
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/verify"
)

// What a look began behind may be taken back while it is under way: what lies
// between is then not verified, whatever the look has found.
func TestALookDoesNotLeap(t *testing.T) {
	t.Parallel()
	look := func(from, to uint64) *glance {
		g := &glance{from: from, unseen: true, sum: verify.Summary{From: from, To: to, Through: to, Clean: to}}
		g.sum.Transactions = to - from + 1
		return g
	}
	for _, passes := range []uint64{0, 3} {
		trust := evidence.Trust{Walked: 1001, Verified: 499, Scrub: evidence.Scrub{Settled: 1000, Position: 1000, Clean: 499, Pass: passes}}
		lookAgain(&trust) // transaction 500 can be read now
		advanceScrub(&trust, look(1001, 1001), time.Now())
		if trust.Verified != 499 || trust.Scrub.Settled != 499 || trust.Scrub.Pass != passes {
			t.Errorf("in pass %d, after a look that began behind: %d verified, %+v", passes, trust.Verified, trust.Scrub)
		}
		advanceScrub(&trust, look(500, 1001), time.Now())
		if trust.Verified != 1001 {
			t.Errorf("in pass %d, after a look at all of it: %d verified, %+v", passes, trust.Verified, trust.Scrub)
		}
	}
}

// Memory for contents is never more than was allowed, but for what one answer
// takes.
func TestSharesOfMemory(t *testing.T) {
	t.Parallel()
	for _, memory := range []int64{0, 1, 32 << 20, 64 << 20, 95 << 20, 96 << 20, 100 << 20, 256 << 20, 1 << 30} {
		for _, message := range []int64{0, 1 << 20, 4 << 20, 32 << 20, 1 << 30} {
			d := Deep{MemoryBytes: memory, MessageBytes: message}
			long, short, shorts := d.shares()
			allowed, least := memory, verify.LeastMemory(message)
			if memory == 0 {
				allowed = verify.DefaultMemory
			}
			if all := long + short*shorts; all > max(allowed, least) || shorts < 1 || short < least || long > 0 && long < least {
				t.Errorf("%d bytes with messages of %d: one of %d, %d of %d", memory, message, long, shorts, short)
			}
		}
	}
}

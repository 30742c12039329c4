package verify

import "time"

// DefaultMemory is what [Options.MemoryBytes] is where nothing is said.
const DefaultMemory = 256 << 20

// LeastMemory is how much a run needs to hold a single answer of that size, the
// default where it is 0: with less, it holds more than it was allowed.
func LeastMemory(messageBytes int64) int64 {
	if messageBytes <= 0 {
		messageBytes = defaultMessage
	}
	return answerMemory * messageBytes
}

const (
	defaultMessage = 4 << 20

	// answerMemory is how many times its size an answer can take: as it comes
	// and put together, its entries as they are read, and as they are kept
	// while their values are asked for. The smallest entry has 39 bytes of
	// answer, and 290 in memory.
	answerMemory = 16
	// maxParted bounds the digests that wait for a listing of what a first one
	// left out, in entries, or in the entries of servers before 1.2.3.
	maxParted = 1 << 14

	// maxFlight stretches are looked at at a time, which is more than hides
	// the way to a far server; aheadPerFlight times as many may wait for an
	// earlier one that takes longer.
	maxFlight      = 16
	aheadPerFlight = 4

	// maxPage is how many transactions one call asks for: servers refuse more
	// (docs/protocol.md §1). pageTarget is how many bytes it should bring:
	// enough that the call itself costs nothing to speak of, and little enough
	// that it is hashed while it is still in the processor's cache.
	maxPage    = 1000
	pageTarget = 1 << 20
	// firstPage is the size of the first, when nothing is known of the
	// transactions; pagesBeforeGrowth must fit before a page that was halved
	// is doubled.
	firstPage         = 32
	pagesBeforeGrowth = 16

	// tries are made of a call that fails for the connection, with pauses from
	// firstPause to lastPause between: half a minute of them. slowTries are
	// made of one that gets no answer in its time.
	tries      = 10
	slowTries  = 3
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second

	// maxUnread transactions that cannot be read are left out; more of them
	// end the run.
	maxUnread = 100
	// maxLoose runs of headers wait to be bound at a time, where the server's
	// do not chain. With more of them it is no history any more, and they are
	// given up.
	maxLoose = 100

	// expirySkew is how far the server's clock may be ahead of this one: so
	// much earlier may an entry have expired there.
	expirySkew = 10 * time.Minute

	// maxKeptValue bounds the bytes of a wrong value that are kept, maxKept
	// those of all values and keys that a run keeps.
	maxKeptValue = 64 << 10
	maxKept      = 16 << 20
	// maxKeptKey bounds a key that is named: immudb's own are at most half as
	// long.
	maxKeptKey = 2 << 10
	// maxTightKey is what is named of a key where no more can be kept.
	maxTightKey = 64
	// maxKeptText bounds a server's words that are kept.
	maxKeptText = 256

	// confirmations are so many at most in a run: of what comes after them it
	// is known long since that something is wrong with the ledger, and it is
	// looked at again without.
	confirmations = 200

	// sureGone transactions in a row must have lost all their values before
	// whole pages before a recorded truncation are judged by some of their
	// transactions.
	sureGone = 512
	probes   = 8

	// headerPage is how many headers a call asks for, and maxBeyond how many
	// beyond the trusted ones are read to find the record of a truncation.
	headerPage = 1000
	maxBeyond  = 100_000
)

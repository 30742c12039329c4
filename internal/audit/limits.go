package audit

import "time"

// Follow-up work is bounded here: whatever a server says, a round makes at
// most so many calls and a decision needs at most so many rounds.
const (
	// pageHeaders is how many headers one call asks for; the smallest page
	// limit seen on any server is 1,000 (docs/protocol.md §1).
	pageHeaders = 1000
	// slotsPerServer rounds run at once against one server; ledgers whose
	// last round timed out share slowSlots of their own, so that they delay
	// no other.
	slotsPerServer = 32
	slowSlots      = 4
	// walksPerServer background walks run at once.
	walksPerServer = 2
	// walkSave is how many headers a background walk takes before its
	// progress is stored.
	walkSave = 50 * pageHeaders
	// walkRetry is how long a background walk that met an error rests.
	walkRetry = 5 * time.Second
	// listEvery is how often the server is asked for its databases, which
	// makes it walk their files: seldom.
	listEvery = time.Minute
	// listRetry is how soon after a failed listing it is asked again.
	listRetry = 5 * time.Second
	// maxLedgers bounds the ledgers of one server.
	maxLedgers = 20_000
	// roundTimeout bounds one round, beside the deadline of each call.
	roundTimeout = time.Minute
	// vanishRounds and vanishSpan: a database is gone once so many rounds in
	// a row, over at least this time, were told so by name.
	vanishRounds = 3
	vanishSpan   = 10 * time.Second
	// oncePause lies between the tries of --once for a missing database.
	oncePause = 300 * time.Millisecond
	// walkTurn bounds one stretch of a background walk, so that one ledger
	// whose pages come slowly delays the walks of no other by more, and no
	// walk loses more than that.
	walkTurn = 10 * time.Second
	// slowRound is how long a round may take before its ledger shares the
	// slots of those that time out.
	slowRound = 5 * time.Second
	// maxMarks bounds the states of one ledger that the walk must still meet;
	// above it every second one is forgotten.
	maxMarks = 10_000
	// identityBurst changes of the server's identity are told in
	// identitySpan, so that one that changes in every answer does not push
	// everything else out of the record.
	identityBurst = 5
	identitySpan  = time.Hour
	// chatter and chatterBurst bound the lines a second that a server whose
	// ledgers change their minds in every round can have logged.
	chatter, chatterBurst = 10, 1000
	// reloadRetry is how soon a failed reading of the state is tried again.
	reloadRetry = 5 * time.Second
	// saveEvery is how often what is only informative (last seen, last
	// agreed) is written.
	saveEvery = time.Minute
	// gatherNews is how long news about several ledgers waits to be told
	// together, bundleFrom how many of one kind are told as one. That more ledgers
	// of a server cannot be audited is told after wholeSoon, then ever more
	// seldom, down to every wholeAgain; it counts as over, but for the last ones,
	// when nothing changed for lastOnes. maxUnsent wait to be stored.
	gatherNews = 5 * time.Second
	bundleFrom = 3
	wholeSoon  = 10 * time.Minute
	wholeAgain = time.Hour
	maxUnsent  = 1000
	lastOnes   = 10 * time.Minute
	// remindEvery is how often an open incident is told of that nobody
	// acknowledged, and a ledger that cannot be audited; growthEvery how often, at most, that damage has grown.
	remindEvery = 24 * time.Hour
	growthEvery = time.Hour
	// alarmWithin is how long storing an incident may take before the alarm
	// leaves without it.
	alarmWithin = 10 * time.Second
	// gatherWithin is how long the server is asked for more to show in the
	// evidence, and gatherHeaders how many headers of it are asked for.
	gatherWithin  = 3 * time.Second
	gatherHeaders = pageHeaders
	// mirrorEvery is how long walked transactions wait for others before they
	// are mirrored, which costs a few syncs however many they are; with many
	// ledgers, longer: as long as mirrorsPerSecond takes for them all.
	// pendingEnough of them do not wait, and more than maxPending are not kept
	// in memory but fetched again. mirrorers write at once; trouble rests for
	// mirrorRetry. maxRefill hashes are fetched again without a proof.
	mirrorEvery      = 30 * time.Second
	mirrorsPerSecond = 10
	pendingEnough    = 256
	maxPending       = 1 << 16
	mirrorers        = 4
	mirrorRetry      = time.Minute
	lastMirrors      = 3 * time.Second // when the auditor stops
	maxRefill        = 1 << 20
	// maxSigned states that a server signed wait to be kept; more are thinned.
	// statesPage of those kept are looked at at once.
	maxSigned  = 1024
	statesPage = 1000
	// locateWithin bounds the search for where a ledger was changed, beside
	// maxProbes; suffixHeaders after the trusted state are walked for it.
	locateWithin  = 5 * time.Second
	maxProbes     = 200
	suffixHeaders = walkSave + pageHeaders
	// Contents are verified a slice of deepSlice at a time; those of more than
	// longLook transactions take turns. Trouble rests for deepRetry. Known
	// damage is looked at again every recheckEvery. A pass by period goes on
	// when there are scrubLeast transactions to look at, or its end; one by
	// rate begins at most every scrubPause.
	longLook     = 1000
	deepSlice    = 30 * time.Second
	deepRetry    = 30 * time.Second
	recheckEvery = time.Minute
	scrubLeast   = 1000
	scrubPause   = time.Minute
	// leftRetry is how long what can be read again, and cannot be verified all
	// the same, is left alone; confirmTries is how often damage is looked at
	// for a token that stays.
	leftRetry    = time.Hour
	confirmTries = 3
	// maxAccepted damages of a ledger are lived with.
	maxAccepted = 1000
	// maxChecks of a round are noted in the evidence.
	maxChecks = 1000
	// keptStates signed states go into the evidence.
	keptStates = 8
	// generationEvery is how often the engine looks whether another process
	// decided something.
	generationEvery = 250 * time.Millisecond
	// retryEvery is how soon a round that could not tell is made again where
	// the interval is longer.
	retryEvery = 30 * time.Second
	// pulseEvery is how often the scheduler turns between ticks.
	pulseEvery = time.Second
	// summaryEvery is how often a summary is logged.
	summaryEvery = time.Minute
)

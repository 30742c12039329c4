package alert

import "time"

const (
	// tryTimeout bounds one try to deliver, answer included.
	tryTimeout = 10 * time.Second
	// minRetry and maxRetry bound the time between two tries of one delivery.
	minRetry = time.Second
	maxRetry = 5 * time.Minute
	// triesPerSink is how many deliveries are under way to one sink at once,
	// each for another ledger.
	triesPerSink = 4
	// stopGrace is how long a try under way may go on after the auditor was
	// told to stop: to break it off may mean to send it twice.
	stopGrace = 3 * time.Second
	// recordTimeout bounds one write to the outbox.
	recordTimeout = 10 * time.Second

	// maxWaiting is how many waiting deliveries are looked at together.
	maxWaiting = 16_384
	// lookAhead is how far ahead the outbox is asked for what will be due. It
	// only has to be longer than any wait.
	lookAhead = 365 * 24 * time.Hour
	// lookEvery is how often the outbox is read without being woken, lookPause
	// the shortest time between two reads, lookRetry that after one that failed.
	lookEvery = time.Minute
	lookPause = 200 * time.Millisecond
	lookRetry = 2 * time.Second
	// watchEvery is how often it is asked whether another process wrote to the
	// outbox.
	watchEvery = time.Second
	// sayAgain is how often the log says that a sink still fails.
	sayAgain = 10 * time.Minute
	// giveWay is after how many tries a delivery no longer holds back the later
	// ones of its ledger (about an hour and a half): news that nobody takes
	// must not keep other news from being told.
	giveWay = 24

	maxAnswerBytes = 4 << 10  // of a receiver's answer that are read
	maxQuote       = 200      // of them that are recorded
	maxHeaderBytes = 64 << 10 // of a receiver's headers
	maxErrorBytes  = 512      // of an error that are recorded

	maxBatch    = 50               // events of one digest
	mailPause   = 10 * time.Second // how long the first event of a burst waits for company
	maxDialogue = 256 << 10        // bytes that a mail server says in one conversation
	maxSubject  = 150              // bytes
	maxVariable = 4 << 10          // bytes of one variable of a script's environment
	scriptPause = time.Second      // for a script's children to let go of its output
	beatEvery   = time.Minute
)

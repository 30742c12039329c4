package page

import "time"

// What one visitor can cost, and how much of what a server says is shown.
const (
	maxLabel = 160  // bytes of a name
	maxProse = 1000 // bytes of a longer text

	rowsPerPage   = 200  // ledgers on one page
	maxAPIRows    = 1000 // ledgers, incidents or events in one answer
	defaultRows   = 100  // where an API's caller does not say how many
	maxPage       = 1000 // the last page that may be asked for
	maxParameter  = 256  // bytes of a parameter of a query
	maxIncidents  = 200  // incidents listed on a page
	maxServerRows = 50   // servers listed on a page; the filter reaches all
	maxEvents     = 50   // events listed on a page
	maxScanned    = 20_000
	maxStretches  = 2500 // of history, in one answer
	maxInspected  = 256  // evidence files whose kind of proof is kept in mind

	queryTimeout = 10 * time.Second // for what is read from disk
	bookFresh    = time.Second      // open incidents are read at most once in this time

	maxStreams     = 64
	feedInterval   = time.Second
	heartbeat      = 15 * time.Second
	streamPatience = 10 * time.Second // a reader slower than this is dropped
	growthPeriod   = 30 * time.Minute // growth is measured over one to two of these
	sampleEvery    = time.Minute

	maxDownloads = 4 // evidence files read at once
)

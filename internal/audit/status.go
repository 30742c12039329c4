package audit

import (
	"time"

	"immuaudit/evidence"
)

// Status is what the engine knows at one moment, for the web and for health.
type Status struct {
	Server  string // the operator's name
	Address string // host:port
	// Tags are those the operator gave the server.
	Tags    []string
	UUID    string // as last seen
	Started time.Time
	// LoopAt is when the scheduler last turned; it stops moving when the
	// auditor hangs, whatever the server does.
	LoopAt time.Time
	// FirstPass is set once every known ledger had a round.
	FirstPass bool
	// ServerError is why the server could not be reached or listed; empty if
	// the last call went well.
	ServerError string
	Rounds      uint64 // rounds finished since the start
	InFlight    int    // rounds in flight
	// OldestRound is when the oldest round in flight began, zero if there is
	// none. Rounds have a deadline: one far beyond it hangs.
	OldestRound time.Time
	Dropped     uint64 // ticks dropped because the previous round of the ledger was still in flight
	Ledgers     []LedgerStatus
}

// LedgerStatus is one ledger at one moment.
type LedgerStatus struct {
	Name evidence.Name
	// Last is the newest report; its Time is zero before the first round.
	Last evidence.Report
	// Paused: remembered, but taken out of the configuration. Retired: an
	// operator accepted that it is gone.
	Paused, Retired bool
	LastAttempt     time.Time
	LastSuccess     time.Time // newest round that ended consistent
	// UndeterminedSince is zero while verdicts are reached; Stale once that
	// lasted longer than --audit-stale-after.
	UndeterminedSince time.Time
	Stale             bool
	OpenIncidents     int
	ProvenTx          uint64
	WalkedTx          uint64
	VerifiedTx        uint64
	MirroredTx        uint64         // transactions 1…MirroredTx are mirrored, or wait to be
	Scrub             evidence.Scrub // deep verification, pass after pass
	LookedAt          uint64         // how far it has come just now
	UnreadableTx      uint64         // the first that was looked at and could not be read or verified; 0: none
	Damages           int            // damages in open incidents
	NotGrowing        bool           // no new transaction for longer than --audit-expect-growth
	ClockSkew         bool           // the newest transactions are dated oddly
	ObservedTx        uint64
	// PreviousTx is the trusted transaction before the newest round, for the
	// gauge of the original.
	PreviousTx uint64
	// LaggingTrees counts newly committed transactions whose tree lagged.
	LaggingTrees uint64
}

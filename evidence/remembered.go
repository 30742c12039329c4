package evidence

import "immuaudit/proof"

// Remembered is everything the engine keeps in mind, as the state directory
// gives it back at the start and after somebody else wrote to it.
type Remembered struct {
	Trust []Trust
	Open  []Incident
	// Marks are the states between walked and proven that the walk must meet.
	Marks map[Name][]proof.State
	// Out are the stale events, the newest of its ledger or server each, after
	// which nothing recovered.
	Out []Event
}

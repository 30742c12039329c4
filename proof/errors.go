package proof

import "fmt"

// Check names one step of one verification. The names are stable: they appear
// in evidence.
type Check string

// Steps of the dual proof (docs/protocol.md §4.2), in the order they are made.
const (
	CheckAlhSource     Check = "alh-source"     // step 2: the source header hashes to the trusted Alh
	CheckAlhTarget     Check = "alh-target"     // step 2: the target header hashes to the claimed Alh
	CheckInclusion     Check = "inclusion"      // step 3: the source is a leaf of the target's tree
	CheckConsistency   Check = "consistency"    // step 4: the target's tree extends the source's
	CheckLastInclusion Check = "last-inclusion" // step 5: the last leaf of the target's tree
	CheckLinear        Check = "linear"         // step 6: the chain up to the target
	CheckLinearAdvance Check = "linear-advance" // step 7: the chain is what entered the tree
	CheckLeafBinding   Check = "leaf-binding"   // step 8: the newest leaves are the chain's
)

// Steps of the walk (docs/protocol.md §4.1), in the order they are made.
const (
	CheckID      Check = "id"       // the transaction follows the one before
	CheckPrevAlh Check = "prev-alh" // its header names the Alh of the one before
	CheckBlRoot  Check = "bl-root"  // its tree holds the leaves that were walked
)

// Checks of single things.
const (
	CheckAlh            Check = "alh"             // a header hashes to the Alh it is known by
	CheckSignature      Check = "signature"       // a state is signed by a given key (§5)
	CheckEntryTree      Check = "entry-tree"      // entries are all those that a header commits to (§3)
	CheckEntryInclusion Check = "entry-inclusion" // one entry is among them (§2, VerifiableGet)
	CheckValue          Check = "value"           // a value is the one that its entry commits to (§3)
)

// Need is what would let an unproven check be decided.
type Need string

const (
	// NeedComplete: a list in the answer is absent or too short. Ask again, or
	// walk From…To.
	NeedComplete Need = "complete"
	// NeedAdvance: collect for every transaction t in From+1…To−1 the
	// inclusion proof of VerifiableTxById(tx=target, proveSinceTx=t) and the
	// headers From+1…To, assemble them with RebuildAdvance, and pass the
	// result as Extra.Advance.
	NeedAdvance Need = "advance"
	// NeedBinding: pass the dual proof of VerifiableTxById(tx=To,
	// proveSinceTx=From) as Extra.Binding.
	NeedBinding Need = "binding"
	// NeedWalk: no dual proof can show it. Walk From…To.
	NeedWalk Need = "walk"
	// NeedRoot: the root over the first From leaves, which lie below the
	// walk's window, is needed for transaction To. Pass it to NextWithRoot.
	NeedRoot Need = "root"
)

// Malformed is an answer that breaks a bound or a shape. It never proves
// tampering.
type Malformed struct {
	What string // the field, as it is called on the wire
	Why  string
}

func (e *Malformed) Error() string { return "malformed " + e.What + ": " + e.Why }

// Mismatch is a proven contradiction between what was claimed and what was
// trusted or claimed elsewhere.
type Mismatch struct {
	Check Check
	Tx    uint64 // the transaction at which it shows; 0 where the check knows none
	Want  Hash   // what was trusted or committed to
	Got   Hash   // what the answer leads to
	// Detail says in words what differs, where it is not two hashes or where
	// they do not say enough.
	Detail string
}

func (e *Mismatch) Error() string {
	s := string(e.Check) + " does not match"
	if e.Tx > 0 {
		s = fmt.Sprintf("%s at transaction %d", s, e.Tx)
	}
	if e.Want != e.Got {
		s = fmt.Sprintf("%s: wanted %s, got %s", s, e.Want, e.Got)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unproven is a well-formed answer that does not decide the check, because a
// part is absent, too short or not applicable.
type Unproven struct {
	Check    Check
	Need     Need
	From, To uint64 // transactions that Need speaks of
	Detail   string
}

func (e *Unproven) Error() string {
	s := fmt.Sprintf("%s not proven: need %s from transaction %d to %d", e.Check, e.Need, e.From, e.To)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func malformed(what, format string, args ...any) error {
	return &Malformed{What: what, Why: fmt.Sprintf(format, args...)}
}

// inside puts the enclosing message's name before the field of a *Malformed.
func inside(what string, err error) error {
	if m, ok := err.(*Malformed); ok {
		return &Malformed{What: what + "." + m.What, Why: m.Why}
	}
	return err
}

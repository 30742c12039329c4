// Package attack is a kit of attacks on immudb's auditors and clients: every
// row of docs/threat-model.md that a server can commit, as a named scenario over
// the embedded ledger, or over what it answers.
//
//	s, _ := attack.Find("fork-longer")
//	layer := attack.NewLayer()
//	l, err := ledger.Open(layer.Config(s.Config(ledger.Config{HeaderVersion: 1})))
//	err = l.Start("127.0.0.1:0")
//	st := attack.NewStage(l, layer, ledger.DefaultDB)
//	err = s.Prepare(st)
//	// the auditor makes its first contact, and a consistent round
//	err = s.Strike(st)
//	// the auditor says what s.Expect says
//
// A scenario says what the right verdict is, not what a certain auditor says.
// docs/attack-kit.md is the handbook.
package attack

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"immuaudit/internal/ledger"
)

// Scenario is one attack, or one honest event that looks like one.
type Scenario struct {
	Name    string // what ledger serve --attack calls it
	Row     string // of docs/threat-model.md
	Summary string // what it does
	Known   string // since when, or from whom
	Expect  Expectation
	// Signed: the ledger signs its states, or there is nothing to attack.
	// Pinned: the auditor was given the public key beforehand.
	Signed, Pinned bool
	// Steps are done in turn, and an auditor looks after each: Expect is the
	// first verdict that is not consistent, after the last step at the latest.
	Steps []Step

	prepare func(*Stage) error
}

// Step is one thing that an attacker does.
type Step struct {
	Summary string
	Strike  func(*Stage) error
}

// Expectation is the right verdict, in the words of package evidence.
type Expectation struct {
	Verdict string // consistent, tampered, undetermined
	Kind    string // of tampering
	Reason  string // of being undetermined
	Check   string // of package proof, that is among the findings; may be empty

	// DualOnly: only those see it who verify dual proofs, as immudb's clients
	// do and this auditor does with --audit-walk-limit 0; to a walk over the
	// headers the ledger is consistent.
	DualOnly bool
	// WalkOnly: only a walk over the headers sees it; to dual proofs the
	// ledger is consistent.
	WalkOnly bool
	// DualKind and DualCheck are the kind and the check where a dual proof
	// sees it and not a walk, if they are others.
	DualKind, DualCheck string
	// Deep: only those see it who check every entry and value; to others the
	// ledger is consistent.
	Deep bool
	// Export: only those see it who export transactions to verify them.
	Export bool
	// Alert: something about it calls for an alert and proves nothing, so the
	// verdict is not about it.
	Alert bool
	// FirstBad is where the ledger parts from what it was: the first of its
	// transactions that is shown as another one, is missing, or stands in the
	// tree as another one, given how many there were before the first step. Nil
	// where it parts nowhere: proofs and signatures can be wrong about what is right.
	FirstBad func(before uint64) uint64
}

// Divergence is the last transaction that still is what it was, and the first
// that is not; 0 and 0 where there is none.
func (e Expectation) Divergence(before uint64) (lastGood, firstBad uint64) {
	if e.FirstBad == nil {
		return 0, 0
	}
	firstBad = e.FirstBad(before)
	return firstBad - 1, firstBad
}

// Parting is the divergence of the history that a scenario begins with where
// the database was empty, in words.
func (e Expectation) Parting() string {
	if e.FirstBad == nil {
		return "–"
	}
	lastGood, firstBad := e.Divergence(historyLength)
	return fmt.Sprintf("%d, %d", lastGood, firstBad)
}

func (e Expectation) String() string {
	s := e.Verdict
	if word := cmp.Or(e.Kind, e.Reason); word != "" {
		s += " · " + word
	}
	if e.DualKind != "" && e.DualKind != e.Kind {
		s += " (by dual proof: " + e.DualKind + ")"
	}
	for _, note := range [...]struct {
		on   bool
		text string
	}{{e.DualOnly, "by dual proof"}, {e.WalkOnly, "by walk"}, {e.Deep, "deep verification"}, {e.Export, "by export"}, {e.Alert, "and an alert"}} {
		if note.on {
			s += ", " + note.text
		}
	}
	return s
}

// Config is what the ledger is opened with.
func (s Scenario) Config(base ledger.Config) ledger.Config {
	if s.Signed && base.SigningKey == nil {
		base.SigningKey = kitKey("server")
	}
	return base
}

// Prepare makes the history that the scenario begins with, before any auditor's
// first contact.
func (s Scenario) Prepare(st *Stage) error {
	if s.Signed {
		if err := st.needKey(); err != nil {
			return fmt.Errorf("preparing attack %s: %w", s.Name, err)
		}
	}
	prepare := s.prepare
	if prepare == nil {
		prepare = func(st *Stage) error { return st.fill(historyLength) }
	}
	if err := prepare(st); err != nil {
		return fmt.Errorf("preparing attack %s: %w", s.Name, err)
	}
	return nil
}

// Strike does all steps at once. An auditor that looked at none of them in
// between may find another contradiction first.
func (s Scenario) Strike(st *Stage) error {
	for _, step := range s.Steps {
		if err := step.Strike(st); err != nil {
			return fmt.Errorf("attacking with %s: %w", s.Name, err)
		}
	}
	return nil
}

// All are the scenarios, by row.
func All() []Scenario {
	return slices.Concat(
		historyScenarios(), contentScenarios(), proofScenarios(), malformedScenarios(),
		advanceScenarios(), signatureScenarios(), viewScenarios(), transportScenarios(), treeScenarios(),
	)
}

// Find gives the scenario of a name.
func Find(name string) (Scenario, bool) {
	all := All()
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return Scenario{}, false
	}
	return all[i], true
}

// Parse finds the scenarios of a list of names.
func Parse(names []string) ([]Scenario, error) {
	var out []Scenario
	for _, name := range names {
		s, ok := Find(strings.TrimSpace(name))
		if !ok {
			return nil, fmt.Errorf("%q is no attack; immuclient ledger attacks lists them", name)
		}
		out = append(out, s)
	}
	return out, nil
}

// kitKey is a private key that anybody can make again: the kit signs with
// nothing that is worth keeping secret, and the same way at every run.
func kitKey(label string) *ecdsa.PrivateKey {
	for i := 0; ; i++ {
		seed := sha256.Sum256(fmt.Appendf(nil, "immuaudit attack kit: %s %d", label, i))
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:]); err == nil {
			return key // all but one in 2³² seeds are in range
		}
	}
}

const (
	consistent   = "consistent"
	isTampered   = "tampered"
	undetermined = "undetermined"
)

func tampered(kind, check string) Expectation {
	return Expectation{Verdict: isTampered, Kind: kind, Check: check}
}

// deep is tampering with content, which the chain does not show.
func deep(kind string) Expectation {
	return Expectation{Verdict: isTampered, Kind: kind, Deep: true}
}

// from says which transaction is the first that is not what it was.
func (e Expectation) from(first func(before uint64) uint64) Expectation {
	e.FirstBad = first
	return e
}

// The first bad transaction, of a history of n before the attack.
func first(uint64) uint64    { return 1 }
func newest(n uint64) uint64 { return n }

// quarter is the first that a shortening by a quarter drops.
func quarter(n uint64) uint64 { return n - dropped(n, 4) + 1 }

func doubtful(reason string) Expectation {
	return Expectation{Verdict: undetermined, Reason: reason}
}

// honest is the verdict on what only looks like an attack.
func honest() Expectation { return Expectation{Verdict: consistent} }

// Where attacks come from.
const (
	general = "general"
	own     = "this project, November 2026"
	cveUUID = "CVE-2022-39199"
	cveLag  = "CVE-2022-36111"
)

// once is a scenario of a single step.
func once(summary string, strike func(*Stage) error) []Step {
	return []Step{{summary, strike}}
}

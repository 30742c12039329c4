package audit

import (
	"errors"
	"fmt"
	"slices"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// held notes a check for the evidence, while that is asked for: when a mismatch
// is looked at a second time.
func (o *outcome) held(v *view, check string, tx uint64, detail string, held bool) {
	if !v.trace || len(o.checks) >= maxChecks {
		return
	}
	r := evidence.CheckResult{Check: check, Tx: tx, Result: evidence.Held, Detail: detail}
	if !held {
		return // the finding says so, and trace adds it
	}
	o.checks = append(o.checks, r)
}

// chained notes headers that were walked over.
func (o *outcome) chained(v *view, from, to uint64) {
	if to > from {
		o.held(v, string(proof.CheckPrevAlh), to, fmt.Sprintf("the headers of transactions %d to %d continue each other, and their trees hold what was walked", from+1, to), true)
	}
}

// dualSteps are the steps of a dual proof in the order in which they are made.
var dualSteps = []proof.Check{
	proof.CheckAlhSource, proof.CheckAlhTarget, proof.CheckInclusion, proof.CheckConsistency,
	proof.CheckLastInclusion, proof.CheckLinear, proof.CheckLinearAdvance, proof.CheckLeafBinding,
}

// proved notes the steps of a dual proof: those before the one that failed
// held, those after it were not made.
func (o *outcome) proved(v *view, source, target uint64, err error) {
	if !v.trace {
		return
	}
	var m *proof.Mismatch
	var unproven *proof.Unproven
	failed := len(dualSteps)
	switch {
	case errors.As(err, &m):
		failed = slices.Index(dualSteps, m.Check)
	case errors.As(err, &unproven):
		failed = slices.Index(dualSteps, unproven.Check)
	case err != nil:
		failed = 0
	}
	if failed < 0 {
		return
	}
	about := fmt.Sprintf("dual proof from transaction %d to %d", source, target)
	for _, step := range dualSteps[:failed] {
		o.held(v, string(step), target, about, true)
	}
	for i := failed; i < len(dualSteps) && len(o.checks) < maxChecks; i++ {
		r := evidence.CheckResult{Check: string(dualSteps[i]), Tx: target, Result: evidence.NotMade, Detail: about}
		if i == failed && m != nil {
			continue // it is among the findings
		}
		o.checks = append(o.checks, r)
	}
}

// trace puts what did not hold where it belongs: after what held before it, and
// before what was not made because of it.
func (o *outcome) trace(v *view) {
	if !v.trace {
		return
	}
	var failed []evidence.CheckResult
	for _, f := range o.findings {
		failed = append(failed, evidence.CheckResult{Check: f.Check, Tx: f.Tx, Result: evidence.Failed, Want: f.Want, Got: f.Got, Detail: f.Detail})
	}
	at := slices.IndexFunc(o.checks, func(c evidence.CheckResult) bool { return c.Result == evidence.NotMade })
	if at < 0 {
		at = len(o.checks)
	}
	o.checks = slices.Insert(o.checks, at, failed...)
}

// signedHow says how a state is signed.
func signedHow(v *view, s *proof.SignedState) string {
	switch {
	case len(s.Signature) == 0:
		return "the state need not be signed, and is not"
	case len(v.trust.Key) == 0:
		return "the state is signed by the key sent with it; no other is known"
	}
	return "the state is signed by the trusted key"
}

package evidence

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"time"

	"immuaudit/proof"
)

// RecheckOptions are the keys that the reader holds to be right, from
// elsewhere than the file.
type RecheckOptions struct {
	ServerKey  *ecdsa.PublicKey // the server's signing key, nil where not known
	AuditorKey string           // the auditor's verifier key, empty where not known
}

// Outcome is what a file proves, and to whom.
type Outcome struct {
	File *File
	Sum  [32]byte // SHA-256 of the file
	// Proven: the server's contradiction holds, and where a server key was
	// given, it is under that key.
	Proven bool
	// Vouched: the auditor's key was given, and signed the file.
	Vouched bool
	// Proof, Testimony and Recomputed are sentences for a person: what is
	// proven to anyone, what the auditor says, and what its raw material
	// comes to when every hash is computed again.
	Proof      []string
	Testimony  []string
	Recomputed []string
}

// maxSaid bounds what is said of the raw material.
const maxSaid = 100

// Exit codes of a re-check.
const (
	exitNothing     = 1
	exitNotEvidence = 2
	exitProven      = 3
)

// ExitCode is 3 for proof, and for testimony of the auditor whose key was
// given; 1 for any other testimony; 2 for nil: there was no evidence.
func (o *Outcome) ExitCode() int {
	switch {
	case o == nil:
		return exitNotEvidence
	case o.Proven || o.Vouched:
		return exitProven
	}
	return exitNothing
}

// Recheck checks a file with nothing but itself and the given keys: no server,
// no network, no clock. Every hash is computed again. An error is a
// *NotEvidence, or says what is wrong with the options.
func Recheck(b []byte, opts RecheckOptions) (*Outcome, error) {
	if opts.AuditorKey != "" {
		if _, err := ParseAuditorKey(opts.AuditorKey); err != nil {
			return nil, err
		}
	}
	if opts.ServerKey != nil && opts.ServerKey.Curve != elliptic.P256() {
		return nil, errors.New("the server's key is not ECDSA on P-256; give the key that it signs its states with")
	}
	f, err := Parse(b)
	if err != nil {
		return nil, err
	}
	o := &Outcome{File: f, Sum: sha256.Sum256(b), Vouched: opts.AuditorKey != "" && opts.AuditorKey == f.AuditorKey}
	o.prove(opts.ServerKey)
	o.signed(opts.ServerKey)
	o.testify(opts.AuditorKey != "")
	if o.Vouched {
		o.recompute()
	}
	return o, nil
}

// Fingerprint names a server's key: SHA-256 of its PKIX form, as
// openssl pkey -pubin -outform DER | sha256sum gives it.
func Fingerprint(key *ecdsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("SHA256:%x", sha256.Sum256(der))
}

// prove says what the server signed against itself. Parse has verified it.
func (o *Outcome) prove(given *ecdsa.PublicKey) {
	c := o.File.Proof
	if c == nil {
		return
	}
	key, err := proof.ParsePoint(c.Key)
	if err != nil {
		return // Parse would have refused it
	}
	first, err1 := c.First.Shown()
	second, err2 := c.Second.Shown()
	if err1 != nil || err2 != nil {
		return
	}
	say := func(format string, args ...any) { o.Proof = append(o.Proof, fmt.Sprintf(format, args...)) }
	say("The holder of key %s signed two histories of database %s.", Fingerprint(key), strconv.QuoteToASCII(c.Database))
	for _, s := range []struct {
		shown proof.State
		head  *Showing
	}{{first, &c.First}, {second, &c.Second}} {
		say("Under the state signed at transaction %d (%s), transaction %d is %s%s.", s.head.State.TxID, s.head.State.Alh, s.shown.TxID, s.shown.Alh, means(s.head.Path))
	}
	switch {
	case given == nil:
		o.Proven = true
		say("Whose key that is, the file cannot say: compare the fingerprint with the key you know, or give it with --server-key.")
	case key.Equal(given):
		o.Proven = true
		say("That is the server key you gave.")
	default:
		say("That is NOT the server key you gave, %s: against its holder this proves nothing.", Fingerprint(given))
	}
	say("Signatures name neither server nor time: which history is true they do not say, and two servers that share a key contradict each other.")
}

func means(path []Step) string {
	words := map[By]string{ByHeaders: "its headers", ByInclusion: "its transaction tree", ByLinear: "its chain"}
	s := ""
	for i, step := range path {
		if i == 0 {
			s = " by "
		} else {
			s += " and "
		}
		s += words[step.By]
	}
	return s
}

// signed says which states are under the server's signature: the only other
// thing that holds without the auditor's word.
func (o *Outcome) signed(key *ecdsa.PublicKey) {
	if key == nil {
		return
	}
	for _, s := range o.File.allStates() {
		if len(s.Signature) > 0 && proof.VerifySignature(key, s) == nil {
			o.Proof = append(o.Proof, fmt.Sprintf("The server key you gave signed this state of database %s: transaction %d, %s.", strconv.QuoteToASCII(s.DB), s.TxID, s.Alh))
		}
	}
}

// allStates gives the trusted state, the observed one and all others.
func (m *Material) allStates() []*proof.SignedState {
	out := []*proof.SignedState{&m.Trusted, &m.Observed}
	for i := range m.States {
		out = append(out, &m.States[i])
	}
	return out
}

func (o *Outcome) testify(keyGiven bool) {
	f := o.File
	say := func(format string, args ...any) { o.Testimony = append(o.Testimony, fmt.Sprintf(format, args...)) }
	name := keyName(f.AuditorKey)
	switch {
	case !keyGiven:
		say("What else the file holds is the word of whoever has auditor key %s. That key was not given: nothing of it is claimed here.", name)
		say("If you know the auditor, ask it for its key (immuclient trust key) and give it with --auditor-key.")
		return
	case !o.Vouched:
		say("What else the file holds is the word of whoever has auditor key %s. That is NOT the auditor key you gave.", name)
		return
	}
	say("The auditor whose key you gave, %s, says that on %s it found ledger %s of server %s tampered with: %s (incident %s).", name,
		f.At.Format(time.RFC3339), strconv.QuoteToASCII(f.Name.Database), strconv.QuoteToASCII(f.Name.Server), f.Kind, f.Incident)
	switch c := f.Channel; {
	case c.Certificate != "":
		say("It reached the server by %s; the server's certificate has the SHA-256 %s.", c.Transport, c.Certificate)
	case c.Transport != "":
		say("It reached the server by %s.", c.Transport)
	}
	for _, x := range f.Findings {
		say("%s, check %s%s%s%s", x.Kind, x.Check, at(x.Tx), differs(x.Want, x.Got), sentence(x.Detail))
	}
	o.checks(say)
	if d := f.Divergence; d != nil {
		say("Where: %s.", d)
	}
	for _, left := range f.Omitted {
		say("left out: %s", left)
	}
}

// checks says which checks failed, in the order in which they were made.
func (o *Outcome) checks(say func(string, ...any)) {
	all := o.File.Checks
	results := map[Result]int{}
	for _, x := range all {
		results[x.Result]++
	}
	if len(all) > 0 {
		say("Of %d checks %d held, %d failed and %d were not made.", len(all), results[Held], results[Failed], results[NotMade])
	}
	for i, x := range all {
		odd := ""
		if compared := x.Want != "" && x.Got != ""; compared && x.Result != NotMade && (x.Result == Held) != (x.Want == x.Got) {
			odd = " (which does not fit)"
		}
		if x.Result == Failed || odd != "" {
			say("check %d, %s, %s%s%s%s%s", i+1, x.Check, x.Result, at(x.Tx), differs(x.Want, x.Got), odd, sentence(x.Detail))
		}
	}
}

func at(tx uint64) string {
	if tx == 0 {
		return ""
	}
	return fmt.Sprintf(" at transaction %d", tx)
}

func differs(want, got string) string {
	if want == "" && got == "" {
		return ""
	}
	return fmt.Sprintf(": wanted %s, got %s", want, got)
}

func sentence(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// keyName is what names an auditor's key: its name and its hash.
func keyName(key string) string {
	v, err := ParseAuditorKey(key)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash())
}

// recompute says what the raw material comes to. It shows that the testimony
// is about something, not that a server ever sent it: anyone can make up a
// proof that fails.
func (o *Outcome) recompute() {
	f := o.File
	say := func(format string, args ...any) {
		if len(o.Recomputed) < maxSaid { // a long history that does not hold together says so in every line
			o.Recomputed = append(o.Recomputed, fmt.Sprintf(format, args...))
		}
	}
	o.recomputeDivergence(say)
	for _, p := range f.Probes {
		if p.Shown != nil && proof.LeafHash(*p.Shown) != p.Leaf {
			say("Transaction %d was shown as %s, which is not the one remembered: its leaf hash is %s, the remembered one %s.", p.Tx, *p.Shown, proof.LeafHash(*p.Shown), p.Leaf)
		}
	}
	remembered := map[uint64]proof.Hash{}
	for i, s := range f.allStates() {
		if i != 1 && !isZero(s) { // not the observed one
			remembered[s.TxID] = s.Alh
		}
	}
	o.recomputeStates(say)
	o.recomputeDamaged(say)
	told := map[uint64]bool{}
	for i := range f.Headers {
		h := &f.Headers[i]
		if want, ok := remembered[h.ID]; ok && want != h.Alh() && !told[h.ID] {
			told[h.ID] = true
			say("The header of transaction %d hashes to %s, not to the %s that was remembered.", h.ID, h.Alh(), want)
		}
	}
	for i := 1; i < len(f.Headers); i++ {
		before, h := &f.Headers[i-1], &f.Headers[i]
		if h.ID == before.ID+1 && h.PrevAlh != before.Alh() {
			say("The header of transaction %d names %s before it, but that of transaction %d hashes to %s.", h.ID, h.PrevAlh, before.ID, before.Alh())
		}
	}
	for i, p := range f.Proofs {
		source := stateOf(&p.Source)
		if want, ok := remembered[source.TxID]; ok {
			source.Alh = want
		}
		target := stateOf(&p.Target)
		if f.Observed.TxID == target.TxID && !isZero(&f.Observed) {
			target = f.Observed.State
		}
		var unproven *proof.Unproven
		switch err := proof.VerifyDual(p, source, target, f.extra(p)); {
		case err == nil:
			say("Dual proof %d, from transaction %d to %d, holds.", i+1, source.TxID, target.TxID)
		case errors.As(err, &unproven):
			say("Dual proof %d, from transaction %d to %d, does not decide: %v.", i+1, source.TxID, target.TxID, err)
		default:
			say("Dual proof %d, from transaction %d to %d, does not hold: %v.", i+1, source.TxID, target.TxID, err)
		}
	}
}

// extra finds the binding proof of p among the proofs of the file
// (docs/protocol.md §4.2 step 8).
func (f *File) extra(p *proof.DualProof) *proof.Extra {
	for _, other := range f.Proofs {
		if other != p && other.Source.ID == max(p.Target.BlTxID, 1) && other.Target.ID == p.Target.ID {
			return &proof.Extra{Binding: other}
		}
	}
	return nil
}

func (o *Outcome) recomputeStates(say func(string, ...any)) {
	f := o.File
	key, err := proof.ParsePoint(f.ServerKey)
	if err != nil {
		say("No signing key was known for the ledger: the states stand by the auditor's word.")
		return
	}
	kept, signed := 0, 0
	for i, s := range f.allStates() {
		what := "trusted"
		if i == 1 {
			what = "observed"
		}
		good := proof.VerifySignature(key, s) == nil
		switch {
		case isZero(s):
		case i > 1 && good:
			kept, signed = kept+1, signed+1
		case i > 1:
			kept++
		case len(s.Signature) == 0:
			say("The %s state, of transaction %d, is not signed.", what, s.TxID)
		case good:
			say("The %s state, of transaction %d, is signed by key %s.", what, s.TxID, Fingerprint(key))
		default:
			say("The signature of the %s state, of transaction %d, is not one of key %s.", what, s.TxID, Fingerprint(key))
		}
	}
	if kept > 0 {
		say("Of %d other states that were kept, %d are signed by that key.", kept, signed)
	}
}

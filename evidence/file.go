package evidence

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"immuaudit/proof"
)

// Channel says how the auditor reached the server. It is testimony.
type Channel struct {
	// Transport is "plaintext" or "tls".
	Transport string `json:"transport"`
	// Certificate is the SHA-256 of the server's certificate (DER), in hex.
	Certificate string `json:"certificate_sha256,omitempty"`
}

// Result is how one check ended.
type Result string

const (
	Held    Result = "held"
	Failed  Result = "failed"
	NotMade Result = "not-made" // something it needs was not to be had, or an earlier check made it pointless
)

// CheckResult is one check of the round, in the order they were made.
type CheckResult struct {
	Check  string `json:"check"` // in the words of Finding.Check
	Tx     uint64 `json:"tx,omitempty"`
	Result Result `json:"result"`
	Want   string `json:"want,omitempty"`
	Got    string `json:"got,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Probe is one question of the search for the divergence: what the auditor
// remembers of a transaction, and what the server showed.
type Probe struct {
	Tx uint64
	// Leaf is the RFC 6962 leaf hash H(00 || Alh) of the remembered Alh: that
	// is all that the mirror keeps of a transaction.
	Leaf  proof.Hash
	Shown *proof.Hash // Alh; nil where the server showed none
	Note  string      // why not, or how the hash was had
}

// Material is what an auditor has in hand when it opens an incident. Only
// Incident, Kind and At must be there; everything else is put in where known.
// Nothing in it may be a secret: a file is made to be passed on.
type Material struct {
	Version  string // of the auditor
	Incident string // the incident's id
	// Further: there is a file of this incident, and more was found since.
	// Not part of the file.
	Further bool
	Kind    Kind
	At      time.Time
	Name    Name
	UUID    string // what the server calls itself
	Channel Channel

	Findings   []Finding
	Checks     []CheckResult
	Divergence *Divergence
	Probes     []Probe

	// ServerKey is the signing key (uncompressed point) that is configured or
	// was remembered for the ledger.
	ServerKey []byte
	// Trusted is what was proven before, Observed what the server showed.
	// States are others that were kept since they were proven, those nearest
	// to the trusted one first: 1,000 are searched for a contradiction, 30
	// stand in the file.
	Trusted  proof.SignedState
	Observed proof.SignedState
	States   []proof.SignedState
	// Headers and Proofs are as the server sent them, those that do not hold
	// most of all.
	Headers []proof.Header
	Proofs  []*proof.DualProof
	// Damaged is what deep verification found, for kinds about data.
	Damaged []Damaged
}

// File is one evidence file: docs/evidence-format.md.
type File struct {
	Material
	// Proof is what anybody can convince themselves of; nil where there is
	// none. All the rest is the auditor's testimony.
	Proof *Contradiction
	// Omitted says what was left out, and why.
	Omitted []string
	// AuditorKey is the verifier key of the auditor that signed the file;
	// empty before it is signed.
	AuditorKey string
}

// Build makes a file of what an auditor has in hand, and looks for a
// contradiction that the server itself signed. What exceeds a bound is left
// out and named in Omitted, for an incident must not go without evidence
// because a server sent much. The only errors are a kind or an incident's id
// that no auditor makes.
func Build(in Material) (*File, error) {
	if err := checkIdentity(in.Incident, in.Kind); err != nil {
		return nil, err
	}
	f := &File{Material: in, Proof: FindContradiction(&in)}
	f.At = in.At.UTC().Truncate(time.Microsecond)
	for _, s := range []*string{&f.Version, &f.Name.Server, &f.Name.Database, &f.UUID, &f.Channel.Transport, &f.Channel.Certificate} {
		*s = clean(*s, maxText)
	}
	f.Findings = kept(f, "findings", in.Findings, MaxFindings)
	for i := range f.Findings {
		x := &f.Findings[i]
		x.Check, x.Want, x.Got, x.Detail = clean(x.Check, maxText), clean(x.Want, maxText), clean(x.Got, maxText), clean(x.Detail, maxText)
		x.Key = clean(x.Key, maxKeyHex)
		if !x.Kind.known() {
			x.Detail, x.Kind = clean(fmt.Sprintf("%s (%s)", x.Detail, x.Kind), maxText), in.Kind
		}
	}
	f.Checks = kept(f, "checks", in.Checks, maxChecks)
	for i := range f.Checks {
		x := &f.Checks[i]
		x.Check, x.Want, x.Got, x.Detail = clean(x.Check, maxText), clean(x.Want, maxText), clean(x.Got, maxText), clean(x.Detail, maxText)
		if x.Result != Held && x.Result != Failed {
			x.Result = NotMade
		}
	}
	if d := in.Divergence; d != nil {
		f.Divergence = &Divergence{d.LastGoodTx, d.FirstBadTx, clean(d.Key, maxKeyHex), clean(d.KeyText, maxText)}
	}
	f.Probes = kept(f, "probes", in.Probes, maxProbes)
	for i := range f.Probes {
		f.Probes[i].Note = clean(f.Probes[i].Note, maxText)
	}
	if len(in.ServerKey) > maxSigned {
		f.omit("the server's key, of %d bytes", len(in.ServerKey))
		f.ServerKey = nil
	}
	f.Trusted = f.fitting(in.Trusted)
	f.Observed = f.fitting(in.Observed)
	f.States = nil
	for _, s := range kept(f, "states", in.States, maxStates) {
		if s = f.fitting(s); !isZero(&s) {
			f.States = append(f.States, s)
		}
	}
	f.keepRaw(in)
	return f, nil
}

// keepRaw keeps the proofs and headers that fit. Invalid ones have no bytes
// that their hash would cover.
func (f *File) keepRaw(in Material) {
	f.Headers, f.Proofs = nil, nil
	for i := range in.Headers {
		h := &in.Headers[i]
		if len(f.Headers) == maxHeaders {
			f.omit("%d of %d headers", len(in.Headers)-i, len(in.Headers))
			break
		}
		if err := h.Validate(); err != nil {
			f.omit("the header of transaction %d: %v", h.ID, err)
			continue
		}
		f.Headers = append(f.Headers, *h)
	}
	f.keepDamaged(in.Damaged)
	hashes := 0
	for _, p := range in.Proofs {
		switch {
		case p == nil:
		case p.Source.Validate() != nil || p.Target.Validate() != nil:
			f.omit("a dual proof with an invalid header")
		case len(f.Proofs) >= maxProofs || hashes+sizeOf(p) > maxHashes:
			f.omit("a dual proof of %d hashes, from transaction %d to %d", sizeOf(p), p.Source.ID, p.Target.ID)
		default:
			f.Proofs, hashes = append(f.Proofs, p), hashes+sizeOf(p)
		}
	}
}

// sizeOf counts the hashes of a dual proof, and its lists too.
func sizeOf(p *proof.DualProof) int {
	n := 1 + len(p.Inclusion) + len(p.Consistency) + len(p.LastInclusion) + len(p.Linear.Terms)
	if p.Advance != nil {
		n += len(p.Advance.Terms)
		for _, path := range p.Advance.Inclusions {
			n += 1 + len(path)
		}
	}
	return n
}

// kept gives a copy of the list, as long as it may be.
func kept[T any](f *File, what string, list []T, most int) []T {
	if len(list) > most {
		f.omit("%d of %d %s", len(list)-most, len(list), what)
		list = list[:most]
	}
	return append([]T(nil), list...)
}

func (f *File) omit(format string, args ...any) {
	if len(f.Omitted) < maxOmitted {
		f.Omitted = append(f.Omitted, clean(fmt.Sprintf(format, args...), maxText))
	}
}

// fitting gives a state that can be written down without loss, or none.
func (f *File) fitting(s proof.SignedState) proof.SignedState {
	if !fits(&s) {
		f.omit("the state of transaction %d: a name of %d bytes, a key of %d, a signature of %d", s.TxID, len(s.DB), len(s.PublicKey), len(s.Signature))
		return proof.SignedState{}
	}
	return s
}

// fits reports whether a state can be written down without loss.
func fits(s *proof.SignedState) bool {
	return len(s.DB) <= maxText && len(s.PublicKey) <= maxSigned && len(s.Signature) <= maxSigned && s.TxID <= proof.MaxTxID
}

func isZero(s *proof.SignedState) bool {
	return s.DB == "" && s.State == proof.State{} && len(s.PublicKey) == 0 && len(s.Signature) == 0
}

func (k Kind) known() bool { return k.Rank() < len(kinds) }

// checkIdentity: both become part of a file's name.
func checkIdentity(incident string, kind Kind) error {
	if !kind.known() {
		return fmt.Errorf("%q is no kind of tampering", clean(string(kind), maxText))
	}
	if incident == "" || len(incident) > maxIncident || strings.Trim(incident, "0123456789abcdefghijklmnopqrstuvwxyz-") != "" {
		return fmt.Errorf("%q is no incident: an id has 1 to %d lower-case letters, digits and dashes", clean(incident, maxText), maxIncident)
	}
	return nil
}

// Text that a server sent, or a file claims, ends up on terminals and in
// tickets: nothing in it may move a cursor, break a line or turn the direction
// of writing round. The list is spelled out, for tables of Unicode change.
func harmless(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0, // control characters
		r == 0x061c, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, // invisible, breaking, turning
		r == 0xfeff, r >= 0xfff0 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe0fff:
		return false
	}
	return true
}

// clean makes a text that isClean accepts.
func clean(s string, most int) string {
	var b strings.Builder
	for _, r := range s { // invalid UTF-8 comes as U+FFFD
		if !harmless(r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > most {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isClean(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0
}

package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"immuaudit/proof"
)

// formatVersion is raised when a field changes its meaning.
const formatVersion = 1

// NotEvidence is a file that cannot be what it claims: not of this format,
// beyond a bound, or changed since it was signed.
type NotEvidence struct{ Err error }

func (e *NotEvidence) Error() string {
	return "this is no evidence file as an auditor signed it: " + e.Err.Error()
}

func (e *NotEvidence) Unwrap() error { return e.Err }

// Encode signs the file and gives its bytes: one JSON object with the body, as
// it is signed, and the note over it. The same file and the same key give the
// same bytes.
func (f *File) Encode(signer Signer) ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("checking the evidence before it is signed: %w", err)
	}
	body, err := f.encodeBody(signer.VerifierKey())
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: noteText(body)}, signer)
	if err != nil {
		return nil, fmt.Errorf("signing the evidence: %w", err)
	}
	b, err := assemble(body, string(signed))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("the evidence has %d bytes, at most %d", len(b), MaxFile)
	}
	return b, nil
}

// Parse reads a file that Encode made, and nothing else: every byte that
// differs from what Encode would write is refused, and so is a note that the
// key named in the file did not sign. Whose key that is, Parse cannot know.
// An error is a *NotEvidence.
func Parse(b []byte) (*File, error) {
	f, err := parse(b)
	if err != nil {
		return nil, &NotEvidence{err}
	}
	return f, nil
}

func parse(b []byte) (*File, error) {
	if len(b) > MaxFile {
		return nil, fmt.Errorf("%d bytes, at most %d", len(b), MaxFile)
	}
	if n := elements(b); n > maxElements {
		return nil, fmt.Errorf("%d values, at most %d", n, maxElements)
	}
	var outer struct {
		Body json.RawMessage `json:"body"`
		Note string          `json:"note"`
	}
	if err := strictly(b, &outer); err != nil {
		return nil, err
	}
	// One form only, or the same evidence could lie about under many names.
	if again, err := assemble(outer.Body, outer.Note); err != nil || !bytes.Equal(again, b) {
		return nil, errors.New("its outer form is not the one that is written")
	}
	var body bodyJSON
	if err := strictly(outer.Body, &body); err != nil {
		return nil, err
	}
	if body.Version != formatVersion {
		return nil, fmt.Errorf("format version %d is not known, only %d is; use a newer immuclient", body.Version, formatVersion)
	}
	if err := checkNote(outer.Note, outer.Body, body.Auditor.Key); err != nil {
		return nil, err
	}
	f, err := body.file()
	if err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	again, err := f.encodeBody(f.AuditorKey)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, outer.Body) {
		return nil, errors.New("its body is not in the form that is written and signed")
	}
	return f, nil
}

func strictly(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("reading its JSON: %w", err)
	}
	return nil
}

// elements counts the values that decoding could make, from above.
func elements(b []byte) (n int) {
	inString := false
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			if inString {
				i++
			}
		case '"':
			inString = !inString
		case ',', '[', '{':
			if !inString {
				n++
			}
		}
	}
	return n
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it is no HTML, and people read it
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing the evidence as JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func assemble(body []byte, note string) ([]byte, error) {
	quoted, err := marshal(note)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{[]byte(`{"body":`), body, []byte(`,"note":`), quoted, []byte("}\n")}, nil), nil
}

// noteText is what is signed: the type, so that the signature can be taken for
// nothing else, and the SHA-256 of the body as it stands in the file.
func noteText(body []byte) string {
	return fmt.Sprintf("immuaudit-evidence-v%d\n%x\n", formatVersion, sha256.Sum256(body))
}

func (f *File) encodeBody(key string) ([]byte, error) {
	b := bodyJSON{Version: formatVersion, Auditor: auditorJSON{key, f.Version}}
	t := &b.Testimony
	*t = testimonyJSON{
		Incident: f.Incident, Kind: f.Kind, Time: f.At.UTC(), Server: f.Name.Server, ServerUUID: f.UUID, Database: f.Name.Database,
		Channel: f.Channel, Findings: f.Findings, Checks: f.Checks, Divergence: f.Divergence, ServerKey: f.ServerKey, Omitted: f.Omitted,
	}
	var errs [7]error
	t.Damaged, errs[6] = mapped(f.Damaged, packDamaged)
	t.Probes, errs[0] = mapped(f.Probes, packProbe)
	t.States, errs[1] = mapped(f.States, packState)
	t.Headers, errs[2] = mapped(f.Headers, packHeader)
	t.Proofs, errs[3] = mapped(f.Proofs, packDual)
	for _, s := range []struct {
		from *proof.SignedState
		to   **stateJSON
	}{{&f.Trusted, &t.Trusted}, {&f.Observed, &t.Observed}} {
		if !isZero(s.from) {
			j, err := packState(s.from)
			*s.to, errs[4] = &j, errors.Join(errs[4], err)
		}
	}
	if f.Proof != nil {
		b.Proof, errs[5] = packProof(f.Proof)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("writing the evidence: %w", err)
	}
	return marshal(b)
}

func (b *bodyJSON) file() (*File, error) {
	t := &b.Testimony
	f := &File{AuditorKey: b.Auditor.Key, Omitted: t.Omitted, Material: Material{
		Version: b.Auditor.Version, Incident: t.Incident, Kind: t.Kind, At: t.Time, Name: Name{t.Server, t.Database}, UUID: t.ServerUUID,
		Channel: t.Channel, Findings: t.Findings, Checks: t.Checks, Divergence: t.Divergence, ServerKey: t.ServerKey,
	}}
	var errs [7]error
	f.Damaged, errs[6] = mapped(t.Damaged, unpackDamaged)
	f.Probes, errs[0] = mapped(t.Probes, unpackProbe)
	f.States, errs[1] = mapped(t.States, unpackState)
	f.Headers, errs[2] = mapped(t.Headers, unpackHeader)
	f.Proofs, errs[3] = mapped(t.Proofs, unpackDual)
	for _, s := range []struct {
		from *stateJSON
		to   *proof.SignedState
	}{{t.Trusted, &f.Trusted}, {t.Observed, &f.Observed}} {
		if s.from != nil {
			var err error
			*s.to, err = unpackState(s.from)
			errs[4] = errors.Join(errs[4], err)
		}
	}
	if b.Proof != nil {
		f.Proof, errs[5] = unpackProof(b.Proof)
	}
	return f, errors.Join(errs[:]...)
}

// check refuses what Build would not have made.
func (f *File) check() error {
	if err := checkIdentity(f.Incident, f.Kind); err != nil {
		return err
	}
	texts := []string{f.Version, f.Name.Server, f.Name.Database, f.UUID, f.Channel.Transport, f.Channel.Certificate}
	texts = append(texts, f.Omitted...)
	count := func(what string, n, most int) error {
		if n > most {
			return fmt.Errorf("%d %s, at most %d", n, what, most)
		}
		return nil
	}
	if err := errors.Join(
		count("findings", len(f.Findings), MaxFindings), count("checks", len(f.Checks), maxChecks), count("probes", len(f.Probes), maxProbes),
		count("states", len(f.States), maxStates), count("headers", len(f.Headers), maxHeaders), count("dual proofs", len(f.Proofs), maxProofs),
		count("damaged entries", len(f.Damaged), MaxFindings),
		count("omissions", len(f.Omitted), maxOmitted), count("bytes of the server's key", len(f.ServerKey), maxSigned),
	); err != nil {
		return err
	}
	for _, x := range f.Findings {
		if !x.Kind.known() {
			return fmt.Errorf("%q is no kind of tampering", clean(string(x.Kind), maxText))
		}
		if !isClean(x.Key, maxKeyHex) {
			return errors.New("the key of a finding is too long, or not hex")
		}
		texts = append(texts, x.Check, x.Want, x.Got, x.Detail)
	}
	for _, x := range f.Checks {
		if x.Result != Held && x.Result != Failed && x.Result != NotMade {
			return fmt.Errorf("%q is no result of a check", clean(string(x.Result), maxText))
		}
		texts = append(texts, x.Check, x.Want, x.Got, x.Detail)
	}
	for _, x := range f.Probes {
		texts = append(texts, x.Note)
	}
	if d := f.Divergence; d != nil {
		texts = append(texts, d.KeyText)
		if !isClean(d.Key, maxKeyHex) {
			return errors.New("the key of the divergence is too long, or not hex")
		}
	}
	for _, text := range texts {
		if !isClean(text, maxText) {
			return fmt.Errorf("a text of %d bytes is too long or holds control characters", len(text))
		}
	}
	hashes := 0
	for _, p := range f.Proofs {
		hashes += sizeOf(p)
	}
	if err := count("hashes in the dual proofs", hashes, maxHashes); err != nil {
		return err
	}
	for i := range f.States {
		if isZero(&f.States[i]) {
			return errors.New("an empty state")
		}
	}
	// What is called proof must be one: no reader may be told that it is, and
	// find out later.
	if f.Proof != nil {
		if err := f.Proof.Verify(); err != nil {
			return fmt.Errorf("its proof does not hold: %w", err)
		}
	}
	return nil
}

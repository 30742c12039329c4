package evidence

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"immuaudit/proof"
)

// The shapes of a file, in the order of their fields. A field never changes
// its meaning within a format version; what is absent is left out.

type bodyJSON struct {
	Version   int           `json:"version"`
	Auditor   auditorJSON   `json:"auditor"`
	Proof     *proofJSON    `json:"proof,omitempty"`
	Testimony testimonyJSON `json:"testimony"`
}

type auditorJSON struct {
	Key     string `json:"key"`
	Version string `json:"version"`
}

type proofJSON struct {
	Key      []byte      `json:"key"`
	Database string      `json:"database"`
	Tx       uint64      `json:"tx"`
	First    showingJSON `json:"first"`
	Second   showingJSON `json:"second"`
}

type showingJSON struct {
	Alh   hexHash    `json:"alh"`
	State stateJSON  `json:"state"`
	Path  []stepJSON `json:"path,omitempty"`
}

type stepJSON struct {
	By      By        `json:"by"`
	Tx      uint64    `json:"tx"`
	Alh     hexHash   `json:"alh"`
	Headers [][]byte  `json:"headers,omitempty"`
	Hashes  []hexHash `json:"hashes,omitempty"`
}

type testimonyJSON struct {
	Incident   string        `json:"incident"`
	Kind       Kind          `json:"kind"`
	Time       time.Time     `json:"time"`
	Server     string        `json:"server"`
	ServerUUID string        `json:"server_uuid,omitempty"`
	Database   string        `json:"database"`
	Channel    Channel       `json:"channel"`
	Findings   []Finding     `json:"findings,omitempty"`
	Checks     []CheckResult `json:"checks,omitempty"`
	Divergence *Divergence   `json:"divergence,omitempty"`
	Probes     []probeJSON   `json:"probes,omitempty"`
	ServerKey  []byte        `json:"server_key,omitempty"`
	Trusted    *stateJSON    `json:"trusted,omitempty"`
	Observed   *stateJSON    `json:"observed,omitempty"`
	States     []stateJSON   `json:"states,omitempty"`
	Headers    [][]byte      `json:"headers,omitempty"`
	Proofs     []dualJSON    `json:"dual_proofs,omitempty"`
	Damaged    []damagedJSON `json:"damaged,omitempty"`
	Omitted    []string      `json:"omitted,omitempty"`
}

type probeJSON struct {
	Tx    uint64   `json:"tx"`
	Leaf  hexHash  `json:"remembered_leaf"`
	Shown *hexHash `json:"shown,omitempty"`
	Note  string   `json:"note,omitempty"`
}

// stateJSON: signed_bytes is what a signature covers; database, tx and alh
// repeat it for people.
type stateJSON struct {
	Database  string  `json:"database"`
	Tx        uint64  `json:"tx"`
	Alh       hexHash `json:"alh"`
	Signed    []byte  `json:"signed_bytes"`
	Signature []byte  `json:"signature,omitempty"`
	PublicKey []byte  `json:"public_key,omitempty"`
}

type dualJSON struct {
	Source        []byte       `json:"source"`
	Target        []byte       `json:"target"`
	Inclusion     []hexHash    `json:"inclusion,omitempty"`
	Consistency   []hexHash    `json:"consistency,omitempty"`
	TargetBlTxAlh hexHash      `json:"target_bl_tx_alh"`
	LastInclusion []hexHash    `json:"last_inclusion,omitempty"`
	Linear        linearJSON   `json:"linear"`
	Advance       *advanceJSON `json:"advance,omitempty"`
}

type linearJSON struct {
	Source uint64    `json:"source"`
	Target uint64    `json:"target"`
	Terms  []hexHash `json:"terms,omitempty"`
}

type advanceJSON struct {
	Terms      []hexHash   `json:"terms,omitempty"`
	Inclusions [][]hexHash `json:"inclusions,omitempty"`
}

// hexHash is a digest as 64 lower-case hex digits.
type hexHash proof.Hash

func (h hexHash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

func (h *hexHash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return errors.New("a hash has 64 hex digits")
	}
	_, err := hex.Decode(h[:], text)
	return err
}

func hexes(list []proof.Hash) []hexHash {
	if list == nil {
		return nil
	}
	out := make([]hexHash, len(list))
	for i := range list {
		out[i] = hexHash(list[i])
	}
	return out
}

func hashes(list []hexHash) []proof.Hash {
	if list == nil {
		return nil
	}
	out := make([]proof.Hash, len(list))
	for i := range list {
		out[i] = proof.Hash(list[i])
	}
	return out
}

// mapped converts a list; of none there is none.
func mapped[A, B any](list []A, f func(*A) (B, error)) ([]B, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]B, len(list))
	for i := range list {
		var err error
		if out[i], err = f(&list[i]); err != nil {
			return nil, fmt.Errorf("number %d: %w", i+1, err)
		}
	}
	return out, nil
}

func packHeader(h *proof.Header) ([]byte, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	return appendHeader(nil, h), nil
}

func unpackHeader(b *[]byte) (proof.Header, error) { return parseHeader(*b) }

func packState(s *proof.SignedState) (stateJSON, error) {
	if !fits(s) {
		return stateJSON{}, errors.New("a state with a name, key or signature that is too long")
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s.DB)))
	b = append(b, s.DB...)
	b = binary.BigEndian.AppendUint64(b, s.TxID)
	b = append(b, s.Alh[:]...)
	return stateJSON{clean(s.DB, maxText), s.TxID, hexHash(s.Alh), b, s.Signature, s.PublicKey}, nil
}

func unpackState(j *stateJSON) (proof.SignedState, error) {
	b := j.Signed
	if len(b) < 4+8+32 || len(b) > 4+maxText+8+32 || uint64(binary.BigEndian.Uint32(b)) != uint64(len(b)-4-8-32) {
		return proof.SignedState{}, errors.New("signed_bytes is not what a state's signature covers")
	}
	name, rest := b[4:len(b)-40], b[len(b)-40:]
	return proof.SignedState{
		DB: string(name), State: proof.State{TxID: binary.BigEndian.Uint64(rest), Alh: proof.Hash(rest[8:])},
		Signature: j.Signature, PublicKey: j.PublicKey,
	}, nil
}

func packDual(in **proof.DualProof) (dualJSON, error) {
	p := *in
	source, err := packHeader(&p.Source)
	if err != nil {
		return dualJSON{}, err
	}
	target, err := packHeader(&p.Target)
	if err != nil {
		return dualJSON{}, err
	}
	j := dualJSON{
		Source: source, Target: target, Inclusion: hexes(p.Inclusion), Consistency: hexes(p.Consistency),
		TargetBlTxAlh: hexHash(p.TargetBlTxAlh), LastInclusion: hexes(p.LastInclusion),
		Linear: linearJSON{p.Linear.SourceTxID, p.Linear.TargetTxID, hexes(p.Linear.Terms)},
	}
	if a := p.Advance; a != nil {
		j.Advance = &advanceJSON{Terms: hexes(a.Terms)}
		for _, path := range a.Inclusions {
			j.Advance.Inclusions = append(j.Advance.Inclusions, append([]hexHash{}, hexes(path)...)) // never null
		}
	}
	return j, nil
}

func unpackDual(j *dualJSON) (*proof.DualProof, error) {
	source, err := parseHeader(j.Source)
	if err != nil {
		return nil, err
	}
	target, err := parseHeader(j.Target)
	if err != nil {
		return nil, err
	}
	p := &proof.DualProof{
		Source: source, Target: target, Inclusion: hashes(j.Inclusion), Consistency: hashes(j.Consistency),
		TargetBlTxAlh: proof.Hash(j.TargetBlTxAlh), LastInclusion: hashes(j.LastInclusion),
		Linear: proof.LinearProof{SourceTxID: j.Linear.Source, TargetTxID: j.Linear.Target, Terms: hashes(j.Linear.Terms)},
	}
	if j.Advance != nil {
		p.Advance = &proof.AdvanceProof{Terms: hashes(j.Advance.Terms)}
		for _, path := range j.Advance.Inclusions {
			p.Advance.Inclusions = append(p.Advance.Inclusions, hashes(path))
		}
	}
	return p, nil
}

func packStep(s *Step) (stepJSON, error) {
	headers, err := mapped(s.Headers, packHeader)
	return stepJSON{s.By, s.To.TxID, hexHash(s.To.Alh), headers, hexes(s.Hashes)}, err
}

func unpackStep(j *stepJSON) (Step, error) {
	headers, err := mapped(j.Headers, unpackHeader)
	return Step{j.By, proof.State{TxID: j.Tx, Alh: proof.Hash(j.Alh)}, headers, hashes(j.Hashes)}, err
}

func packShowing(s *Showing) (showingJSON, error) {
	shown, err := s.Shown()
	if err != nil {
		return showingJSON{}, err
	}
	state, err := packState(&s.State)
	if err != nil {
		return showingJSON{}, err
	}
	path, err := mapped(s.Path, packStep)
	return showingJSON{hexHash(shown.Alh), state, path}, err
}

func unpackShowing(j *showingJSON) (Showing, error) {
	state, err := unpackState(&j.State)
	if err != nil {
		return Showing{}, err
	}
	path, err := mapped(j.Path, unpackStep)
	return Showing{state, path}, err
}

func packProof(c *Contradiction) (*proofJSON, error) {
	first, err := packShowing(&c.First)
	if err != nil {
		return nil, fmt.Errorf("the first path: %w", err)
	}
	second, err := packShowing(&c.Second)
	if err != nil {
		return nil, fmt.Errorf("the second path: %w", err)
	}
	return &proofJSON{c.Key, clean(c.Database, maxText), c.Tx, first, second}, nil
}

func unpackProof(j *proofJSON) (*Contradiction, error) {
	first, err := unpackShowing(&j.First)
	if err != nil {
		return nil, fmt.Errorf("the first path: %w", err)
	}
	second, err := unpackShowing(&j.Second)
	if err != nil {
		return nil, fmt.Errorf("the second path: %w", err)
	}
	return &Contradiction{j.Key, first.State.DB, j.Tx, first, second}, nil
}

func packProbe(p *Probe) (probeJSON, error) {
	return probeJSON{p.Tx, hexHash(p.Leaf), (*hexHash)(p.Shown), p.Note}, nil
}

func unpackProbe(j *probeJSON) (Probe, error) {
	return Probe{j.Tx, proof.Hash(j.Leaf), (*proof.Hash)(j.Shown), j.Note}, nil
}

package evidence_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"immuaudit/evidence"
	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// TestRecordings: honest servers, with lagging and non-monotone trees, sign no
// contradiction, however much they send; and what they send is kept as it is.
func TestRecordings(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("..", "proof", "testdata", "vectors", "*.json"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	signer := newAuditor(t, 9)
	proofs := 0
	for _, file := range files {
		var r struct {
			Databases []struct {
				Name   string
				States []struct {
					State []byte `json:"immutable_state_b64"`
				}
				Proofs []struct {
					Proof []byte `json:"verifiable_tx_b64"`
				}
			}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		for _, db := range r.Databases {
			m := incident(evidence.Proof)
			for _, s := range db.States {
				var pb schema.ImmutableState
				if err := proto.Unmarshal(s.State, &pb); err != nil {
					t.Fatal(err)
				}
				state, err := wire.DecodeState(&pb)
				if err != nil {
					t.Fatal(err)
				}
				m.States = append(m.States, state)
			}
			for _, p := range db.Proofs {
				var pb schema.VerifiableTx
				if err := proto.Unmarshal(p.Proof, &pb); err != nil {
					t.Fatal(err)
				}
				v, err := wire.DecodeVerifiableTx(&pb)
				if err != nil {
					t.Fatal(err)
				}
				m.Proofs = append(m.Proofs, v.Proof)
			}
			if len(m.States) == 0 {
				continue
			}
			all, allProofs := m.States, m.Proofs
			m.Observed, m.States = all[len(all)-1], nil
			for from := 0; from < len(all); from += 30 {
				m.States = all[from:min(from+30, len(all))]
				if c := evidence.FindContradiction(&m); c != nil {
					t.Fatalf("%s, %s: a contradiction at transaction %d:\n%+v", filepath.Base(file), db.Name, c.Tx, c)
				}
			}
			for from := 0; from < len(allProofs); from += 50 {
				m.Proofs = allProofs[from:min(from+50, len(allProofs))]
				f, err := evidence.Parse(encoded(t, m, signer))
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range f.Proofs {
					if !sameProof(p, m.Proofs[i]) {
						t.Fatalf("%s, %s: a proof was changed:\n%+v\n%+v", filepath.Base(file), db.Name, m.Proofs[i], p)
					}
					proofs++
				}
				if len(f.Omitted) != 0 {
					t.Errorf("left out: %q", f.Omitted)
				}
			}
			// The recording would show a contradiction if there were one:
			// another history signed by the same key is caught.
			forged := newServerKey(t, 7)
			other := new(book).commit(int(m.Observed.TxID), "another history")
			mine := forged.sign(t, m.Observed)
			m.Trusted, m.Observed, m.Proofs = forged.state(t, mine.DB, other, mine.TxID), mine, nil
			if mine.TxID > 0 && evidence.FindContradiction(&m) == nil {
				t.Errorf("%s, %s: another history was not noticed", filepath.Base(file), db.Name)
			}
		}
	}
	if proofs < 100 {
		t.Errorf("only %d proofs", proofs)
	}
}

// sameProof compares by what is there: no list and an empty one are the same.
func sameProof(a, b *proof.DualProof) bool {
	x, y := *a, *b
	for _, p := range []*proof.DualProof{&x, &y} {
		for _, list := range []*[]proof.Hash{&p.Inclusion, &p.Consistency, &p.LastInclusion, &p.Linear.Terms} {
			*list = append([]proof.Hash{}, *list...)
		}
		for _, h := range []*proof.Header{&p.Source, &p.Target} {
			h.Metadata.Extra = append([]byte{}, h.Metadata.Extra...)
		}
		if p.Advance != nil {
			copied := &proof.AdvanceProof{Terms: append([]proof.Hash{}, p.Advance.Terms...)}
			for _, path := range p.Advance.Inclusions {
				copied.Inclusions = append(copied.Inclusions, append([]proof.Hash{}, path...))
			}
			p.Advance = copied
		}
	}
	return reflect.DeepEqual(x, y)
}

package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
)

// What real servers sent, docs/protocol.md §8.
type recording struct {
	Version   string `json:"server_version"`
	Databases []struct {
		Name   string `json:"name"`
		States []struct {
			Tx  uint64 `json:"tx"`
			Alh string `json:"alh_hex"`
		} `json:"states"`
		Proofs []struct {
			Since uint64 `json:"prove_since_tx"`
			Tx    uint64 `json:"tx"`
			Proof []byte `json:"verifiable_tx_b64"`
		} `json:"proofs"`
		Txs []struct {
			Tx       uint64 `json:"tx"`
			What     string `json:"what"`
			Digests  []byte `json:"tx_digests_b64"`
			Raw      []byte `json:"tx_raw_values_b64"`
			RawError string `json:"tx_raw_values_error"`
			Export   []byte `json:"export_tx_b64"`
		} `json:"txs"`
	} `json:"databases"`
}

func eachRecording(t *testing.T, f func(t *testing.T, r *recording)) {
	t.Helper()
	files, err := filepath.Glob("../../proof/testdata/vectors/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("recordings: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r recording
			if err := json.Unmarshal(data, &r); err != nil {
				t.Fatal(err)
			}
			f(t, &r)
		})
	}
}

func (r *recording) release(t *testing.T) release {
	t.Helper()
	version, _, _ := strings.Cut(r.Version, " ")
	rel, err := parseRelease(version)
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

func unmarshal[M proto.Message](t *testing.T, data []byte, m M) M {
	t.Helper()
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func headerOf(m *schema.TxHeader) Header {
	return Header{
		ID:       m.GetId(),
		PrevAlh:  [32]byte(m.GetPrevAlh()),
		Ts:       m.GetTs(),
		Version:  uint16(m.GetVersion()),
		NEntries: uint32(m.GetNentries()),
		Metadata: TxMetadata{m.GetMetadata().GetTruncatedTxID(), m.GetMetadata().GetExtra()},
		EH:       [32]byte(m.GetEH()),
		BlTxID:   m.GetBlTxId(),
		BlRoot:   [32]byte(m.GetBlRoot()),
	}
}

func entryOf(m *schema.TxEntry) StoredEntry {
	return StoredEntry{
		Key:    m.GetKey(),
		HValue: [32]byte(m.GetHValue()),
		Metadata: EntryMetadata{
			Deleted:      m.GetMetadata().GetDeleted(),
			ExpiresAt:    m.GetMetadata().GetExpiration().GetExpiresAt(),
			NonIndexable: m.GetMetadata().GetNonIndexable(),
		},
	}
}

// TestRecordedEntries rebuilds eH from recorded entries, value digests from
// recorded values, and whole exports.
func TestRecordedEntries(t *testing.T) {
	t.Parallel()
	eachRecording(t, func(t *testing.T, r *recording) {
		entries, values, exports := 0, 0, 0
		for _, db := range r.Databases {
			for _, rec := range db.Txs {
				m := unmarshal(t, rec.Digests, &schema.Tx{})
				tx := StoredTx{Header: headerOf(m.GetHeader())}
				tx.Alh = tx.Header.Alh()
				for _, e := range m.GetEntries() {
					tx.Entries = append(tx.Entries, entryOf(e))
				}
				if got := EntriesRoot(tx.Entries, tx.Header.Version); got != tx.Header.EH {
					t.Errorf("tx %d: eH %x, recorded %x", rec.Tx, got, tx.Header.EH)
				}
				entries += len(tx.Entries)
				if rec.RawError != "" || len(rec.Raw) == 0 {
					continue
				}
				byKey := map[string][]byte{}
				for _, e := range unmarshal(t, rec.Raw, &schema.Tx{}).GetEntries() {
					if r.release(t).atLeast(1, 2, 0) {
						if HashValue(e.GetValue()) != [32]byte(e.GetHValue()) {
							t.Errorf("tx %d: digest of the value of %q", rec.Tx, e.GetKey())
						}
						byKey[string(e.GetKey())] = e.GetValue()
						values++
					}
				}
				if rec.Export == nil {
					continue
				}
				if checkExport(t, r.release(t), &tx, byKey, rec.Export) {
					exports++
				}
			}
		}
		if entries == 0 || (r.release(t).atLeast(1, 2, 0) && values == 0) {
			t.Error("nothing compared")
		}
		if strings.Contains(r.Version, "truncated") != (exports == 0) {
			t.Errorf("%d exports compared", exports)
		}
	})
}

// checkExport takes the values from the recorded export where the recording has
// none of its own, and compares the whole framing.
func checkExport(t *testing.T, rel release, tx *StoredTx, byKey map[string][]byte, want []byte) bool {
	t.Helper()
	for i := range tx.Entries {
		e := &tx.Entries[i]
		v, ok := byKey[string(e.Key)]
		if !ok {
			v = findPreimage(want, e)
		}
		e.Value = v
	}
	got, err := exportPayload(tx, rel, false)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("export of tx %d: %v\n got %x\nwant %x", tx.Header.ID, err, got, want)
		return false
	}
	return true
}

// findPreimage finds an entry's value in an export: the bytes with its digest.
func findPreimage(export []byte, e *StoredEntry) []byte {
	for at := 0; ; {
		i := bytes.Index(export[at:], e.Key)
		if i < 0 {
			return nil
		}
		at += i + len(e.Key)
		for skip := 0; skip < 16; skip++ {
			for n := 0; at+skip+n <= len(export) && n < 8192; n++ {
				if v := export[at+skip : at+skip+n]; HashValue(v) == e.HValue {
					return v
				}
			}
		}
	}
}

// known collects what the recordings of one database say of its history.
type known struct {
	t       *testing.T
	headers map[uint64]Header
	alhs    map[uint64][32]byte
	nodes   map[[2]uint64][32]byte // roots of spans of leaves, from proofs
	last    uint64
}

func (k *known) alh(id uint64, h [32]byte) {
	k.t.Helper()
	if old, ok := k.alhs[id]; ok && old != h {
		k.t.Errorf("two Alhs for transaction %d", id)
	}
	k.alhs[id] = h
	k.last = max(k.last, id)
}

func (k *known) header(m *schema.TxHeader) {
	k.t.Helper()
	h := headerOf(m)
	k.headers[h.ID] = h
	k.alh(h.ID, h.Alh())
	if h.ID > 1 {
		k.alh(h.ID-1, h.PrevAlh)
	}
}

// node takes a proof's word for the root of a complete span; what several
// proofs say of one must agree.
func (k *known) node(lo, hi uint64, h []byte) {
	k.t.Helper()
	at := [2]uint64{lo, hi}
	if old, ok := k.nodes[at]; ok && old != [32]byte(h) {
		k.t.Errorf("two roots for the leaves %d to %d", lo, hi)
	}
	k.nodes[at] = [32]byte(h)
}

// path takes an audit path apart.
func (k *known) path(i, n uint64, path [][]byte) {
	k.t.Helper()
	lo, hi := uint64(0), n
	for at := len(path) - 1; at >= 0 && hi-lo > 1; at-- {
		mid := lo + split(hi-lo)
		if i < mid {
			k.node(mid, hi, path[at])
			hi = mid
		} else {
			k.node(lo, mid, path[at])
			lo = mid
		}
	}
}

func (k *known) proof(p *schema.DualProof) {
	k.t.Helper()
	k.header(p.SourceTxHeader)
	k.header(p.TargetTxHeader)
	size := p.TargetTxHeader.BlTxId
	if len(p.InclusionProof) > 0 {
		k.path(p.SourceTxHeader.Id-1, size, p.InclusionProof)
	}
	if size > 0 {
		k.path(size-1, size, p.LastInclusionProof)
		k.alh(size, [32]byte(p.TargetBlTxAlh))
	}
	alh := [32]byte(p.LinearProof.Terms[0])
	k.alh(p.LinearProof.SourceTxId, alh)
	for i, term := range p.LinearProof.Terms[1:] {
		id := p.LinearProof.SourceTxId + 1 + uint64(i)
		alh = chain(id, alh, [32]byte(term))
		k.alh(id, alh)
	}
}

// view is a history of which some leaves and headers are unknown; subtrees over
// unknown leaves come from proofs. It also returns which nodes are known.
func (k *known) view() (*view, func(lo, hi uint64) bool) {
	v := &view{}
	for id := uint64(1); id <= k.last; id++ {
		v.append(&StoredTx{Header: k.headers[id], Alh: k.alhs[id]})
	}
	have := map[[2]uint64]bool{}
	for level := range v.tree.levels {
		for i := range v.tree.levels[level] {
			lo, hi := uint64(i)<<level, uint64(i+1)<<level
			at, mid := [2]uint64{lo, hi}, lo+(hi-lo)/2
			if level == 0 {
				_, have[at] = k.alhs[hi]
			} else if have[[2]uint64{lo, mid}] && have[[2]uint64{mid, hi}] {
				below := v.tree.levels[level-1]
				v.tree.levels[level][i] = nodeHash(below[2*i], below[2*i+1])
				have[at] = true
			}
			if h, ok := k.nodes[at]; ok {
				if have[at] && h != v.tree.levels[level][i] {
					k.t.Errorf("root over the leaves %d to %d differs from the one in proofs", lo+1, hi)
				}
				v.tree.levels[level][i], have[at] = h, true
			}
		}
	}
	return v, func(lo, hi uint64) bool { return have[[2]uint64{lo, hi}] }
}

// peaksKnown reports whether the root over n leaves can be formed.
func peaksKnown(n uint64, have func(lo, hi uint64) bool) bool {
	for lo := uint64(0); lo < n; {
		width := uint64(1) << (bits.Len64(n-lo) - 1)
		if !have(lo, lo+width) {
			return false
		}
		lo += width
	}
	return true
}

// difference names the fields in which two proofs differ.
func difference(got, want *schema.DualProof) string {
	var names []string
	g, w := got.ProtoReflect(), want.ProtoReflect()
	for i := range g.Descriptor().Fields().Len() {
		f := g.Descriptor().Fields().Get(i)
		if g.Has(f) != w.Has(f) || !g.Get(f).Equal(w.Get(f)) {
			names = append(names, fmt.Sprintf("%s: got %.300s, recorded %.300s", f.Name(), g.Get(f), w.Get(f)))
		}
	}
	return strings.Join(names, "; ")
}

// TestRecordedProofs rebuilds every recorded dual proof, byte for byte, from
// the headers and Alhs in the recordings.
func TestRecordedProofs(t *testing.T) {
	t.Parallel()
	eachRecording(t, func(t *testing.T, r *recording) {
		for _, db := range r.Databases {
			k := &known{t: t, headers: map[uint64]Header{}, alhs: map[uint64][32]byte{}, nodes: map[[2]uint64][32]byte{}}
			for _, tx := range db.Txs {
				k.header(unmarshal(t, tx.Digests, &schema.Tx{}).GetHeader())
			}
			for _, p := range db.Proofs {
				k.proof(unmarshal(t, p.Proof, &schema.VerifiableTx{}).GetDualProof())
			}
			for _, s := range db.States {
				alh := k.alhs[s.Tx]
				if s.Tx == 0 {
					alh = emptyDigest
				}
				if got := hex.EncodeToString(alh[:]); got != s.Alh {
					t.Errorf("state of tx %d: %s, recorded %s", s.Tx, got, s.Alh)
				}
			}
			v, have := k.view()
			roots := 0
			for id, h := range k.headers {
				if h.BlTxID == 0 || !peaksKnown(h.BlTxID, have) {
					continue
				}
				roots++
				if v.tree.root(h.BlTxID) != h.BlRoot {
					t.Errorf("root over %d leaves differs from that in header %d", h.BlTxID, id)
				}
			}
			partial := 0
			for _, p := range db.Proofs {
				want := unmarshal(t, p.Proof, &schema.VerifiableTx{}).GetDualProof()
				got, err := v.dualProof(p.Since, p.Tx, r.release(t))
				if err != nil {
					t.Errorf("%d to %d: %v", p.Since, p.Tx, err)
					continue
				}
				// A few headers inside lagging stretches were not recorded;
				// their terms cannot be compared.
				for i := range want.LinearProof.Terms {
					id := want.LinearProof.SourceTxId + uint64(i)
					if _, ok := k.headers[id]; !ok && i > 0 && i < len(got.LinearProof.Terms) {
						got.LinearProof.Terms[i] = want.LinearProof.Terms[i]
						partial++
					}
				}
				if !proto.Equal(got, want) {
					t.Errorf("%d to %d: %s", p.Since, p.Tx, difference(got, want))
				}
			}
			t.Logf("%d proofs, %d terms taken from the recording, %d roots", len(db.Proofs), partial, roots)
			if len(db.Proofs) < 100 || partial > len(db.Proofs)/4 || roots < 15 {
				t.Error("too little of it was compared")
			}
		}
	})
}

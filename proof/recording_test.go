package proof_test

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire"
	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// recording is one file of testdata/vectors: what a running immudb server
// answered. Everything in it is honest.
type recording struct {
	ServerVersion string `json:"server_version"`
	ServerUUID    string `json:"server_uuid"`
	SigningKeyPEM string `json:"signing_public_key_pem"`
	Databases     []struct {
		Name   string `json:"name"`
		States []struct {
			Tx     uint64 `json:"tx"`
			AlhHex string `json:"alh_hex"`
			State  string `json:"immutable_state_b64"`
		} `json:"states"`
		Proofs []struct {
			Since uint64 `json:"prove_since_tx"`
			Tx    uint64 `json:"tx"`
			Proof string `json:"verifiable_tx_b64"`
		} `json:"proofs"`
		Txs []struct {
			Tx             uint64 `json:"tx"`
			What           string `json:"what"`
			Digests        string `json:"tx_digests_b64"`
			RawValues      string `json:"tx_raw_values_b64"`
			RawValuesError string `json:"tx_raw_values_error"`
			Export         string `json:"export_tx_b64"`
		} `json:"txs"`
	} `json:"databases"`
}

// recordedLedger is one database of a recording, decoded.
type recordedLedger struct {
	name    string // file/database
	key     *ecdsa.PublicKey
	states  []proof.SignedState
	alhs    map[uint64]proof.Hash
	headers map[uint64]proof.Header
	proofs  []recordedProof
	byPair  map[[2]uint64]*wire.VerifiableTx
	txs     []recordedTx
}

type recordedProof struct {
	source, target uint64
	*wire.VerifiableTx
}

type recordedTx struct {
	tx             uint64
	digests, raw   *schema.Tx
	rawError       string
	export         []byte
	truncatedSince uint64 // newest truncatedTxID of the ledger
}

// recordings loads testdata/vectors and the directory of IMMUAUDIT_VECTORS.
func recordings(t testing.TB) []*recordedLedger {
	t.Helper()
	dirs := []string{filepath.Join("testdata", "vectors")}
	if dir := os.Getenv("IMMUAUDIT_VECTORS"); dir != "" {
		dirs = append(dirs, dir)
	}
	var ledgers []*recordedLedger
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no recordings in %s (error %v)", dir, err)
		}
		for _, file := range files {
			ledgers = append(ledgers, load(t, file)...)
		}
	}
	return ledgers
}

func load(t testing.TB, file string) []*recordedLedger {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var key *ecdsa.PublicKey
	if r.SigningKeyPEM != "" {
		if key, err = proof.ParsePublicKey([]byte(r.SigningKeyPEM)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	var ledgers []*recordedLedger
	for _, db := range r.Databases {
		l := &recordedLedger{
			name: filepath.Base(file) + "/" + db.Name, key: key,
			alhs:    map[uint64]proof.Hash{0: proof.EmptyAlh()},
			headers: map[uint64]proof.Header{},
			byPair:  map[[2]uint64]*wire.VerifiableTx{},
		}
		for _, s := range db.States {
			var m schema.ImmutableState
			unmarshal(t, s.State, &m)
			state, err := wire.DecodeState(&m)
			if err != nil {
				t.Fatalf("%s: state %d: %v", l.name, s.Tx, err)
			}
			if state.TxID != s.Tx || hex.EncodeToString(state.Alh[:]) != s.AlhHex || state.DB != db.Name {
				t.Fatalf("%s: state %d decodes to %+v", l.name, s.Tx, state)
			}
			l.states = append(l.states, state)
			l.alhs[s.Tx] = state.Alh
		}
		var truncated uint64
		learn := func(h proof.Header) {
			l.headers[h.ID] = h
			truncated = max(truncated, h.Metadata.TruncatedTxID)
			if _, ok := l.alhs[h.ID]; !ok {
				l.alhs[h.ID] = h.Alh()
			}
		}
		for _, p := range db.Proofs {
			var m schema.VerifiableTx
			unmarshal(t, p.Proof, &m)
			v, err := wire.DecodeVerifiableTx(&m)
			if err != nil {
				t.Fatalf("%s: proof %d→%d: %v", l.name, p.Since, p.Tx, err)
			}
			l.proofs = append(l.proofs, recordedProof{p.Since, p.Tx, v})
			l.byPair[[2]uint64{p.Since, p.Tx}] = v
			learn(v.Proof.Source)
			learn(v.Proof.Target)
		}
		for _, x := range db.Txs {
			tx := recordedTx{tx: x.Tx, rawError: x.RawValuesError, export: decodeBase64(t, x.Export)}
			for _, m := range []struct {
				from string
				to   **schema.Tx
			}{{x.Digests, &tx.digests}, {x.RawValues, &tx.raw}} {
				if m.from != "" {
					*m.to = new(schema.Tx)
					unmarshal(t, m.from, *m.to)
				}
			}
			l.txs = append(l.txs, tx)
		}
		for i := range l.txs {
			l.txs[i].truncatedSince = truncated
		}
		ledgers = append(ledgers, l)
	}
	return ledgers
}

func decodeBase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unmarshal(t testing.TB, s string, m proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(decodeBase64(t, s), m); err != nil {
		t.Fatal(err)
	}
}

func (l *recordedLedger) state(tx uint64) proof.State { return proof.State{TxID: tx, Alh: l.alhs[tx]} }

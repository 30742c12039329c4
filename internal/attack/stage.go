package attack

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"immuaudit/internal/ledger"
	"immuaudit/internal/wire/schema"
)

// historyLength is the least number of transactions a scenario begins with:
// enough for proofs of several levels.
const historyLength = 24

// Stage is what a scenario works on. No field may change once it is in use.
type Stage struct {
	Ledger   *ledger.Ledger
	Layer    *Layer
	Database string // the one that is attacked
	// Key is the one that the ledger signs with: whoever controls a server
	// usually has it. Nil where states are not signed.
	Key *ecdsa.PrivateKey
	// Write commits n honest transactions to the attacked database.
	Write func(n int) error
}

// NewStage makes a stage over a ledger that was opened with layer.Config.
func NewStage(l *ledger.Ledger, layer *Layer, database string) *Stage {
	st := &Stage{Ledger: l, Layer: layer, Database: database}
	st.Write = func(n int) error { return st.write(n, "balance") }
	return st
}

// write commits n transactions of one to three entries; what makes their values
// others than those of another life of the same database.
func (st *Stage) write(n int, what string) error {
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		return err
	}
	for range n {
		last, _ := db.State()
		var tx ledger.Tx
		for i := range 1 + last%3 {
			tx.Entries = append(tx.Entries, ledger.Entry{
				Key:   fmt.Appendf(nil, "account/%d/%d", last+1, i),
				Value: fmt.Appendf(nil, "%s %d", what, 100*(last+1)+i),
			})
		}
		if _, err := db.Commit(tx); err != nil {
			return err
		}
	}
	return nil
}

// fill makes sure that there are at least n transactions, and the database.
func (st *Stage) fill(n uint64) error {
	db, err := st.database()
	if err != nil {
		return err
	}
	if last, _ := db.State(); last < n {
		return st.Write(int(n - last))
	}
	return nil
}

// database is the attacked one, made where there is none.
func (st *Stage) database() (*ledger.Database, error) {
	db, err := st.Ledger.Database(st.Database)
	if err == nil {
		return db, nil
	}
	if err := st.Ledger.CreateDatabase(st.Database); err != nil {
		return nil, err
	}
	return st.Ledger.Database(st.Database)
}

// last is the number of transactions.
func (st *Stage) last() (uint64, error) {
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		return 0, err
	}
	last, _ := db.State()
	if last == 0 {
		return 0, errors.New("the database is empty, there is nothing to attack; prepare the scenario first")
	}
	return last, nil
}

// tamper edits the stored history of n transactions.
func (st *Stage) tamper(edit func(h *ledger.History, n uint64)) error {
	if _, err := st.last(); err != nil {
		return err
	}
	db, err := st.Ledger.Database(st.Database)
	if err != nil {
		return err
	}
	return db.Tamper(func(h *ledger.History) { edit(h, h.Len()) })
}

// needKey makes sure that states are signed by a key that is at hand.
func (st *Stage) needKey() error {
	if st.Key == nil {
		st.Key = kitKey("server")
		return st.Ledger.SetSigningKey(st.Key)
	}
	return nil
}

// answers changes the answers about the attacked database to calls that have
// answers of this type.
func answers[M proto.Message](st *Stage, change func(m M)) {
	st.Layer.Add(Rule{Database: st.Database, Change: func(_ context.Context, c *Call) error {
		if m, ok := c.Response.(M); ok {
			change(m)
		}
		return nil
	}})
}

// states changes claimed states, and signs what comes out where states are
// signed: a lie that is signed too.
func (st *Stage) states(change func(s *schema.ImmutableState)) {
	answers(st, func(s *schema.ImmutableState) {
		change(s)
		st.sign(s, s.Db, s.TxId, s.TxHash)
	})
}

// sign puts a signature over a state into s.
func (st *Stage) sign(s *schema.ImmutableState, db string, tx uint64, hash []byte) {
	if st.Key == nil || s.Signature == nil {
		return
	}
	if sig, err := signature(st.Key, db, tx, hash); err == nil {
		s.Signature = sig
	}
}

// signature is that of docs/protocol.md §5.
func signature(key *ecdsa.PrivateKey, db string, tx uint64, hash []byte) (*schema.Signature, error) {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(db)))
	b = append(b, db...)
	b = binary.BigEndian.AppendUint64(b, tx)
	digest := sha256.Sum256(append(b, hash...))
	// No source of randomness: RFC 6979, the same signature at every run.
	der, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing a state: %w", err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	return &schema.Signature{PublicKey: point, Signature: der}, nil
}

// flip changes one bit.
func flip(b []byte) []byte {
	out := append([]byte(nil), b...)
	if len(out) > 0 {
		out[len(out)/2] ^= 1
	}
	return out
}

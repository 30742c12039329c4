package audit

import (
	"fmt"
	"sync"
	"weak"

	"immuaudit/proof"
)

// walked is how far a ledger was walked, and what a walk needs to go on from
// there. It never changes. Most ledgers do not grow from one round to the next,
// and a walk that is ready to go on takes five times what it takes encoded: it
// is taken apart when it is needed, and let go when memory is.
type walked struct {
	at      proof.State
	encoded []byte
	held    *proof.Walk // instead of encoded: stands at what is not stored

	mu     sync.Mutex
	loaded weak.Pointer[proof.Walk]
}

// restingAt takes over a walk that is not moved any more, and its encoding.
func restingAt(walk *proof.Walk, encoded []byte) *walked {
	return &walked{at: walk.At(), encoded: encoded, loaded: weak.Make(walk)}
}

func holding(walk *proof.Walk) *walked { return &walked{at: walk.At(), held: walk} }

// walkedOf decodes what was stored: nothing where nothing was walked.
func walkedOf(encoded []byte) (*walked, error) {
	walk := new(proof.Walk)
	if len(encoded) > 0 {
		if err := walk.UnmarshalBinary(encoded); err != nil {
			return nil, err
		}
	}
	return restingAt(walk, encoded), nil
}

// walk is the walk itself, shared: it must be cloned before it moves.
func (w *walked) walk() *proof.Walk {
	if w.held != nil {
		return w.held
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if walk := w.loaded.Value(); walk != nil {
		return walk
	}
	walk := new(proof.Walk)
	if len(w.encoded) > 0 {
		if err := walk.UnmarshalBinary(w.encoded); err != nil {
			panic(fmt.Sprintf("a walk that was decoded before cannot be decoded: %v", err)) // nobody else has these bytes
		}
	}
	w.loaded = weak.Make(walk)
	return walk
}

// At is the state that was reached.
func (w *walked) At() proof.State { return w.at }

// Alh is the Alh of one of the last transactions that were walked.
func (w *walked) Alh(tx uint64) (proof.Hash, bool) {
	if tx > w.at.TxID || w.at.TxID-tx >= proof.Window {
		return proof.Hash{}, false
	}
	return w.walk().Alh(tx)
}

func (w *walked) Root(size uint64) (proof.Hash, error) { return w.walk().Root(size) }
func (w *walked) Clone() *proof.Walk                   { return w.walk().Clone() }

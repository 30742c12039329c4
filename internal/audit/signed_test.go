package audit_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
	"immuaudit/internal/ledger"
	"immuaudit/internal/mirror"
	"immuaudit/proof"
)

// keptStates gives the transactions of the signed states that are kept, oldest
// first, each of which must be of the ledger's history.
func (r *rig) keptStates(m *mirror.Mirror) (kept []uint64) {
	r.t.Helper()
	l, err := m.Ledger(evidence.Name{Server: "srv", Database: defaultDB})
	if err != nil {
		r.t.Fatal(err)
	}
	states, err := l.States(1, math.MaxUint64, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	history := r.db(defaultDB).Snapshot()
	for _, w := range slices.Backward(states) {
		tx, err := history.Tx(w.State.TxID)
		if err != nil || tx.Header.Alh() != w.State.Alh {
			r.t.Errorf("the kept state of transaction %d is of another history", w.State.TxID)
		}
		kept = append(kept, w.State.TxID)
	}
	return kept
}

func (r *rig) accept(key audit.KeyChoice) {
	r.t.Helper()
	trust := r.trust(defaultDB)
	if err := (&audit.Decider{Memory: r.reopen()}).Accept(r.t.Context(), r.incidents()[0], &trust, key, "a drill"); err != nil {
		r.t.Fatal(err)
	}
}

// Signed states of a history that an operator decided against do not stand
// beside those of the accepted one; those that both share stay.
func TestKeptStatesAfterAccept(t *testing.T) {
	t.Parallel()
	grow := func(r *rig, n int) { r.write(n); r.expect(evidence.Consistent) }
	for name, tt := range map[string]struct {
		do   func(r *rig)
		kind evidence.Kind
		// torn: the mirror knows less than the signed states do.
		torn bool
		want []uint64
	}{
		"fork":                        {do: func(r *rig) { r.rewrite(26) }, kind: evidence.Fork, want: []uint64{10, 20, 40, 45}},
		"longer fork":                 {do: func(r *rig) { r.rewrite(26); r.write(3) }, kind: evidence.Fork, want: []uint64{10, 20, 43, 48}},
		"fork, no tiles":              {do: func(r *rig) { r.rewrite(26) }, kind: evidence.Fork, torn: true, want: []uint64{10, 20, 40, 45}},
		"longer fork, no tiles":       {do: func(r *rig) { r.rewrite(26); r.write(3) }, kind: evidence.Fork, torn: true, want: []uint64{10, 20, 43, 48}},
		"rollback":                    {do: func(r *rig) { r.tamper(func(h *ledger.History) { h.Truncate(25) }) }, kind: evidence.Rollback, want: []uint64{10, 20, 25, 30}},
		"rewritten from the first on": {do: func(r *rig) { r.rewrite(1) }, kind: evidence.Fork, want: []uint64{40, 45}},
		"tree":                        {do: func(r *rig) { r.swapLeaf(1) }, kind: evidence.Tree, want: []uint64{41, 46}},
	} {
		for how, live := range map[string]bool{"running": true, "stopped": false} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
				m := r.mirrored()
				r.write(10)
				r.settle()
				for range 3 {
					grow(r, 10)
				}
				if got := r.keptStates(m); !slices.Equal(got, []uint64{10, 20, 30, 40}) {
					t.Fatalf("kept before: %d", got)
				}
				if tt.torn {
					r.forgetTiles(m)
				}
				var run *running
				if live {
					run = r.start()
					run.await("a consistent round", is(evidence.Consistent))
				}
				tt.do(r)
				if live {
					run.await("the attack", is(evidence.Tampered))
				} else {
					r.tampered(tt.kind)
				}
				r.accept(audit.KeyChoice{})
				if live {
					run.await("the all-clear", is(evidence.Consistent))
					run.stop()
				} else {
					r.expect(evidence.Consistent)
				}
				r.writeTo(defaultDB, 5, "another life")
				r.expect(evidence.Consistent)
				r.expect(evidence.Consistent)
				if got := r.keptStates(m); !slices.Equal(got, tt.want) {
					t.Errorf("kept after: %d, want %d", got, tt.want)
				}
			})
		}
	}
}

// forgetTiles leaves the mirror with signed states alone.
func (r *rig) forgetTiles(m *mirror.Mirror) {
	r.t.Helper()
	l, err := m.Ledger(evidence.Name{Server: "srv", Database: defaultDB})
	if err != nil {
		r.t.Fatal(err)
	}
	states, err := l.States(1, math.MaxUint64, 1000)
	if err == nil {
		err = l.Truncate(0)
	}
	slices.Reverse(states)
	if err == nil {
		err = l.Witness(states)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// broken is a mirror of which a part fails.
type broken struct {
	audit.Mirror
	appends, witnesses bool
}

var errBroken = errors.New("the disk is broken")

func (b *broken) Append(first uint64, alhs []proof.Hash) error {
	if b.appends {
		return errBroken
	}
	return b.Mirror.Append(first, alhs)
}

func (b *broken) Witness(states []evidence.Witnessed) error {
	if b.witnesses {
		return errBroken
	}
	return b.Mirror.Witness(states)
}

// What cannot be kept of the signed states does not stop the tiles, nor the
// other way round.
func TestMirrorHalfBroken(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]broken{"tiles": {appends: true}, "signed states": {witnesses: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
			m := r.mirrored()
			open := r.opts.Mirror
			r.opts.Mirror = func(name evidence.Name, anew bool) (audit.Mirror, error) {
				l, err := open(name, anew)
				return &broken{l, b.appends, b.witnesses}, err
			}
			r.write(300)
			r.settle()
			run := r.start()
			run.await("a consistent round", is(evidence.Consistent))
			r.write(300) // enough to be written at once
			run.await("the new ones", func(rep evidence.Report) bool { return rep.Trusted.Tx == 600 })
			run.stop()
			kept := r.keptStates(m)
			if b.appends && !slices.Equal(kept, []uint64{300, 600}) {
				t.Errorf("kept: %d", kept)
			}
			if b.witnesses {
				r.holds(m, 600)
			}
		})
	}
}

// A ledger that takes hours to be walked again has states that wait: of too many
// every second one goes, never the newest.
func TestManyStatesWait(t *testing.T) {
	t.Parallel()
	r := newRig(t, ledger.Config{HeaderVersion: 1, SigningKey: newKey(t)})
	m := r.mirrored()
	r.opts.Interval = time.Hour
	r.write(1)
	r.settle()
	e, err := audit.New(t.Context(), r.opts)
	if err != nil {
		t.Fatal(err)
	}
	for range 1100 {
		r.write(1)
		e.Round(t.Context(), defaultDB)
	}
	e.Once(t.Context()) // what waits is written
	kept := r.keptStates(m)
	if n := len(kept); n > 700 || n < 500 || kept[n-1] != 1101 {
		t.Errorf("%d kept, the last %d", n, kept[n-1])
	}
}

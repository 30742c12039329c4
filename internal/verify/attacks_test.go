package verify_test

import (
	"testing"

	"immuaudit/internal/attack"
	"immuaudit/internal/ledger"
)

// The attack kit's scenarios about what transactions contain (A7 to A11, A23)
// end in the verdict that the kit says is right, with and without a mirror.
func TestAttackKit(t *testing.T) {
	t.Parallel()
	// Where the damage is: of all scenarios but these in transaction 3.
	elsewhere := map[string]uint64{"value-new": 27}
	// How many values, entries or headers do not hold: of all but these one.
	several := map[string]uint64{"value-served": 3}
	n := 0
	for _, s := range attack.All() {
		switch s.Row {
		case "A7", "A8", "A9", "A10", "A11", "A23":
		default:
			continue
		}
		n++
		for name, mirrored := range map[string]bool{"mirror": true, "trusted states": false} {
			for version := range 2 {
				t.Run(s.Name+"/"+name+"/"+string(rune('0'+version)), func(t *testing.T) {
					t.Parallel()
					g := newRig(t, s.Config(ledger.Config{HeaderVersion: version}))
					st := attack.NewStage(g.ledger, g.layer, ledger.DefaultDB)
					if err := s.Prepare(st); err != nil {
						t.Fatal(err)
					}
					g.remember()
					if err := s.Strike(st); err != nil {
						t.Fatal(err)
					}
					g.follow() // what is committed meanwhile is trusted, too
					o := g.options()
					if !mirrored {
						o = g.unmirrored()
					}
					sum, err := g.verify(o)
					if err != nil {
						t.Fatal(err)
					}
					if s.Expect.Kind == "" {
						if sum.Tally.Damages() > 0 {
							t.Errorf("no attack, and yet %+v", sum.Damages)
						}
						return
					}
					want := max(1, several[s.Name])
					if sum.Tally.Damages() != want || uint64(len(sum.Damages)) != want {
						t.Fatalf("%d damages instead of %d: %+v", sum.Tally.Damages(), want, sum.Damages)
					}
					at := max(3, elsewhere[s.Name])
					for _, d := range sum.Damages {
						if string(d.Kind) != s.Expect.Kind || d.Tx != at {
							t.Errorf("got %s at %d, want %s at %d: %+v", d.Kind, d.Tx, s.Expect.Kind, at, d)
						}
						if d.Header == nil || d.Header.ID != at {
							t.Errorf("without the header: %+v", d)
						}
						if d.Kind.AboutData() && d.Kind != "entries" && (d.Where.Key == "" || d.Where.KeyText == "" || d.Entry == nil || d.Want != d.Entry.HValue.String()) {
							t.Errorf("without its key: %+v", d)
						}
					}
					// Without a mirror nothing vouches for what comes before a
					// header that is another.
					clean := at - 1
					if !mirrored && s.Expect.Kind == "header" {
						clean = 0
					}
					if sum.Clean != clean {
						t.Errorf("clean up to %d instead of %d", sum.Clean, clean)
					}
				})
			}
		}
	}
	if n < 14 {
		t.Errorf("only %d scenarios", n)
	}
}

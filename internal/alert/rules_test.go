package alert

import (
	"testing"

	"immuaudit/evidence"
)

func TestRules(t *testing.T) {
	t.Parallel()
	types := []evidence.EventType{
		evidence.EventComparison, evidence.EventTampered, evidence.EventFirstContact, evidence.EventIdentityChanged,
		evidence.EventSigningBegan, evidence.EventStale, evidence.EventRecovered, evidence.EventStateCreated, evidence.EventDecision,
	}
	type answer struct{ want, coalesce bool }
	for _, c := range []struct {
		on, sink string
		want     map[evidence.EventType]answer
	}{
		{OnTamper, "webhook", map[evidence.EventType]answer{evidence.EventTampered: {true, false}}},
		{"", "webhook", map[evidence.EventType]answer{evidence.EventTampered: {true, false}}},
		{OnAlways, "webhook", map[evidence.EventType]answer{evidence.EventTampered: {true, false}, evidence.EventComparison: {true, true}}},
		{OnAlways, "", nil},
	} {
		rule := Rules(c.on, c.sink)
		for _, typ := range types {
			want, coalesce := rule(evidence.Event{Type: typ})
			if got := (answer{want, coalesce}); got != c.want[typ] {
				t.Errorf("Rules(%q, %q)(%s) = %v, want %v", c.on, c.sink, typ, got, c.want[typ])
			}
		}
	}
}

package alert

import (
	"encoding/json"
	"slices"
	"testing"

	"immuaudit/evidence"
)

// A receiver that acts on the verdict must not be told "undetermined" by what
// is about no ledger, or by what an operator decided.
func TestVerdictIsTold(t *testing.T) {
	t.Parallel()
	ledger, server := evidence.Name{Server: "prod", Database: "db"}, evidence.Name{Server: "prod"}
	for _, c := range []struct {
		event evidence.Event
		want  string
	}{
		{evidence.Event{Type: evidence.EventTampered, Name: ledger, Verdict: evidence.Tampered}, "tampered"},
		{evidence.Event{Type: evidence.EventRecovered, Name: ledger, Verdict: evidence.Consistent}, "consistent"},
		{evidence.Event{Type: evidence.EventStale, Name: ledger}, "undetermined"},
		{evidence.Event{Type: evidence.EventStale, Name: server}, ""},
		{evidence.Event{Type: evidence.EventIdentityChanged, Name: server}, ""},
		{evidence.Event{Type: evidence.EventDecision, Name: ledger}, ""},
		{evidence.Event{Type: evidence.EventStateProblem, Name: ledger}, ""},
		{evidence.Event{Type: evidence.EventStateCreated}, ""},
		{evidence.Event{Type: evidence.EventTest, Name: server}, ""},
	} {
		body, err := encodeCloudEvent(c.event)
		if err != nil {
			t.Fatal(err)
		}
		var sent struct{ Data map[string]any }
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatal(err)
		}
		if got, there := sent.Data["verdict"]; there != (c.want != "") || there && got != c.want {
			t.Errorf("%s of %v: sent %v, want %q", c.event.Type, c.event.Name, got, c.want)
		}
		if want := "IMMUAUDIT_VERDICT=" + c.want; !slices.Contains(variables(c.event), want) {
			t.Errorf("%s of %v: no %s", c.event.Type, c.event.Name, want)
		}
	}
}

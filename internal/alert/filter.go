package alert

import (
	"fmt"
	"slices"
	"strings"

	"immuaudit/evidence"
)

// events are all that can be told, in the order in which they are listed. A
// test is not among them: it goes where it is sent.
var events = [...]evidence.EventType{
	evidence.EventTampered, evidence.EventStillTampered, evidence.EventDamage, evidence.EventAcknowledged, evidence.EventDecision,
	evidence.EventStale, evidence.EventRecovered, evidence.EventFirstContact, evidence.EventIdentityChanged, evidence.EventSigningBegan,
	evidence.EventStateCreated, evidence.EventStateProblem, evidence.EventNotGrowing, evidence.EventClockSkew, evidence.EventComparison,
}

// EventNames lists what a Filter can name.
func EventNames() []string {
	names := make([]string, len(events))
	for i, e := range events {
		names[i] = string(e)
	}
	return names
}

// Events turns names into types of events.
func Events(names []string) ([]evidence.EventType, error) {
	var types []evidence.EventType
	for _, name := range names {
		if !slices.Contains(events[:], evidence.EventType(name)) {
			return nil, fmt.Errorf("%q is no event; the events are %s", name, strings.Join(EventNames(), ", "))
		}
		types = append(types, evidence.EventType(name))
	}
	return types, nil
}

// Filter says which events go to a sink: those that pass all of it.
type Filter struct {
	Events  []evidence.EventType // empty: all but comparison
	Servers []string             // empty: all
	// Databases takes a name; nil: all. What is about a whole server passes.
	Databases func(string) bool
	Tags      []string // empty: all; a server that has one of them passes
}

// Rule says which events go to a sink as its filter has it. tags are those of
// the server that is audited, for events that do not carry them. Of comparisons
// only the newest of a ledger waits.
func Rule(sink string, f Filter, tags []string) func(evidence.Event) (want, coalesce bool) {
	return func(e evidence.Event) (want, coalesce bool) {
		ofServer := e.Name.Server != "" // else it is about the auditor itself, which concerns everybody
		switch {
		case sink == "":
			return false, false
		case e.Type == evidence.EventTest:
			return true, false
		case len(f.Events) == 0 && e.Type == evidence.EventComparison,
			len(f.Events) > 0 && !slices.Contains(f.Events, e.Type),
			ofServer && len(f.Servers) > 0 && !slices.Contains(f.Servers, e.Name.Server),
			f.Databases != nil && e.Name.Database != "" && !f.Databases(e.Name.Database),
			ofServer && len(f.Tags) > 0 && !share(f.Tags, tags) && !share(f.Tags, e.Tags):
			return false, false
		}
		return true, e.Type == evidence.EventComparison
	}
}

func share(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

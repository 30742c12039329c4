package cli_test

import (
	"os"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/config"
	"immuaudit/internal/wire"
)

// The client and the verdicts share their words without importing each other:
// a fault whose reason nobody knows would be reported as merely "refused".
func TestReasonsOfFaultsAreReasonsOfVerdicts(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{
		wire.Unreachable, wire.Timeout, wire.Unauthorised, wire.NotLoaded, wire.NotFound, wire.Malformed, wire.TooLarge, wire.Overloaded, wire.Refused,
	} {
		if !evidence.Reason(reason).Known() {
			t.Errorf("a fault is %q, which is no reason of a verdict", reason)
		}
	}
	// The one exception: what it means depends on which transaction was asked
	// for, so that the engine says it in other words.
	if evidence.Reason(wire.TxNotFound).Known() {
		t.Errorf("%q is a reason of a verdict now: then it needs no mapping", wire.TxNotFound)
	}
}

// The handbook names every setting.
func TestHandbookListsEverySetting(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range config.Settings() {
		if !strings.Contains(string(text), "`"+s.Name+"`") && !strings.Contains(string(text), "--"+s.Name) {
			t.Errorf("docs/operations.md does not name %s", s.Name)
		}
	}
}

package evidence_test

import (
	"encoding/json"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// Nothing starts as good: the zero verdict is undetermined.
func TestZeroVerdict(t *testing.T) {
	t.Parallel()
	var v evidence.Verdict
	if v != evidence.Undetermined || v.String() != "undetermined" {
		t.Errorf("the zero verdict is %s", v)
	}
	if _, err := evidence.Verdict(3).MarshalText(); err == nil {
		t.Error("an unknown verdict was written")
	}
}

func TestVerdictText(t *testing.T) {
	t.Parallel()
	for _, want := range []evidence.Verdict{evidence.Undetermined, evidence.Consistent, evidence.Tampered} {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got evidence.Verdict
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	var v evidence.Verdict
	for _, text := range []string{"", "Consistent", "consistent ", "1"} {
		if err := v.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %s", text, v)
		}
	}
}

// The order of kinds is the design's: an incident's kind is the first of them
// among its findings.
func TestWorst(t *testing.T) {
	t.Parallel()
	kinds := evidence.Kinds()
	want := []evidence.Kind{
		"wrong-database", "signature-missing", "signature-invalid", "key-changed", "emptied", "vanished",
		"fork", "rollback", "tree", "header", "proof", "entries", "value", "value-missing",
	}
	if len(kinds) != len(want) {
		t.Fatalf("%d kinds, want %d", len(kinds), len(want))
	}
	for i, k := range kinds {
		if k != want[i] || k.Rank() != i {
			t.Errorf("kind %d is %s with rank %d, want %s", i, k, k.Rank(), want[i])
		}
		for _, other := range kinds[i:] {
			if got := evidence.Worst([]evidence.Finding{{Kind: other}, {Kind: k}}); got != k {
				t.Errorf("of %s and %s the worst is %s", other, k, got)
			}
		}
		if data := i >= 11; k.AboutData() != data {
			t.Errorf("%s about data: %v", k, k.AboutData())
		}
		if signature := i >= 1 && i <= 3; k.AboutSignature() != signature {
			t.Errorf("%s about a signature: %v", k, k.AboutSignature())
		}
	}
	if got := evidence.Worst(nil); got != "" {
		t.Errorf("of nothing the worst is %s", got)
	}
	if evidence.Kind("new").Rank() != len(kinds) {
		t.Error("an unknown kind does not rank last")
	}
}

// The line of --json: names, order and what is left out when absent.
func TestReportJSON(t *testing.T) {
	t.Parallel()
	r := evidence.Report{
		Time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Server: "prod", Database: "defaultdb",
		Verdict: evidence.Tampered, Kind: evidence.Fork,
		Findings: []evidence.Finding{{Kind: evidence.Fork, Check: "alh", Tx: 9}},
		Trusted:  evidence.MarkOf(proof.State{TxID: 9, Alh: proof.Hash{0xab}}),
		Incident: "20261123-k7qd", DurationMS: 1.5,
	}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-11-23T12:00:00Z","server":"prod","database":"defaultdb","verdict":"tampered","kind":"fork",` +
		`"findings":[{"kind":"fork","check":"alh","tx":9}],` +
		`"trusted":{"tx":9,"alh":"ab00000000000000000000000000000000000000000000000000000000000000"},` +
		`"incident":"20261123-k7qd","duration_ms":1.5}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if evidence.MarkOf(proof.State{}) != nil {
		t.Error("the zero state is printed")
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	for _, r := range []evidence.Reason{evidence.FirstContact, evidence.Unreachable, evidence.TreeLag, evidence.Interrupted} {
		if !r.Known() {
			t.Errorf("%s is not known", r)
		}
	}
	if evidence.Reason("because").Known() {
		t.Error("any reason is known")
	}
}

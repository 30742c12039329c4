package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

func exported(t testing.TB, s *Store, only ...evidence.Name) string {
	t.Helper()
	var text bytes.Buffer
	if err := s.Export(t.Context(), &text, only...); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestExportAndImport(t *testing.T) {
	t.Parallel()
	from, to := open(t, t.TempDir()), open(t, t.TempDir())
	a, b := ledger("prod", "a"), ledger("test", "b")
	ta, tb := trustAt(a, 0, 10), trustAt(b, 0, 20)
	apply(t, from, evidence.Change{Trust: &ta, Remember: []proof.State{stateAt(6), stateAt(8)}})
	apply(t, from, evidence.Change{Trust: &tb})
	text := exported(t, from)

	decision := eventOf(a, evidence.EventDecision, "d")
	names, err := to.Import(t.Context(), strings.NewReader(text), "moved", noon, decision)
	if err != nil || !reflect.DeepEqual(names, []evidence.Name{a, b}) {
		t.Fatalf("imported %v, %v", names, err)
	}
	for _, want := range []*evidence.Trust{&ta, &tb} {
		want.Version = 1
		want.Baseline.Origin, want.Baseline.Note = evidence.OriginImported, "moved (began as first-contact on 2026-11-23: met)"
	}
	got, err := to.Load(t.Context())
	want := &evidence.Remembered{Trust: []evidence.Trust{ta, tb}, Marks: map[evidence.Name][]proof.State{a: {stateAt(6), stateAt(8)}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v, %v", got, want, err)
	}
	if events, err := to.Events(t.Context(), noon, 9); err != nil || len(events) != 1 || events[0].ID != "d" {
		t.Errorf("events: %+v, %v", events, err)
	}

	// What exists is not replaced, and nothing else of the file is taken.
	third := open(t, t.TempDir())
	apply(t, third, evidence.Change{Trust: &evidence.Trust{Name: b, Baseline: evidence.Baseline{Origin: evidence.OriginPinned}}})
	_, err = third.Import(t.Context(), strings.NewReader(text), "", noon)
	refused(t, err, ErrExists, "test/b", "baseline")
	if list, err := third.Ledgers(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := third.Import(t.Context(), strings.NewReader(exported(t, from, a)), "", noon); err != nil {
		t.Error(err)
	}
}

func TestImportIsStrict(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	trust := trustAt(ledger("prod", "a"), 0, 10)
	apply(t, s, evidence.Change{Trust: &trust, Remember: []proof.State{stateAt(8)}})
	text := exported(t, s)
	empty := open(t, t.TempDir())
	replace := func(old, new string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("the export has no %q", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	alh := stateAt(10).Alh.String()
	for name, text := range map[string]string{
		"nothing":            "",
		"no object":          "[]",
		"cut":                text[:len(text)/2],
		"something after it": text + "{}",
		"unknown field":      replace(`"walked"`, `"runs"`),
		"another format":     replace("immuaudit trust", "trust"),
		"another version":    replace(`"version": 1`, `"version": 2`),
		"twice the same":     replace(`"ledgers": [`, `"ledgers": [`+text[strings.Index(text, "[")+1:strings.LastIndex(text, "]")]+","),
		"short hash":         replace(alh, alh[2:]),
		"upper-case hash":    replace(alh, strings.ToUpper(alh)),
		"walked too far":     replace(`"walked": 5`, `"walked": 11`),
		"negative":           replace(`"walked": 5`, `"walked": -1`),
		"2^63":               replace(`"tx": 10`, `"tx": 9223372036854775808`),
		"mark beyond proven": replace(`"tx": 8`, `"tx": 11`),
		"unknown origin":     replace("first-contact", "dreamt"),
		"no name":            replace(`"server": "prod"`, `"server": ""`),
		"long name":          replace(`"database": "a"`, `"database": "`+strings.Repeat("a", 200)+`"`),
		"too large":          text + strings.Repeat(" ", maxPortable),
	} {
		_, err := empty.Import(t.Context(), strings.NewReader(text), "", noon)
		if !errors.Is(err, ErrInvalid) && !(name == "twice the same" && errors.Is(err, ErrExists)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if list, err := empty.Ledgers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	a, b, c := ledger("old", "a"), ledger("old", "b"), ledger("new", "a")
	ta, tb := trustAt(a, 0, 10), trustAt(b, 0, 20)
	event := eventOf(a, evidence.EventTampered, "e")
	about := eventOf(ledger("old", ""), evidence.EventIdentityChanged, "u")
	apply(t, s, evidence.Change{
		Trust: &ta, Remember: []proof.State{stateAt(8)}, Incidents: []evidence.Incident{incidentOf(a, "i-1", 0)},
		Events: []evidence.Event{event}, Deliveries: []evidence.Delivery{{Sink: "x", Event: event}},
	})
	apply(t, s, evidence.Change{Trust: &tb, Incidents: []evidence.Incident{incidentOf(b, "i-2", 0)}, Events: []evidence.Event{about}})

	refused(t, s.Rename(t.Context(), a, b), ErrExists, "old/b")
	refused(t, s.Rename(t.Context(), a, a), ErrExists)
	refused(t, s.Rename(t.Context(), c, a), ErrNotFound, "new/a")
	refused(t, s.Rename(t.Context(), a, ledger("", "a")), ErrInvalid)
	refused(t, s.RenameServer(t.Context(), "none", "new"), ErrNotFound, "none")
	refused(t, s.RenameServer(t.Context(), "old", ""), ErrInvalid)

	check := func(ofA, ofB evidence.Name, versions uint64) {
		t.Helper()
		all, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		trust, err := s.Trust(t.Context(), ofA)
		want := ta
		want.Name, want.Version = ofA, versions
		if err != nil || !reflect.DeepEqual(trust, want) {
			t.Errorf("got  %+v\nwant %+v, %v", trust, want, err)
		}
		if !reflect.DeepEqual(all.Marks, map[evidence.Name][]proof.State{ofA: {stateAt(8)}}) {
			t.Errorf("marks: %v", all.Marks)
		}
		if all.Open[0].Name != ofA || all.Open[0].Version != versions || all.Open[1].Name != ofB {
			t.Errorf("incidents: %+v", all.Open)
		}
		if got := due(t, s, noon, 9); len(got) != 1 || got[0].Event.Name != ofA || got[0].Event.Sequence != 2 {
			t.Errorf("deliveries: %+v", got)
		}
		if err := invariants(s); err != nil {
			t.Error(err)
		}
	}
	if err := s.Rename(t.Context(), a, c, eventOf(c, evidence.EventDecision, "d")); err != nil {
		t.Fatal(err)
	}
	check(c, b, 2)
	// The engine still holds the old record: its next change is a conflict.
	stale := trustAt(a, 1, 11)
	refused(t, s.Apply(t.Context(), evidence.Change{Trust: &stale}), ErrConflict)

	refused(t, s.RenameServer(t.Context(), "old", "new"), ErrExists)
	if err := s.Rename(t.Context(), c, a); err != nil {
		t.Fatal(err)
	}
	check(a, b, 3)
	if err := s.RenameServer(t.Context(), "old", "new"); err != nil {
		t.Fatal(err)
	}
	check(c, ledger("new", "b"), 4)
	events, err := s.Events(t.Context(), noon, 9)
	if err != nil || len(events) != 3 {
		t.Fatalf("events: %+v, %v", events, err)
	}
	for _, e := range events {
		if e.Name.Server != "new" {
			t.Errorf("event %s is about %q", e.ID, e.Name)
		}
	}
}

// lines as the original wrote them: two databases, blank lines between.
const originalLines = "defaultdb:CglkZWZhdWx0ZGI=\n\nother-db:CghvdGhlci1kYg==\n\n"

func originalIn(t testing.TB, uuids ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, uuid := range uuids {
		folder := filepath.Join(dir, originalFolder, uuid)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, originalFile), []byte(originalLines), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadOriginal(t *testing.T) {
	t.Parallel()
	dir := originalIn(t, "c1")
	want := []OriginalState{{"c1", "defaultdb", []byte("\n\tdefaultdb")}, {"c1", "other-db", []byte("\n\bother-db")}}
	for _, d := range []string{dir, filepath.Join(dir, "auditor"), filepath.Join(dir, "auditor", "c1")} {
		for _, uuid := range []string{"", "c1"} {
			got, err := ReadOriginal(d, uuid)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %q, %v", d, got, err)
			}
		}
	}
	_, err := ReadOriginal(dir, "c2")
	refused(t, err, ErrNotFound, "c1", "--uuid")

	dir = originalIn(t, "c1", "c2")
	if err := os.Symlink("c1", filepath.Join(dir, originalFolder, "c3")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, originalFolder, "c4"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../c1/.state", filepath.Join(dir, originalFolder, "c4", originalFile)); err != nil {
		t.Fatal(err)
	}
	if uuids, err := OriginalUUIDs(dir); err != nil || !reflect.DeepEqual(uuids, []string{"c1", "c2"}) {
		t.Errorf("%v, %v", uuids, err)
	}
	_, err = ReadOriginal(dir, "")
	refused(t, err, ErrAmbiguous, "c1, c2", "--uuid")
	if got, err := ReadOriginal(dir, "c2"); err != nil || len(got) != 2 || got[0].UUID != "c2" {
		t.Errorf("%q, %v", got, err)
	}

	_, err = ReadOriginal(t.TempDir(), "")
	refused(t, err, ErrNotFound, "auditor")
	_, err = ReadOriginal(filepath.Join(dir, "none"), "")
	refused(t, err, ErrNotFound)
}

func TestParseOriginalIsBounded(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range maxOriginalLines + 1 {
		fmt.Fprintf(&many, "db%d:AA==\n", i)
	}
	for name, text := range map[string]string{
		"no colon":          "defaultdb\n",
		"no name":           ":AA==\n",
		"no state":          "defaultdb:\n",
		"bad base64":        "defaultdb:A\n",
		"loose base64":      "defaultdb:AB==\n",
		"name too long":     strings.Repeat("a", 129) + ":AA==\n",
		"name not UTF-8":    "\xff:AA==\n",
		"line too long":     "a:" + strings.Repeat("A", maxOriginalLine) + "\n",
		"too many":          many.String(),
		"too many blanks":   strings.Repeat("\n", 2*maxOriginalLines+1),
		"twice one":         "a:AA==\na:AQ==\n",
		"a folder of bytes": "\x00\x01\x02\n",
	} {
		if got, err := parseOriginal(strings.NewReader(text), "c1"); err == nil {
			t.Errorf("%s: read as %d states", name, len(got))
		}
	}
	if got, err := parseOriginal(strings.NewReader("a:b:AA==\r\n\r\n\r\nc:AA=="), "c1"); err != nil || len(got) != 2 || got[0].Database != "a:b" {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzParseOriginal(f *testing.F) {
	f.Add([]byte(originalLines))
	f.Add([]byte("a:AA==\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		states, err := parseOriginal(bytes.NewReader(text), "c1")
		if err != nil {
			return
		}
		for _, s := range states {
			if s.Database == "" || len(s.Database) > maxDatabase || len(s.Raw) == 0 || len(s.Raw) > maxOriginalLine {
				t.Errorf("%+v", s)
			}
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(`{"format":"immuaudit trust","version":1,"ledgers":[]}`))
	alh := strings.Repeat("0a", 32)
	f.Add([]byte(`{"format":"immuaudit trust","version":1,"ledgers":[{"server":"s","database":"d","baseline":{"tx":1,"alh":"` + alh +
		`","origin":"pinned"},"proven":{"tx":2,"alh":"` + alh + `"},"walked":1,"verified":1,"walk":"AAAA","marks":[{"tx":2,"alh":"` + alh + `"}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := readPortable(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, l := range file.Ledgers {
			p, err := l.prepare("note", noon)
			if err != nil {
				continue
			}
			if p.trust.Verified > p.trust.Walked || p.trust.Walked > p.trust.Proven.TxID || p.trust.Baseline.Origin != evidence.OriginImported || p.trust.Name.Server == "" {
				t.Errorf("%+v", p.trust)
			}
			// What is taken over comes back as it was taken over.
			var r trustRecord
			if err := decode(p.trust.body, &r); err != nil || !reflect.DeepEqual(recordTrust(p.trust.Trust), recordTrust(r.trust(p.trust.Name, 0, p.trust.walk))) {
				t.Errorf("%s, %v", p.trust.body, err)
			}
		}
	})
}

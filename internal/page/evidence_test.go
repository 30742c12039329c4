package page

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
)

// recorded puts a real evidence file into a directory, for an incident.
func recorded(t *testing.T, dir string) evidence.Incident {
	t.Helper()
	key, err := evidence.LoadOrCreateKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	inc := damaged()
	inc.Evidence, err = evidence.Record(dir, evidence.Material{Version: "1", Incident: inc.ID, Kind: inc.Kind, At: time.Now(), Name: inc.Name, Findings: inc.Findings}, key)
	if err != nil {
		t.Fatal(err)
	}
	return inc
}

// The file that comes is the one on disk, byte by byte, and can be checked.
func TestEvidenceIsGiven(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "evidence")
	inc := recorded(t, dir)
	book := &shelf{incidents: []evidence.Incident{inc}}
	private := start(t, Options{Book: book, EvidenceDir: dir, Private: everybody})
	want, err := os.ReadFile(inc.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	got := get(t, private.URL+"/incident/"+inc.ID+"/evidence")
	if got.code != 200 || got.body != string(want) {
		t.Fatalf("%d, %d bytes of %d", got.code, len(got.body), len(want))
	}
	contains(t, got.header.Get("Content-Disposition"), "attachment", filepath.Base(inc.Evidence))
	if _, err := evidence.Parse([]byte(got.body)); err != nil {
		t.Error(err)
	}
	contains(t, get(t, private.URL+"/incident/"+inc.ID).body, "Testimony.", "Download the evidence file", fmt.Sprintf("%x", sha256.Sum256(want)))

	public := start(t, Options{Book: book, EvidenceDir: dir})
	if got := get(t, public.URL+"/incident/"+inc.ID+"/evidence"); got.code != 403 {
		t.Errorf("given to everybody: %d", got.code)
	}
	page := get(t, public.URL+"/incident/"+inc.ID).body
	contains(t, page, filepath.Base(inc.Evidence))
	if got := get(t, public.URL+"/incident/"+inc.ID); strings.Contains(got.body, "Download the evidence file") {
		t.Error("offered to everybody")
	}
}

// Nothing is given but the file that the incident recorded, as it was written.
func TestEvidenceStaysInItsPlace(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "evidence")
	inc := recorded(t, dir)
	outside := filepath.Join(t.TempDir(), filepath.Base(inc.Evidence))
	text, err := os.ReadFile(inc.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside, text, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, inc.ID+"-value-0000000000000000.json")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, inc.ID+"-value-1111111111111111.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), inc.ID+"-up.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"a link": link, "another content": filepath.Join(dir, inc.ID+"-value-1111111111111111.json"), "the way up": dir + "/../" + inc.ID + "-up.json",
		"another's": filepath.Join(dir, "20260101-aaaa-value-0000000000000000.json"), "a password file": "/etc/passwd", "the directory": dir, "nothing": filepath.Join(dir, inc.ID+"-gone.json"),
	} {
		moved := inc
		moved.Evidence = path
		server := start(t, Options{Book: &shelf{incidents: []evidence.Incident{moved}}, EvidenceDir: dir, Private: everybody})
		if got := get(t, server.URL+"/incident/"+inc.ID+"/evidence"); got.code < 400 {
			t.Errorf("%s is given: %d", what, got.code)
		}
		if got := get(t, server.URL+"/incident/"+inc.ID); got.code != 200 || strings.Contains(got.body, "Download the evidence file") {
			t.Errorf("%s is offered: %d", what, got.code)
		}
	}
}

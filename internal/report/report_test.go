package report_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/history"
	"immuaudit/internal/report"
	"immuaudit/proof"
)

var (
	begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	end   = time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)
)

// memory is a state as the tests want it.
type memory struct {
	trust     []evidence.Trust
	incidents []evidence.Incident
	events    []evidence.Event
}

func (m *memory) Ledgers(context.Context) ([]evidence.Trust, error) { return m.trust, nil }
func (m *memory) Incidents(context.Context, bool) ([]evidence.Incident, error) {
	return m.incidents, nil
}

func (m *memory) Events(context.Context, time.Time, int) ([]evidence.Event, error) {
	return m.events, nil
}

func (m *memory) know(name evidence.Name) {
	m.trust = append(m.trust, evidence.Trust{
		Name: name, Proven: proof.SignedState{State: state(5000)}, ProvenAt: end, Walked: 5000, Verified: 4000,
		Baseline: evidence.Baseline{State: state(3), Origin: evidence.OriginFirstContact, At: begin.AddDate(0, -1, 0)},
	})
}

func state(tx uint64) proof.State {
	s := proof.State{TxID: tx}
	copy(s.Alh[:], fmt.Sprintf("%032d", tx))
	return s
}

// audited gives a history in which every ledger of the memory was audited once
// a minute, except where outcome says otherwise: nil for no round.
func audited(t testing.TB, m *memory, outcome func(name evidence.Name, at time.Time, r *evidence.Report) bool) *history.History {
	t.Helper()
	h, err := history.Open(t.Context(), t.TempDir(), history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	for at := begin.Add(-time.Hour); at.Before(end); at = at.Add(time.Minute) {
		for i := range m.trust {
			n := m.trust[i].Name
			tx := uint64(at.Sub(begin)/time.Minute) + 1000
			s := state(tx)
			r := evidence.Report{Time: at, Server: n.Server, Database: n.Database, Verdict: evidence.Consistent, DurationMS: 3, Trusted: &evidence.Mark{Tx: tx, Alh: hex.EncodeToString(s.Alh[:])}}
			if outcome == nil || outcome(n, at, &r) {
				h.Round(r)
			}
		}
	}
	return h
}

// key is the same in each run, so that what a fuzzer found verifies in the next.
func key(t testing.TB) *evidence.Key {
	t.Helper()
	dir := t.TempDir()
	const private = "PRIVATE+KEY+immuaudit-0123456789ab+70575045+AaG7a+ivytGV7RI8gRRJCT5A77/UDafC3MZQTq4MXMeF\n"
	if err := os.WriteFile(filepath.Join(dir, "auditor.key"), []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := evidence.LoadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func gather(t testing.TB, m *memory, h *history.History, k *evidence.Key) *report.Document {
	t.Helper()
	d, err := report.Gather(t.Context(), m, h, report.Options{
		Span: report.Span{From: begin, To: end}, Made: end, Version: "1.2.3", Key: k.VerifierKey(),
		Sum: func(string) (string, error) { return strings.Repeat("ab", 32), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func unreachable(r *evidence.Report) {
	r.Verdict, r.Reason = evidence.Undetermined, evidence.Unreachable
}

var production = evidence.Name{Server: "production", Database: "defaultdb"}

// sample is a state and a history with one of everything.
func sample(t testing.TB) (*memory, *history.History) {
	m := &memory{}
	m.know(production)
	m.know(evidence.Name{Server: "production", Database: "ledger\u202e<script>alert(1)</script>"})
	m.incidents = []evidence.Incident{{
		ID: "20261102-k7qd", Version: 1, Name: production, Kind: evidence.Value, Status: evidence.Accepted, OpenedAt: begin.Add(30 * time.Hour),
		Findings: []evidence.Finding{{Kind: evidence.Value, Check: "value", Tx: 17, Want: strings.Repeat("0a", 32), Got: strings.Repeat("0b", 32), Detail: "--><script>alert(2)</script> the value is another one"}},
		Trusted:  proof.SignedState{State: state(2000)}, Observed: proof.SignedState{State: state(2001)}, LastSeen: begin.Add(31 * time.Hour), Seen: 60,
		AckedAt: begin.Add(31 * time.Hour), AckedBy: "jane@audit1", AckedNote: "looking into it",
		ClosedAt: begin.Add(32 * time.Hour), ClosedBy: "jane@audit1", CloseNote: "restored from a backup that lacked it", Evidence: "/var/lib/immuclient/evidence/20261102-k7qd-value-0011223344556677.json",
	}}
	m.events = []evidence.Event{
		{Type: evidence.EventIdentityChanged, At: begin.Add(time.Hour), Name: evidence.Name{Server: "production"}, Message: "the server calls itself otherwise"},
		{Type: evidence.EventTampered, At: begin.Add(30 * time.Hour), Name: production, Message: "told as an incident"},
	}
	h := audited(t, m, func(n evidence.Name, at time.Time, r *evidence.Report) bool {
		if h := at.Sub(begin); h >= 5*time.Hour && h < 7*time.Hour {
			unreachable(r)
		} else if h >= 20*time.Hour && h < 21*time.Hour {
			return false
		}
		return true
	})
	return m, h
}

func TestGather(t *testing.T) {
	t.Parallel()
	m, h := sample(t)
	d := gather(t, m, h, key(t))
	l := d.Ledgers[0]
	if l.Rounds != 2*24*60-60 || l.Consistent != 2*24*60-180 || l.UsualSec != 60 || l.LongestSec != 61*60 {
		t.Errorf("%d rounds, %d consistent, usually every %v s, at most %v s", l.Rounds, l.Consistent, l.UsualSec, l.LongestSec)
	}
	if l.AtFrom == nil || l.AtFrom.Tx != 999 && l.AtFrom.Tx != 1000 || l.AtTo == nil || l.AtTo.Tx != 1000+2*24*60-1 || l.AtTo.Alh == "" {
		t.Errorf("checkpoints %+v, %+v", l.AtFrom, l.AtTo)
	}
	var gaps []string
	for _, g := range d.Gaps {
		gaps = append(gaps, fmt.Sprintf("%s %s %d", g.From.Format("02T15:04"), g.Why, g.Ledgers))
	}
	// The history says nothing of processes on those days: it was not running.
	if got, want := strings.Join(gaps, ", "), "01T05:00 unreachable 2, 01T19:59 no-rounds 2"; got != want {
		t.Errorf("gaps %s, want %s", got, want)
	}
	if d.Gaps[0].Seconds != 2*3600 || d.Totals.Gaps != 2 {
		t.Errorf("%+v, %d in all", d.Gaps[0], d.Totals.Gaps)
	}
	if d.ExitCode() != 3 || d.Totals.IncidentsOpened != 1 || d.Totals.IncidentsOpen != 0 || d.Incidents[0].EvidenceSum == "" || len(d.Events) != 1 {
		t.Errorf("%+v, %d events", d.Totals, len(d.Events))
	}
}

func TestConclusions(t *testing.T) {
	t.Parallel()
	k := key(t)
	m := &memory{}
	m.know(production)
	if d := gather(t, m, audited(t, m, nil), k); d.ExitCode() != 0 || d.Conclusion.Title != "No tampering was found." {
		t.Errorf("sound: %d, %s", d.ExitCode(), d.Conclusion.Title)
	}
	never := &memory{}
	never.know(production)
	never.know(evidence.Name{Server: "production", Database: "never"})
	if d := gather(t, never, audited(t, m, nil), k); d.ExitCode() != 1 || !strings.Contains(d.Conclusion.Title, "1 database had no check") {
		t.Errorf("never: %d, %s", d.ExitCode(), d.Conclusion.Title)
	}
	if d := gather(t, m, nil, k); d.ExitCode() != 1 || !strings.HasPrefix(d.Conclusion.Title, "Nothing can be said") {
		t.Errorf("no history: %d, %s", d.ExitCode(), d.Conclusion.Title)
	}
	dark := audited(t, m, func(_ evidence.Name, _ time.Time, r *evidence.Report) bool { unreachable(r); return true })
	if d := gather(t, m, dark, k); d.ExitCode() != 1 || d.Ledgers[0].GapSec != 2*24*3600-60 {
		t.Errorf("dark: %d, %s, gaps of %v s", d.ExitCode(), d.Conclusion.Title, d.Ledgers[0].GapSec)
	}
	if d := gather(t, &memory{}, nil, k); d.ExitCode() != 1 {
		t.Errorf("nothing: %d, %s", d.ExitCode(), d.Conclusion.Title)
	}
}

func TestEveryByteIsSigned(t *testing.T) {
	t.Parallel()
	m, h := sample(t)
	k := key(t)
	d := gather(t, m, h, k)
	for form, write := range map[string]func(evidence.Signer) ([]byte, error){"page": d.HTML, "json": d.JSON} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b, err := write(k)
			if err != nil {
				t.Fatal(err)
			}
			c, err := report.Check(b)
			if err != nil {
				t.Fatal(err)
			}
			if c.Document.Ledgers[1].Database != m.trust[1].Name.Database || c.Key != k.VerifierKey() || len(c.Document.Ledgers) != 2 || c.Document.Incidents[0].ID != "20261102-k7qd" {
				t.Errorf("%+v", c)
			}
			// All of the signature's end, and a sample of what it covers.
			for i := range b {
				if i < len(b)-600 && i%97 != 0 {
					continue
				}
				for _, flip := range []byte{1, 0x20} {
					changed := bytes.Clone(b)
					changed[i] ^= flip
					if _, err := report.Check(changed); err == nil {
						t.Fatalf("byte %d of %d changed from %q to %q, and nothing was noticed", i, len(b), b[i], changed[i])
					}
				}
			}
			// The last digit of the signature ends in two bits that say nothing.
			const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
			at := bytes.LastIndexByte(b, '=') - 1
			malleable := bytes.Clone(b)
			malleable[at] = digits[strings.IndexByte(digits, b[at])+1]
			for name, changed := range map[string][]byte{"malleable": malleable, "longer": append(bytes.Clone(b), '\n'), "cut": b[:len(b)-1], "doubled": append(bytes.Clone(b), b...), "empty": nil} {
				if _, err := report.Check(changed); err == nil {
					t.Errorf("%s: nothing was noticed", name)
				}
			}
			if _, err := report.Check(bytes.Replace(b, []byte("20261102-k7qd"), []byte("20261102-k7qe"), 1)); !errors.Is(err, report.ErrChanged) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestPageIsHarmless(t *testing.T) {
	t.Parallel()
	m, h := sample(t)
	k := key(t)
	b, err := gather(t, m, h, k).HTML(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"<script", "src=", "href=", "url(", "http://", "https://", "\u202e", "@import"} {
		if bytes.Contains(b, []byte(never)) {
			t.Errorf("the page holds %q", never)
		}
	}
	for _, always := range []string{"What cannot be said", "&lt;202E&gt;", "jane@audit1", strings.Repeat("ab", 32), `scope="col"`, "<caption>", k.VerifierKey()[:20]} {
		if !bytes.Contains(b, []byte(always)) {
			t.Errorf("the page lacks %q", always)
		}
	}
}

func TestThousandLedgers(t *testing.T) {
	t.Parallel()
	m := &memory{}
	for i := range 1000 {
		m.know(evidence.Name{Server: fmt.Sprintf("server-%d", i/100), Database: fmt.Sprintf("db%03d", i)})
	}
	k := key(t)
	d := gather(t, m, nil, k)
	b, err := d.HTML(k)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte(`<article class="ledger">`)); n > 40 || len(b) > 4<<20 || len(d.Gaps) != 1 || d.Gaps[0].Ledgers != 1000 {
		t.Errorf("%d details, %d bytes, %d gaps", n, len(b), len(d.Gaps))
	}
	if _, err := report.Check(b); err != nil {
		t.Error(err)
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ from, to, want string }{
		{"2026-10", "", "2026-10-01T00:00:00Z 2026-11-01T00:00:00Z"},
		{"2026-11", "", "2026-11-01T00:00:00Z 2026-11-23T12:00:00Z"},
		{"2026-11-02", "", "2026-11-02T00:00:00Z 2026-11-03T00:00:00Z"},
		{"2026-11-02", "2026-11-05", "2026-11-02T00:00:00Z 2026-11-05T00:00:00Z"},
		{"last-month", "", "2026-10-01T00:00:00Z 2026-11-01T00:00:00Z"},
		{"30d", "", "2026-10-24T12:00:00Z 2026-11-23T12:00:00Z"},
		{"2026-11-02T10:00:00+02:00", "", "2026-11-02T08:00:00Z 2026-11-23T12:00:00Z"},
		{"2026-12", "", "is in the future"},
		{"2026-11", "2026-12", "is in the future"},
		{"2026-11", "2026-11", "there is no time"},
		{"2026-11", "2026-10", "exchange them"},
		{"yesterday", "", "is no date"},
		{"0d", "", "is no date"},
		{"1026-11", "", "the year 1026"},
		{"", "", "is no date"},
	} {
		s, err := report.ParseSpan(c.from, c.to, now)
		got := s.From.Format(time.RFC3339) + " " + s.To.Format(time.RFC3339)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("--from %q --to %q: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	k := key(f)
	d := gather(f, &memory{}, nil, k)
	for _, write := range []func(evidence.Signer) ([]byte, error){d.HTML, d.JSON} {
		b, err := write(k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := report.Check(b)
		if (c == nil) == (err == nil) {
			t.Fatal("neither a report nor an error")
		}
	})
}

// Written where somebody wants to look at it.
func TestSamplePage(t *testing.T) {
	t.Parallel()
	file := os.Getenv("IMMUAUDIT_SAMPLE_REPORT")
	if file == "" {
		file = t.TempDir() + "/report.html"
	}
	m, h := sample(t)
	k := key(t)
	d := gather(t, m, h, k)
	b, err := d.HTML(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

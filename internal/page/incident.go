package page

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"immuaudit/evidence"
)

var errNoIncident = errors.New("no such incident")

// incident finds an incident that a visitor named: errNoIncident if there is
// none, any other error if it could not be read.
func (s *Site) incident(ctx context.Context, id string) (evidence.Incident, error) {
	if id == "" || len(id) > 64 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz-") != "" {
		return evidence.Incident{}, errNoIncident
	}
	inc, err := s.opts.Book.Incident(ctx, id)
	if err == nil {
		return inc, nil
	}
	// The book says in an error both that there is none and that it cannot be
	// read; the list tells these apart.
	list, listErr := s.opts.Book.Incidents(ctx, true)
	if listErr != nil {
		return evidence.Incident{}, err
	}
	found := 0
	for i := range list {
		if strings.HasPrefix(list[i].ID, id) {
			found++
		}
	}
	if found == 1 {
		return evidence.Incident{}, err
	}
	return evidence.Incident{}, errNoIncident
}

type incidentView struct {
	Story                              story
	Title                              string
	ID, Link, Server, Database, Status string
	Kind                               evidence.Kind
	Open, Acked                        bool
	Opened, LastSeen, AckedAt          time.Time
	ClosedAt, SoundAt                  time.Time
	Seen                               string
	AckedBy, AckedNote                 string
	ClosedBy, CloseNote                string
	Lasts                              string
	Where, KeyText                     string
	HiddenKey                          bool
	LastGood, FirstBad                 uint64
	Trusted, Observed                  *evidence.Mark
	TrustedSigned, ObservedSigned      bool
	Findings                           []findingRow
	MoreFindings                       bool
	AboutData                          bool
	Accepts                            string
	File                               inspection
	EvidencePath, EvidenceName         string
	EvidenceProblem                    string
	Download                           bool
	Commands                           commands
	Timeline                           []eventRow
}

type commands struct{ Show, Ack, Verify, Keep, Accept string }

type findingRow struct {
	What, Check, Tx, Key, Want, Got, Detail string
}

func (s *Site) incidentPage(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		s.oops(w, r, http.StatusBadRequest, "The address asks for something that cannot be: "+err.Error()+".")
		return
	}
	ctx, cancel := reading(r)
	defer cancel()
	inc, err := s.incident(ctx, r.PathValue("id"))
	switch {
	case errors.Is(err, errNoIncident):
		s.oops(w, r, http.StatusNotFound, "There is no incident of this name. `immuclient incident list --all` lists all there were.")
		return
	case err != nil:
		s.unreadable(w, r, "the incident", err)
		return
	}
	view := s.incidentView(ctx, &inc, s.opts.Private(r), time.Now())
	verdict := ""
	if view.Open {
		verdict = "tampered"
	}
	s.render(w, r, http.StatusOK, "incident.html", view.Title+" · "+view.Database, verdict, view)
}

func (s *Site) incidentView(ctx context.Context, inc *evidence.Incident, private bool, now time.Time) incidentView {
	tale, known := stories[inc.Kind]
	if !known {
		tale = story{title: "Something does not match what was proven before", Saw: "This program does not know this kind of incident; a newer one wrote it."}
	}
	v := incidentView{
		Story: tale, Title: tale.title, ID: inc.ID, Link: segments("ledger", inc.Name.Server, inc.Name.Database), Kind: inc.Kind,
		Server: label(inc.Name.Server), Database: label(inc.Name.Database), Status: statusWords(inc), Open: inc.Status == evidence.Open, Acked: !inc.AckedAt.IsZero(),
		Opened: inc.OpenedAt, LastSeen: inc.LastSeen, AckedAt: inc.AckedAt, ClosedAt: inc.ClosedAt, SoundAt: inc.SoundAt, Seen: count(inc.Seen),
		AckedBy: label(inc.AckedBy), AckedNote: prose(inc.AckedNote), ClosedBy: label(inc.ClosedBy), CloseNote: prose(inc.CloseNote),
		Lasts: ago(now.Sub(inc.OpenedAt)), Trusted: evidence.MarkOf(inc.Trusted.State), Observed: evidence.MarkOf(inc.Observed.State),
		TrustedSigned: len(inc.Trusted.Signature) > 0, ObservedSigned: len(inc.Observed.Signature) > 0,
		AboutData: inc.Kind.AboutData(), Accepts: tale.accepts, Download: private && inc.Evidence != "",
	}
	if d := inc.Divergence; d != nil {
		v.LastGood, v.FirstBad = d.LastGoodTx, d.FirstBadTx
		plain := *d
		plain.Key, plain.KeyText = "", ""
		if !v.AboutData {
			v.Where = plain.String()
		}
		switch {
		case d.Key != "" && !private:
			v.HiddenKey = true
		case d.KeyText != "":
			v.KeyText = strconv.QuoteToASCII(d.KeyText)
		case d.Key != "":
			v.KeyText = shown(d.Key, maxLabel) + " (hex)"
		}
	}
	for i := range inc.Findings {
		if i == maxEvents {
			v.MoreFindings = true
			break
		}
		v.Findings = append(v.Findings, findingRowOf(&inc.Findings[i], private))
	}
	s.fileOf(ctx, &v, inc)
	file := "FILE"
	if v.EvidencePath != "" {
		file = quoted(v.EvidencePath)
	}
	v.Commands = commands{
		Show: "immuclient incident show " + inc.ID, Ack: "immuclient incident ack " + inc.ID + ` --note "who has it, and what is being done"`,
		Verify: "immuclient evidence verify " + file, Keep: "immuclient trust keep " + inc.ID + ` --reason "…"`,
		Accept: "immuclient trust accept " + inc.ID + tale.flags + ` --reason "…"`,
	}
	s.timeline(ctx, &v, inc, private)
	return v
}

// quoted makes a path one word of a shell.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func (s *Site) fileOf(ctx context.Context, v *incidentView, inc *evidence.Incident) {
	if inc.Evidence == "" {
		v.EvidenceProblem = prose(inc.EvidenceError)
		return
	}
	v.EvidencePath = prose(inc.Evidence)
	v.EvidenceName = label(inc.Evidence[strings.LastIndexByte(inc.Evidence, '/')+1:])
	var err error
	if v.File, err = s.inspect(ctx, inc); err != nil {
		s.opts.Logger.Warn("reading an evidence file for the page", "incident", inc.ID, "error", err)
		v.EvidenceProblem = evidenceWords(err)
		v.Download = false
	}
}

func findingRowOf(f *evidence.Finding, private bool) findingRow {
	out := findingRow{What: kindWords(f.Kind), Check: label(f.Check), Want: shown(f.Want, maxLabel), Got: shown(f.Got, maxLabel)}
	if f.Tx > 0 {
		out.Tx = count(f.Tx)
	}
	if tells(f.Kind, private) {
		out.Detail = prose(f.Detail)
	}
	if f.Key != "" {
		out.Key = "hidden"
		if private {
			out.Key = keyWords(f.Key)
		}
	}
	return out
}

// keyWords is a key for a person: entries carry a prefix of one byte.
func keyWords(encoded string) string {
	if key, err := hex.DecodeString(encoded); err == nil && len(key) > 1 {
		if text := string(key[1:]); strconv.Quote(text) == `"`+text+`"` {
			return shown(text, maxLabel)
		}
	}
	return shown(encoded, maxLabel) + " (hex)"
}

// timeline is what happened around the incident, oldest first.
func (s *Site) timeline(ctx context.Context, v *incidentView, inc *evidence.Incident, private bool) {
	list, err := s.opts.Book.Events(ctx, inc.OpenedAt.Add(-time.Hour), maxScanned)
	if err != nil {
		s.opts.Logger.Error("reading the events for the page", "error", err)
		return
	}
	for i := range list {
		if ev := &list[i]; ev.Incident == inc.ID && len(v.Timeline) < maxEvents {
			v.Timeline = append(v.Timeline, eventRowOf(ev, private))
		}
	}
}

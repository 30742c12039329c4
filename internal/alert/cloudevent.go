package alert

import (
	"encoding/json"
	"net/url"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// cloudEvent is CloudEvents 1.0 in structured JSON. docs/alerts.md is its
// documentation: names do not change their meaning.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            eventData `json:"data"`
}

// eventData has the names of a --json report where it says the same.
type eventData struct {
	Server     string               `json:"server,omitempty"`
	ServerUUID string               `json:"server_uuid,omitempty"`
	Database   string               `json:"database,omitempty"`
	Verdict    *evidence.Verdict    `json:"verdict,omitempty"`
	Kind       evidence.Kind        `json:"kind,omitempty"`
	Incident   string               `json:"incident,omitempty"`
	Message    string               `json:"message,omitempty"`
	Divergence *evidence.Divergence `json:"divergence,omitempty"`
	Trusted    *evidence.Mark       `json:"trusted,omitempty"`
	Observed   *evidence.Mark       `json:"observed,omitempty"`
	Sequence   uint64               `json:"sequence,omitempty"`
	Ledgers    int                  `json:"ledgers,omitempty"`
	Tags       []string             `json:"tags,omitempty"`
}

func encodeCloudEvent(e evidence.Event) ([]byte, error) {
	var verdict *evidence.Verdict
	if e.HasVerdict() {
		verdict = &e.Verdict
	}
	return json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: plain(e.ID), Source: "/immuaudit/" + url.PathEscape(e.Name.Server),
		Type: "immuaudit." + plain(string(e.Type)), Subject: plain(e.Name.Database), Time: e.At.UTC(), DataContentType: "application/json",
		Data: eventData{
			Server: e.Name.Server, ServerUUID: e.UUID, Database: e.Name.Database, Verdict: verdict, Kind: e.Kind, Incident: e.Incident,
			Message: e.Message, Divergence: e.Divergence, Trusted: markOf(e.Previous), Observed: markOf(e.Current),
			Sequence: e.Sequence, Ledgers: e.Ledgers, Tags: e.Tags,
		},
	})
}

func markOf(s *proof.SignedState) *evidence.Mark {
	if s == nil {
		return nil
	}
	return evidence.MarkOf(s.State)
}

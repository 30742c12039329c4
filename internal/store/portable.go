package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

const (
	portableFormat  = "immuaudit trust"
	portableVersion = 1
	// maxPortable bounds what is written and read in one file.
	maxPortable = 64 << 20
)

// portable is the file of `trust export`:
//
//	{"format":"immuaudit trust","version":1,"ledgers":[
//	  {"server":"prod","database":"defaultdb",
//	   "baseline":{"tx":1,"alh":"…","origin":"first-contact","at":"2026-11-23T12:00:00Z"},
//	   "proven":{"database":"defaultdb","tx":9,"alh":"…"},"walked":9,"verified":0,
//	   "walk":"base64","marks":[{"tx":5,"alh":"…"}]}]}
type portable struct {
	Format  string           `json:"format"`
	Version int              `json:"version"`
	Ledgers []portableLedger `json:"ledgers"`
}

type portableLedger struct {
	Server   string `json:"server"`
	Database string `json:"database"`
	trustRecord
	Walk  []byte        `json:"walk,omitempty"`
	Marks []stateRecord `json:"marks,omitempty"`
}

// Export writes the trust in the named ledgers, in all where none is named.
func (s *Store) Export(ctx context.Context, w io.Writer, only ...evidence.Name) error {
	all, err := s.Load(ctx)
	if err != nil {
		return err
	}
	file := portable{Format: portableFormat, Version: portableVersion, Ledgers: []portableLedger{}}
	for _, t := range all.Trust {
		// A ledger that was only met has nothing to take over.
		if t.Baseline.Origin == "" || len(only) > 0 && !slices.Contains(only, t.Name) {
			continue
		}
		l := portableLedger{Server: t.Name.Server, Database: t.Name.Database, trustRecord: recordTrust(t), Walk: t.Walk}
		for _, state := range all.Marks[t.Name] {
			l.Marks = append(l.Marks, recordState(state))
		}
		file.Ledgers = append(file.Ledgers, l)
	}
	text, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		return fmt.Errorf("writing down the trust: %w", err)
	}
	if len(text) >= maxPortable {
		return fmt.Errorf("%w: the export has %d bytes and an import takes %d; name the ledgers to export in several files", ErrInvalid, len(text), maxPortable)
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	return nil
}

// Import takes over what Export wrote, all of it or nothing, as trust of
// origin imported with the note; at is now. It refuses a ledger that has a
// baseline already, and whatever Export would not have written. The events
// given are stored together with it.
//
// The walk of an imported record is taken as it is: whoever reads it judges it.
func (s *Store) Import(ctx context.Context, r io.Reader, note string, at time.Time, events ...evidence.Event) ([]evidence.Name, error) {
	file, err := readPortable(r)
	if err != nil {
		return nil, err
	}
	var names []evidence.Name
	var changes []*prepared
	for _, l := range file.Ledgers {
		p, err := l.prepare(note, at)
		if err != nil {
			return nil, fmt.Errorf("ledger %.80q of the import: %w", l.Server+"/"+l.Database, err)
		}
		names, changes = append(names, p.trust.Name), append(changes, p)
	}
	record, err := prepare(evidence.Change{Events: events})
	if err != nil {
		return nil, err
	}
	err = s.submit(ctx, func(w *writing) error {
		for _, p := range append(changes, record) {
			if err := w.overMet(p.trust); err != nil {
				return err
			}
			err := p.write(w)
			if c := (*ConflictError)(nil); errors.As(err, &c) {
				return &Error{Kind: ErrExists, Path: s.path, What: c.Record + " has a baseline",
					Next: "leave it out of the import; trust that exists is only replaced by a decision"}
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return names, nil
}

// overMet lets an import take the place of a record that holds no trust: its
// ledger was met, but never found in order.
func (w *writing) overMet(t *preparedTrust) error {
	if t == nil {
		return nil
	}
	var version uint64
	var body []byte
	exists, err := found(w.row("SELECT version, body FROM trust WHERE server = ? AND database = ?", []any{t.Name.Server, t.Name.Database}, &version, &body))
	if err != nil || !exists {
		return err
	}
	var was trustRecord
	if err := decode(body, &was); err != nil {
		return broken(w.c.s.path, "ledger", t.Name)
	}
	if was.Baseline.Origin == "" {
		t.Version = version
	}
	return nil
}

func readPortable(r io.Reader) (portable, error) {
	var file portable
	text, err := io.ReadAll(io.LimitReader(r, maxPortable+1))
	if err != nil {
		return file, fmt.Errorf("reading the import: %w", err)
	}
	if len(text) > maxPortable {
		return file, fmt.Errorf("%w: the import is larger than %d bytes", ErrInvalid, maxPortable)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return file, fmt.Errorf("%w: reading the import: %v; give the file that `immuclient trust export` wrote, unchanged", ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return file, fmt.Errorf("%w: something follows after the end of the import; give the file that `immuclient trust export` wrote, unchanged", ErrInvalid)
	}
	if file.Format != portableFormat || file.Version != portableVersion {
		return file, fmt.Errorf("%w: the import is %.40q version %d, this program reads %q version %d", ErrInvalid, file.Format, file.Version, portableFormat, portableVersion)
	}
	return file, nil
}

func (l portableLedger) prepare(note string, at time.Time) (*prepared, error) {
	if len(l.Marks) > maxMarks {
		return nil, invalid("%d states to remember; at most %d are kept", len(l.Marks), maxMarks)
	}
	if !knownOrigin(l.Baseline.Origin) {
		return nil, invalid("trust of unknown origin %.40q", l.Baseline.Origin)
	}
	t := l.trust(evidence.Name{Server: l.Server, Database: l.Database}, 0, l.Walk)
	was := fmt.Sprintf("began as %s", t.Baseline.Origin)
	if !t.Baseline.At.IsZero() {
		was += t.Baseline.At.Format(" on 2006-01-02")
	}
	if t.Baseline.Note != "" {
		was += ": " + t.Baseline.Note
	}
	if note != "" {
		was = note + " (" + was + ")"
	}
	t.Baseline.Origin, t.Baseline.At, t.Baseline.Note = evidence.OriginImported, at, was
	marks := make([]proof.State, len(l.Marks))
	for i, m := range l.Marks {
		marks[i] = m.state()
	}
	return prepare(evidence.Change{Trust: &t, Remember: marks})
}

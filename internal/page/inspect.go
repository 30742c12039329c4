package page

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"immuaudit/evidence"
)

var (
	errNoEvidence = errors.New("there is no such file among the evidence")
	errChanged    = errors.New("the file is not the one that was written")
)

func evidenceWords(err error) string {
	switch {
	case errors.Is(err, errChanged):
		return "The file was changed after it was written: its content does not have the fingerprint that is part of its name. Look for a copy, and at who can write to the state directory."
	case errors.Is(err, errNoEvidence):
		return "The file is no longer where it was written. Look for a copy: alerts name it, and backups of the state directory hold it."
	}
	return "The file could not be read; the auditor's log says why."
}

// inspection is what an evidence file says about itself.
type inspection struct {
	Known      bool
	Proof      bool // holds a contradiction that the server itself signed
	ProofTx    uint64
	ServerKey  string
	AuditorKey string
	SHA256     string
	Size       int64
	modified   time.Time
}

// inspections keeps in mind what files hold: they never change, and reading one
// means checking every signature in it.
type inspections struct {
	mu    sync.Mutex
	known map[string]inspection
	slots chan struct{}
}

func (i *inspections) init() {
	i.known, i.slots = map[string]inspection{}, make(chan struct{}, maxDownloads)
}

// openEvidence opens the file that an incident recorded, and no other: by its
// name alone, in the directory of evidence, only if it is a regular file.
func (s *Site) openEvidence(inc *evidence.Incident) (*os.File, fs.FileInfo, error) {
	name := filepath.Base(inc.Evidence)
	if s.opts.EvidenceDir == "" || inc.Evidence == "" || !strings.HasPrefix(name, inc.ID+"-") || !strings.HasSuffix(name, ".json") || !filepath.IsLocal(name) {
		return nil, nil, errNoEvidence
	}
	root, err := os.OpenRoot(s.opts.EvidenceDir)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the directory of evidence: %w", err)
	}
	defer func() { _ = root.Close() }()
	before, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errNoEvidence
	}
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the evidence: %w", err)
	}
	if !before.Mode().IsRegular() || before.Size() > evidence.MaxFile {
		return nil, nil, fmt.Errorf("%w: %s is no regular file, or too large", errChanged, name)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the evidence: %w", err)
	}
	// Between the two looks it could have become a link.
	if info, err := f.Stat(); err != nil || !os.SameFile(before, info) {
		_ = f.Close()
		return nil, nil, fmt.Errorf("%w: %s was replaced while it was opened", errChanged, name)
	}
	return f, before, nil
}

// load reads a file as a whole and checks it against the sum in its name.
func (s *Site) load(inc *evidence.Incident) ([]byte, fs.FileInfo, error) {
	s.evidence.slots <- struct{}{}
	defer func() { <-s.evidence.slots }()
	f, info, err := s.openEvidence(inc)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, evidence.MaxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the evidence: %w", err)
	}
	sum := sha256.Sum256(text)
	if !strings.HasSuffix(strings.TrimSuffix(info.Name(), ".json"), "-"+hex.EncodeToString(sum[:8])) {
		return nil, nil, errChanged
	}
	return text, info, nil
}

func (s *Site) inspect(inc *evidence.Incident) (inspection, error) {
	f, info, err := s.openEvidence(inc)
	if err != nil {
		return inspection{}, err
	}
	_ = f.Close()
	name := info.Name()
	s.evidence.mu.Lock()
	known, there := s.evidence.known[name]
	s.evidence.mu.Unlock()
	if there && known.Size == info.Size() && known.modified.Equal(info.ModTime()) {
		return known, nil
	}
	text, info, err := s.load(inc)
	if err != nil {
		return inspection{}, err
	}
	parsed, err := evidence.Parse(text)
	if err != nil {
		return inspection{}, fmt.Errorf("%w: %w", errChanged, err)
	}
	sum := sha256.Sum256(text)
	out := inspection{Known: true, AuditorKey: label(parsed.AuditorKey), SHA256: hex.EncodeToString(sum[:]), Size: info.Size(), modified: info.ModTime()}
	if parsed.Proof != nil {
		out.Proof, out.ProofTx, out.ServerKey = true, parsed.Proof.Tx, fingerprint(parsed.Proof.Key)
	}
	s.evidence.mu.Lock()
	defer s.evidence.mu.Unlock()
	if len(s.evidence.known) >= maxInspected {
		clear(s.evidence.known)
	}
	s.evidence.known[name] = out
	return out, nil
}

// download gives the evidence file of an incident, byte by byte as it is on disk.
func (s *Site) download(w http.ResponseWriter, r *http.Request) {
	if !s.opts.Private(r) {
		s.oops(w, r, http.StatusForbidden, "Evidence holds keys and values, so it is given only where a password is set up, or on the auditor's own machine. The incident's page says where the file lies; docs/status-page.md says how to set up a password.")
		return
	}
	ctx, cancel := reading(r)
	defer cancel()
	inc, err := s.incident(ctx, r.PathValue("id"))
	if errors.Is(err, errNoIncident) || err == nil && inc.Evidence == "" {
		s.oops(w, r, http.StatusNotFound, "There is no evidence of this name.")
		return
	}
	if err != nil {
		s.unreadable(w, r, "the incident", err)
		return
	}
	text, info, err := s.load(&inc)
	if err != nil {
		s.opts.Logger.Warn("reading an evidence file for a visitor", "incident", inc.ID, "error", err)
		code := http.StatusInternalServerError
		if errors.Is(err, errNoEvidence) {
			code = http.StatusNotFound
		}
		s.oops(w, r, code, evidenceWords(err))
		return
	}
	h := w.Header()
	s.secured(h)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Disposition", `attachment; filename="`+info.Name()+`"`)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	// A large file over a slow line takes longer than a page may.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(5 * time.Minute))
	_, _ = w.Write(text)
}

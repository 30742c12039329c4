package page

import (
	"context"
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
	failed     error // the file is not what was written
}

// inspections keeps in mind what files hold, or that they are not what was
// written: reading one means checking every signature in it.
type inspections struct {
	mu    sync.Mutex
	known map[string]inspection
	slots chan struct{}
}

func (i *inspections) init() {
	i.known, i.slots = map[string]inspection{}, make(chan struct{}, maxDownloads)
}

// slot waits until a file may be read: each costs many times its size in memory
// while it is.
func (i *inspections) slot(ctx context.Context) (release func(), err error) {
	select {
	case i.slots <- struct{}{}:
		return func() { <-i.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other evidence to be read: %w", ctx.Err())
	}
}

func (i *inspections) find(info fs.FileInfo) (inspection, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	known, there := i.known[info.Name()]
	if !there || known.Size != info.Size() || !known.modified.Equal(info.ModTime()) {
		return inspection{}, false
	}
	return known, true
}

func (i *inspections) keep(info fs.FileInfo, out inspection) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) >= maxInspected {
		clear(i.known)
	}
	out.Size, out.modified = info.Size(), info.ModTime()
	i.known[info.Name()] = out
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

// load reads a file as a whole and checks it against the sum in its name. Its
// caller has a slot. With errChanged it tells of the file too.
func (s *Site) load(inc *evidence.Incident) ([]byte, fs.FileInfo, error) {
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
		return nil, info, errChanged
	}
	return text, info, nil
}

// remembered gives what is known of the file as it is now.
func (s *Site) remembered(inc *evidence.Incident) (out inspection, there bool, err error) {
	f, info, err := s.openEvidence(inc)
	if err != nil {
		return inspection{}, false, err
	}
	_ = f.Close()
	out, there = s.evidence.find(info)
	return out, there, out.failed
}

func (s *Site) inspect(ctx context.Context, inc *evidence.Incident) (inspection, error) {
	if out, there, err := s.remembered(inc); there || err != nil {
		return out, err
	}
	release, err := s.evidence.slot(ctx)
	if err != nil {
		return inspection{}, err
	}
	defer release()
	// Meanwhile another visitor may have had it read.
	if out, there, err := s.remembered(inc); there || err != nil {
		return out, err
	}
	text, info, err := s.load(inc)
	var parsed *evidence.File
	if err == nil {
		if parsed, err = evidence.Parse(text); err != nil {
			err = fmt.Errorf("%w: %w", errChanged, err)
		}
	}
	if err != nil {
		if info != nil {
			s.evidence.keep(info, inspection{failed: err})
		}
		return inspection{}, err
	}
	sum := sha256.Sum256(text)
	out := inspection{Known: true, AuditorKey: label(parsed.AuditorKey), SHA256: hex.EncodeToString(sum[:]), Size: info.Size()}
	if parsed.Proof != nil {
		out.Proof, out.ProofTx, out.ServerKey = true, parsed.Proof.Tx, fingerprint(parsed.Proof.Key)
	}
	s.evidence.keep(info, out)
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
	switch {
	case errors.Is(err, errNoIncident):
		s.oops(w, r, http.StatusNotFound, "There is no evidence of this name.")
		return
	case err != nil:
		s.unreadable(w, r, "the incident", err)
		return
	case inc.Evidence == "": // a disk that was full or slow; it is tried again every minute
		s.oops(w, r, http.StatusNotFound, "The evidence of this incident is not on disk: "+prose(inc.EvidenceError)+". While the incident is open that is tried again every minute.")
		return
	}
	release, err := s.evidence.slot(ctx)
	if err != nil {
		s.unreadable(w, r, "the evidence", err)
		return
	}
	text, info, err := s.load(&inc)
	release()
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

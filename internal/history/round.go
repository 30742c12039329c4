package history

import (
	"encoding/hex"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// piece is a stretch as it is kept in memory: times in microseconds since
// 1970, of 10,000 ledgers at once.
type piece struct {
	from, to                  int64
	took                      int64 // µs
	firstTx, lastTx, verified uint64
	alh                       proof.Hash
	rounds, sound             uint32
	slowest                   uint32 // µs
	longest                   uint32 // ms
	verdict                   evidence.Verdict
	kind, reason              uint8 // codes
	torn, broken              bool
}

// track is what is kept in mind of one ledger.
type track struct {
	piece        // under way; no rounds: none since the start, to is the last before
	row   int64  // of the ledger in the file, 0 where it is not there yet
	usual uint32 // ms between rounds
	count uint8  // pieces in these five minutes
	dirty bool   // changed since it was written
}

// finished is a stretch that ended.
type finished struct {
	track int32
	piece
}

// Round takes note of a round. It is called on every one, by many goroutines,
// and never waits for the disk.
func (h *History) Round(r evidence.Report) {
	if h == nil || h.readOnly || r.Time.IsZero() || r.Server == "" || len(r.Server) > maxName || len(r.Database) > maxName {
		return
	}
	at, took := r.Time.UnixMicro(), micros(r.DurationMS)
	var tx, verified uint64
	var alh proof.Hash
	if r.Trusted != nil {
		tx = r.Trusted.Tx
		// A hash that is none stays zero: unknown.
		if len(r.Trusted.Alh) == 2*len(alh) {
			if _, err := hex.Decode(alh[:], []byte(r.Trusted.Alh)); err != nil {
				alh = proof.Hash{}
			}
		}
	}
	if r.Assurance != nil {
		verified = r.Assurance.Verified
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	i, t := h.track(evidence.Name{Server: r.Server, Database: r.Database})
	if t == nil {
		return
	}
	kind, reason := h.code(string(r.Kind)), h.code(string(r.Reason))
	torn, longest := t.distance(at, h.gap)
	sameSlice := t.rounds > 0 && sliceOf(at) == sliceOf(t.from)
	if !sameSlice {
		t.count = 0
	}
	change := t.verdict != r.Verdict || t.kind != kind || t.reason != reason
	switch {
	case sameSlice && !torn && !change && !t.broken:
	case sameSlice && t.count >= maxPieces:
		// A ledger whose verdict changes with every round must not fill the disk.
		t.broken = true
		if worse(r.Verdict, t.verdict) {
			t.verdict, t.kind, t.reason = r.Verdict, kind, reason
		}
	default:
		h.end(i, t)
		began := at
		if began == t.from { // a time names a stretch
			began++
		}
		t.piece = piece{from: began, to: began, firstTx: tx, verdict: r.Verdict, kind: kind, reason: reason, torn: torn}
		if torn {
			longest = 0
		}
		t.count++
	}
	t.to = max(t.from, at)
	t.rounds++
	if r.Verdict == evidence.Consistent {
		t.sound++
	}
	t.lastTx, t.alh, t.verified = tx, alh, verified
	t.took += int64(took)
	t.slowest = max(t.slowest, took)
	t.longest = max(t.longest, longest)
	t.dirty = true
}

// track finds what is kept of a ledger; nil where there are too many.
func (h *History) track(name evidence.Name) (int32, *track) {
	if i, ok := h.index[name]; ok {
		return i, h.tracks[i]
	}
	if len(h.tracks) >= maxLedgers {
		h.lost++
		return 0, nil
	}
	return h.add(name)
}

func (h *History) add(name evidence.Name) (int32, *track) {
	i, t := int32(len(h.tracks)), &track{}
	h.tracks = append(h.tracks, t)
	h.index[name] = i
	return i, t
}

// code gives a short number for a kind or a reason. There are few; should
// there be more than fit, the rest has no name.
func (h *History) code(word string) uint8 {
	if c, ok := h.codes[word]; ok {
		return c
	}
	if len(h.words) > math.MaxUint8 {
		return 0
	}
	word = strings.Clone(clean(word, 64))
	c := uint8(len(h.words))
	h.words = append(h.words, word)
	h.codes[word] = c
	return c
}

// distance judges how long ago the last round was, and learns what is usual.
func (t *track) distance(at int64, gap time.Duration) (torn bool, ms uint32) {
	if t.to == 0 {
		return true, 0
	}
	since := at - t.to
	if since < 0 { // the clock was set back
		return true, 0
	}
	ms = uint32(min(since/1000, math.MaxUint32))
	bound := uint32(min(gap.Milliseconds(), math.MaxUint32/4))
	allowed := max(3*uint64(t.usual), uint64(bound))
	torn = uint64(ms) > allowed
	usual := (7*uint64(t.usual) + uint64(ms)) / 8
	if torn || t.usual == 0 {
		// One long silence does not become the usual, several of a kind do soon.
		usual = min(uint64(ms), 2*max(uint64(t.usual), uint64(bound)))
	}
	t.usual = uint32(min(usual, math.MaxUint32/4))
	return torn, ms
}

// end moves the stretch under way to those that wait for the disk.
func (h *History) end(i int32, t *track) {
	if t.rounds == 0 || !t.dirty {
		return
	}
	if len(h.pending) >= maxPending {
		h.lost++
		return
	}
	h.pending = append(h.pending, finished{track: i, piece: t.piece})
}

// stretch gives a piece in the words of this package.
func (h *History) stretch(name evidence.Name, p *piece) Stretch {
	return Stretch{
		Name: name, Verdict: p.verdict, Kind: evidence.Kind(h.words[p.kind]), Reason: evidence.Reason(h.words[p.reason]),
		From: time.UnixMicro(p.from).UTC(), To: time.UnixMicro(p.to).UTC(), Torn: p.torn, Broken: p.broken,
		Rounds: uint64(p.rounds), Sound: uint64(p.sound), FirstTx: p.firstTx, LastTx: p.lastTx, LastAlh: p.alh, Verified: p.verified,
		Took: time.Duration(p.took) * time.Microsecond, Slowest: time.Duration(p.slowest) * time.Microsecond,
		Longest: time.Duration(p.longest) * time.Millisecond,
	}
}

func sliceOf(at int64) int64 { return at / slice.Microseconds() }

// worse: tampered before undetermined before consistent.
func worse(a, b evidence.Verdict) bool { return severity(a) > severity(b) }

func severity(v evidence.Verdict) int {
	switch v {
	case evidence.Consistent:
		return 0
	case evidence.Tampered:
		return 2
	default:
		return 1
	}
}

func micros(ms float64) uint32 {
	if !(ms > 0) { // NaN too
		return 0
	}
	return uint32(min(ms*1000, math.MaxUint32))
}

// clean bounds a text and keeps it valid.
func clean(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return s
}

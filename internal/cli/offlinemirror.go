package cli

import (
	"context"
	"errors"
	"fmt"

	"immuaudit/evidence"
	"immuaudit/internal/mirror"
	"immuaudit/proof"
)

const (
	nextMirror = "find out who can write to the directory, then move the folder of this mirror away: the walk, which meets every remembered state, fills it again"
	nextSigned = "find out who can write to the directory, then move the file away: it can prove nothing against the server any more"
	nextServer = "whoever holds both can prove it to anybody: copy the directory, and go on as with an incident"

	// maxNamed bounds the files and states that are named one by one.
	maxNamed = 20
)

// mirrorCheck compares the mirror of a ledger with what is remembered of it.
type mirrorCheck struct {
	*record
	past  *mirror.Ledger
	show  func(mirror.Inspected)
	depth *depth
	// bound: the mirror is of the history that is trusted.
	bound bool
}

// accepted: trust began anew with an incident that was accepted. What is
// mirrored may be of the history before until the auditor sets it aside.
func (m *mirrorCheck) accepted() bool { return m.Baseline.Origin == evidence.OriginAccepted }

// compare recomputes every tile and compares the mirror with what is trusted.
// That it lags, or is not there, is as it may be.
func (m *mirrorCheck) compare(ctx context.Context, l *look) error {
	about, size := m.about("mirror"), m.past.Size()
	m.depth.mirrored = size
	if size == 0 {
		l.ok(about, "nothing of it is mirrored")
		return nil
	}
	damaged := 0
	inspected, err := m.past.Inspect(ctx, func(d *mirror.Damage) error {
		if damaged++; damaged <= maxNamed {
			l.problem(about, "%v", d)
		}
		return nil
	}, m.show)
	m.depth.Inspected = inspected
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		l.problem(about, "%v", err)
		return nil
	}
	if damaged > maxNamed {
		l.problem(about, "%d more tiles do not fit", damaged-maxNamed)
	}
	held, harm, err := m.fits(size)
	switch {
	case err != nil && damaged == 0:
		l.problem(about, "%v", err)
	case err != nil: // it is of a tile that was named
	case harm.what == "":
		m.bound = damaged == 0
		if m.bound {
			l.ok(about, "holds %d of %d walked transactions, and every tile fits; compared with %d remembered states and %s", size, m.Walked, held, harm.tree)
		}
	case !m.accepted():
		l.problem(about, "%s; %s", harm.what, harm.next)
	case damaged == 0:
		l.ok(about, "holds %d transactions, and every tile fits; what is of the history before the accepted incident is set aside when the walk gets there", size)
	}
	return nil
}

// misfit says what of a mirror is not what is trusted, "" for nothing, and with
// which tree it was compared.
type misfit struct{ what, next, tree string }

func (m *mirrorCheck) fits(size uint64) (held int, harm misfit, err error) {
	if size > m.Walked {
		return 0, misfit{
			what: fmt.Sprintf("it holds %d transactions, the state knows that %d were walked: the state was replaced by an older copy", size, m.Walked),
			next: "restore the newest one of the whole directory",
		}, nil
	}
	states := m.states()
	for _, what := range sorted(states) {
		s := states[what]
		if s.TxID > size {
			continue
		}
		held++
		switch holds, err := m.past.Holds(s.TxID, s.Alh); {
		case err != nil:
			return held, harm, err
		case !holds:
			return held, misfit{what: fmt.Sprintf("%s (transaction %d) is mirrored with another hash than is trusted", what, s.TxID), next: nextMirror}, nil
		}
	}
	harm.tree = "with no tree, since the walk cannot be read"
	if m.walk == nil { // it was said already
		return held, harm, nil
	}
	want, err := m.walk.Root(size)
	if errors.As(err, new(*proof.Unproven)) {
		harm.tree = "with no tree, since it lags too far"
		return held, harm, nil
	}
	if err != nil {
		return held, harm, err
	}
	got, err := m.past.Root(size)
	if err != nil {
		return held, harm, err
	}
	if got != want {
		return held, misfit{what: fmt.Sprintf("its %d transactions have the root %s, those that were walked %s", size, got, want), next: nextMirror}, nil
	}
	harm.tree = "with the walk's tree"
	return held, harm, nil
}

// compareSigned verifies the states that the server signed, each under the key
// that was in force, and compares them with each other, with the mirror and
// with what is trusted.
func (m *mirrorCheck) compareSigned(ctx context.Context, l *look) error {
	c := signedCheck{mirrorCheck: m, look: l, trusted: map[uint64]proof.Hash{}}
	for _, s := range m.states() {
		c.trusted[s.TxID] = s.Alh
	}
	err := m.past.EachState(func(file string, w evidence.Witnessed) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.depth.signed++
		return c.state(file, &w)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.bad++
		l.problem(m.about("signed"), "%v", err)
	}
	switch n := m.depth.signed; {
	case c.bad > maxNamed:
		l.problem(m.about("signed"), "%d more of %d signed states do not fit", c.bad-maxNamed, n)
	case c.bad == 0 && n > 0 && m.bound:
		l.ok(m.about("signed"), "signed states kept: %d; each verifies and is as it is mirrored", n)
	case c.bad == 0 && n > 0:
		l.ok(m.about("signed"), "signed states kept: %d; each verifies", n)
	}
	return nil
}

type signedCheck struct {
	*mirrorCheck
	look    *look
	trusted map[uint64]proof.Hash
	bad     int
	// newer is the state before, which is the next newer one, and where it is.
	newer     evidence.Witnessed
	newerFile string
}

func (c *signedCheck) problem(proven *evidence.Finding, format string, args ...any) {
	if c.bad++; c.bad > maxNamed {
		return
	}
	about := c.about("signed")
	about.proven = proven
	c.look.problem(about, format, args...)
}

// inForce: s is signed by the key that is trusted, whatever key it carries.
func (c *signedCheck) inForce(s *proof.SignedState) bool {
	return len(c.Key) > 0 && verifies(s, c.Key) == nil
}

// state judges one signed state. Its error is about the mirror.
func (c *signedCheck) state(file string, w *evidence.Witnessed) error {
	s := &w.State
	// Another history was signed before an incident that was accepted, maybe
	// with another key. Times are kept to the second.
	before := c.accepted() && !w.At.After(c.Baseline.At)
	key := c.Key
	if len(key) == 0 || before || c.accepted() && s.TxID <= c.Baseline.State.TxID {
		key = s.PublicKey
	}
	if err := verifies(s, key); err != nil {
		c.problem(nil, "%s: the kept state of transaction %d, of %s, does not verify: %v; %s", file, s.TxID, when(w.At), err, nextSigned)
		return nil
	}
	if before {
		return nil
	}
	newer, newerFile := c.newer, c.newerFile
	c.newer, c.newerFile = *w, file
	if c.Proven.TxID == s.TxID && c.Proven.Alh != s.Alh && verifies(&c.Proven, key) == nil {
		newer, newerFile = evidence.Witnessed{State: c.Proven, At: c.ProvenAt}, "the trusted state"
	}
	if newer.State.TxID == s.TxID && newer.State.Alh != s.Alh {
		if !c.inForce(s) || !c.inForce(&newer.State) || s.DB != newer.State.DB {
			// Whoever can write here can make such states with keys of their own.
			c.problem(nil, "two states of transaction %d are kept, with the hash %s (%s) and with %s (%s), and nothing shows that the server signed both: no key in force verifies them; %s",
				s.TxID, newer.State.Alh, newerFile, s.Alh, file, nextSigned)
			return nil
		}
		detail := fmt.Sprintf("the server signed two states of transaction %d: with the hash %s (%s, %s) and with %s (%s, %s)",
			s.TxID, newer.State.Alh, newerFile, when(newer.At), s.Alh, file, when(w.At))
		c.problem(&evidence.Finding{Kind: evidence.Fork, Check: "signed-states", Tx: s.TxID, Want: s.Alh.String(), Got: newer.State.Alh.String(), Detail: detail},
			"%s; %s", detail, nextServer)
		return nil
	}
	if alh, known := c.trusted[s.TxID]; known && alh != s.Alh {
		c.problem(nil, "%s: the server signed transaction %d with the hash %s, and %s is trusted; %s", file, s.TxID, s.Alh, alh, nextTrust)
		return nil
	}
	// Where the mirror does not fit, that was said.
	if !c.bound || s.TxID > c.past.Size() {
		return nil
	}
	switch holds, err := c.past.Holds(s.TxID, s.Alh); {
	case err != nil:
		return err
	case !holds:
		c.problem(nil, "%s: the server signed transaction %d with another hash than is mirrored; %s", file, s.TxID, nextMirror)
	}
	return nil
}

package store

import (
	"context"
	"sync"
	"time"

	"immuaudit/evidence"
	"immuaudit/proof"
)

const (
	// guardPause is the least time from one replacement of the guard to the
	// next: one costs two syncs and, where 10,000 ledgers have moved on, 10 ms
	// of a processor.
	guardPause = time.Second
	// guardClose bounds how long Close waits for a guard on a disk that hangs.
	guardClose = 5 * time.Second
)

// witness keeps the guard of an open state up to date. Its goroutine follows
// the commits; no commit waits for it.
type witness struct {
	s     *Store
	place *place
	wake  chan struct{}
	quit  chan struct{}
	ended chan struct{}

	// What the committer hands over: what changed since it was last taken.
	mu   sync.Mutex
	news news

	// The goroutine's own.
	now     standing
	reread  bool // the database has to be asked
	failing bool // the newest guard is not on disk; said once
}

// news is what commits changed. It is bounded by the number of ledgers,
// however long a disk keeps the guard waiting.
type news struct {
	proven   map[evidence.Name]provenAt
	sequence uint64 // of the newest commit, 0 for none
	digest   [32]byte
	reread   bool // names changed, or another process committed in between
}

type provenAt struct {
	proof.State
	sequence uint64
}

func newWitness(s *Store, p *place, now standing) *witness {
	return &witness{
		s: s, place: p, now: now, news: news{proven: map[evidence.Name]provenAt{}},
		wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
}

// saw takes note of a commit. It is called by the committer alone.
func (w *witness) saw(c *writing, reread bool) {
	w.mu.Lock()
	for _, t := range c.proven {
		w.news.proven[t.Name] = provenAt{t.Proven.State, c.sequence}
	}
	w.news.sequence, w.news.digest = c.sequence, c.digest
	w.news.reread = w.news.reread || reread
	w.mu.Unlock()
	w.signal()
}

func (w *witness) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *witness) take() news {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.news
	w.news = news{proven: map[evidence.Name]provenAt{}}
	return taken
}

// run is the witness's goroutine; stop ends it.
func (w *witness) run() {
	defer close(w.ended)
	pause := time.NewTimer(guardPause)
	defer pause.Stop()
	for {
		select {
		case <-w.wake:
			w.follow()
			pause.Reset(guardPause)
		case <-w.quit:
			w.follow()
			return
		}
		// What is committed meanwhile is witnessed when the pause is over.
		select {
		case <-pause.C:
		case <-w.quit:
			w.follow()
			return
		}
	}
}

// stop writes the last guard. A disk that does not answer is left alone.
func (w *witness) stop() {
	close(w.quit)
	wait := time.NewTimer(guardClose)
	defer wait.Stop()
	select {
	case <-w.ended:
	case <-wait.C:
		w.s.log.Warn("the disk of the guard does not answer: the last changes have no witness", "guard", w.place.path)
	}
}

// follow brings the guard up to what is committed. What fails is tried again
// after the next pause.
func (w *witness) follow() {
	ctx := context.Background()
	taken := w.take()
	if taken.sequence == 0 && !w.failing {
		return
	}
	if w.reread = w.reread || taken.reread; w.reread {
		now, err := w.s.readStanding(ctx)
		if err != nil {
			w.fail(err)
			return
		}
		w.now, w.reread = now, false
	}
	for name, state := range taken.proven {
		// What was read from the database may be newer.
		if state.sequence > w.now.commits {
			w.now.proven[name] = state.State
		}
	}
	if taken.sequence > w.now.commits {
		w.now.commits, w.now.digest = taken.sequence, taken.digest
	}
	harm, err := w.place.replace(ctx, w.s.dir, w.now.guard(time.Now()))
	if err != nil {
		w.fail(err)
		return
	}
	if w.failing {
		w.s.log.Info("the guard is written again", "guard", w.place.path)
	} else if harm != "" {
		w.s.log.Warn("somebody changed the guard while the auditor ran; it was written anew", "guard", w.place.path, "found", harm)
	}
	w.failing = false
}

func (w *witness) fail(err error) {
	if !w.failing {
		w.s.log.Warn("the guard cannot be written; nobody would notice it if the state were rolled back to before now", "error", err)
	}
	w.failing = true
	w.signal()
}

package audit

import "sync"

// lane does work in the order it comes, at most limit at a time. What waits
// holds no goroutine: those of ten thousand ledgers that all want something at
// once would cost more memory than all that is known of them.
type lane struct {
	limit int

	mu      sync.Mutex // guards what follows
	running int
	waiting []func()
}

func newLane(limit int) *lane { return &lane{limit: limit} }

// do has work done, now or later. Work must end when its context does.
func (l *lane) do(work func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, work)
	if l.running < l.limit {
		l.running++
		go l.run()
	}
}

func (l *lane) run() {
	for work := l.next(); work != nil; work = l.next() {
		work()
	}
}

func (l *lane) next() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.running--
		l.waiting = nil // its room may be that of ten thousand
		return nil
	}
	work := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	return work
}

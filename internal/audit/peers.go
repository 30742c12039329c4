package audit

import (
	"sync"

	"golang.org/x/sync/semaphore"

	"immuaudit/evidence"
	"immuaudit/proof"
)

// Common is what the engines of one process, each with a server of its own,
// share: the memory for contents, and what the state directory knows.
type Common struct {
	long, short *semaphore.Weighted // looks at the contents of many transactions, and of few

	mu    sync.Mutex
	known []relative
}

// relative is a ledger of the state directory, of whatever server.
type relative struct {
	name   evidence.Name
	uuid   string
	proven proof.State
}

// NewCommon divides the memory that deep says, which all engines that share it
// must be given too.
func NewCommon(deep *Deep) *Common {
	_, _, shorts := deep.shares()
	return &Common{long: semaphore.NewWeighted(1), short: semaphore.NewWeighted(shorts)}
}

// remember takes over what was read of the state directory.
func (c *Common) remember(trust []evidence.Trust) {
	known := make([]relative, 0, len(trust))
	for i := range trust {
		t := &trust[i]
		known = append(known, relative{t.Name, t.UUID, t.Proven.State})
	}
	c.mu.Lock()
	c.known = known
	c.mu.Unlock()
}

// relative finds a ledger of another name that may be the same: one with the
// same state, or with the same database name on what calls itself the same server.
func (c *Common) relative(name evidence.Name, uuid string, s *proof.SignedState) (relative, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.known {
		sameHistory := s.TxID > 0 && other.proven.Alh == s.Alh
		sameServer := other.uuid != "" && other.uuid == uuid && other.name.Database == name.Database
		if other.name != name && (sameHistory || sameServer) {
			return other, true
		}
	}
	return relative{}, false
}

package web

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxSocketPath is the longest path of a unix socket that every supported
// system takes (the BSDs have 104 bytes, the closing zero included).
const maxSocketPath = 103

var errSocketPathTooLong = errors.New("the path is too long for a unix socket")

// listenSocket listens on a unix socket that only this user can open. What a
// dead process left behind is replaced; a socket on which somebody answers, or
// a file that is no socket, is refused.
func listenSocket(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, errSocketPathTooLong
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s exists and is not a socket; move it away", path)
	default:
		if err := removeStale(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// The state directory is 0700, so nobody can slip in before the mode is set.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes the socket unless somebody answers on it. Only a refused
// connection shows that its process is gone.
func removeStale(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("another auditor answers on %s; stop it first", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("asking who listens on %s: %w; remove the file if no auditor runs", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// capped is a listener that has at most cap(slots) connections open.
type capped struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func newCapped(l net.Listener, limit int) *capped {
	return &capped{Listener: l, slots: make(chan struct{}, limit), done: make(chan struct{})}
}

func (c *capped) Accept() (net.Conn, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.done:
		return nil, net.ErrClosed
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		<-c.slots
		return nil, err
	}
	return &slotConn{Conn: conn, release: func() { <-c.slots }}, nil
}

func (c *capped) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Listener.Close()
}

type slotConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

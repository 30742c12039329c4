package attack

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
)

// trick is something done to one answer below gRPC, where interceptors do not
// reach. The answer is recognised by the mark that it begins with.
type trick byte

const (
	trickHuge    trick = iota + 1 // its length is announced as 1 GiB
	trickBomb                     // it is announced as compressed
	trickReset                    // the stream is reset in mid-answer
	trickCut                      // the connection is cut in mid-answer
	trickDribble                  // the connection goes on at a byte at a time
)

const (
	markText = "\xfa\x07immuaudit attack kit " // an unknown field to protobuf, were it read
	markSize = len(markText) + 1

	frameHeader  = 9 // RFC 9113 §4.1
	messageStart = 5 // gRPC: compressed flag, u32 length
	frameData    = 0 // RFC 9113 §6.1
	frameReset   = 3 // RFC 9113 §6.4
	dribbleEvery = 100 * time.Millisecond
)

// marked is an answer that a trick is played on. What follows the mark is what
// the client reads.
func marked[M proto.Message](m M, t trick, rest []byte) M {
	b := append([]byte(markText), byte(t))
	m.ProtoReflect().SetUnknown(append(b, rest...))
	return m
}

// channel hands out connections that play tricks.
type channel struct {
	credentials.TransportCredentials
}

func (c *channel) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return &trickster{Conn: conn, closed: make(chan struct{})}, info, nil
}

func (c *channel) Clone() credentials.TransportCredentials {
	return &channel{c.TransportCredentials.Clone()}
}

// trickster follows the HTTP/2 frames that the server writes, changes those of
// marked answers, and leaves all others alone.
type trickster struct {
	net.Conn
	mu      sync.Mutex // one writer at a time
	pending []byte     // the beginning of a frame, until all of it was written
	dribble bool

	once   sync.Once
	closed chan struct{}
}

func (t *trickster) Close() error {
	t.once.Do(func() { close(t.closed) })
	return t.Conn.Close()
}

func (t *trickster) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, b...)
	var out []byte
	cut := false
	for len(t.pending) >= frameHeader && !cut {
		// A frame is 16 MiB at most, and 16 KiB from this server.
		size := frameHeader + int(uint32(t.pending[0])<<16|uint32(t.pending[1])<<8|uint32(t.pending[2]))
		if len(t.pending) < size {
			break
		}
		var frame []byte
		frame, cut = t.play(t.pending[:size:size])
		out = append(out, frame...)
		t.pending = t.pending[size:]
	}
	if err := t.send(out); err != nil {
		return 0, err
	}
	if cut {
		t.pending = nil
		return len(b), t.Close()
	}
	return len(b), nil
}

// play changes one frame if it is the first of a marked answer.
func (t *trickster) play(frame []byte) (out []byte, cut bool) {
	payload := frame[frameHeader:]
	if frame[3] != frameData || len(payload) < messageStart+markSize || !bytes.HasPrefix(payload[messageStart:], []byte(markText)) {
		return frame, false
	}
	switch trick(payload[messageStart+markSize-1]) {
	case trickHuge:
		binary.BigEndian.PutUint32(payload[1:], 1<<30)
	case trickBomb:
		// The mark is cut out, or it would be no gzip.
		payload[0] = 1
		binary.BigEndian.PutUint32(payload[1:], binary.BigEndian.Uint32(payload[1:])-uint32(markSize))
		copy(payload[messageStart:], payload[messageStart+markSize:])
		n := len(payload) - markSize
		frame = frame[:frameHeader+n]
		frame[0], frame[1], frame[2] = byte(n>>16), byte(n>>8), byte(n)
	case trickReset:
		// More is announced than comes. What follows for the stream goes out
		// all the same: both sides count it against the connection's window,
		// and its header fields keep HPACK in step (RFC 9113 §5.1).
		binary.BigEndian.PutUint32(payload[1:], binary.BigEndian.Uint32(payload[1:])+1)
		reset := make([]byte, frameHeader+4)
		reset[2], reset[3] = 4, frameReset
		copy(reset[5:], frame[5:frameHeader])
		reset[frameHeader+3] = 2 // INTERNAL_ERROR
		return append(frame, reset...), false
	case trickCut:
		return frame[:frameHeader+len(payload)/2], true
	case trickDribble:
		t.dribble = true
	}
	return frame, false
}

// send writes at once, or a byte at a time once the connection dribbles.
func (t *trickster) send(b []byte) error {
	if !t.dribble {
		if len(b) == 0 {
			return nil
		}
		_, err := t.Conn.Write(b)
		return err
	}
	ticker := time.NewTicker(dribbleEvery)
	defer ticker.Stop()
	for i := range b {
		if _, err := t.Conn.Write(b[i : i+1]); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-t.closed:
			return net.ErrClosed
		}
	}
	return nil
}

package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

var be = binary.BigEndian

// Export asks for transaction tx with every value it has, expired and document
// entries too. From 1.2.0 on that takes an administrator, and the export of a
// partly truncated transaction never returns and blocks all later ones on that
// database, replication included (docs/protocol.md §2): call it only where
// asked to, and never for a transaction that retention may have touched.
//
// The server is asked not to check the values itself, so that damaged ones come
// too; they are checked by whoever hashes them.
func (c *Client) Export(ctx context.Context, db string, tx uint64) (*proof.Export, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	const op = "exportTx"
	if tx == 0 {
		return nil, c.malformed(op, db, refuse("request", "the export of transaction 0"))
	}
	reply := assembly{Message: new(schema.Chunk), limit: c.maxRecv}
	f := c.onDatabase(ctx, db, schema.ImmuService_ExportTx_FullMethodName, &schema.ExportTxRequest{Tx: tx, SkipIntegrityCheck: true}, &reply)
	if f != nil {
		return nil, f.asError()
	}
	x, err := reply.parse()
	if err == nil && x.Header.ID != tx {
		err = refuse("export.header.id", "%d where %d was asked for", x.Header.ID, tx)
	}
	if err != nil {
		return nil, c.undecodable(op, db, err)
	}
	return x, nil
}

// assembly is an answer that comes as a stream of chunks: u64 length || payload.
type assembly struct {
	proto.Message // of one chunk
	limit         int
	content       []byte
}

// errLong is an export that is, or says it is, larger than answers may be.
var errLong = errors.New("larger than the limit for one answer")

// add takes a chunk. What was announced is believed only to refuse it.
func (s *assembly) add(chunk []byte) error {
	if len(chunk) > s.limit-len(s.content) {
		return errLong
	}
	s.content = append(s.content, chunk...)
	if len(s.content) < 8 {
		return nil
	}
	switch announced, have := be.Uint64(s.content), uint64(len(s.content)-8); {
	case announced > uint64(s.limit):
		return errLong
	case have > announced:
		return refuse("export", "%d bytes where %d were announced", have, announced)
	}
	return nil
}

func (s *assembly) parse() (*proof.Export, error) {
	if len(s.content) < 8 || be.Uint64(s.content) != uint64(len(s.content)-8) {
		return nil, refuse("export", "ends after %d bytes", len(s.content))
	}
	return proof.ParseExport(s.content[8:])
}

// exchange makes the call itself: one answer, or a stream put together.
func (c *Client) exchange(ctx context.Context, method string, request proto.Message, a *answer, header *metadata.MD) error {
	whole, ok := a.message.(*assembly)
	if !ok {
		return c.conn.Invoke(ctx, method, request, a, grpc.Header(header))
	}
	// Ends the stream wherever it stands.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	// Not by a call option: a stream that is ended early would write there
	// after this has returned.
	defer func() {
		if md, err := stream.Header(); err == nil {
			*header = md
		}
	}()
	if err := errors.Join(stream.SendMsg(request), stream.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return err // at io.EOF RecvMsg tells why
	}
	whole.content = nil
	size := 0
	for a.err == nil {
		chunk := new(schema.Chunk)
		one := answer{message: chunk}
		err := stream.RecvMsg(&one)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		size += one.size
		switch a.err = one.err; {
		case a.err != nil:
		case len(chunk.GetContent()) == 0:
			// Endlessly many would cost nothing but the deadline.
			a.err = refuse("export", "an empty chunk")
		default:
			a.err = whole.add(chunk.GetContent())
		}
	}
	a.size = size
	return nil
}

// tooLong makes of an answer that does not fit what it is.
func tooLong(err error) bool { return errors.Is(err, errLong) || tooManyElements(err) }

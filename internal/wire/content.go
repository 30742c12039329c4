package wire

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"immuaudit/internal/wire/schema"
	"immuaudit/proof"
)

// Damaged reports whether the server refused because, as it says itself, what
// it stored is not what it once committed to. Like all of a fault this is the
// server's word; what cannot be had through a connection never counts.
func (f *Fault) Damaged() bool {
	lower := strings.ToLower(f.Message)
	return f.Kind == Refused && strings.Contains(lower, "corrupt") && !strings.Contains(lower, "binary linking mismatch")
}

// Gone reports whether the server refused because the stored bytes are not
// there any more: by retention, or else by loss (docs/protocol.md §7).
func (f *Fault) Gone() bool {
	return f.Kind == Refused && f.Code == codes.Unknown && endOfFile(f.Message)
}

// endOfFile knows the whole text that servers have for bytes that are gone. A
// connection that ends has a text of its own.
func endOfFile(message string) bool { return strings.EqualFold(strings.TrimSpace(message), "EOF") }

// Transactions lists up to limit consecutive transactions of db, beginning with
// from, and gives them to each in turn. It is for what they contain; see
// Headers for their headers alone.
//
// values says by their key prefixes which entries are listed, and that their
// values come along: 0 key/value, 1 sorted set, 2 SQL. Servers leave out those
// that have expired, and fail the whole page for one value that is damaged or
// gone, see [Fault.Damaged] and [Fault.Gone]. Nil lists every entry and no
// values: the one form with which the entry tree can be formed. Before 1.2.3
// that is the answer to everything (docs/protocol.md §2).
//
// Fewer than limit do not mean that the history ends there, and a page that is
// too large is for the caller to halve. A single transaction is asked for by
// its number, and not as a list of one.
//
// Header and entries refer to the answer itself and are good only until each
// returns; each is called once the whole answer is there, and the values are
// nil where none came, which on the wire looks like an empty one. If the
// answer is malformed, what was given before that is as good as any. received
// is the size of the answer in bytes.
func (c *Client) Transactions(ctx context.Context, db string, from uint64, limit int, values []byte, each func(h *proof.Header, entries []proof.ExportedEntry) error) (received int, err error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	method, op := schema.ImmuService_TxScan_FullMethodName, "TxScan"
	if limit == 1 {
		method, op = schema.ImmuService_TxById_FullMethodName, "TxById"
	}
	spec, err := valuesOf(values)
	if err == nil && (from == 0 || limit < 1) {
		err = refuse("request", "%d transactions from %d", limit, from)
	}
	if err != nil {
		return 0, c.malformed(op, db, err)
	}
	limit = min(limit, maxPage)
	var f *Fault
	var reply listing
	defer reply.free()
	if limit == 1 {
		reply.Message = new(schema.Tx)
		f = c.onDatabase(ctx, db, method, &schema.TxRequest{
			// Neither digests nor stored values need the server's index.
			Tx: from, EntriesSpec: spec, NoWait: true, KeepReferencesUnresolved: true,
		}, &reply)
	} else {
		reply.Message = new(schema.TxList)
		f = c.onDatabase(ctx, db, method, &schema.TxScanRequest{
			InitialTx: from, Limit: uint32(limit), EntriesSpec: spec, NoWait: true,
		}, &reply)
	}
	if f != nil {
		return 0, f.asError()
	}
	read := ReadTransactions
	if limit == 1 {
		read = readOne
	}
	var own error // of each, which is no fault of the server
	err = read(reply.text, from, limit, func(h *proof.Header, entries []proof.ExportedEntry) error {
		own = each(h, entries)
		return own
	})
	switch {
	case own != nil:
		return len(reply.text), own
	case err != nil:
		return len(reply.text), c.undecodable(op, db, err)
	}
	return len(reply.text), nil
}

// valuesOf asks for the values of entries with these key prefixes, and for none
// of the other entries; for every entry without its value where there are none.
func valuesOf(prefixes []byte) (*schema.EntriesSpec, error) {
	if prefixes == nil {
		return nil, nil
	}
	spec := headersOnly()
	raw := &schema.EntryTypeSpec{Action: schema.EntryTypeAction_RAW_VALUE}
	for _, prefix := range prefixes {
		switch prefix {
		case 0:
			spec.KvEntriesSpec = raw
		case 1:
			spec.ZEntriesSpec = raw
		case 2:
			spec.SqlEntriesSpec = raw
		default:
			return nil, refuse("request", "values of entries with key prefix %d cannot be listed", prefix)
		}
	}
	return spec, nil
}

// ValueAt asks for the value that a key/value entry was given by transaction
// tx. It is the way to values of servers before 1.2.3, and to single ones where
// a listing fails. The key has its prefix.
//
// Servers answer without the prefixes of what is stored, and follow references,
// so that one answer can stand for several stored values. All of them are
// given; the digest that the entry commits to tells which it is.
//
// It asks with Get, which answers what VerifiableGet does without its proof: a
// value is checked against a digest that is bound already, and the proof would
// repeat every entry of the transaction.
func (c *Client) ValueAt(ctx context.Context, db string, key []byte, tx uint64) (stored [][]byte, err error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	const op = "Get"
	if len(key) < 2 || key[0] != 0 || tx == 0 {
		return nil, c.malformed(op, db, refuse("request", "the value of key %x at transaction %d", key[:min(len(key), 32)], tx))
	}
	var reply schema.Entry
	if f := c.onDatabase(ctx, db, schema.ImmuService_Get_FullMethodName, &schema.KeyRequest{Key: key[1:], AtTx: tx, NoWait: true}, &reply); f != nil {
		return nil, f.asError()
	}
	stored = append(stored, append([]byte{0}, reply.Value...))
	if string(reply.Key) != string(key[1:]) {
		// A reference: it is stored as the key of its target, and as the
		// transaction that it is bound to, if any.
		for _, at := range [...]uint64{0, reply.Tx} {
			stored = append(stored, reference(at, reply.Key))
		}
	}
	return stored, nil
}

// reference is the stored value of a reference (docs/protocol.md §2).
func reference(atTx uint64, target []byte) []byte {
	b := be.AppendUint64([]byte{1}, atTx)
	return append(append(b, 0), target...)
}

// listing is an answer that is kept as it came, to be read where it lies: its
// values are most of the traffic, and are hashed and forgotten.
type listing struct {
	proto.Message // what it is an encoding of
	text          []byte
	buffer        *[]byte
}

// buffers holds the memory of answers that were read.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// keep takes over an answer.
func (l *listing) keep(data mem.BufferSlice) {
	l.free()
	l.buffer = buffers.Get().(*[]byte)
	n := data.Len()
	if cap(*l.buffer) < n {
		*l.buffer = make([]byte, n)
	}
	l.text = (*l.buffer)[:n]
	data.CopyTo(l.text)
}

// free gives the memory back. What was read must not be used any more.
func (l *listing) free() {
	if l.buffer != nil {
		buffers.Put(l.buffer)
	}
	l.buffer, l.text = nil, nil
}

// ReadTransactions reads the encoding of a TxList that answers a request for at
// most limit transactions from the given one, and gives each in turn, as
// [Client.Transactions] does.
func ReadTransactions(text []byte, from uint64, limit int, each func(h *proof.Header, entries []proof.ExportedEntry) error) error {
	l := listers.Get().(*lister)
	defer l.release()
	f := fields{rest: text}
	for n := 0; f.next(); {
		if f.tag != 1<<3|bytesField {
			continue
		}
		if n == limit {
			return refuse("txs", "more than the %d transactions that were asked for", limit)
		}
		if err := l.give(f.bytes, from+uint64(n), each); err != nil {
			return within("txs", err)
		}
		n++
	}
	return f.err
}

// readOne reads the encoding of a Tx.
func readOne(text []byte, tx uint64, _ int, each func(h *proof.Header, entries []proof.ExportedEntry) error) error {
	l := listers.Get().(*lister)
	defer l.release()
	return l.give(text, tx, each)
}

// give reads one transaction, which must be the wanted one, and gives it.
func (l *lister) give(text []byte, want uint64, each func(h *proof.Header, entries []proof.ExportedEntry) error) error {
	if err := l.transaction(text); err != nil {
		return err
	}
	if l.header.ID != want {
		return refuse("header.id", "%d where %d was asked for", l.header.ID, want)
	}
	return each(&l.header, l.entries)
}

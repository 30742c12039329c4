package ledger

import (
	"errors"
	"io"

	"google.golang.org/grpc"

	"immuaudit/internal/wire/schema"
)

// chunkSize is the most content one chunk of an export carries.
const chunkSize = 64 << 10

func (s *service) ExportTx(req *schema.ExportTxRequest, stream grpc.ServerStreamingServer[schema.Chunk]) error {
	return s.exportTo(req, stream)
}

func (s *service) StreamExportTx(stream grpc.BidiStreamingServer[schema.ExportTxRequest, schema.Chunk]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.exportTo(req, stream); err != nil {
			return err
		}
	}
}

// chunks is where an export goes.
type chunks interface {
	grpc.ServerStream
	Send(*schema.Chunk) error
}

func (s *service) exportTo(req *schema.ExportTxRequest, to chunks) error {
	need := Admin
	if !s.ledger.release.atLeast(1, 2, 0) {
		need = Read
	}
	d, err := s.ledger.selected(to.Context(), need, errExportDenied)
	if err != nil {
		return err
	}
	v := d.view()
	if err := v.checkTx(req.GetTx(), 0); err != nil {
		return err
	}
	tx := v.tx(req.GetTx())
	if d.exportHangs(tx) {
		<-to.Context().Done()
		return to.Context().Err()
	}
	payload, err := exportPayload(tx, s.ledger.release, req.GetSkipIntegrityCheck())
	if err != nil {
		return err
	}
	content := be.AppendUint64(nil, uint64(len(payload)))
	content = append(content, payload...)
	for len(content) > 0 {
		n := min(chunkSize, len(content))
		if err := to.Send(&schema.Chunk{Content: content[:n:n]}); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// exportHangs reproduces a fault of the original: the export of a partly
// truncated transaction never returns, nor does any later export on that
// database until the server restarts (docs/protocol.md §2).
func (d *Database) exportHangs(tx *StoredTx) bool {
	var present, missing bool
	for i := range tx.Entries {
		e := &tx.Entries[i]
		present = present || !e.missing() && e.HValue != emptyDigest
		missing = missing || e.missing()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exportStuck = d.exportStuck || present && missing
	return d.exportStuck
}

// exportPayload is the framing of docs/protocol.md §6, without the total length.
func exportPayload(tx *StoredTx, r release, unchecked bool) ([]byte, error) {
	values := make([][]byte, len(tx.Entries))
	truncated := false
	for i := range tx.Entries {
		e := &tx.Entries[i]
		if e.missing() && r.atLeast(1, 5, 0) {
			truncated = true
			continue
		}
		value, err := e.readValue()
		if errors.Is(err, errValueDamaged) && unchecked {
			value, err = e.Value, nil
		}
		if err != nil {
			return nil, err
		}
		values[i] = value
	}
	if truncated {
		for i := range tx.Entries {
			values[i] = bytesOf(tx.Entries[i].HValue)
		}
	}

	h := &tx.Header
	head := be.AppendUint64(nil, h.ID)
	head = append(head, h.PrevAlh[:]...)
	head = be.AppendUint64(head, uint64(h.Ts))
	head = be.AppendUint16(head, h.Version)
	head = h.appendCounts(head)
	head = append(head, h.EH[:]...)
	head = be.AppendUint64(head, h.BlTxID)
	head = append(head, h.BlRoot[:]...)

	b := be.AppendUint32(nil, uint32(len(head)))
	b = append(b, head...)
	for i := range tx.Entries {
		e := &tx.Entries[i]
		if !r.atLeast(1, 2, 0) {
			b = be.AppendUint32(b, uint32(len(e.Key)))
			b = be.AppendUint32(b, uint32(len(values[i])))
			b = append(b, e.Key...)
			b = append(b, values[i]...)
			continue
		}
		b = be.AppendUint16(b, uint16(len(e.Key)))
		b = append(b, e.Key...)
		md := e.Metadata.appendBinary(nil)
		b = be.AppendUint16(b, uint16(len(md)))
		b = append(b, md...)
		b = be.AppendUint32(b, uint32(len(values[i])))
		b = append(b, values[i]...)
	}
	if r.atLeast(1, 5, 0) {
		b = be.AppendUint16(b, 1)
		if truncated {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b, nil
}

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"immuaudit/internal/wire/schema"
)

// export reassembles an export, by exportTx or by streamExportTx.
func export(c client, ctx context.Context, id uint64, stream bool) ([]byte, error) {
	req := &schema.ExportTxRequest{Tx: id}
	var recv func() (*schema.Chunk, error)
	if stream {
		s, err := c.StreamExportTx(ctx)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(s.Send(req), s.CloseSend()); err != nil {
			return nil, err
		}
		recv = s.Recv
	} else {
		s, err := c.ExportTx(ctx, req)
		if err != nil {
			return nil, err
		}
		recv = s.Recv
	}
	var all []byte
	for {
		chunk, err := recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		all = append(all, chunk.GetContent()...)
	}
	if len(all) < 8 || be.Uint64(all) != uint64(len(all)-8) {
		return nil, fmt.Errorf("%d bytes that begin with %x", len(all), all[:min(8, len(all))])
	}
	return all[8:], nil
}

func TestExport(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{HeaderVersion: 1})
	d := database(t, l, DefaultDB)
	mixed(t, d)
	big := must(d.Set([]byte("big"), bytes.Repeat([]byte("x"), 3*chunkSize)))(t)
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	v := d.view()
	for id := uint64(1); id <= big; id++ {
		want := must(exportPayload(v.tx(id), l.release, false))(t)
		for _, stream := range []bool{false, true} {
			if got, err := export(c, ctx, id, stream); err != nil || !bytes.Equal(got, want) {
				t.Errorf("tx %d: %x, %v", id, got, err)
			}
		}
	}
	must(d.Truncate(2))(t)
	got := must(export(c, ctx, 1, false))(t)
	hk := HashValue([]byte("\x00v"))
	if !bytes.HasSuffix(got, []byte{0, 1, 1}) || !bytes.Contains(got, hk[:]) {
		t.Errorf("truncated: %x", got)
	}

	// Partly truncated: this and every later export hangs, until a restart.
	try(t, d.Tamper(func(h *History) { h.RemoveValue(2, 0) }))
	must(export(c, ctx, 2, false))(t) // its other value is empty anyway
	try(t, d.Tamper(func(h *History) { h.RemoveValue(5, 0) }))
	for _, id := range []uint64{5, 3} {
		short, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- second(export(c, short, id, false)) }()
		waitFor(t, func() bool {
			d.mu.RLock()
			defer d.mu.RUnlock()
			return d.exportStuck
		})
		cancel()
		wantError(t, <-done, "Canceled", "")
	}
	c.restart(l)
	must(export(c, c.admin(DefaultDB), 3, false))(t)
}

// TestOldVersions: what servers before 1.2.3 and before 1.4.1 do otherwise.
func TestOldVersions(t *testing.T) {
	t.Parallel()
	l := serve(t, Config{Version: "v1.0.5", BlTxID: func(_ string, id uint64) uint64 { return (id - 1) / 4 * 4 }})
	d := database(t, l, DefaultDB)
	for range 9 {
		must(d.Set([]byte("k"), []byte("val")))(t)
	}
	c := dial(t, l)
	ctx := c.admin(DefaultDB)
	m := must(c.VerifiableTxById(ctx, &schema.VerifiableTxRequest{Tx: 9, ProveSinceTx: 7, EntriesSpec: headSpec}))(t)
	if m.GetDualProof().GetLinearAdvanceProof() != nil {
		t.Error("an advance proof from a server that knows none")
	}
	entries := m.GetTx().GetEntries()
	if len(entries) != 1 || entries[0].GetVLen() != 0 || string(entries[0].ProtoReflect().GetUnknown()) != "\x20\x04" {
		t.Errorf("entries %v", entries)
	}
	try(t, l.CreateUser("ada", "secret"))
	try(t, l.Grant("ada", DefaultDB, Read))
	payload := must(export(c, c.use("ada", "secret", DefaultDB), 9, false))(t)
	if !bytes.HasSuffix(payload, []byte("\x00\x00\x00\x02\x00\x00\x00\x04\x00k\x00val")) {
		t.Errorf("export %x", payload)
	}
	if m.GetTx().GetHeader().GetMetadata() != nil {
		t.Error("metadata in a header of version 0")
	}
}

package ledger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// The log of a database is one append-only file: a first line naming the
// format, then one record per transaction,
//
//	u32 length || u32 CRC-32C of the payload || payload
//
// synced before the transaction is visible to anyone. A record that the end of
// the file cuts off was never acknowledged and is dropped; damage anywhere else
// is an error, as it cannot come from a crash.
const logMagic = "immuaudit ledger log 1\n"

// maxRecord bounds what a length field can make us read: the largest message
// twice over.
const maxRecord = 2 * maxMessage

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// temporaryMark is in the names of files being written, which a crash leaves.
const temporaryMark = ".new-"

type txLog struct {
	path string
	file *os.File // nil after a failed rewrite
	buf  []byte
}

// createLog makes an empty log; the name must be new.
func createLog(path string) (*txLog, error) {
	l := &txLog{path: path}
	if err := l.rewrite(&view{}); err != nil {
		return nil, err
	}
	return l, nil
}

// openLog reads a log and makes it ready for appending.
func openLog(path string) (*txLog, view, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, view{}, err
	}
	v, end, err := readLog(f)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, view{}, errors.Join(fmt.Errorf("reading %s: %w", path, err), f.Close())
	}
	return &txLog{path: path, file: f}, v, nil
}

// readLog returns the content and where the last whole record ends.
func readLog(f *os.File) (view, int64, error) {
	var v view
	info, err := f.Stat()
	if err != nil {
		return v, 0, err
	}
	r := bufio.NewReaderSize(f, 1<<16)
	magic := make([]byte, len(logMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != logMagic {
		return v, 0, errors.New("not a ledger log; give an empty directory or one that a ledger made")
	}
	end := int64(len(logMagic))
	for {
		payload, err := readRecord(r, info.Size()-end)
		if errors.Is(err, errTorn) {
			return v, end, nil
		}
		if err == io.EOF {
			return v, end, nil
		}
		if err != nil {
			return v, 0, fmt.Errorf("transaction %d: %w; restore the file from a copy", v.last()+1, err)
		}
		tx, leaf, err := decodeTx(payload)
		if err != nil {
			return v, 0, fmt.Errorf("transaction %d: %w; restore the file from a copy", v.last()+1, err)
		}
		v.txs = append(v.txs, tx)
		v.tree.appendLeaf(leafHash(leaf[:]))
		if leaf != tx.Alh {
			if v.swapped == nil {
				v.swapped = map[uint64][32]byte{}
			}
			v.swapped[v.last()] = leaf
		}
		end += 8 + int64(len(payload))
	}
}

var errTorn = errors.New("record cut off by the end of the file")

// readRecord reads one record of which at most rest bytes exist.
func readRecord(r *bufio.Reader, rest int64) ([]byte, error) {
	var head [8]byte
	if rest == 0 {
		return nil, io.EOF
	}
	if rest < int64(len(head)) {
		return nil, errTorn
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(be.Uint32(head[:]))
	rest -= int64(len(head))
	if n > rest {
		return nil, errTorn
	}
	if n > maxRecord {
		return nil, fmt.Errorf("record of %d bytes: at most %d are possible", n, int64(maxRecord))
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, err
	}
	if n == 0 || crc32.Checksum(payload, castagnoli) != be.Uint32(head[4:]) {
		// A file system may have the length of an unfinished write but not its
		// bytes; then nothing, or nothing but zeros, comes after it.
		if onlyZeros(r) {
			return nil, errTorn
		}
		return nil, errors.New("checksum mismatch")
	}
	return payload, nil
}

func onlyZeros(r io.Reader) bool {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return false
		}
		if err != nil {
			return true
		}
	}
}

// append writes transactions whose leaves are their own, and syncs.
func (l *txLog) append(txs []*StoredTx) error {
	l.buf = l.buf[:0]
	for _, tx := range txs {
		l.buf = appendRecord(l.buf, tx, tx.Alh)
	}
	if _, err := l.file.Write(l.buf); err != nil {
		return err
	}
	if cap(l.buf) > 1<<20 {
		l.buf = nil
	}
	return l.file.Sync()
}

// rewrite puts another content in place of the whole log: all of it or none.
func (l *txLog) rewrite(v *view) error {
	err := replaceFile(l.path, func(w io.Writer) error {
		if _, err := io.WriteString(w, logMagic); err != nil {
			return err
		}
		var buf []byte
		for i, tx := range v.txs {
			buf = appendRecord(buf[:0], tx, v.leafAlh(uint64(i)+1))
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
		// Not every system replaces a file that is open.
		err := l.close()
		l.file = nil
		return err
	})
	if err != nil {
		return err
	}
	l.file, err = os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0)
	return err
}

func (l *txLog) close() error {
	if l == nil || l.file == nil {
		return nil
	}
	return l.file.Close()
}

// replaceFile replaces a file with what fill writes: all of it or none.
func replaceFile(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+temporaryMark+"*")
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<16)
	err = fill(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

package proof_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"

	"immuaudit/proof"
)

// TestMain makes the drawn tests draw the same every time and leave no files
// behind. Give -rapid.seed (0 for a random one) and -rapid.checks to look
// further.
func TestMain(m *testing.M) {
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.nofailfile": "true"} {
		if given[name] {
			continue
		}
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	os.Exit(m.Run())
}

// drawBook draws a ledger of random size, with trees that lag and are not
// monotone, and headers of both versions.
func drawBook(t *rapid.T, most int) *book {
	b := new(book)
	n := rapid.IntRange(2, most).Draw(t, "size")
	lag := uint64(0)
	for id := uint64(1); id <= uint64(n); id++ {
		switch rapid.IntRange(0, 9).Draw(t, "tree") {
		case 0:
			lag = rapid.Uint64Range(0, 20).Draw(t, "lag")
		case 1, 2, 3, 4:
			lag = 0
		case 5, 6, 7:
			if lag > 0 { // it stands while transactions are added
				lag++
			}
		}
		b.commit(id-1-min(lag, id-1), func(h *proof.Header) {
			h.Version = uint16(rapid.IntRange(0, 1).Draw(t, "version"))
			h.Ts = rapid.Int64().Draw(t, "ts")
			if h.Version == 1 && rapid.IntRange(0, 7).Draw(t, "metadata") == 0 {
				h.Metadata.TruncatedTxID = rapid.Uint64Range(0, id).Draw(t, "truncated")
				h.Metadata.Extra = rapid.SliceOfN(rapid.Byte(), 0, proof.MaxExtra).Draw(t, "extra")
			}
		})
	}
	return b
}

// Any two states of an honest ledger: the dual proof holds with what it asks
// for, a rebuilt advance proof does as well as a sent one, and the checkpoint
// is the root over the Alhs; or it says to walk, and only where it must.
func TestPropertyDual(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := drawBook(t, 60)
		n := uint64(len(b.headers))
		source := rapid.Uint64Range(1, n).Draw(t, "source")
		target := rapid.Uint64Range(source, n).Draw(t, "target")
		p := b.dual(source, target)
		if rapid.Bool().Draw(t, "old server") {
			p.Advance = nil
		}
		s, claimed := b.state(source), b.state(target)
		extra := new(proof.Extra)
		var root proof.Hash
		var err error
		for range 4 {
			if root, err = proof.CheckpointRoot(p, s, claimed, extra); err == nil {
				break
			}
			u, ok := errors.AsType[*proof.Unproven](err)
			if !ok {
				break
			}
			switch u.Need {
			case proof.NeedAdvance:
				var paths [][]proof.Hash
				for tx := u.From + 1; tx < u.To; tx++ {
					paths = append(paths, b.dual(tx, target).Inclusion)
				}
				if extra.Advance, err = proof.RebuildAdvance(u.From, u.To, b.headers[u.From:u.To], paths); err != nil {
					t.Fatal(err)
				}
			case proof.NeedBinding:
				extra.Binding = b.dual(u.From, u.To)
			}
		}
		if p.Source.BlTxID > p.Target.BlTxID {
			if !isUnproven(err, proof.NeedWalk) {
				t.Fatalf("shrinking tree: %v", err)
			}
			return
		}
		if err != nil || root != b.root(target) {
			t.Fatalf("%d→%d: root %s, %v", source, target, root, err)
		}
		// And whatever single bit is changed, it does not hold.
		fields := proofFields(p, extra)
		f := fields[rapid.IntRange(0, len(fields)-1).Draw(t, "field")]
		if f.size == 0 {
			return
		}
		at := rapid.IntRange(0, f.size-1).Draw(t, "byte")
		f.flip(at)
		if err := proof.VerifyDual(p, s, claimed, extra); !refused(err) && asked(p, extra, f) {
			t.Fatalf("byte %d of %s changed: %v", at, f.name, err)
		}
	})
}

// asked tells whether f can matter to VerifyDual: a binding that only the
// checkpoint asked for does not.
func asked(p *proof.DualProof, x *proof.Extra, f field) bool {
	step8 := p.Target.BlTxID > p.Source.BlTxID && p.Source.ID > p.Target.BlTxID
	return x.Binding == nil || step8 || !bytes.HasPrefix([]byte(f.name), []byte("binding"))
}

// Any honest ledger can be walked, from wherever the walk was stored, and
// every root in its window is the tree's; no changed header can.
func TestPropertyWalk(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := drawBook(t, 150)
		n := uint64(len(b.headers))
		stored := rapid.Uint64Range(0, n).Draw(t, "stored at")
		changed := rapid.Uint64Range(1, n).Draw(t, "changed")
		w := new(proof.Walk)
		for tx := uint64(1); tx <= n; tx++ {
			if tx == changed {
				h := b.header(tx)
				fields := headerFields("header", &h)
				// What the hash covers but the header does not repeat shows
				// only in the Alh that results.
				f := fields[rapid.IntRange(0, len(fields)-1).Draw(t, "field")]
				if f.size > 0 {
					at := rapid.IntRange(0, f.size-1).Draw(t, "byte")
					f.flip(at)
					c := w.Clone()
					if err := c.Next(&h); err == nil && c.At() == b.state(tx) {
						t.Fatalf("%s of transaction %d changed, and the walk meets its Alh", f.name, tx)
					}
					f.flip(at) // the extra bytes are the book's own
				}
			}
			h := b.header(tx)
			if err := w.Next(&h); err != nil {
				t.Fatalf("transaction %d of %d, tree %d: %v", tx, n, h.BlTxID, err)
			}
			if w.At() != b.state(tx) {
				t.Fatalf("at %v, wanted %v", w.At(), b.state(tx))
			}
			if tx == stored {
				enc := encodeR(t, w)
				w = new(proof.Walk)
				if err := w.UnmarshalBinary(enc); err != nil || !bytes.Equal(enc, encodeR(t, w)) {
					t.Fatalf("stored at %d: %v", tx, err)
				}
			}
		}
		size := rapid.Uint64Range(n-min(n, proof.Window), n).Draw(t, "root of")
		want := proof.EmptyAlh()
		if size > 0 {
			want = b.root(size)
		}
		if root, err := w.Root(size); err != nil || root != want {
			t.Fatalf("root of %d: %s, %v", size, root, err)
		}
	})
}

func encodeR(t *rapid.T, w *proof.Walk) []byte {
	b, err := w.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Entries of any kind: the whole list verifies, each is included, and no other
// list does.
func TestPropertyEntries(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		version := uint16(rapid.IntRange(0, 1).Draw(t, "version"))
		n := rapid.IntRange(0, 40).Draw(t, "entries")
		x := proof.Export{Header: proof.Header{ID: 1, Version: version, NEntries: uint32(n)}, Trailer: rapid.Bool().Draw(t, "trailer")}
		if version == 0 && n > 0 && !x.Trailer && rapid.Bool().Draw(t, "plain") {
			x.Framing = proof.FramingPlain
		}
		b := new(book) // its trees serve as entry trees
		entries := make([]proof.Entry, n)
		for i := range entries {
			e := &entries[i]
			e.Key = rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "key")
			value := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "value")
			if version == 1 {
				e.Metadata.Deleted = rapid.Bool().Draw(t, "deleted")
				e.Metadata.NonIndexable = rapid.Bool().Draw(t, "non-indexable")
				if e.Metadata.HasExpiry = rapid.Bool().Draw(t, "expires"); e.Metadata.HasExpiry {
					e.Metadata.ExpiresAt = rapid.Int64().Draw(t, "at")
				}
			}
			e.HValue = hashOf(value)
			digest, err := proof.EntryDigest(version, e)
			if err != nil {
				t.Fatal(err)
			}
			b.leaves = append(b.leaves, digest)
			x.Entries = append(x.Entries, proof.ExportedEntry{Entry: *e, Value: value})
		}
		h := &x.Header
		h.EH = hashOf(nil)
		if n > 0 {
			h.EH = b.root(uint64(n))
		}
		if err := proof.VerifyEntries(h, entries); err != nil {
			t.Fatal(err)
		}
		payload, err := proof.AppendExport(nil, &x)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyExport(payload, h.Alh()); err != nil {
			t.Fatalf("export: %v", err)
		}
		if n == 0 {
			return
		}
		i := uint64(rapid.IntRange(0, n-1).Draw(t, "index"))
		path := b.path(i, 0, uint64(n))
		if err := proof.VerifyEntryInclusion(h, &entries[i], i, uint64(n), path); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		entries[i].HValue[3] ^= 1
		if err := proof.VerifyEntries(h, entries); !isMismatch(err, proof.CheckEntryTree) {
			t.Fatalf("entry %d changed: %v", i, err)
		}
		if err := proof.VerifyEntryInclusion(h, &entries[i], i, uint64(n), path); !isMismatch(err, proof.CheckEntryInclusion) {
			t.Fatalf("entry %d changed, alone: %v", i, err)
		}
	})
}

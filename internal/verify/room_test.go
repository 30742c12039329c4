package verify

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"immuaudit/proof"
)

// What damages hold is bounded, whatever is found: beyond that they are named,
// and nothing more of them is kept. What is dropped makes room again.
func TestRoom(t *testing.T) {
	t.Parallel()
	r := &run{}
	h := &proof.Header{ID: 7}
	e := &proof.Entry{Key: append([]byte{0}, bytes.Repeat([]byte("k"), 1000)...)}
	value := make([]byte, 100<<10)
	var kept []Damage
	bytesOf := func(d *Damage) int {
		n := len(d.Received) + len(d.Where.Key) + len(d.Where.KeyText)
		if d.Entry != nil {
			n += len(d.Entry.Key)
		}
		return n
	}
	total, whole := 0, 0
	for range 1000 {
		d := r.wrongValue(h, e, &shown{value: r.keep(value), size: len(value)})
		if d.Tx != 7 || !strings.HasPrefix(d.Where.Key, "006b6b") || d.Size != len(value) || len(d.Received) > maxKeptValue {
			t.Fatalf("%+v", d)
		}
		if d.Entry != nil && d.Received != nil && d.Where.KeyText != "" {
			whole++
		}
		total += bytesOf(&d)
		kept = append(kept, d)
	}
	// Names of those that there was no room for are short.
	if most := maxKept + len(kept)*2*maxTightKey; total > most || whole < 200 || whole > 260 {
		t.Errorf("%d bytes are held, %d damages whole", total, whole)
	}
	for i := range kept {
		r.drop(&kept[i])
	}
	if n := r.kept.Load(); n != 0 {
		t.Errorf("with everything dropped, %d bytes are held", n)
	}
	if d := r.wrongValue(h, e, &shown{value: r.keep(value)}); d.Entry == nil || d.Received == nil {
		t.Errorf("no room although all was dropped: %+v", d)
	}
}

// A transaction that is looked at again does not count twice, and what is beyond
// those that can be named counts not at all.
func TestWrongValuesKept(t *testing.T) {
	t.Parallel()
	const n = 400
	for seed := range uint64(20) {
		r := &run{}
		c := &committed{header: proof.Header{ID: 1, NEntries: n}, entries: make([]proof.Entry, n)}
		for i := range c.entries {
			c.entries[i] = proof.Entry{Key: []byte{0, byte(i), byte(i >> 8)}, HValue: proof.Hash{1}}
		}
		q := newInquiry(r, c)
		for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(n) { // as answers may come
			q.take(i, []byte("shown"))
		}
		q.decide(false)
		if q.tally.Kinds[KeyValue].Damaged != n || len(q.damages) != 100 || r.kept.Load() != 100*(5+3) {
			t.Fatalf("%d damaged, %d named, %d bytes held", q.tally.Kinds[KeyValue].Damaged, len(q.damages), r.kept.Load())
		}
		for i, d := range q.damages {
			if !bytes.Equal(d.Entry.Key, c.entries[i].Key) || string(d.Received) != "shown" {
				t.Errorf("number %d: %+v", i, d)
			}
		}
		if q.drop(); r.kept.Load() != 0 {
			t.Errorf("%d bytes are held of what was dropped", r.kept.Load())
		}
	}
}

// The size of pages follows that of transactions, what fits, and what comes in
// time, and never leaves its bounds.
func TestSizer(t *testing.T) {
	t.Parallel()
	s := newSizer(1 << 20)
	if s.next() != firstPage {
		t.Errorf("the first page has %d", s.next())
	}
	s.came(0, 1<<30) // nothing came
	if s.next() != firstPage {
		t.Errorf("after nothing %d", s.next())
	}
	s.came(32, 32*1024)
	if s.next() != 1000 { // 1,024 of them would be a target's worth
		t.Errorf("pages of small ones have %d", s.next())
	}
	s.came(1, 30<<20) // counts at once
	if s.next() != 1 {
		t.Errorf("after a huge one %d", s.next())
	}
	pages := 0
	for ; s.next() < maxPage; pages++ {
		s.came(s.next(), s.next()*100)
	}
	if pages > 60 {
		t.Errorf("%d pages until they are large again", pages)
	}
	s.tooLarge(1000)
	s.tooLarge(800) // was under way meanwhile
	if s.next() != 400 {
		t.Errorf("%d after 1000 and 800 did not fit", s.next())
	}
	for range pagesBeforeGrowth - 1 {
		s.came(400, 40_000)
	}
	s.came(50, 5000) // not as large as may be: says nothing of it
	if s.next() != 400 {
		t.Errorf("grown to %d too early", s.next())
	}
	if s.came(400, 40_000); s.next() != 800 {
		t.Errorf("%d after as many as it takes have fitted", s.next())
	}
	for range 20 {
		s.tooLarge(s.next())
	}
	if s.next() != 1 {
		t.Errorf("never less than one: %d", s.next())
	}
}

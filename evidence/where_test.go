package evidence_test

import (
	"slices"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/proof"
)

func TestDivergenceInWords(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]evidence.Divergence{
		"transaction 56 still agrees, transaction 57 is the first that differs or is missing":  {LastGoodTx: 56, FirstBadTx: 57},
		"transaction 50 still agrees; the first that differs or is missing is one of 51 to 57": {LastGoodTx: 50, FirstBadTx: 57},
		"the first transaction that differs or is missing is one of 1 to 57":                   {FirstBadTx: 57},
		"nothing agrees: transaction 1 is the first that differs or is missing":                {FirstBadTx: 1},
		"the chain of transactions agrees with what is remembered up to transaction 60":        {LastGoodTx: 60},
		`what does not match is in transaction 57, under key "k\u00fc"`:                        {FirstBadTx: 57, Key: "006bc3bc", KeyText: "kü"},
		"what does not match is in transaction 57, under key 00ff (hex)":                       {FirstBadTx: 57, Key: "00ff"},
	} {
		if got := d.String(); got != want {
			t.Errorf("%+v: %s", d, got)
		}
		if exact := strings.Contains(want, "is the first that"); d.Exact() != exact {
			t.Errorf("%+v: exact %v", d, d.Exact())
		}
	}
}

// What the file holds bears out where the ledger is said to part, or the
// re-check says that it does not.
func TestWhereItParts(t *testing.T) {
	t.Parallel()
	key, auditor := newServerKey(t, 7), newAuditor(t, 9)
	root := new(book).commit(50, "common")
	old, anew := root.fork().commit(20, "old"), root.fork().commit(30, "new")
	probe := func(tx uint64, shown *book) evidence.Probe {
		p := evidence.Probe{Tx: tx, Leaf: proof.LeafHash(old.leaves[tx-1])}
		if shown != nil {
			p.Shown = &shown.leaves[tx-1]
		}
		return p
	}
	parts := func(good, bad uint64) *evidence.Divergence {
		return &evidence.Divergence{LastGoodTx: good, FirstBadTx: bad}
	}
	trusted, observed := key.state(t, "db", old, 70), key.state(t, "db", anew, 80)
	const (
		word  = "is the auditor's word"
		agree = "Transaction 50 was shown as it is remembered."
	)
	for name, test := range map[string]struct {
		kind       evidence.Kind
		divergence *evidence.Divergence
		probes     []evidence.Probe
		change     func(*evidence.Material)
		says       []string
	}{
		"exact": {evidence.Fork, parts(50, 51), []evidence.Probe{probe(35, root), probe(50, root), probe(51, anew), probe(60, anew)}, nil,
			[]string{agree, "Transaction 51 was shown otherwise than it is remembered."}},
		"range": {evidence.Fork, parts(50, 60), []evidence.Probe{probe(50, root), probe(60, anew)}, nil,
			[]string{agree, "Transaction 60 was shown otherwise than it is remembered."}},
		"by headers": {evidence.Fork, parts(69, 70), nil, func(m *evidence.Material) { m.Headers = anew.headers[69:72] },
			[]string{"Nothing in the file shows transaction 69 as it is remembered: that it agrees " + word + ".", "Transaction 70 was shown otherwise than it is remembered."}},
		"by a kept state": {evidence.Fork, parts(50, 55), []evidence.Probe{probe(50, root)}, func(m *evidence.Material) {
			m.States, m.Headers = []proof.SignedState{key.state(t, "db", old, 55)}, anew.headers[54:55]
		}, []string{agree, "Transaction 55 was shown otherwise than it is remembered."}},
		"missing": {evidence.Rollback, parts(50, 51), []evidence.Probe{probe(50, root)}, func(m *evidence.Material) { m.Observed = key.state(t, "db", root, 50) },
			[]string{agree, "Transaction 51 is missing: the observed state ends at transaction 50."}},
		"emptied": {evidence.Emptied, parts(0, 1), nil, func(m *evidence.Material) { m.Observed = key.state(t, "db", root, 0) },
			[]string{"Transaction 1 is missing: the observed state ends at transaction 0."}},
		"nothing for it": {evidence.Fork, parts(50, 51), []evidence.Probe{probe(50, nil), probe(51, nil)}, nil,
			[]string{"Nothing in the file shows transaction 50 as it is remembered: that it agrees " + word + ".", "Nothing in the file shows transaction 51 otherwise than it is remembered: that it differs " + word + "."}},
		"turned round": {evidence.Fork, parts(60, 61), []evidence.Probe{probe(60, anew), probe(61, old), probe(50, old), probe(55, anew), probe(65, old)}, nil,
			[]string{"Transaction 60 is said to agree, and was shown otherwise than it is remembered.", "Transaction 61 is said to differ, and was shown as it is remembered.",
				"Transaction 55 was shown otherwise than it is remembered, which is at odds with where the ledger is said to part.",
				"Transaction 65, which commits to all before it, was shown as it is remembered: the server contradicts itself."}},
		"in two ways": {evidence.Fork, parts(50, 51), []evidence.Probe{probe(50, root), probe(51, anew), probe(51, old), probe(50, new(book).commit(50, "other"))}, nil,
			[]string{"Transaction 50 was shown both as it is remembered and otherwise: the server contradicts itself.", "Transaction 51 was shown both as it is remembered and otherwise: the server contradicts itself."}},
		"no sense": {evidence.Fork, parts(51, 51), nil, nil, []string{"That the ledger parts at transaction 51 and agrees up to 51 cannot both be."}},
		"chain whole": {evidence.SignatureInvalid, parts(75, 0), []evidence.Probe{probe(50, root)}, func(m *evidence.Material) {
			m.Trusted, m.Headers = key.state(t, "db", anew, 72), anew.headers[71:75]
		}, []string{"Transaction 75 was shown to continue what is remembered."}},
		"by the observed state": {evidence.Fork, parts(50, 60), []evidence.Probe{probe(50, root), probe(60, nil)}, func(m *evidence.Material) { m.Observed = key.state(t, "db", anew, 60) },
			[]string{agree, "Transaction 60 was shown otherwise than it is remembered."}},
		"not remembered": {evidence.Fork, parts(50, 51), []evidence.Probe{probe(50, root)}, func(m *evidence.Material) { m.Headers = anew.headers[50:51] },
			[]string{agree, "Nothing in the file shows transaction 51 otherwise than it is remembered: that it differs " + word + "."}},
		"chain not whole": {evidence.Proof, parts(50, 0), []evidence.Probe{probe(60, anew), probe(50, root)}, nil,
			[]string{agree, "Transaction 60 was shown otherwise than it is remembered, which is at odds with where the ledger is said to part."}},
		"does not follow": {evidence.Header, parts(70, 71), []evidence.Probe{probe(70, old)}, func(m *evidence.Material) { m.Headers = anew.headers[70:72] },
			[]string{"Transaction 70 was shown as it is remembered.", "The header of transaction 71 does not follow transaction 70."}},
		"tree": {evidence.Tree, parts(50, 51), []evidence.Probe{probe(50, root), probe(51, nil), probe(70, old)}, nil,
			[]string{agree, "The leaf of transaction 51 in the transaction tree is the auditor's word, and the notes of its probes."}},
		"data": {evidence.Value, &evidence.Divergence{FirstBadTx: 51, Key: "006b", KeyText: "k"}, nil, nil, nil},
		"none": {evidence.Fork, nil, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := incident(test.kind)
			m.ServerKey, m.Trusted, m.Observed, m.Divergence, m.Probes = key.point, trusted, observed, test.divergence, test.probes
			if test.change != nil {
				test.change(&m)
			}
			o, err := evidence.Recheck(encoded(t, m, auditor), evidence.RecheckOptions{AuditorKey: auditor.VerifierKey()})
			if err != nil {
				t.Fatal(err)
			}
			if d := test.divergence; slices.ContainsFunc(o.Testimony, func(s string) bool { return strings.HasPrefix(s, "Where: ") }) != (d != nil) ||
				d != nil && !slices.Contains(o.Testimony, "Where: "+d.String()+".") {
				t.Errorf("%q", o.Testimony)
			}
			// What is said of the divergence comes first, and nothing more.
			n := len(test.says)
			if len(o.Recomputed) <= n || !slices.Equal(o.Recomputed[:n], test.says) || !strings.HasPrefix(o.Recomputed[n], "The trusted state") && !strings.Contains(o.Recomputed[n], "its leaf hash is") {
				t.Errorf("%s", strings.Join(o.Recomputed, "\n"))
			}
		})
	}
}

// The checks are told in their order, and by what they compared.
func TestChecksInOrder(t *testing.T) {
	t.Parallel()
	auditor := newAuditor(t, 9)
	m := incident(evidence.Proof)
	m.Checks = []evidence.CheckResult{
		{Check: "database", Result: evidence.Held, Want: "db", Got: "db"},
		{Check: "inclusion", Tx: 9, Result: evidence.Failed, Want: "aa", Got: "bb", Detail: "as found"},
		{Check: "consistency", Result: evidence.NotMade, Want: "aa"},
		{Check: "last-inclusion", Result: evidence.Failed},
		{Check: "alh", Result: evidence.Held, Want: "aa", Got: "bb"},
		{Check: "linear", Result: evidence.Failed, Want: "aa", Got: "aa"},
	}
	o, err := evidence.Recheck(encoded(t, m, auditor), evidence.RecheckOptions{AuditorKey: auditor.VerifierKey()})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Of 6 checks 2 held, 3 failed and 1 were not made.",
		"check 2, inclusion, failed at transaction 9: wanted aa, got bb: as found",
		"check 4, last-inclusion, failed",
		"check 5, alh, held: wanted aa, got bb (which does not fit)",
		"check 6, linear, failed: wanted aa, got aa (which does not fit)",
	}
	if got := o.Testimony[3:]; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

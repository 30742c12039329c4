package attack

import (
	"immuaudit/internal/wire/schema"
)

// signatureScenarios are about who vouches for a state, and for which.
func signatureScenarios() []Scenario {
	otherKey := once("sign with another key", func(st *Stage) error { return st.Ledger.SetSigningKey(kitKey("intruder")) })
	unsigned := once("stop signing", func(st *Stage) error { return st.Ledger.SetSigningKey(nil) })
	return []Scenario{
		{
			Name: "unsigned", Row: "A16", Known: general, Signed: true, Pinned: true, Expect: tampered("signature-missing", "signature"),
			Summary: "stops signing, although the auditor was given the key", Steps: unsigned,
		},
		{
			Name: "other-key", Row: "A17", Known: general, Signed: true, Pinned: true, Expect: tampered("key-changed", "signature"),
			Summary: "signs with another key than the auditor was given, and says so", Steps: otherKey,
		},
		{
			Name: "other-key-disguised", Row: "A17", Known: general, Signed: true, Pinned: true, Expect: tampered("signature-invalid", "signature"),
			Summary: "signs with another key and sends the right one along",
			Steps: once("sign with another key, name the right one", func(st *Stage) error {
				point, err := st.Key.PublicKey.Bytes()
				if err != nil {
					return err
				}
				answers(st, func(s *schema.ImmutableState) {
					if s.Signature != nil {
						s.Signature.PublicKey = point
					}
				})
				return st.Ledger.SetSigningKey(kitKey("intruder"))
			}),
		},
		{
			Name: "signature-damaged", Row: "A17", Known: general, Signed: true, Pinned: true, Expect: tampered("signature-invalid", "signature"),
			Summary: "sends a signature with one bit changed",
			Steps: once("change a bit of the signatures", func(st *Stage) error {
				answers(st, func(s *schema.ImmutableState) {
					if s.Signature != nil {
						s.Signature.Signature = flip(s.Signature.Signature)
					}
				})
				return nil
			}),
		},
		{
			Name: "signature-of-other-tx", Row: "A18", Known: general, Signed: true, Pinned: true, Expect: tampered("signature-invalid", "signature"),
			Summary: "sends the signature of an older state of the same database",
			Steps: once("replay the signature of an older transaction", func(st *Stage) error {
				n, err := st.last()
				if err != nil {
					return err
				}
				return st.replay(st.Database, max(1, n-1))
			}),
		},
		{
			Name: "signature-of-other-db", Row: "A18", Known: general, Signed: true, Pinned: true, Expect: tampered("signature-invalid", "signature"),
			Summary: "sends the signature of the same state of a database of another name",
			Steps: once("replay the signature of another database", func(st *Stage) error {
				n, err := st.last()
				if err != nil {
					return err
				}
				return st.replay("another", n)
			}),
		},
		{
			Name: "wrong-database", Row: "A19", Known: general, Expect: tampered("wrong-database", "database"),
			Summary: "answers for a database of another name",
			Steps: once("name another database in the states", func(st *Stage) error {
				st.states(func(s *schema.ImmutableState) { s.Db = "elsewhere" })
				return nil
			}),
		},
		{
			Name: "signing-stops", Row: "A20", Known: general, Signed: true, Expect: tampered("signature-missing", "signature"),
			Summary: "stops signing after first contact, where no key was given to the auditor", Steps: unsigned,
		},
		{
			Name: "key-changes", Row: "A20", Known: general, Signed: true, Expect: tampered("key-changed", "signature"),
			Summary: "changes the key after first contact, where no key was given to the auditor", Steps: otherKey,
		},
	}
}

// replay sends a signature that is good for another state than the one sent.
func (st *Stage) replay(db string, tx uint64) error {
	d, err := st.Ledger.Database(st.Database)
	if err != nil {
		return err
	}
	stored, err := d.Snapshot().Tx(tx)
	if err != nil {
		return err
	}
	sig, err := signature(st.Key, db, tx, stored.Alh[:])
	if err != nil {
		return err
	}
	answers(st, func(s *schema.ImmutableState) {
		s.Signature = &schema.Signature{PublicKey: sig.PublicKey, Signature: sig.Signature}
	})
	return nil
}

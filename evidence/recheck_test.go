package evidence_test

import (
	"crypto/ecdsa"
	"errors"
	"strings"
	"testing"

	"immuaudit/evidence"
)

// What is proven, to whom, in plain words and as an exit code.
func TestRecheck(t *testing.T) {
	t.Parallel()
	auditor, stranger := newAuditor(t, 9), newAuditor(t, 8)
	fork, key := forked(t)
	file := encoded(t, fork, auditor)
	rollback := incident(evidence.Rollback)
	rollback.ServerKey, rollback.Trusted = key.point, fork.Trusted
	rollback.Observed = key.state(t, "defaultdb", new(book).commit(2, "as it was"), 2)
	testimony := encoded(t, rollback, auditor)
	server, other := &key.private.PublicKey, &newServerKey(t, 6).private.PublicKey

	for name, test := range map[string]struct {
		file           []byte
		server         *ecdsa.PublicKey
		auditor        string
		code           int
		says, saysNot  string
		proven, vouche bool
	}{
		"proof, no key":               {file, nil, "", 3, "compare the fingerprint", "says that on", true, false},
		"proof, server key":           {file, server, "", 3, "That is the server key you gave.", "says that on", true, false},
		"proof, both keys":            {file, server, auditor.VerifierKey(), 3, "does not hold: alh-source", "NOT", true, true},
		"proof, other server key":     {file, other, "", 1, "That is NOT the server key you gave", "says that on", false, false},
		"proof, other auditor":        {file, server, stranger.VerifierKey(), 3, "That is NOT the auditor key you gave", "says that on", true, false},
		"both other":                  {file, other, stranger.VerifierKey(), 1, "That is NOT the server key", "says that on", false, false},
		"testimony, no key":           {testimony, nil, "", 1, "example-auditor+aef0f1e9", "rollback", false, false},
		"testimony, server key":       {testimony, server, "", 1, "The server key you gave signed this state", "rollback", false, false},
		"testimony, auditor":          {testimony, nil, auditor.VerifierKey(), 3, "tampered with: rollback (incident 20261123-k7qd)", "two histories", false, true},
		"testimony, other auditor":    {testimony, nil, stranger.VerifierKey(), 1, "That is NOT the auditor key you gave", "rollback", false, false},
		"testimony, auditor, another": {testimony, other, auditor.VerifierKey(), 3, "tampered with: rollback", "two histories", false, true},
	} {
		o, err := evidence.Recheck(test.file, evidence.RecheckOptions{ServerKey: test.server, AuditorKey: test.auditor})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		said := strings.Join(append(append(append([]string(nil), o.Proof...), o.Testimony...), o.Recomputed...), "\n")
		if o.ExitCode() != test.code || o.Proven != test.proven || o.Vouched != test.vouche || !strings.Contains(said, test.says) || strings.Contains(said, test.saysNot) {
			t.Errorf("%s: exit code %d, proven %v, vouched %v:\n%s", name, o.ExitCode(), o.Proven, o.Vouched, said)
		}
	}
}

// How the auditor reached the server is part of what it says.
func TestChannelIsTold(t *testing.T) {
	t.Parallel()
	auditor := newAuditor(t, 9)
	for want, c := range map[string]evidence.Channel{
		"":                                    {},
		"It reached the server by plaintext.": {Transport: "plaintext"},
		"It reached the server by tls; the server's certificate has the SHA-256 aabb.": {Transport: "tls", Certificate: "aabb"},
	} {
		m := incident(evidence.Rollback)
		m.Channel = c
		o, err := evidence.Recheck(encoded(t, m, auditor), evidence.RecheckOptions{AuditorKey: auditor.VerifierKey()})
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(o.Testimony, "\n"); !strings.Contains(said, want) || want == "" && strings.Contains(said, "reached") {
			t.Errorf("%+v: %s", c, said)
		}
	}
}

func TestRecheckRefuses(t *testing.T) {
	t.Parallel()
	m, _ := forked(t)
	good := encoded(t, m, newAuditor(t, 9))
	for name, b := range map[string][]byte{
		"nothing": nil, "other": []byte("{}\n"), "altered": []byte(strings.Replace(string(good), "production", "acceptance", 1)),
		// Signed anew by somebody else, but with a proof that does not hold.
		"false proof": resign(t, strings.Replace(string(good), `"tx":4,"first"`, `"tx":3,"first"`, 1), 9),
		"false path":  resign(t, strings.Replace(string(good), `"hashes":["7`, `"hashes":["8`, 1), 9),
		// What is repeated for people says something else than what is signed.
		"false words": resign(t, strings.Replace(string(good), `"database":"defaultdb","tx":4,"alh"`, `"database":"defaultdb","tx":5,"alh"`, 1), 9),
	} {
		o, err := evidence.Recheck(b, evidence.RecheckOptions{})
		var not *evidence.NotEvidence
		if !errors.As(err, &not) || o.ExitCode() != 2 {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	key := newAuditor(t, 9).VerifierKey()
	for name, key := range map[string]string{
		"not one": "x", "cut": key[:len(key)-1], "other form": strings.Replace(key, "aef0f1e9", "AEF0F1E9", 1), "other hash": strings.Replace(key, "aef0f1e9", "aef0f1e8", 1),
		"huge": strings.Repeat("a", 1<<20), "private": "PRIVATE+KEY+" + key,
	} {
		if o, err := evidence.Recheck(good, evidence.RecheckOptions{AuditorKey: key}); err == nil || o.ExitCode() != 2 {
			t.Errorf("key, %s: %+v, %v", name, o, err)
		}
	}
}

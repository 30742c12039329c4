package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"immuaudit/internal/attack"
)

// maxMemory is what the auditor may ever take from the system, whatever a
// server sends.
const maxMemory = 256 << 20

// representative scenarios have each verdict, kind and reason that there is.
var representative = []string{
	"rollback", "fork-longer", "emptied", "deleted", "wrong-database", "leaf-swap", "junk-leaves", "advance-missing-v0",
	"proof-linear-end", "header-time", "entry-dropped", "value-old", "value-removed", "unsigned", "other-key", "signature-of-other-db",
	"overloaded", "logged-out", "unloaded", "proofs-refused", "one-of-many",
}

// TestAttackKitOnBinary plays what represents the kit to the program as it is
// handed out, in a process of its own, ended by SIGTERM; and all that is to
// cost a process its memory or its time (A14, A26), each in the way that meets
// it, because only a process of its own has memory of its own.
func TestAttackKitOnBinary(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "immuclient")
	build := exec.Command("go", "build", "-o", file, "immuaudit/cmd/immuclient")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all []*trial
	for _, s := range attack.All() {
		hostile := s.Row == "A14" || s.Row == "A26"
		if !hostile && !slices.Contains(representative, s.Name) {
			continue
		}
		c := &trial{Scenario: s, limit: byWalk, version: 1, run: binary(file), own: true}
		if s.Expect.DualOnly {
			c.limit = byProof
		}
		all = append(all, c)
	}
	playAll(t, all)
}

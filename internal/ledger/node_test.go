package ledger

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestStockClients runs clients that others wrote against the ledger. They need
// things Go cannot install: IMMUAUDIT_NODE_CLIENT names a folder in which
// npm install was run with testdata/immudb-node/package.json. Where
// IMMUAUDIT_CI is 1 it must be set.
func TestStockClients(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("IMMUAUDIT_NODE_CLIENT")
	if dir == "" {
		if os.Getenv("IMMUAUDIT_CI") == "1" {
			t.Fatal("IMMUAUDIT_NODE_CLIENT is not set; run npm install in a copy of testdata/immudb-node and give its path")
		}
		return
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		ok   bool
	}{
		{"1.0.5", Config{Version: "1.0.5"}, true},
		{"1.11.1", Config{Version: "1.11.1"}, true},
		// It cannot verify headers of version 1: that it says so shows that it
		// does verify the others.
		{"header version 1", Config{HeaderVersion: 1}, false},
	} {
		t.Run("immudb-node, "+tc.name, func(t *testing.T) {
			t.Parallel()
			tc.cfg.SigningKey = newKey(t)
			l := serve(t, tc.cfg)
			host, port, err := net.SplitHostPort(l.Addr())
			try(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", "testdata/immudb-node/client.js", host, port, filepath.Join(t.TempDir(), "state"))
			cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
			out, err := cmd.CombinedOutput()
			if (err == nil) != tc.ok {
				t.Fatalf("%v\n%s", err, out)
			}
			if id, _ := database(t, l, "node").State(); tc.ok && id != 22 {
				t.Errorf("%d transactions", id)
			}
		})
	}
}

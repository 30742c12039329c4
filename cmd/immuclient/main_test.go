package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// The image holds nothing but the program: webhooks by TLS need authorities
// all the same. Go reads those of the system once, so a system without any is
// another process.
func TestRootsWithoutASystem(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		return // there the system itself verifies
	}
	if os.Getenv("SSL_CERT_FILE") == os.DevNull {
		pool, err := x509.SystemCertPool()
		if err != nil || pool.Equal(x509.NewCertPool()) {
			t.Errorf("no authorities: %v", err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRootsWithoutASystem$", "-test.v")
	cmd.Env = []string{"SSL_CERT_FILE=" + os.DevNull, "SSL_CERT_DIR=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

package cli

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestOnLoopback(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, peer, host, header string
		minor                    int
		want                     bool
	}{
		{"a browser here", "127.0.0.1:5", "localhost:9477", "", 1, true},
		{"by address", "127.0.0.1:5", "127.0.0.1:9477", "", 1, true},
		{"by another address", "[::1]:5", "[::1]:9477", "", 1, true},
		{"without a port", "[::1]:5", "LOCALHOST", "", 1, true},
		{"from elsewhere", "192.0.2.1:5", "localhost", "", 1, false},
		{"by another name", "127.0.0.1:5", "evil.example", "", 1, false},
		{"no peer", "", "localhost", "", 1, false},
		{"a silent proxy", "127.0.0.1:5", "127.0.0.1:9477", "", 0, false},
		{"Forwarded", "127.0.0.1:5", "localhost", "Forwarded", 1, false},
		{"for", "127.0.0.1:5", "localhost", "X-Forwarded-For", 1, false},
		{"host", "127.0.0.1:5", "localhost", "X-Forwarded-Host", 1, false},
		{"proto", "127.0.0.1:5", "localhost", "X-Forwarded-Proto", 1, false},
		{"port", "127.0.0.1:5", "localhost", "X-Forwarded-Port", 1, false},
		{"server", "127.0.0.1:5", "localhost", "X-Forwarded-Server", 1, false},
		{"real IP", "127.0.0.1:5", "localhost", "X-Real-IP", 1, false},
		{"client IP", "127.0.0.1:5", "localhost", "X-Client-IP", 1, false},
		{"Via", "127.0.0.1:5", "localhost", "Via", 1, false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, r.Host, r.ProtoMinor = test.peer, test.host, test.minor
		if test.header != "" {
			r.Header.Set(test.header, "x")
		}
		if got := onLoopback(r); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// What the file says now counts, not what it said at the start.
func TestProtected(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "web.yml")
	if protected("") || protected(file) {
		t.Error("protected by no file")
	}
	for _, test := range []struct {
		text string
		want bool
	}{
		{"basic_auth_users: {a: hash}", true}, {"{}", false}, {"basic_auth_users: {b: hash}", true}, {"basic_auth_users: [", false},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := protected(file); got != test.want {
			t.Errorf("%q: %v", test.text, got)
		}
	}
}

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shortDir is a directory whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// answerOn serves the handler on the probe socket of a state directory.
func answerOn(t *testing.T, dir string, h http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, probeSocket))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	answer := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		}
	}
	for _, c := range []struct {
		name string
		h    http.HandlerFunc
		want string
		code int
	}{
		{"good", answer(200, `{"immudb":"OK"}`), "healthy: auditing", 0},
		{"immudb is down", answer(200, `{"immudb":"refused"}`), "healthy: auditing, but immudb does not answer: refused", 0},
		{"hangs", answer(503, `{"immudb":"OK","auditor":"stands still"}`), "unhealthy: asking SOCKET: stands still", 1},
		{"not ready", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				w.WriteHeader(503)
			}
			fmt.Fprint(w, `{"immudb":"OK","auditor":"first pass"}`)
		}, "unhealthy: asking SOCKET: first pass", 1},
		{"says nothing of itself", answer(503, `{"immudb":"OK"}`), "unhealthy: asking SOCKET: the auditor answers /livez with status 503; look at its log", 1},
		{"somebody else", answer(200, `hello`), "unhealthy: asking SOCKET: what answers there is no auditor (status 200 to /livez); give the --dir that the auditor has", 1},
		{"empty object", answer(200, `{}`), "unhealthy: asking SOCKET: what answers there is no auditor (status 200 to /livez); give the --dir that the auditor has", 1},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1/", http.StatusFound)
		}, "unhealthy: asking SOCKET: what answers there is no auditor (status 302 to /livez); give the --dir that the auditor has", 1},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, "unhealthy: asking SOCKET: what answers there is no auditor (status 200 to /livez); give the --dir that the auditor has", 1},
		{"forged line", answer(503, `{"immudb":"OK","auditor":"x\nhealthy: auditing\u001b[0m"}`), `unhealthy: "asking SOCKET: x\nhealthy: auditing\x1b[0m"`, 1},
		{"nobody", nil, "unhealthy: asking SOCKET: no auditor is running there; start immuclient audit-mode, or give the --dir that it has", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			if c.h != nil {
				answerOn(t, dir, c.h)
			}
			ask := func(args ...string) (string, int) {
				var out, errs strings.Builder
				env := Env{Stdout: &out, Stderr: &errs, WorkDir: dir, Environ: []string{"IMMUCLIENT_CONFIG=" + os.DevNull, "IMMUCLIENT_DIR=" + dir}}
				code := Run(context.Background(), append([]string{"health"}, args...), env)
				if errs.Len() > 0 {
					t.Errorf("on standard error: %s", errs.String())
				}
				return out.String(), code
			}
			text, code := ask()
			if got := strings.ReplaceAll(text, filepath.Join(dir, probeSocket), "SOCKET"); got != c.want+"\n" || code != c.code {
				t.Errorf("%d %s", code, got)
			}
			text, code = ask("--json")
			var h health
			if err := json.Unmarshal([]byte(text), &h); err != nil || strings.Count(text, "\n") != 1 || code != c.code ||
				h.Healthy != (code == 0) || h.Healthy != (h.Live && h.Ready) || (h.Problem == "") != h.Healthy || h.Socket != filepath.Join(dir, probeSocket) {
				t.Errorf("%d %s: %v", code, text, err)
			}
		})
	}
}

// An auditor that hangs may take no longer than the limit to be found out.
func TestHealthIsBounded(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	answerOn(t, dir, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	h := askHealth(t.Context(), filepath.Join(dir, probeSocket))
	if h.Healthy || !strings.HasSuffix(h.Problem, "no answer within 3s; look at the auditor's log and restart it") {
		t.Errorf("%+v", h)
	}
	if h := askHealth(t.Context(), filepath.Join(dir, strings.Repeat("x", 100))); h.Healthy || !strings.Contains(h.Problem, "too long") {
		t.Errorf("%+v", h)
	}
}

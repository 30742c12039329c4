package report_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// The page as a browser prints it: whole, and with nothing loaded from
// anywhere. IMMUAUDIT_CHROMIUM names the browser.
func TestPrinted(t *testing.T) {
	t.Parallel()
	chromium := os.Getenv("IMMUAUDIT_CHROMIUM")
	if chromium == "" {
		if os.Getenv("IMMUAUDIT_CI") != "" {
			t.Fatal("set IMMUAUDIT_CHROMIUM to the path of a browser")
		}
		t.Log("IMMUAUDIT_CHROMIUM is not set: the page is not printed")
		return
	}
	m, h := sample(t)
	k := key(t)
	b, err := gather(t, m, h, k).HTML(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, pdf := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.pdf")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	// Whatever a page could load, from wherever, would have to go by this proxy.
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Host, "google") && !strings.Contains(r.Host, "gvt1") { // what a browser asks for on its own
			t.Errorf("the page made the browser ask for %s %s", r.Method, r.URL)
			asked.Add(1)
		}
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer proxy.Close()
	out, err := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--proxy-server="+proxy.URL, "--proxy-bypass-list=<-loopback>",
		"--no-pdf-header-footer", "--print-to-pdf="+pdf, "file://"+file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	printed, err := os.ReadFile(pdf)
	if err != nil {
		t.Fatal(err)
	}
	if pages := bytes.Count(printed, []byte("/Type /Page\n")) + bytes.Count(printed, []byte("/Type /Page ")); pages < 2 {
		t.Errorf("%d pages", pages)
	}
	if asked.Load() > 0 {
		t.Errorf("%d things were asked for", asked.Load())
	}
	reader, err := exec.LookPath("pdftotext")
	if err != nil {
		return
	}
	text, err := exec.CommandContext(t.Context(), reader, "-enc", "UTF-8", pdf, "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{"Tampering was found: 1 incident.", "What cannot be said", "20261102-k7qd", "the server could not be reached", "Method, and how to check this file"} {
		if !strings.Contains(flat, want) {
			t.Errorf("%q is not in print", want)
		}
	}
}

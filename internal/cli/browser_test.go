package cli_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"golang.org/x/crypto/bcrypt"
)

// chromium is the variable that names the browser. Where IMMUAUDIT_CI is 1 it
// must be set.
const chromium = "IMMUAUDIT_CHROMIUM"

// window is a tab of a real browser that notes what must never happen: errors
// on the console, and requests to anywhere but the auditor.
type window struct {
	context.Context
	t        *testing.T
	mu       sync.Mutex
	problems []string
}

func (w *window) note(problem string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, problem)
}

// browse opens a window that may only talk to own and saves what it downloads.
func browse(t *testing.T, own, downloads string) *window {
	t.Helper()
	flags := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(os.Getenv(chromium)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(60*time.Second))
	deadline, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	t.Cleanup(cancel)
	allocated, closeBrowser := chromedp.NewExecAllocator(deadline, flags...)
	t.Cleanup(closeBrowser)
	tab, closeTab := chromedp.NewContext(allocated)
	t.Cleanup(func() { _ = chromedp.Cancel(tab); closeTab() })
	w := &window{Context: tab, t: t}
	w.do(chromedp.Navigate("about:blank")) // starts it
	err := chromedp.Listen(tab, func(event any) {
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "data" && "http://"+u.Host != own {
				w.note("request to " + e.Request.URL)
			}
		case *runtime.EventConsoleAPICalled:
			w.note("console: " + string(e.Type))
		case *runtime.EventExceptionThrown:
			w.note("exception: " + e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if e.Entry.Level == "error" || e.Entry.Level == "warning" {
				w.note("log: " + e.Entry.Text + " " + e.Entry.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	order(w, network.Enable, network.EnableParams{})
	order(w, log.Enable, cdp.Empty{})
	order(w, runtime.Enable, cdp.Empty{})
	order(w, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: downloads})
	return w
}

func order[P, R any](w *window, command cdp.Command[P, R], params P) {
	w.t.Helper()
	if _, err := chromedp.Call(w, command, params); err != nil {
		w.t.Fatal(err)
	}
}

func (w *window) do(steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	if err := chromedp.Do(w, steps...); err != nil {
		w.t.Fatal(err)
	}
}

// await waits until an expression is true, also on a page that is still coming:
// in between there is none to ask.
func (w *window) await(expression string) {
	w.t.Helper()
	eventually(w.t, expression, func() (bool, error) { return chromedp.Run(w, chromedp.Evaluate[bool]("Boolean("+expression+")")) })
}

// click follows the first link that a selector finds, and fails without one.
func (w *window) click(selector string) {
	w.t.Helper()
	if _, err := chromedp.Run(w, chromedp.Evaluate[bool](fmt.Sprintf(`document.querySelector(%q).click(); true`, selector))); err != nil {
		w.t.Fatalf("clicking %s: %v", selector, err)
	}
}

// Somebody watches the page, sees it turn red, follows it to the incident, takes
// the evidence along, and decides.
func TestBrowserFromGreenToRedAndBack(t *testing.T) {
	t.Parallel()
	if os.Getenv(chromium) == "" {
		if os.Getenv("IMMUAUDIT_CI") == "1" {
			t.Errorf("%s is not set: install chromium and set it to its path", chromium)
		}
		t.Logf("%s is not set: the auditor is not tried in a browser", chromium)
		return
	}
	s, dir, downloads := newServer(t), t.TempDir(), t.TempDir()
	if err := s.write("defaultdb", 5); err != nil {
		t.Fatal(err)
	}
	a := audit(t, dir, s.Addr(), "--audit-interval", "100ms")
	own := "http://" + a.monitoring
	w := browse(t, own, downloads)
	w.do(chromedp.Navigate(own + "/"))
	w.await(`document.body.className === "consistent" && document.getElementById("live").textContent.startsWith("Live") && (window.same = true)`)
	if err := s.do(nil, "empty", "defaultdb"); err != nil {
		t.Fatal(err)
	}
	w.await(`document.body.className === "tampered" && window.same === true && document.title.startsWith("Tampered: 1 of 1")`)
	w.click(`a[href*="ledger/tested/defaultdb"]`)
	w.await(`document.readyState === "complete" && location.pathname === "/ledger/tested/defaultdb" && document.querySelector('a[href*="incident/"]') !== null`)
	w.click(`a[href*="incident/"]`)
	w.await(`document.readyState === "complete" && location.pathname.startsWith("/incident/") && document.querySelector("a[download]") !== null`)
	w.click("a[download]")
	var files []string
	eventually(t, "the evidence is downloaded", func() (bool, error) {
		all, err := filepath.Glob(filepath.Join(downloads, "*"))
		files = all
		return len(all) == 1 && !strings.HasSuffix(all[0], ".crdownload") && !strings.Contains(filepath.Base(all[0]), ".org.chromium"), err
	})
	key := strings.TrimSpace(run(t, dir, 0, "trust", "key"))
	run(t, dir, 3, "evidence", "verify", "--auditor-key", key, files[0]) // which tells of tampering
	incident := a.logged(`msg=TAMPERED .*incident=(\S+)`)[1]
	w.do(chromedp.Navigate(own + "/"))
	w.await(`document.body.className === "tampered" && document.getElementById("live").textContent.startsWith("Live") && (window.same = true)`)
	run(t, dir, 0, "incident", "ack", incident, "--note", "looking into it")
	run(t, dir, 0, "trust", "accept", incident, "--reason", "the test database was reset")
	w.await(`document.body.className === "consistent" && window.same === true`)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) > 0 {
		t.Errorf("the browser complains: %q", w.problems)
	}
}

// Evidence holds keys and values: it is for who knows the password, or sits at
// the machine and asked for it by its name.
func TestEvidenceOverThePages(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	if err := s.write("defaultdb", 5); err != nil {
		t.Fatal(err)
	}
	a := audit(t, dir, s.Addr(), "--audit-interval", "50ms")
	a.logged(`verdict=consistent`)
	if err := s.do(nil, "empty", "defaultdb"); err != nil {
		t.Fatal(err)
	}
	incident := a.logged(`msg=TAMPERED .*incident=(\S+)`)[1]
	ask := func(host, password string) (int, string) {
		t.Helper()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", a.monitoring)
		}}
		user := ""
		if password != "" {
			user = "reader"
		}
		resp, body, err := fetch(http.MethodGet, "http://"+host+"/incident/"+incident+"/evidence", "", nil, user, password, transport)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	eventually(t, "there is evidence for who sits here", func() (bool, error) {
		code, body := ask("localhost", "")
		return code == http.StatusOK && strings.Contains(body, "defaultdb"), fmt.Errorf("%d %s", code, body)
	})
	if code, body := ask("evil.example", ""); code != http.StatusForbidden || strings.Contains(body, "defaultdb") {
		t.Errorf("evidence under a foreign name: %d %s", code, body)
	}
	a.stop(syscall.SIGTERM)

	hash, err := bcrypt.GenerateFromPassword([]byte("let-me-in"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "web.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "basic_auth_users:\n  reader: %s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	a = audit(t, dir, s.Addr(), "--web.config.file", file)
	if code, _ := ask("auditor.example", "let-me-in"); code != http.StatusOK {
		t.Errorf("evidence with the password: %d, want 200", code)
	}
	if code, _ := ask("auditor.example", ""); code != http.StatusUnauthorized {
		t.Errorf("evidence without the password: %d, want 401", code)
	}
	a.stop(syscall.SIGTERM)
}

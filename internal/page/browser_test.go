package page

import (
	"context"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// chromium is the variable that names the browser. Without it these tests try
// nothing, but where IMMUAUDIT_CI is 1 it must be set.
const chromium = "IMMUAUDIT_CHROMIUM"

func hasBrowser(t *testing.T) bool {
	t.Helper()
	if os.Getenv(chromium) != "" {
		return true
	}
	if os.Getenv("IMMUAUDIT_CI") == "1" {
		t.Errorf("%s is not set: install chromium and set it to its path", chromium)
	}
	t.Logf("%s is not set: the pages are not tried in a browser", chromium)
	return false
}

// window is a tab of a real browser that notes what must never happen: errors
// on the console, and requests to anywhere but the page's own server.
type window struct {
	context.Context
	mu       sync.Mutex
	own      string
	problems []string
}

func (w *window) note(problem string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, problem)
}

func browse(t *testing.T, own string) *window {
	t.Helper()
	path := os.Getenv(chromium)
	flags := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(60*time.Second))
	deadline, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	t.Cleanup(cancel)
	allocated, closeBrowser := chromedp.NewExecAllocator(deadline, flags...)
	t.Cleanup(closeBrowser)
	tab, closeTab := chromedp.NewContext(allocated)
	t.Cleanup(func() { _ = chromedp.Cancel(tab); closeTab() })
	w := &window{Context: tab, own: own}
	w.do(t, chromedp.Navigate("about:blank")) // starts it
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
	call(t, w, network.Enable, network.EnableParams{})
	call(t, w, log.Enable, cdp.Empty{})
	call(t, w, runtime.Enable, cdp.Empty{})
	return w
}

func call[P, R any](t *testing.T, w *window, command cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(w, command, params); err != nil {
		t.Fatal(err)
	}
}

func (w *window) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(w, steps...); err != nil {
		t.Fatal(err)
	}
}

// tell gives the value of an expression.
func tell[T any](t *testing.T, w *window, expression string) T {
	t.Helper()
	value, err := chromedp.Run(w, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// await waits until an expression is true.
func (w *window) await(t *testing.T, expression string) {
	t.Helper()
	if _, err := chromedp.Run(w, chromedp.Poll[bool](expression)); err != nil {
		t.Fatalf("waiting for %s: %v", expression, err)
	}
}

func (w *window) open(t *testing.T, address string) {
	t.Helper()
	w.do(t, chromedp.Navigate(address))
}

// clean fails where something happened that never must.
func (w *window) clean(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) > 0 {
		t.Errorf("the browser complains: %q", w.problems)
	}
}

// shoot keeps a picture where IMMUAUDIT_SHOTS names a directory: to be looked at.
func (w *window) shoot(t *testing.T, name string) {
	t.Helper()
	if dir := os.Getenv("IMMUAUDIT_SHOTS"); dir != "" {
		picture, err := chromedp.Run(w, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+name+".png", picture, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *window) size(t *testing.T, width, height int64, dark bool) {
	t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	call(t, w, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600})
	call(t, w, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// show is a fleet with one of everything.
func show(t *testing.T) (*scene, *shelf) {
	t.Helper()
	prod, down := fleetOf("prod", 6), fleetOf("backup.example.org:3322", 40)
	prod.Ledgers[1] = ledgerAt("prod", "db00001", evidence.Tampered)
	prod.Ledgers[1].Last.Kind, prod.Ledgers[1].Last.Incident = evidence.Value, "20261123-k7qd"
	prod.Ledgers[2] = ledgerAt("prod", "a-database-with-a-name-that-is-rather-long-for-a-telephone-and-has-no-spaces", evidence.Undetermined)
	prod.Ledgers[2].Last.Reason = evidence.NotLoaded
	for i := range down.Ledgers {
		down.Ledgers[i] = ledgerAt(down.Server, down.Ledgers[i].Name.Database, evidence.Undetermined)
	}
	down.ServerError = "connection refused"
	name := evidence.Name{Server: "prod", Database: "db00001"}
	book := &shelf{incidents: []evidence.Incident{damaged()}, trust: map[evidence.Name]evidence.Trust{name: {
		Name: name, Version: 1, Baseline: evidence.Baseline{Origin: evidence.OriginFirstContact, At: time.Now().Add(-9 * 24 * time.Hour)}, ProvenAt: time.Now(),
	}}}
	return &scene{statuses: []audit.Status{prod, down}}, book
}

// Nothing outside is asked for, nothing is complained about, nothing is wider
// than a telephone, on any page, by day and by night.
func TestBrowserLooks(t *testing.T) {
	t.Parallel()
	if !hasBrowser(t) {
		return
	}
	fleet, book := show(t)
	server := start(t, Options{Statuses: fleet.show, Book: book, History: past{}, Private: everybody, Version: "1.2.3"})
	w := browse(t, server.URL)
	for name, path := range map[string]string{"home": "/", "ledger": "/ledger/prod/db00001", "incident": "/incident/20261123-k7qd", "incidents": "/incidents"} {
		for _, look := range []struct {
			name          string
			width, height int64
			dark          bool
		}{{"desktop", 1280, 900, false}, {"night", 1280, 900, true}, {"phone", 320, 640, false}} {
			w.size(t, look.width, look.height, look.dark)
			w.open(t, server.URL+path)
			wide := tell[int64](t, w, `document.documentElement.scrollWidth`)
			unnamed := tell[int](t, w, `[...document.querySelectorAll("a,button")].filter(e => !e.textContent.trim()).length`)
			if wide > look.width {
				t.Errorf("%s on a screen of %d is %d wide", name, look.width, wide)
			}
			if unnamed > 0 {
				t.Errorf("%s has %d links without a name", name, unnamed)
			}
			w.shoot(t, name+"-"+look.name)
		}
	}
	w.clean(t)
}

// A page that is being watched turns red without being loaded again.
func TestBrowserTurnsRed(t *testing.T) {
	t.Parallel()
	if !hasBrowser(t) {
		return
	}
	good, bad := fleetOf("prod", 3), fleetOf("prod", 3)
	bad.Ledgers[2] = ledgerAt("prod", "db00002", evidence.Tampered)
	fleet := &scene{statuses: []audit.Status{good}}
	server := start(t, Options{Statuses: fleet.show})
	w := browse(t, server.URL)
	w.open(t, server.URL+"/")
	w.await(t, `document.body.className === "consistent" && document.getElementById("live").textContent.startsWith("Live")`)
	tell[bool](t, w, `window.same = true; document.querySelectorAll("#ledgers tbody a")[1].focus(); true`)
	fleet.set(bad)
	w.await(t, `document.body.className === "tampered"`)
	title, headline := tell[string](t, w, `document.title`), tell[string](t, w, `document.querySelector("#headline").textContent`)
	same, focused := tell[bool](t, w, `window.same === true`), tell[string](t, w, `String(document.activeElement.href)`)
	if !same || !strings.HasPrefix(title, "Tampered: 1 of 3") || !strings.Contains(headline, "Tampered: 1 of 3") || !strings.HasSuffix(focused, "db00001") {
		t.Errorf("same page %v, title %q, headline %q, focus on %q", same, title, headline, focused)
	}
	w.clean(t)
	_ = server.Listener.Close()
	server.CloseClientConnections()
	w.await(t, `document.getElementById("live").textContent.startsWith("Not live since")`)
}

// Everything can be read without the script, and a thousand ledgers come quickly.
func TestBrowserWithoutScript(t *testing.T) {
	t.Parallel()
	if !hasBrowser(t) {
		return
	}
	fleet := &scene{statuses: []audit.Status{fleetOf("prod", 1000)}}
	server := start(t, Options{Statuses: fleet.show})
	w := browse(t, server.URL)
	call(t, w, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	best := time.Hour
	for range 3 {
		begun := time.Now()
		w.open(t, server.URL+"/")
		best = min(best, time.Since(begun))
	}
	t.Logf("1,000 ledgers: %s", best)
	if best > time.Second {
		t.Errorf("1,000 ledgers took %s at best, more than a second", best)
	}
	rows, live := tell[int](t, w, `document.querySelectorAll("#ledgers tbody tr").length`), tell[string](t, w, `document.getElementById("live").textContent`)
	if rows != rowsPerPage || !strings.HasPrefix(live, "As of") {
		t.Errorf("%d rows, and it says of itself %q", rows, live)
	}
	w.clean(t)
}

// Whoever has no mouse reaches every link.
func TestBrowserKeyboard(t *testing.T) {
	t.Parallel()
	if !hasBrowser(t) {
		return
	}
	fleet, book := show(t)
	server := start(t, Options{Statuses: fleet.show, Book: book, Private: everybody})
	w := browse(t, server.URL)
	w.open(t, server.URL+"/incident/20261123-k7qd")
	const links = `"a,button,summary"`
	want := tell[int](t, w, `document.querySelectorAll(`+links+`).length`)
	tell[bool](t, w, `window.met = new Set(); document.addEventListener("focusin", e => { if (e.target.matches(`+links+`)) window.met.add(e.target) }); true`)
	for range want + 20 {
		w.do(t, chromedp.KeyEvent("\t"))
	}
	if met := tell[int](t, w, `window.met.size`); met != want {
		t.Errorf("%d of %d links were reached", met, want)
	}
}

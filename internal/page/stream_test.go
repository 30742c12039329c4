package page

import (
	"bufio"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"immuaudit/evidence"
	"immuaudit/internal/audit"
)

// A stream tells of an attack; there are only so many; they end with the site.
func TestStream(t *testing.T) {
	t.Parallel()
	fleet := &scene{statuses: []audit.Status{fleetOf("prod", 2)}}
	server := start(t, Options{Statuses: fleet.show})
	open := func() (*http.Response, *bufio.Reader) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp, bufio.NewReader(resp.Body)
	}
	until := func(lines *bufio.Reader, wanted string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("waiting for %q: %v", wanted, err)
			}
			if strings.Contains(line, wanted) {
				return
			}
		}
	}
	resp, lines := open()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	until(lines, "event: hello")
	until(lines, "Consistent: all 2")
	bad := fleetOf("prod", 2)
	bad.Ledgers[0] = ledgerAt("prod", "db00000", evidence.Tampered)
	fleet.set(bad)
	until(lines, `"urgent":true,"verdict":"tampered","headline":"Tampered: 1 of 2 ledgers"`)
	for range maxStreams - 1 {
		if resp, _ := open(); resp.StatusCode != 200 {
			t.Fatalf("refused before there were %d: %d", maxStreams, resp.StatusCode)
		}
	}
	if resp, _ := open(); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("above the limit: %d", resp.StatusCode)
	}
}

var colour = regexp.MustCompile(`--([a-z]+):(#[0-9a-f]{3,6})`)

// Every text can be read on what is behind it: WCAG 2.2, 1.4.3.
func TestContrast(t *testing.T) {
	t.Parallel()
	day, night, _ := strings.Cut(asset("style.css"), "@media (prefers-color-scheme:dark)")
	night = night[:strings.Index(night, "}}")]
	for name, sheet := range map[string]string{"day": day, "night": night} {
		colours := map[string]float64{}
		for _, m := range colour.FindAllStringSubmatch(sheet, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		if len(colours) < 12 {
			t.Fatalf("%s has %d colours only", name, len(colours))
		}
		for front, grounds := range map[string][]string{
			"fg": {"bg", "soft", "goodbg", "badbg", "unknownbg"}, "quiet": {"bg", "soft", "badbg"}, "link": {"bg", "soft", "goodbg", "badbg", "unknownbg"},
			"good": {"bg", "goodbg"}, "bad": {"bg", "badbg"}, "unknown": {"bg", "unknownbg"},
		} {
			for _, ground := range grounds {
				a, b := colours[front], colours[ground]
				if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
					t.Errorf("by %s, %s on %s has a contrast of %.2f", name, front, ground, ratio)
				}
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	hex = hex[1:]
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	sum := 0.0
	for i, weight := range [...]float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		part := float64(n) / 255
		if part <= 0.04045 {
			part /= 12.92
		} else {
			part = math.Pow((part+0.055)/1.055, 2.4)
		}
		sum += weight * part
	}
	return sum
}

// Each kind has words of its own, and each reason.
func TestWords(t *testing.T) {
	t.Parallel()
	for _, kind := range evidence.Kinds() {
		one := stories[kind]
		for what, text := range map[string]string{"short": one.short, "title": one.title, "saw": one.Saw, "means": one.Means, "cannot": one.Cannot, "innocent": one.Innocent} {
			if text == "" {
				t.Errorf("%s has no words for %s", kind, what)
			}
		}
		if len(one.Steps) == 0 || (one.accepts == "") != (kind == evidence.WrongDatabase) || (one.flags != "") != kind.AboutSignature() {
			t.Errorf("%s: steps %d, accepts %q, flags %q", kind, len(one.Steps), one.accepts, one.flags)
		}
	}
	for reason := range reasons {
		if !reason.Known() {
			t.Errorf("%s is no reason", reason)
		}
	}
}

func BenchmarkHome(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			server := start(b, Options{Statuses: (&scene{statuses: []audit.Status{fleetOf("prod", n)}}).show})
			for b.Loop() {
				if got := get(b, server.URL+"/"); got.code != 200 {
					b.Fatal(got.code)
				}
			}
		})
	}
}

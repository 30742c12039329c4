// Command curve draws what BenchmarkGrowth printed: what a round costs as a
// ledger grows from a thousand to ten million transactions. It reads the output
// of go test -bench and writes an SVG that is readable on light and dark pages.
//
//	go test -run '^$' -bench Growth ./internal/audit | go run ./tools/curve >docs/growth.svg
package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	lines, err := parse(os.Stdin)
	if err == nil {
		err = draw(os.Stdout, lines)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "curve:", err)
		os.Exit(1)
	}
}

// point is one measurement at a number of transactions.
type point struct{ x, y float64 }

var (
	result = regexp.MustCompile(`^BenchmarkGrowth/transactions=(\d+)/([a-z-]+?)(?:-\d+)?\s+\d+\s+(.*)$`)
	metric = regexp.MustCompile(`([0-9.e+]+) (\S+)`)
)

// parse takes what is drawn: by name of the measurement and unit.
func parse(r io.Reader) (map[string][]point, error) {
	lines := map[string][]point{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		m := result.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, err
		}
		for _, v := range metric.FindAllStringSubmatch(strings.ReplaceAll(m[3], "\t", " "), -1) {
			y, err := strconv.ParseFloat(v[1], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", s.Text(), err)
			}
			name := m[2] + " " + v[2]
			lines[name] = append(lines[name], point{n, y})
		}
	}
	return lines, s.Err()
}

// series is one line of a panel.
type series struct {
	key, label, class string
	scale             float64
}

// panel is one of the plots, one above the other.
type panel struct {
	title  string
	series []series
}

var panels = []panel{
	{"time of a round over one new transaction, milliseconds", []series{
		{"walk ns/op", "walk", "a", 1e-6}, {"dual-proof ns/op", "dual proof", "b", 1e-6}}},
	{"bytes received in it", []series{
		{"walk received-B/op", "walk", "a", 1}, {"dual-proof received-B/op", "dual proof", "b", 1}}},
	{"finding the first changed transaction: calls to the server, and milliseconds", []series{
		{"locate questions", "calls", "a", 1}, {"locate ms", "milliseconds", "b", 1}}},
}

const (
	width, height, gap    = 640.0, 170.0, 60.0
	left, right, titleRow = 60.0, 110.0, 28.0
)

func draw(w io.Writer, lines map[string][]point) error {
	for _, p := range panels {
		for _, s := range p.series {
			if len(lines[s.key]) < 2 {
				return fmt.Errorf("fewer than two results for %q: pipe the output of go test -bench Growth ./internal/audit into this", s.key)
			}
		}
	}
	total := float64(len(panels)) * (height + gap)
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img" aria-labelledby="t">
<title id="t">What a round costs as a ledger grows</title>
<style>
svg{font:12px system-ui,sans-serif;fill:#1f2328;background:#fff}
.grid{stroke:#d1d9e0;stroke-width:1}
.a{stroke:#0969da}.b{stroke:#bc4c00}
path{fill:none;stroke-width:2}
text.a{fill:#0969da;stroke:none}text.b{fill:#bc4c00;stroke:none}
.title{font-weight:600}
@media (prefers-color-scheme:dark){svg{fill:#e6edf3;background:#0d1117}.grid{stroke:#3d444d}.a{stroke:#4493f8}.b{stroke:#f0883e}text.a{fill:#4493f8}text.b{fill:#f0883e}}
</style>
`, width, total)
	for i, p := range panels {
		drawPanel(w, p, lines, float64(i)*(height+gap))
	}
	_, err := fmt.Fprintln(w, "</svg>")
	return err
}

func drawPanel(w io.Writer, p panel, lines map[string][]point, top float64) {
	low, high, most := math.Inf(1), 0.0, 0.0
	for _, s := range p.series {
		for _, v := range lines[s.key] {
			low, high, most = min(low, v.x), max(high, v.x), max(most, v.y*s.scale)
		}
	}
	step := niceStep(most / 4)
	most = step * math.Ceil(most/step)
	x := func(n float64) float64 {
		return left + (width-left-right)*(math.Log10(n)-math.Log10(low))/(math.Log10(high)-math.Log10(low))
	}
	y := func(v float64) float64 { return top + titleRow + (height-titleRow)*(1-v/most) }
	fmt.Fprintf(w, "<text class=\"title\" x=\"%g\" y=\"%g\">%s</text>\n", left, top+16, p.title)
	for v := 0.0; v <= most*1.001; v += step {
		fmt.Fprintf(w, "<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n",
			left, width-right, y(v), y(v), left-8, y(v)+4, v)
	}
	for n := low; n <= high*1.001; n *= 10 {
		fmt.Fprintf(w, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x(n), y(0)+18, thousands(n))
	}
	var taken []float64 // where labels stand
	for _, s := range p.series {
		list := slices.Clone(lines[s.key])
		slices.SortFunc(list, func(a, b point) int { return int(math.Copysign(1, a.x-b.x)) })
		var d strings.Builder
		for i, v := range list {
			fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], x(v.x), y(v.y*s.scale))
		}
		fmt.Fprintf(w, "<path class=\"%s\" d=\"%s\"/>\n", s.class, d.String())
		at := y(list[len(list)-1].y*s.scale) + 4
		for _, other := range taken {
			if math.Abs(at-other) < 14 {
				at = other + math.Copysign(14, at-other)
			}
		}
		taken = append(taken, at)
		fmt.Fprintf(w, "<text class=\"%s\" x=\"%g\" y=\"%.1f\">%s</text>\n", s.class, width-right+8, at, s.label)
	}
}

// niceStep is 1, 2 or 5 times a power of ten, at least v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}

func thousands(n float64) string {
	s := strconv.FormatFloat(n, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

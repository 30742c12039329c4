package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"testing"
)

func output(sizes ...int) string {
	var b strings.Builder
	fmt.Fprintln(&b, "goos: linux")
	for _, n := range sizes {
		fmt.Fprintf(&b, "BenchmarkGrowth/transactions=%d/walk-2  \t 100\t    800000 ns/op\t   2.000 calls/op\t 209.0 received-B/op\n", n)
		fmt.Fprintf(&b, "BenchmarkGrowth/transactions=%d/dual-proof-2  \t 100\t    900000 ns/op\t   2.000 calls/op\t 936.6 received-B/op\n", n)
		fmt.Fprintf(&b, "BenchmarkGrowth/transactions=%d/locate-2  \t 100\t  4.787 ms\t 17.00 questions\n", n)
	}
	return b.String()
}

func TestCurve(t *testing.T) {
	t.Parallel()
	lines, err := parse(strings.NewReader(output(1000, 10_000, 10_000_000)))
	if err != nil {
		t.Fatal(err)
	}
	if got := lines["dual-proof received-B/op"]; len(got) != 3 || got[1] != (point{10_000, 936.6}) {
		t.Errorf("read %v", got)
	}
	var out bytes.Buffer
	if err := draw(&out, lines); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(out.Bytes())); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"10,000,000", "dual proof", "milliseconds", "<path"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the drawing", want)
		}
	}
	if strings.Contains(out.String(), "NaN") || strings.Contains(out.String(), "Inf") {
		t.Error("numbers that are none")
	}
}

func TestNothingToDraw(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "PASS\n", output(1000)} {
		lines, err := parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := draw(io.Discard, lines); err == nil || !strings.Contains(err.Error(), "go test -bench") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

package page

import (
	"fmt"
	"strings"
	"time"

	"immuaudit/evidence"
	"immuaudit/internal/history"
)

// plots are inline drawings, each with a table beside it for those who cannot
// see it. All positions are whole numbers made here; no text of a server is in
// them.
type plots struct {
	Any           bool
	Tx, Duration  string // points of a polyline
	TxLow, TxHigh string
	Slowest       string
	Bars          []bar
	Table         []plotRow
	Gaps          []gap
	Rounds        string
	From, To      time.Time
}

type bar struct {
	X, Width int
	Verdict  string
	Words    string
}

type plotRow struct {
	From, To       time.Time
	Word, Why      string
	Rounds         string
	First, Last    uint64
	Usual, Slowest string
}

// gap is a time in which no round ended with a verdict.
type gap struct {
	From, To time.Time
	Long     string
	Why      string
}

const (
	plotWidth  = 720
	plotHeight = 120
	maxGaps    = 100
	maxTable   = 200
)

func draw(list []history.Stretch, from, to time.Time) plots {
	p := plots{From: from, To: to}
	if len(list) == 0 {
		return p
	}
	p.Any = true
	x := func(t time.Time) int {
		return max(0, min(plotWidth, int(float64(plotWidth)*float64(t.Sub(from))/float64(to.Sub(from)))))
	}
	low, high, slowest, rounds := list[0].FirstTx, uint64(0), time.Duration(1), uint64(0)
	for i := range list {
		low, high = min(low, list[i].FirstTx, list[i].LastTx), max(high, list[i].FirstTx, list[i].LastTx)
		slowest, rounds = max(slowest, list[i].Slowest), rounds+list[i].Rounds
	}
	height := func(part float64) int { return plotHeight - 4 - int(part*(plotHeight-8)) }
	txAt := func(tx uint64) int {
		if high == low {
			return plotHeight / 2
		}
		return height(float64(tx-low) / float64(high-low))
	}
	var tx, duration strings.Builder
	for i := range list {
		one := &list[i]
		fmt.Fprintf(&tx, "%d,%d %d,%d ", x(one.From), txAt(one.FirstTx), x(one.To), txAt(one.LastTx))
		fmt.Fprintf(&duration, "%d,%d %d,%d ", x(one.From), height(float64(one.Slowest)/float64(slowest)), x(one.To), height(float64(one.Slowest)/float64(slowest)))
		p.add(one, x)
	}
	p.Tx, p.Duration = strings.TrimSpace(tx.String()), strings.TrimSpace(duration.String())
	p.TxLow, p.TxHigh, p.Slowest, p.Rounds = count(low), count(high), milliseconds(slowest), count(rounds)
	p.findGaps(list)
	return p
}

// add puts a stretch on the timeline, and joins it with the one before where
// that tells the same.
func (p *plots) add(one *history.Stretch, x func(time.Time) int) {
	verdict := one.Verdict.String()
	words := stretchWords(one)
	start, end := x(one.From), x(one.To)
	if n := len(p.Bars); n > 0 && p.Bars[n-1].Words == verdict && start-(p.Bars[n-1].X+p.Bars[n-1].Width) <= 2 {
		p.Bars[n-1].Width = max(1, end-p.Bars[n-1].X)
	} else {
		p.Bars = append(p.Bars, bar{start, max(1, end-start), verdict, verdict})
	}
	if n := len(p.Table); n > 0 && p.Table[n-1].Word == verdict && p.Table[n-1].Why == words && len(p.Table) >= maxTable {
		p.Table[n-1].To, p.Table[n-1].Last = one.To, one.LastTx
		return
	}
	usual := time.Duration(0)
	if one.Rounds > 0 {
		usual = one.Took / time.Duration(min(one.Rounds, 1<<40))
	}
	if len(p.Table) < maxTable {
		p.Table = append(p.Table, plotRow{one.From, one.To, verdict, words, count(one.Rounds), one.FirstTx, one.LastTx, milliseconds(usual), milliseconds(one.Slowest)})
	}
}

func stretchWords(one *history.Stretch) string {
	switch {
	case one.Kind != "":
		return kindWords(one.Kind)
	case one.Reason != "":
		return reasonWords(one.Reason)
	}
	return ""
}

// findGaps lists times without a verdict: rounds that ended undetermined, and
// times without rounds.
func (p *plots) findGaps(list []history.Stretch) {
	note := func(from, to time.Time, why string) {
		if n := len(p.Gaps); n > 0 && p.Gaps[n-1].Why == why && !from.After(p.Gaps[n-1].To) {
			p.Gaps[n-1].To, p.Gaps[n-1].Long = to, ago(to.Sub(p.Gaps[n-1].From))
		} else if n < maxGaps {
			p.Gaps = append(p.Gaps, gap{from, to, ago(to.Sub(from)), why})
		}
	}
	for i := range list {
		one, end := &list[i], list[i].To
		if i > 0 && one.Torn {
			note(list[i-1].To, one.From, "no check was made")
		}
		if i+1 < len(list) && !list[i+1].Torn {
			end = list[i+1].From
		}
		if one.Verdict == evidence.Undetermined {
			note(one.From, end, reasonWords(one.Reason))
		}
	}
}

func milliseconds(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	if d >= time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

package config

import (
	"strconv"
	"strings"
	"time"
)

const (
	megabyte = 1 << 20
	// gentle is what deep verification in the background reads, in MB/s, where
	// nothing else is said: a production server has other things to do.
	gentle        = 20
	shortestScrub = time.Minute
	longestScrub  = 10 * 365 * 24 * time.Hour
	fastestScrub  = 1 << 20 // MB/s
	scrubOff      = "off"
	scrubUnit     = "MB/s"
)

// Scrub says how passes of deep verification are paced: by the time that each
// takes, or by bytes per second; neither where they are switched off.
func (c *Config) Scrub() (every time.Duration, bytesPerSecond int64) {
	every, rate, _ := parseScrub(c.Audit.ScrubText)
	return every, rate
}

// VerifyBytesPerSecond bounds what deep verification reads: 0 is no bound.
// background is the kind that nobody waits for.
func (c *Config) VerifyBytesPerSecond(background bool) int64 {
	if c.Audit.VerifyRate == 0 && background {
		return gentle * megabyte
	}
	return int64(c.Audit.VerifyRate) * megabyte
}

func parseScrub(text string) (every time.Duration, bytesPerSecond int64, problem string) {
	if text == scrubOff {
		return 0, 0, ""
	}
	if number, ok := strings.CutSuffix(text, scrubUnit); ok {
		n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
		if err != nil || n < 1 || n > fastestScrub {
			return 0, 0, "is not a rate from 1MB/s to " + strconv.Itoa(fastestScrub) + "MB/s"
		}
		return 0, int64(n) * megabyte, ""
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, 0, "is neither the time of a pass (168h), nor a rate (5MB/s), nor off"
	case d < shortestScrub || d > longestScrub:
		return 0, 0, "is not between " + brief(shortestScrub) + " and " + brief(longestScrub)
	}
	return d, 0, ""
}

func checkScrub(text string) (problem, instead string) {
	_, _, problem = parseScrub(text)
	if problem != "" {
		instead = "168h"
	}
	return problem, instead
}

package web

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"
)

// label makes a text that somebody else chose (the name of a database, a UUID)
// fit to be shown: printable, valid UTF-8, at most maxLabel bytes. A text that
// had to be changed ends in a digest of what it was, so that two different
// texts do not become one label.
func label(s string) string {
	if len(s) <= maxLabel && utf8.ValidString(s) && strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	tail := "~" + hex.EncodeToString(sum[:8])
	quoted := strconv.QuoteToASCII(s[:min(len(s), maxLabel)])
	quoted = quoted[1 : len(quoted)-1]
	return quoted[:min(len(quoted), maxLabel-len(tail))] + tail
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }

// errorText is the text of an error as it is shown to a visitor.
func errorText(err error) string { return oneLine(err.Error()) }

// oneLine makes one bounded line of valid UTF-8, whatever a server put into it.
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if unprintable(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) <= maxErrorText {
		return text
	}
	cut := maxErrorText
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

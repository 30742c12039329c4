package alert

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"time"

	"immuaudit/evidence"
)

// compose writes one mail about one event or many: 7-bit text, tampering first.
// What comes from servers reaches a header only encoded, and without line ends.
func compose(from *mail.Address, to []*mail.Address, events []evidence.Event, now time.Time) ([]byte, error) {
	worst := events[0]
	for _, e := range events {
		if tampering(e) {
			worst = e
			break
		}
	}
	about := headline(worst)
	if n := len(events) - 1; n > 0 {
		about = fmt.Sprintf("%s, and %d more", cut(about, maxSubject-20), n)
	}
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	recipients := make([]string, len(to))
	for i, a := range to {
		recipients[i] = a.String()
	}
	header("From", from.String())
	header("To", strings.Join(recipients, ",\r\n "))
	header("Subject", encodeHeader("[immuaudit] "+cut(about, maxSubject)))
	header("Date", now.Format(time.RFC1123Z))
	header("Message-ID", messageID(from, events))
	header("Auto-Submitted", "auto-generated")
	header("X-Immuaudit-Event", encodeHeader(plain(string(worst.Type))))
	if worst.Incident != "" {
		header("X-Immuaudit-Incident", encodeHeader(cut(plain(worst.Incident), maxSubject)))
	}
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	text := quotedprintable.NewWriter(&b)
	if _, err := text.Write([]byte(strings.ReplaceAll(letter(events), "\n", "\r\n"))); err != nil {
		return nil, err
	}
	if err := text.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// letter is the text: one story, or what there is in one line each and then the
// stories, tampering first.
func letter(events []evidence.Event) string {
	if len(events) == 1 {
		return story(events[0])
	}
	var list, stories strings.Builder
	fmt.Fprintf(&list, "%d alerts:\n\n", len(events))
	for _, urgent := range [...]bool{true, false} {
		for _, e := range events {
			if tampering(e) == urgent {
				fmt.Fprintf(&list, "  %s  %s\n", e.At.UTC().Format(time.RFC3339), headline(e))
				fmt.Fprintf(&stories, "\n%s\n\n%s", strings.Repeat("-", 60), story(e))
			}
		}
	}
	return list.String() + stories.String()
}

// messageID is the same whenever the same events are sent again, so that a
// mailbox can tell a repetition.
func messageID(from *mail.Address, events []evidence.Event) string {
	h := sha256.New()
	for _, e := range events {
		fmt.Fprintf(h, "%d:%s", len(e.ID), e.ID)
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	return fmt.Sprintf("<%x@%s>", h.Sum(nil)[:16], domain)
}

// encodeHeader makes a value of a header: ASCII, and nothing in it that a mail
// reader would decode to something else.
func encodeHeader(s string) string {
	encoded := mime.QEncoding.Encode("utf-8", strings.ReplaceAll(s, "=?", "= ?"))
	return strings.ReplaceAll(encoded, "?= =?", "?=\r\n =?")
}

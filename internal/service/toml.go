package service

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

var bom = []byte("\xef\xbb\xbf")

// deepestValue bounds how deep arrays and inline tables are followed.
const deepestValue = 16

// scanner finds where statements of a TOML document begin and end (TOML 1.0
// §Spec). It checks no more than it needs for that: whoever reads the document
// for its meaning does the rest.
type scanner struct {
	text []byte
	at   int
}

// scan divides a document into its statements.
func scan(text []byte) (*tomlDoc, error) {
	d := &tomlDoc{text: text, newline: "\n"}
	if bytes.Contains(text, []byte("\r\n")) {
		d.newline = "\r\n"
	}
	s := &scanner{text: text}
	if bytes.HasPrefix(text, bom) {
		s.at = len(bom)
	}
	var table []string
	var inArray bool
	for {
		s.space(true)
		if s.at == len(text) {
			return d, nil
		}
		p := part{line: s.at}
		var err error
		switch s.text[s.at] {
		case '#':
			p.kind = partComment
			s.comment()
			p.end = s.at
		case '[':
			p.kind = partHeader
			if p.key, p.array, err = s.header(); err == nil {
				p.end = s.at
				table, inArray = p.key, p.array
				err = s.restOfLine()
			}
		default:
			p.table, p.array = table, inArray
			if p.key, err = s.key(); err == nil {
				p.value, p.end, err = s.assigned()
			}
			if err == nil {
				err = s.restOfLine()
			}
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w; correct the file first", lineOf(text, s.at), err)
		}
		d.parts = append(d.parts, p)
	}
}

func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// space skips white space, and line breaks too where they mean nothing.
func (s *scanner) space(lines bool) {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == ' ' || c == '\t':
		case lines && (c == '\n' || c == '\r'):
		default:
			return
		}
		s.at++
	}
}

func (s *scanner) comment() {
	for s.at < len(s.text) && s.text[s.at] != '\n' {
		s.at++
	}
	if s.at > 0 && s.text[s.at-1] == '\r' {
		s.at--
	}
}

// restOfLine wants nothing but a comment up to the end of the line.
func (s *scanner) restOfLine() error {
	s.space(false)
	if s.peek() == '#' {
		s.comment()
	}
	if s.peek() == '\r' {
		s.at++
	}
	if s.at < len(s.text) && s.text[s.at] != '\n' {
		return errors.New("more than one statement on a line")
	}
	return nil
}

func (s *scanner) header() (key []string, array bool, err error) {
	s.at++
	if array = s.peek() == '['; array {
		s.at++
	}
	s.space(false)
	if key, err = s.key(); err != nil {
		return nil, false, err
	}
	s.space(false)
	for range map[bool]int{false: 1, true: 2}[array] {
		if s.peek() != ']' {
			return nil, false, errors.New("the name of a table does not end")
		}
		s.at++
	}
	return key, array, nil
}

// key reads a key, dotted or not.
func (s *scanner) key() (parts []string, err error) {
	for {
		s.space(false)
		var one string
		switch c := s.peek(); c {
		case '"', '\'':
			begin := s.at + 1
			if err := s.quoted(c); err != nil {
				return nil, err
			}
			// No key of ours needs an escape, and two ways to write one name
			// would hide a second setting of it.
			if one = string(s.text[begin : s.at-1]); c == '"' && strings.Contains(one, `\`) {
				return nil, errors.New("a key with an escape in it")
			}
		default:
			begin := s.at
			for s.at < len(s.text) && bareKey(s.text[s.at]) {
				s.at++
			}
			if one = string(s.text[begin:s.at]); one == "" {
				return nil, errors.New("a key is missing")
			}
		}
		parts = append(parts, one)
		before := s.at
		s.space(false)
		if s.peek() != '.' {
			s.at = before
			return parts, nil
		}
		s.at++
	}
}

func bareKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// assigned reads "= value".
func (s *scanner) assigned() (begin, end int, err error) {
	s.space(false)
	if s.peek() != '=' {
		return 0, 0, errors.New("a key without a value")
	}
	s.at++
	s.space(false)
	begin = s.at
	if err := s.value(0); err != nil {
		return 0, 0, err
	}
	return begin, s.at, nil
}

func (s *scanner) value(depth int) error {
	if depth > deepestValue {
		return errors.New("a value nested too deep")
	}
	switch c := s.peek(); c {
	case '"', '\'':
		if bytes.HasPrefix(s.text[s.at:], []byte{c, c, c}) {
			return s.multiLine(c)
		}
		return s.quoted(c)
	case '[':
		return s.list(']', depth)
	case '{':
		return s.list('}', depth)
	}
	begin := s.at
	for s.at < len(s.text) && !strings.ContainsRune(",]}#\n\r", rune(s.text[s.at])) {
		s.at++
	}
	for s.at > begin && (s.text[s.at-1] == ' ' || s.text[s.at-1] == '\t') {
		s.at--
	}
	if s.at == begin {
		return errors.New("a value is missing")
	}
	return nil
}

// quoted reads a string on one line.
func (s *scanner) quoted(quote byte) error {
	for s.at++; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == quote:
			s.at++
			return nil
		case c == '\n':
			return errors.New("a string does not end")
		case c == '\\' && quote == '"':
			s.at++
		}
	}
	s.at = len(s.text)
	return errors.New("a string does not end")
}

// multiLine reads a string between three quotes; up to two more may stand at
// its end and belong to it.
func (s *scanner) multiLine(quote byte) error {
	close := []byte{quote, quote, quote}
	for s.at += 3; s.at < len(s.text); s.at++ {
		switch {
		case s.text[s.at] == '\\' && quote == '"':
			s.at++
		case bytes.HasPrefix(s.text[s.at:], close):
			s.at += 3
			for range 2 {
				if s.peek() == quote {
					s.at++
				}
			}
			return nil
		}
	}
	s.at = len(s.text)
	return errors.New("a string does not end")
}

// list reads an array or an inline table.
func (s *scanner) list(close byte, depth int) error {
	for s.at++; ; {
		s.space(true)
		switch c := s.peek(); {
		case s.at >= len(s.text):
			return errors.New("an array or a table does not end")
		case c == close:
			s.at++
			return nil
		case c == '#':
			s.comment()
		case c == ',':
			s.at++
		case close == '}':
			if _, err := s.key(); err != nil {
				return err
			}
			s.space(false)
			if s.peek() != '=' {
				return errors.New("a key without a value")
			}
			s.at++
			s.space(false)
			if err := s.value(depth + 1); err != nil {
				return err
			}
		default:
			if err := s.value(depth + 1); err != nil {
				return err
			}
		}
	}
}

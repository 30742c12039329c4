package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"immuaudit/evidence"
)

// MaxFile bounds a report as it stands on disk, in bytes.
const MaxFile = 64 << 20

const (
	noteType    = "immuaudit-report-v1"
	dataBegin   = "<!-- immuaudit-report-data\n"
	dataEnd     = "\n-->\n"
	sealBegin   = "<!-- immuaudit-report-signature\n"
	sealEnd     = "-->\n"
	jsonBegin   = `{"report":`
	jsonBetween = ",\n\"note\":"
	jsonEnd     = "}\n"
)

// ErrNotReport is a file that does not even look like a report; ErrChanged one
// that does, and is not as it was signed.
var (
	ErrNotReport = errors.New("this is no report of immuaudit, or its end is cut off")
	ErrChanged   = errors.New("it was changed after it was signed, or was never signed")
)

// Fingerprint names an auditor's key in 64 hex digits: the SHA-256 of the
// line that immuclient trust key prints, without its end.
func Fingerprint(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func sign(content []byte, signer evidence.Signer) (string, error) {
	signed, err := note.Sign(&note.Note{Text: noteText(content, signer.VerifierKey())}, signer)
	if err != nil {
		return "", fmt.Errorf("signing the report: %w", err)
	}
	return string(signed), nil
}

func noteText(content []byte, key string) string {
	return fmt.Sprintf("%s\nsha256 %x\nkey %s\n", noteType, sha256.Sum256(content), key)
}

func sealPage(content []byte, signer evidence.Signer) ([]byte, error) {
	signed, err := sign(content, signer)
	if err != nil {
		return nil, err
	}
	return append(content, sealBegin+signed+sealEnd...), nil
}

// JSON gives a report as signed JSON.
func (d *Document) JSON(signer evidence.Signer) ([]byte, error) {
	body, err := d.data()
	if err != nil {
		return nil, err
	}
	signed, err := sign(body, signer)
	if err != nil {
		return nil, err
	}
	return assembleJSON(body, signed)
}

// data is the document as one line of JSON that cannot end a comment in HTML,
// and in which nothing is hidden from whoever looks at it.
func (d *Document) data() ([]byte, error) {
	body, err := json.Marshal(d) // escapes < and >
	if err != nil {
		return nil, fmt.Errorf("writing the report as JSON: %w", err)
	}
	var b []byte
	for _, r := range string(body) {
		if unicode.IsPrint(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			b = fmt.Appendf(b, "\\u%04x", unit)
		}
	}
	return b, nil
}

func assembleJSON(body []byte, signed string) ([]byte, error) {
	quoted, err := json.Marshal(signed)
	if err != nil {
		return nil, err
	}
	return []byte(jsonBegin + string(body) + jsonBetween + string(quoted) + jsonEnd), nil
}

// Checked is a report every byte of which is as it was signed.
type Checked struct {
	Key      string // the verifier key that signed it; whose it is, the file cannot prove
	Document *Document
}

// Check checks a report, in either form, with nothing but itself. An error is
// ErrNotReport or ErrChanged.
func Check(b []byte) (*Checked, error) {
	if len(b) > MaxFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrNotReport, MaxFile)
	}
	content, data, signed, err := takeApart(b)
	if err != nil {
		return nil, err
	}
	key, err := checkNote(content, signed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChanged, err)
	}
	var d Document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("%w: its data: %w", ErrNotReport, err)
	}
	if d.Format != dataFormat || d.FormatVersion != dataVersion {
		return nil, fmt.Errorf("%w: its data is of format %.40q, version %d; use a newer immuclient", ErrNotReport, d.Format, d.FormatVersion)
	}
	if d.Auditor.Key != key {
		return nil, fmt.Errorf("%w: it names another key than the one that signed it", ErrChanged)
	}
	return &Checked{Key: key, Document: &d}, nil
}

// takeApart finds what is signed, the data in it, and the note.
func takeApart(b []byte) (content, data []byte, signed string, err error) {
	if bytes.HasPrefix(b, []byte(jsonBegin)) {
		var outer struct {
			Report json.RawMessage `json:"report"`
			Note   string          `json:"note"`
		}
		if err := json.Unmarshal(b, &outer); err != nil {
			return nil, nil, "", fmt.Errorf("%w: %w", ErrNotReport, err)
		}
		again, err := assembleJSON(outer.Report, outer.Note)
		if err != nil || !bytes.Equal(again, b) {
			return nil, nil, "", fmt.Errorf("%w: around what is signed it is not in the form that is written", ErrChanged)
		}
		return outer.Report, outer.Report, outer.Note, nil
	}
	at := bytes.LastIndex(b, []byte(sealBegin))
	if at < 0 {
		return nil, nil, "", ErrNotReport
	}
	rest, whole := strings.CutSuffix(string(b[at+len(sealBegin):]), sealEnd)
	if !whole {
		return nil, nil, "", fmt.Errorf("%w: something stands behind its signature, or the signature is cut", ErrChanged)
	}
	content = b[:at]
	_, data, found := bytes.Cut(content, []byte(dataBegin))
	data, whole = bytes.CutSuffix(data, []byte(dataEnd))
	if !found || !whole {
		return nil, nil, "", fmt.Errorf("%w: its data is missing", ErrChanged)
	}
	return content, data, rest, nil
}

func checkNote(content []byte, signed string) (key string, err error) {
	lines := strings.SplitN(signed, "\n", 4)
	if len(lines) < 4 || lines[0] != noteType {
		return "", errors.New("its signature is none of a report")
	}
	key, ok := strings.CutPrefix(lines[2], "key ")
	if !ok {
		return "", errors.New("its signature names no key")
	}
	verifier, err := evidence.ParseAuditorKey(key)
	if err != nil {
		return "", err
	}
	n, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return "", fmt.Errorf("its signature does not hold: %w", err)
	}
	if n.Text != noteText(content, key) {
		return "", errors.New("its content is not what was signed")
	}
	// One form only: base64 may end in bits that nobody reads.
	raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != n.Sigs[0].Base64 {
		return "", errors.New("its signature is not in the form that is written")
	}
	again, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
	if err != nil || string(again) != signed {
		return "", errors.New("its signature is not in the form that is written")
	}
	return key, nil
}

package config

import (
	"encoding/base64"
	"errors"
	"strings"
)

const encoded = "enc:"

// EncodePassword writes a user name or password as "enc:" and base64. That keeps it from the eyes of
// passers-by; it is no encryption.
func EncodePassword(plain string) string {
	return encoded + base64.StdEncoding.EncodeToString([]byte(plain))
}

// DecodePassword undoes EncodePassword; what does not begin with "enc:" is plain already. The error never
// repeats the value.
func DecodePassword(written string) (string, error) {
	rest, ok := strings.CutPrefix(written, encoded)
	if !ok {
		return written, nil
	}
	plain, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		plain, err = base64.RawStdEncoding.DecodeString(rest)
	}
	if err != nil {
		return "", errors.New("begins with enc: but is not base64 after it")
	}
	if s := string(plain); strings.HasSuffix(s, "\n") {
		return "", errors.New("decodes to text that ends in a line break: encode it with printf %s PASSWORD | base64, not with echo")
	} else if unprintable(s) != "" {
		return "", errors.New("decodes to bytes that are not plain text: encode it with printf %s PASSWORD | base64")
	}
	return string(plain), nil
}

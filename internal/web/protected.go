package web

import (
	"fmt"
	"os"

	"go.yaml.in/yaml/v2"
)

// AsksForPassword reports whether a web configuration file names users, so that
// nobody is served without a password. The toolkit itself checks the rest of it.
func AsksForPassword(file string) (bool, error) {
	if file == "" {
		return false, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("reading the web configuration file %s: %w; correct it or leave --web.config.file out", file, err)
	}
	var c struct {
		Users map[string]string `yaml:"basic_auth_users"`
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		return false, fmt.Errorf("reading the web configuration file %s: %w; correct it or leave --web.config.file out", file, err)
	}
	return len(c.Users) > 0, nil
}

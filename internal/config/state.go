package config

import (
	"path/filepath"
	"strings"
)

const (
	systemState = "/var/lib/immuclient"
	stateHome   = "XDG_STATE_HOME"
)

// StateDir is the directory of the trusted state, absolute where the working directory is known. It is
// --roots-filepath if given, else --dir, else /var/lib/immuclient for root and $XDG_STATE_HOME/immuclient or
// ~/.local/state/immuclient for others: never a temporary directory unless somebody asked for one.
//
// temporary says that somebody did. What is remembered there vanishes with the next cleaning, and an attack
// before the next first contact with it, so the caller says so loudly.
func (c *Config) StateDir() (dir string, temporary bool) {
	dir = c.host.absolute(c.stateDir())
	return dir, c.host.temporary(dir)
}

func (c *Config) stateDir() string {
	state := c.host.environ[stateHome]
	switch {
	case c.RootsFilepath != "":
		return c.RootsFilepath
	case c.Dir != "":
		return c.Dir
	case c.host.root:
		return systemState
	case filepath.IsAbs(state): // a relative one is to be ignored (XDG base directory specification)
		return filepath.Join(state, "immuclient")
	case c.host.home != "":
		return filepath.Join(c.host.home, ".local", "state", "immuclient")
	}
	return systemState // an account without a home is a service's
}

// StateGuard is the file that witnesses the state directory, absolute where the working directory is known:
// --state-guard if given, else the name of the state directory with .guard beside it. given says which.
func (c *Config) StateGuard() (file string, given bool) {
	if c.Audit.StateGuard != "" {
		return c.host.absolute(c.Audit.StateGuard), true
	}
	return filepath.Clean(c.host.absolute(c.stateDir())) + ".guard", false
}

// temporaryPlaces are the variables that name the system's temporary directory.
func temporaryPlaces() []string { return []string{"TMPDIR", "TMP", "TEMP"} }

// temporary reports whether a directory, or what it links to, lies in a place that is cleaned by itself.
func (h *host) temporary(dir string) bool {
	places := []string{"/tmp", "/var/tmp", "/dev/shm", "/private/tmp"}
	for _, name := range temporaryPlaces() {
		if place := h.environ[name]; filepath.IsAbs(place) && filepath.Clean(place) != string(filepath.Separator) {
			places = append(places, place)
		}
	}
	for _, place := range places {
		if within(dir, place) || within(resolve(dir), resolve(place)) {
			return true
		}
	}
	return false
}

func within(dir, place string) bool {
	rel, err := filepath.Rel(place, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resolve follows the links in the part of the path that exists.
func resolve(path string) string {
	path = filepath.Clean(path)
	rest := ""
	for at := path; ; {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		parent := filepath.Dir(at)
		if parent == at {
			return path
		}
		rest = filepath.Join(filepath.Base(at), rest)
		at = parent
	}
}

package service

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// OldUnit is what the unit of an original immuclient says about its settings.
type OldUnit struct {
	Path string
	// Config is the file its ExecStart names, "" if it names none.
	Config string
	// Environ are its IMMUCLIENT_ variables, as in os.Environ.
	Environ []string
	// TempDir is its temporary directory, where the original kept its states,
	// if it was given one of its own.
	TempDir string
	// Flags are the names of other flags in its ExecStart, EnvironmentFiles
	// the files it takes more variables from: neither is taken over.
	Flags, EnvironmentFiles []string
}

// FindOldUnit reads the unit of the service if it is not ours.
func FindOldUnit(root string) (OldUnit, bool) {
	t, err := openTree(root)
	if err != nil {
		return OldUnit{}, false
	}
	defer t.close() // nothing was written
	fact := t.unit(PathsOf("linux").Unit)
	if !fact.Exists || fact.Ours {
		return OldUnit{}, false
	}
	text, err := t.read(fact.Path)
	if err != nil {
		return OldUnit{}, false
	}
	old := parseUnit(string(text))
	old.Path = fact.Path
	return old, true
}

func parseUnit(text string) OldUnit {
	var old OldUnit
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		switch strings.TrimSpace(key) {
		case "Environment":
			for _, w := range unitWords(value) {
				if strings.HasPrefix(w, "IMMUCLIENT_") || strings.HasPrefix(w, "audit-agent-interval=") {
					old.Environ = append(old.Environ, w)
				} else if dir, ok := strings.CutPrefix(w, "TMPDIR="); ok {
					old.TempDir = dir
				}
			}
		case "EnvironmentFile":
			old.EnvironmentFiles = append(old.EnvironmentFiles, strings.TrimPrefix(strings.TrimSpace(value), "-"))
		case "ExecStart":
			w := unitWords(value)
			for i := 0; i < len(w); i++ {
				name, inline, has := strings.Cut(w[i], "=")
				switch {
				case name == "--config" && has:
					old.Config = inline
				case name == "--config" && i+1 < len(w):
					i++
					old.Config = w[i]
				case strings.HasPrefix(name, "-") && !slices.Contains(old.Flags, name):
					old.Flags = append(old.Flags, name)
				}
			}
		}
	}
	return old
}

// unitWords divides a value of a unit as systemd.syntax(7) does, quotes and
// all; of its escapes only those of quotes, backslash and percent.
func unitWords(s string) []string {
	var all []string
	var word strings.Builder
	var quote rune
	in, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped, in = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, in = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if in {
				all = append(all, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		all = append(all, word.String())
	}
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "%%", "%")
	}
	return all
}

// OldStates are trusted states of the original found in one place.
type OldStates struct {
	Dir   string   // auditor/UUID/.state lies below it
	UUIDs []string // one for each server
	// Distrust is why they must not be taken over unseen: whoever can put a
	// state there decides what is trusted. Empty if only root and the account
	// of the service can.
	Distrust string
}

// mostStates bounds how many servers are listed for one place.
const mostStates = 100

// OldStatePlaces are the directories in which the original may have kept its
// states: it always took the system's temporary directory, which systemd may
// have given to its service alone.
func OldStatePlaces(root string, more ...string) []string {
	places := []string{"/tmp", "/var/tmp", "/var/lib/immuclient"}
	for _, pattern := range []string{"/tmp/systemd-private-*-immuclient.service-*/tmp", "/var/tmp/systemd-private-*-immuclient.service-*/tmp"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns are well-formed
		for _, path := range found {
			places = append(places, strings.TrimPrefix(path, strings.TrimSuffix(root, "/")))
		}
	}
	for _, path := range more {
		if filepath.IsAbs(path) && !slices.Contains(places, filepath.Clean(path)) {
			places = append(places, filepath.Clean(path))
		}
	}
	return places
}

// FindOldStates looks for states of the original in places, below root.
func FindOldStates(root string, places []string) []OldStates {
	t, err := openTree(root)
	if err != nil {
		return nil
	}
	defer t.close() // nothing was written
	account, _, err := t.account(Account)
	if err != nil {
		account.uid = -1
	}
	var all []OldStates
	for _, place := range places {
		top := filepath.Join(root, place, "auditor")
		entries, err := os.ReadDir(top)
		if err != nil {
			continue
		}
		s := OldStates{Dir: place}
		for _, e := range entries {
			if _, err := os.Lstat(filepath.Join(top, e.Name(), ".state")); err != nil {
				continue
			}
			if s.UUIDs = append(s.UUIDs, e.Name()); len(s.UUIDs) == mostStates {
				break
			}
			if s.Distrust == "" {
				s.Distrust = t.distrust(filepath.Join(place, "auditor", e.Name(), ".state"), account.uid)
			}
		}
		if len(s.UUIDs) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// distrust says who beside root and the account could have put a file where it
// is: each directory on the way, and the file, must belong to one of the two,
// be writable by nobody else and be no link. The sticky bit does not help,
// because what is missing can be made by anybody.
func (t *tree) distrust(path string, account int) string {
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		at = filepath.Join(at, part)
		info, err := os.Lstat(filepath.Join(t.base, at))
		if err != nil {
			return fmt.Sprintf("%s cannot be examined", at)
		}
		own, known := ownerOf(info)
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			return at + " is a symbolic link"
		case !info.IsDir() && !info.Mode().IsRegular():
			return at + " is no regular file"
		case !known || own.uid != 0 && own.uid != account:
			return fmt.Sprintf("%s belongs to %s", at, t.userName(own.uid))
		case info.Mode().Perm()&0o022 != 0:
			return fmt.Sprintf("others can write to %s (mode %04o)", at, info.Mode().Perm())
		case info.Mode().IsRegular() && own.links > 1:
			return fmt.Sprintf("%s has %d names", at, own.links)
		}
	}
	return ""
}

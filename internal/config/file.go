package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
)

const (
	fileName    = "immuclient.toml"
	longestFile = 2 << 20 // a thousand servers with everything said of each
	deepestKey  = 8       // no setting has more than three parts
	mostErrors  = 20
)

// candidate is a place where the file is looked for.
type candidate struct {
	path    string
	planted bool // others than root may have put it there
}

func (l *loader) candidates() []candidate {
	at := func(dir string, elem ...string) candidate {
		return candidate{filepath.Join(append([]string{dir}, elem...)...), true}
	}
	all := []candidate{at(l.host.workDir, fileName), at(l.host.workDir, "configs", fileName)}
	if l.host.home != "" {
		all = append(all, at(l.host.home, fileName))
	}
	etc := l.in.EtcPaths
	if etc == nil {
		etc = []string{"/etc/immudb/" + fileName, "/etc/immuclient/" + fileName}
		if runtime.GOOS == "windows" {
			etc = []string{filepath.Join(l.host.environ["ProgramData"], "ImmuClient", "config", fileName)}
		}
	}
	for _, path := range etc {
		all = append(all, candidate{path, false})
	}
	return all
}

// readFile reads the file named by --config or the first of the candidates.
func (l *loader) readFile() {
	if named := l.config.ConfigFile; named != "" {
		l.readNamed(named)
		return
	}
	for _, c := range l.candidates() {
		// Not blocking, so that a pipe of that name cannot hold the program up; what was opened is then
		// examined, not what the path may lead to a moment later.
		f, err := os.OpenFile(c.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		data, info, skip, err := l.readCandidate(f, err, c)
		if skip != "" {
			l.warn("%s is not read as the configuration: %s", printable(c.path), skip)
			continue
		}
		if err != nil {
			l.fail(&Error{Source: printable(c.path), Problem: "the configuration cannot be read: " + cause(err), Fix: "make it readable, or name another with --config (--config " + os.DevNull + " for none)", Err: err})
			return
		}
		l.config.ConfigFile = c.path
		l.inspect(c.path, info)
		l.decode(c.path, data)
		return
	}
}

func (l *loader) readNamed(named string) {
	g := l.config.origins["config"]
	data, info, err := openNamed(l.host.absolute(named))
	if err != nil {
		l.fail(&Error{Source: g.String(), Given: named, Problem: "cannot be read: " + cause(err), Fix: "name a TOML file that this user can read", Err: err})
		return
	}
	l.inspect(named, info)
	l.decode(named, data)
}

func openNamed(path string) (data []byte, info fs.FileInfo, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // read-only: nothing is lost
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	data, err = readBounded(f)
	return data, info, err
}

func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// readCandidate reads an opened candidate, or says why it is to be skipped.
func (l *loader) readCandidate(f *os.File, opening error, c candidate) (data []byte, info fs.FileInfo, skip string, err error) {
	if opening != nil {
		return nil, nil, "", opening
	}
	defer f.Close() // read-only: nothing is lost
	if info, err = f.Stat(); err != nil {
		return nil, nil, "", err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, "it is not a regular file", nil
	}
	if c.planted && l.in.Root {
		if why := l.distrust(c.path, info); why != "" {
			return nil, nil, "the program runs as root and the file " + why + "; chown root and chmod go-w it, or name it with --config", nil
		}
	}
	data, err = readBounded(f)
	return data, info, "", err
}

// distrust says why root must not obey the file, "" if it may: whoever can write the file, or the link to
// it, chooses which server is audited and where alerts go.
func (l *loader) distrust(path string, info fs.FileInfo) string {
	if info.Mode().Perm()&0o022 != 0 {
		return "can be written by others"
	}
	link, err := os.Lstat(path)
	if err != nil {
		return "cannot be examined: " + cause(err)
	}
	for _, i := range []fs.FileInfo{info, link} {
		if uid, known := l.in.owner(i); known && uid != 0 {
			return "belongs to user id " + strconv.FormatUint(uint64(uid), 10)
		}
	}
	return ""
}

func readBounded(f *os.File) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, longestFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > longestFile {
		return nil, fmt.Errorf("it is larger than %d bytes", longestFile)
	}
	return data, nil
}

// inspect warns of a file that others can change. Secrets that others can read are told once it is decoded.
func (l *loader) inspect(path string, info fs.FileInfo) {
	if runtime.GOOS == "windows" || !info.Mode().IsRegular() {
		return
	}
	if info.Mode().Perm()&0o002 != 0 {
		l.warn("%s can be changed by every user of this machine, who can thus turn the auditor away; chmod o-w it", printable(path))
	}
	l.readable = info.Mode().Perm()&0o004 != 0
}

// decode reads the file strictly: what is not understood is an error, because a misspelt key that is skipped
// is a check that silently does not happen.
func (l *loader) decode(path string, data []byte) {
	path = printable(path)
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // Windows editors begin UTF-8 files with it
	o := outlineOf(data)
	if o.problem != "" {
		l.fail(&Error{Source: path, Problem: o.problem, Fix: "name the right file with --config"})
		return
	}
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		l.fail(syntaxError(path, err))
		return
	}
	d := document{path: path, lines: o.at, loader: l, seen: map[string]bool{}}
	servers, sinks := values[serverTable], values[sinkTable]
	delete(values, serverTable)
	delete(values, sinkTable)
	d.walk(values, nil)
	slices.SortFunc(d.entries, byPlace)
	for _, e := range d.entries {
		d.take(e)
	}
	d.tablesOf(serverTable, servers)
	d.tablesOf(sinkTable, sinks)
}

func syntaxError(path string, err error) *Error {
	e := &Error{Source: path, Problem: strings.TrimPrefix(err.Error(), "toml: "), Fix: "correct the line; text stands in quotes, numbers and true or false do not", Err: err}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, column := de.Position()
		e.Source = fmt.Sprintf("%s:%d:%d", path, line, column)
		e.Problem = strings.TrimPrefix(de.Error(), "toml: ")
	}
	if strings.Contains(e.Problem, "already") {
		e.Fix = "remove one of the two"
	}
	return e
}

type entry struct {
	name         string
	value        any
	line, column int
}

func byPlace(a, b entry) int {
	return cmp.Or(a.line-b.line, a.column-b.column, strings.Compare(a.name, b.name))
}

type document struct {
	*loader
	path    string
	lines   map[string][2]int
	entries []entry
	seen    map[string]bool
}

// walk collects the settings, and what is none, from the document and its tables.
func (d *document) walk(table map[string]any, parents []string) {
	for key, value := range table {
		parts := append(slices.Clip(parents), key)
		name := strings.Join(parts, ".")
		inner, isTable := value.(map[string]any)
		if isTable && len(inner) > 0 && len(parts) < deepestKey && find(d.settings, name) == nil {
			d.walk(inner, parts)
			continue
		}
		e := entry{name: name, value: value}
		// Keys inside an unknown table have no position of their own: the table's is the nearest.
		for n := len(parts); n > 0; n-- {
			if at, ok := d.lines[strings.Join(parts[:n], ".")]; ok {
				e.line, e.column = at[0], at[1]
				break
			}
		}
		d.entries = append(d.entries, e)
	}
}

// place is where an entry stands.
func (d *document) place(e entry) origin {
	at := origin{strength: fromFile, name: d.path}
	if e.line > 0 {
		at.name = fmt.Sprintf("%s:%d:%d", d.path, e.line, e.column)
	}
	return at
}

// take accepts one entry or says what is wrong with it.
func (d *document) take(e entry) {
	at := d.place(e)
	s := find(d.settings, e.name)
	switch {
	case s == nil && (e.name == "address" || e.name == "port" || e.name == "detached"):
		// The file that the original installs has them; an auditor never looked at them.
		d.warn("%s: %s means nothing to an auditor and is ignored%s", at, e.name, leftoverHint(e.name))
	case s == nil:
		wrong := &Error{Source: at.String(), Setting: printable(e.name), Problem: "unknown key", Fix: "remove the line; `immuclient audit-mode --help` lists the settings"}
		if n := nearest(e.name, settingNames(d.settings)); n != "" {
			wrong.Fix = "did you mean " + n + "?"
		} else if strings.Contains(e.name, ".") {
			wrong.Fix = "settings stand at the top of the file, outside of any table; `immuclient audit-mode --help` lists them"
		}
		d.fail(wrong)
	case s.here:
		d.fail(&Error{Source: at.String(), Setting: s.name, Problem: "cannot be set in a file", Fix: "remove the line and type " + origin{strength: fromFlag}.show(s, s.proposal())})
	default:
		written, ok := scalar(s.kind, e.value)
		if !ok {
			d.fail(wrongType(s, at, e.value))
			return
		}
		// TOML sees two keys in "web.config.file" with and without quotes.
		if d.seen[s.name] {
			d.fail(&Error{Source: at.String(), Setting: s.name, Problem: "is set twice", Fix: "remove one of the two"})
			return
		}
		d.seen[s.name] = true
		d.add(s, given{written, at})
	}
}

func leftoverHint(name string) string {
	switch name {
	case "address":
		return " (the server is immudb-address)"
	case "port":
		return " (the port of the server is immudb-port)"
	}
	return ""
}

// scalar is the value of a key as it would be typed on the command line.
func scalar(k kind, value any) (written string, ok bool) {
	switch v := value.(type) {
	case string:
		return v, k != number && k != boolean && k != array
	case int64:
		return strconv.FormatInt(v, 10), k == number
	case bool:
		return strconv.FormatBool(v), k == boolean
	case []any:
		names := make([]string, 0, len(v))
		for _, element := range v {
			name, isText := element.(string)
			if !isText {
				return "", false
			}
			names = append(names, name)
		}
		return strings.Join(names, ","), k == list || k == array
	}
	return "", false
}

func wrongType(s *setting, at origin, value any) *Error {
	found := "a date or time"
	instead := ""
	switch v := value.(type) {
	case string:
		found, instead = "text", v
	case int64:
		found, instead = "a whole number", strconv.FormatInt(v, 10)
	case bool:
		found, instead = "true or false", strconv.FormatBool(v)
	case float64:
		found = "a number with a fraction"
	case []any:
		if found = "an array"; s.kind == list || s.kind == array {
			found = "an array of other things than text"
		}
	case map[string]any:
		found = "a table"
	}
	wants := map[kind]string{number: "a whole number, without quotes", boolean: "true or false, without quotes",
		duration: "a duration in quotes", list: "names in quotes, or an array of them", array: "an array of names, each in quotes"}[s.kind]
	if wants == "" {
		wants = "text in quotes"
	}
	switch {
	case s.kind == duration && instead != "":
		instead += "s"
	case s.kind == boolean:
		if b, err := strconv.ParseBool(instead); err == nil {
			instead = strconv.FormatBool(b)
		}
	}
	var scratch Config
	if problem, _ := s.assign(&scratch, instead, &host{}); problem != "" || instead == "" || s.secret || mayHoldSecret(instead) {
		instead = s.proposal()
	}
	return &Error{Source: at.String(), Setting: at.label(s.name), Problem: "is " + found + " but must be " + wants, Fix: "write " + at.show(s, instead)}
}

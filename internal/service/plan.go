package service

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
)

// Plan is what a verb is going to do, in order.
type Plan struct {
	Steps []Step
	// Notes are what the operator should know beside it.
	Notes []string
}

func (p *Plan) add(steps ...Step) { p.Steps = append(p.Steps, steps...) }

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// Step is one thing to do. What is done already is found out when it is
// carried out: a step that finds nothing to do changes nothing.
type Step interface {
	// String is the step as --dry-run shows it, on one line or with the
	// content of a file below.
	String() string
	apply(ctx context.Context, a *applying) (outcome, error)
}

// outcome is what a step did, in words, and whether anything is different now.
type outcome struct {
	words   string
	changed bool
}

// Owner is whose a file is to be; names, because the account may not exist
// when the plan is made.
type Owner struct{ User, Group string }

var (
	rootOwner    = Owner{"root", "root"}
	readers      = Owner{"root", Account}  // may be read by the service, not changed
	accountOwner = Owner{Account, Account} // belongs to the service
)

func (o Owner) String() string { return o.User + ":" + o.Group }

// WriteFile puts a file in place, whole or not at all.
type WriteFile struct {
	Path    string
	Mode    fs.FileMode
	Owner   Owner
	Content []byte
	Shown   []byte // instead of Content in --dry-run, if it holds secrets
}

func (s WriteFile) String() string {
	shown := s.Content
	if s.Shown != nil {
		shown = s.Shown
	}
	return fmt.Sprintf("write %s (%s %04o):\n%s", s.Path, s.Owner, s.Mode, indent(string(shown)))
}

// Touch makes an empty file where there is none.
type Touch struct {
	Path  string
	Mode  fs.FileMode
	Owner Owner
}

func (s Touch) String() string {
	return fmt.Sprintf("make the empty file %s (%s %04o) unless it exists", s.Path, s.Owner, s.Mode)
}

// MakeDir makes a directory and those above it. With Own it gets owner and
// mode also where it exists.
type MakeDir struct {
	Path  string
	Mode  fs.FileMode
	Owner Owner
	Own   bool
}

func (s MakeDir) String() string {
	unless := " unless it exists"
	if s.Own {
		unless = ""
	}
	return fmt.Sprintf("make the directory %s (%s %04o)%s", s.Path, s.Owner, s.Mode, unless)
}

// CopyBinary puts the running program to a stable place.
type CopyBinary struct {
	From  string // on this system, whatever the root
	Path  string
	Owner Owner
}

func (s CopyBinary) String() string {
	return fmt.Sprintf("copy %s to %s (%s 0755)", s.From, s.Path, s.Owner)
}

// MakeAccount makes user and group of the service, by the first of the
// commands where that works on a running system, in the files of another root.
type MakeAccount struct {
	Home     string
	Commands [][]string
}

func (s MakeAccount) String() string {
	if len(s.Commands) == 0 {
		return fmt.Sprintf("add the user and the group %s to etc/passwd and etc/group unless they exist", Account)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "make the user and the group %s unless they exist:", Account)
	for _, argv := range s.Commands {
		b.WriteString("\n" + indent("run "+words(argv)))
	}
	return b.String()
}

// SetAside renames a file of somebody else to NAME.original.
type SetAside struct{ Path string }

func (s SetAside) String() string { return fmt.Sprintf("rename %s to %s", s.Path, s.Path+aside) }

const aside = ".original"

// TakeOver gives a directory of root's, with all that is in it, to the account
// of the service.
type TakeOver struct{ Path string }

func (s TakeOver) String() string {
	return fmt.Sprintf("give %s and what is in it from root to %s", s.Path, Account)
}

// Link makes a symbolic link.
type Link struct{ Path, Target string }

func (s Link) String() string { return fmt.Sprintf("link %s to %s", s.Path, s.Target) }

// Remove removes a file, or a directory: an empty one, or with All everything
// in it.
type Remove struct {
	Path string
	All  bool
}

func (s Remove) String() string {
	if s.All {
		return fmt.Sprintf("remove %s and all that is in it", s.Path)
	}
	return fmt.Sprintf("remove %s", s.Path)
}

// Run runs a command.
type Run struct {
	Argv []string
	// OnlyChanged skips it where no step before changed anything.
	OnlyChanged bool
	// Done is what to say afterwards.
	Done string
	// After is run when the command failed; what it prints is shown.
	After []string
}

func (s Run) String() string {
	if s.OnlyChanged {
		return "run " + words(s.Argv) + " if anything changed"
	}
	return "run " + words(s.Argv)
}

// Call is a step that the caller carries out.
type Call struct {
	What string
	Do   func(ctx context.Context) (said []string, changed bool, err error)
}

func (s Call) String() string { return s.What }

// words writes a command as it would be typed.
func words(argv []string) string {
	quoted := make([]string, len(argv))
	for i, w := range argv {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+/.,:@%*()\\", r)
		}) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func indent(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return "    " + strings.ReplaceAll(strings.ReplaceAll(text, "\n", "\n    "), "\n    \n", "\n\n")
}

// String is the whole plan.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String() + "\n")
	}
	for _, n := range p.Notes {
		b.WriteString("note: " + n + "\n")
	}
	return b.String()
}

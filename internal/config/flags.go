package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Register defines the flags of the groups on fs, all flags if no group is named. A flag that fs has already
// is left alone, so that a command and its parent may register the same group.
func Register(fs *pflag.FlagSet, groups ...Group) {
	for _, s := range table() {
		if len(groups) > 0 && !slices.Contains(groups, s.group) || fs.Lookup(s.name) != nil {
			continue
		}
		f := fs.VarPF(&flagValue{text: s.value, kind: s.kind}, s.name, s.short, s.usage)
		if s.kind == boolean {
			f.NoOptDefVal = "true"
		}
	}
}

// flagValue keeps what was typed. It is understood by Load, together with the same settings from other
// sources, so that a mistake reads the same wherever it was made.
type flagValue struct {
	text  string
	kind  kind
	typed bool
}

func (v *flagValue) String() string { return v.text }

// Set replaces what was typed before; names add up, so that no ledger is left out by a second flag.
func (v *flagValue) Set(text string) error {
	if v.kind == list && v.typed {
		text = v.text + "," + text
	}
	v.text, v.typed = text, true
	return nil
}

func (v *flagValue) Type() string {
	if v.kind == path {
		return string(text)
	}
	return string(v.kind)
}

// FlagError turns an error of fs.Parse into an *Error that names the flag that was probably meant.
func FlagError(fs *pflag.FlagSet, err error) error {
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		return err
	}
	const seeHelp = "--help lists the flags"
	var unknown *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return &Error{Source: "flag -" + quote(unknown.GetSpecifiedShortnames()), Problem: "holds an unknown short form", Fix: "a long flag begins with two dashes; " + seeHelp, Err: err}
		}
		e := &Error{Source: "flag --" + printable(name), Problem: "unknown flag", Fix: seeHelp, Err: err}
		var known []string
		fs.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if n := nearest(name, known); n != "" {
			e.Fix = "did you mean --" + n + "?"
		} else if find(table(), name) != nil {
			e.Problem, e.Fix = "is not a flag of this command", seeHelp
		}
		return e
	case errors.As(err, &empty):
		e := &Error{Source: "flag --" + empty.GetSpecifiedName(), Problem: "has no value", Fix: seeHelp, Err: err}
		if s := find(table(), empty.GetFlag().Name); s != nil {
			e.Source = "flag --" + s.name
			e.Fix = "for example " + origin{strength: fromFlag}.show(s, s.proposal())
		}
		return e
	case errors.As(err, &syntax):
		return &Error{Source: "flag " + quote(syntax.GetSpecifiedFlag()), Problem: "is not written as --name=value", Fix: seeHelp, Err: err}
	}
	return &Error{Source: "command line", Problem: printable(err.Error()), Fix: seeHelp, Err: err}
}

func find(settings []setting, name string) *setting {
	for i := range settings {
		if settings[i].name == name {
			return &settings[i]
		}
	}
	return nil
}

// printable is s where it is harmless to show, else s quoted.
func printable(s string) string {
	if q := quote(s); q != `"`+s+`"` || strings.ContainsAny(s, " ") {
		return q
	}
	return s
}

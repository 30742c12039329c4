package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// fileSuffix makes, of the variable of a secret, the one that names a file with the secret in it: how
// Docker, Kubernetes and systemd hand out credentials that are not to stand in the environment, where
// every child process and every core dump has them.
const fileSuffix = "_FILE"

// fileVariable is the variable that names a file holding the value, "" where there is none. The URL of
// notifications has one because many receivers put their token into it.
func (s *setting) fileVariable() string {
	if !s.secret && s.name != "audit-notification-url" {
		return ""
	}
	return s.variable() + fileSuffix
}

// readSecret takes the value of s from the file that its variable names, if it is set.
func (l *loader) readSecret(s *setting) {
	variable := s.fileVariable()
	named := l.host.environ[variable]
	if variable == "" || named == "" {
		return
	}
	at := origin{strength: fromEnviron, name: variable}
	if l.host.environ[s.variable()] != "" {
		// Which of two passwords is the old one is not for a program to guess.
		l.fail(&Error{Source: at.String(), Problem: "is set beside " + s.variable(), Fix: "unset one of the two"})
		return
	}
	if problem := tooLong(named, longestValue); problem != "" {
		l.fail(&Error{Source: at.String(), Problem: problem, Fix: "name a file that holds the value and nothing else"})
		return
	}
	value, problem, err := l.secretIn(named)
	if problem == "" {
		if problem = s.problemOf(value, &l.host); problem != "" {
			problem = "holds a value (not shown) that " + problem
		}
	}
	switch {
	case problem == "":
		at.name = fmt.Sprintf("%s=%s", variable, printable(named))
		l.add(s, given{value, at})
		if path, problem := l.host.expand(named); problem == "" {
			l.config.secrets = append(l.config.secrets, l.host.absolute(path))
		}
	case err != nil && l.in.Offline:
		// Whoever looks at incidents need not be allowed to read the auditor's password.
		l.note("%s: %s %s", at, quote(named), problem)
	default:
		l.fail(&Error{Source: at.String(), Given: named, Problem: problem, Fix: "name a file that this user can read and that holds the value and nothing else", Err: err})
	}
}

func (s *setting) problemOf(value string, h *host) string {
	var scratch Config
	problem, _ := s.assign(&scratch, value, h)
	return problem
}

// secretIn reads the file and takes off one line break at its end, which editors and echo add.
func (l *loader) secretIn(named string) (value, problem string, err error) {
	path, problem := l.host.expand(named)
	if problem != "" {
		return "", problem, nil
	}
	// Not blocking: a pipe of that name must not hold the program up.
	f, err := os.OpenFile(l.host.absolute(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", "cannot be read: " + cause(err), err
	}
	defer f.Close() // read-only: nothing is lost
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return "", "cannot be read: " + cause(err), err
	}
	data, err := io.ReadAll(io.LimitReader(f, longestValue+3))
	if err != nil {
		return "", "cannot be read: " + cause(err), err
	}
	value = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if problem := tooLong(value, longestValue); problem != "" {
		return "", problem, nil
	}
	if value == "" {
		// An empty password is typed as a flag; an empty file is a secret that was never filled in.
		return "", "is empty", nil
	}
	return value, "", nil
}

func tooLong(text string, longest int) string {
	if len(text) > longest {
		return fmt.Sprintf("is longer than %d bytes", longest)
	}
	return ""
}

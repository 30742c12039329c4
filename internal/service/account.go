package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
)

// accountCommands are the ways to make the account, by the program that has to
// be there; the first that is found is taken.
func accountCommands(home string) []struct {
	tool string
	argv [][]string
} {
	const comment = "auditor of immudb"
	return []struct {
		tool string
		argv [][]string
	}{
		{"useradd", [][]string{
			{"groupadd", "--system", "--force", Account},
			{"useradd", "--system", "--gid", Account, "--home-dir", home, "--no-create-home", "--shell", "/usr/sbin/nologin", "--comment", comment, Account},
		}},
		// Alpine and other small systems.
		{"adduser", [][]string{
			{"addgroup", "-S", Account},
			{"adduser", "-S", "-D", "-H", "-h", home, "-s", "/sbin/nologin", "-G", Account, "-g", comment, Account},
		}},
		{"systemd-sysusers", [][]string{
			{"systemd-sysusers", "--inline", fmt.Sprintf("u %s - %q %s", Account, comment, home)},
		}},
		{"pw", [][]string{ // FreeBSD; makes the group too
			{"pw", "useradd", Account, "-d", home, "-s", "/usr/sbin/nologin", "-c", comment},
		}},
	}
}

// findAccountCommands chooses among them by what is installed.
func findAccountCommands(goos, home string) [][]string {
	for _, way := range accountCommands(home) {
		if (way.tool == "pw") != (goos == "freebsd") {
			continue
		}
		if _, err := exec.LookPath(way.tool); err == nil {
			return way.argv
		}
	}
	return nil
}

func (s MakeAccount) apply(ctx context.Context, a *applying) (outcome, error) {
	const made = "made the user and the group " + Account
	own, known, err := a.tree.account(Account)
	if err == nil && known && own.uid == 0 {
		return outcome{}, fmt.Errorf("the user %s is root; the auditor needs an account of its own", Account)
	}
	_, haveGroup, groupErr := a.tree.group(Account)
	if a.Root != "" {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(groupErr, fs.ErrNotExist) {
			return outcome{words: fmt.Sprintf("%s has no etc/passwd and etc/group: make the account %s where this ends up, then: chown -R %s %s; chgrp %s %s",
				a.Root, Account, accountOwner, s.Home, Account, PathsOf("linux").Config)}, nil
		}
		if err := errors.Join(err, groupErr); err != nil {
			return outcome{}, fmt.Errorf("looking up %s: %w", Account, err)
		}
		if known && haveGroup {
			return outcome{}, nil
		}
		if err := a.addAccount(s.Home, known, haveGroup); err != nil {
			return outcome{}, fmt.Errorf("making the account %s: %w", Account, err)
		}
		return outcome{made, true}, nil
	}
	if err == nil && known && haveGroup {
		return outcome{}, nil
	}
	if len(s.Commands) == 0 {
		return outcome{}, fmt.Errorf("there is no program to make the account %s (useradd, adduser, systemd-sysusers); make user and group by hand and try again", Account)
	}
	for _, argv := range s.Commands {
		if err := a.run(ctx, argv, nil); err != nil {
			return outcome{}, err
		}
	}
	return outcome{made, true}, nil
}

// systemIDs are those that programs choose system accounts from, the highest
// first (login.defs SYS_UID_MAX and SYS_UID_MIN).
const highestID, lowestID = 999, 100

// addAccount adds user and group to the files of another root, where no
// program of that root can be run.
func (a *applying) addAccount(home string, haveUser, haveGroup bool) error {
	taken := map[string]bool{}
	gid := ""
	if err := a.tree.fields("/etc/group", 3, func(f []string) bool {
		taken[f[2]] = true
		if f[0] == Account {
			gid = f[2]
		}
		return true
	}); err != nil {
		return err
	}
	if err := a.tree.fields("/etc/passwd", 4, func(f []string) bool {
		taken[f[2]] = true
		if haveUser && f[0] == Account {
			gid = f[3]
		}
		return true
	}); err != nil {
		return err
	}
	free := ""
	for id := highestID; id >= lowestID && free == ""; id-- {
		if n := fmt.Sprint(id); !taken[n] {
			free = n
		}
	}
	if free == "" {
		return errors.New("no number is free for it; make it by hand and try again")
	}
	if gid == "" {
		gid = free
	}
	var errs []error
	if !haveGroup {
		errs = append(errs, a.appendLine("/etc/group", Account+":x:"+gid+":"), a.appendLine("/etc/gshadow", Account+":!::"))
	}
	if !haveUser {
		errs = append(errs, a.appendLine("/etc/passwd", strings.Join([]string{Account, "x", free, gid, "auditor of immudb", home, "/usr/sbin/nologin"}, ":")),
			a.appendLine("/etc/shadow", Account+":!*:::::::"))
	}
	return errors.Join(errs...)
}

// appendLine adds a line to a file that keeps owner and mode. The shadow files
// need not exist.
func (a *applying) appendLine(path, line string) error {
	text, err := a.tree.read(path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(path, "shadow") {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := a.tree.lstat(path)
	if err != nil {
		return err
	}
	own, _ := ownerOf(info)
	if n := len(text); n > 0 && text[n-1] != '\n' {
		text = append(text, '\n')
	}
	to := ids{uid: own.uid, gid: own.gid, leave: !privileged()}
	return a.tree.replace(path, strings.NewReader(string(slices.Concat(text, []byte(line+"\n")))), info.Mode().Perm(), to)
}

package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		if (s.secret || s.name == "audit-notification-url") != (s.fileVariable() != "") {
			t.Errorf("%s: file variable %q", s.name, s.fileVariable())
		}
		if s.fileVariable() == "" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			in := quiet(t)
			in.Offline = true
			secret := filepath.Join(in.WorkDir, "secret")
			value := three[s.name][0]
			check := func(written, from string) {
				t.Helper()
				write(t, secret, written)
				c, warnings := load(t, in)
				if got := s.current(c); got != value || c.Provenance(s.name) != from {
					t.Errorf("%q: %q from %s", written, got, c.Provenance(s.name))
				}
				if strings.Contains(texts(warnings), "unknown") {
					t.Errorf("%s", texts(warnings))
				}
			}
			for _, named := range []string{secret, "secret", "$HOME/secret"} {
				in.Home, in.Environ = in.WorkDir, []string{s.fileVariable() + "=" + named}
				from := "environment variable " + s.fileVariable() + "=" + named
				check(value, from)
				check(value+"\n", from)
				check(value+"\r\n", from)
			}
			// Stronger than the configuration file, weaker than a flag, and empty is unset.
			write(t, filepath.Join(in.WorkDir, fileName), s.name+" = "+tomlText(three[s.name][1]))
			check(value, "environment variable "+s.fileVariable()+"=$HOME/secret")
			in.Environ = append(in.Environ, s.variable()+"=")
			check(value, "environment variable "+s.fileVariable()+"=$HOME/secret")
			in.Flags = flags(t, "--"+s.name+"="+three[s.name][2])
			value = three[s.name][2]
			check(three[s.name][0], "flag --"+s.name)
			in.Flags, in.Environ, value = nil, []string{s.fileVariable() + "="}, three[s.name][1]
			check("", printable(filepath.Join(in.WorkDir, fileName))+":1:1")
		})
	}
}

func TestMistakesInSecretFiles(t *testing.T) {
	t.Parallel()
	const (
		variable = "IMMUCLIENT_AUDIT_PASSWORD_FILE"
		fix      = "; name a file that this user can read and that holds the value and nothing else"
	)
	for _, c := range []struct {
		name, text, more, want string
		unreadable             bool // no mistake of commands that talk to no server
	}{
		{"gone", "", "", `"gone" cannot be read: no such file or directory`, true},
		{".", "", "", `"." cannot be read: it is not a regular file`, true},
		{"/dev/null", "", "", `"/dev/null" cannot be read: it is not a regular file`, true},
		{"$NOWHERE/x", "", "", `"$NOWHERE/x" names the environment variable "NOWHERE", which is not set ($$ stands for a plain $)`, false},
		{"empty", "", "", `"empty" is empty`, false},
		{"line", "\n", "", `"line" is empty`, false},
		{"two", "hush\nhush\n", "", `"two" holds a value (not shown) that has a control character (0x0a) at byte 5`, false},
		{"latin1", "h\xfcsh", "", `"latin1" holds a value (not shown) that is not UTF-8 text`, false},
		{"encoded", "enc:hush!", "", `"encoded" holds a value (not shown) that begins with enc: but is not base64 after it`, false},
		{"large", strings.Repeat("hush", 1025), "", `"large" is longer than 4096 bytes`, false},
		{"endless", strings.Repeat("hush", 1<<20), "", `"endless" is longer than 4096 bytes`, false},
		{"long", strings.Repeat("hush", 257), "", `"long" holds a value (not shown) that is longer than 1024 bytes`, false},
		{"both", "hush", "IMMUCLIENT_AUDIT_PASSWORD=other", "is set beside IMMUCLIENT_AUDIT_PASSWORD; unset one of the two", false},
	} {
		in := quiet(t)
		in.Environ = []string{"IMMUCLIENT_AUDIT_USERNAME=u", variable + "=" + c.name, c.more}
		if c.text != "" || c.name == "empty" {
			write(t, filepath.Join(in.WorkDir, c.name), c.text)
		}
		want := "environment variable " + variable + ": " + c.want
		if c.more == "" {
			want += fix
		}
		_, _, err := Load(in)
		// The missing password of the user name is told as well.
		if err == nil || strings.Split(err.Error(), "\n")[0] != want || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v\nwant %s", c.name, err, want)
		}
		in.Offline = true
		got, warnings, err := Load(in)
		if c.unreadable != (err == nil) {
			t.Errorf("%s: offline: %v", c.name, err)
		}
		if c.unreadable && (len(warnings) != 1 || !warnings[0].Quiet || got.Audit.Password != "") {
			t.Errorf("%s: offline: %v %s", c.name, got, texts(warnings))
		}
	}

	in := quiet(t)
	in.Environ = []string{variable + "=" + strings.Repeat("x", 4097)}
	if _, _, err := Load(in); err == nil || !strings.Contains(err.Error(), variable+": is longer than 4096 bytes") {
		t.Errorf("%v", err)
	}
}

// A service made from a container's settings keeps the password, encoded, not the name of a file that the
// service may not read.
func TestSampleOfASecretFile(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	write(t, filepath.Join(in.WorkDir, "secret"), "hush\n")
	in.Environ = []string{"IMMUCLIENT_AUDIT_USERNAME=u", "IMMUCLIENT_AUDIT_PASSWORD_FILE=secret", "IMMUCLIENT_LOGFILE=-"}
	c, warnings := load(t, in)
	sample := string(c.Sample())
	for _, line := range []string{"\naudit-password = \"" + EncodePassword("hush") + "\"\n", "\nlogfile = \"-\"\n"} {
		if !strings.Contains(sample, line) {
			t.Errorf("the file lacks %q", line)
		}
	}
	if c.Audit.Password != "hush" || len(warnings) != 0 {
		t.Errorf("%q; %s", c.Audit.Password, texts(warnings))
	}
	if shown := c.Redacted(); strings.Contains(shown, "hush") {
		t.Error(shown)
	}
}

func TestLogsToStdout(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]bool{"": true, "--once": false, "--json": false} {
		in := quiet(t)
		in.Offline, in.Environ = true, []string{"IMMUCLIENT_LOGFILE=-"}
		in.Flags = flags(t, strings.Fields(args)...)
		if c, _ := load(t, in); c.LogsToStdout() != want {
			t.Errorf("%q: %v", args, c.LogsToStdout())
		}
	}
	in := quiet(t)
	in.Offline, in.Environ = true, []string{"IMMUCLIENT_LOGFILE=./-"}
	if c, _ := load(t, in); c.LogsToStdout() {
		t.Error("a file of that name is a file")
	}
}

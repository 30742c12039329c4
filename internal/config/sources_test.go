package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEnvironment(t *testing.T) {
	t.Parallel()
	const login = "IMMUCLIENT_AUDIT_PASSWORD=p"
	for _, c := range []struct {
		name     string
		environ  []string
		warnings string
		quiet    bool
	}{
		{"Kubernetes, Service immuclient", []string{"IMMUCLIENT_PORT=tcp://10.0.0.1:9477", "IMMUCLIENT_SERVICE_HOST=10.0.0.1", "IMMUCLIENT_SERVICE_PORT=9477",
			"IMMUCLIENT_SERVICE_PORT_METRICS=9477", "IMMUCLIENT_PORT_9477_TCP=tcp://10.0.0.1:9477", "IMMUCLIENT_PORT_9477_TCP_ADDR=10.0.0.1", "IMMUCLIENT_PORT_9477_TCP_PORT=9477", "IMMUCLIENT_PORT_9477_TCP_PROTO=tcp"},
			"ignored environment variables that Kubernetes sets for a Service and that are no settings: IMMUCLIENT_PORT, IMMUCLIENT_PORT_9477_TCP, IMMUCLIENT_PORT_9477_TCP_ADDR, IMMUCLIENT_PORT_9477_TCP_PORT, IMMUCLIENT_PORT_9477_TCP_PROTO, IMMUCLIENT_SERVICE_HOST, IMMUCLIENT_SERVICE_PORT, IMMUCLIENT_SERVICE_PORT_METRICS", true},
		{"Kubernetes, Service immuclient-immudb", []string{"IMMUCLIENT_IMMUDB_PORT=tcp://10.0.0.1:3322"},
			`environment variable IMMUCLIENT_IMMUDB_PORT is ignored: its value "tcp://10.0.0.1:3322" comes from a Kubernetes Service and is not a number; set enableServiceLinks: false in the pod, or give --immudb-port`, false},
		{"misspelt", []string{"IMMUCLIENT_AUDIT_USRNAME=x"},
			"environment variable IMMUCLIENT_AUDIT_USRNAME is unknown and ignored; did you mean IMMUCLIENT_AUDIT_USERNAME?", false},
		{"port by hand", []string{"IMMUCLIENT_PORT=3322"},
			"environment variable IMMUCLIENT_PORT is unknown and ignored; did you mean IMMUCLIENT_IMMUDB_PORT?", false},
		{"the rule applied to the exception", []string{"IMMUCLIENT_AUDIT_AGENT_INTERVAL=5s"},
			"environment variable IMMUCLIENT_AUDIT_AGENT_INTERVAL is unknown and ignored; did you mean IMMUCLIENT_AUDIT_INTERVAL?", false},
		{"far from all", []string{"IMMUCLIENT_COLOUR=red", "HOME=/x", "IMMUADMIN_PORT=1"},
			"environment variable IMMUCLIENT_COLOUR is unknown and ignored; `immuclient audit-mode --help` lists the settings", false},
		{"forged line", []string{"IMMUCLIENT_A\nINFO forged=x"},
			"environment variable \"IMMUCLIENT_A\\nINFO forged\" is unknown and ignored; `immuclient audit-mode --help` lists the settings", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := quiet(t)
			in.Environ = append(c.environ, login, "IMMUCLIENT_AUDIT_USERNAME=u")
			got, warnings := load(t, in)
			if texts(warnings) != c.warnings || warnings[0].Quiet != c.quiet {
				t.Errorf("%+v", warnings)
			}
			if got.Port != 3322 {
				t.Errorf("port %d", got.Port)
			}
		})
	}
}

func TestManyUnknownVariables(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Offline = true
	for i := range 1000 {
		in.Environ = append(in.Environ, "IMMUCLIENT_"+strings.Repeat("Z", i+3)+"=1")
	}
	_, warnings := load(t, in)
	if n := len(warnings); n != mostNames+1 || warnings[n-1].Text != "984 more unknown environment variables are ignored" {
		t.Errorf("%d warnings, the last: %s", n, warnings[n-1])
	}
}

func TestMistakesOutsideOfTheFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args, environ []string
		want          string
	}{
		{[]string{"--immudb-port=abc"}, nil, `flag --immudb-port: "abc" is not a whole number from 1 to 65535; for example --immudb-port=3322`},
		{[]string{"-p", ""}, nil, `flag --immudb-port: an empty value is not a whole number from 1 to 65535; for example --immudb-port=3322`},
		{[]string{"-m=maybe"}, nil, `flag --mtls: "maybe" is neither true nor false; for example --mtls`},
		{nil, []string{"IMMUCLIENT_MTLS=yes"}, `environment variable IMMUCLIENT_MTLS: "yes" is neither true nor false; for example IMMUCLIENT_MTLS=true`},
		{nil, []string{"IMMUCLIENT_AUDIT_INTERVAL=1ms"}, `environment variable IMMUCLIENT_AUDIT_INTERVAL: "1ms" is not between 10ms and 168h; for example IMMUCLIENT_AUDIT_INTERVAL=1s`},
		{nil, []string{"audit-agent-interval=60"}, `environment variable audit-agent-interval: "60" has no unit; write audit-agent-interval=60s`},
		{nil, []string{"IMMUCLIENT_AUDIT_PASSWORD=hush\n"}, "environment variable IMMUCLIENT_AUDIT_PASSWORD: the value (not shown) has a control character (0x0a) at byte 5; for example IMMUCLIENT_AUDIT_PASSWORD=PASSWORD"},
		{nil, []string{"IMMUCLIENT_AUDIT_PASSWORD=enc:hush!"}, "environment variable IMMUCLIENT_AUDIT_PASSWORD: the value (not shown) begins with enc: but is not base64 after it; for example IMMUCLIENT_AUDIT_PASSWORD=PASSWORD"},
		{nil, []string{"IMMUCLIENT_DIR=\xff"}, `environment variable IMMUCLIENT_DIR: "\xff" is not UTF-8 text; for example IMMUCLIENT_DIR=/var/lib/immuclient`},
		{[]string{"--audit-databases=a b"}, nil, `flag --audit-databases: "a b" holds "a b", which is not the name of a database (1 to 128 bytes, no spaces, $ only at the end for an exact name); for example --audit-databases=defaultdb`},
		{[]string{"--audit-username=u"}, nil, `flag --audit-username: "u" is given without a password, and an auditor cannot ask for one; set IMMUCLIENT_AUDIT_PASSWORD or IMMUCLIENT_AUDIT_PASSWORD_FILE, or write audit-password = "PASSWORD" in immuclient.toml`},
		{[]string{"--config=nowhere.toml"}, nil, `flag --config: "nowhere.toml" cannot be read: no such file or directory; name a TOML file that this user can read`},
		{nil, []string{"IMMUCLIENT_CONFIG=."}, `environment variable IMMUCLIENT_CONFIG: "." cannot be read: is a directory; name a TOML file that this user can read`},
		{[]string{"--dir", "~/x"}, nil, `flag --dir: "~/x" begins with ~ but no home directory is known; for example --dir=/var/lib/immuclient`},
		{[]string{"-a", "db:1", "-p", "2"}, nil, `flag --immudb-address: "db:1" names port 1, but flag --immudb-port says 2; write --immudb-address=db`},
		{[]string{"--audit-notification-url", "http://u:hush@/"}, nil, `flag --audit-notification-url: the value (not shown) is not an absolute http or https URL; for example --audit-notification-url=https://alerts.example.org/immudb`},
		{[]string{"--revision-separator", strings.Repeat("x", 17)}, nil, `flag --revision-separator: "xxxxxxxxxxxxxxxxx" is longer than 16 bytes; for example --revision-separator=@`},
	} {
		in := quiet(t)
		in.Flags, in.Environ = flags(t, c.args...), c.environ
		got, _, err := Load(in)
		if err == nil || err.Error() != c.want || got != nil {
			t.Errorf("%v %v: %v\nwant %s", c.args, c.environ, err, c.want)
		}
	}
}

func TestInterval(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file, variable, flag string
		want                 time.Duration
		from                 string
	}{
		{"", "", "", 60 * time.Second, "environment variable audit-agent-interval"},
		{"2s", "", "", 2 * time.Second, "F:1:1"},
		{"2s", "3s", "", 3 * time.Second, "environment variable IMMUCLIENT_AUDIT_INTERVAL"},
		{"2s", "3s", "4s", 4 * time.Second, "flag --audit-interval"},
		{"", "3s", "", 3 * time.Second, "environment variable IMMUCLIENT_AUDIT_INTERVAL"},
		{"", "", "4s", 4 * time.Second, "flag --audit-interval"},
	} {
		in := quiet(t)
		in.Offline = true
		path := filepath.Join(in.WorkDir, "immuclient.toml")
		if c.file != "" {
			write(t, path, `audit-interval = "`+c.file+`"`)
		}
		in.Environ = []string{"audit-agent-interval=1m", "IMMUCLIENT_AUDIT_INTERVAL=" + c.variable}
		if c.flag != "" {
			in.Flags = flags(t, "--audit-interval", c.flag)
		}
		got, _ := load(t, in)
		if from := strings.Replace(got.Provenance("audit-interval"), path, "F", 1); got.Audit.Interval != c.want || from != c.from {
			t.Errorf("%+v: %s from %s", c, got.Audit.Interval, from)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	const (
		standard = "no user name is given for auditing: logging in as immudb with its well-known default password; give --audit-username and IMMUCLIENT_AUDIT_PASSWORD of a user with read permission"
		nameless = "a password but no user name is given for auditing: logging in as immudb; give --audit-username"
	)
	for _, c := range []struct {
		auditUser, auditPassword, user, password string // as variables
		wantUser, wantPassword, warning          string // wantUser "" = refused
		from                                     string
	}{
		{"", "", "", "", "immudb", "immudb", standard, "default"},
		{"a", "ap", "", "", "a", "ap", "", "environment variable IMMUCLIENT_AUDIT_USERNAME"},
		{"a", "ap", "u", "p", "a", "ap", "", "environment variable IMMUCLIENT_AUDIT_USERNAME"},
		{"", "", "u", "p", "u", "p", "", "environment variable IMMUCLIENT_USERNAME"},
		{"", "ap", "u", "p", "u", "ap", "", "environment variable IMMUCLIENT_USERNAME"},
		{"", "ap", "", "", "immudb", "ap", nameless, "default"},
		{"", "", "", "p", "immudb", "p", nameless, "default"},
		{"a", "", "", "p", "a", "p", "", "environment variable IMMUCLIENT_AUDIT_USERNAME"},
		{"a", "", "a", "p", "a", "p", "", "environment variable IMMUCLIENT_AUDIT_USERNAME"},
		{"a", "", "u", "p", "", "", "", ""}, // the password is another user's
		{"a", "", "", "", "", "", "", ""},
		{"", "", "u", "", "", "", "", ""},
		{"enc:YQ==", "enc:YXA=", "", "", "a", "ap", "", "environment variable IMMUCLIENT_AUDIT_USERNAME"},
		{"", "", "u", "enc:cA==", "u", "p", "", "environment variable IMMUCLIENT_USERNAME"},
	} {
		in := quiet(t)
		in.Environ = []string{"IMMUCLIENT_AUDIT_USERNAME=" + c.auditUser, "IMMUCLIENT_AUDIT_PASSWORD=" + c.auditPassword,
			"IMMUCLIENT_USERNAME=" + c.user, "IMMUCLIENT_PASSWORD=" + c.password}
		got, warnings, err := Load(in)
		if c.wantUser == "" {
			if err == nil || !strings.Contains(err.Error(), "is given without a password") {
				t.Errorf("%+v: %v", c, err)
			}
			in.Offline = true
			if _, warnings, err := Load(in); err != nil || len(warnings) > 0 {
				t.Errorf("%+v: offline: %v %v", c, warnings, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if got.Audit.Username != c.wantUser || got.Audit.Password != c.wantPassword || texts(warnings) != c.warning || got.Provenance("audit-username") != c.from {
			t.Errorf("%+v: %s %s from %s; %s", c, got.Audit.Username, got.Audit.Password, got.Provenance("audit-username"), texts(warnings))
		}
	}
	// An empty password that was typed is one.
	in := quiet(t)
	in.Flags = flags(t, "--audit-username=u", "--audit-password=")
	if got, _ := load(t, in); got.Audit.Username != "u" || got.Audit.Password != "" {
		t.Errorf("%v", got)
	}
}

func TestEncodedPassword(t *testing.T) {
	t.Parallel()
	for _, plain := range []string{"", "p", `pä"ss$w:rd`, "enc:twice", strings.Repeat("x", 500)} {
		if got, err := DecodePassword(EncodePassword(plain)); err != nil || got != plain {
			t.Errorf("%q: %q, %v", plain, got, err)
		}
	}
	if got, err := DecodePassword("enc:cA"); err != nil || got != "p" {
		t.Errorf("without padding: %q, %v", got, err)
	}
	if got, err := DecodePassword("plain"); err != nil || got != "plain" {
		t.Errorf("plain: %q, %v", got, err)
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		address, file string
		target        string
		server        string
		warning       string
	}{
		{"db", "", "db:3322", "db:3322", ""},
		{"DB.Example.ORG.", "", "DB.Example.ORG.:3322", "db.example.org:3322", ""},
		{"db:4422", "", "db:4422", "db:4422", ""},
		{"db:4422", "immudb-port = 5522", "db:4422", "db:4422", ""}, // the flag beats the file
		{"::1", "", "[::1]:3322", "[::1]:3322", ""},
		{"[::1]", "", "[::1]:3322", "[::1]:3322", ""},
		{"[2001:DB8:0::1]:4422", "", "[2001:DB8:0::1]:4422", "[2001:db8::1]:4422", ""},
		{"::ffff:10.0.0.1", "", "[::ffff:10.0.0.1]:3322", "10.0.0.1:3322", ""},
		{"fe80::1%eth0", "", "[fe80::1%eth0]:3322", "[fe80::1%eth0]:3322", ""},
		{"my_db", "", "my_db:3322", "my_db:3322", ""},
	} {
		in := quiet(t)
		in.Offline = true
		write(t, filepath.Join(in.WorkDir, "immuclient.toml"), c.file)
		in.Flags = flags(t, "-a", c.address)
		got, warnings := load(t, in)
		if got.Target() != c.target || got.Audit.Server != c.server || texts(warnings) != c.warning {
			t.Errorf("%s: %s, server %s; %s", c.address, got.Target(), got.Audit.Server, texts(warnings))
		}
	}

	in := quiet(t)
	in.Offline = true
	path := filepath.Join(in.WorkDir, "immuclient.toml")
	write(t, path, `immudb-address = "db:4422"`)
	in.Flags = flags(t, "-p", "5522")
	if got, warnings := load(t, in); got.Target() != "db:5522" || texts(warnings) != "port 4422 in the address db:4422 is not used: flag --immudb-port says 5522" {
		t.Errorf("%s; %s", got.Target(), texts(warnings))
	}
	in.Flags = flags(t)
	if got, _ := load(t, in); got.Provenance("immudb-port") != path+":1:1" {
		t.Errorf("port from %s", got.Provenance("immudb-port"))
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args    []string
		ca      string
		cert    string
		warning string
	}{
		{[]string{"--tls"}, "", "", ""},
		{[]string{"--tls", "--clientcas=ca.pem"}, "ca.pem", "", ""},
		{[]string{"--mtls", "--certificate=c.pem"}, "./tools/mtls/2_intermediate/certs/ca-chain.cert.pem", "c.pem", ""},
		{[]string{"--mtls", "--tls", "--certificate=c.pem", "--clientcas=ca.pem"}, "ca.pem", "c.pem", ""},
		{[]string{"--tls", "--pkey=k.pem"}, "", "", "flag --pkey is not used: a client certificate needs --mtls"},
		{[]string{"--clientcas=ca.pem"}, "", "", "flag --clientcas is not used and the connection is not encrypted: give --tls or --mtls"},
	} {
		in := quiet(t)
		in.Offline = true
		in.Flags = flags(t, c.args...)
		got, warnings := load(t, in)
		cert, _ := got.ClientCertificate()
		if got.CAFile() != c.ca || cert != c.cert || texts(warnings) != c.warning {
			t.Errorf("%v: CA %q, certificate %q; %s", c.args, got.CAFile(), cert, texts(warnings))
		}
	}
}

func TestExposedSecrets(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Flags = flags(t, "--audit-username=u", "--audit-password=p", "--audit-notification-url=https://a:b@c.example/")
	_, warnings := load(t, in)
	if got := texts(warnings); got != "secrets on the command line are visible to every user of this machine in the list of processes: --audit-notification-url (use IMMUCLIENT_AUDIT_NOTIFICATION_URL or the file), --audit-password (use IMMUCLIENT_AUDIT_PASSWORD or the file)" {
		t.Error(got)
	}

	in = quiet(t)
	path := filepath.Join(in.WorkDir, "immuclient.toml")
	write(t, path, "audit-username='u'\naudit-password='p'\n")
	if err := os.Chmod(path, 0o646); err != nil {
		t.Fatal(err)
	}
	_, warnings = load(t, in)
	if got := strings.ReplaceAll(texts(warnings), path, "F"); got != "F can be changed by every user of this machine, who can thus turn the auditor away; chmod o-w it\n"+
		"F holds secrets (audit-password) and every user of this machine can read it; chmod o-r it" {
		t.Error(got)
	}
}

func TestOtherWarnings(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--audit-interval=3m":                   "one failed round will raise an alert: --audit-stale-after (5m) is shorter than two times --audit-interval (3m)",
		"--audit-notification-username=auditor": "credentials for notifications are given but no notification is sent: --audit-notification-url is missing",
	} {
		in := quiet(t)
		in.Offline = true
		in.Flags = flags(t, arg)
		if _, warnings := load(t, in); texts(warnings) != want {
			t.Errorf("%s: %s", arg, texts(warnings))
		}
	}
}

func TestStateDir(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/tmp", link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		args      []string
		environ   []string
		home      string
		root      bool
		want      string
		temporary bool
	}{
		{name: "root", root: true, home: "/root", want: "/var/lib/immuclient"},
		{name: "root never looks at XDG", root: true, environ: []string{"XDG_STATE_HOME=/x"}, want: "/var/lib/immuclient"},
		{name: "user", home: "/home/me", want: "/home/me/.local/state/immuclient"},
		{name: "XDG", home: "/home/me", environ: []string{"XDG_STATE_HOME=/x"}, want: "/x/immuclient"},
		{name: "relative XDG is none", home: "/home/me", environ: []string{"XDG_STATE_HOME=x"}, want: "/home/me/.local/state/immuclient"},
		{name: "no home", want: "/var/lib/immuclient"},
		{name: "dir", root: true, args: []string{"--dir=/srv/a"}, want: "/srv/a"},
		{name: "roots-filepath beats dir", args: []string{"--dir=/srv/a", "--roots-filepath=/srv/b/"}, want: "/srv/b/"},
		{name: "empty is not given", root: true, args: []string{"--dir=", "--roots-filepath="}, want: "/var/lib/immuclient"},
		{name: "relative", args: []string{"--dir=a"}, want: "/work/dir/a"},
		{name: "tmp", args: []string{"--roots-filepath=/tmp/"}, want: "/tmp/", temporary: true},
		{name: "below tmp", args: []string{"--dir=/var/../tmp/x/y"}, want: "/var/../tmp/x/y", temporary: true},
		{name: "TMPDIR", environ: []string{"TMPDIR=/scratch"}, args: []string{"--dir=$TMPDIR/x"}, want: "/scratch/x", temporary: true},
		{name: "beside tmp", args: []string{"--dir=/tmpfiles"}, want: "/tmpfiles"},
		{name: "link to tmp", args: []string{"--dir=" + link + "/new/er"}, want: link + "/new/er", temporary: true},
		{name: "TMPDIR is the root", environ: []string{"TMPDIR=/"}, args: []string{"--dir=/srv/a"}, want: "/srv/a"},
	} {
		in := Input{WorkDir: "/work/dir", Home: c.home, Root: c.root, Environ: c.environ, Flags: flags(t, c.args...), Offline: true, EtcPaths: []string{}}
		got, _ := load(t, in)
		if dir, temporary := got.StateDir(); dir != c.want || temporary != c.temporary {
			t.Errorf("%s: %s, temporary %v", c.name, dir, temporary)
		}
	}
}

func TestLedgerFilter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		databases, database string
		yes, no             string
		exact, named        []string
		all                 bool
	}{
		{"", "", "defaultdb x", "systemdb", nil, nil, true},
		{"cust,log$", "", "cust customers log", "logs defaultdb systemdb acust", []string{"cust", "log"}, []string{"log"}, false},
		{" a , ,b$,, a ", "", "a ab b", "bb", []string{"a", "b"}, []string{"b"}, false},
		{"", "defaultdb", "defaultdb", "defaultdb2 x systemdb", []string{"defaultdb"}, []string{"defaultdb"}, false},
		{"a", "defaultdb", "a ab", "defaultdb", []string{"a"}, nil, false},
		{"sys", "", "sys system", "systemdb", []string{"sys"}, nil, false},
		{"systemdb", "", "systemdb", "systemdb2 a", []string{"systemdb"}, []string{"systemdb"}, false},
		{"systemdb$,a", "", "systemdb a", "systemdb2", []string{"systemdb", "a"}, []string{"systemdb"}, false},
		{"", "systemdb", "systemdb", "a", []string{"systemdb"}, []string{"systemdb"}, false},
		{"a,a$", "", "a ab", "b", []string{"a"}, []string{"a"}, false},
	} {
		in := quiet(t)
		in.Offline = true
		in.Flags = flags(t, "--audit-databases="+c.databases, "--database="+c.database)
		cfg, _ := load(t, in)
		f := cfg.LedgerFilter()
		for _, name := range strings.Fields(c.yes) {
			if !f.Match(name) {
				t.Errorf("%q %q: not %s", c.databases, c.database, name)
			}
		}
		for _, name := range append(strings.Fields(c.no), "") {
			if f.Match(name) {
				t.Errorf("%q %q: %q", c.databases, c.database, name)
			}
		}
		if exact, named := f.Exact(), f.Named(); !equal(exact, c.exact) || !equal(named, c.named) || f.All() != c.all {
			t.Errorf("%q %q: exact %q named %q all %v", c.databases, c.database, exact, named, f.All())
		}
	}
	if !(Filter{}).Match("x") || (Filter{}).Match("systemdb") || !(Filter{}).All() {
		t.Error("the zero Filter does not take all")
	}
}

func equal(a, b []string) bool { return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b) }

func TestNearest(t *testing.T) {
	t.Parallel()
	known := settingNames(table())
	for name, want := range map[string]string{
		"immudb-prot": "immudb-port", "audit-database": "audit-databases", "audit_interval": "audit-interval", "interval": "audit-interval",
		"web-config-file": "web.config.file", "mlts": "mtls", "tsl": "tls", "host": "immudb-address", "x": "", "": "", "verbose": "",
		strings.Repeat("a", 1<<16): "", "sevrername": "servername",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("%.20s: %q, want %q", name, got, want)
		}
	}
}

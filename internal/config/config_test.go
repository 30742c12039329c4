package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("immuclient", pflag.ContinueOnError)
	Register(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, in Input) (*Config, []Warning) {
	t.Helper()
	c, warnings, err := Load(in)
	if err != nil {
		t.Fatal(err)
	}
	return c, warnings
}

// texts joins warnings for comparison.
func texts(warnings []Warning) string {
	var all []string
	for _, w := range warnings {
		all = append(all, w.Text)
	}
	return strings.Join(all, "\n")
}

// settled is a Config without what it remembers of where it came from.
func settled(c *Config) Config {
	s := *c
	s.origins, s.host, s.contents, s.paths = nil, host{}, nil, nil
	return s
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Flags = flags(t)
	c, warnings := load(t, in)
	want := Config{
		Address: "127.0.0.1", Port: 3322, MaxRecvMsgSize: 4194304, RevisionSeparator: "@", LogFormat: "text",
		Certificate: "./tools/mtls/4_client/certs/localhost.cert.pem",
		PKey:        "./tools/mtls/4_client/private/localhost.key.pem",
		ClientCAs:   "./tools/mtls/2_intermediate/certs/ca-chain.cert.pem",
		Audit: Auditor{
			Server: "127.0.0.1:3322", Interval: time.Second, MonitoringHost: "0.0.0.0", MonitoringPort: 9477,
			NotificationOn: "tamper", Username: "immudb", Password: "immudb",
			WalkLimit: 10000, WalkRate: 20000, StaleAfter: 5 * time.Minute, Mirror: true, ClockSkew: 10 * time.Minute, ScrubText: "168h", VerifyMemory: 256,
		},
	}
	if got := settled(c); !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v\nwant %#v", got, want)
	}
	if got := texts(warnings); got != "no user name is given for auditing: logging in as immudb with its well-known default password; give --audit-username and IMMUCLIENT_AUDIT_PASSWORD of a user with read permission" {
		t.Errorf("warnings:\n%s", got)
	}
	if c.Target() != "127.0.0.1:3322" || c.CAFile() != "" || c.Provenance("dir") != "default" {
		t.Errorf("target %s, CA %q, provenance %s", c.Target(), c.CAFile(), c.Provenance("dir"))
	}
}

func TestEveryKey(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/every-key.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Settings() {
		if s.File && !strings.Contains(string(data), "\n"+s.Name+" = ") {
			t.Errorf("testdata/every-key.toml lacks %s", s.Name)
		}
	}
	in := quiet(t)
	in.Home = "/home/me"
	in.EtcPaths = []string{filepath.Join(in.WorkDir, "etc", "immuclient.toml")}
	write(t, in.EtcPaths[0], string(data))
	c, warnings := load(t, in)
	want := Config{
		ConfigFile: in.EtcPaths[0],
		Address:    "db.example.org", Port: 4422, ServerName: "immudb.internal", TLS: true, MTLS: true,
		Certificate: "/home/me/cert.pem", PKey: "/home/me/key.pem", ClientCAs: "/home/me/$ca.pem",
		MaxRecvMsgSize: 8388608, SigningKeyFile: "/etc/immudb/signing.pem",
		Dir: "/srv/immuclient", RootsFilepath: "/srv/roots",
		Database: "defaultdb", Username: "me", Password: "hush-1", TokenFile: "/home/me/token",
		ValueOnly: true, RevisionSeparator: "#", LogFile: "/var/log/immuclient.log", PidFile: "/run/immuclient.pid", LogFormat: "json",
		Audit: Auditor{
			Server: "production", Databases: []string{"customers$", "log", "systemdb"}, Interval: 250 * time.Millisecond,
			MonitoringHost: "::1", MonitoringPort: 0,
			NotificationURL: "https://me:hush-2@alerts.example.org/hook?token=hush-3", NotificationUsername: "auditor", NotificationPassword: "hush-4", NotificationOn: "always",
			Username: "auditor", Password: "hush-5", VerifyValues: true, ScrubText: "5MB/s", VerifyRate: 7, VerifyMemory: 64, VerifyExport: true, WalkLimit: 0, WalkRate: 500, StaleAfter: time.Hour,
			ExpectGrowth: 2 * time.Hour, ClockSkew: time.Minute, Mirror: false, StateGuard: "/mnt/guard",
			ProbeAddress: ":9478", WebConfigFile: "/etc/immuclient/web.yml",
		},
	}
	if got := settled(c); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
		t.Errorf("passwords %q %q %q", got.Password, got.Audit.Password, got.Audit.NotificationPassword)
	}
	if got := texts(warnings); got != "--database defaultdb is not looked at: --audit-databases says what is audited" {
		t.Errorf("warnings:\n%s", got)
	}
	if got, want := c.Provenance("web.config.file"), in.EtcPaths[0]+":51:1"; got != want {
		t.Errorf("provenance %s, want %s", got, want)
	}
	if cert, key := c.ClientCertificate(); cert != c.Certificate || key != c.PKey || c.CAFile() != c.ClientCAs {
		t.Errorf("mutual TLS uses %q %q %q", cert, key, c.CAFile())
	}
}

// The file that the original installs must keep working as it is.
func TestFileOfTheOriginal(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	data, err := os.ReadFile("testdata/original.toml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(in.WorkDir, "immuclient.toml")
	write(t, path, string(data))
	c, warnings := load(t, in)
	want := "P:2:1: address means nothing to an auditor and is ignored (the server is immudb-address)\n" +
		"P:3:1: port means nothing to an auditor and is ignored (the port of the server is immudb-port)\n" +
		"P:9:1: detached means nothing to an auditor and is ignored"
	if got := strings.ReplaceAll(texts(warnings), path, "P"); got != want {
		t.Errorf("warnings:\n%s", got)
	}
	if c.Dir != "/var/lib/immuclient" || c.ServerName != "localhost" || c.Audit.Password != "immudb" || c.CAFile() != "" || c.MTLS {
		t.Errorf("%v", c)
	}
}

// Three valid values of every setting, as typed in a file, a variable and a flag.
var three = map[string][3]string{
	"immudb-address": {"a.example", "b.example", "c.example"}, "immudb-port": {"1001", "1002", "1003"},
	"database": {"one", "two", "three"}, "username": {"u1", "u2", "u3"}, "password": {"p1", "p2", "p3"},
	"tokenfile": {"/t1", "/t2", "/t3"}, "value-only": {"true", "false", "true"}, "revision-separator": {"#", "%", "+"},
	"dir": {"/d1", "/d2", "/d3"}, "roots-filepath": {"/r1", "/r2", "/r3"}, "max-recv-msg-size": {"100001", "100002", "100003"},
	"tls": {"true", "false", "true"}, "mtls": {"true", "false", "true"}, "servername": {"s1", "s2", "s3"},
	"certificate": {"/c1", "/c2", "/c3"}, "pkey": {"/k1", "/k2", "/k3"}, "clientcas": {"/ca1", "/ca2", "/ca3"},
	"server-signing-pub-key": {"/s1", "/s2", "/s3"}, "logfile": {"/l1", "/l2", ""}, "pidfile": {"/p1", "/p2", ""},
	"log-format": {"json", "text", "json"}, "audit-databases": {"a", "b,c$", "d"},
	"audit-monitoring-host": {"h1", "h2", "h3"}, "audit-monitoring-port": {"2001", "2002", "0"},
	"audit-notification-url":      {"http://n1.example/", "http://n2.example/", "http://n3.example/"},
	"audit-notification-username": {"n1", "n2", "n3"}, "audit-notification-password": {"q1", "q2", "q3"},
	"audit-username": {"a1", "a2", "a3"}, "audit-password": {"w1", "w2", "w3"}, "audit-verify-values": {"true", "false", "true"},
	"audit-interval": {"2s", "3s", "4s"}, "audit-server": {"x1", "x2", "x3"}, "audit-walk-limit": {"1", "2", "0"},
	"audit-walk-rate": {"1", "2", "3"}, "audit-stale-after": {"1h", "2h", "3h"}, "audit-notification-on": {"always", "tamper", "always"},
	"audit-scrub": {"1h", "5MB/s", "off"}, "verify-rate": {"1", "2", "3"}, "verify-memory": {"64", "65", "66"}, "verify-export": {"true", "false", "true"},
	"audit-expect-growth": {"1h", "2h", "3h"}, "audit-clock-skew": {"1h", "2h", "3h"}, "audit-mirror": {"false", "true", "false"}, "state-guard": {"/g1", "/g2", "/g3"},
	"audit-probe-address": {":1", ":2", ":3"}, "web.config.file": {"/w1", "/w2", "/w3"},
	"json": {"", "true", "false"}, "once": {"", "true", "false"}, "check-config": {"", "true", "false"},
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		if s.name == "config" {
			continue // TestLookup
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			values, ok := three[s.name]
			if !ok {
				t.Fatal("no values to test with")
			}
			in := quiet(t)
			in.Offline = true
			path := filepath.Join(in.WorkDir, "immuclient.toml")
			check := func(want, from string) {
				t.Helper()
				c, _ := load(t, in)
				if got := s.current(c); got != want {
					t.Errorf("from %s: %q, want %q", from, got, want)
				}
				if got := c.Provenance(s.name); got != from {
					t.Errorf("provenance %q, want %q", got, from)
				}
			}
			if !s.here {
				write(t, path, s.name+" = "+tomlValue(s.kind, values[0])+"\n")
				check(values[0], path+":1:1")
			}
			in.Environ = []string{s.variable() + "="}
			if !s.here {
				check(values[0], path+":1:1")
			}
			in.Environ = []string{s.variable() + "=" + values[1]}
			check(values[1], "environment variable "+s.variable())
			in.Flags = flags(t, "--"+s.name+"="+values[2])
			check(values[2], "flag --"+s.name)
			// A mistake is one even where something stronger overrides it.
			if s.kind == number && !s.here {
				write(t, path, s.name+" = -7\n")
				if _, _, err := Load(in); err == nil || !strings.Contains(err.Error(), s.name+`: "-7" is not a whole number`) {
					t.Errorf("overridden mistake: %v", err)
				}
			}
		})
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/every-key.toml")
	if err != nil {
		t.Fatal(err)
	}
	in := quiet(t)
	in.Home = "/home/me"
	write(t, filepath.Join(in.WorkDir, "immuclient.toml"), string(data))
	c, _ := load(t, in)
	shows := map[string]string{"String": c.String(), "Redacted": c.Redacted()}
	for _, v := range []any{c, *c, c.Audit, &c.Audit, struct{ C *Config }{c}, struct{ C Config }{*c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			shows[fmt.Sprintf("%T %s", v, verb)] = fmt.Sprintf(verb, v)
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shows[fmt.Sprintf("%T JSON", v)] = string(j)
		var text, lines bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&lines, nil)).Info("m", "v", v)
		shows[fmt.Sprintf("%T slog", v)] = text.String() + lines.String()
	}
	for how, shown := range shows {
		if strings.Contains(shown, "hush") || strings.Contains(shown, "enc:") || strings.Contains(shown, "aHVzaC01") {
			t.Errorf("%s: %s", how, shown)
		}
	}
	if !strings.Contains(c.String(), "audit-notification-url=https://xxxxx@alerts.example.org/hook?xxxxx ") || !strings.Contains(c.String(), "immudb-port=4422") {
		t.Errorf("%s", c)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, g := range []Group{General, Audit, Output, Rounds} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		fs.SortFlags = false
		Register(fs, g)
		b.WriteString(fs.FlagUsages() + "\n")
	}
	golden(t, "testdata/help.txt", b.String())
}

func TestSample(t *testing.T) {
	t.Parallel()
	golden(t, "../../deploy/immuclient.toml", string(Sample())) // -update writes it

	in := quiet(t)
	in.Offline = true
	path := filepath.Join(in.WorkDir, "immuclient.toml")
	plain, _ := load(t, in)
	write(t, path, string(Sample()))
	commented, _ := load(t, in)

	// With every default uncommented the file says the same.
	var active []string
	for line := range strings.Lines(string(Sample())) {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			line = line[1:]
		}
		active = append(active, line)
	}
	write(t, path, strings.Join(active, ""))
	uncommented, _ := load(t, in)
	for _, s := range table() {
		if !s.here && !uncommented.isGiven(s.name) && s.value != "" {
			t.Errorf("%s is not in the sample", s.name)
		}
	}
	for what, c := range map[string]*Config{"commented": commented, "uncommented": uncommented} {
		c.ConfigFile = ""
		if !reflect.DeepEqual(settled(c), settled(plain)) {
			t.Errorf("%s: %v\nwant %v", what, c, plain)
		}
	}
}

// A service started with the rendered file does what the command line did.
func TestSampleOfAConfig(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Flags = flags(t, "-a", "[2001:db8::1]:4422", "-m", "--certificate", "cert.pem", "--pkey=$$key.pem", "--dir", "state", "--audit-databases", "a$",
		"--audit-databases", "b", "--audit-interval=2s", "--audit-username", "enc:YXVkaXRvcg==", `--audit-password=p"w\d`, "--audit-walk-limit=0", "--once", "--json=0")
	in.Environ = []string{"IMMUCLIENT_TLS=1", "IMMUCLIENT_LOGFILE=log"}
	before, _ := load(t, in)

	again := quiet(t)
	write(t, filepath.Join(again.WorkDir, "immuclient.toml"), string(before.Sample()))
	after, warnings := load(t, again)
	want := settled(before)
	want.ConfigFile = after.ConfigFile
	want.Certificate = filepath.Join(in.WorkDir, "cert.pem")
	want.PKey = filepath.Join(in.WorkDir, "$key.pem")
	want.Dir = filepath.Join(in.WorkDir, "state")
	want.LogFile = filepath.Join(in.WorkDir, "log")
	want.Audit.Once = false
	if got := settled(after); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v %q\nwant %v %q", after, after.Audit.Password, &want, want.Audit.Password)
	}
	if want.Address != "2001:db8::1" || want.Port != 4422 || want.Audit.Server != "[2001:db8::1]:4422" || want.Audit.Username != "auditor" || !want.TLS {
		t.Errorf("before: %v", before)
	}
	if len(warnings) != 0 {
		t.Errorf("warnings: %s", texts(warnings))
	}
}

func TestFlagError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ arg, want string }{
		{"--immudb-adress=x", "flag --immudb-adress: unknown flag; did you mean --immudb-address?"},
		{"--audit-agent-interval=1s", "flag --audit-agent-interval: unknown flag; did you mean --audit-interval?"},
		{"--notification-url=x", "flag --notification-url: unknown flag; did you mean --audit-notification-url?"},
		{"--AUDIT_USERNAME=x", "flag --AUDIT_USERNAME: unknown flag; did you mean --audit-username?"},
		{"--colour", "flag --colour: unknown flag; --help lists the flags"},
		{"--audit-interval", "flag --audit-interval: has no value; for example --audit-interval=1s"},
		{"-p", "flag --immudb-port: has no value; for example --immudb-port=3322"},
		{"-zx", `flag -"zx": holds an unknown short form; a long flag begins with two dashes; --help lists the flags`},
		{"--=x", `flag "--=x": is not written as --name=value; --help lists the flags`},
		{"--" + strings.Repeat("y\n", 100), `flag --"` + strings.Repeat(`y\n`, 40) + `"…: unknown flag; --help lists the flags`},
	} {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		Register(fs)
		err := FlagError(fs, fs.Parse([]string{c.arg}))
		var e *Error
		if !errors.As(err, &e) || err.Error() != c.want {
			t.Errorf("%s: %v\nwant %s", c.arg, err, c.want)
		}
	}
	if err := FlagError(nil, nil); err != nil {
		t.Error(err)
	}
	if err := FlagError(nil, pflag.ErrHelp); !errors.Is(err, pflag.ErrHelp) {
		t.Error(err)
	}
}

func TestRegisterTwice(t *testing.T) {
	t.Parallel()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Register(fs, Output)
	Register(fs)
	if fs.Lookup("json") == nil || fs.Lookup("web.config.file") == nil || fs.ShorthandLookup("a").Name != "immudb-address" ||
		fs.ShorthandLookup("p").Name != "immudb-port" || fs.ShorthandLookup("m").Name != "mtls" {
		t.Error("flags are missing")
	}
}

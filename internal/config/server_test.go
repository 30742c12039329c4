package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fleet is an Input whose file is testdata/fleet.toml, and the path of that file.
func fleet(t *testing.T) (Input, string) {
	t.Helper()
	data, err := os.ReadFile("testdata/fleet.toml")
	if err != nil {
		t.Fatal(err)
	}
	in := quiet(t)
	in.Home = "/home/me"
	path := filepath.Join(in.WorkDir, "immuclient.toml")
	write(t, path, string(data))
	write(t, filepath.Join(in.WorkDir, "billing.password"), "hush-billing\n")
	write(t, filepath.Join(in.WorkDir, "webhook.secret"), "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")
	return in, path
}

// tagged is what a written file gives of a [[server]] with the lines of text.
func tagged(t *testing.T, text string) (*Config, []Warning, error) {
	t.Helper()
	in := quiet(t)
	write(t, filepath.Join(in.WorkDir, "immuclient.toml"), text)
	return Load(in)
}

func TestServers(t *testing.T) {
	t.Parallel()
	in, path := fleet(t)
	c, warnings := load(t, in)
	if len(warnings) > 0 {
		t.Errorf("warnings: %s", texts(warnings))
	}
	if !c.Fleet() || len(c.Servers()) != 3 {
		t.Fatalf("%d servers", len(c.Servers()))
	}
	orders, billing, plain := c.Servers()[0], c.Servers()[1], c.Servers()[2]
	want := settled(c)
	want.servers, want.tables = nil, nil
	want.Address, want.Port, want.ServerName, want.TLS, want.MTLS = "orders.example.org", 4433, "orders.internal", false, true
	want.Certificate, want.PKey, want.ClientCAs, want.SigningKeyFile = "/home/me/cert.pem", "key.pem", "/etc/orders-ca.pem", "/etc/orders.pem"
	want.MaxRecvMsgSize = 8388608
	a := &want.Audit
	a.Server, a.Databases, a.Interval, a.StaleAfter, a.ExpectGrowth, a.ClockSkew = "orders", []string{"a$", "b"}, 7*time.Second, time.Hour, 2*time.Hour, 3*time.Minute
	a.WalkRate, a.ScrubText, a.VerifyValues, a.VerifyRate, a.Tags = 11, "5MB/s", true, 12, []string{"production", "eu"}
	a.Username, a.Password = "auditor", "hush-orders"
	got := settled(orders)
	got.secrets, want.secrets = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", &got, &want)
	}
	for _, s := range []struct {
		*Config
		target, name, user, password, databases, ca string
		tls                                         bool
	}{
		{billing, "billing.example.org:4422", "billing", "second", "hush-billing", "c,d$", "/etc/ca.pem", true},
		{plain, "[2001:db8::1]:5566", "plain", "general", "hush-general", "common", "/etc/ca.pem", true},
	} {
		if s.Target() != s.target || s.Audit.Server != s.name || s.Audit.Username != s.user || s.Audit.Password != s.password ||
			strings.Join(s.Audit.Databases, ",") != s.databases || s.CAFile() != s.ca || s.TLS != s.tls || s.Audit.Interval != 3*time.Second || s.Fleet() || len(s.Sinks) != len(c.Sinks) {
			t.Errorf("%s: %v, password %q", s.name, s.Config, s.Audit.Password)
		}
	}
	for _, p := range []struct {
		c          *Config
		name, want string
	}{
		{orders, "immudb-address", "F:12:1"}, {orders, "audit-interval", "F:25:1"}, {billing, "audit-interval", "F:3:1"},
		{billing, "audit-password", "F:40:1"}, {plain, "immudb-port", "F:44:1"}, {plain, "audit-username", "F:5:1"}, {plain, "audit-scrub", "default"},
	} {
		if got := strings.Replace(p.c.Provenance(p.name), path, "F", 1); got != p.want {
			t.Errorf("%s of %s from %s, want %s", p.name, p.c.Audit.Server, got, p.want)
		}
	}
}

func TestOneServerIsItself(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Offline = true
	c, _ := load(t, in)
	if all := c.Servers(); c.Fleet() || len(all) != 1 || all[0] != c {
		t.Errorf("%v", all)
	}
}

func TestEveryKeyOfTheTables(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/fleet.toml")
	if err != nil {
		t.Fatal(err)
	}
	servers, sinks, _ := strings.Cut(string(data), "[[sink]]")
	_, servers, _ = strings.Cut(servers, "[[server]]")
	for part, rows := range map[string][]setting{servers: serverRows(), sinks: sinkRows()} {
		for _, s := range rows {
			if !strings.Contains(part, "\n"+s.name+" = ") {
				t.Errorf("testdata/fleet.toml lacks %s", s.name)
			}
			if s.usage == "" || s.example == "" && s.value == "" {
				t.Errorf("%s is not described", s.name)
			}
		}
	}
	sample := string(Sample())
	for _, rows := range [][]setting{serverRows(), sinkRows()} {
		for _, s := range rows {
			if s.secret || s.name == "directory" {
				continue
			}
			if !strings.Contains(sample, "\n# "+s.name+" = ") {
				t.Errorf("the sample lacks %s", s.name)
			}
		}
	}
}

// With the comments taken away, the tables of the sample are right.
func TestSampleOfTables(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Offline = true
	_, tables, _ := strings.Cut(string(sampleTables()), "# [[server]]")
	var text strings.Builder
	text.WriteString("[[server]]")
	for line := range strings.Lines(tables) {
		if strings.Contains(line, " = ") || line == "# [[sink]]\n" {
			line = strings.TrimPrefix(line, "# ")
		}
		text.WriteString(line)
	}
	written := strings.NewReplacer("/etc/immuclient/webhook.secret", "webhook.secret", "/etc/immuclient/receiver.password", "p", "/etc/immuclient/audit.password", "p").Replace(text.String())
	write(t, filepath.Join(in.WorkDir, "p"), "p")
	write(t, filepath.Join(in.WorkDir, "webhook.secret"), "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")
	write(t, filepath.Join(in.WorkDir, "immuclient.toml"), written)
	c, _ := load(t, in)
	if len(c.Servers()) != 1 || len(c.Sinks) != len(sinkTypes()) || len(c.Servers()[0].Audit.Tags) != 1 {
		t.Errorf("%v %v", c.Servers(), c.Sinks)
	}
}

// Flags and variables describe a single server: beside tables they would be of none.
func TestSingleServerBesideTables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args, environ []string
		want          string
	}{
		{[]string{"--immudb-address=x"}, nil, "flag --immudb-address"},
		{[]string{"-p", "7"}, nil, "flag --immudb-port"},
		{[]string{"--audit-server=x"}, nil, "flag --audit-server"},
		{nil, []string{"IMMUCLIENT_AUDIT_DATABASES=x"}, "environment variable IMMUCLIENT_AUDIT_DATABASES"},
	} {
		in, path := fleet(t)
		in.Flags, in.Environ = flags(t, c.args...), c.environ
		_, _, err := Load(in)
		want := c.want + ": is of a single server, but the servers are named in tables [[server]], the first at F:10:3; leave it out, or name another file with --config"
		if err == nil || strings.ReplaceAll(err.Error(), path, "F") != want {
			t.Errorf("%v\nwant %s", err, want)
		}
		// Who looks at what is remembered of a server says which.
		in.Offline = true
		if _, _, err := Load(in); err != nil {
			t.Errorf("offline: %v", err)
		}
	}
}

func TestServerBeatsFlags(t *testing.T) {
	t.Parallel()
	in, _ := fleet(t)
	in.Flags = flags(t, "--audit-interval=9s")
	c, _ := load(t, in)
	if got := []time.Duration{c.Servers()[0].Audit.Interval, c.Servers()[1].Audit.Interval}; got[0] != 7*time.Second || got[1] != 9*time.Second {
		t.Errorf("%v", got)
	}
}

func TestWarningsOfServers(t *testing.T) {
	t.Parallel()
	c, warnings, err := tagged(t, `
[[server]]
name = "a"
address = "DB.example.org"
databases = ["x$", "y"]
[[server]]
name = "b"
address = "db.example.org:3322"
databases = ["yy"]
interval = "4m"
[[server]]
name = "c"
address = "db.example.org"
databases = ["z"]
`)
	if err != nil || len(c.Servers()) != 3 {
		t.Fatal(err)
	}
	want := "no user name is given for auditing: logging in as immudb with its well-known default password; give --audit-username and IMMUCLIENT_AUDIT_PASSWORD of a user with read permission (server a, b, c)\n" +
		"one failed round will raise an alert: --audit-stale-after (5m) is shorter than two times --audit-interval (4m) (server b)\n" +
		`servers "a" and "b" have the same address db.example.org:3322 and databases in common, which are audited twice; give each its databases, or remove one`
	if got := texts(warnings); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSecretsInTablesThatOthersCanRead(t *testing.T) {
	t.Parallel()
	in, path := fleet(t)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, warnings := load(t, in)
	want := `F holds secrets (password, "password of server \"orders\"", "password of sink \"hook\"", "url of sink \"hook\"", "secret of sink \"standard\"") and every user of this machine can read it; chmod o-r it`
	if got := strings.ReplaceAll(texts(warnings), path, "F"); got != want {
		t.Errorf("got %s", got)
	}
}

// A service that is started with the rendered file does the same.
func TestTablesAreWrittenAgain(t *testing.T) {
	t.Parallel()
	in, _ := fleet(t)
	before, _ := load(t, in)
	again := quiet(t)
	write(t, filepath.Join(again.WorkDir, "immuclient.toml"), string(before.Sample()))
	after, _ := load(t, again)
	if !reflect.DeepEqual(after.Sinks, before.Sinks) {
		t.Errorf("got %v\nwant %v", after.Sinks, before.Sinks)
	}
	for i, s := range after.Servers() {
		w := before.Servers()[i]
		if w.PKey == "key.pem" {
			w.PKey = filepath.Join(in.WorkDir, "key.pem")
		}
		if !s.SameServer(w) || s.Audit.Password != w.Audit.Password {
			t.Errorf("got %v\nwant %v", s, w)
		}
	}
}

func manyServers(n int) string {
	var b strings.Builder
	b.WriteString("audit-username = 'u'\naudit-password = 'p'\n")
	for i := range n {
		fmt.Fprintf(&b, "\n[[server]]\nname = \"server-%d\"\naddress = \"db-%d.example.org:3322\"\ndatabases = [\"a$\", \"b\"]\ninterval = \"5s\"\ntags = [\"t%d\"]\n", i, i, i%10)
	}
	return b.String()
}

func TestManyServers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{manyServers(1000), ""},
		{manyServers(1001), "F: more than 1000 tables [[server]]; name the right file with --config"},
		{strings.Repeat("[[sink]]\n", 65), "F: more than 64 tables [[sink]]; name the right file with --config"},
		{"server = [" + strings.Repeat("{},", 1001) + "]", "F: more than 1000 tables [[server]]; name the right file with --config"},
		{"[[server]]\n" + strings.Repeat("a.b.c.d.e.f.g.h = 1\n", 9), "F: more than 64 keys in a table [[server]] or [[sink]], or 256 outside of them; name the right file with --config"},
		{"[[server]]\nx = {" + strings.Repeat("a = 1, ", 64) + "b = 1}", "F: more than 64 keys in a table [[server]] or [[sink]], or 256 outside of them; name the right file with --config"},
		{"[[server]]\n[server.x]\n" + strings.Repeat("a = 1\n", 64), "F: more than 64 keys in a table [[server]] or [[sink]], or 256 outside of them; name the right file with --config"},
		// The budget of the top does not begin anew behind a table.
		{strings.Repeat("[[server]]\nname = 'a'\n[x]\n"+strings.Repeat("k = 1\n", 50), 6), "F: more than 64 keys in a table [[server]] or [[sink]], or 256 outside of them; name the right file with --config"},
	} {
		in := quiet(t)
		path := filepath.Join(in.WorkDir, "immuclient.toml")
		write(t, path, c.text)
		got, _, err := Load(in)
		if c.want == "" {
			if err != nil || len(got.Servers()) != 1000 || got.Servers()[999].Provenance("audit-interval") != path+":7001:1" {
				t.Errorf("%v %s", err, got.Servers()[999].Provenance("audit-interval"))
			}
			continue
		}
		if err == nil || strings.ReplaceAll(err.Error(), path, "F") != c.want {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}

func BenchmarkLoadThousandServers(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "immuclient.toml"), []byte(manyServers(1000)), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Load(Input{WorkDir: dir, EtcPaths: []string{}}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	filter := func(names string) Filter {
		c := Config{}
		if names != "" {
			c.Audit.Databases = strings.Split(names, ",")
		}
		return c.LedgerFilter()
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"", "x$", true}, {"x$", "x$", true}, {"x$", "xy$", false}, {"x", "xy$", true}, {"xy", "x", true}, {"x", "y", false}, {"a$,x", "b$,xy", true}, {"", "systemdb", false},
	} {
		if filter(c.a).overlaps(filter(c.b)) != c.want || filter(c.b).overlaps(filter(c.a)) != c.want {
			t.Errorf("%q and %q: not %v", c.a, c.b, c.want)
		}
	}
}

// Each table has a budget of its own, however it is written.
func TestBudgetOfInlineTables(t *testing.T) {
	t.Parallel()
	one := "{name = 'a'" + strings.Repeat(", x = {y = 1}", 20) + "}"
	if o := outlineOf([]byte("server = [" + strings.Repeat(one+",", 8) + "]")); o.problem != "" || o.at["server#2.name"] != [2]int{1, 11 + 2*(len(one)+1) + 1} {
		t.Errorf("%s, %v", o.problem, o.at["server#2.name"])
	}
}

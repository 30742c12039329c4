package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	in, path := fleet(t)
	web := filepath.Join(in.WorkDir, "web.yml")
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "p")
	in.Flags = flags(t, "--web.config.file", "web.yml")
	in.Environ = []string{"IMMUCLIENT_AUDIT_NOTIFICATION_PASSWORD_FILE=" + secret}
	c, _ := load(t, in)
	want := []string{"/etc/ca.pem", "/etc/hook-ca.pem", "/etc/orders-ca.pem", "/etc/orders.pem", "/home/me/cert.pem",
		filepath.Join(in.WorkDir, "billing.password"), path, filepath.Join(in.WorkDir, "key.pem"), web, filepath.Join(in.WorkDir, "webhook.secret")}
	got := c.Files()
	for _, name := range append(want, secret) {
		found := false
		for _, g := range got {
			found = found || g == name
		}
		if !found {
			t.Errorf("%s is missing", name)
		}
	}
	if len(got) != len(want)+1 {
		t.Errorf("got %q", got)
	}
}

// Each change of one server is seen in that one, and in no other.
func TestSameServer(t *testing.T) {
	t.Parallel()
	in, path := fleet(t)
	key := filepath.Join(in.WorkDir, "key.pem")
	write(t, key, "one")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, from, to string
		changed        []bool // by server
	}{
		{path, "", "", []bool{false, false, false}},
		{path, `name = "hook"`, `name = "other"`, []bool{false, false, false}},
		{path, "immudb-port = 4422", "immudb-port = 4423", []bool{false, true, false}},
		{path, `audit-interval = "3s"`, `audit-interval = "4s"`, []bool{false, true, true}},
		{path, "hush-general", "hush-changed", []bool{false, false, true}},
		{path, "enc:aHVzaC1vcmRlcnM=", "other", []bool{true, false, false}},
		{path, `tags = ["production", "eu", "eu"]`, `tags = ["eu"]`, []bool{true, false, false}},
		{path, `name = "plain"`, `name = "plane"`, []bool{false, false, true}},
		{path, `clientcas = "/etc/ca.pem"`, `clientcas = "/etc/cb.pem"`, []bool{false, true, true}},
		{filepath.Join(in.WorkDir, "billing.password"), "hush-billing", "hush-new", []bool{false, true, false}},
		{key, "one", "two", []bool{true, false, false}},
	} {
		before, _ := load(t, in)
		original, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(original), c.from, c.to, 1)
		if strings.Contains(c.from, `"plain"`) || strings.Contains(c.from, `"hook"`) {
			changed = strings.ReplaceAll(changed, `servers = ["orders", "plain"]`, `servers = ["orders"]`)
		}
		write(t, c.file, changed)
		after, _ := load(t, in)
		for i, want := range c.changed {
			if got := !after.Servers()[i].SameServer(before.Servers()[i]); got != want {
				t.Errorf("%q to %q: server %d changed: %v", c.from, c.to, i, got)
			}
		}
		if fixed := after.Fixed(before); len(fixed) > 0 {
			t.Errorf("%q to %q: needs a restart: %v", c.from, c.to, fixed)
		}
		write(t, c.file, string(original))
	}
	write(t, path, string(text))
}

// Every setting is of the server, fixed, of the sinks, of the general client, or of one run.
func TestWhatAReloadChanges(t *testing.T) {
	t.Parallel()
	neither := map[string]bool{"config": true, "username": true, "password": true, "tokenfile": true, "value-only": true, "revision-separator": true,
		"json": true, "once": true, "check-config": true, "certificate": true, "pkey": true}
	for _, s := range table() {
		if s.name == "config" {
			continue
		}
		in := quiet(t)
		in.Environ = []string{"IMMUCLIENT_AUDIT_USERNAME=u", "IMMUCLIENT_AUDIT_PASSWORD=p", "IMMUCLIENT_TLS=true"}
		before, _ := load(t, in)
		value := three[s.name][1]
		if value == s.value || s.name == "tls" {
			value = three[s.name][0]
		}
		if s.name == "tls" {
			value = "false"
		}
		in.Flags = flags(t, "--"+s.name+"="+value)
		after, _ := load(t, in)
		same, fixed := after.SameServer(before), after.Fixed(before)
		switch {
		case isFixed(s.name):
			if !same || !reflect.DeepEqual(fixed, []string{s.name}) {
				t.Errorf("%s: the same server: %v; fixed: %v", s.name, same, fixed)
			}
		case neither[s.name] || isOfSinks(s.name):
			if (s.name != "certificate" && s.name != "pkey") && !same || len(fixed) > 0 {
				t.Errorf("%s: the same server: %v; fixed: %v", s.name, same, fixed)
			}
		case same || len(fixed) > 0:
			t.Errorf("%s: the same server: %v; fixed: %v", s.name, same, fixed)
		}
	}
}

package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSinks(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
	in, path := fleet(t)
	c, _ := load(t, in)
	want := []Sink{
		{Name: "hook", Type: "webhook", URL: "https://a.example/?token=hush-token", Username: "me", Password: "hush-hook", CAFile: "/etc/hook-ca.pem",
			Events: []string{"tampered", "stale"}, Servers: []string{"orders", "plain"}, Databases: []string{"a$", "c"}, Tags: []string{"eu"}},
		{Name: "standard", Type: "standard-webhook", URL: "https://b.example/", Secret: secret},
		{Name: "standard-2", Type: "standard-webhook", URL: "https://b.example/", Secret: secret},
		{Name: "mail", Type: "smtp", URL: "smtp://mail.example.org:587", From: "auditor@example.org", To: []string{"a@example.org", "b@example.org"},
			Username: "me", Password: "hush-billing", TLS: "starttls"},
		{Name: "script", Type: "script", Command: "/usr/local/bin/page"},
		{Name: "scripts", Type: "script", Directory: "/etc/alert.d"},
		{Name: "alertmanager", Type: "alertmanager", URL: "http://alerts.example.org:9093"},
		{Name: "heartbeat", Type: "heartbeat", URL: "https://beat.example/"},
	}
	for i, s := range c.Sinks {
		if !reflect.DeepEqual(s, want[i]) {
			t.Errorf("got %v %q %q\nwant %v", s, s.Password, s.Secret, want[i])
		}
	}
	if len(c.Sinks) != len(want) {
		t.Errorf("%d sinks", len(c.Sinks))
	}
	if got := strings.Replace(c.SinkProvenance("standard"), path, "F", 1); got != "F:58:3" {
		t.Errorf("from %s", got)
	}
	for _, kind := range sinkTypes() {
		if !slices.ContainsFunc(c.Sinks, func(s Sink) bool { return s.Type == kind }) || len(allowed(kind)) == 0 {
			t.Errorf("no sink of type %s", kind)
		}
	}
}

func TestSecretsOfTablesAreNeverShown(t *testing.T) {
	t.Parallel()
	in, _ := fleet(t)
	c, _ := load(t, in)
	for _, v := range []any{c, *c, c.Servers(), c.Servers()[0], c.Sinks, c.Sinks[0], &c.Sinks[1], struct{ S Sink }{c.Sinks[1]}} {
		shown := ""
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			shown += fmt.Sprintf(verb, v)
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		slog.New(slog.NewTextHandler(&lines, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&lines, nil)).Info("m", "v", v)
		if shown += string(j) + lines.String(); strings.Contains(shown, "hush") || strings.Contains(shown, "whsec_") || strings.Contains(shown, "enc:") {
			t.Errorf("%T: %s", v, shown)
		}
	}
	if got := c.Sinks[0].String(); got != `name=hook type=webhook events=tampered,stale servers=orders,plain databases=a$,c tags=eu url=https://a.example/?xxxxx username=me password=(hidden) ca-file=/etc/hook-ca.pem` {
		t.Error(got)
	}
}

func TestMailWithoutTLS(t *testing.T) {
	t.Parallel()
	in := quiet(t)
	in.Offline = true
	path := filepath.Join(in.WorkDir, "immuclient.toml")
	write(t, path, "[[sink]]\nname='m'\ntype='smtp'\nurl='smtp://m.example'\nfrom='a@b.example'\nto=['c@d.example']\nusername='u'\npassword='p'\ntls='none'\n")
	_, warnings := load(t, in)
	if got := strings.ReplaceAll(texts(warnings), path, "F"); got != `F:1:3: the password of sink "m" goes over the network in the clear; set tls` {
		t.Error(got)
	}
}

package alert

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"immuaudit/evidence"
)

// real gives the program that a variable names; .ci/receivers installs both.
// Where it is not set there is nothing to speak to, which only a developer's
// machine may say.
func real(t *testing.T, variable string) (program string, there bool) {
	t.Helper()
	if program = os.Getenv(variable); program != "" {
		return program, true
	}
	if os.Getenv("IMMUAUDIT_CI") != "" {
		t.Fatalf("%s is not set; run eval \"$(.ci/receivers)\"", variable)
	}
	t.Logf("%s is not set; eval \"$(.ci/receivers)\" sets it", variable)
	return "", false
}

// serve runs a program until the test ends.
func serve(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", program, said.Bytes())
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The real Alertmanager fires on an incident, keeps firing through the daily
// reminder, and resolves when somebody decided.
func TestRealAlertmanager(t *testing.T) {
	t.Parallel()
	program, there := real(t, "IMMUAUDIT_ALERTMANAGER")
	if !there {
		return
	}
	dir, address := t.TempDir(), freeAddress(t)
	var mu sync.Mutex
	told := map[string][]string{} // what reached people: states, by alert
	people := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		var sent struct {
			Alerts []struct {
				Status string            `json:"status"`
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		}
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, a := range sent.Alerts {
			name := a.Labels["alertname"] + " " + a.Labels["database"]
			told[name] = append(told[name], a.Status)
		}
	})
	config := filepath.Join(dir, "alertmanager.yml")
	text := "route: {receiver: people, group_by: ['...'], group_wait: 100ms, group_interval: 200ms, repeat_interval: 1h}\n" +
		"receivers: [{name: people, webhook_configs: [{url: '" + people.URL + "', send_resolved: true}]}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, program, "--config.file="+config, "--storage.path="+dir, "--web.listen-address="+address, "--cluster.listen-address=")
	a, err := NewAlertmanager(AlertmanagerOptions{Name: "am", URL: "http://" + address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	fire := rich()
	fire.Name.Database, fire.At = "customers", time.Now().Add(-time.Hour)
	reminder := fire
	reminder.Type = evidence.EventStillTampered
	other := fire
	other.Name.Database = "orders\xff\n"
	stale := evidence.Event{Type: evidence.EventStale, At: time.Now().Add(-time.Minute), Name: evidence.Name{Server: "prod"}}
	eventually(t, "it takes alerts", func() bool {
		return a.SendAll(t.Context(), []evidence.Event{fire, other, stale, NewTest("prod", time.Now())}) == nil
	})
	has := func(name string, states ...string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			got := told[name]
			return len(got) >= len(states) && strings.Join(got[len(got)-len(states):], " ") == strings.Join(states, " ")
		}
	}
	for _, name := range []string{"ImmuauditTampered customers", "ImmuauditTampered orders\ufffd\n", "ImmuauditStale ", "ImmuauditTest "} {
		eventually(t, name+" fires", has(name, "firing"))
	}
	decision := evidence.Event{Type: evidence.EventDecision, At: time.Now(), Name: fire.Name, Incident: fire.Incident}
	recovered := evidence.Event{Type: evidence.EventRecovered, At: time.Now(), Name: stale.Name}
	if err := a.SendAll(t.Context(), []evidence.Event{reminder, decision, recovered}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the decision resolves", has("ImmuauditTampered customers", "firing", "resolved"))
	eventually(t, "the recovery resolves", has("ImmuauditStale ", "firing", "resolved"))
	mu.Lock()
	defer mu.Unlock()
	if got := told["ImmuauditTampered orders\ufffd\n"]; len(got) != 1 {
		t.Errorf("the other incident: %v", got)
	}
}

// sinkProgram is a mail server of aiosmtpd: STARTTLS, or TLS from the start, and
// a login; it prints what it got.
const sinkProgram = `
import asyncio, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult
host, port, cert, key, out, implicit = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open(out + ".part", "wb") as f:
            f.write(envelope.content)
        import os
        os.rename(out + ".part", out)
        return "250 ok"
def login(server, session, envelope, mechanism, data):
    return AuthResult(handled=False, success=data.login == b"watcher" and data.password == b"hunter2")
def make():
    if implicit == "yes":
        return SMTP(Handler(), authenticator=login, auth_required=True, auth_require_tls=False)
    return SMTP(Handler(), tls_context=context, require_starttls=True, authenticator=login, auth_required=True)
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, host, int(port), ssl=context if implicit == "yes" else None)
    await server.serve_forever()
asyncio.run(main())
`

// A real mail server takes what is sent, by both ways of TLS, and as it was written.
func TestRealMailServer(t *testing.T) {
	t.Parallel()
	python, there := real(t, "IMMUAUDIT_SMTP_SINK")
	if !there {
		return
	}
	for scheme, implicit := range map[string]string{"smtp": "no", "smtps": "yes"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			dir, address := t.TempDir(), freeAddress(t)
			host, port, _ := net.SplitHostPort(address)
			roots := certify(t, dir)
			out := filepath.Join(dir, "mail")
			serve(t, python, "-c", sinkProgram, host, port, dir+"/cert.pem", dir+"/key.pem", out, implicit)
			sink, err := NewSMTP(SMTPOptions{
				Name: "mail", URL: scheme + "://" + address, Username: "watcher", Password: "hunter2", From: "auditor@example.org",
				To: []string{"oncall@example.org"}, Roots: roots,
			})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "a mail is taken", func() bool { err = sink.Send(t.Context(), rich()); return err == nil })
			raw, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			checkMail(t, string(raw))
			wrong := *sink
			wrong.password = "wrong"
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := wrong.Send(ctx, rich()); err == nil || !strings.Contains(err.Error(), "535") {
				t.Errorf("a wrong password: %v", err)
			}
		})
	}
}

// certify writes a certificate for this machine and gives who trusts it.
func certify(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return roots
}
